"""What became of a reviewer's own decisions: which stand, which were overturned, by whom and why."""

from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, select

from annotators.ledger import store
from annotators.ledger.rows import ItemHistory, StoredDecision
from annotators.ledger.tables import DECISIONS
from schemas.annotations import FieldName

Fate = Literal["stands", "skipped", "undone", "waits", "confirmed", "replaced", "overturned"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnDecision:
    """One decision of a reviewer, and what became of it."""

    decision: StoredDecision
    episode_id: str
    field: FieldName
    fate: Fate  # waits: others have to decide as well; replaced: by the same reviewer
    by: StoredDecision | None  # what stands in its place


def own_decisions(connection: Connection, reviewer: str, limit: int) -> list[OwnDecision]:
    """The newest decisions of a reviewer, newest first; undos are told by what they took back."""
    query = select(DECISIONS.c.decision_id).where(DECISIONS.c.reviewer == reviewer, DECISIONS.c.action != "undo")
    ids = connection.execute(query.order_by(DECISIONS.c.seq.desc()).limit(limit)).scalars().all()
    made = store.load_decisions(connection, DECISIONS.c.decision_id.in_(ids))
    histories = {row.item_id: store.load_history(connection, row.item_id) for row in made}
    return [_own(row, history) for row in reversed(made) if (history := histories[row.item_id]) is not None]


def _own(decision: StoredDecision, whole: ItemHistory) -> OwnDecision:
    seen = whole.as_seen_by(decision.reviewer)
    standing = seen.standing
    is_shown = standing is not None and standing.decision_id != decision.decision_id
    return OwnDecision(
        decision=decision,
        episode_id=seen.episode_id,
        field=seen.field,
        fate=_fate(decision, seen, whole),
        by=standing if is_shown else None,
    )


def _fate(decision: StoredDecision, seen: ItemHistory, whole: ItemHistory) -> Fate:
    if decision.decision_id not in {row.decision_id for row in seen.live}:
        return "undone"
    if decision.action == "skip":
        return "skipped"
    standing = seen.standing
    if standing is None or (whole.is_shared and whole.gold is None and whole.standing is None):
        return "waits"
    if standing.decision_id == decision.decision_id:
        return "stands"
    if seen.said(standing) == seen.said(decision):
        return "confirmed"
    return "replaced" if standing.reviewer == decision.reviewer else "overturned"
