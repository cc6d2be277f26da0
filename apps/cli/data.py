"""`simulate`, `render`, `inspect`, `verify`: what a robot wrote, and whether what was made of it can be trusted."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from apps.cli.options import DEFAULT_WORKSPACE, AsJson, RayAddress, Workers, WorkspaceDir
from apps.cli.output import show_json
from apps.cli.progress import progress
from dataengine.workspace import Workspace
from schemas.errors import EngineError, UsageError
from schemas.refs import Ref

if TYPE_CHECKING:
    from dataengine.inspection import Inspection


def parse_size(text: str) -> tuple[int, int]:
    """`320x240` -> (320, 240), width then height."""
    width, times, height = text.partition("x")
    if not (times and width.isdigit() and height.isdigit() and int(width) > 0 and int(height) > 0):
        raise UsageError(f"'{text}' is no size. Write WIDTHxHEIGHT, e.g. 320x240.")
    return int(width), int(height)


def simulate(
    out: Annotated[Path, typer.Option("--out", help="Folder to write the raw episodes to.")] = Path("raw/sim"),
    episodes: Annotated[int, typer.Option("--episodes", min=1)] = 20,
    task: Annotated[
        Literal["math-matching", "toy-placement"],
        typer.Option("--task", help="Pick the card with the answer, or put a toy where an instruction says."),
    ] = "math-matching",
    split: Annotated[Literal["in-domain", "open-world"], typer.Option("--split")] = "in-domain",
    seed: Annotated[int, typer.Option("--seed")] = 0,
    image_size: Annotated[str, typer.Option("--image-size", help="WIDTHxHEIGHT.")] = "320x240",
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Record scripted teleoperation of the simulated tabletop as a lab would: one ALOHA/DexVLA HDF5 per episode.

    Example: dataengine simulate --episodes 20 --out raw/sim
    """
    from apps.sim.simulate import simulate as run

    with progress("simulate") as on_progress:
        report = run(
            out=out,
            num_episodes=episodes,
            split=split,
            seed=seed,
            task=task,
            image_size=parse_size(image_size),
            workers=workers or os.cpu_count() or 1,
            on_progress=on_progress,
        )
    if as_json:
        show_json(report.to_json())
        return
    typer.echo(report.summary())
    typer.echo(f"Next: dataengine convert {out} --rig aloha_sim --to sim@1")


def render(
    out: Annotated[Path, typer.Option("--out", help="Folder to write images/ and conversations.json to.")] = Path(
        "raw/questions"
    ),
    skill: Annotated[
        list[str] | None,
        typer.Option("--skill", help="transcribe, solve, cards, count, point, ...; may be given again. Default: all."),
    ] = None,
    rows_per_skill: Annotated[int, typer.Option("--rows-per-skill", min=1)] = 100,
    split: Annotated[
        Literal["train", "held-out"],
        typer.Option("--split", help="Equations, handwriting and card layouts of one are never in the other."),
    ] = "train",
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Draw whiteboards and tables with questions and answers, as a LLaVA-style folder that `mix` and others read.

    Example: dataengine render --out raw/questions --skill transcribe --skill solve --rows-per-skill 500
    """
    from apps.rendered_set import write_rendered_set

    with progress("render", unit="pictures") as on_progress:
        num = write_rendered_set(
            out,
            skills=skill or (),
            rows_per_skill=rows_per_skill,
            split=split,
            seed=seed,
            workers=workers or os.cpu_count() or 1,
            on_progress=on_progress,
        )
    if as_json:
        show_json({"out": str(out), "pictures": num})
        return
    typer.echo(f"{num} pictures with a question and an answer each: {out / 'conversations.json'}")
    typer.echo("Next: a source of a mix, {kind: llava, path: conversations.json}, in a mix.yaml beside it")


def inspect(
    path: Annotated[Path, typer.Argument(help="Folder or recording that a robot wrote.")],
    as_json: AsJson = False,
    rig_out: Annotated[Path | None, typer.Option("--rig-out", help="Write the draft rig to this file.")] = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write a page with a picture of each camera to this file.")
    ] = None,
) -> None:
    """Say what raw data is: format, keys, shapes, cameras, rates, gaps, and a draft rig with every unknown asked.

    Example: dataengine inspect raw/sim --html inspect.html
    """
    from apps.cli.words import inspection_words
    from dataengine.inspection import inspect_path

    if html is not None and not html.absolute().parent.is_dir():
        raise UsageError(f"there is no folder {html.absolute().parent} for the page {html.name}. Make it first.")
    inspection = inspect_path(path)
    if html is not None:
        _write_inspection(html, path, inspection)
    if rig_out is not None:
        if rig_out.exists():
            raise UsageError(f"{rig_out} exists. Choose another file for the draft rig; yours is not overwritten.")
        rig_out.write_text(inspection.draft_rig_yaml)
    if as_json:
        show_json(inspection.to_json())
        return
    typer.echo(inspection_words(inspection))


def verify(
    words: Annotated[
        list[str],
        typer.Argument(metavar="[PATH] NAME@VERSION", help="The raw data it was converted from, and the dataset."),
    ],
    rig: Annotated[str | None, typer.Option("--rig", help="The rig it was converted with, if not the same.")] = None,
    quality: Annotated[
        bool, typer.Option("--quality/--no-quality", help="Look for faults in the episodes themselves too.")
    ] = True,
    limits: Annotated[
        Path | None, typer.Option("--limits", help="YAML that overrules limits of the quality checks.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 also where a quality check fails.")] = False,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write a page with pictures of what is wrong to this file.")
    ] = None,
    workspace: WorkspaceDir = DEFAULT_WORKSPACE,
    workers: Workers = None,
    ray_address: RayAddress = None,
    as_json: AsJson = False,
) -> None:
    """Prove that a dataset equals its source, number by number and packet by packet; look for faults in its episodes.

    Without PATH the faults alone: frozen or black cameras, jumps, stuck joints, dropped frames, lags, duplicates.

    Example: dataengine verify raw/sim sim@1 --html verify.html
    """
    from apps.cli.words import quality_words, verify_words
    from dataengine.quality import QualityLimits, QualityReport, check_quality, load_limits
    from dataengine.verification import VerifyReport
    from dataengine.verification import verify as run

    _check_words(words)
    if html is not None and not html.absolute().parent.is_dir():
        raise UsageError(f"there is no folder {html.absolute().parent} for the page {html.name}. Make it first.")
    if len(words) > 2:
        raise UsageError(f"verify takes a path and a NAME@VERSION, got {len(words)} words: {' '.join(words)}.")
    if len(words) == 1 and not quality:
        raise UsageError("--no-quality without a path leaves nothing to do. Name the raw data before NAME@VERSION.")
    place, ref = Workspace.at(workspace), Ref.parse(words[-1])
    bounds = load_limits(limits) if limits else QualityLimits()
    comparison: VerifyReport | None = None
    if len(words) == 2:
        with progress("verify") as on_progress:
            comparison = run(
                source_path=Path(words[0]),
                ref=ref,
                workspace=place,
                rig=rig,
                workers=workers,
                ray_address=ray_address,
                on_progress=on_progress,
            )
    found: QualityReport | None = None
    if quality:
        with progress("look for faults") as on_progress:
            found = check_quality(
                ref=ref,
                workspace=place,
                limits=bounds,
                workers=workers,
                ray_address=ray_address,
                on_progress=on_progress,
            )
    if as_json:
        show_json({"comparison": comparison and comparison.to_json(), "quality": found and found.to_json()})
    else:
        if comparison is not None:
            typer.echo(verify_words(comparison))
        if found is not None:
            typer.echo(quality_words(found))
    if html is not None:
        from apps.report.quality_page import write_verify_page

        write_verify_page(html, workspace=place, comparison=comparison, quality=found)
        if not as_json:
            typer.echo(f"page: {html}")
    if (comparison and not comparison.ok) or (strict and found and not found.ok):
        raise typer.Exit(1)


def _check_words(words: list[str]) -> None:
    """PATH before NAME@VERSION; either order looks the same to a person in a hurry."""
    if len(words) == 2 and "@" in words[0] and "@" not in words[1]:
        raise UsageError(f"the path comes first: dataengine verify '{words[1]}' {words[0]}")
    if len(words) == 1 and "@" not in words[0]:
        raise UsageError(f"'{words[0]}' names no dataset. Write: dataengine verify '{words[0]}' NAME@VERSION")


def _write_inspection(html: Path, path: Path, inspection: "Inspection") -> None:
    from dataclasses import replace

    from apps.report.inspection_page import write_inspection_page
    from dataengine.inspection_pictures import inspection_pictures

    why = ""
    try:
        inspection = replace(inspection, pictures=inspection_pictures(path, inspection))
    except EngineError as error:
        why = str(error)
    write_inspection_page(html, inspection, name=path.name, without_pictures=why)
