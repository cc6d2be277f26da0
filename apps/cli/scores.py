"""`evaluate samples|retention`: how good a checkpoint is, and what it forgot of the model it started from."""

from dataclasses import asdict
from typing import Annotated

import typer

from apps.cli.options import DEFAULT_WORKSPACE, AsJson, WorkspaceDir
from apps.cli.output import show_json, show_record
from apps.cli.progress import progress
from apps.cli.vlm import model_folder
from dataengine.workspace import Workspace
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
