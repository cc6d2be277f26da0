"""What somebody typed about an item and did not decide: it outlives a reload, a crash and the lease.

Each reviewer has at most one draft per item. What is typed arrives over a network and may overtake itself, so every
change carries a number and the last one is kept, whichever comes last.
"""

from dataclasses import dataclass

from sqlalchemy import Connection, and_, insert, select, update

from annotators.ledger import store
from annotators.ledger.statements import DRAFT_OF, DROP_DRAFT
from annotators.ledger.tables import DECISIONS, DRAFTS
from schemas.errors import LedgerError

_MOST_BODY = 200_000  # characters


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """One reviewer's unfinished words about one item, and what they saw when they wrote them."""

    item_id: str
    reviewer: str
    key: str  # fresh each time an item is shown; the keys of decisions begin with it
    base_proposal_id: str
    revision: int  # of the item as it was shown
    shown_ms: int  # when it was shown
    sequence: int  # how many changes were made since
    body_json: str
    saved: str = ""  # ISO 8601, UTC; by the database's clock

    def __post_init__(self) -> None:
        if self.sequence < 0:
            raise LedgerError(f"a draft counts its changes from 0, got {self.sequence}. Reload the page.")
        if len(self.body_json) > _MOST_BODY:
            raise LedgerError(f"the draft has more than {_MOST_BODY:,} characters. Shorten it.")


def keep(connection: Connection, draft: Draft) -> bool:
    """Store a draft; False when a later one of the same reviewer is stored, or when it was decided meanwhile."""
    table = DRAFTS.c
    decided = [f"{draft.key}:{action}" for action in ("accept", "edit", "reject")]
    if connection.execute(select(DECISIONS.c.seq).where(DECISIONS.c.idem_key.in_(decided))).first() is not None:
        return False
    ours = and_(table.reviewer == draft.reviewer, table.item_id == draft.item_id)
    held = connection.execute(select(table.shown_ms, table.sequence).where(ours).with_for_update()).one_or_none()
    if held is not None and (draft.shown_ms, draft.sequence) < (held.shown_ms, held.sequence):
        return False
    values = {name: getattr(draft, name) for name in Draft.__slots__} | {"saved": store.now_iso(connection)}
    if held is None:
        connection.execute(insert(DRAFTS).values(**values))
    else:
        connection.execute(update(DRAFTS).where(ours).values(**values))
    return True


def find(connection: Connection, *, reviewer: str, item_id: str) -> Draft | None:
    """A reviewer's draft about an item; None when there is none."""
    row = connection.execute(DRAFT_OF, {"writer": reviewer, "item": item_id}).one_or_none()
    return None if row is None else Draft(**{name: getattr(row, name) for name in Draft.__slots__})


def drop(connection: Connection, *, reviewer: str, item_id: str) -> None:
    """Delete a draft, where there is one."""
    connection.execute(DROP_DRAFT, {"writer": reviewer, "item": item_id})
