"""`edit`: a new version of a dataset in which episodes are left out, cut, relabelled or put together."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apps.cli.options import DEFAULT_WORKSPACE, AsJson, WorkspaceDir
from apps.cli.output import show_json
from dataengine.workspace import Workspace
from schemas.errors import UsageError
from schemas.refs import Ref

if TYPE_CHECKING:
    from dataengine.edit import EditReport


def edit(
    refs: Annotated[list[str], typer.Argument(help="NAME@VERSION to edit; further ones are merged behind it.")],
    to: Annotated[str, typer.Option("--to", help="NAME@VERSION of the version to make.")],
    exclude: Annotated[
        list[str] | None,
        typer.Option("--exclude", help="Episode id or filter (operator=ada, num_frames<50); repeat for several."),
    ] = None,
    keep: Annotated[
        list[str] | None, typer.Option("--keep", help="Leave out all but these: episode id or filter; repeatable.")
    ] = None,
    trim: Annotated[
        list[str] | None,
        typer.Option("--trim", help="EPISODES:START_S:END_S in seconds of the recording; either may be empty."),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="FIELD=VALUE, e.g. outcome=failure or task='Stack.'; repeatable.")
    ] = None,
    where: Annotated[str | None, typer.Option("--where", help="Only these episodes get --set: id or filter.")] = None,
    rename: Annotated[
        list[str] | None, typer.Option("--rename", help="OLD=NEW name of a feature; repeat for several.")
    ] = None,
    drop_camera: Annotated[
        list[str] | None, typer.Option("--drop-camera", help="Leave this camera out; repeat for several.")
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option("--csv", help="CSV: episode_id, and any of exclude, start_s, end_s, task, operator, outcome, ..."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change; write nothing.")] = False,
    workspace: WorkspaceDir = DEFAULT_WORKSPACE,
    as_json: AsJson = False,
) -> None:
    """Make a new version of a dataset: exclude, trim, relabel, rename, drop a camera, merge.

    Video is copied. Where a trim cuts through a group of pictures, that group of AV1 is encoded again; of most other
    video the whole trimmed episode is.

    Example: dataengine edit sim@1 --exclude outcome=failure --to sim@2
    """
    from dataengine.edit import Changes, Relabel, Trim
    from dataengine.edit import edit as run

    if where is not None and not set_:
        raise UsageError("--where says which episodes --set is about. Give --set FIELD=VALUE too.")
    report = run(
        refs=[Ref.parse(text) for text in refs],
        to=Ref.parse(to),
        workspace=Workspace.at(workspace),
        changes=Changes(
            keep=tuple(keep or ()),
            exclude=tuple(exclude or ()),
            trims=tuple(Trim.parse(text) for text in trim or ()),
            relabels=tuple(Relabel.parse(text, where) for text in set_ or ()),
            rename=dict(_renaming(text) for text in rename or ()),
            drop_cameras=tuple(drop_camera or ()),
        ),
        table=table,
        dry_run=dry_run,
    )
    if as_json:
        show_json(edit_json(report))
        return
    typer.echo(edit_words(report, to))


def _renaming(text: str) -> tuple[str, str]:
    old, equals, new = text.partition("=")
    if not equals:
        raise UsageError(f"'{text}' renames nothing. Write OLD=NEW, e.g. state=observation.state.")
    return old.strip(), new.strip()


def edit_json(report: "EditReport") -> dict[str, Any]:
    """Plain values."""
    return {
        "records": [record.model_dump(mode="json", exclude={"files"}) for record in report.records],
        "already_there": report.already_there,
        "episodes": report.num_episodes,
        "frames": report.num_frames,
        "trimmed": report.num_trimmed,
        "relabelled": report.num_relabelled,
        "left_out": [row.model_dump() for row in report.left_out],
    }


def edit_words(report: "EditReport", to: str) -> str:
    """A few lines for people."""
    verb = "would hold" if not report.records else "was already there with" if report.already_there else "holds"
    lines = [
        f"{to} {verb} {report.num_episodes} episodes, {report.num_frames:,} frames: {len(report.left_out)} left out, "
        f"{report.num_trimmed} trimmed, {report.num_relabelled} relabelled."
    ]
    lines += [f"left out: {row.reason}" for row in report.left_out[:5]]
    if len(report.left_out) > 5:
        lines.append(f"... and {len(report.left_out) - 5} more")
    return "\n".join(lines)
