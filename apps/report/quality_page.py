"""The page of `verify`: what was compared with the source, and what is wrong with the episodes, with pictures."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from apps.report.evidence import evidence
from apps.report.page import Html, note, page, section, table
from dataengine.artifacts import write_atomic
from dataengine.quality import WORDS, QualityReport, QualityRow
from dataengine.quality.checking import open_recordings
from dataengine.quality.recordings import ArtifactRecordings
from dataengine.verification import CheckRow, VerifyReport
from dataengine.workspace import Workspace
from schemas.episodes import StreamSkew

SHOWN = 8  # verdicts of one check that get pictures; the others are listed
_LISTED = 200
_STYLE = """<style>
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 440px), 1fr)); gap: 14px; }
.card { border: 1px solid var(--line); border-left: 3px solid var(--bad); border-radius: 8px; padding: 10px 12px; min-width: 0; }
.card h3 { margin: 0 0 2px; font-size: 14px; overflow-wrap: anywhere; } .card p { margin: 2px 0 6px; font-size: 13.5px; }
.curve { width: 100%; height: auto; background: var(--ground); border: 1px solid var(--line); border-radius: 6px; display: block; }
.curve path { fill: none; stroke-width: 1.6; } .line0 { stroke: var(--accent); } .line1 { stroke: var(--unsure); }
.key0 { color: var(--accent); } .key1 { color: var(--unsure); } .mark { fill: var(--bad); opacity: .22; }
.sums { display: flex; flex-wrap: wrap; gap: 10px; margin: 0 0 16px; } .sums div { flex: 1 1 150px; background: var(--sheet);
  border: 1px solid var(--line); border-radius: 10px; padding: 10px 14px; } .sums b { display: block; font-size: 22px; }
details summary { cursor: pointer; color: var(--soft); }
</style>"""  # noqa: E501 - a style sheet


def write_verify_page(
    path: Path, *, workspace: Workspace, comparison: VerifyReport | None, quality: QualityReport | None
) -> Path:
    """Write one self-contained page to `path` and return it; at least one of the reports must be there."""
    known = comparison or quality
    assert known is not None
    body = [_STYLE, _sums(comparison, quality)]
    if quality is not None:
        recordings = open_recordings(workspace, quality.ref)
        body.append(_checks(quality))
        body += _failures(recordings, quality)
    if comparison is not None:
        body.append(_comparison(comparison))
        if comparison.skew:
            body.append(skew_section(comparison.skew))
    if quality is not None:
        body.append(_limits(quality))
    lead = "Nothing here was repaired: exclude, trim or record again what is wrong."
    write_atomic(path, page(f"Verify {known.ref}", lead, body).encode())
    return path


def _sums(comparison: VerifyReport | None, quality: QualityReport | None) -> str:
    boxes = []
    if comparison is not None:
        bad = sum(not row.ok for row in comparison.rows)
        words = "equals its source" if comparison.ok else "differs from its source"
        boxes.append(
            (f"{len(comparison.rows) - bad} of {len(comparison.rows)}", f"comparisons hold: it {words}", not bad)
        )
    if quality is not None:
        bad = len(quality.bad_episodes())
        boxes.append((f"{bad} of {quality.num_episodes}", "episodes need a look", not bad))
        boxes.append((str(len(quality.failed)), "verdicts failed", not quality.failed))
    cells = [
        f'<div><b class="{"pass" if good else "fail"}">{escape(number)}</b>{escape(words)}</div>'
        for number, words, good in boxes
    ]
    return f'<div class="sums">{"".join(cells)}</div>'


def _checks(quality: QualityReport) -> str:
    counts = quality.counts()
    rows = [
        (WORDS[check], counted["fail"], counted["unknown"], counted["pass"])
        for check, counted in sorted(counts.items(), key=lambda item: -item[1]["fail"])
    ]
    reasons = dict.fromkeys((row.check, row.detail) for row in quality.rows if row.verdict == "unknown")
    unknown = [(WORDS[check], detail) for check, detail in reasons]
    parts = [table(("looked for", "found in", "unknown in", "absent in"), rows)]
    if unknown:
        parts.append(f"<details><summary>why unknown</summary>{table(('looked for', 'reason'), unknown)}</details>")
    return section("Quality: episodes per check", *parts)


def _failures(recordings: ArtifactRecordings, quality: QualityReport) -> list[str]:
    """One section per check that failed."""
    sections = []
    for check in dict.fromkeys(row.check for row in quality.failed):
        rows = [row for row in quality.failed if row.check == check]
        cards = "".join(_card(recordings, row) for row in rows[:SHOWN])
        parts = [f'<div class="cards">{cards}</div>']
        if len(rows) > SHOWN:
            parts.append(f"<details><summary>{len(rows) - SHOWN} more</summary>{_listed(rows[SHOWN:])}</details>")
        sections.append(section(f"{WORDS[check][0].upper()}{WORDS[check][1:]}: {len(rows)}", *parts))
    return sections


def _card(recordings: ArtifactRecordings, row: QualityRow) -> str:
    words = f"{row.stream}: {row.detail}" if row.detail else row.stream
    return (
        f'<div class="card"><h3>{escape(row.episode_id)}</h3><p>{escape(words)}<br>'
        f'<span class="note">{escape(_measure(row))}</span></p>{evidence(recordings, row)}</div>'
    )


def _measure(row: QualityRow) -> str:
    if row.value is None or row.limit is None:
        return ""
    return f"{row.value:.4g} {row.unit}, limit {row.limit:.4g}"


def _listed(rows: Sequence[QualityRow]) -> str:
    more = [note(f"and {len(rows) - _LISTED} more in the JSON report")] if len(rows) > _LISTED else []
    listed = [(row.episode_id, row.stream, row.detail, _measure(row)) for row in rows[:_LISTED]]
    return table(("episode", "stream", "seen", "measured"), listed) + "".join(more)


def _comparison(report: VerifyReport) -> str:
    bad = [row for row in report.rows if not row.ok]
    good = [row for row in report.rows if row.ok]
    parts = [table(("compared", "stream", "what differs"), [_line(row) for row in bad])] if bad else []
    held = table(("compared", "stream", "measured"), [_line(row) for row in good])
    parts.append(f"<details{'' if bad else ' open'}><summary>{len(good)} hold</summary>{held}</details>")
    return section(f"Compared with the source: {report.num_episodes} episodes, {len(bad)} comparisons fail", *parts)


def _line(row: CheckRow) -> tuple[object, ...]:
    return Html(f'<span class="{"pass" if row.ok else "fail"}">{escape(row.check)}</span>'), row.stream, row.detail


def skew_section(skew: dict[str, StreamSkew]) -> str:
    """How the streams of a source with clocks of its own fitted the rows."""
    rows = [
        (
            name,
            row.num_messages,
            row.num_dropped,
            row.num_repeated,
            *(1000 * x for x in (row.p50_s, row.p95_s, row.max_s)),
        )
        for name, row in skew.items()
    ]
    head = ("stream", "messages", "taken by no row", "rows that repeat one", "age p50, ms", "p95, ms", "max, ms")
    return section("Time: how each stream fitted the rows", table(head, rows))


def _limits(quality: QualityReport) -> str:
    rows = [(name, str(value)) for name, value in quality.limits.items()]
    inner = table(("limit", "value"), rows)
    return section("Limits", f"<details><summary>all of them; --limits FILE overrules</summary>{inner}</details>")
