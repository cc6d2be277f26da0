"""How far the review is: items counted by what they have in common."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, select

from annotators.ledger import store
from annotators.ledger.queue import QueueFilter
from annotators.ledger.rows import ItemStatus
from annotators.ledger.tables import ITEMS


class Group(NamedTuple):
    """What items have in common that are counted together. A plain tuple: it is a key, made for every decision."""

    status: ItemStatus
    conflict: bool
    rank: int
    decided_by: str | None
    is_stale: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far the review is."""

    num_items: int
    by_status: dict[str, int]  # decided items that are stale under "stale"
    by_reviewer: dict[str, int]  # items whose standing decision is theirs
    by_rank: dict[int, int]  # of the items that wait
    num_conflicts: int
    num_decisions: int  # in the whole chain, skips and undos included

    @classmethod
    def of(cls, groups: Mapping[Group, int], num_decisions: int) -> "Progress":
        """The groups put together."""
        by_status: Counter[str] = Counter()
        by_reviewer: Counter[str] = Counter()
        by_rank: Counter[int] = Counter()
        num_conflicts = 0
        for group, count in groups.items():
            if not count:
                continue
            by_status["stale" if group.is_stale and group.decided_by else group.status] += count
            num_conflicts += count if group.conflict else 0
            if group.decided_by:
                by_reviewer[group.decided_by] += count
            if group.conflict or group.is_stale or not group.decided_by:
                by_rank[group.rank] += count
        return cls(
            num_items=sum(by_status.values()),
            by_status=dict(by_status),
            by_reviewer=dict(sorted(by_reviewer.items())),
            by_rank=dict(sorted(by_rank.items())),
            num_conflicts=num_conflicts,
            num_decisions=num_decisions,
        )

    @property
    def num_done(self) -> int:
        """Items that are accepted, edited or rejected."""
        return sum(self.by_status.get(status, 0) for status in ("accepted", "edited", "rejected"))

    @property
    def num_left(self) -> int:
        """Items that nobody decided about."""
        return self.num_items - self.num_done


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How many items are in each group, at one number `seq`."""

    seq: int
    groups: Counter[Group]
    num_decisions: int

    def progress(self) -> Progress:
        """The groups put together."""
        return Progress.of(self.groups, self.num_decisions)


_GROUP = (ITEMS.c.status, ITEMS.c.conflict, ITEMS.c.rank, ITEMS.c.decided_by, (ITEMS.c.stale != "").label("is_stale"))


def tally(connection: Connection, wanted: QueueFilter) -> Tally:
    """All items that are wanted, counted by group; gold stands apart."""
    query = select(*_GROUP, func.count()).where(ITEMS.c.waits != "gold", *wanted.conditions()).group_by(*_GROUP)
    groups: Counter[Group] = Counter()
    for *found, count in connection.execute(query):
        groups[_group(found)] += count
    return Tally(
        seq=store.current(connection), groups=groups, num_decisions=store.current(connection, counter="decisions")
    )


def group(connection: Connection, item_id: str, wanted: QueueFilter) -> Group | None:
    """The group that one item is counted in; None where it is not."""
    among = (ITEMS.c.item_id == item_id, ITEMS.c.waits != "gold", *wanted.conditions())
    row = connection.execute(select(*_GROUP).where(*among)).one_or_none()
    return None if row is None else _group(row)


def _group(row: Sequence[Any]) -> Group:
    status, conflict, rank, decided_by, is_stale = row
    return Group(status, bool(conflict), rank, decided_by, bool(is_stale))
