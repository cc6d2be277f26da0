"""Many items accepted at once: only where audits allow it, each by its own decision, and said so ever after."""

import pytest
from ledger_rows import claimed, decide, fill, hashes, proposal, result, trace
from typer.testing import CliRunner

from annotators.ledger import Ledger, QueueFilter
from annotators.release import Released, Withheld, choose
from apps.cli.main import app
from dataengine.episode_set import EpisodeSet
from dataengine.workspace import Workspace
from schemas.errors import LedgerError
from schemas.refs import Ref

BOUND = 0.3  # nine audits without a fault: the interval ends below it
PLUS = QueueFilter(stratum="sum with +")


def audited(ledger: Ledger, num_episodes: int = 14, num_audits: int = 9, num_wrong: int = 0) -> list[str]:
    """The first items decided about; gives the ids of the others."""
    fill(ledger, num_episodes)
    for number in range(num_audits):
        item = claimed(ledger)
        if number < num_wrong:
            decide(ledger, item, "edit", f"audit {number}", payload=trace(board="4+2"))
        else:
            decide(ledger, item, "accept", f"audit {number}")
    return [row.item_id for row in ledger.queue() if row.decided_by is None]


def test_what_waits_is_accepted_item_by_item_in_a_persons_name(ledger: Ledger) -> None:
    left = audited(ledger)
    done = ledger.accept_batch(reviewer="lead", wanted=PLUS, bound=BOUND)
    assert (done.num_accepted, done.left) == (5, {})
    made = ledger.decisions()[9:]
    assert {row.item_id for row in made} == set(left)
    assert {(row.reviewer, row.action, row.basis) for row in made} == {("lead", "accept", "batch")}
    assert all(row.seen == hashes() for row in made)
    assert ledger.claim(reviewer="bob") is None
    assert ledger.audit().problems == ()
    with pytest.raises(LedgerError, match="nothing to accept at once"):
        ledger.accept_batch(reviewer="lead", wanted=PLUS, bound=BOUND)
    assert ledger.undo(reviewer="lead", idem_key="u").undoes == made[-1].decision_id
    assert claimed(ledger, "bob").item_id == made[-1].item_id


@pytest.mark.parametrize(
    ("num_audits", "num_wrong", "words"),
    [(0, 0, "is not known"), (8, 0, r"up to 32.4% \(0 wrong of 8\)"), (9, 1, r"up to 43.5% \(1 wrong of 9\)")],
)
def test_too_few_or_wrong_audits_refuse_it_in_one_sentence(
    ledger: Ledger, num_audits: int, num_wrong: int, words: str
) -> None:
    audited(ledger, num_audits=num_audits, num_wrong=num_wrong)
    with pytest.raises(LedgerError, match=words):
        ledger.accept_batch(reviewer="lead", wanted=PLUS, bound=BOUND)
    assert len(ledger.decisions()) == num_audits


def test_a_bound_that_is_no_share_and_a_name_that_is_none_are_refused(ledger: Ledger) -> None:
    audited(ledger)
    for bound in (0.0, -1.0, 1.5, float("nan")):
        with pytest.raises(LedgerError, match="is no bound"):
            ledger.accept_batch(reviewer="lead", wanted=PLUS, bound=bound)
    with pytest.raises(LedgerError, match="needs its reviewer's name"):
        ledger.accept_batch(reviewer=" ", wanted=PLUS, bound=BOUND)


def test_what_is_doubted_shared_held_or_set_aside_is_left_to_people(ledger: Ledger) -> None:
    audited(ledger, num_episodes=12)
    run_id = ledger.start_run(kind="annotate", recipe={})
    rows = [
        (proposal("z failed"), [result("fail")]),
        (proposal("z unknown"), [result("unknown")]),
        (proposal("z advice"), [result("pass", hard=False)]),
    ]
    ledger.add_proposals(run_id, rows)
    doubted = {row.item_id for row in ledger.queue() if row.episode_id.startswith("z")}
    free = [row.item_id for row in ledger.queue() if row.decided_by is None and row.item_id not in doubted]
    ledger.assign([free[0]], overlap=2)
    ledger.claim(reviewer="bob", item_id=free[1])
    [soft] = [row.item_id for row in ledger.queue() if row.episode_id == "z advice"]
    first_gap = min([*free, soft])
    strata = list(ledger.statistics().strata)
    assert [row.num_audited for row in strata] == [sum(row.item_id < first_gap for row in ledger.decisions())]
    bound = strata[0].error.high + 0.01
    done = ledger.accept_batch(reviewer="lead", wanted=PLUS, bound=bound)
    assert (done.num_accepted, done.left) == (1, {"no hard verifier looked at it": 1})
    assert [row.item_id for row in ledger.decisions() if row.basis == "batch"] == [free[2]]


def test_items_that_nobody_looked_at_are_no_audits_and_no_edit_rate(ledger: Ledger) -> None:
    audited(ledger)
    ledger.accept_batch(reviewer="lead", wanted=PLUS, bound=BOUND)
    found = ledger.statistics()
    [stratum] = found.strata
    assert (stratum.error.of, stratum.num_batch, stratum.num_waiting) == (9, 5, 0)
    assert found.edit_rates[0].changed.of == 9
    assert {row.reviewer: (row.num_decisions, row.num_batch) for row in found.people} == {
        "alice": (9, 0),
        "lead": (0, 5),
    }
    assert (found.num_done, found.num_decisions_left) == (14, 0)


def test_a_release_says_that_it_was_a_batch_and_human_leaves_it_out(ledger: Ledger) -> None:
    left = audited(ledger)
    ledger.accept_batch(reviewer="lead", wanted=PLUS, bound=BOUND)
    _, histories = ledger.snapshot()
    history = next(row for row in histories if row.item_id == left[0])
    kept = choose(history, "human", numbers="")
    assert isinstance(kept, Withheld)
    assert kept.reason == "accepted in a batch by lead, nobody looked at it (policy either releases it)"
    out = choose(history, "either", numbers="")
    assert isinstance(out, Released)
    assert (out.basis, out.decision.reviewer) == ("batch", "lead")
    decide(ledger, ledger.item(left[0]), "accept", "looked after all")
    _, histories = ledger.snapshot()
    looked = choose(next(row for row in histories if row.item_id == left[0]), "human", numbers="")
    assert isinstance(looked, Released)
    assert looked.basis == "human"


def test_the_command_line_takes_the_password_of_a_lead_where_people_log_in(
    tiny: Workspace, ledger: Ledger, url: str
) -> None:
    [episode_id] = EpisodeSet.open(tiny, Ref("tiny", "1")).ids()
    run_id = ledger.start_run(kind="annotate", recipe={})
    ledger.add_proposals(run_id, [(proposal(episode_id), [result("pass")])])

    def run(name: str, password: str) -> str:
        words = ["--stratum", "sum with +", "--reviewer", name, "--bound", "1", "--db", url]
        place = ["--workspace", str(tiny.root)]
        done = CliRunner().invoke(app, ["review", "batch", "tiny@1", *words, *place], input=f"{password}\n")
        return done.output + str(done.exception or "")

    assert "is not known and has to be below 100.0%" in run("alice", "")
    ledger.accounts.add("lead", "lead", "correct horse")
    ledger.accounts.add("bob", "adjudicator", "correct horse")
    assert "wrong name or password" in run("lead", "guess")
    assert "bob is no lead" in run("bob", "correct horse")
    assert "is not known" in run("lead", "correct horse")
    assert ledger.decisions() == []
