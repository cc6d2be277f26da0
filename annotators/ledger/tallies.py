"""Counts over the ledger, for the lead: what waits, what people said about shared items, what audits showed. No
histories: a hundred thousand items take seconds, where replaying them would take minutes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from typing import cast as cast_type

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json
from sqlalchemy import Connection, Join, and_, exists, func, select

from annotators.agreement import Vote
from annotators.ballots import Ballot
from annotators.ledger.deeds import REJECT, Columns
from annotators.ledger.kept import Kept
from annotators.ledger.progress import Group, Progress
from annotators.ledger.queue import QueueFilter
from annotators.ledger.rows import RANK_RARE, RANK_WORDS, ItemStatus
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """The items that are wanted, counted once by everything that the figures tell them apart by."""

    groups: Mapping["ItemGroup", int]

    @classmethod
    def count(cls, connection: Connection, wanted: QueueFilter) -> "Items":
        """One look at every item; each further look would take as long."""
        query = select(*_GROUP, func.count()).where(*wanted.conditions()).group_by(*_GROUP)
        return cls(groups={ItemGroup(*found): count for *found, count in connection.execute(query)})

    def progress(self, num_decisions: int) -> Progress:
        """How far the review is; gold stands apart."""
        found: Counter[Group] = Counter()
        for row, count in self.groups.items():
            if row.waits != "gold":
                found[Group(row.status, bool(row.conflict), row.rank, row.decided_by, bool(row.is_stale))] += count
        return Progress.of(found, num_decisions)

    def waiting(self) -> dict[str, int]:
        """Items that wait for somebody, by the reason why they stand where they stand in the queue."""
        found: Counter[str] = Counter()
        for row, count in self.groups.items():
            if row.waits not in ("review", "adjudication"):
                continue
            if (
                row.status == "disputed"
            ):  # a shared item that was settled may wait for an adjudicator for another reason
                found["reviewers disagree"] += count
            elif row.is_stale:
                found["the episode changed since"] += count
            elif row.conflict:
                found["differs from what a person said"] += count
            else:
                found[RANK_WORDS[row.rank]] += count
        return dict(found)

    def votes_missing(self, connection: Connection, wanted: QueueFilter) -> int:
        """How many more decisions people have to make: several about items that several decide about."""
        missing = sum(count for row, count in self.groups.items() if row.waits in ("review", "adjudication"))
        given = select(VOTES.c.item_id, func.count().label("votes")).group_by(VOTES.c.item_id).subquery()
        more = ASSIGNMENTS.c.overlap - func.coalesce(given.c.votes, 0) - 1
        query = select(func.sum(more)).select_from(_assigned().outerjoin(given, given.c.item_id == ITEMS.c.item_id))
        return missing + int(
            connection.execute(query.where(ITEMS.c.waits == "review", more > 0, *wanted.conditions())).scalar() or 0
        )


class ItemGroup(NamedTuple):
    """What items have in common that are counted together."""

    status: ItemStatus
    conflict: bool
    rank: int
    decided_by: str | None
    is_stale: bool
    waits: str
    family: str
    field: FieldName
    annotator: str
    stratum: str
    audit: str


_GROUP = tuple((ITEMS.c.stale != "").label(name) if name == "is_stale" else ITEMS.c[name] for name in ItemGroup._fields)


def _assigned() -> Join:
    """Items with the assignment that holds."""
    later = ASSIGNMENTS.alias("later")
    is_replaced = exists().where(later.c.item_id == ASSIGNMENTS.c.item_id, later.c.seq > ASSIGNMENTS.c.seq)
    return ITEMS.join(ASSIGNMENTS, and_(ASSIGNMENTS.c.item_id == ITEMS.c.item_id, ~is_replaced))


def votes(connection: Connection, kept: Kept, deeds: Columns, places: NDArray[np.int64]) -> tuple[list[Vote], Ballot]:
    """What people said about shared items without seeing each other, of the decisions `deeds`, which stand at some
    places of all; gold's own truth is not among them."""
    is_shared = np.zeros(len(kept.items), dtype=bool)
    is_shared[[kept.items[item_id] for item_id, _ in kept.assigned() if item_id in kept.items]] = True
    blind = (deeds.kind_D <= REJECT) & deeds.is_review_D & ~deeds.is_taken_back_D & is_shared[deeds.item_D]
    return kept.votes(connection, places[blind])


def gold_votes(connection: Connection, wanted: QueueFilter, made: Sequence[Vote]) -> list[GoldVote]:
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


def strata(connection: Connection, wanted: QueueFilter, items: Items | None = None) -> list[Stratum]:
    """Every kind of scene with what its random audits showed, by name; `items` where they were counted already."""
    table, conditions = ITEMS.c, wanted.conditions()
    clean = and_(_CLEAN, *conditions)
    counts: dict[tuple[str, ...], dict[str, int]] = {}
    for row, count in (items or Items.count(connection, wanted)).groups.items():
        if row.rank < RANK_RARE:
            continue
        found = counts.setdefault((row.family, row.field, row.annotator, row.stratum), dict.fromkeys(_COUNTS, 0))
        found["num_items"] += count
        found["num_audited"] += count if row.audit in ("right", "wrong") else 0
        found["num_wrong"] += count if row.audit == "wrong" else 0
        found["num_waiting"] += count if row.waits == "review" and row.audit == "" else 0
        found["num_batch"] += count if row.audit == "batch" else 0
    # Where nobody looked at the first few, what was looked at further on does not count.
    gaps = select(*_KEY, func.min(table.item_id)).where(clean, table.audit == "").group_by(*_KEY)
    for *key, gap in connection.execute(gaps).all():
        same = [column == value for column, value in zip(_KEY, key, strict=True)]
        before = select(table.audit, func.count()).where(clean, *same, table.item_id < gap).group_by(table.audit)
        audits: dict[str, int] = dict(connection.execute(before).tuples().all())
        found = counts[tuple(key)]
        found["num_audited"] = audits.get("right", 0) + audits.get("wrong", 0)
        found["num_wrong"] = audits.get("wrong", 0)
    return [
        Stratum(family=family, field=cast_type(FieldName, field), annotator=annotator, stratum=stratum, **found)
        for (family, field, annotator, stratum), found in sorted(counts.items())
    ]


_COUNTS = ("num_items", "num_audited", "num_wrong", "num_waiting", "num_batch")
