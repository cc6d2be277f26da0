"""`mix build|show|sample|lineage`: the locked recipe of a training corpus, and the way back from any sample."""

from pathlib import Path
from typing import Annotated

import typer

from apps.cli.options import DEFAULT_WORKSPACE, AsJson, WorkspaceDir
from apps.cli.output import show_json, show_record
from apps.cli.vlm import Weights, weights_folder
from dataengine.workspace import Workspace
from schemas.refs import Ref

mix_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Build a training mix, look at it, follow it back."
)
MixRef = Annotated[str, typer.Argument(help="NAME@VERSION of the mix.")]
Position = Annotated[int, typer.Option("--position", min=0, help="Which draw of the pass.")]


@mix_app.command()
def build(
    spec: Annotated[Path, typer.Argument(help="YAML file: sources and weights.")],
    to: Annotated[str, typer.Option("--to", help="NAME@VERSION of the mix to make.")],
    recipe: Annotated[str, typer.Option("--recipe", help="Whose tokens are counted.")] = "nano",
    weights: Weights = None,
    workspace: WorkspaceDir = DEFAULT_WORKSPACE,
    as_json: AsJson = False,
) -> None:
    """Resolve a mix file to a lock: every source pinned by content, every ratio an integer number of draws.

    Example: dataengine mix build mix.yaml --to corpus@1
    """
    from dataengine.mix import Mix, build_mix
    from trainers.recipes import recipe as find_recipe
    from trainers.tokenizer import tokenizer_of

    place = Workspace.at(workspace)
    ref = Ref.parse(to)
    config = find_recipe(recipe, weights=weights_folder(weights, workspace))
    record = build_mix(
        spec_path=spec, to=ref, workspace=place, tokenizer=tokenizer_of(config), image_tokens=config.image_tokens
    )
    show_record(record, as_json=as_json)
    if not as_json:
        typer.echo(Mix.open(place, ref).tree())


@mix_app.command()
def show(mix: MixRef, workspace: WorkspaceDir = DEFAULT_WORKSPACE, as_json: AsJson = False) -> None:
    """Print the tree of a mix with stated, resolved and observed ratios.

    Example: dataengine mix show corpus@1
    """
    from dataengine.mix import Mix

    opened = Mix.open(Workspace.at(workspace), Ref.parse(mix))
    if as_json:
        show_json(opened.tree_rows())
    else:
        typer.echo(opened.tree())


@mix_app.command()
def sample(
    mix: MixRef,
    position: Position = 0,
    out: Annotated[Path, typer.Option("--out", help="HTML file to write.")] = Path("sample.html"),
    recipe: Annotated[str, typer.Option("--recipe", help="Whose tokens are shown.")] = "nano",
    weights: Weights = None,
    workspace: WorkspaceDir = DEFAULT_WORKSPACE,
) -> None:
    """Write one draw, exactly as the model gets it, as a self-contained page.

    Example: dataengine mix sample corpus@1 --position 7 --out sample.html
    """
    from dataengine.mix import Mix, sample_html
    from trainers.recipes import recipe as find_recipe
    from trainers.tokenizer import tokenizer_of

    opened = Mix.open(Workspace.at(workspace), Ref.parse(mix))
    config = find_recipe(recipe, weights=weights_folder(weights, workspace))
    out.write_text(sample_html(opened, position, tokenizer_of(config), config.image_tokens))
    typer.echo(f"{out}: draw {position} of {mix}")


@mix_app.command()
def lineage(
    mix: MixRef, position: Position = 0, workspace: WorkspaceDir = DEFAULT_WORKSPACE, as_json: AsJson = False
) -> None:
    """Follow one draw back to its episode, frame, raw file, annotation, model and reviewer.

    Example: dataengine mix lineage corpus@1 --position 7
    """
    from dataengine.mix import Mix
    from dataengine.mix import lineage as trace_back

    line = trace_back(Mix.open(Workspace.at(workspace), Ref.parse(mix)), position)
    if as_json:
        show_json(line.to_json())
    else:
        typer.echo(line.render())
