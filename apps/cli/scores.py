"""`evaluate samples|golden|retention`: how good a checkpoint is, a prompt, and what was forgotten on the way."""

from dataclasses import asdict
from typing import Annotated

import typer

from apps.cli.options import DEFAULT_WORKSPACE, AsJson, WorkspaceDir
from apps.cli.output import show_json, show_record
from apps.cli.progress import progress
from apps.cli.vlm import DeviceWord, model_folder
from dataengine.workspace import Workspace
from schemas.errors import UsageError
from schemas.refs import Ref

evaluate_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Score a checkpoint, and what it kept of its VLM."
)


@evaluate_app.command()
def samples(
    checkpoint: Annotated[str, typer.Argument(help="NAME@VERSION of the checkpoint.")],
    mix: Annotated[str, typer.Option("--mix", help="NAME@VERSION of the mix whose held-out samples are used.")],
    samples: Annotated[int, typer.Option("--samples", min=1, help="Held-out samples, drawn from every source.")] = 64,
    workspace: WorkspaceDir = DEFAULT_WORKSPACE,
    as_json: AsJson = False,
) -> None:
    """Score a checkpoint on held-out samples of a mix: losses per source, and answers that are right word for word.

    Example: dataengine evaluate samples policy@1 --mix corpus@1
    """
    from dataengine.mix import Mix
    from trainers.checkpoint import load_trained
    from trainers.evaluate import evaluate as score

    place = Workspace.at(workspace)
    trained = load_trained(place.find("checkpoints", Ref.parse(checkpoint)))
    rows = score(trained, Mix.open(place, Ref.parse(mix)).validation_samples(samples))
    if as_json:
        show_json([asdict(row) for row in rows])
        return
    for row in rows:
        action = "" if row.action_loss is None else f", action loss {row.action_loss:.3f}"
        typer.echo(
            f"{row.source}: {row.num_samples} held-out samples, text loss {row.text_loss:.3f}{action}; "
            f"{row.num_exact} of {row.num_answered} answers right word for word"
        )


@evaluate_app.command()
def golden(
    family: Annotated[str, typer.Argument(help="A task family that ships, or a folder of your own.")],
    vlm: Annotated[str | None, typer.Option("--vlm", help="Who is asked: nano, or local:DIR.")] = None,
    url: Annotated[list[str] | None, typer.Option("--url", help="Or an OpenAI-compatible endpoint.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="Model name at the endpoint.")] = None,
    device: DeviceWord = "auto",
    workspace: WorkspaceDir = DEFAULT_WORKSPACE,
    as_json: AsJson = False,
) -> None:
    """Ask a model the golden questions of a family's prompts, and keep the scores beside the prompts.

    Example: dataengine evaluate golden math-matching --vlm nano
    """
    from contextlib import closing

    from annotators.calls import CallStore
    from annotators.families import load_family
    from annotators.golden import keep, score
    from annotators.vlm.endpoint import Endpoint, EndpointClient
    from annotators.vlm.local import Local, LocalClient
    from annotators.vlm.mending import MendingClient
    from annotators.vlm.stored import StoredClient

    if (vlm is None) == (not url or model is None):
        raise UsageError("one model is asked: give --vlm nano, --vlm local:DIR, or --url with --model.")
    task = load_family(family)
    inner: EndpointClient | LocalClient
    if vlm is not None:
        inner = LocalClient(Local(path=model_folder(vlm), device=device), workers=0)
    else:
        inner = EndpointClient(Endpoint(urls=tuple(url or ()), model=model or ""))
    with closing(inner), CallStore.open(Workspace.at(workspace).calls_url) as store:
        scores = score(task, inner.speaker, MendingClient(StoredClient(inner, store)))
    keep(task, scores)
    if as_json:
        show_json([one.model_dump(mode="json") for one in scores])
        return
    for one in scores:
        typer.echo(one.words())


@evaluate_app.command()
def retention(
    checkpoints: Annotated[list[str], typer.Argument(help="NAME@VERSION of one or more checkpoints.")],
    to: Annotated[str, typer.Option("--to", help="NAME@VERSION of the evaluation to make.")],
    base: Annotated[str, typer.Option("--base", help="What they started from: nano, or a model directory.")] = "nano",
    exams: Annotated[int, typer.Option("--exams", min=1, help="Held-out questions a skill.")] = 50,
    workspace: WorkspaceDir = DEFAULT_WORKSPACE,
    as_json: AsJson = False,
) -> None:
    """Ask a VLM and what robot training made of it the same held-out questions: what was forgotten, skill by skill.

    Example: dataengine evaluate retention policy@1 --to kept@1
    """
    from trainers.vlm.retention import compare, read_retention

    place, ref = Workspace.at(workspace), Ref.parse(to)
    with progress("evaluate", unit="models") as on_progress:
        record = compare(
            base=model_folder(base),
            checkpoints=[Ref.parse(word) for word in checkpoints],
            to=ref,
            workspace=place,
            exams_per_skill=exams,
            on_progress=on_progress,
        )
    if as_json:
        show_json([asdict(one) for one in read_retention(place.find("evaluations", ref))])
        return
    show_record(record, as_json=False)
    for one in read_retention(place.find("evaluations", ref)):
        typer.echo(f"{one.checkpoint}: skill, right before and after, change with its 95 % interval")
        for row in one.rows:
            typer.echo(
                f"  {row.skill:<10} {row.base_right:>4} -> {row.right:>4} of {row.num}  {row.change:+.1%} "
                f"({row.low:+.1%} to {row.high:+.1%})"
            )
