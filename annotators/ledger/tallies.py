"""Counts over the ledger, for the lead: how fast people are, what they changed, what waits. Plain SQL, no histories:
a hundred thousand items take a second or two, where replaying them would take minutes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import JSON, ColumnElement, Connection, Join, Select, and_, cast, exists, func, or_, select, type_coerce

from annotators.agreement import Vote
from annotators.ledger.queue import QueueFilter
from annotators.ledger.rows import RANK_RARE, RANK_WORDS
from annotators.ledger.tables import ASSIGNMENTS, DECISIONS, ITEMS, PROPOSALS, VOTES
from schemas.annotations import FieldName
from schemas.shares import Share


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What one person did."""

    reviewer: str
    num_decisions: int  # accepts, edits and rejects that they looked at, and did not take back
    num_batch: int  # accepted without a look
    num_skipped: int
    num_undone: int
    seconds: tuple[float, ...]  # they looked at each item, in the order of the decisions


@dataclass(frozen=True, slots=True, kw_only=True)
class Speaker:
    """Who proposed: a model with a prompt, or a program."""

    backend: str
    model: str
    prompt_hash: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdicts:
    """What people who looked did with the proposals of one speaker about one field."""

    speaker: Speaker
    field: str
    num_accepted: int
    num_edited: int
    num_rejected: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """One edit: what was proposed, and what somebody made of it."""

    field: str
    before: Mapping[str, Any]
    after: Mapping[str, Any]


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


_undos = DECISIONS.alias("undos")
_TAKEN_BACK = select(_undos.c.undoes).where(_undos.c.undoes.is_not(None))  # looked up once, not once per decision
_LIVE = and_(DECISIONS.c.action != "undo", DECISIONS.c.decision_id.not_in(_TAKEN_BACK))
_LOOKED = and_(DECISIONS.c.basis == "look", DECISIONS.c.action != "skip")
_KEY = (ITEMS.c.family, ITEMS.c.field, ITEMS.c.annotator, ITEMS.c.stratum)
_CLEAN = ITEMS.c.rank >= RANK_RARE  # every verifier passed and no two speakers disagree


def _of(query: Select[Any], wanted: QueueFilter) -> Select[Any]:
    """The query, narrowed to decisions about the items that are wanted."""
    conditions = wanted.conditions()
    return query.join(ITEMS, ITEMS.c.item_id == DECISIONS.c.item_id).where(*conditions) if conditions else query


def paces(connection: Connection, wanted: QueueFilter) -> list[Pace]:
    """What everybody did, by name."""
    columns = (DECISIONS.c.reviewer, DECISIONS.c.action, DECISIONS.c.basis, DECISIONS.c.lead_time_ms)
    live = _of(select(*columns), wanted).where(_LIVE).order_by(DECISIONS.c.seq)
    undos = _of(select(DECISIONS.c.reviewer, func.count()), wanted).where(DECISIONS.c.action == "undo")
    undone = dict(connection.execute(undos.group_by(DECISIONS.c.reviewer)).tuples().all())
    seconds: dict[str, list[float]] = {name: [] for name in undone}
    skipped = dict.fromkeys(undone, 0)
    batch = dict.fromkeys(undone, 0)
    for name, action, basis, lead_time_ms in connection.execute(live):
        times = seconds.setdefault(name, [])
        if action == "skip":
            skipped[name] = skipped.get(name, 0) + 1
        elif basis == "batch":
            batch[name] = batch.get(name, 0) + 1
        else:
            times.append(lead_time_ms / 1000)
    return [
        Pace(
            reviewer=name,
            num_decisions=len(seconds[name]),
            num_batch=batch.get(name, 0),
            num_skipped=skipped.get(name, 0),
            num_undone=undone.get(name, 0),
            seconds=tuple(seconds[name]),
        )
        for name in sorted(seconds)
    ]


def hourly(connection: Connection, wanted: QueueFilter, reviewer: str | None) -> list[tuple[str, int]]:
    """Decisions that somebody looked at in each hour (UTC, `2026-01-31T09`) that had any, oldest first."""
    hour = func.substr(DECISIONS.c.created, 1, 13).label("hour")
    query = _of(select(hour, func.count()), wanted).where(_LOOKED, DECISIONS.c.action != "undo")
    if reviewer is not None:
        query = query.where(DECISIONS.c.reviewer == reviewer)
    return [(said, count) for said, count in connection.execute(query.group_by(hour).order_by(hour))]


def waiting(connection: Connection, wanted: QueueFilter) -> dict[str, int]:
    """Items that wait for somebody, by the reason why they stand where they stand in the queue."""
    table = ITEMS.c
    columns = (table.waits, table.conflict, table.stale != "", table.rank)
    query = select(*columns, func.count()).where(table.waits.in_(("review", "adjudication")), *wanted.conditions())
    found: dict[str, int] = {}
    for waits, conflict, is_stale, rank, count in connection.execute(query.group_by(*columns)):
        reason = RANK_WORDS[rank]
        if waits == "adjudication":
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
    return missing + sum(max(0, overlap - votes - 1) for overlap, votes in connection.execute(shared))


def _assigned() -> Join:
    """Items with the assignment that holds."""
    later = ASSIGNMENTS.alias("later")
    is_replaced = exists().where(later.c.item_id == ASSIGNMENTS.c.item_id, later.c.seq > ASSIGNMENTS.c.seq)
    return ITEMS.join(ASSIGNMENTS, and_(ASSIGNMENTS.c.item_id == ITEMS.c.item_id, ~is_replaced))


def votes(connection: Connection, wanted: QueueFilter) -> list[Vote]:
    """What people said about shared items without seeing each other; gold's own truth is not among them."""
    base, gold = PROPOSALS.c.body_json, ASSIGNMENTS.c.gold
    columns = (DECISIONS.c.item_id, DECISIONS.c.reviewer, DECISIONS.c.action, DECISIONS.c.payload_json, base)
    query = (
        select(*columns, ITEMS.c.field)
        .select_from(
            _assigned()
            .join(DECISIONS, DECISIONS.c.item_id == ITEMS.c.item_id)
            .join(PROPOSALS, PROPOSALS.c.proposal_id == DECISIONS.c.base_proposal_id)
        )
        .where(_LIVE, _LOOKED, DECISIONS.c.track == "review", or_(ASSIGNMENTS.c.overlap > 1, gold.is_not(None)))
        .where(or_(gold.is_(None), gold != DECISIONS.c.decision_id), *wanted.conditions())
        .order_by(DECISIONS.c.seq)
    )
    newest = {(row.item_id, row.reviewer): row for row in connection.execute(query)}
    return [
        Vote(item_id=row.item_id, reviewer=row.reviewer, field=row.field, words=_words(row)) for row in newest.values()
    ]


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
        return dict(json.loads(row.payload_json))
    return dict(json.loads(row.body_json)["payload"])


def verdicts(connection: Connection, wanted: QueueFilter, reviewer: str | None) -> list[Verdicts]:
    """What people did with each speaker's proposals, most decisions first."""
    said = _json(connection)["provenance"]
    speaker = [said[name].as_string().label(name) for name in ("backend", "model", "prompt_hash")]
    columns = (*speaker, PROPOSALS.c.field, DECISIONS.c.action)
    query = select(*columns, func.count().label("num")).join(
        PROPOSALS, PROPOSALS.c.proposal_id == DECISIONS.c.base_proposal_id
    )
    query = _of(query, wanted).where(_LIVE, _LOOKED, DECISIONS.c.track == "review").group_by(*columns)
    if reviewer is not None:
        query = query.where(DECISIONS.c.reviewer == reviewer)
    found: dict[tuple[Speaker, str], dict[str, int]] = {}
    for row in connection.execute(query):
        who = Speaker(backend=row.backend, model=row.model, prompt_hash=row.prompt_hash)
        by_action = found.setdefault((who, row.field), {})
        action = row.action if row.action in ("accept", "edit") else "reject"
        by_action[action] = by_action.get(action, 0) + row.num
    rows = [
        Verdicts(
            speaker=who,
            field=field,
            num_accepted=counts.get("accept", 0),
            num_edited=counts.get("edit", 0),
            num_rejected=counts.get("reject", 0),
        )
        for (who, field), counts in found.items()
    ]
    return sorted(rows, key=lambda row: (-row.num_accepted - row.num_edited - row.num_rejected, str(row)))


def _json(connection: Connection) -> ColumnElement[Any]:
    """A proposal's body as SQL that looks inside it."""
    body = PROPOSALS.c.body_json
    return type_coerce(body, JSON) if connection.dialect.name == "sqlite" else cast(body, JSON)


def edits(connection: Connection, wanted: QueueFilter, reviewer: str | None) -> list[Edit]:
    """Every edit that stands for itself, with the proposal it changed."""
    query = select(PROPOSALS.c.field, PROPOSALS.c.body_json, DECISIONS.c.payload_json).join(
        PROPOSALS, PROPOSALS.c.proposal_id == DECISIONS.c.base_proposal_id
    )
    query = _of(query, wanted).where(_LIVE, DECISIONS.c.action == "edit", DECISIONS.c.track == "review")
    if reviewer is not None:
        query = query.where(DECISIONS.c.reviewer == reviewer)
    return [
        Edit(field=field, before=json.loads(body)["payload"], after=json.loads(payload))
        for field, body, payload in connection.execute(query)
    ]


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
        Stratum(family=family, field=field, annotator=annotator, stratum=stratum, **found)
        for (family, field, annotator, stratum), found in sorted(counts.items())
    ]


_COUNTS = ("num_items", "num_audited", "num_wrong", "num_waiting", "num_batch")
