"""What reports of the data engine say to a person: short lines, numbers first, the worst news never left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from schemas.episodes import StreamSkew
from schemas.records import Record, RejectedRow

if TYPE_CHECKING:
    from dataengine.convert import ConvertReport
    from dataengine.disk_estimate import Estimate
    from dataengine.inspection import Inspection
    from dataengine.quality import QualityReport
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
    lines += _topic_lines(found)
    lines += ["", "keys of the first readable episode:"]
    lines += [f"  {row.key:<{width}}  {row.dtype:<8} {'x'.join(map(str, row.shape))}" for row in found.rows]
    return "\n".join(
        [*lines, "", "draft rig (answer what is asked, then --rig FILE):", "", found.draft_rig_yaml.rstrip()]
    )


def _topic_lines(found: Inspection) -> list[str]:
    """Every topic of the first readable recording: how many messages, how regular."""
    if not found.topics:
        return []
    width = max(len(row.name) for row in found.topics)
    lines = ["", "topics of the first readable recording:"]
    for row in found.topics:
        gaps = f", {row.num_gaps} gaps up to {row.longest_gap_s:.2f} s" if row.num_gaps else ""
        lines.append(
            f"  {row.name:<{width}}  {row.num_messages:>6} x {row.type_name} ({row.encoding}), {row.rate_hz:.1f} Hz, "
            f"jitter {row.jitter_s * 1e3:.1f} ms{gaps}"
        )
    return lines


def convert_words(report: ConvertReport) -> str:
    """What was made, and what was left out."""
    if report.estimate is not None:
        return _estimate_words(report.estimate)
    made = ", ".join(f"{record.kind} {record.name}@{record.version}" for record in report.records)
    verb = "already there" if report.already_there else "made"
    line = f"{verb}: {made}: {report.num_episodes} episodes, {report.num_frames:,} frames"
    return "\n".join([line, *note_words(report.records), *skew_words(report.skew), *rejected_words(report.rejected)])


def note_words(records: Sequence[Record]) -> list[str]:
    """What was stored otherwise than recorded, or not taken; said once where episodes and frames say the same."""
    keys = ("clipped", "not_taken")
    said = [words for record in records for key in keys for words in _listed(record.notes.get(key))]
    return [f"  {words}" for words in dict.fromkeys(said)]


def _listed(words: Any) -> list[Any]:  # noqa: ANN401 - a note is any JSON
    return words if isinstance(words, list) else []


def skew_words(skew: Mapping[str, StreamSkew]) -> list[str]:
    """How old the values are that each row took, per stream; nothing where the source has one clock."""
    return [
        f"  {stream}: age p50 {row.p50_s * 1e3:.1f}, p95 {row.p95_s * 1e3:.1f}, max {row.max_s * 1e3:.1f} ms; "
        f"{row.num_dropped} of {row.num_messages} messages dropped, {row.num_repeated} repeated"
        for stream, row in skew.items()
    ]


def adopted_words(record: Record) -> str:
    """What was taken over, and what was untrue in its metadata."""
    line = (
        f"adopted: {record.kind} {record.name}@{record.version}: {record.counts['episodes']} episodes, "
        f"{record.counts['frames']:,} frames"
    )
    mended = record.notes.get("mended")
    assert isinstance(mended, list)  # `adopt` says it of every dataset, be it empty
    return "\n".join([line, *(f"  mended: {words}" for words in mended), *rejected_words(record.rejected)])


def _estimate_words(guess: Estimate) -> str:
    line = (
        f"about {guess.num_episodes} episodes, {guess.num_frames:,} frames, {guess.hours:.2f} h, "
        f"{guess.disk_bytes / 1e9:.2f} GB on disk{_minutes_words(guess)} (looked at {guess.num_looked_at}); "
        f"nothing was written"
    )
    return "\n".join([line, *(f"  could not read: {reason}" for reason in guess.unreadable)])


def _minutes_words(guess: Estimate) -> str:
    if guess.minutes is None:
        return ""
    return f", about {guess.minutes:.0f} min on this machine" if guess.minutes >= 1 else ", under a minute here"


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
        "skew": {stream: asdict(row) for stream, row in report.skew.items()},
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


def quality_words(report: QualityReport) -> str:
    """One line per check that failed somewhere, with an example; what could not be judged is said too."""
    from dataengine.quality import WORDS

    bad = report.bad_episodes()
    verdict = f"{len(bad)} of {report.num_episodes} episodes need a look" if bad else "no fault found"
    lines = [f"{report.ref} quality: {verdict}"]
    for check, counted in sorted(report.counts().items()):
        if counted["fail"]:
            first = next(row for row in report.failed if row.check == check)
            lines.append(f"  FAIL {WORDS[check]}: {counted['fail']} episodes, e.g. {first.episode_id}: {first.detail}")
        elif counted["unknown"] and not counted["pass"]:
            lines.append(f"  ?    {WORDS[check]}: can not be judged here")
    return "\n".join(lines)
