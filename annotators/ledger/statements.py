"""What every decision asks of the database, put together once: that takes as long as asking."""

from sqlalchemy import bindparam, delete, func, select, text, update

from annotators.ledger.tables import (
    ASSIGNMENTS,
    COUNTERS,
    DECISIONS,
    DRAFTS,
    ITEMS,
    PROPOSALS,
    REMARKS,
    SIGHTINGS,
    VERIFIER_RESULTS,
    VOTES,
)

CLOCKS = {
    "sqlite": text("SELECT CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER)"),
    "postgresql": text("SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)"),
}
TAKE_NUMBERS = (
    update(COUNTERS)
    .where(COUNTERS.c.name == bindparam("counter"))
    .values(value=COUNTERS.c.value + bindparam("count"))
    .returning(COUNTERS.c.value)
)
LAST_NUMBER = select(COUNTERS.c.value).where(COUNTERS.c.name == bindparam("counter"))
SIGHTINGS_OF = (
    select(SIGHTINGS).where(SIGHTINGS.c.proposal_id.in_(bindparam("ids", expanding=True))).order_by(SIGHTINGS.c.seq)
)
RESULTS_OF = (
    select(VERIFIER_RESULTS)
    .where(VERIFIER_RESULTS.c.proposal_id.in_(bindparam("ids", expanding=True)))
    .order_by(VERIFIER_RESULTS.c.seq)
)
PROPOSALS_OF = select(PROPOSALS).where(PROPOSALS.c.item_id == bindparam("item")).order_by(PROPOSALS.c.seq)
DECISIONS_OF = select(DECISIONS).where(DECISIONS.c.item_id == bindparam("item")).order_by(DECISIONS.c.seq)
ASSIGNMENTS_OF = select(ASSIGNMENTS).where(ASSIGNMENTS.c.item_id == bindparam("item")).order_by(ASSIGNMENTS.c.seq)
EPISODE_STATE_OF = select(ITEMS.c.now_json).where(ITEMS.c.item_id == bindparam("item"))
CHANGE_ITEM = update(ITEMS).where(ITEMS.c.item_id == bindparam("item"))
DROP_VOTES = delete(VOTES).where(VOTES.c.item_id == bindparam("item"))
ITEM = select(ITEMS).where(ITEMS.c.item_id == bindparam("item"))
LOCKED_ITEM = ITEM.with_for_update()
LAST_HASH = select(DECISIONS.c.hash).order_by(DECISIONS.c.seq.desc()).limit(1)
NUM_MADE_BY = select(func.count()).where(DECISIONS.c.reviewer == bindparam("name"))
GIVE_BACK_OTHERS = (
    update(ITEMS)
    .where(ITEMS.c.lease_owner == bindparam("holder"), ITEMS.c.item_id != bindparam("item"))
    .values(lease_owner=None, lease_until_ms=0)
)
_DRAFT = (DRAFTS.c.reviewer == bindparam("writer"), DRAFTS.c.item_id == bindparam("item"))
DRAFT_OF = select(DRAFTS).where(*_DRAFT)
DROP_DRAFT = delete(DRAFTS).where(*_DRAFT)
REMARKS_OF = (
    select(REMARKS).where(REMARKS.c.item_id == bindparam("item")).order_by(REMARKS.c.created, REMARKS.c.remark_id)
)
