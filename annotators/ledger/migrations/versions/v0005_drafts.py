"""Drafts that survive a reload, remarks that decide nothing, and what else a decision says about itself."""

import sqlalchemy as sa
from alembic import op

from annotators.ledger.migrations.versions.v0001_ledger import guard

revision = "0005_drafts"
down_revision = "0004_tracks"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add columns in place: rebuilding a table in batch mode would lose its triggers."""
    op.add_column("decisions", sa.Column("guideline", sa.String(255)))
    op.add_column("decisions", sa.Column("reason", sa.String(64)))
    op.add_column("decisions", sa.Column("ticked", sa.Text))
    op.create_table(
        "drafts",
        sa.Column("reviewer", sa.String(255), nullable=False),
        sa.Column("item_id", sa.String(64), nullable=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("base_proposal_id", sa.String(64), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("shown_ms", sa.BigInteger, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("body_json", sa.Text, nullable=False),
        sa.Column("saved", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("reviewer", "item_id", name="pk_drafts"),
        sa.ForeignKeyConstraint(["item_id"], ["items.item_id"], name="fk_drafts_item_id_items"),
    )
    op.create_index("ix_drafts_item_id", "drafts", ["item_id"])
    op.create_table(
        "remarks",
        sa.Column("remark_id", sa.String(64), nullable=False),
        sa.Column("item_id", sa.String(64), nullable=False),
        sa.Column("reviewer", sa.String(255), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("words", sa.Text, nullable=False),
        sa.Column("created", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("remark_id", name="pk_remarks"),
        sa.ForeignKeyConstraint(["item_id"], ["items.item_id"], name="fk_remarks_item_id_items"),
    )
    op.create_index("ix_remarks_item_id", "remarks", ["item_id"])
    guard("remarks")
