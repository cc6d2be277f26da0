"""`annotate` and `release`: from episodes to reasoning that programs checked and people corrected."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from apps.cli.options import DEFAULT_WORKSPACE, AsJson, LedgerUrl, RayAddress, Workers, WorkspaceDir
from apps.cli.output import show_json, show_record
from apps.cli.progress import progress
from apps.cli.vlm import BatchSize, DeviceWord, model_folder
from dataengine.workspace import Workspace
from schemas.errors import UsageError
from schemas.refs import Ref

if TYPE_CHECKING:
    from annotators.vlm.backends import BackendConfig
    from annotators.vlm.chat_model import Device


def annotate(
    episodes: Annotated[str, typer.Argument(help="NAME@VERSION of the episodes.")],
    family: Annotated[
        str, typer.Option("--family", help="Task family: what is asked, and which programs check it.")
    ] = "math-matching",
    backend: Annotated[
        Literal["perception", "endpoint", "replay"] | None,
        typer.Option("--backend", help="Who reads the scene. Default: perception, which needs no model."),
    ] = None,
    vlm: Annotated[
        str | None,
        typer.Option(
            "--vlm",
            help="Ask a local model instead: local:DIR, a Hugging Face directory, or nano where one is installed.",
        ),
    ] = None,
    url: Annotated[
        list[str] | None,
        typer.Option("--url", help="OpenAI-compatible endpoint; repeat for several. For --backend endpoint."),
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="Model name at the endpoint.")] = None,
    answers: Annotated[Path | None, typer.Option("--answers", help="Recorded answers. For --backend replay.")] = None,
    batch_size: BatchSize = 8,
    device: DeviceWord = "auto",
    episode: Annotated[
        list[str] | None, typer.Option("--episode", help="Only this episode_id; repeat for several.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how many calls it would take; ask nothing.")] = False,
    workspace: WorkspaceDir = DEFAULT_WORKSPACE,
    ledger: LedgerUrl = None,
    workers: Workers = None,
    ray_address: RayAddress = None,
    as_json: AsJson = False,
) -> None:
    """Propose reasoning traces and segments for every episode, and let programs check them.

    Example: dataengine annotate sim@1 --family math-matching
    """
    from annotators.annotate import annotate as run
    from annotators.ledger import Ledger

    config = _backend(backend, url or [], model, answers) if vlm is None else _local(vlm, backend, device, batch_size)
    place = Workspace.at(workspace)
    ref = Ref.parse(episodes)
    place.find("episodes", ref)
    with Ledger.open(ledger or place.ledger_url) as book, progress("annotate") as on_progress:
        report = run(
            episodes=ref,
            workspace=place,
            family=family,
            backend=config,
            workers=workers,
            ray_address=ray_address,
            episode_ids=episode,
            ledger=book,
            dry_run=dry_run,
            on_progress=on_progress,
        )
    if as_json:
        show_json(report.to_json())
        return
    typer.echo(report.summary())


def _local(vlm: str, backend: str | None, device: "Device", batch_size: int) -> "BackendConfig":
    """The backend that `--vlm` chooses."""
    from annotators.vlm.backends import Local

    if backend is not None:
        raise UsageError(f"--vlm {vlm} and --backend {backend} both say who is asked. Give one of them.")
    return Local(path=model_folder(vlm), device=device, batch_size=batch_size)


def _backend(kind: str | None, urls: list[str], model: str | None, answers: Path | None) -> "BackendConfig":
    """The backend that the words on the command line choose."""
    from annotators.vlm.backends import Endpoint, Perception, Replay

    match kind:
        case "endpoint":
            if not urls or model is None:
                raise UsageError(
                    "--backend endpoint needs --url and --model, e.g. --url http://127.0.0.1:8000/v1 --model NAME."
                )
            return Endpoint(urls=tuple(urls), model=model)
        case "replay":
            if answers is None:
                raise UsageError("--backend replay needs --answers FILE with recorded answers.")
            return Replay(path=answers)
        case _:
            return Perception()


def release(
    episodes: Annotated[str, typer.Argument(help="NAME@VERSION of the episodes.")],
    to: Annotated[str, typer.Option("--to", help="NAME@VERSION of the annotation set to make.")],
    policy: Annotated[
        Literal["human", "verified", "either"],
        typer.Option("--policy", help="human: people decided; verified: all hard verifiers pass; either: both count."),
    ] = "either",
    seq: Annotated[int | None, typer.Option("--seq", help="Freeze the ledger at this point. Default: now.")] = None,
    workspace: WorkspaceDir = DEFAULT_WORKSPACE,
    ledger: LedgerUrl = None,
    as_json: AsJson = False,
) -> None:
    """Freeze proposals and decisions into an immutable annotation set.

    Example: dataengine release sim@1 --policy verified --to sim-verified@1
    """
    from annotators.ledger import Ledger
    from annotators.release import release as run

    place = Workspace.at(workspace)
    ref = Ref.parse(episodes)
    place.find("episodes", ref)
    with Ledger.open(ledger or place.ledger_url) as book:
        record = run(episodes=ref, to=Ref.parse(to), workspace=place, ledger=book, policy=policy, seq=seq)
    show_record(record, as_json=as_json)
    if policy == "verified" and not as_json:
        typer.echo("Policy 'verified': every hard verifier passed; a row nobody looked at has no reviewer.")
