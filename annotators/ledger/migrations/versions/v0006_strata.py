"""Rare kinds of scene come earlier, what a look showed about an item is kept, and batches say that they are one.

The new columns and the table start empty: `Ledger.open` writes them from the history, in the same transaction.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006_strata"
down_revision = "0005_drafts"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add columns in place: rebuilding a table in batch mode would lose its triggers."""
    op.add_column("decisions", sa.Column("basis", sa.String(8), nullable=False, server_default="look"))
    op.add_column("items", sa.Column("audit", sa.String(8), nullable=False, server_default=""))
    op.create_index("ix_items_stratum", "items", ["field", "stratum"])
    op.create_table(
        "strata",
        sa.Column("field", sa.String(32), nullable=False),
        sa.Column("stratum", sa.String(64), nullable=False),
        sa.Column("num_items", sa.Integer, nullable=False),
        sa.Column("is_rare", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("field", "stratum", name="pk_strata"),
    )
