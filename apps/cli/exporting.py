"""`export`: a released annotation set with its episodes, in the forms that other people's trainers read."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from apps.cli.options import DEFAULT_WORKSPACE, AsJson, WorkspaceDir
from apps.cli.output import show_json
from apps.cli.progress import progress
from apps.cli.words import SHOWN
from dataengine.exports.report import ExportReport, Field, Form
from dataengine.workspace import Workspace
from schemas.errors import UsageError
from schemas.refs import Ref


def export(
    annotations: Annotated[str, typer.Argument(help="NAME@VERSION of the released annotation set.")],
    form: Annotated[
        Form,
        typer.Option(
            "--as",
            help="lerobot: a dataset with language columns; dexvla: HDF5 with substep_reasonings; ecot: JSON by step; "
            "chat: messages and pictures.",
        ),
    ],
    to: Annotated[str | None, typer.Option("--to", help="NAME@VERSION of the dataset to make. For lerobot.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to make. For dexvla, ecot and chat.")] = None,
    reasoning: Annotated[
        Field | None,
        typer.Option("--reasoning", help="What is said: one text per row (dexvla, default trace); chat: both."),
    ] = None,
    camera: Annotated[
        list[str] | None,
        typer.Option("--camera", help="Show only this camera's pictures; repeat for several. For chat."),
    ] = None,
    workspace: WorkspaceDir = DEFAULT_WORKSPACE,
    as_json: AsJson = False,
) -> None:
    """Write released reasoning with its episodes for LeRobot, DexVLA/ChatVLA, ECoT or any chat trainer.

    Example: dataengine export sim-reviewed@1 --as lerobot --to sim-spoken@1
    """
    _refuse_unfit(form, to, out, reasoning, camera or [])
    place, ref = Workspace.at(workspace), Ref.parse(annotations)
    place.find("annotations", ref)
    with progress("export") as on_progress:
        report = _run(form, place, ref, to, out, reasoning, camera or [], on_progress)
    if as_json:
        show_json(report.to_json())
        return
    typer.echo(export_words(report))


def _refuse_unfit(
    form: Form, to: str | None, out: Path | None, reasoning: Field | None, cameras: Sequence[str]
) -> None:
    """Words that this form does not take: silently ignored, they would look as if they held."""
    if form == "lerobot" and (out is not None or to is None):
        raise UsageError("--as lerobot makes a dataset in the workspace. Give --to NAME@VERSION, and no --out.")
    if form != "lerobot" and (to is not None or out is None):
        raise UsageError(f"--as {form} makes a folder of files. Give --out DIR, and no --to.")
    if reasoning is not None and form not in ("dexvla", "chat"):
        raise UsageError(f"--as {form} takes traces and segments both. Leave --reasoning out.")
    if cameras and form != "chat":
        raise UsageError(f"--as {form} takes every camera. Leave --camera out.")


def _run(
    form: Form,
    workspace: Workspace,
    annotations: Ref,
    to: str | None,
    out: Path | None,
    reasoning: Field | None,
    cameras: Sequence[str],
    on_progress: Callable[[int, int], None],
) -> ExportReport:
    if form == "lerobot":
        from dataengine.exports.lerobot import export_lerobot

        assert to is not None
        return export_lerobot(annotations=annotations, to=Ref.parse(to), workspace=workspace, on_progress=on_progress)
    assert out is not None
    match form:
        case "dexvla":
            from dataengine.exports.dexvla import export_dexvla

            return export_dexvla(
                annotations=annotations,
                out=out,
                workspace=workspace,
                reasoning=reasoning or "trace",
                on_progress=on_progress,
            )
        case "ecot":
            from dataengine.exports.ecot import export_ecot

            return export_ecot(annotations=annotations, out=out, workspace=workspace, on_progress=on_progress)
        case _:
            from dataengine.exports.chat import export_chat

            return export_chat(
                annotations=annotations,
                out=out,
                workspace=workspace,
                fields=(reasoning,) if reasoning else ("trace", "segment", "question"),
                cameras=cameras,
                on_progress=on_progress,
            )


def export_words(report: ExportReport) -> str:
    """A few lines for people: what is there, and everything that is not."""
    counts = ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in report.counts.items())
    there = " was already there" if report.already_there else ""
    lines = [f"{report.form} {report.where}{there}: {counts}  fingerprint {report.fingerprint[:16]}"]
    silent = report.without_words
    if silent:
        more = f" and {len(silent) - SHOWN} more (--json names all)" if len(silent) > SHOWN else ""
        kept = "in it without words" if report.form == "lerobot" else "not in it"
        lines.append(f"  {len(silent)} episodes have nothing released, {kept}: {', '.join(silent[:SHOWN])}{more}")
    lines += [f"  left out: {row.episode}: {row.reason}" for row in report.left_out[:SHOWN]]
    if len(report.left_out) > SHOWN:
        lines.append(f"  left out: {len(report.left_out) - SHOWN} more (--json names all)")
    if report.counts.get("open_ended"):
        open_ended = report.counts["open_ended"]
        lines.append(f"  {open_ended} rows have no end in LeRobot, which takes them for true until the next one")
    return "\n".join([*lines, *(f"  note: {note}" for note in report.notes)])
