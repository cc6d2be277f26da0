"""Statistics of every column over all episodes of a dataset, in bounded memory."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from dataengine.stats import ColumnStatsAccumulator, Stats

# Counting costs as much as clearing 65,536 bins per dimension however few rows there are: with an episode of 1,000 rows
# at a time that is most of a commit's work.
_ROWS = 65_536
# What fits is kept and sorted: one pass, a third of the time of counting. 2 million rows of two arms and their actions.
_KEPT_BYTES = 256 << 20


class Totals:
    """totals.add(columns, stats) for every episode; while totals.next_pass(): add them once more; totals.stats()."""

    def __init__(self, *, kept_bytes: int = _KEPT_BYTES) -> None:
        self._kept_bytes = kept_bytes
        self._totals: dict[str, ColumnStatsAccumulator] = {}
        self._wanted: list[str] | None = None  # what this pass is about; None: everything
        self._waiting: dict[str, list[NDArray[np.generic]]] = {}
        self._stats: dict[str, list[Stats]] = {}  # of what waits
        self._num_waiting = 0

    def add(self, columns: dict[str, NDArray[np.generic]], stats: dict[str, Stats]) -> None:
        """Take one episode into account: its columns and, in the first pass, the statistics of each."""
        for key in columns if self._wanted is None else self._wanted:
            self._waiting.setdefault(key, []).append(columns[key])
            if self._wanted is None:
                self._stats.setdefault(key, []).append(stats[key])
        self._num_waiting += len(next(iter(columns.values())))
        if self._num_waiting >= _ROWS:
            self._flush()

    def _flush(self) -> None:
        for key, parts in self._waiting.items():
            if key not in self._totals:
                self._totals[key] = ColumnStatsAccumulator(small_bytes=self._kept_bytes // len(self._waiting))
            self._totals[key].add(np.concatenate(parts), self._stats.get(key, ()))
        self._waiting, self._stats, self._num_waiting = {}, {}, 0

    def next_pass(self) -> bool:
        """True when all episodes are needed once more."""
        self._flush()
        before = list(self._totals) if self._wanted is None else self._wanted
        self._wanted = [key for key in before if self._totals[key].next_pass()]
        return bool(self._wanted)

    def stats(self) -> dict[str, Stats]:
        """Statistics by column."""
        with ThreadPoolExecutor() as pool:  # sorting holds no lock
            found = pool.map(ColumnStatsAccumulator.stats, self._totals.values())
            return dict(zip(self._totals, found, strict=True))
