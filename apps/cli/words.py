"""What reports of the data engine say to a person: short lines, numbers first, the worst news never left out."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from schemas.records import RejectedRow

if TYPE_CHECKING:
    from dataengine.convert import ConvertReport
    from dataengine.disk_estimate import Estimate
    from dataengine.inspection import Inspection
    from dataengine.verification import VerifyReport

SHOWN = 5


def inspection_headline(found: Inspection) -> str:
    """One line: format, episodes, rows, cameras, rate."""
    cameras = ", ".join(f"{row.key} {row.width}x{row.height} {row.encoding}" for row in found.cameras) or "no camera"
    return f"{found.kind}: {found.num_episodes} episodes, {found.num_rows:,} rows, rate {found.rate_text}; {cameras}"


def inspection_words(found: Inspection) -> str:
    """Everything that was found, then the draft rig with its questions."""
    width = max((len(row.key) for row in found.rows), default=0)
    lines = [inspection_headline(found), f"  found in: {found.folder}", f"  timing: {found.timing}"]
    lines += [f"  task: {task}" for task in found.tasks[:SHOWN]]
    lines += [f"  note: {note}" for note in found.notes]
    lines += ["", "keys of the first readable episode:"]
    lines += [f"  {row.key:<{width}}  {row.dtype:<8} {'x'.join(map(str, row.shape))}" for row in found.rows]
    return "\n".join(
        [*lines, "", "draft rig (answer what is asked, then --rig FILE):", "", found.draft_rig_yaml.rstrip()]
    )


def convert_words(report: ConvertReport) -> str:
    """What was made, and what was left out."""
    if report.estimate is not None:
        return _estimate_words(report.estimate)
    made = ", ".join(f"{record.kind} {record.name}@{record.version}" for record in report.records)
    verb = "already there" if report.already_there else "made"
    line = f"{verb}: {made}: {report.num_episodes} episodes, {report.num_frames:,} frames"
    return "\n".join([line, *rejected_words(report.rejected)])


def _estimate_words(guess: Estimate) -> str:
    line = (
        f"about {guess.num_episodes} episodes, {guess.num_frames:,} frames, {guess.hours:.2f} h, "
        f"{guess.disk_bytes / 1e9:.2f} GB on disk (looked at {guess.num_looked_at}); nothing was written"
    )
    return "\n".join([line, *(f"  could not read: {reason}" for reason in guess.unreadable)])


def rejected_words(rows: tuple[RejectedRow, ...]) -> list[str]:
    """How many were left out, and the first few reasons."""
    if not rows:
        return []
    lines = [f"rejected: {len(rows)}"]
    lines += [f"  {row.episode}: {row.reason.removeprefix(f'{row.episode}: ')}" for row in rows[:SHOWN]]
    if len(rows) > SHOWN:
        lines.append(f"  ... and {len(rows) - SHOWN} more (dataengine show KIND/NAME@VERSION --json lists all)")
    return lines


def convert_json(report: ConvertReport) -> dict[str, Any]:
    """The same for a program."""
    from dataclasses import asdict

    return {
        "records": [record.model_dump(mode="json", exclude={"files"}) for record in report.records],
        "already_there": report.already_there,
        "num_episodes": report.num_episodes,
        "num_frames": report.num_frames,
        "rejected": [row.model_dump() for row in report.rejected],
        "estimate": asdict(report.estimate) if report.estimate else None,
    }


def verify_words(report: VerifyReport) -> str:
    """One line per failed check, or one line when all hold."""
    counted = Counter(row.ok for row in report.rows)
    verdict = "equals its source" if report.ok else "DIFFERS from its source"
    lines = [
        f"{report.ref} {verdict}: {counted[True]} of {len(report.rows)} checks hold over {report.num_episodes} episodes"
    ]
    for row in report.rows:
        mark = "ok  " if row.ok else "FAIL"
        lines.append(f"  {mark} {row.stream}: {row.check}{f' ({row.detail})' if row.detail else ''}")
    return "\n".join(lines)


def verify_json(report: VerifyReport) -> dict[str, Any]:
    """The same for a program."""
    from dataclasses import asdict

    rows = [asdict(row) for row in report.rows]
    return {"ref": str(report.ref), "ok": report.ok, "num_episodes": report.num_episodes, "rows": rows}
