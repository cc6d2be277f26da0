"""One thing that was compared, and whether it holds."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one comparison in one episode (or in the dataset as a whole) gave."""

    check: str
    stream: str  # feature, camera or "all"
    ok: bool
    detail: str = ""  # what differs
    measured: float | None = None  # in `unit`; the smallest one is reported
    unit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRow:
    """One check over all episodes."""

    check: str  # "columns are bit-equal", "frames == rows", ...
    stream: str  # feature or camera
    num_episodes: int
    ok: bool
    detail: str  # the first failure, or the number measured


def summarised(findings: Iterable[tuple[str, Finding]]) -> Iterator[CheckRow]:
    """One row per check and stream; `findings` are (episode, finding)."""
    grouped: dict[tuple[str, str], list[tuple[str, Finding]]] = {}
    for name, finding in findings:
        grouped.setdefault((finding.check, finding.stream), []).append((name, finding))
    for (check, stream), rows in sorted(grouped.items()):
        bad = [(name, row) for name, row in rows if not row.ok]
        measured = [(row.measured, row.unit) for _, row in rows if row.measured is not None]
        detail = "lowest {:.2f} {}".format(*min(measured)) if measured else "all equal"
        if bad:
            detail = f"{len(bad)} of {len(rows)} differ, e.g. {bad[0][0]}: {bad[0][1].detail}"
        yield CheckRow(check=check, stream=stream, num_episodes=len(rows), ok=not bad, detail=detail)
