"""Counts over the ledger, for the lead: what waits, what people said about shared items, what audits showed. No
histories: a hundred thousand items take seconds, where replaying them would take minutes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from typing import cast as cast_type

from pydantic_core import from_json
from sqlalchemy import Connection, Join, and_, exists, func, or_, select

from annotators.agreement import Vote
from annotators.ledger.kept import Deed, Kept
from annotators.ledger.queue import QueueFilter
from annotators.ledger.rows import RANK_RARE, RANK_WORDS
from annotators.ledger.tables import ASSIGNMENTS, DECISIONS, ITEMS, PROPOSALS, VOTES
from schemas.annotations import FieldName
from schemas.shares import Share


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldVote:
    """What somebody said about an item whose truth is known."""

    vote: Vote
    truth: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stratum:
    """One kind of scene as one speaker of one family proposes it: the items that no program doubts.

    Of these, `num_audited` were looked at without a gap in the queue's random order, so they stand for all of them;
    what people picked out of order beyond the first gap does not count.
    """

    family: str
    field: FieldName
    annotator: str
    stratum: str
    num_items: int
    num_audited: int
    num_wrong: int  # of the audited: edited or rejected
    num_waiting: int
    num_batch: int  # accepted without a look

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What tells it from others."""
        return self.family, self.field, self.annotator, self.stratum

    @property
    def name(self) -> str:
        """The same in words."""
        return f"{self.field}, {self.stratum}, {self.annotator}, {self.family}"

    @property
    def error(self) -> Share:
        """How many of the audited were wrong."""
        return Share(num=self.num_wrong, of=self.num_audited)


_KEY = (ITEMS.c.family, ITEMS.c.field, ITEMS.c.annotator, ITEMS.c.stratum)
_CLEAN = ITEMS.c.rank >= RANK_RARE  # every verifier passed and no two speakers disagree


def waiting(connection: Connection, wanted: QueueFilter) -> dict[str, int]:
    """Items that wait for somebody, by the reason why they stand where they stand in the queue."""
    table = ITEMS.c
    columns = (table.status, table.conflict, table.stale != "", table.rank)
    query = select(*columns, func.count()).where(table.waits.in_(("review", "adjudication")), *wanted.conditions())
    found: dict[str, int] = {}
    for status, conflict, is_stale, rank, count in connection.execute(query.group_by(*columns)):
        reason = RANK_WORDS[rank]
        if status == "disputed":  # a shared item that was settled may wait for an adjudicator for another reason
            reason = "reviewers disagree"
        elif is_stale:
            reason = "the episode changed since"
        elif conflict:
            reason = "differs from what a person said"
        found[reason] = found.get(reason, 0) + count
    return found


def votes_missing(connection: Connection, wanted: QueueFilter) -> int:
    """How many more decisions people have to make: several about items that several decide about."""
    table = ITEMS.c
    query = select(table.item_id).where(table.waits.in_(("review", "adjudication")), *wanted.conditions())
    missing = int(connection.execute(select(func.count()).select_from(query.subquery())).scalar_one())
    given = select(VOTES.c.item_id, func.count().label("votes")).group_by(VOTES.c.item_id).subquery()
    shared = select(ASSIGNMENTS.c.overlap, func.coalesce(given.c.votes, 0)).select_from(
        _assigned().outerjoin(given, given.c.item_id == table.item_id)
    )
    shared = shared.where(table.waits == "review", ASSIGNMENTS.c.overlap > 1, *wanted.conditions())
    return missing + sum(max(0, int(overlap) - int(votes) - 1) for overlap, votes in connection.execute(shared))


def _assigned() -> Join:
    """Items with the assignment that holds."""
    later = ASSIGNMENTS.alias("later")
    is_replaced = exists().where(later.c.item_id == ASSIGNMENTS.c.item_id, later.c.seq > ASSIGNMENTS.c.seq)
    return ITEMS.join(ASSIGNMENTS, and_(ASSIGNMENTS.c.item_id == ITEMS.c.item_id, ~is_replaced))


def votes(connection: Connection, wanted: QueueFilter, kept: Kept, deeds: Sequence[Deed]) -> list[Vote]:
    """What people said about shared items without seeing each other; gold's own truth is not among them."""
    gold = ASSIGNMENTS.c.gold
    query = select(ITEMS.c.item_id, ITEMS.c.field, gold).select_from(_assigned())
    query = query.where(or_(ASSIGNMENTS.c.overlap > 1, gold.is_not(None)), *wanted.conditions())
    shared = {item_id: (field, truth) for item_id, field, truth in connection.execute(query)}
    taken_back = {deed.undoes for deed in deeds}
    newest: dict[tuple[str, str], tuple[Deed, str]] = {}
    for deed in deeds:
        if deed.item_id not in shared or not deed.is_look or deed.track != "review":
            continue
        field, truth = shared[deed.item_id]
        if deed.decision_id != truth and deed.decision_id not in taken_back:
            newest[deed.item_id, deed.reviewer] = deed, field
    return kept.votes(connection, newest.values())


def gold_votes(connection: Connection, wanted: QueueFilter, made: list[Vote]) -> list[GoldVote]:
    """Those of the votes that are about gold, each with the truth."""
    columns = (DECISIONS.c.item_id, DECISIONS.c.action, DECISIONS.c.payload_json, PROPOSALS.c.body_json)
    query = (
        select(*columns)
        .select_from(
            _assigned()
            .join(DECISIONS, DECISIONS.c.decision_id == ASSIGNMENTS.c.gold)
            .join(PROPOSALS, PROPOSALS.c.proposal_id == DECISIONS.c.base_proposal_id)
        )
        .where(ITEMS.c.waits == "gold", *wanted.conditions())
    )
    truths = {row.item_id: _words(row) for row in connection.execute(query)}
    return [GoldVote(vote=vote, truth=truths[vote.item_id]) for vote in made if vote.item_id in truths]


def _words(row: Any) -> Mapping[str, Any] | None:  # noqa: ANN401 - a SQL row
    if row.action not in ("accept", "edit"):
        return None
    if row.payload_json is not None:
        return dict(from_json(row.payload_json))
    return dict(from_json(row.body_json)["payload"])


def strata(connection: Connection, wanted: QueueFilter) -> list[Stratum]:
    """Every kind of scene with what its random audits showed, by name."""
    table, conditions = ITEMS.c, wanted.conditions()
    clean = and_(_CLEAN, *conditions)
    gap = select(*_KEY, func.min(table.item_id).label("gap")).where(clean, table.audit == "").group_by(*_KEY).subquery()
    same = and_(*(column == gap.c[column.name] for column in _KEY))
    before = or_(gap.c.gap.is_(None), table.item_id < gap.c.gap)
    is_waiting = table.waits == "review"  # one object, so that it is grouped by what it selects
    query = (
        select(*_KEY, table.audit, is_waiting, before, func.count())
        .select_from(ITEMS.outerjoin(gap, same))
        .where(clean)
        .group_by(*_KEY, table.audit, is_waiting, before)
    )
    counts: dict[tuple[str, str, str, str], dict[str, int]] = {}
    for family, field, annotator, stratum, audit, waits, is_before, count in connection.execute(query):
        found = counts.setdefault((family, field, annotator, stratum), dict.fromkeys(_COUNTS, 0))
        found["num_items"] += count
        found["num_audited"] += count if is_before and audit in ("right", "wrong") else 0
        found["num_wrong"] += count if is_before and audit == "wrong" else 0
        found["num_waiting"] += count if waits and audit == "" else 0
        found["num_batch"] += count if audit == "batch" else 0
    return [
        Stratum(family=family, field=cast_type(FieldName, field), annotator=annotator, stratum=stratum, **found)
        for (family, field, annotator, stratum), found in sorted(counts.items())
    ]


_COUNTS = ("num_items", "num_audited", "num_wrong", "num_waiting", "num_batch")
