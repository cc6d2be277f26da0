"""Options that several verbs share, spelled once."""

from pathlib import Path
from typing import Annotated

import typer

WorkspaceDir = Annotated[
    Path,
    typer.Option(
        "--workspace", envvar="DATAENGINE_WORKSPACE", help="Folder that holds all artifacts.", show_default=True
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print facts as JSON, for programs.")]
RayAddress = Annotated[
    str | None, typer.Option("--ray-address", help="Join a Ray cluster instead of starting one here.")
]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="Parallel workers. Default: one per core.")]
LedgerUrl = Annotated[
    str | None,
    typer.Option(
        "--ledger",
        "--db",
        envvar="DATAENGINE_LEDGER",
        help="URL of the ledger, e.g. postgresql+psycopg://USER@HOST/NAME. Default: ledger.db in the workspace.",
    ),
]
DEFAULT_WORKSPACE = Path("workspace")
