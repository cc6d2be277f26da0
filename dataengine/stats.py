"""Statistics of features as LeRobot v3.0 keeps them: exact over all rows, per-channel histograms for pictures.

Quantiles are true quantiles of all rows. (Averaging per-episode quantiles, as LeRobot 0.6.1 does, can be off by the
whole range.) Picture statistics come from 256-bin histograms of sampled frames, which merge exactly.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
_TARGET_PIXELS = 150  # pictures are thinned to about this many pixels a side, as LeRobot does

type Stats = dict[str, NDArray[Any]]


def column_stats(rows: NDArray[np.generic]) -> Stats:
    """Statistics of (rows, dims), one value per dimension, float64; `count` has shape (1,)."""
    values = rows.reshape(len(rows), -1)
    quantiles = np.empty((len(QUANTILES), values.shape[1]))
    for dim in range(values.shape[1]):  # one dimension at a time: memory stays at one column
        quantiles[:, dim] = np.quantile(values[:, dim].astype(np.float64), list(QUANTILES.values()))
    return {
        "min": values.min(axis=0).astype(np.float64),
        "max": values.max(axis=0).astype(np.float64),
        "mean": values.mean(axis=0, dtype=np.float64),
        "std": values.std(axis=0, dtype=np.float64),
        "count": np.asarray([len(values)], dtype=np.int64),
        **dict(zip(QUANTILES, quantiles, strict=True)),
    }


class PictureHistogram:
    """Counts of the 256 values of each channel over sampled pictures."""

    def __init__(self) -> None:
        self.counts = np.zeros((3, 256), dtype=np.int64)
        self.num_pictures = 0

    def add(self, rgb: NDArray[np.uint8]) -> None:
        """Count one picture, thinned."""
        step = max(1, max(rgb.shape[:2]) // _TARGET_PIXELS)
        thin = rgb[::step, ::step]
        for channel in range(3):
            self.counts[channel] += np.bincount(thin[:, :, channel].ravel(), minlength=256)
        self.num_pictures += 1


def sample_indices(num_frames: int) -> NDArray[np.int64]:
    """Which frames of an episode are counted: max(100, n^0.75) of them, evenly spread, at most 10,000."""
    wanted = min(num_frames, 10_000, max(100, int(num_frames**0.75)))
    return np.unique(np.linspace(0, num_frames - 1, wanted).round().astype(np.int64))


def picture_stats(counts: NDArray[np.int64], num_pictures: int) -> Stats:
    """Statistics of values in [0, 1] from a (3, 256) histogram; each of shape (3, 1, 1), `count` (1,)."""
    values = np.arange(256) / 255
    totals = counts.sum(axis=1)
    mean = counts @ values / totals
    variance = np.maximum(counts @ values**2 / totals - mean**2, 0)
    cumulative = counts.cumsum(axis=1)

    def at(share: float) -> NDArray[np.float64]:
        ranks = share * (totals - 1)
        return np.asarray(
            [values[np.searchsorted(row, rank, side="right")] for row, rank in zip(cumulative, ranks, strict=True)]
        )

    present = counts > 0
    stats = {
        "min": values[present.argmax(axis=1)],
        "max": values[255 - present[:, ::-1].argmax(axis=1)],
        "mean": mean,
        "std": np.sqrt(variance),
        **{name: at(share) for name, share in QUANTILES.items()},
    }
    shaped: Stats = {name: np.asarray(value, dtype=np.float64).reshape(3, 1, 1) for name, value in stats.items()}
    return {**shaped, "count": np.asarray([num_pictures], dtype=np.int64)}


def merged(histograms: Iterable[tuple[NDArray[np.int64], int]]) -> tuple[NDArray[np.int64], int]:
    """The sum of histograms and of their picture counts."""
    counts, pictures = np.zeros((3, 256), dtype=np.int64), 0
    for more, num in histograms:
        counts += more
        pictures += num
    return counts, pictures
