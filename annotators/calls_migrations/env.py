"""Alembic's entry: runs the call store's migrations on the connection that `engine.migrate` hands over."""

from alembic import context

from annotators.calls import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    version_table="alembic_version",
    render_as_batch=True,  # SQLite can not alter a table in place
)
with context.begin_transaction():
    context.run_migrations()
