"""Rows out of streams of several rates: each row takes from every stream the newest value that is not after it.

A value is never taken from the future, so what a policy is trained on it could have known. Only a stream whose feature
asks for `align: linear` looks at the next value too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.episodes import StreamSkew
from schemas.errors import EpisodeError, RigError, did_you_mean
from schemas.rigs import Clock

_NS = 1_000_000_000
# A row's time in the dataset is its number / rate. 2 % is what free-running cameras and lost frames cost; more, and the
# dataset's clock runs visibly away from the recorded one.
RATE_TOLERANCE = 0.02
MIN_KEPT = 0.5  # of the reference's rows: a camera that died early must not pass as a short episode


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stream:
    """When the values of one stream were measured. stamps_ns: (messages,) int64, never going back."""

    name: str
    stamps_ns: NDArray[np.int64]
    max_age_ns: int  # a row whose newest value is older than this has no value
    linear: bool = False  # the row's value lies between its newest value and the next one

    def __post_init__(self) -> None:
        if self.stamps_ns.ndim != 1 or (np.diff(self.stamps_ns) < 0).any():
            raise ValueError(f"stream '{self.name}': stamps of shape {self.stamps_ns.shape} are not in order")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Alignment:
    """Which message each row takes. rows_ns: (rows,) int64; picks: stream -> (rows,) int64 message numbers."""

    rows_ns: NDArray[np.int64]
    picks: dict[str, NDArray[np.int64]]
    skew: dict[str, StreamSkew]
    num_trimmed_start: int  # rows of the reference before every stream has a fresh value
    num_trimmed_end: int


def align(streams: Sequence[Stream], clock: Clock, rate_hz: int, *, episode: str) -> Alignment:
    """Give every row its values: rows are the reference's stamps, or an even grid over the span all streams share.

    Rows at either end that lack a fresh value are trimmed and counted. Raises EpisodeError where streams do not
    overlap, where less than MIN_KEPT of the rows are left, where the reference does not run at `rate_hz`, and for a gap
    in between that is longer than a stream's max_age; RigError for a reference that is no stream.
    """
    for stream in streams:
        if not len(stream.stamps_ns):
            raise EpisodeError(f"{episode}: '{stream.name}' has no message. Record it again or drop the episode.")
    rows = _reference_rows(streams, clock, rate_hz, episode)
    picks = {stream.name: np.searchsorted(stream.stamps_ns, rows, side="right") - 1 for stream in streams}
    fresh = {stream.name: _fresh(stream, rows, picks[stream.name]) for stream in streams}
    whole = np.logical_and.reduce(list(fresh.values()))
    if not whole.any():
        raise EpisodeError(_no_overlap(streams, fresh, episode))
    first, last = int(np.argmax(whole)), len(rows) - 1 - int(np.argmax(whole[::-1]))
    if not whole[first : last + 1].all():
        raise EpisodeError(_gap(streams, rows, fresh, first, last, episode))
    if last + 1 - first < MIN_KEPT * len(rows):
        raise EpisodeError(_too_short(streams, fresh, first, last, episode))
    kept = slice(first, last + 1)
    for stream in streams:
        if stream.name == clock.reference:
            _check_reference(stream, first, rows[kept], rate_hz, episode)
    taken = {name: pick[kept] for name, pick in picks.items()}
    return Alignment(
        rows_ns=rows[kept],
        picks=taken,
        skew={stream.name: _skew(stream, rows[kept], taken[stream.name]) for stream in streams},
        num_trimmed_start=first,
        num_trimmed_end=len(rows) - 1 - last,
    )


def linear(values: NDArray[Any], stream: Stream, alignment: Alignment) -> NDArray[Any]:
    """Values at the rows, on the line between the newest message and the next. values: (messages, dims).

    Computed in float64; floats keep their type, whole numbers become float64.
    """
    before = alignment.picks[stream.name]
    after = np.minimum(before + 1, len(stream.stamps_ns) - 1)
    span = stream.stamps_ns[after] - stream.stamps_ns[before]
    share = np.divide(alignment.rows_ns - stream.stamps_ns[before], span, out=np.zeros(len(before)), where=span > 0)
    low, high = values[before].astype(np.float64), values[after].astype(np.float64)
    shares = share.reshape(-1, *[1] * (values.ndim - 1))
    mixed = np.where(shares == 0, low, low + (high - low) * shares)
    return mixed.astype(values.dtype) if values.dtype.kind == "f" else mixed


def measured_hz(stamps_ns: NDArray[np.int64]) -> float:
    """Steps per second over all stamps; 0 where there is no span."""
    span = int(stamps_ns[-1] - stamps_ns[0]) if len(stamps_ns) > 1 else 0
    return (len(stamps_ns) - 1) * _NS / span if span else 0.0


def _reference_rows(streams: Sequence[Stream], clock: Clock, rate_hz: int, episode: str) -> NDArray[np.int64]:
    if clock.reference is not None:
        chosen = next((stream for stream in streams if stream.name == clock.reference), None)
        if chosen is None:
            raise RigError(
                f"clock.reference '{clock.reference}' is no feature or camera of the rig. "
                f"{did_you_mean(clock.reference, [stream.name for stream in streams])}"
            )
        return chosen.stamps_ns
    start = max(int(stream.stamps_ns[0]) for stream in streams)
    end = min(int(stream.stamps_ns[-1]) for stream in streams)
    if end < start:
        raise EpisodeError(_no_overlap(streams, {}, episode))
    count = (end - start) * rate_hz // _NS + 1
    steps_ns = np.arange(count, dtype=np.int64)
    grid: NDArray[np.int64] = start + steps_ns // rate_hz * _NS + (steps_ns % rate_hz) * _NS // rate_hz  # no overflow
    return grid


def _fresh(stream: Stream, rows: NDArray[np.int64], picks: NDArray[np.int64]) -> NDArray[np.bool_]:
    stamps = stream.stamps_ns
    age = rows - stamps[np.maximum(picks, 0)]
    fresh: NDArray[np.bool_] = (picks >= 0) & (age <= stream.max_age_ns)
    if stream.linear:
        after = stamps[np.minimum(picks + 1, len(stamps) - 1)] - rows
        fresh &= (age == 0) | ((after >= 0) & (after <= stream.max_age_ns))
    return fresh


def _check_reference(stream: Stream, first: int, rows: NDArray[np.int64], rate_hz: int, episode: str) -> None:
    """Over the whole span rows may drift by RATE_TOLERANCE of it, or by one period where that is more."""
    if len(rows) < 2:
        return
    steps = np.diff(rows)
    if int(steps.max()) > stream.max_age_ns:
        place = int(steps.argmax())
        raise EpisodeError(_gap_text(episode, stream, stream.stamps_ns, first + place, int(steps[place])))
    span = int(rows[-1] - rows[0])
    declared = (len(rows) - 1) * _NS / rate_hz
    if abs(span - declared) > max(RATE_TOLERANCE * declared, _NS / rate_hz):
        raise EpisodeError(
            f"{episode}: reference '{stream.name}' runs at {measured_hz(rows):.2f} Hz, the rig says rate_hz: {rate_hz} "
            f"(up to {RATE_TOLERANCE:.0%} off is taken). Correct rate_hz, or set clock.reference to null for a grid."
        )


def _skew(stream: Stream, rows: NDArray[np.int64], picks: NDArray[np.int64]) -> StreamSkew:
    ages = (rows - stream.stamps_ns[picks]) / _NS
    p50, p95 = np.percentile(ages, [50, 95])
    return StreamSkew(
        num_messages=len(stream.stamps_ns),
        num_dropped=int(picks[-1] - picks[0] + 1 - len(np.unique(picks))),
        num_repeated=int((np.diff(picks) == 0).sum()),
        p50_s=float(p50),
        p95_s=float(p95),
        max_s=float(ages.max()),
    )


def _too_short(
    streams: Sequence[Stream], fresh: dict[str, NDArray[np.bool_]], first: int, last: int, episode: str
) -> str:
    """Which stream is there for the fewest rows, and from when to when."""
    worst = min(streams, key=lambda stream: int(fresh[stream.name].sum()))
    span_s = (int(worst.stamps_ns[-1]) - int(worst.stamps_ns[0])) / _NS
    return (
        f"{episode}: only {last + 1 - first} of {len(fresh[worst.name])} rows have a fresh value of every stream; "
        f"'{worst.name}' has {len(worst.stamps_ns)} messages over {span_s:.2f} s. Record it again or drop the episode."
    )


def _gap(
    streams: Sequence[Stream],
    rows: NDArray[np.int64],
    fresh: dict[str, NDArray[np.bool_]],
    first: int,
    last: int,
    episode: str,
) -> str:
    """The first row in the middle that some stream cannot serve, and the hole in that stream."""
    row, stream = min(
        (first + int(np.argmin(fresh[each.name][first : last + 1])), index)
        for index, each in enumerate(streams)
        if not fresh[each.name][first : last + 1].all()
    )
    chosen = streams[stream]
    place = int(np.searchsorted(chosen.stamps_ns, rows[row], side="right")) - 1
    before = max(place, 0)
    after = min(place + 1, len(chosen.stamps_ns) - 1)
    length = int(chosen.stamps_ns[after] - chosen.stamps_ns[before]) or int(rows[row] - chosen.stamps_ns[before])
    return _gap_text(episode, chosen, chosen.stamps_ns, before, length)


def _gap_text(episode: str, stream: Stream, stamps: NDArray[np.int64], place: int, length_ns: int) -> str:
    start_s = (int(stamps[place]) - int(stamps[0])) / _NS
    return (
        f"{episode}: '{stream.name}' has a gap of {length_ns / _NS:.3f} s, {start_s:.2f} s after its first message "
        f"(message {place}), longer than max_age {stream.max_age_ns / _NS:g} s. Drop the episode, or raise its "
        f"max_age_s in the rig."
    )


def _no_overlap(streams: Sequence[Stream], fresh: dict[str, NDArray[np.bool_]], episode: str) -> str:
    """Which two streams never meet, or which one never has a value for a row."""
    late = max(streams, key=lambda stream: int(stream.stamps_ns[0]))
    early = min(streams, key=lambda stream: int(stream.stamps_ns[-1]))
    apart = (int(late.stamps_ns[0]) - int(early.stamps_ns[-1])) / _NS
    if apart > 0:
        return (
            f"{episode}: streams do not overlap: '{early.name}' ends {apart:.3f} s before '{late.name}' begins. "
            f"Record it again; where their clocks differ, set clock.stamp: log in the rig."
        )
    never = next((name for name, rows in fresh.items() if not rows.any()), late.name)
    return (
        f"{episode}: no row has a fresh value of every stream; '{never}' is always older than its max_age. "
        f"Raise max_age_s in the rig or drop the episode."
    )
