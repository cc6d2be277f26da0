"""One way to open a database: SQLite on this machine by default, PostgreSQL by URL.

Every write transaction on SQLite starts with BEGIN IMMEDIATE: with a deferred BEGIN two writers deadlock on the upgrade
of their read lock and `busy_timeout` does not help. WAL keeps readers out of the writers' way; it needs a local disk.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from sqlite3 import Connection as SqliteConnection
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError
from sqlalchemy.pool import ConnectionPoolEntry

from schemas.errors import LedgerError

BUSY_TIMEOUT_MS = 30_000
# As many as SQLAlchemy allows, all kept open: it keeps 5, and many reviewers open and close the others all the time.
_POOL: dict[str, Any] = {"pool_size": 15, "max_overflow": 0}
_MIGRATION_LOCK = 0x7646_6C61  # any fixed number: PostgreSQL's advisory lock for "someone migrates"


def open_engine(url: str) -> Engine:
    """An engine for `sqlite:///FILE` or `postgresql://...`. Raises LedgerError in one sentence when that fails."""
    target = _parsed(url)
    if target.get_backend_name() == "sqlite":
        is_file = bool(target.database) and target.database != ":memory:"
        if is_file:
            Path(str(target.database)).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(target, connect_args={"timeout": BUSY_TIMEOUT_MS / 1000}, **(_POOL if is_file else {}))
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    else:
        engine = create_engine(target, pool_pre_ping=True, **_POOL)
    try:
        with engine.connect():
            pass
    except DBAPIError as error:
        raise LedgerError(
            f"the database {target.render_as_string()} can not be opened ({error.orig}). Check the URL and its server."
        ) from None
    return engine


def _parsed(url: str) -> URL:
    try:
        target = make_url(url)
        if target.drivername in ("postgresql", "postgres"):
            target = target.set(drivername="postgresql+psycopg")
        if target.get_backend_name() not in ("sqlite", "postgresql"):
            raise LedgerError(f"'{url}' names no database we know. Use sqlite:///FILE or postgresql://USER@HOST/NAME.")
        return target
    except (ArgumentError, NoSuchModuleError):
        raise LedgerError(f"'{url}' is no database URL. Use sqlite:///FILE or postgresql://USER@HOST/NAME.") from None


def _configure_sqlite(connection: SqliteConnection, record: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # the driver must not open transactions behind our back
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")  # a decision that was acknowledged survives a power cut
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    write = connection.get_execution_options().get("write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """One write transaction: committed at the end of the block, rolled back when it raises.

    Raises LedgerError where the database's disk is full: then nothing of it was written.
    """
    try:
        with engine.connect().execution_options(write=True) as connection, connection.begin():
            yield connection
    except OperationalError as error:
        if not _is_full(error):
            raise
        raise LedgerError("the disk that holds the ledger is full, so nothing was saved. Make room there.") from error


def _is_full(error: OperationalError) -> bool:
    """SQLite says it in an error code, PostgreSQL in an SQLSTATE."""
    return (
        getattr(error.orig, "sqlite_errorname", "") == "SQLITE_FULL" or getattr(error.orig, "sqlstate", "") == "53100"
    )


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One short read transaction: everything read in the block belongs to one moment."""
    level = {} if engine.dialect.name == "sqlite" else {"isolation_level": "REPEATABLE READ"}
    with engine.connect().execution_options(**level) as connection, connection.begin():
        yield connection


def migrate(engine: Engine, migrations: Path, *, fill: Callable[[Connection], None] | None = None) -> None:
    """Bring the database to the newest schema; one process does it, the others wait.

    `fill` writes what new columns derive from old rows, in the same transaction. Raises LedgerError when the database
    was written by a newer version of this project.
    """
    from alembic.script import ScriptDirectory

    script = ScriptDirectory(str(migrations))
    head = script.get_current_head()
    if _revision(engine) == head:
        return
    with writing(engine) as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        _upgrade(connection, migrations)
        if fill is not None:
            fill(connection)


def _revision(engine: Engine) -> str | None:
    with reading(engine) as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _upgrade(connection: Connection, migrations: Path) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise LedgerError(
            f"the database was written by another version of this project ({error}). "
            "Update the project, or use another database."
        ) from None
