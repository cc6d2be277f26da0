"""One thing that was compared, and whether it holds."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from schemas.errors import EngineError


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one comparison in one episode (or in the dataset as a whole) gave."""

    check: str
    stream: str  # feature, camera or "all"
    ok: bool
    detail: str = ""  # what differs
    measured: float | None = None  # in `unit`; the smallest one is reported
    unit: str = ""
    note: str = ""  # what a reader should know although it holds


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRow:
    """One check over all episodes."""

    check: str  # "columns are bit-equal", "frames == rows", ...
    stream: str  # feature or camera
    num_episodes: int
    ok: bool
    detail: str  # the first failure, or the number measured


def finding(check: str, faults: list[str], stream: str = "all") -> Finding:
    """Holds where there are no faults; the first one is told."""
    return Finding(check=check, stream=stream, ok=not faults, detail=faults[0] if faults else "")


def damages() -> tuple[type[Exception], ...]:
    """What readers raise for bytes that are not theirs.

    JSON, pydantic and numpy raise ValueError, tables without a column KeyError, FFmpeg and the file system their own.
    """
    import av
    import pyarrow as pa

    return (
        EngineError,
        OSError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        pa.ArrowException,
        av.error.FFmpegError,
    )


def damaged(error: Exception, stream: str = "all") -> Finding:
    """A failed check instead of a traceback."""
    words = str(error) if isinstance(error, EngineError) else f"{type(error).__name__}: {error}"
    return Finding(check="everything can be read", stream=stream, ok=False, detail=words[:300])


def guarded(findings: Iterable[Finding], *, stream: str = "all") -> Iterator[Finding]:
    """The same findings; where a damaged file stops them, one more that says so."""
    try:
        yield from findings
    except damages() as error:
        yield damaged(error, stream)


def summarised(findings: Iterable[tuple[str, Finding]]) -> Iterator[CheckRow]:
    """One row per check and stream; `findings` are (episode, finding)."""
    grouped: dict[tuple[str, str], list[tuple[str, Finding]]] = {}
    for name, row in findings:
        grouped.setdefault((row.check, row.stream), []).append((name, row))
    for (check, stream), rows in sorted(grouped.items()):
        bad = [(name, row) for name, row in rows if not row.ok]
        measured = [(row.measured, row.unit) for _, row in rows if row.measured is not None]
        detail = "lowest {:.2f} {}".format(*min(measured)) if measured else "all equal"
        noted = [(name, row) for name, row in rows if row.note]
        if noted:
            detail += f"; {len(noted)} episodes, e.g. {noted[0][0]}: {noted[0][1].note}"
        if bad:
            detail = f"{len(bad)} of {len(rows)} differ, e.g. {bad[0][0]}: {bad[0][1].detail}"
        yield CheckRow(check=check, stream=stream, num_episodes=len(rows), ok=not bad, detail=detail)
