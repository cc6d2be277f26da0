"""The five columns LeRobot adds to every frame, and their statistics, which follow from lengths alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dataengine.stats import QUANTILES, Stats, column_stats

AUTO_COLUMNS = ("timestamp", "frame_index", "episode_index", "index", "task_index")
_SHARES = np.asarray(list(QUANTILES.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoColumns:
    """Those of one episode."""

    num_frames: int
    rate_hz: int
    episode_index: int
    first_index: int
    task_index: int

    def values(self) -> dict[str, NDArray[np.generic]]:
        """Each as (rows,); timestamp is always frame_index / rate."""
        frames = np.arange(self.num_frames, dtype=np.int64)
        return {
            "timestamp": (frames / self.rate_hz).astype(np.float32),
            "frame_index": frames,
            "episode_index": np.full(self.num_frames, self.episode_index, dtype=np.int64),
            "index": frames + self.first_index,
            "task_index": np.full(self.num_frames, self.task_index, dtype=np.int64),
        }

    def stats(self) -> dict[str, Stats]:
        """What `column_stats` says of each."""
        return {
            "timestamp": _timestamps(self.num_frames, self.rate_hz),
            "frame_index": _count_up(0, self.num_frames),
            "episode_index": _constant(self.episode_index, self.num_frames),
            "index": _count_up(self.first_index, self.num_frames),
            "task_index": _constant(self.task_index, self.num_frames),
        }


def auto_totals(lengths: Sequence[int], task_indices: Sequence[int], rate_hz: int) -> dict[str, Stats]:
    """Of all episodes together; both sequences hold one number for each."""
    rows = np.asarray(lengths, dtype=np.int64)
    frames = np.arange(rows.max(), dtype=np.int64)
    num_with = len(rows) - np.searchsorted(np.sort(rows), frames, side="right")  # episodes that have such a frame
    return {
        "timestamp": _weighted((frames / rate_hz).astype(np.float32), num_with),
        "frame_index": _weighted(frames, num_with),
        "episode_index": _weighted(np.arange(len(rows)), rows),
        "index": _count_up(0, int(rows.sum())),
        "task_index": _weighted(
            np.arange(max(task_indices) + 1), np.bincount(task_indices, weights=rows).astype(np.int64)
        ),
    }


@lru_cache(maxsize=256)
def _timestamps(num_frames: int, rate_hz: int) -> Stats:
    return column_stats((np.arange(num_frames, dtype=np.int64) / rate_hz).astype(np.float32))


def _count_up(first: int, count: int) -> Stats:
    """Of first, first + 1, ..."""
    last = count - 1
    return _stats(
        low=first,
        high=first + last,
        mean=first + last / 2,
        std=np.sqrt((count * count - 1) / 12),
        count=count,
        quantiles=first + _SHARES * last,
    )


def _constant(value: int, count: int) -> Stats:
    same, none = np.full(1, value, dtype=np.float64), np.zeros(1)
    return {
        "min": same,
        "max": same,
        "mean": same,
        "std": none,
        "count": np.full(1, count),
        **dict.fromkeys(QUANTILES, same),
    }


def _weighted(values: NDArray[np.generic], counts: NDArray[np.int64]) -> Stats:
    """Of rising values, each of which stands in as many rows as `counts` says."""
    numbers, counts = np.asarray(values[counts > 0], dtype=np.float64), counts[counts > 0]
    ends = counts.cumsum()
    count = int(ends[-1])
    mean = float(counts @ numbers) / count
    places = _SHARES * (count - 1)
    lows = np.floor(places).astype(np.int64)
    low = numbers[np.searchsorted(ends, lows, side="right")]
    high = numbers[np.searchsorted(ends, np.minimum(lows + 1, count - 1), side="right")]
    return _stats(
        low=numbers[0],
        high=numbers[-1],
        mean=mean,
        std=np.sqrt(counts @ np.square(numbers - mean) / count),
        count=count,
        quantiles=low + (high - low) * (places - lows),
    )


def _stats(*, low: float, high: float, mean: float, std: float, count: int, quantiles: NDArray[np.generic]) -> Stats:
    moments = np.asarray([[low], [high], [mean], [std]], dtype=np.float64)
    return {
        **dict(zip(("min", "max", "mean", "std"), moments, strict=True)),
        "count": np.asarray([count], dtype=np.int64),
        **dict(zip(QUANTILES, quantiles.astype(np.float64)[:, None], strict=True)),
    }
