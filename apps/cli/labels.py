"""`annotate` and `release`: from episodes to reasoning that programs checked and people corrected."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

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
    from annotators.vlm.costs import Prices


def annotate(
    episodes: Annotated[str, typer.Argument(help="NAME@VERSION of the episodes.")],
    family: Annotated[
        str, typer.Option("--family", help="What is asked and who checks it: a name that ships, or a folder.")
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
    in_flight: Annotated[
        int | None, typer.Option("--in-flight", min=1, help="Calls under way at each URL, at most. Default: 8.")
    ] = None,
    requests_per_minute: Annotated[
        float | None, typer.Option("--requests-per-minute", help="Ask the endpoint no more often than this.")
    ] = None,
    tokens_per_minute: Annotated[
        float | None, typer.Option("--tokens-per-minute", help="Tokens sent to and got from the endpoint, at most.")
    ] = None,
    price_in: Annotated[
        float | None, typer.Option("--price-in", help="What the endpoint charges per million input tokens.")
    ] = None,
    price_out: Annotated[
        float | None, typer.Option("--price-out", help="What the endpoint charges per million output tokens.")
    ] = None,
    budget: Annotated[
        float | None, typer.Option("--budget", help="Stop before this run spends more; in the currency of the prices.")
    ] = None,
    api_key_env: Annotated[
        str | None,
        typer.Option("--api-key-env", help="Environment variable that holds the key. Default: OPENAI_API_KEY."),
    ] = None,
    batch_size: BatchSize = 8,
    device: DeviceWord = "auto",
    episode: Annotated[
        list[str] | None, typer.Option("--episode", help="Only this episode_id; repeat for several.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say how many calls and tokens it would take; ask nothing.")
    ] = False,
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

    said = {
        "in_flight": in_flight,
        "requests_per_minute": requests_per_minute,
        "tokens_per_minute": tokens_per_minute,
        "prices": _prices(price_in, price_out),
        "budget": budget,
        "api_key_env": api_key_env,
    }
    limits = {name: value for name, value in said.items() if value is not None}
    if limits and backend != "endpoint":
        flags = "--in-flight, limits, prices, --budget and --api-key-env"
        raise UsageError(f"{flags} are for --backend endpoint alone. Leave them out, or name an endpoint.")
    if vlm is None:
        config = _backend(backend, url or [], model, answers, limits)
    else:
        config = _local(vlm, backend, device, batch_size)
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


def _prices(price_in: float | None, price_out: float | None) -> "Prices | None":
    """What the endpoint charges; None where nothing is said."""
    if price_in is None and price_out is None:
        return None
    from annotators.vlm.costs import Prices

    return Prices(input_per_million=price_in or 0.0, output_per_million=price_out or 0.0)


def _backend(
    kind: str | None, urls: list[str], model: str | None, answers: Path | None, limits: dict[str, Any]
) -> "BackendConfig":
    """The backend that the words on the command line choose."""
    from annotators.vlm.backends import Endpoint, Perception, Replay

    match kind:
        case "endpoint":
            if not urls or model is None:
                raise UsageError(
                    "--backend endpoint needs --url and --model, e.g. --url http://127.0.0.1:8000/v1 --model NAME."
                )
            return Endpoint(urls=tuple(urls), model=model, **limits)
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
    field: Annotated[str | None, typer.Option("--field", help="Only this kind of item, e.g. trace.")] = None,
    family: Annotated[str | None, typer.Option("--family", help="Only this task family, e.g. math-matching@1.")] = None,
    annotator: Annotated[str | None, typer.Option("--annotator", help="Only what this model or program said.")] = None,
    stratum: Annotated[str | None, typer.Option("--stratum", help="Only this kind of scene; see review stats.")] = None,
    workspace: WorkspaceDir = DEFAULT_WORKSPACE,
    ledger: LedgerUrl = None,
    as_json: AsJson = False,
) -> None:
    """Freeze proposals and decisions into an immutable annotation set.

    Example: dataengine release sim@1 --policy verified --to sim-verified@1
    """
    from annotators.ledger import Ledger
    from annotators.release import ReleaseFilter
    from annotators.release import release as run

    place = Workspace.at(workspace)
    ref = Ref.parse(episodes)
    place.find("episodes", ref)
    wanted = ReleaseFilter(field=field, family=family, annotator=annotator, stratum=stratum)
    with Ledger.open(ledger or place.ledger_url) as book:
        record = run(
            episodes=ref, to=Ref.parse(to), workspace=place, ledger=book, policy=policy, seq=seq, wanted=wanted
        )
    show_record(record, as_json=as_json)
    if policy == "verified" and not as_json:
        typer.echo("Policy 'verified': every hard verifier passed; a row nobody looked at has no reviewer.")
