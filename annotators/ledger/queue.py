"""Who gets which item next, and how far the review is."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, case, func, or_, select, update

from annotators.ledger import store
from annotators.ledger.rows import ItemStatus, Progress, QueueRow, ReviewItem
from annotators.ledger.tables import ITEMS
from schemas.errors import LedgerError


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFilter:
    """Which items someone wants to see; empty means all."""

    status: ItemStatus | None = None
    stale: bool | None = None  # True: only what no longer fits its episode
    rank: int | None = None  # RANK_FAIL ... RANK_REST
    search: str = ""  # part of an episode's id
    among: Sequence[str] | None = field(default=None)  # only these episodes

    def conditions(self) -> list[ColumnElement[bool]]:
        """The same in SQL."""
        found: list[ColumnElement[bool]] = []
        if self.status is not None:
            found.append(ITEMS.c.status == self.status)
        if self.stale is not None:
            found.append(ITEMS.c.stale != "" if self.stale else ITEMS.c.stale == "")
        if self.rank is not None:
            found.append(ITEMS.c.rank == self.rank)
        if self.search:
            found.append(ITEMS.c.episode_id.icontains(self.search, autoescape=True))
        if self.among is not None:
            found.append(ITEMS.c.episode_id.in_(self.among))
        return found


def claim(
    connection: Connection, *, reviewer: str, lease_s: float, item_id: str | None, wanted: QueueFilter
) -> ReviewItem | None:
    """Lease one item; see Ledger.claim. PostgreSQL skips rows that another claim holds, SQLite admits one writer."""
    now = store.now_ms(connection)
    mine = and_(ITEMS.c.lease_owner == reviewer, ITEMS.c.lease_until_ms > now)
    query = select(ITEMS.c.item_id).where(or_(ITEMS.c.lease_until_ms <= now, ITEMS.c.lease_owner == reviewer))
    if item_id is not None:
        query = query.where(ITEMS.c.item_id == item_id)
    else:
        query = query.where(or_(mine, _waiting(reviewer, wanted.status)), *wanted.conditions())
        query = query.order_by(case((mine, 0), else_=1), ITEMS.c.rank, ITEMS.c.item_id)
    found = connection.execute(query.limit(1).with_for_update(skip_locked=True)).scalar()
    if found is None:
        if item_id is not None:
            raise LedgerError(_why_not(connection, item_id))
        return None
    others = and_(ITEMS.c.lease_owner == reviewer, ITEMS.c.item_id != found)
    connection.execute(update(ITEMS).where(others).values(lease_owner=None, lease_until_ms=0))
    lease = {"lease_owner": reviewer, "lease_until_ms": now + int(lease_s * 1000)}
    connection.execute(update(ITEMS).where(ITEMS.c.item_id == found).values(**lease))
    return review_item(connection, found)


def renew(connection: Connection, *, reviewer: str, item_id: str, lease_s: float) -> bool:
    """Prolong a lease; see Ledger.renew."""
    held = and_(ITEMS.c.item_id == item_id, ITEMS.c.lease_owner == reviewer)
    until_ms = store.now_ms(connection) + int(lease_s * 1000)
    return connection.execute(update(ITEMS).where(held).values(lease_until_ms=until_ms)).rowcount == 1


def _waiting(reviewer: str, status: ItemStatus | None) -> ColumnElement[bool]:
    """What a claim may hand out: undecided, stale and conflicting items, except those this reviewer set aside."""
    if status == "skipped":
        return ITEMS.c.status == "skipped"
    return and_(_unsettled(), ITEMS.c.skipped_by != reviewer)


def _unsettled() -> ColumnElement[bool]:
    return or_(ITEMS.c.status.in_(("open", "skipped")), ITEMS.c.conflict, ITEMS.c.stale != "")


def _why_not(connection: Connection, item_id: str) -> str:
    row = connection.execute(select(ITEMS.c.lease_owner).where(ITEMS.c.item_id == item_id)).one_or_none()
    if row is None:
        return f"no item '{item_id}' in the ledger. Take one from the queue."
    return f"{row.lease_owner or 'someone'} works on this item now. Take another one, or wait."


def review_item(connection: Connection, item_id: str) -> ReviewItem:
    """One item with everything said about it. Raises LedgerError when there is none."""
    row = connection.execute(select(ITEMS).where(ITEMS.c.item_id == item_id)).one_or_none()
    history = store.load_history(connection, item_id)
    if row is None or history is None:
        raise LedgerError(f"no item '{item_id}' in the ledger. Take one from the queue.")
    return ReviewItem(
        item_id=item_id,
        episode_id=history.episode_id,
        stamp_ns=history.stamp_ns,
        field=history.field,
        status=history.status,
        conflict=history.conflict,
        rank=history.rank,
        revision=len(history.decisions),
        head=history.head,
        proposals=history.proposals,
        history=history.decisions,
        confirmed=history.confirmed,
        last_word=history.last_word,
        lease_owner=row.lease_owner if row.lease_until_ms > store.now_ms(connection) else None,
        lease_until_ms=row.lease_until_ms,
        stale=row.stale,
    )


def queue_rows(connection: Connection, wanted: QueueFilter, limit: int) -> list[QueueRow]:
    """Items in order of review, what waits first."""
    settled = case((_unsettled(), 0), else_=1)
    query = select(ITEMS).where(*wanted.conditions()).order_by(settled, ITEMS.c.rank, ITEMS.c.item_id).limit(limit)
    now = store.now_ms(connection)
    return [_queue_row(row, now) for row in connection.execute(query)]


def _queue_row(row: Any, now: int) -> QueueRow:  # noqa: ANN401 - a SQL row
    return QueueRow(
        item_id=row.item_id,
        episode_id=row.episode_id,
        stamp_ns=row.stamp_ns,
        field=row.field,
        status=row.status,
        conflict=bool(row.conflict),
        rank=row.rank,
        decided_by=row.decided_by,
        lease_owner=row.lease_owner if row.lease_until_ms > now else None,
        stale=row.stale,
    )


def progress(connection: Connection, wanted: QueueFilter) -> Progress:
    """Counts over the items that are wanted."""
    table = ITEMS.c
    columns = (table.status, table.conflict, table.rank, table.decided_by, table.stale != "")
    query = select(*columns, func.count()).where(*wanted.conditions()).group_by(*columns)
    by_status: dict[str, int] = {}
    by_reviewer: dict[str, int] = {}
    by_rank: dict[int, int] = {}
    num_conflicts = 0
    for said, conflict, rank, decided_by, is_stale, count in connection.execute(query):
        status = "stale" if is_stale and decided_by else said
        by_status[status] = by_status.get(status, 0) + count
        num_conflicts += count if conflict else 0
        if decided_by:
            by_reviewer[decided_by] = by_reviewer.get(decided_by, 0) + count
        if conflict or is_stale or not decided_by:
            by_rank[rank] = by_rank.get(rank, 0) + count
    return Progress(
        num_items=sum(by_status.values()),
        by_status=by_status,
        by_reviewer=dict(sorted(by_reviewer.items())),
        by_rank=dict(sorted(by_rank.items())),
        num_conflicts=num_conflicts,
        num_decisions=store.current(connection, "decisions"),
    )
