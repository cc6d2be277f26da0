"""`simulate`, `inspect`, `convert`, `verify`: from what a robot wrote to a dataset that can be trusted."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from apps.cli.options import DEFAULT_WORKSPACE, AsJson, RayAddress, Workers, WorkspaceDir
from apps.cli.output import show_json
from apps.cli.progress import progress
from dataengine.workspace import Workspace
from schemas.errors import UsageError
from schemas.refs import Ref


def parse_share(text: str) -> float:
    """`10%` or `0.1` -> 0.1. Raises UsageError outside 0..100 %."""
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise UsageError(f"'{text}' is no share. Write it as 10% or 0.1.") from None
    if not 0 <= share <= 1:
        raise UsageError(f"'{text}' is outside 0..100 %. Write it as 10% or 0.1.")
    return share


def parse_size(text: str) -> tuple[int, int]:
    """`320x240` -> (320, 240), width then height."""
    width, times, height = text.partition("x")
    if not (times and width.isdigit() and height.isdigit() and int(width) > 0 and int(height) > 0):
        raise UsageError(f"'{text}' is no size. Write WIDTHxHEIGHT, e.g. 320x240.")
    return int(width), int(height)


def simulate(
    out: Annotated[Path, typer.Option("--out", help="Folder to write the raw episodes to.")] = Path("raw/sim"),
    episodes: Annotated[int, typer.Option("--episodes", min=1)] = 20,
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
            image_size=parse_size(image_size),
            workers=workers or os.cpu_count() or 1,
            on_progress=on_progress,
        )
    if as_json:
        show_json(report.to_json())
        return
    typer.echo(report.summary())
    typer.echo(f"Next: dataengine convert {out} --rig aloha_sim --to sim@1")


def inspect(
    path: Annotated[Path, typer.Argument(help="Folder that a robot wrote.")],
    as_json: AsJson = False,
    rig_out: Annotated[Path | None, typer.Option("--rig-out", help="Write the draft rig to this file.")] = None,
) -> None:
    """Say what raw data is: format, keys, shapes, cameras, rates, gaps, and a draft rig with every unknown asked.

    Example: dataengine inspect raw/sim
    """
    from apps.cli.words import inspection_words
    from dataengine.inspection import inspect_path

    inspection = inspect_path(path)
    if rig_out is not None:
        if rig_out.exists():
            raise UsageError(f"{rig_out} exists. Choose another file for the draft rig; yours is not overwritten.")
        rig_out.write_text(inspection.draft_rig_yaml)
    if as_json:
        show_json(inspection.to_json())
        return
    typer.echo(inspection_words(inspection))


def convert(
    path: Annotated[Path, typer.Argument(help="Folder that a robot wrote.")],
    to: Annotated[str, typer.Option("--to", help="NAME@VERSION of the dataset to make.")],
    rig: Annotated[str | None, typer.Option("--rig", help="Shipped rig name, or a YAML file.")] = None,
    sink: Annotated[Literal["lerobot", "zarr", "both"], typer.Option("--sink")] = "both",
    max_rejected: Annotated[
        str, typer.Option("--max-rejected", help="Stop when more than this share of episodes is rejected.")
    ] = "10%",
    frame_size: Annotated[
        str | None,
        typer.Option("--frame-size", help="Re-encode frame-store images, e.g. 320x240. Default: keep the bytes."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how much there is; write nothing.")] = False,
    workspace: WorkspaceDir = DEFAULT_WORKSPACE,
    workers: Workers = None,
    ray_address: RayAddress = None,
    as_json: AsJson = False,
) -> None:
    """Turn raw episodes into a LeRobot v3.0 dataset and a zarr frame store, one Ray task per episode.

    Example: dataengine convert raw/sim --rig aloha_sim --to sim@1
    """
    from apps.cli.words import convert_json, convert_words
    from dataengine.convert import convert as run

    with progress("convert") as on_progress:
        report = run(
            source_path=path,
            to=Ref.parse(to),
            workspace=Workspace.at(workspace),
            rig=rig,
            sink=sink,
            max_rejected=parse_share(max_rejected),
            frame_size=parse_size(frame_size) if frame_size else None,
            workers=workers,
            ray_address=ray_address,
            dry_run=dry_run,
            on_progress=on_progress,
        )
    if as_json:
        show_json(convert_json(report))
        return
    typer.echo(convert_words(report))


def verify(
    path: Annotated[Path, typer.Argument(help="The raw data that was converted.")],
    ref: Annotated[str, typer.Argument(help="NAME@VERSION it was converted to.")],
    rig: Annotated[str | None, typer.Option("--rig", help="The rig it was converted with.")] = None,
    workspace: WorkspaceDir = DEFAULT_WORKSPACE,
    as_json: AsJson = False,
) -> None:
    """Prove that a dataset equals its source: every number, every packet or JPEG, every frame count.

    Example: dataengine verify raw/sim sim@1 --rig aloha_sim
    """
    from apps.cli.words import verify_json, verify_words
    from dataengine.verification import verify as run

    with progress("verify") as on_progress:
        report = run(
            source_path=path, ref=Ref.parse(ref), workspace=Workspace.at(workspace), rig=rig, on_progress=on_progress
        )
    if as_json:
        show_json(verify_json(report))
    else:
        typer.echo(verify_words(report))
    if not report.ok:
        raise typer.Exit(1)
