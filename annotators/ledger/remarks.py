"""What people say about an item without deciding: a flag asks somebody to look, a comment does not. None is erased."""

from dataclasses import dataclass
from typing import Literal, get_args

from sqlalchemy import Connection, insert, select

from annotators.ledger import store
from annotators.ledger.statements import REMARKS_OF
from annotators.ledger.tables import ITEMS, REMARKS
from schemas.errors import LedgerError

RemarkKind = Literal["flag", "comment"]
_MOST_WORDS = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """One thing somebody said about an item."""

    remark_id: str
    item_id: str
    reviewer: str
    kind: RemarkKind
    words: str
    created: str = ""  # ISO 8601, UTC; by the database's clock

    def __post_init__(self) -> None:
        if self.kind not in get_args(RemarkKind):
            raise LedgerError(f"'{self.kind}' is no remark. Use {', '.join(get_args(RemarkKind))}.")
        if not self.words.strip():
            raise LedgerError("a remark needs words. Say what others should look at.")
        if len(self.words) > _MOST_WORDS or "\0" in self.words:
            raise LedgerError(f"a remark is up to {_MOST_WORDS:,} characters without NUL. Shorten it.")


def add(connection: Connection, remark: Remark) -> bool:
    """Store a remark; False when it is there already. Raises LedgerError for an item that is not."""
    store.next_seq(connection, 0)  # the same lock as decisions, so that a double click is one remark
    if connection.execute(select(ITEMS.c.item_id).where(ITEMS.c.item_id == remark.item_id)).first() is None:
        raise LedgerError(f"no item '{remark.item_id}' in the ledger. Take one from the queue.")
    if connection.execute(select(REMARKS.c.item_id).where(REMARKS.c.remark_id == remark.remark_id)).first() is not None:
        return False
    values = {name: getattr(remark, name) for name in Remark.__slots__} | {"created": store.now_iso(connection)}
    connection.execute(insert(REMARKS).values(**values))
    return True


def shown_to(connection: Connection, item_id: str, reviewer: str | None) -> list[Remark]:
    """Remarks about an item, oldest first; those that a reviewer may see: of an unsettled shared item their own."""
    rows = connection.execute(REMARKS_OF, {"item": item_id})
    found = [Remark(**{name: getattr(row, name) for name in Remark.__slots__}) for row in rows]
    if reviewer is None or all(remark.reviewer == reviewer for remark in found):
        return found
    history = store.load_history(connection, item_id)
    is_blind = history is not None and history.as_seen_by(reviewer) is not history
    return [remark for remark in found if remark.reviewer == reviewer or not is_blind]
