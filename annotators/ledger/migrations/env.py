"""Alembic's entry: runs the ledger's migrations on the connection that `engine.migrate` hands over."""

from alembic import context

from annotators.ledger.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    render_as_batch=True,  # SQLite can not alter a table in place
)
with context.begin_transaction():
    context.run_migrations()
