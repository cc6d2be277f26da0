"""Who gets which item next."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, exists, insert, or_, select, update

from annotators.ledger import store
from annotators.ledger.rows import ItemStatus, QueueRow, ReviewItem, Track
from annotators.ledger.statements import CHANGE_ITEM, GIVE_BACK_OTHERS, ITEM, NUM_MADE_BY
from annotators.ledger.tables import ITEMS, SCOPES, VOTES
from schemas.annotations import FieldName
from schemas.errors import LedgerError
from schemas.records import sha256_of

GOLD_EVERY = 10  # about one item in ten is gold, while there is gold that a reviewer has not seen


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFilter:
    """Which items someone wants to see; empty means all."""

    status: ItemStatus | None = None
    stale: bool | None = None  # True: only what no longer fits its episode
    rank: int | None = None  # RANK_FAIL ... RANK_REST
    search: str = ""  # part of an episode's id
    among: Sequence[str] | None = None  # only these episodes: a few of them, else a scope
    scope: str | None = None  # only the episodes of a set; see Ledger.scope
    field: FieldName | None = None  # trace, segments, ...
    family: str | None = None  # task family of the newest proposal, e.g. math-matching@1
    annotator: str | None = None  # who made the newest proposal
    stratum: str | None = None  # what kind of scene it is about
    verifier: str | None = None  # a verifier that did not pass

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
        if self.scope is not None:
            inside = and_(SCOPES.c.scope == self.scope, SCOPES.c.episode_id == ITEMS.c.episode_id)
            found.append(exists().where(inside))
        facets = (ITEMS.c.field, ITEMS.c.family, ITEMS.c.annotator, ITEMS.c.stratum)
        chosen = [(column, getattr(self, column.name)) for column in facets]
        found += [column == value for column, value in chosen if value is not None]
        if self.verifier is not None:
            found.append(ITEMS.c.doubts.contains(f"|{self.verifier}|", autoescape=True))
        return found


def scope(connection: Connection, episode_ids: Sequence[str]) -> str:
    """Store a set of episodes under its hash; see Ledger.scope."""
    wanted = sorted(set(episode_ids))
    key = sha256_of(wanted)
    if wanted and connection.execute(select(SCOPES.c.scope).where(SCOPES.c.scope == key).limit(1)).first() is None:
        connection.execute(insert(SCOPES), [{"scope": key, "episode_id": episode_id} for episode_id in wanted])
    return key


def claim(
    connection: Connection,
    *,
    reviewer: str,
    lease_s: float,
    item_id: str | None,
    wanted: QueueFilter,
    track: Track,
    gold_every: int,
) -> ReviewItem | None:
    """Lease one item; see Ledger.claim. PostgreSQL skips rows that another claim holds, SQLite admits one writer."""
    now = store.now_ms(connection)
    table = ITEMS.c
    free = or_(table.lease_until_ms <= now, table.lease_owner == reviewer)
    unseen = ~exists().where(and_(VOTES.c.item_id == table.item_id, VOTES.c.reviewer == reviewer))
    if item_id is not None:
        found = _first(connection, table.item_id == item_id, free)
        if found is None:
            raise LedgerError(_why_not(connection, item_id))
    else:
        fits = [free, unseen, *wanted.conditions()]
        waiting = [*fits, *_not_skipped(reviewer, wanted.status)]
        kinds = ("review", "gold") if track == "review" else (track,)
        held = select(table.item_id).where(table.lease_owner == reviewer, table.lease_until_ms > now).limit(1)
        found = _first(connection, table.item_id == held.scalar_subquery(), table.waits.in_(kinds), *fits)
        # Each in the order of the index, so that the first row that fits ends the search however long the queue is.
        if found is None and track == "review" and _is_gold_turn(connection, reviewer, gold_every):
            found = _first(connection, table.waits == "gold", *waiting)
        if found is None:
            found = _first(connection, table.waits == track, *waiting)
        if found is None:
            return None
    connection.execute(GIVE_BACK_OTHERS, {"holder": reviewer, "item": found})
    lease = {"lease_owner": reviewer, "lease_until_ms": now + int(lease_s * 1000)}
    connection.execute(CHANGE_ITEM, {"item": found, **lease})
    return review_item(connection, found, reviewer=reviewer, track=track)


def _first(connection: Connection, *conditions: ColumnElement[bool]) -> str | None:
    query = select(ITEMS.c.item_id).where(*conditions).order_by(ITEMS.c.rank, ITEMS.c.item_id).limit(1)
    return connection.execute(query.with_for_update(skip_locked=True, of=ITEMS)).scalar()


def _is_gold_turn(connection: Connection, reviewer: str, gold_every: int) -> bool:
    """True for one in so many of a reviewer's items, at places that look random."""
    num_made = connection.execute(NUM_MADE_BY, {"name": reviewer}).scalar_one()
    return int(sha256_of([reviewer, num_made]), 16) % gold_every == 0


def _not_skipped(reviewer: str, status: ItemStatus | None) -> list[ColumnElement[bool]]:
    """What somebody set aside comes back to them only when they ask for it."""
    return [] if status == "skipped" else [ITEMS.c.skipped_by != reviewer]


def renew(connection: Connection, *, reviewer: str, item_id: str, lease_s: float) -> bool:
    """Prolong a lease; see Ledger.renew."""
    held = and_(ITEMS.c.item_id == item_id, ITEMS.c.lease_owner == reviewer)
    until_ms = store.now_ms(connection) + int(lease_s * 1000)
    return connection.execute(update(ITEMS).where(held).values(lease_until_ms=until_ms)).rowcount == 1


def _why_not(connection: Connection, item_id: str) -> str:
    row = connection.execute(select(ITEMS.c.lease_owner).where(ITEMS.c.item_id == item_id)).one_or_none()
    if row is None:
        return f"no item '{item_id}' in the ledger. Take one from the queue."
    return f"{row.lease_owner or 'someone'} works on this item now. Take another one, or wait."


def review_item(
    connection: Connection, item_id: str, *, reviewer: str | None = None, track: Track = "review"
) -> ReviewItem:
    """One item with everything said about it, or what a reviewer may know of it. Raises LedgerError for no item."""
    row = connection.execute(ITEM, {"item": item_id}).one_or_none()
    whole = store.load_history(connection, item_id)
    if row is None or whole is None:
        raise LedgerError(f"no item '{item_id}' in the ledger. Take one from the queue.")
    is_open = reviewer is None or track == "adjudication"
    history = whole if is_open else whole.as_seen_by(reviewer or "")
    return ReviewItem(
        item_id=item_id,
        episode_id=history.episode_id,
        stamp_ns=history.stamp_ns,
        field=history.field,
        status=history.status,
        conflict=history.conflict,
        rank=history.rank,
        revision=len(whole.decisions if is_open else whole.facing(reviewer or "")),
        head=history.head,
        proposals=history.proposals,
        history=history.decisions,
        confirmed=history.confirmed,
        last_word=history.last_word,
        lease_owner=row.lease_owner if row.lease_until_ms > store.now_ms(connection) else None,
        lease_until_ms=row.lease_until_ms,
        stale=row.stale if history is whole else "",
        votes=tuple(whole.votes.values()) if is_open and whole.is_shared else (),
    )


_LISTED = [
    ITEMS.c[name]
    for name in (
        *("item_id", "episode_id", "stamp_ns", "field", "status", "conflict", "rank", "decided_by"),
        *("lease_owner", "lease_until_ms", "stale"),
    )
]


def queue_rows(
    connection: Connection, wanted: QueueFilter, limit: int, reviewer: str | None, track: Track
) -> list[QueueRow]:
    """Items in order of review, what waits on the track first; see Ledger.queue."""
    now = store.now_ms(connection)
    conditions = _listable(wanted, reviewer, track)
    rows: list[Any] = []
    order: list[tuple[str, ...]] = [("review", "gold"), ("adjudication",), ("",)]
    if track == "adjudication":
        order = [order[1], order[0], order[2]]
    for kinds in order:  # one by one, each in the order of the index
        found: list[Any] = []
        for waits in kinds:
            query = select(*_LISTED).where(ITEMS.c.waits == waits, *conditions).order_by(ITEMS.c.rank, ITEMS.c.item_id)
            found += connection.execute(query.limit(limit - len(rows))).all()
        rows += sorted(found, key=lambda row: (row.rank, row.item_id))
        if len(rows) >= limit:
            break
    return [_queue_row(row, now) for row in rows[:limit]]


def listed(
    connection: Connection, item_ids: Sequence[str], wanted: QueueFilter, reviewer: str, track: Track
) -> list[QueueRow]:
    """Those of some items that `queue_rows` would list."""
    now = store.now_ms(connection)
    query = select(*_LISTED).where(ITEMS.c.item_id.in_(item_ids), *_listable(wanted, reviewer, track))
    return [_queue_row(row, now) for row in connection.execute(query)]


def _listable(wanted: QueueFilter, reviewer: str | None, track: Track) -> list[ColumnElement[bool]]:
    conditions = wanted.conditions()
    if reviewer is not None and track == "review":
        done = and_(VOTES.c.item_id == ITEMS.c.item_id, VOTES.c.reviewer == reviewer)
        conditions.append(or_(ITEMS.c.waits == "", ~exists().where(done)))
    return conditions


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


def facets(connection: Connection, wanted: QueueFilter) -> dict[str, list[str]]:
    """What a queue can be filtered by: the families, annotators, strata and doubting verifiers there are."""
    found: dict[str, list[str]] = {}
    for column in (ITEMS.c.family, ITEMS.c.annotator, ITEMS.c.stratum):
        query = select(column).where(*wanted.conditions()).distinct().order_by(column)
        found[column.name] = list(connection.execute(query).scalars())
    doubts = connection.execute(select(ITEMS.c.doubts).where(*wanted.conditions()).distinct()).scalars()
    found["verifier"] = sorted({name for row in doubts for name in row.split("|") if name})
    return found
