"""The ledger of proposals, verifier results and decisions."""

from annotators.ledger.accounts import ROLES, Account, Accounts, Role
from annotators.ledger.audit import Audit
from annotators.ledger.ledger import Ledger
from annotators.ledger.queue import QueueFilter
from annotators.ledger.rows import (
    ItemHistory,
    ItemStatus,
    Progress,
    QueueRow,
    ReviewItem,
    StoredDecision,
    StoredProposal,
    Track,
    item_id_of,
)

__all__ = [
    "ROLES",
    "Account",
    "Accounts",
    "Audit",
    "ItemHistory",
    "ItemStatus",
    "Ledger",
    "Progress",
    "QueueFilter",
    "QueueRow",
    "ReviewItem",
    "Role",
    "StoredDecision",
    "StoredProposal",
    "Track",
    "item_id_of",
]
