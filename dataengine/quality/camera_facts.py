"""What the pictures of one camera say: how bright they are, and for how long nothing in them changes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataengine.quality.thumbnails import Thumbnail

_MOST_FREEZES = 8  # kept per camera, the longest ones


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Freeze:
    """A stretch in which the picture stayed the same; `moved` is the range of each state dimension meanwhile."""

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
    runs: list[tuple[int, int]] = []
    first: Thumbnail | None = None  # of the stretch that goes on
    last = 0
    for row in pictures:
        rows.append((row.frame, row.bright, row.contrast, row.white))
        if first is None or float(np.max(np.abs(row.grid - first.grid))) > difference:
            if first is not None:
                runs.append((first.frame, last))
            first = row
        last = row.frame
    if first is not None:
        runs.append((first.frame, last))
    long = sorted((run for run in runs if run[1] - run[0] >= least_frames), key=lambda run: run[0] - run[1])
    table = np.asarray(rows, dtype=np.float64).reshape(len(rows), 4)
    return CameraFacts(
        frames=table[:, 0].astype(np.int64),
        bright=table[:, 1].astype(np.float32),
        contrast=table[:, 2].astype(np.float32),
        white=table[:, 3].astype(np.float32),
        freezes=tuple(_freeze(run, state) for run in long[:_MOST_FREEZES]),
    )


def _freeze(run: tuple[int, int], state: NDArray[Any] | None) -> Freeze:
    start, stop = run
    moved = np.zeros(0) if state is None else np.ptp(state[start : stop + 1].astype(np.float64), axis=0)
    return Freeze(frame=start, num_frames=stop - start, moved=moved)


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
