"""Accounts: roles, passwords, waits after wrong ones, sessions that end."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from annotators.ledger import Account, Ledger
from annotators.ledger.engine import open_engine
from apps.cli.main import app
from schemas.errors import AccessError

PASSWORD = "correct horse"


def test_a_session_stands_for_its_account_until_it_ends(ledger: Ledger) -> None:
    book = ledger.accounts
    alice = book.add("alice", "reviewer", PASSWORD)
    secret = book.log_in("alice", PASSWORD)
    assert book.who(secret) == alice == Account(name="alice", role="reviewer")
    assert book.who("another") is book.who("") is book.who(None) is None
    assert book.who(book.log_in("alice", PASSWORD, session_s=0)) is None
    book.log_out(secret)
    assert book.who(secret) is None


def test_who_is_removed_is_out_at_once(ledger: Ledger) -> None:
    book = ledger.accounts
    book.add("alice", "lead", PASSWORD)
    secret = book.log_in("alice", PASSWORD)
    book.remove("alice")
    assert (book.who(secret), book.find("alice"), book.all()) == (None, None, [])
    with pytest.raises(AccessError, match="no account 'alice'"):
        book.remove("alice")


def test_guessing_a_password_has_to_wait_longer_and_longer(
    ledger: Ledger, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("annotators.ledger.accounts._FIRST_WAIT_S", 600)  # 10 s may be over before all have guessed
    book = ledger.accounts
    book.add("alice", "reviewer", PASSWORD)

    def guess(number: int) -> str:
        with pytest.raises(AccessError) as refused:
            book.log_in("alice", f"guess {number}")
        return str(refused.value)

    with ThreadPoolExecutor(8) as pool:  # at once, as somebody would who knows about the wait
        said = list(pool.map(guess, range(12)))
    assert sum("wrong name or password" in words for words in said) <= 7
    assert sum("too many wrong passwords" in words for words in said) >= 5
    with pytest.raises(AccessError, match="too many wrong passwords for this name"):
        book.log_in("alice", PASSWORD)
    engine = open_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE accounts SET locked_until_ms = 0"))
    engine.dispose()
    assert book.who(book.log_in("alice", PASSWORD)) is not None


def test_a_name_nobody_has_is_refused_in_the_same_words(ledger: Ledger) -> None:
    ledger.accounts.add("alice", "reviewer", PASSWORD)
    said = []
    for name in ("alice", "nobody"):
        with pytest.raises(AccessError) as refused:
            ledger.accounts.log_in(name, "wrong wrong")
        said.append(str(refused.value))
    assert said[0] == said[1]


@pytest.mark.parametrize(
    ("name", "role", "password", "words"),
    [
        ("", "reviewer", PASSWORD, "is no name"),
        (" alice", "reviewer", PASSWORD, "is no name"),
        ("a\nb", "reviewer", PASSWORD, "is no name"),
        ("alice", "boss", PASSWORD, "Use viewer, reviewer, adjudicator, lead"),
        ("alice", "reviewer", "short", "8 to 1000 characters"),
    ],
)
def test_an_account_that_is_wrong_is_refused(name: str, role: str, password: str, words: str) -> None:
    with Ledger.open("sqlite://") as ledger, pytest.raises(AccessError, match=words):
        ledger.accounts.add(name, role, password)


def test_each_role_may_do_what_those_before_it_may() -> None:
    reviewer = Account(name="alice", role="reviewer")
    assert [reviewer.may(role) for role in ("viewer", "reviewer", "adjudicator", "lead")] == [True, True, False, False]


def test_the_database_holds_no_password_and_no_secret(ledger: Ledger, url: str) -> None:
    ledger.accounts.add("alice", "reviewer", PASSWORD)
    secret = ledger.accounts.log_in("alice", PASSWORD)
    engine = open_engine(url)
    with engine.connect() as connection:
        rows = [str(connection.execute(text(f"SELECT * FROM {table}")).all()) for table in ("accounts", "sessions")]
    engine.dispose()
    assert "$argon2id$" in rows[0]
    assert not [row for row in rows if PASSWORD in row or secret in row]


def test_accounts_are_kept_by_the_command_line(url: str) -> None:
    def run(*words: str, typed: str | None = None) -> str:
        done = CliRunner().invoke(app, ["review", "user", *words, "--db", url], input=typed)
        return done.output + str(done.exception or "")

    assert "alice may log in as lead" in run("add", "alice", "--role", "lead", typed=f"{PASSWORD}\n")
    assert "there is an account 'alice' already" in run("add", "alice", "--role", "lead", typed=f"{PASSWORD}\n")
    assert json.loads(run("list", "--json")) == [{"name": "alice", "role": "lead"}]
    with Ledger.open(url) as ledger:
        assert ledger.accounts.log_in("alice", PASSWORD)
    assert "alice can not log in any more" in run("remove", "alice")
    assert run("list") == ""
