"""How far the review is, without counting every item again for every decision.

Counting takes time with every item there is, and a hundred reviewers decide ten times a second. So everything is
counted once in a while, and what is decided through this page in between is added at once. What others do, through
another page or the command line, is seen with the next count.
"""

import threading
import time
from collections import Counter

from annotators.ledger import Ledger, Progress, QueueFilter, StoredDecision
from annotators.ledger.progress import Group

_LEAST_S = 1.0  # between two counts
_SHARE = 20  # counting takes one part in so many of the time, at most


class Counts:
    """Safe to share between threads."""

    def __init__(self, ledger: Ledger, wanted: QueueFilter, *, least_s: float = _LEAST_S) -> None:
        self._ledger, self._wanted, self._least_s = ledger, wanted, least_s
        self._counting, self._lock = threading.Lock(), threading.Lock()
        self._groups: Counter[Group] = Counter()
        self._seq, self._needed, self._num_decisions = -1, 0, 0  # of the last count; what a count has to include
        self._moves: list[tuple[int, Group | None, Group | None]] = []  # seq of a decision; its item before and after
        self._next = 0.0  # when to count again

    def progress(self) -> Progress:
        """Counts over all items."""
        # One counts; who comes meanwhile takes the last count, if that will do.
        if self._is_due() and self._counting.acquire(blocking=self._seq < self._needed):
            try:
                if self._is_due():
                    self._count()
            finally:
                self._counting.release()
        with self._lock:
            return Progress.of(self._groups, self._num_decisions)

    def group(self, item_id: str) -> Group | None:
        """Where an item is counted now: ask before it is decided about, and tell `add`."""
        return self._ledger.group(item_id, self._wanted)

    def add(self, made: StoredDecision, before: Group | None) -> None:
        """Count a decision that was just made here."""
        after = self.group(made.item_id)
        with self._lock:
            if made.seq > self._seq and all(seq != made.seq for seq, _, _ in self._moves):  # a double click is one
                self._moves.append((made.seq, before, after))
                _move(self._groups, before, after)

    def include(self, seq: int) -> None:
        """Count everything anew before the next answer: what was done up to this number is more than `add` knows of."""
        with self._lock:
            self._needed = max(self._needed, seq)

    def _is_due(self) -> bool:
        return self._seq < self._needed or time.monotonic() >= self._next

    def _count(self) -> None:
        start = time.monotonic()
        found = self._ledger.tally(self._wanted)
        end = time.monotonic()
        with self._lock:
            self._seq, self._groups, self._num_decisions = found.seq, found.groups, found.num_decisions
            self._moves = [row for row in self._moves if row[0] > found.seq]
            for _, before, after in self._moves:  # made while it was counted
                _move(self._groups, before, after)
            self._next = end + max(self._least_s, _SHARE * (end - start))


def _move(groups: Counter[Group], before: Group | None, after: Group | None) -> None:
    if before is not None:
        groups[before] -= 1
    if after is not None:
        groups[after] += 1
