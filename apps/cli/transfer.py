"""`push` and `pull`: whole artifacts to and from a disk, an object store, or the Hugging Face Hub."""

import json
from typing import Annotated

import typer

from apps.cli.options import DEFAULT_WORKSPACE, AsJson, WorkspaceDir
from apps.cli.output import show_json
from apps.cli.progress import progress
from dataengine.workspace import Workspace
from schemas.errors import UsageError
from schemas.refs import Ref

Options = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        help="KEY=VALUE for the store, may be repeated: endpoint_url, key, secret, anon (s3); endpoint, token, "
        "private (hf). Default: the usual environment variables.",
    ),
]
Threads = Annotated[int, typer.Option("--threads", min=1, help="Files that move at a time.")]

_TYPED = (  # options that are not text; a key of digits alone stays one
    "anon",
    "private",
    "use_ssl",
    "requester_pays",
    "version_aware",
    "auto_mkdir",
    "port",
    "timeout",
    "default_block_size",
    "max_concurrency",
    "client_kwargs",
    "config_kwargs",
    "s3_additional_kwargs",
)


def parse_options(pairs: list[str] | None) -> dict[str, object]:
    """`key=value` -> {key: value}; the value of a few is JSON (true, 22, {...}), every other is text.

    Raises UsageError.
    """
    options: dict[str, object] = {}
    for pair in pairs or ():
        key, equals, text = pair.partition("=")
        if not (key and equals):
            raise UsageError(f"'{key}' is no option. Write it as KEY=VALUE, e.g. endpoint_url=http://minio:9000.")
        options[key] = _typed(key, text) if key in _TYPED else text
    return options


def _typed(key: str, text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise UsageError(
            f"option {key} is no text. Write it as {key}=true, {key}=22 or {key}='{{...}}', what it takes, in JSON."
        ) from None


def push(
    ref: Annotated[str, typer.Argument(help="NAME@VERSION, with KIND/ before it when several kinds share it.")],
    url: Annotated[str, typer.Argument(help="s3://BUCKET/FOLDER, file:///FOLDER, ... or hf://OWNER/NAME.")],
    option: Options = None,
    threads: Threads = 8,
    workspace: WorkspaceDir = DEFAULT_WORKSPACE,
    as_json: AsJson = False,
) -> None:
    """Copy one artifact to a store; a push that was interrupted goes on where it stopped.

    Example: dataengine push episodes/sim@1 s3://team/robots
    """
    from apps.cli.shelf import find_record
    from dataengine.transfer import push as run

    place = Workspace.at(workspace)
    record = find_record(place, ref)
    with progress("push") as on_progress:
        report = run(
            workspace=place,
            kind=record.kind,
            ref=Ref(record.name, record.version),
            url=url,
            options=parse_options(option),
            threads=threads,
            on_progress=on_progress,
        )
    if as_json:
        show_json(report.to_json())
        return
    typer.echo(report.summary("sent"))
    typer.echo(f"Get it with: dataengine pull {report.url}")


def pull(
    url: Annotated[str, typer.Argument(help="What push printed, e.g. s3://BUCKET/FOLDER/episodes/NAME@VERSION.")],
    to: Annotated[str | None, typer.Option("--to", help="NAME@VERSION here. Default: its own name.")] = None,
    option: Options = None,
    threads: Threads = 8,
    workspace: WorkspaceDir = DEFAULT_WORKSPACE,
    as_json: AsJson = False,
) -> None:
    """Copy one artifact from a store into the workspace, every file checked by its sha256.

    Example: dataengine pull s3://team/robots/episodes/sim@1
    """
    from dataengine.transfer import pull as run

    with progress("pull") as on_progress:
        report = run(
            workspace=Workspace.at(workspace),
            url=url,
            to=Ref.parse(to) if to else None,
            options=parse_options(option),
            threads=threads,
            on_progress=on_progress,
        )
    if as_json:
        show_json(report.to_json())
        return
    typer.echo(report.summary("fetched"))
    typer.echo(f"Look at it with: dataengine show {report.record.kind}/{report.record.name}@{report.record.version}")
