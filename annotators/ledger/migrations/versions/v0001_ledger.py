"""The first ledger: counters, runs, items, proposals, verifier results, decisions, and the triggers that keep them.

A later migration that rebuilds an append-only table in batch mode loses its triggers: call `guard` again and test it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001_ledger"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create everything."""
    op.create_table(
        "counters",
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("value", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_counters"),
    )
    op.create_table(
        "runs",
        sa.Column("run_id", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("recipe_json", sa.Text, nullable=False),
        sa.Column("created", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("run_id", name="pk_runs"),
    )
    _items()
    _proposals()
    _decisions()
    op.execute("INSERT INTO counters (name, value) VALUES ('seq', 0), ('decisions', 0)")
    guard("runs", "proposals", "verifier_results", "decisions")


def _items() -> None:
    op.create_table(
        "items",
        sa.Column("item_id", sa.String(64), nullable=False),
        sa.Column("episode_id", sa.String(255), nullable=False),
        sa.Column("stamp_ns", sa.BigInteger, nullable=False),
        sa.Column("field", sa.String(32), nullable=False),
        sa.Column("head_proposal_id", sa.String(64)),
        sa.Column("rank", sa.Integer, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("conflict", sa.Boolean, nullable=False),
        sa.Column("decided_by", sa.String(255)),
        sa.Column("skipped_by", sa.String(255), nullable=False),
        sa.Column("num_decisions", sa.Integer, nullable=False),
        sa.Column("lease_owner", sa.String(255)),
        sa.Column("lease_until_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("item_id", name="pk_items"),
        sa.UniqueConstraint("episode_id", "stamp_ns", "field", name="uq_items_episode_id"),
    )
    op.create_index("ix_items_queue", "items", ["status", "rank", "item_id"])


def _proposals() -> None:
    op.create_table(
        "proposals",
        sa.Column("proposal_id", sa.String(64), nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("run_id", sa.String(64), nullable=False),
        sa.Column("item_id", sa.String(64), nullable=False),
        sa.Column("episode_id", sa.String(255), nullable=False),
        sa.Column("field", sa.String(32), nullable=False),
        sa.Column("body_json", sa.Text, nullable=False),
        sa.Column("created", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("proposal_id", name="pk_proposals"),
        sa.UniqueConstraint("seq", name="uq_proposals_seq"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], name="fk_proposals_run_id_runs"),
        sa.ForeignKeyConstraint(["item_id"], ["items.item_id"], name="fk_proposals_item_id_items"),
    )
    op.create_index("ix_proposals_item_id", "proposals", ["item_id"])
    op.create_index("ix_proposals_episode_id", "proposals", ["episode_id"])
    op.create_table(
        "verifier_results",
        sa.Column("seq", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("proposal_id", sa.String(64), nullable=False),
        sa.Column("verifier", sa.String(128), nullable=False),
        sa.Column("body_json", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_verifier_results"),
        sa.ForeignKeyConstraint(
            ["proposal_id"], ["proposals.proposal_id"], name="fk_verifier_results_proposal_id_proposals"
        ),
    )
    op.create_index("ix_verifier_results_proposal_id", "verifier_results", ["proposal_id"])


def _decisions() -> None:
    op.create_table(
        "decisions",
        sa.Column("decision_id", sa.String(64), nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("item_id", sa.String(64), nullable=False),
        sa.Column("base_proposal_id", sa.String(64), nullable=False),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("payload_json", sa.Text),
        sa.Column("undoes", sa.String(64)),
        sa.Column("reviewer", sa.String(255), nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("lead_time_ms", sa.BigInteger, nullable=False),
        sa.Column("idem_key", sa.String(255), nullable=False),
        sa.Column("created", sa.String(32), nullable=False),
        sa.Column("prev_hash", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("decision_id", name="pk_decisions"),
        sa.UniqueConstraint("seq", name="uq_decisions_seq"),
        sa.UniqueConstraint("idem_key", name="uq_decisions_idem_key"),
        sa.ForeignKeyConstraint(["item_id"], ["items.item_id"], name="fk_decisions_item_id_items"),
        sa.ForeignKeyConstraint(
            ["base_proposal_id"], ["proposals.proposal_id"], name="fk_decisions_base_proposal_id_proposals"
        ),
        sa.ForeignKeyConstraint(["undoes"], ["decisions.decision_id"], name="fk_decisions_undoes_decisions"),
    )
    op.create_index("ix_decisions_item_id", "decisions", ["item_id"])
    op.create_index("ix_decisions_reviewer", "decisions", ["reviewer"])


def guard(*tables: str) -> None:
    """Triggers that refuse every UPDATE and DELETE (and TRUNCATE, where it exists)."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger AS $$ "
            "BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$ LANGUAGE plpgsql"
        )
        for table in tables:
            op.execute(
                f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
                "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
            )
        return
    for table in tables:
        for change in ("update", "delete"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{change} BEFORE {change.upper()} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
            )
