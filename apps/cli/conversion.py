"""`convert`: from what a robot wrote to a LeRobot v3.0 dataset and a frame store."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from apps.cli.data import parse_size
from apps.cli.options import DEFAULT_WORKSPACE, AsJson, RayAddress, Workers, WorkspaceDir
from apps.cli.output import show_json
from apps.cli.progress import progress
from dataengine.workspace import Workspace
from schemas.errors import UsageError
from schemas.refs import Ref

if TYPE_CHECKING:
    from dataengine.convert import VideoEncoding


def parse_share(text: str) -> float:
    """`10%` or `0.1` -> 0.1. Raises UsageError outside 0..100 %."""
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise UsageError(f"'{text}' is no share. Write it as 10% or 0.1.") from None
    if not 0 <= share <= 1:
        raise UsageError(f"'{text}' is outside 0..100 %. Write it as 10% or 0.1.")
    return share


def convert(
    path: Annotated[Path, typer.Argument(help="Folder or recording that a robot wrote.")],
    to: Annotated[str, typer.Option("--to", help="NAME@VERSION of the dataset to make.")],
    rig: Annotated[str | None, typer.Option("--rig", help="Shipped rig name, or a YAML file.")] = None,
    extends: Annotated[
        str | None, typer.Option("--extends", help="NAME@VERSION whose episodes come first, their files linked.")
    ] = None,
    adopt: Annotated[
        bool, typer.Option("--adopt", help="PATH is LeRobot v3.0 already: take it over without copying its video.")
    ] = False,
    sink: Annotated[Literal["lerobot", "zarr", "both"], typer.Option("--sink")] = "both",
    max_rejected: Annotated[
        str, typer.Option("--max-rejected", help="Stop when more than this share of episodes is rejected.")
    ] = "10%",
    frame_size: Annotated[
        str | None,
        typer.Option("--frame-size", help="Re-encode frame-store images, e.g. 320x240. Default: keep the bytes."),
    ] = None,
    codec: Annotated[
        str | None, typer.Option("--codec", help="libsvtav1 (default), libx264 or libx265.", show_default=False)
    ] = None,
    g: Annotated[
        int | None, typer.Option("--g", help="Pictures from keyframe to keyframe. Default: 2.", show_default=False)
    ] = None,
    crf: Annotated[
        int | None, typer.Option("--crf", help="Quality: lower is better and larger. Default: 30.", show_default=False)
    ] = None,
    preset: Annotated[
        str | None, typer.Option("--preset", help="0..13 for libsvtav1 (default 12), a word for x264 and x265.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say how much there is and how long it takes; write nothing.")
    ] = False,
    workspace: WorkspaceDir = DEFAULT_WORKSPACE,
    workers: Workers = None,
    ray_address: RayAddress = None,
    as_json: AsJson = False,
) -> None:
    """Turn raw episodes into a LeRobot v3.0 dataset and a zarr frame store, on Ray workers, resumable per episode.

    Example: dataengine convert raw/sim --rig aloha_sim --to sim@1
    """
    from apps.cli.words import convert_json, convert_words
    from dataengine.convert import convert as run

    place, ref, share = Workspace.at(workspace), Ref.parse(to), parse_share(max_rejected)
    if adopt:
        if extends or frame_size or dry_run or codec or g or crf or preset:
            raise UsageError("--adopt takes a dataset as it is: it goes with --rig and --max-rejected only.")
        _adopt(path, ref, place, rig, share, workers, ray_address, as_json=as_json)
        return
    with progress("convert") as on_progress:
        report = run(
            source_path=path,
            to=ref,
            workspace=place,
            rig=rig,
            extends=Ref.parse(extends) if extends else None,
            sink=sink,
            max_rejected=share,
            frame_size=parse_size(frame_size) if frame_size else None,
            encoding=_encoding(codec, g, crf, preset),
            workers=workers,
            ray_address=ray_address,
            dry_run=dry_run,
            on_progress=on_progress,
        )
    if as_json:
        show_json(convert_json(report))
        return
    typer.echo(convert_words(report))


def _encoding(codec: str | None, g: int | None, crf: int | None, preset: str | None) -> "VideoEncoding | None":
    """What was asked for, the rest by default; None where nothing was."""
    from dataengine.convert import VideoEncoding

    if codec is None and g is None and crf is None and preset is None:
        return None
    usual = VideoEncoding()
    name = codec or usual.codec
    return VideoEncoding(
        codec=name,
        g=usual.g if g is None else g,
        crf=usual.crf if crf is None else crf,
        preset=preset or _PRESETS.get(name, "medium"),
    )


def _adopt(
    path: Path,
    to: Ref,
    workspace: Workspace,
    rig: str | None,
    share: float,
    workers: int | None,
    ray_address: str | None,
    *,
    as_json: bool,
) -> None:
    from apps.cli.words import adopted_words
    from dataengine.adopt import adopt

    with progress("adopt") as on_progress:
        record = adopt(
            path=path,
            to=to,
            workspace=workspace,
            rig=rig,
            max_rejected=share,
            workers=workers,
            ray_address=ray_address,
            on_progress=on_progress,
        )
    if as_json:
        show_json(record.model_dump(mode="json", exclude={"files"}))
    else:
        typer.echo(adopted_words(record))


_PRESETS = {"libsvtav1": "12", "libx264": "medium", "libx265": "medium"}  # the encoders' own, LeRobot's for AV1
