"""A copy of a ledger in use. Copying the file itself would miss what still stands in its write-ahead log."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from schemas.errors import LedgerError


def backup(engine: Engine, path: Path) -> None:
    """See Ledger.backup. The copy is checked and on the disk before it gets its name."""
    if engine.dialect.name != "sqlite":
        raise LedgerError(
            f"this backup copies SQLite files, and the ledger is in {engine.dialect.name}. "
            "Use the database's own tools, e.g. pg_dump --format=custom."
        )
    if path.exists():
        raise LedgerError(f"'{path}' exists and is not overwritten. Give each backup its own name.")
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    source = engine.raw_connection()
    driver: Any = source.driver_connection  # SQLite's own
    try:
        with closing(sqlite3.connect(draft)) as target:
            driver.backup(target)
            target.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
            found = target.execute("PRAGMA integrity_check").fetchone()[0]
        if found != "ok":
            raise LedgerError(f"the copy is damaged ({found}), so it was not kept. Check the disk.")
        with open(draft, "rb+") as file:
            os.fsync(file.fileno())
        os.link(draft, path)  # unlike a rename, refuses a name that somebody took meanwhile
    finally:
        source.close()
        draft.unlink(missing_ok=True)
