"""Exact statistics of columns that are streamed, not held: moments in one pass, true quantiles by radix histograms.

A number is turned into an unsigned key of the same order. The first pass counts its upper 16 bits; every further pass
counts the next 16 bits of those numbers alone among which a wanted rank lies, so that float32 takes two passes and
float64 at most four. Counts of several workers add up (merge), and memory is bounded by the number of dimensions.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
SMALL_BYTES = 4 << 20  # columns up to this size are simply kept: one pass
_DIGIT = 16  # bits counted per pass
_BINS = 1 << _DIGIT

type Stats = dict[str, NDArray[Any]]


class ColumnStatsAccumulator:
    """Minimum, maximum, mean, standard deviation, count and quantiles of (rows, dims), exact over all rows added.

    acc.add(rows) for every episode; while acc.next_pass(): add the same rows once more; acc.stats(). Quantiles are
    those of `numpy.quantile` (linear) on float64 values.
    """

    def __init__(self, *, small_bytes: int = SMALL_BYTES) -> None:
        self._small_bytes = small_bytes
        self._pass = 0
        self._moments: _Moments | None = None
        self._kept: list[NDArray[np.generic]] | None = []
        self._search: _RadixSearch | None = None
        self._seen = 0  # rows added in this pass

    def add(self, rows: NDArray[np.generic], stats: Sequence[Stats] = ()) -> None:
        """Take (rows, dims) or (rows,) into account; in every pass the same rows, in any order and division.

        `stats` are those of the parts of the rows, where they are known: nothing of them is then computed again.
        """
        if not len(rows):
            return
        values = np.ascontiguousarray(rows.reshape(len(rows), -1))
        self._seen += len(values)
        if self._pass == 0:
            moments = _Moments.joined(stats, values.dtype) if stats else _Moments.of(values)
            self._moments = moments if self._moments is None else self._moments.plus(moments)
            if self._kept is not None:
                self._kept.append(values.copy())
                if sum(part.nbytes for part in self._kept) <= self._small_bytes:
                    return
                self._spill()
                return
        self._searching(values).count(values)

    def merge(self, other: "ColumnStatsAccumulator") -> None:
        """Add what another one saw in the same pass. Both must be in the same pass over parts of the same data."""
        if self._pass != other._pass:
            raise ValueError(f"one is in pass {self._pass}, the other in pass {other._pass}")
        if other._kept is not None and self._pass == 0:
            for part in other._kept:
                self.add(part)
            return
        self._seen += other._seen
        if self._pass == 0 and other._moments is not None:
            self._moments = other._moments if self._moments is None else self._moments.plus(other._moments)
            self._spill()
        if other._search is not None:
            if self._search is None:
                self._search = other._search.empty()
            self._search.add_counts(other._search)

    def next_pass(self) -> bool:
        """True when the rows are needed once more; call after each whole pass."""
        if self._moments is None or self._kept is not None:
            return False
        if self._seen != self._moments.count:
            raise ValueError(f"{self._seen} rows in pass {self._pass + 1}, {self._moments.count} in the first")
        assert self._search is not None
        again = self._search.narrow(self._moments.count)
        if again:
            self._pass, self._seen = self._pass + 1, 0
        return again

    def part(self) -> "ColumnStatsAccumulator":
        """An empty one in the same pass, for another worker; what it counts is merged into this one."""
        other = ColumnStatsAccumulator(small_bytes=self._small_bytes)
        other._pass = self._pass
        if self._pass:
            other._kept = None
        if self._search is not None:
            other._search = self._search.empty()
        return other

    def stats(self) -> Stats:
        """One value per dimension, float64; `count` has shape (1,). Raises ValueError where nothing was added."""
        moments = self._moments
        if moments is None:
            raise ValueError("no rows were added")
        if self._kept is not None:
            # one dimension at a time, each in its own type: a tenth of the time of numpy.quantile
            columns = (np.concatenate([part[:, dim] for part in self._kept]) for dim in range(len(moments.mean)))
            found = np.stack([_quantiles(np.sort(column)) for column in columns], axis=1)
        else:
            assert self._search is not None
            found = self._search.quantiles(moments.count)
        return {
            "min": moments.low.astype(np.float64),
            "max": moments.high.astype(np.float64),
            "mean": moments.mean,
            "std": np.sqrt(moments.squares / moments.count),
            "count": np.asarray([moments.count], dtype=np.int64),
            **dict(zip(QUANTILES, found, strict=True)),
        }

    def _spill(self) -> None:
        kept, self._kept = self._kept or [], None
        for part in kept:
            self._searching(part).count(part)

    def _searching(self, values: NDArray[np.generic]) -> "_RadixSearch":
        if self._search is None:
            self._search = _RadixSearch(values.dtype, values.shape[1])
        return self._search


class _Moments:
    """Count, extremes, mean and sum of squared distances from it; adds up without cancellation (Chan et al. 1979)."""

    def __init__(
        self,
        count: int,
        low: NDArray[Any],
        high: NDArray[Any],
        mean: NDArray[np.float64],
        squares: NDArray[np.float64],
    ) -> None:
        self.count, self.low, self.high, self.mean, self.squares = count, low, high, mean, squares

    @classmethod
    def of(cls, values: NDArray[Any]) -> "_Moments":
        mean = values.mean(axis=0, dtype=np.float64)
        squares = np.square(values.astype(np.float64) - mean).sum(axis=0)
        return cls(len(values), values.min(axis=0), values.max(axis=0), mean, squares)

    @classmethod
    def joined(cls, stats: Sequence[Stats], dtype: np.dtype[Any]) -> "_Moments":
        """Of all parts together, from the statistics of each."""
        low, high, means, stds, counts = (
            np.stack([row[name] for row in stats]) for name in ("min", "max", "mean", "std", "count")
        )
        count = int(counts.sum())
        mean = (means * counts).sum(axis=0) / count
        squares = ((np.square(stds) + np.square(means - mean)) * counts).sum(axis=0)
        return cls(count, low.min(axis=0).astype(dtype), high.max(axis=0).astype(dtype), mean, squares)

    def plus(self, other: "_Moments") -> "_Moments":
        count = self.count + other.count
        step = other.mean - self.mean
        return _Moments(
            count,
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
            self.mean + step * (other.count / count),
            self.squares + other.squares + np.square(step) * (self.count * other.count / count),
        )


class _RadixSearch:
    """Finds the numbers at some ranks of every dimension, 16 bits of their keys at a time."""

    def __init__(self, dtype: np.dtype[Any], dims: int) -> None:
        self.dtype = dtype
        self.bits = 64 if dtype.itemsize == 8 else 32 if dtype.itemsize == 4 else 16
        self.depth = 0  # bits known
        # dimension -> {upper bits of a key: counts of the next 16}
        self.counts = [{0: np.zeros(_BINS, dtype=np.int64)} for _ in range(dims)]
        # dimension -> {rank: (upper bits of the number there, its rank among the numbers that have them)}
        self.places: list[dict[int, tuple[int, int]]] = [{} for _ in range(dims)]

    def empty(self) -> "_RadixSearch":
        other = _RadixSearch(self.dtype, len(self.counts))
        other.depth = self.depth
        other.counts = [{upper: np.zeros_like(bins) for upper, bins in row.items()} for row in self.counts]
        other.places = [dict(row) for row in self.places]
        return other

    def add_counts(self, other: "_RadixSearch") -> None:
        for mine, theirs in zip(self.counts, other.counts, strict=True):
            for upper, bins in theirs.items():
                mine[upper] += bins

    def count(self, values: NDArray[Any]) -> None:
        shift = np.uint64(self.bits - self.depth - _DIGIT)
        for dim, wanted in enumerate(self.counts):
            keys = _keys(values[:, dim])
            low = keys.astype(np.uint64) >> shift if self.bits == 64 else keys >> keys.dtype.type(shift)
            if self.depth == 0:
                wanted[0] += np.bincount(low.astype(np.int64), minlength=_BINS)
                continue
            upper = low >> low.dtype.type(_DIGIT)
            for prefix, bins in wanted.items():
                inside = low[upper == low.dtype.type(prefix)] & low.dtype.type(_BINS - 1)
                bins += np.bincount(inside.astype(np.int64), minlength=_BINS)

    def narrow(self, count: int) -> bool:
        """Follow each wanted rank 16 bits deeper; True when its number is not whole yet."""
        for dim, bins in enumerate(self.counts):
            places = self.places[dim] or {rank: (0, rank) for rank in _ranks(count)}
            if self.depth < self.bits:
                self.places[dim] = {rank: _deeper(bins[upper], upper, left) for rank, (upper, left) in places.items()}
        self.depth = min(self.bits, self.depth + _DIGIT)
        if self.depth == self.bits:
            return False
        self.counts = [
            {upper: np.zeros(_BINS, dtype=np.int64) for upper in {place[0] for place in row.values()}}
            for row in self.places
        ]
        return True

    def quantiles(self, count: int) -> NDArray[np.float64]:
        """(quantiles, dims) as numpy's linear ones."""
        if self.depth != self.bits:
            raise ValueError("another pass over the rows is needed: call next_pass() until it says False")
        found = np.empty((len(QUANTILES), len(self.places)))
        for dim, places in enumerate(self.places):
            ranks = sorted(places)
            numbers = _numbers(np.asarray([places[rank][0] for rank in ranks], dtype=np.uint64), self.dtype)
            at = dict(zip(ranks, numbers.astype(np.float64).tolist(), strict=True))
            for row, share in enumerate(QUANTILES.values()):
                place = share * (count - 1)
                low = int(np.floor(place))
                found[row, dim] = _between(at[low], at[min(low + 1, count - 1)], place - low)
        return found


def _ranks(count: int) -> list[int]:
    lows = [int(np.floor(share * (count - 1))) for share in QUANTILES.values()]
    return sorted({rank for low in lows for rank in (low, min(low + 1, count - 1))})


def _deeper(bins: NDArray[np.int64], upper: int, left: int) -> tuple[int, int]:
    ends = np.cumsum(bins)
    digit = int(np.searchsorted(ends, left, side="right"))
    return upper << _DIGIT | digit, left - int(ends[digit] - bins[digit])


def _quantiles(ordered: NDArray[Any]) -> list[float]:
    """Of sorted numbers."""
    last = len(ordered) - 1
    places = [share * last for share in QUANTILES.values()]
    return [
        _between(float(ordered[int(place)]), float(ordered[min(int(place) + 1, last)]), place - int(place))
        for place in places
    ]


def _between(low: float, high: float, share: float) -> float:
    """As numpy interpolates: from the nearer end, which keeps both ends exact."""
    step = high - low
    return high - step * (1 - share) if share >= 0.5 else low + step * share


def _keys(values: NDArray[Any]) -> NDArray[Any]:
    """Unsigned numbers in the order of `values`: of floats the sign bit, or all bits of negative ones, are turned."""
    kind, size = values.dtype.kind, values.dtype.itemsize
    wide = np.dtype(f"u{size if size > 1 else 2}")
    if kind in "bu":
        return values.astype(wide)
    if kind == "i":
        signed = values.astype(f"i{wide.itemsize}")
        turned: NDArray[Any] = np.ascontiguousarray(signed).view(wide) ^ wide.type(1 << (8 * wide.itemsize - 1))
        return turned
    raw = np.ascontiguousarray(values + values.dtype.type(0)).view(wide)  # -0.0 becomes 0.0
    sign = wide.type(1 << (8 * size - 1))
    keys: NDArray[Any] = np.where(raw & sign, ~raw, raw | sign)
    return keys


def _numbers(keys: NDArray[np.uint64], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The inverse of `_keys`."""
    wide = np.dtype(f"u{max(2, dtype.itemsize)}")
    keys = keys.astype(wide)
    if dtype.kind in "bu":
        return keys
    sign = wide.type(1 << (8 * wide.itemsize - 1))
    if dtype.kind == "i":
        signed: NDArray[Any] = (keys ^ sign).view(f"i{wide.itemsize}")
        return signed
    numbers: NDArray[Any] = np.where(keys & sign, keys ^ sign, ~keys).view(dtype)
    return numbers
