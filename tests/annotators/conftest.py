"""Databases for the ledger's tests."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from ledger_rows import postgres_bin, postgres_server
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from annotators.ledger import Ledger


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    programs = postgres_bin()
    if programs is None:
        reason = "no PostgreSQL server programs (initdb) on this machine"
        if os.environ.get("CI_REQUIRE_POSTGRES") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    with postgres_server(programs) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'deep' / 'ledger.db'}"
    server_url = make_url(request.getfixturevalue("server")).set(drivername="postgresql+psycopg")
    name = "t" + "".join(part for part in request.node.name if part.isalnum()).lower()[-50:]
    engine = create_engine(server_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f'CREATE DATABASE "{name}"'))
    engine.dispose()
    return server_url.set(database=name, drivername="postgresql").render_as_string(hide_password=False)


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    with Ledger.open(url) as opened:
        yield opened
