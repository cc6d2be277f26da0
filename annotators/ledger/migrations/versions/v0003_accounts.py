"""Who may log in, with which role, and who is logged in."""

import sqlalchemy as sa
from alembic import op

revision = "0003_accounts"
down_revision = "0002_stale"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Two tables that may change; the append-only ones stay as they are."""
    op.create_table(
        "accounts",
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("password_hash", sa.Text, nullable=False),
        sa.Column("created", sa.String(32), nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("locked_until_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_accounts"),
    )
    op.create_table(
        "sessions",
        sa.Column("secret_hash", sa.String(64), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("until_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("secret_hash", name="pk_sessions"),
        sa.ForeignKeyConstraint(["name"], ["accounts.name"], name="fk_sessions_name_accounts"),
    )
    op.create_index("ix_sessions_name", "sessions", ["name"])
