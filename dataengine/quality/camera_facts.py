"""What the pictures of one camera say: how bright they are, and for how long nothing in them changes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataengine.quality.thumbnails import Thumbnail

_MOST_FREEZES = 8  # kept per camera, the longest ones
_SAME_SHARE = 0.15  # of pairs of pictures; libx264 at g 30, looked at five times a second, came down to 0.22


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Freeze:
    """A stretch in which the picture stayed the same; `moved` is how far each state dimension went meanwhile."""

    frame: int
    num_frames: int
    moved: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CameraFacts:
    """One camera, one number per picture looked at."""

    frames: NDArray[np.int64]
    bright: NDArray[np.float32]
    contrast: NDArray[np.float32]
    white: NDArray[np.float32]
    freezes: tuple[Freeze, ...]


def camera_facts(
    pictures: Iterable[Thumbnail], state: NDArray[Any] | None, *, num_frames: int, difference: float, least_frames: int
) -> CameraFacts:
    """Walk a camera once. `difference` in grey levels; freezes shorter than `least_frames` are not kept."""
    rows: list[tuple[int, float, float, float]] = []
    exact, noisy = _Runs(difference=difference), _Runs(difference=difference)
    for row in pictures:
        rows.append((row.frame, row.bright, row.contrast, row.white))
        exact.see(row, 0.0)
        if row.noise:
            noisy.see(row, row.noise)
    runs = {(run.start, run.stop): run for run in (*noisy.ended(), *exact.ended())}
    long = sorted(
        (run for run in runs.values() if run.stop - run.start >= least_frames), key=lambda run: run.start - run.stop
    )
    table = np.asarray(rows, dtype=np.float64).reshape(len(rows), 4)
    return CameraFacts(
        frames=table[:, 0].astype(np.int64),
        bright=table[:, 1].astype(np.float32),
        contrast=table[:, 2].astype(np.float32),
        white=table[:, 3].astype(np.float32),
        freezes=tuple(_freeze(run, state) for run in long[:_MOST_FREEZES]),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """Frames of a stretch of pictures that look alike, and of the pieces in which they are the same."""

    start: int
    stop: int
    pieces: tuple[tuple[int, int], ...]


@dataclass(slots=True, kw_only=True, eq=False)
class _Runs:
    """Stretches whose pictures all look like their first one.

    Encoders change a still scene at every keyframe, and leave it as it is between: where noise is allowed for, some of
    the pictures must equal the one before, and the robot must move while they do. A robot that rests, then moves what
    is hardly seen, has pictures that are the same as well, but not while it moves.
    """

    difference: float
    found: list[_Run] = field(default_factory=list)
    first: Thumbnail | None = None
    last: Thumbnail | None = None
    num_pairs: int = 0
    same: list[tuple[int, int]] = field(default_factory=list)  # frames of pairs that are the same

    def see(self, row: Thumbnail, noise: float) -> None:
        """The next picture; `noise` grey levels are no change."""
        first, last = self.first, self.last
        if first is not None and last is not None and _apart(row, first) <= max(self.difference, noise):
            self.num_pairs += 1
            # without noise to allow for, pictures like the first one are the same
            if not noise or _apart(row, last) <= self.difference:
                self.same.append((last.frame, row.frame))
            self.last = row
            return
        self._end()
        self.first = self.last = row
        self.num_pairs = 0
        self.same = []

    def ended(self) -> list[_Run]:
        """All of them."""
        self._end()
        return self.found

    def _end(self) -> None:
        if self.first is None or self.last is None or len(self.same) < _SAME_SHARE * self.num_pairs:
            return
        pieces: list[tuple[int, int]] = []
        for start, stop in self.same:
            joined = bool(pieces) and pieces[-1][1] == start
            pieces[-1:] = [(pieces[-1][0], stop)] if joined else [*pieces[-1:], (start, stop)]
        self.found.append(_Run(start=self.first.frame, stop=self.last.frame, pieces=tuple(pieces)))


def _apart(one: Thumbnail, other: Thumbnail) -> float:
    """Of the cell that changed most."""
    return float(np.max(np.abs(one.grid - other.grid)))


def _freeze(run: _Run, state: NDArray[Any] | None) -> Freeze:
    moved = np.zeros(0)
    if state is not None:
        moved = np.zeros(state.shape[1])
        for start, stop in run.pieces:
            moved += np.ptp(state[start : stop + 1].astype(np.float64), axis=0)
    return Freeze(frame=run.start, num_frames=run.stop - run.start, moved=moved)


def longest_run(frames: NDArray[np.int64], bad: Sequence[bool] | NDArray[np.bool_]) -> tuple[int, int]:
    """First frame and number of frames of the longest unbroken stretch of bad pictures; (0, 0) where none is.

    A stretch reaches to the next picture that is good, or one spacing past the last one that was looked at.
    """
    best, start = (0, 0), None
    spacing = int(np.median(np.diff(frames))) if len(frames) > 1 else 1
    ends = [*frames[1:].tolist(), int(frames[-1]) + spacing] if len(frames) else []
    for frame, end, is_bad in zip(frames.tolist(), ends, bad, strict=True):
        if not is_bad:
            start = None
            continue
        start = frame if start is None else start
        if end - start > best[1]:
            best = (start, end - start)
    return best
