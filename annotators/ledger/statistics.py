"""What a lead has to know about a review: how good the decisions are, how fast they come, and what is left.

Everything is counted from the ledger, at one moment of it. A reviewer gets the same figures of themselves alone.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, and_, not_, select

from annotators.agreement import (
    BoundaryAgreement,
    FieldAgreement,
    PairAgreement,
    agrees,
    boundary_agreement,
    field_agreement,
    pair_agreement,
)
from annotators.ledger import store, tallies
from annotators.ledger.acts import Edit, Pace, Verdicts, acts
from annotators.ledger.kept import Kept, Speaker
from annotators.ledger.queue import QueueFilter
from annotators.ledger.tables import ITEMS
from annotators.ledger.tallies import GoldVote, Items, Stratum
from schemas.shares import Share

_LONGEST_S = 600.0  # what lay open for longer than a lease lasts was not worked on all the time
ANY = "any field"


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonFigures:
    """One reviewer."""

    reviewer: str
    num_decisions: int
    num_batch: int
    num_skipped: int
    num_undone: int
    median_s: float | None  # they look at an item before they decide
    gold: Share  # of the gold items they met, those they decided as the truth says


@dataclass(frozen=True, slots=True, kw_only=True)
class EditRate:
    """How often people changed one field of what was proposed."""

    field: str
    changed: Share  # of the accepts and edits


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeakerFigures:
    """How often one model's (or program's) proposals about one field held."""

    speaker: Speaker
    field: str
    edited: Share
    rejected: Share


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Everything at one moment of the ledger. About one reviewer alone, it says nothing about others."""

    seq: int
    reviewer: str | None  # whose figures these are; None = everybody's
    num_items: int
    num_done: int
    waiting: Mapping[str, int]  # items that wait for somebody, by reason
    num_decisions_left: int
    hours_left: float | None  # of people's time, at the pace so far; None before the first decision
    hourly: tuple[tuple[str, int], ...]  # decisions by hour (UTC), hours without any left out
    people: tuple[PersonFigures, ...]
    agreement: tuple[FieldAgreement, ...]
    pairs: tuple[PairAgreement, ...]
    boundaries: tuple[BoundaryAgreement, ...]
    edit_rates: tuple[EditRate, ...]
    speakers: tuple[SpeakerFigures, ...]
    strata: tuple[Stratum, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {part.name: _plain(getattr(self, part.name)) for part in fields(self)}


def statistics(connection: Connection, kept: Kept, wanted: QueueFilter, reviewer: str | None = None) -> Statistics:
    """Count everything about the items that are wanted; see Ledger.statistics."""
    kept.read(connection)
    outside = _outside(connection, wanted)
    wanted = wanted if outside else QueueFilter()  # a page's scope mostly holds every item, and asking each takes time
    deeds = kept.columns
    places: NDArray[np.int64] = np.arange(len(deeds.item_D))
    if outside:
        left_out = [kept.items[item_id] for item_id in outside if item_id in kept.items]
        places = np.flatnonzero(~np.isin(deeds.item_D, left_out))
        deeds = deeds.at(places)
    done = acts(kept, deeds, reviewer)
    items = Items.count(connection, wanted)
    progress = items.progress(store.current(connection, "decisions"))
    num_left = items.votes_missing(connection, wanted)
    votes, ballot = tallies.votes(connection, kept, deeds, places)
    gold = tallies.gold_votes(connection, wanted, votes)
    is_lead = reviewer is None
    return Statistics(
        seq=store.current(connection),
        reviewer=reviewer,
        num_items=progress.num_items,
        num_done=progress.num_done,
        waiting=items.waiting(),
        num_decisions_left=num_left,
        hours_left=_hours_left(num_left, done.paces),
        hourly=done.hourly,
        people=tuple(_person(pace, gold) for pace in done.paces if reviewer in (None, pace.reviewer)),
        agreement=field_agreement(ballot) if is_lead else (),
        pairs=pair_agreement(ballot) if is_lead else (),
        boundaries=boundary_agreement(votes) if is_lead else (),
        edit_rates=edit_rates(done.verdicts, done.edits),
        speakers=tuple(_speaker(row) for row in done.verdicts),
        strata=tuple(tallies.strata(connection, wanted, items)) if is_lead else (),
    )


def _outside(connection: Connection, wanted: QueueFilter) -> list[str]:
    """Items that are not wanted."""
    if not (conditions := wanted.conditions()):
        return []
    return list(connection.execute(select(ITEMS.c.item_id).where(not_(and_(*conditions)))).scalars())


def _hours_left(num_left: int, paces: Sequence[Pace]) -> float | None:
    seconds = np.concatenate([pace.seconds for pace in paces]) if paces else np.zeros(0)
    return num_left * float(np.minimum(seconds, _LONGEST_S).mean()) / 3600 if len(seconds) else None


def _person(pace: Pace, gold: Sequence[GoldVote]) -> PersonFigures:
    own = [row for row in gold if row.vote.reviewer == pace.reviewer]
    return PersonFigures(
        reviewer=pace.reviewer,
        num_decisions=pace.num_decisions,
        num_batch=pace.num_batch,
        num_skipped=pace.num_skipped,
        num_undone=pace.num_undone,
        median_s=float(np.median(pace.seconds)) if len(pace.seconds) else None,
        gold=Share(num=sum(agrees(row.vote.words, row.truth) for row in own), of=len(own)),
    )


def edit_rates(verdicts: Sequence[Verdicts], edits: Sequence[Edit]) -> tuple[EditRate, ...]:
    """How often each field was changed, of all accepts and edits of items that have it; the most changed first."""
    decided: Counter[str] = Counter()
    for row in verdicts:
        decided[row.field] += row.num_accepted + row.num_edited
    changed: Counter[tuple[str, str]] = Counter({(field, ANY): 0 for field in decided})
    for edit in edits:
        changed[edit.field, ANY] += edit.num
        for name, is_other in edit.changed.items():
            changed[edit.field, name] += edit.num * is_other
    rows = [
        EditRate(field=f"{field}: {name}", changed=Share(num=num, of=decided[field]))
        for (field, name), num in changed.items()
        if decided[field]
    ]
    return tuple(sorted(rows, key=lambda row: (-(row.changed.value or 0.0), row.field)))


def _speaker(row: Verdicts) -> SpeakerFigures:
    total = row.num_accepted + row.num_edited + row.num_rejected
    return SpeakerFigures(
        speaker=row.speaker,
        field=row.field,
        edited=Share(num=row.num_edited, of=total),
        rejected=Share(num=row.num_rejected, of=total),
    )


def _plain(value: Any) -> Any:  # noqa: ANN401 - any part of the figures
    match value:
        case Share():
            return value.to_json()
        case Stratum():
            return {part.name: getattr(value, part.name) for part in fields(value)} | {"error": value.error.to_json()}
        case tuple() | list():
            return [_plain(part) for part in value]
        case Mapping():
            return dict(value)
        case _ if is_dataclass(value):
            return {part.name: _plain(getattr(value, part.name)) for part in fields(value)}
        case _:
            return value
