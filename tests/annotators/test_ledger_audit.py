"""The ledger can be checked from its first row, copied while in use, and upgraded from every version it ever had."""

import json
from pathlib import Path

import pytest
from ledger_rows import claimed, decide, fill, hashes, proposal, result, trace
from old_ledgers import REVISIONS, write_old_ledger
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from typer.testing import CliRunner

from annotators.ledger import Ledger, Remark
from annotators.ledger.engine import open_engine
from annotators.ledger.tables import APPEND_ONLY
from apps.cli.main import app
from schemas.errors import LedgerError


def reviewed(ledger: Ledger) -> None:
    """Three proposals; one edited, one accepted and taken back."""
    fill(ledger, 3)
    decide(ledger, claimed(ledger), "edit", "1", payload=trace(board="4+2"))
    decide(ledger, claimed(ledger), "accept", "2")
    ledger.undo(reviewer="alice", idem_key="3")


def tamper(url: str, *statements: str) -> None:
    """Change rows the way someone does who owns the database: triggers off, then on again."""
    engine = open_engine(url)
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            statements = ("SET LOCAL session_replication_role = replica", *statements)
            triggers = []
        else:
            query = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
            triggers = connection.execute(text(query)).all()
        for name, _ in triggers:
            connection.execute(text(f"DROP TRIGGER {name}"))
        for statement in statements:
            connection.exec_driver_sql(statement)
        for _, sql in triggers:
            connection.execute(text(sql))
    engine.dispose()


def test_an_audit_of_an_untouched_ledger_finds_nothing(ledger: Ledger) -> None:
    assert ledger.audit().problems == ()
    reviewed(ledger)
    found = ledger.audit()
    assert found.problems == ()
    assert (found.num_proposals, found.num_decisions, found.seq) == (3, 3, ledger.seq())
    assert found.last_hash == ledger.decisions()[-1].hash


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE decisions SET note = 'no' WHERE idem_key = '2'", r"accept by alice\) was changed"),
        ("UPDATE decisions SET created = 'never' WHERE idem_key = '3'", r"undo by alice\) was changed"),
        ("DELETE FROM decisions WHERE idem_key = '3'", "counted 3 decisions but holds 2"),
        ("UPDATE proposals SET body_json = replace(body_json, '4+1', '9+9') WHERE seq = 1", "proposal .* was changed"),
        ("DELETE FROM verifier_results WHERE seq = 3", "the row with seq 3 is gone"),
        (
            "UPDATE verifier_results SET body_json = replace(body_json, 'says', 'said')",
            "verifiers said was changed",
        ),
        ("UPDATE items SET waits = '' WHERE status = 'open'", "waits '' where its history says 'review'"),
        ("INSERT INTO votes SELECT 'eve', item_id FROM items", "the votes table is wrong"),
        ("UPDATE items SET decided_by = 'mallory' WHERE status = 'edited'", "decided_by 'mallory' where its history"),
        ("UPDATE items SET status = 'accepted' WHERE status = 'open'", "status 'accepted' where its history says 'op"),
    ],
)
def test_one_tampered_row_is_found(ledger: Ledger, url: str, statement: str, words: str) -> None:
    reviewed(ledger)
    tamper(url, statement)
    assert len(ledger.audit().problems) >= 1
    with pytest.raises(LedgerError, match=words):
        raise LedgerError(" ".join(ledger.audit().problems))


def test_a_missing_trigger_is_found(ledger: Ledger, url: str) -> None:
    engine = open_engine(url)
    off = "ALTER TABLE decisions DISABLE TRIGGER ALL" if "postgres" in url else "DROP TRIGGER decisions_no_delete"
    with engine.begin() as connection:
        connection.execute(text(off))
    engine.dispose()
    [problem] = ledger.audit().problems
    assert "so rows can be changed" in problem


def test_a_rebuild_writes_the_queue_again_from_what_was_said_and_decided(ledger: Ledger, url: str) -> None:
    reviewed(ledger)
    before = ledger.queue()
    tamper(url, "UPDATE items SET status = 'rejected', rank = 0, decided_by = 'mallory', num_decisions = 9")
    assert ledger.audit().problems
    ledger.rebuild()
    assert ledger.audit().problems == ()
    assert ledger.queue() == before


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_ledger_of_every_past_revision_is_upgraded_with_its_rows(empty_url: str, revision: str) -> None:
    write_old_ledger(empty_url, revision)
    with Ledger.open(empty_url) as ledger:
        assert ledger.audit().problems == ()
        [made] = ledger.decisions()
        assert (made.reviewer, made.action, made.seen) == ("alice", "accept", None)
        assert ledger.refit({"episode_0": hashes(clock="any")}) == 0  # nobody noted what it was about
        [row] = ledger.queue()
        assert (row.status, row.decided_by, row.stale) == ("accepted", "alice", "")
        decide(ledger, ledger.item(row.item_id), "reject", "new", seen=hashes())
        assert ledger.refit({"episode_0": hashes(clock="other")}) == 1
        run_id = ledger.start_run(kind="annotate", recipe={})
        ledger.add_proposals(run_id, [(proposal("episode_1"), [result("pass")])], seen={"episode_1": hashes()})
        ledger.assign([row.item_id], overlap=2)
        assert ledger.audit().problems == ()
        ledger.remark(Remark(remark_id="r", item_id=row.item_id, reviewer="bob", kind="comment", words="look"))
        for table in APPEND_ONLY:
            with pytest.raises(DBAPIError, match=f"{table} is append-only"):
                _delete(empty_url, table)


def _delete(url: str, table: str) -> None:
    engine = open_engine(url)
    try:
        with engine.begin() as connection:
            connection.execute(text(f"DELETE FROM {table}"))
    finally:
        engine.dispose()


def test_a_backup_made_while_people_write_is_restored_whole(tmp_path: Path) -> None:
    url, copy = f"sqlite:///{tmp_path / 'ledger.db'}", tmp_path / "kept" / "monday.db"
    with Ledger.open(url) as ledger:
        reviewed(ledger)
        then = ledger.decisions()
        ledger.backup(copy)
        decide(ledger, claimed(ledger), "accept", "after the backup")
        with pytest.raises(LedgerError, match="exists and is not overwritten"):
            ledger.backup(copy)
    assert [path.name for path in copy.parent.iterdir()] == ["monday.db"]
    for path in tmp_path.glob("ledger.db*"):  # the disk is lost
        path.unlink()
    copy.rename(tmp_path / "ledger.db")
    with Ledger.open(url) as restored:
        assert restored.audit().problems == ()
        assert restored.decisions() == then
        decide(restored, claimed(restored), "accept", "goes on")
        assert restored.audit().problems == ()


def test_a_server_is_backed_up_with_its_own_tools(server: str, tmp_path: Path) -> None:
    with Ledger.open(server) as ledger, pytest.raises(LedgerError, match="pg_dump"):
        ledger.backup(tmp_path / "copy.db")


def test_the_command_line_audits_and_copies(url: str, tmp_path: Path) -> None:
    def run(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["review", *words, "--db", url])
        return done.exit_code, done.output + str(done.exception or "")

    with Ledger.open(url) as ledger:
        reviewed(ledger)
    code, words = run("audit")
    assert (code, "3 proposals, 3 decisions" in words, "Everything fits." in words) == (0, True, True)
    assert json.loads(run("audit", "--json")[1])["problems"] == []
    if "sqlite" in url:
        assert run("backup", str(tmp_path / "copy.db"))[0] == 0
    tamper(url, "UPDATE items SET rank = 0")
    assert "Rebuild it with dataengine review audit --rebuild" in run("audit")[1]
    assert "Everything fits." in run("audit", "--rebuild")[1]
