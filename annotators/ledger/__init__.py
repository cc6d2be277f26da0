"""The ledger of proposals, verifier results and decisions."""

from annotators.ledger.accounts import ROLES, Account, Accounts, Role
from annotators.ledger.audit import Audit
from annotators.ledger.drafts import Draft
from annotators.ledger.ledger import Ledger
from annotators.ledger.own import OwnDecision
from annotators.ledger.progress import Progress
from annotators.ledger.queue import QueueFilter
from annotators.ledger.remarks import Remark
from annotators.ledger.rows import (
    ItemHistory,
    ItemStatus,
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
    "Draft",
    "ItemHistory",
    "ItemStatus",
    "Ledger",
    "OwnDecision",
    "Progress",
    "QueueFilter",
    "QueueRow",
    "Remark",
    "ReviewItem",
    "Role",
    "StoredDecision",
    "StoredProposal",
    "Track",
    "item_id_of",
]
