"""Kinds of scene: which are rare and so come earlier, and what people's looks say about the programs' work in each."""

from collections.abc import Mapping
from typing import Literal

from sqlalchemy import Connection, and_, delete, func, insert, or_, select, update

from annotators.ledger.proposal_facts import substance
from annotators.ledger.rows import RANK_RARE, RANK_REST, ItemHistory
from annotators.ledger.tables import ITEMS, STRATA

RARE_SHARE = 0.05  # a stratum with less than this share of its field's items is rare
type Key = tuple[str, str]  # field, stratum


def audit_of(history: ItemHistory) -> Literal["", "right", "wrong", "batch"]:
    """What a person who looked found about the newest proposal; empty while nobody did.

    `wrong` when they rejected the item or said other words, `batch` when it was accepted without a look.
    """
    standing = history.standing
    if standing is None:
        return ""
    if standing.basis == "batch":
        return "batch"
    confirmed = history.confirmed
    is_right = confirmed is not None and substance(confirmed) == substance(history.head.proposal.payload)
    return "right" if is_right else "wrong"


def rare(counts: Mapping[Key, int]) -> set[Key]:
    """The strata that hold few of their field's items."""
    totals: dict[str, int] = {}
    for (field, _), count in counts.items():
        totals[field] = totals.get(field, 0) + count
    return {key for key, count in counts.items() if count < RARE_SHARE * totals[key[0]]}


def rank_in(connection: Connection, field: str, stratum: str, rank: int) -> int:
    """An item's rank among all others: rare scenes before the rest."""
    if rank != RANK_REST:
        return rank
    query = select(STRATA.c.is_rare).where(STRATA.c.field == field, STRATA.c.stratum == stratum)
    return RANK_RARE if connection.execute(query).scalar() else RANK_REST


def count_strata(connection: Connection) -> None:
    """Count the strata again and move the items of those that became rare, or no longer are."""
    before = {(row.field, row.stratum) for row in connection.execute(select(STRATA).where(STRATA.c.is_rare))}
    query = select(ITEMS.c.field, ITEMS.c.stratum, func.count()).group_by(ITEMS.c.field, ITEMS.c.stratum)
    counts = {(field, stratum): count for field, stratum, count in connection.execute(query)}
    now = rare(counts)
    connection.execute(delete(STRATA))
    rows = [
        {"field": key[0], "stratum": key[1], "num_items": count, "is_rare": key in now} for key, count in counts.items()
    ]
    if rows:
        connection.execute(insert(STRATA), rows)
    for changed, old, new in ((now - before, RANK_REST, RANK_RARE), (before - now, RANK_RARE, RANK_REST)):
        if changed:
            inside = or_(*(and_(ITEMS.c.field == field, ITEMS.c.stratum == name) for field, name in sorted(changed)))
            connection.execute(update(ITEMS).where(ITEMS.c.rank == old, inside).values(rank=new))
