"""`serve-vlm`, and the words that choose a model directory."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from dataengine.workspace import Workspace
from schemas.refs import Ref

DeviceWord = Annotated[
    Literal["auto", "cpu", "cuda"], typer.Option("--device", help="Where a local model runs. auto: a GPU if there is.")
]
BatchSize = Annotated[
    int, typer.Option("--batch-size", min=1, help="Questions a local model answers together; memory grows with it.")
]
Weights = Annotated[
    str | None,
    typer.Option(
        "--weights", help="nano, NAME@VERSION of a small VLM, or a folder of a dense Qwen2-VL, to start from."
    ),
]


def weights_folder(word: str | None, workspace: Path) -> Path | None:
    """Where a recipe's weights lie; None where it starts from nothing.

    Raises RefError where the workspace holds no such checkpoint, BackendError where `nano` is not installed.
    """
    if word is None:
        return None
    folder = model_folder(word)
    is_checkpoint = "@" in word and "/" not in word and not folder.exists()
    return Workspace.at(workspace).find("checkpoints", Ref.parse(word)) if is_checkpoint else folder


def model_folder(word: str) -> Path:
    """The directory behind `nano`, `local:DIR` or DIR. Raises BackendError when `nano` is not in this installation."""
    if word == "nano":
        from annotators.vlm.local import nano_model_dir

        return nano_model_dir()
    return Path(word.removeprefix("local:")).expanduser()


def serve_vlm(
    model: Annotated[
        str, typer.Argument(help="nano, or a local Hugging Face directory of a vision-language chat model.")
    ],
    host: Annotated[str, typer.Option("--host")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port")] = 8001,
    token: Annotated[
        str | None, typer.Option("--token", envvar="DATAENGINE_TOKEN", help="Required for any host but loopback.")
    ] = None,
    device: DeviceWord = "auto",
    batch_size: BatchSize = 8,
) -> None:
    """Put a local vision-language model behind an OpenAI-compatible endpoint, its answers held to JSON schemas.

    Example: dataengine serve-vlm models/Qwen2-VL-2B-Instruct --port 8001
    """
    from apps.server.vlm_server import serve_vlm as run

    counts = run(
        model_folder(model),
        host=host,
        port=port,
        token=token,
        device=device,
        batch_size=batch_size,
        on_ready=lambda name, ready: typer.echo(f"{name} listens on http://{host}:{ready}/v1 (stop with Ctrl-C)"),
    )
    typer.echo(", ".join(f"{value} {name}" for name, value in asdict(counts).items()))
