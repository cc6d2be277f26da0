"""Statistics of every column over all episodes of a dataset, with no more than a few thousand rows in memory."""

import numpy as np
from numpy.typing import NDArray

from dataengine.stats import ColumnStatsAccumulator, Stats

# Counting costs as much as clearing 65,536 bins per dimension however few rows there are: with an episode of 1,000 rows
# at a time that is most of a commit's work.
_ROWS = 65_536


class Totals:
    """totals.add(columns) for every episode; while totals.next_pass(): add them all once more; totals.stats()."""

    def __init__(self) -> None:
        self._totals: dict[str, ColumnStatsAccumulator] = {}
        self._wanted: list[str] | None = None  # what this pass is about; None: everything
        self._waiting: dict[str, list[NDArray[np.generic]]] = {}
        self._num_waiting = 0

    def add(self, columns: dict[str, NDArray[np.generic]]) -> None:
        """Take one episode into account."""
        for key in columns if self._wanted is None else self._wanted:
            self._waiting.setdefault(key, []).append(columns[key])
        self._num_waiting += len(next(iter(columns.values())))
        if self._num_waiting >= _ROWS:
            self._flush()

    def _flush(self) -> None:
        for key, parts in self._waiting.items():
            self._totals.setdefault(key, ColumnStatsAccumulator()).add(np.concatenate(parts))
        self._waiting, self._num_waiting = {}, 0

    def next_pass(self) -> bool:
        """True when all episodes are needed once more."""
        self._flush()
        before = list(self._totals) if self._wanted is None else self._wanted
        self._wanted = [key for key in before if self._totals[key].next_pass()]
        return bool(self._wanted)

    def stats(self) -> dict[str, Stats]:
        """Statistics by column."""
        return {key: total.stats() for key, total in self._totals.items()}
