"""Accepting many items at once, where programs found nothing and random audits say that programs can be believed."""

import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import batched

from sqlalchemy import Connection, Engine, exists, or_, select

from annotators.ledger import decisions, store, tallies
from annotators.ledger.engine import reading, writing
from annotators.ledger.queue import QueueFilter
from annotators.ledger.rows import RANK_RARE, ItemHistory
from annotators.ledger.tables import ASSIGNMENTS, ITEMS
from annotators.ledger.tallies import Stratum
from schemas.content_hashes import ContentHashes
from schemas.errors import LedgerError

BATCH_BOUND = 0.05  # the audited error must be below it with 95 % confidence: 73 audits without a fault are enough
_AT_ONCE = 50  # items per transaction: others decide in between, and the audits are looked at again


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What was accepted without a look, and what was left to people, by reason."""

    batch_id: str
    num_accepted: int
    left: Mapping[str, int]


def accept_batch(engine: Engine, *, reviewer: str, wanted: QueueFilter, bound: float) -> Batch:
    """See Ledger.accept_batch."""
    decisions.check_reviewer(reviewer)
    if not 0 < bound <= 1:
        raise LedgerError(f"{bound:g} is no bound for an error. Use a share such as {BATCH_BOUND:g}.")
    batch_id = uuid.uuid4().hex
    with reading(engine) as connection:
        chosen = [row for row in tallies.strata(connection, wanted) if row.num_waiting]
        _check(chosen, bound)
        waiting = [(row, item_id) for row in chosen for item_id in _waiting(connection, _narrowed(wanted, row))]
    num_accepted = 0
    left: Counter[str] = Counter()
    for some in batched(waiting, _AT_ONCE):
        with writing(engine) as connection:
            store.next_seq(connection, 0)  # take the lock first, as every writer does
            for row in dict.fromkeys(stratum for stratum, _ in some):
                _check(tallies.strata(connection, _narrowed(wanted, row)), bound)
            for _, item_id in some:
                reason = _accept(connection, item_id, reviewer, batch_id)
                num_accepted += reason == ""
                left.update([reason] if reason else [])
    return Batch(batch_id=batch_id, num_accepted=num_accepted, left=dict(left))


def refusal(stratum: Stratum, bound: float) -> str:
    """Why a stratum can not be accepted at once, and what would help; empty when it can."""
    error = stratum.error
    if error.of and error.high < bound:
        return ""
    shown = f"is up to {error.high:.1%} ({error.num} wrong of {error.of})" if error.of else "is not known"
    return (
        f"the audited error of '{stratum.name}' {shown} and has to be below {bound:.1%}, so nothing was accepted. "
        "Decide about more of its items, in the order of the queue."
    )


def _check(strata: Sequence[Stratum], bound: float) -> None:
    if not strata:
        raise LedgerError("no item that every verifier passed waits here, so there is nothing to accept at once.")
    for row in strata:
        if words := refusal(row, bound):
            raise LedgerError(words)


def _narrowed(wanted: QueueFilter, row: Stratum) -> QueueFilter:
    return replace(wanted, family=row.family, field=row.field, annotator=row.annotator, stratum=row.stratum)


def _waiting(connection: Connection, wanted: QueueFilter) -> Sequence[str]:
    """Items nobody said anything about: not set aside, not shared with others, not in somebody's hands."""
    table = ITEMS.c
    shared = exists().where(ASSIGNMENTS.c.item_id == table.item_id, ASSIGNMENTS.c.overlap > 1)
    free = or_(table.lease_owner.is_(None), table.lease_until_ms <= store.now_ms(connection))
    quiet = (table.waits == "review", table.rank >= RANK_RARE, table.status == "open", table.stale == "")
    query = select(table.item_id).where(*quiet, free, ~shared, *wanted.conditions()).order_by(table.item_id)
    return connection.execute(query).scalars().all()


def _accept(connection: Connection, item_id: str, reviewer: str, batch_id: str) -> str:
    """Decide about one item; returns why it was left to people instead."""
    history = store.load_history(connection, item_id)
    assert history is not None  # it was in the queue
    reason = _doubt(history)
    if reason:
        return reason
    now = connection.execute(select(ITEMS.c.now_json).where(ITEMS.c.item_id == item_id)).scalar()
    wish = decisions.Wish(
        item_id=item_id,
        base_proposal_id=history.head.proposal_id,
        action="accept",
        reviewer=reviewer,
        payload=None,
        idem_key=f"batch:{batch_id}:{item_id}",
        lead_time_ms=0,
        seen=None if now is None else ContentHashes.model_validate_json(now),
        basis="batch",
    )
    try:
        decisions.decide(connection, wish, len(history.decisions))
    except LedgerError as error:  # refused before anything was written: somebody took it, or its words are dangerous
        return str(error)
    return ""


def _doubt(history: ItemHistory) -> str:
    """Why an item needs a person after all; it may have changed since it was chosen."""
    if history.decisions:
        return "somebody decided about it meanwhile"
    hard = [row for row in history.head.results if row.hard]
    if not hard:
        return "no hard verifier looked at it"
    return "" if history.rank >= RANK_RARE and history.head.verdict == "pass" else "a verifier doubts it now"
