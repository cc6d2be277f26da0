"""How many people decide about an item, which items are gold, who settles disagreements; and what the queue filters by.

The queue's new columns start empty: `Ledger.open` writes them from the history, in the same transaction.
"""

import sqlalchemy as sa
from alembic import op

from annotators.ledger.migrations.versions.v0001_ledger import guard

revision = "0004_tracks"
down_revision = "0003_accounts"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add columns in place: rebuilding a table in batch mode would lose its triggers."""
    op.add_column("decisions", sa.Column("track", sa.String(16), nullable=False, server_default="review"))
    op.add_column("decisions", sa.Column("saw_hash", sa.String(64)))
    op.create_table(
        "assignments",
        sa.Column("seq", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("item_id", sa.String(64), nullable=False),
        sa.Column("overlap", sa.Integer, nullable=False),
        sa.Column("gold", sa.String(64)),
        sa.Column("created", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_assignments"),
        sa.ForeignKeyConstraint(["item_id"], ["items.item_id"], name="fk_assignments_item_id_items"),
        sa.ForeignKeyConstraint(["gold"], ["decisions.decision_id"], name="fk_assignments_gold_decisions"),
    )
    op.create_index("ix_assignments_item_id", "assignments", ["item_id"])
    guard("assignments")
    for name, length in (("waits", 16), ("family", 255), ("annotator", 255), ("stratum", 64)):
        op.add_column("items", sa.Column(name, sa.String(length), nullable=False, server_default=""))
    op.add_column("items", sa.Column("doubts", sa.Text, nullable=False, server_default=""))
    op.drop_index("ix_items_queue", "items")
    op.create_index("ix_items_queue", "items", ["waits", "rank", "item_id"])
    op.create_index("ix_items_lease_owner", "items", ["lease_owner"])
    op.create_table(
        "votes",
        sa.Column("reviewer", sa.String(255), nullable=False),
        sa.Column("item_id", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("reviewer", "item_id", name="pk_votes"),
        sa.ForeignKeyConstraint(["item_id"], ["items.item_id"], name="fk_votes_item_id_items"),
    )
    op.create_index("ix_votes_item_id", "votes", ["item_id"])
    op.create_table(
        "scopes",
        sa.Column("scope", sa.String(64), nullable=False),
        sa.Column("episode_id", sa.String(255), nullable=False),
        sa.PrimaryKeyConstraint("scope", "episode_id", name="pk_scopes"),
    )
