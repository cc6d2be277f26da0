"""What an episode was like when something was said or decided about it, and which items no longer fit.

Rows from before know nothing of it and count as fitting.
"""

import sqlalchemy as sa
from alembic import op

from annotators.ledger.migrations.versions.v0001_ledger import guard

revision = "0002_stale"
down_revision = "0001_ledger"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add columns in place: rebuilding a table in batch mode would lose its triggers."""
    op.create_table(
        "sightings",
        sa.Column("seq", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("proposal_id", sa.String(64), nullable=False),
        sa.Column("hashes_json", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_sightings"),
        sa.ForeignKeyConstraint(["proposal_id"], ["proposals.proposal_id"], name="fk_sightings_proposal_id_proposals"),
    )
    op.create_index("ix_sightings_proposal_id", "sightings", ["proposal_id"])
    guard("sightings")
    op.add_column("decisions", sa.Column("seen_json", sa.Text))
    op.add_column("items", sa.Column("now_json", sa.Text))
    op.add_column("items", sa.Column("stale", sa.Text, nullable=False, server_default=""))
