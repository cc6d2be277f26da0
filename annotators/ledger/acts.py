"""What people did, decision by decision: how fast they are, and how each speaker's proposals held.

Whole columns are read in the order in which they lie in the file, and joined here. Ids are hashes, so a join in the
database jumps once for every row: over 100,000 decisions the reading took twice as long.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json
from sqlalchemy import JSON, ColumnElement, Connection, Text, and_, cast, func, not_, select

from annotators.ledger.queue import QueueFilter
from annotators.ledger.tables import DECISIONS, ITEMS, PROPOSALS


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
class Acts:
    """Everything that people did about the items that are wanted, counted."""

    paces: tuple[Pace, ...]  # of everybody, by name
    hourly: tuple[tuple[str, int], ...]  # decisions in each hour (UTC, `2026-01-31T09`) that had any, oldest first
    verdicts: tuple[Verdicts, ...]  # most decisions first


_SPEAKER = ("backend", "model", "prompt_hash")
_undos = DECISIONS.alias("undos")
_TAKEN_BACK = select(_undos.c.undoes).where(_undos.c.undoes.is_not(None))  # looked up once, not once per decision
LIVE = and_(DECISIONS.c.action != "undo", DECISIONS.c.decision_id.not_in(_TAKEN_BACK))
LOOKED = and_(DECISIONS.c.basis == "look", DECISIONS.c.action != "skip")


def acts(connection: Connection, wanted: QueueFilter, reviewer: str | None) -> Acts:
    """Count what people did; hours and verdicts of one reviewer alone, when named."""
    made = _made(connection, wanted)
    taken_back = {row[1] for row in made} - {None}
    kinds: Counter[tuple[str, str]] = Counter()  # reviewer, what else than a look at an item
    hours: Counter[str] = Counter()
    seconds: dict[str, list[float]] = {}
    judged: Counter[tuple[str, str]] = Counter()  # proposal, action
    for decision_id, _, proposal_id, name, action, basis, track, lead_time_ms, hour, _ in made:
        is_theirs = reviewer in (None, name)
        is_look = basis == "look" and action not in ("skip", "undo")
        hours[hour] += is_look and is_theirs
        if decision_id in taken_back:
            continue
        times = seconds.setdefault(name, [])
        if not is_look:
            kinds[name, action if action in ("skip", "undo") else "batch"] += 1
            continue
        times.append(lead_time_ms / 1000)
        if is_theirs and track == "review":
            judged[proposal_id, action] += 1
    paces = [
        Pace(
            reviewer=name,
            num_decisions=len(times),
            num_batch=kinds[name, "batch"],
            num_skipped=kinds[name, "skip"],
            num_undone=kinds[name, "undo"],
            seconds=tuple(times),
        )
        for name, times in sorted(seconds.items())
    ]
    return Acts(
        paces=tuple(paces),
        hourly=tuple(sorted((hour, count) for hour, count in hours.items() if count)),
        verdicts=_verdicts(judged, _speakers(connection)) if judged else (),
    )


def _made(connection: Connection, wanted: QueueFilter) -> list[Any]:
    """Every decision about the items that are wanted, in order, without its words."""
    table = DECISIONS.c
    hour = func.substr(table.created, 1, 13).label("hour")
    columns = (table.decision_id, table.undoes, table.base_proposal_id, table.reviewer, table.action, table.basis)
    query = select(*columns, table.track, table.lead_time_ms, hour, table.item_id).order_by(table.seq)
    made = list(connection.execute(query).all())
    if not (conditions := wanted.conditions()):
        return made
    # A page's scope holds nearly every item, so those outside are few.
    outside = set(connection.execute(select(ITEMS.c.item_id).where(not_(and_(*conditions)))).scalars())
    return [row for row in made if row[-1] not in outside] if outside else made


def _speakers(connection: Connection) -> dict[str, tuple[str, str]]:
    """Each proposal's speaker, as JSON, and its field."""
    body = PROPOSALS.c.body_json
    if connection.dialect.name == "sqlite":
        said: ColumnElement[Any] = func.json_extract(body, *(f"$.provenance.{name}" for name in _SPEAKER))
    else:
        inside = cast(body, JSON)["provenance"]
        said = func.json_build_array(*(inside[name] for name in _SPEAKER))
    query = select(PROPOSALS.c.proposal_id, cast(said, Text), PROPOSALS.c.field)
    return {proposal_id: (words, field) for proposal_id, words, field in connection.execute(query).all()}


def _verdicts(judged: Counter[tuple[str, str]], said: Mapping[str, tuple[str, str]]) -> tuple[Verdicts, ...]:
    found: dict[tuple[str, str], Counter[str]] = {}
    for (proposal_id, action), count in judged.items():
        found.setdefault(said[proposal_id], Counter())[action] += count
    rows = [
        Verdicts(
            speaker=Speaker(**dict(zip(_SPEAKER, json.loads(words), strict=True))),
            field=field,
            num_accepted=counts["accept"],
            num_edited=counts["edit"],
            num_rejected=counts["reject"],
        )
        for (words, field), counts in found.items()
    ]
    return tuple(sorted(rows, key=lambda row: (-row.num_accepted - row.num_edited - row.num_rejected, str(row))))


def edits(connection: Connection, wanted: QueueFilter, reviewer: str | None) -> list[Edit]:
    """Every edit that stands for itself, with the proposal it changed."""
    query = select(PROPOSALS.c.field, PROPOSALS.c.body_json, DECISIONS.c.payload_json).join(
        PROPOSALS, PROPOSALS.c.proposal_id == DECISIONS.c.base_proposal_id
    )
    conditions = wanted.conditions()
    if conditions:
        query = query.join(ITEMS, ITEMS.c.item_id == DECISIONS.c.item_id).where(*conditions)
    query = query.where(LIVE, DECISIONS.c.action == "edit", DECISIONS.c.track == "review")
    if reviewer is not None:
        query = query.where(DECISIONS.c.reviewer == reviewer)
    return [
        Edit(field=field, before=from_json(body)["payload"], after=from_json(payload))
        for field, body, payload in connection.execute(query).all()
    ]
