"""The store of VLM calls: what was answered is kept, what was not is asked again."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from annotators.calls import CALLS, METADATA, CallStore, RawAnswer
from annotators.ledger.engine import open_engine
from schemas.errors import BackendError


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'calls.db'}"


def test_an_answer_is_kept_as_it_came(url: str) -> None:
    answer = RawAnswer(
        outcome="success",
        text='{"board": "4\u00d71"}',
        raw_json="{}",
        finish_reason="stop",
        input_tokens=7,
        output_tokens=3,
    )
    with CallStore.open(url) as store:
        assert store.get("k") is None
        assert store.put("k", '{"model":"m"}', answer) == answer
    with CallStore.open(url) as store:
        assert store.get("k") == answer
        assert store.request("k") == '{"model":"m"}'


@pytest.mark.parametrize("outcome", ["error", "skipped"])
def test_what_brought_no_answer_is_never_served_and_gives_way_to_one(url: str, outcome: str) -> None:
    with CallStore.open(url) as store:
        store.put("k", "{}", RawAnswer(outcome=outcome, text="connection refused"))
        assert store.get("k") is None
        assert store.counts() == {outcome: 1}
        store.put("k", "{}", RawAnswer(outcome="success", text="4+1"))
        answer = store.get("k")
        assert answer is not None
        assert answer.text == "4+1"
        assert store.counts() == {"success": 1}


@pytest.mark.parametrize("outcome", ["success", "truncated", "blocked", "invalid"])
def test_the_first_real_answer_stands(url: str, outcome: str) -> None:
    first = RawAnswer(outcome=outcome, text="first")
    with CallStore.open(url) as store:
        store.put("k", "{}", first)
        assert store.put("k", "{}", RawAnswer(outcome="success", text="second")) == first
        assert store.put("k", "{}", RawAnswer(outcome="error", text="late")) == first
        assert store.get("k") == first


def test_of_several_put_at_once_each_stands_that_is_the_first_real_one_and_all_come_back_in_order(
    empty_url: str,
) -> None:
    def said(text: str) -> RawAnswer:
        return RawAnswer(outcome="success", text=text)

    with CallStore.open(empty_url) as store:
        store.put_all([("old", "{}", said("first")), ("lost", "{}", RawAnswer(outcome="error", text="refused"))])
        lot = [("new", "{}", said("a")), ("old", "{}", said("b")), ("lost", "{}", said("c"))]
        assert [answer.text for answer in store.put_all(lot)] == ["a", "first", "c"]
        assert {key: answer.text for key, answer in store.get_all(["lost", "new", "old"]).items()} == {
            "lost": "c",
            "new": "a",
            "old": "first",
        }
        assert store.put_all([]) == []


def test_an_answer_survives_a_kill_right_after_it_was_put(url: str) -> None:
    script = textwrap.dedent(
        """
        import os, signal, sys
        from annotators.calls import CallStore, RawAnswer
        CallStore.open(sys.argv[1]).put("k", "{}", RawAnswer(outcome="success", text="kept"))
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    assert subprocess.run([sys.executable, "-c", script, url], check=False).returncode == -9
    with CallStore.open(url) as store:
        answer = store.get("k")
    assert answer is not None
    assert answer.text == "kept"


def test_an_outcome_that_does_not_exist_is_refused() -> None:
    with pytest.raises(BackendError, match="'maybe' is no call outcome"):
        RawAnswer(outcome="maybe", text="")  # a caller's typo


def test_a_migrated_database_has_the_table_the_code_declares(url: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    CallStore.open(url).close()
    engine = open_engine(url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
        assert connection.execute(CALLS.select()).all() == []
    engine.dispose()
