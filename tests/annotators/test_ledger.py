"""The ledger, on SQLite and on PostgreSQL: proposals, claims, decisions, undo, conflicts."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import pytest
from ledger_rows import claimed, decide, fill, proposal, result, segments, trace
from sqlalchemy.exc import DBAPIError

from annotators.ledger import Ledger, QueueFilter
from annotators.ledger.rows import RANK_DISAGREEMENT, RANK_FAIL, RANK_REST, RANK_UNKNOWN
from schemas.annotations import ReasoningTrace
from schemas.errors import LedgerError


def test_the_same_proposal_again_adds_nothing_and_new_results_are_added(ledger: Ledger) -> None:
    run_id = fill(ledger)
    seq = ledger.seq()
    assert ledger.add_proposals(run_id, [(proposal("episode_0"), [result("pass")])]) == 0
    assert ledger.seq() == seq
    assert ledger.add_proposals(run_id, [(proposal("episode_0"), [result("fail", version=2)])]) == 0
    [stored] = ledger.proposals(episode_ids=["episode_0"])
    assert stored.verdict == "fail"
    assert stored.results[0].version == 2
    assert stored.seq < ledger.seq() == seq + 1
    ledger.check_items()


def test_a_batch_of_proposals_is_added_whole_or_not_at_all(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="no run 'nothing'"):
        ledger.add_proposals("nothing", [(proposal("episode_0"), [])])
    run_id = ledger.start_run(kind="annotate", recipe={})
    broken = [(proposal("episode_0"), [result("pass")]), (proposal("e" * 300), None)]
    with pytest.raises((TypeError, DBAPIError)):
        ledger.add_proposals(run_id, broken)  # a mistake in the second row
    assert ledger.proposals() == []
    assert ledger.seq() == 0


def test_the_order_of_review_is_fail_then_disagreement_then_unknown_then_the_rest(ledger: Ledger) -> None:
    run_id = ledger.start_run(kind="annotate", recipe={})
    rows = [
        (proposal("rest"), [result("pass")]),
        (proposal("unknown"), [result("pass"), result("unknown", "picked_card")]),
        (proposal("disagree"), [result("pass")]),
        (proposal("disagree", trace(board="4+7"), model="reader 2"), [result("pass")]),
        (proposal("fail"), [result("fail"), result("pass", "picked_card")]),
    ]
    ledger.add_proposals(run_id, rows)
    order = []
    for number in range(4):
        item = claimed(ledger)
        order.append((item.episode_id, item.rank))
        decide(ledger, item, "accept", f"key {number}")
    ranks = [RANK_FAIL, RANK_DISAGREEMENT, RANK_UNKNOWN, RANK_REST]
    assert order == list(zip(["fail", "disagree", "unknown", "rest"], ranks, strict=True))
    assert ledger.claim(reviewer="alice") is None


def test_a_decision_sent_twice_counts_once(ledger: Ledger) -> None:
    fill(ledger)
    item = claimed(ledger)
    first = decide(ledger, item, "accept", "one click")
    assert decide(ledger, item, "accept", "one click") == first
    assert len(ledger.decisions()) == 1
    with pytest.raises(LedgerError, match="belongs to another decision"):
        decide(ledger, item, "reject", "one click")


def test_two_threads_that_send_one_decision_make_one(ledger: Ledger) -> None:
    fill(ledger)
    item = claimed(ledger)
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: decide(ledger, item, "accept", "double click"), range(8)))
    assert len(set(made)) == 1
    assert len(ledger.decisions()) == 1


def test_a_decision_on_a_proposal_that_is_no_longer_the_newest_is_refused(ledger: Ledger) -> None:
    run_id = fill(ledger)
    item = claimed(ledger)
    ledger.add_proposals(run_id, [(proposal(item.episode_id, trace(board="4+7"), model="reader 2"), [])])
    with pytest.raises(LedgerError, match=r"newer proposal.*nothing was saved"):
        decide(ledger, item, "accept", "late")
    assert ledger.decisions() == []


def test_a_decision_after_someone_elses_is_refused(ledger: Ledger) -> None:
    fill(ledger, 1)
    item = claimed(ledger, lease_s=0)
    decide(ledger, claimed(ledger, "bob"), "reject", "bob 1", "bob")
    with pytest.raises(LedgerError, match=r"bob \(reject\) decided about this item meanwhile"):
        decide(ledger, item, "accept", "alice 1", base_revision=item.revision)


def test_an_item_that_someone_holds_is_refused_to_others(ledger: Ledger) -> None:
    fill(ledger, 2)
    item = claimed(ledger)
    assert claimed(ledger).item_id == item.item_id  # a reload shows the same item
    assert claimed(ledger, "bob").item_id != item.item_id
    with pytest.raises(LedgerError, match="alice works on this item"):
        ledger.claim(reviewer="bob", item_id=item.item_id)
    with pytest.raises(LedgerError, match="alice works on this item"):
        decide(ledger, item, "accept", "stolen", "bob")
    expired = claimed(ledger, lease_s=0)
    assert expired.item_id == item.item_id
    assert claimed(ledger, "bob", item_id=item.item_id).lease_owner == "bob"


def test_undo_is_a_new_decision_and_the_item_waits_again(ledger: Ledger) -> None:
    fill(ledger, 1)
    item = claimed(ledger)
    assert ledger.undo(reviewer="alice", idem_key="nothing to undo") is None
    made = decide(ledger, item, "edit", "edit", payload=trace(board="4+2"))
    assert ledger.item(item.item_id).status == "edited"
    undone = ledger.undo(reviewer="alice", idem_key="undo")
    assert undone is not None
    assert undone.undoes == made.decision_id
    assert ledger.undo(reviewer="alice", idem_key="undo") == undone
    with pytest.raises(LedgerError, match="another decision by alice"):
        ledger.undo(reviewer="bob", idem_key="undo")
    assert ledger.item(item.item_id).status == "open"
    assert [row.action for row in ledger.history(item.item_id)] == ["edit", "undo"]
    assert ledger.undo(reviewer="alice", idem_key="undo 2") is None
    ledger.check_chain()
    ledger.check_items()


def test_undo_does_not_reach_past_someone_elses_decision(ledger: Ledger) -> None:
    fill(ledger, 1)
    item = claimed(ledger)
    decide(ledger, item, "accept", "alice 1")
    decide(ledger, claimed(ledger, "bob", item_id=item.item_id), "reject", "bob 1", "bob")
    with pytest.raises(LedgerError, match="bob decided about that item after you"):
        ledger.undo(reviewer="alice", idem_key="undo")
    assert ledger.undo(reviewer="bob", idem_key="undo bob") is not None
    assert ledger.item(item.item_id).status == "accepted"


def test_a_skipped_item_goes_to_someone_else(ledger: Ledger) -> None:
    fill(ledger, 1)
    item = claimed(ledger)
    decide(ledger, item, "skip", "skip", note="too dark")
    assert ledger.claim(reviewer="alice") is None
    assert ledger.item(item.item_id).status == "skipped"
    assert claimed(ledger, wanted=QueueFilter(status="skipped")).item_id == item.item_id
    decide(ledger, claimed(ledger), "skip", "skip again")  # held by alice, so she gets it
    assert claimed(ledger, "bob").item_id == item.item_id


def test_a_new_run_never_touches_what_a_person_confirmed(ledger: Ledger) -> None:
    run_id = fill(ledger, 2)
    first, second = ledger.queue()
    edited = trace(board="4+2", solution="4+2=6")
    item = claimed(ledger, item_id=first.item_id)
    decide(ledger, item, "edit", "edit", payload=edited)
    decide(ledger, claimed(ledger, item_id=second.item_id), "accept", "accept")
    ledger.add_proposals(run_id, [(proposal(first.episode_id, trace(board="9+9"), "reader 2"), [result("pass")])])
    ledger.add_proposals(run_id, [(proposal(second.episode_id, trace(), "reader 2"), [result("pass")])])
    differs, agrees = ledger.item(first.item_id), ledger.item(second.item_id)
    assert (differs.status, differs.conflict, differs.confirmed) == ("edited", True, edited)
    assert (agrees.status, agrees.conflict) == ("accepted", False)
    assert ledger.progress().num_conflicts == 1
    again = claimed(ledger, "bob")  # the conflict comes back to the queue
    assert again.item_id == first.item_id
    decide(ledger, again, "edit", "settled", "bob", payload=edited)
    assert not ledger.item(first.item_id).conflict
    ledger.check_items()


def test_a_boxs_pixels_are_not_a_disagreement(ledger: Ledger) -> None:
    run_id = fill(ledger, 1)
    cards = tuple(card.model_copy(update={"box_xyxy": (1, 2, 3, 4)}) for card in trace().cards)
    moved = trace().model_copy(update={"cards": cards})
    ledger.add_proposals(run_id, [(proposal("episode_0", moved, "reader 2"), [result("pass")])])
    assert claimed(ledger).rank == RANK_REST


def test_an_edit_must_be_of_the_items_kind(ledger: Ledger) -> None:
    fill(ledger, 1)
    item = claimed(ledger)
    with pytest.raises(LedgerError, match="about trace, the edit about segments"):
        decide(ledger, item, "edit", "k", payload=segments())
    with pytest.raises(LedgerError, match="needs the edited payload"):
        decide(ledger, item, "edit", "k")
    with pytest.raises(LedgerError, match="takes no payload"):
        decide(ledger, item, "accept", "k", payload=trace())
    with pytest.raises(LedgerError, match="reviewer's name"):
        decide(ledger, item, "accept", "k", " ")


def test_words_come_back_as_they_were_written(ledger: Ledger) -> None:
    fill(ledger, 1)
    item = claimed(ledger)
    words = ReasoningTrace(board="4\u00d71 <b>'; DROP TABLE decisions;--", solution=None)
    decide(ledger, item, "edit", "k", payload=words, note="schön \N{GRINNING FACE}")
    [stored] = ledger.history(item.item_id)
    assert stored.payload == words
    assert stored.note == "schön \N{GRINNING FACE}"
    ledger.check_chain()


def test_a_snapshot_shows_the_state_at_its_seq(ledger: Ledger) -> None:
    run_id = fill(ledger, 1)
    before = ledger.seq()
    decide(ledger, claimed(ledger), "accept", "k")
    ledger.add_proposals(run_id, [(proposal("episode_0", trace(board="9+9"), "reader 2"), [result("fail")])])
    seq, [then] = ledger.snapshot(seq=before)
    assert (seq, then.status, len(then.proposals), then.head.verdict) == (before, "open", 1, "pass")
    newest, [now] = ledger.snapshot()
    assert (newest, now.status, len(now.proposals)) == (ledger.seq(), "accepted", 2)
    with pytest.raises(LedgerError, match="no state at 999"):
        ledger.snapshot(seq=999)


def test_progress_counts_what_is_done_left_and_by_whom(ledger: Ledger) -> None:
    fill(ledger, 4)
    for key, action in (("1", "accept"), ("2", "reject")):
        decide(ledger, claimed(ledger), action, key)
    decide(ledger, claimed(ledger, "bob"), "accept", "3", "bob")
    progress = ledger.progress()
    assert (progress.num_items, progress.num_done, progress.num_left) == (4, 3, 1)
    assert progress.by_reviewer == {"alice": 2, "bob": 1}
    assert ledger.progress(QueueFilter(among=["episode_0"])).num_items == 1
    assert len(ledger.queue(QueueFilter(search="SODE_2"))) == 1
    assert ledger.queue(QueueFilter(search="%")) == []


def test_a_lease_is_prolonged_by_its_owner_only_and_is_free_when_it_ran_out(ledger: Ledger) -> None:
    fill(ledger, 1)
    item = claimed(ledger, lease_s=0)
    assert ledger.renew(reviewer="alice", item_id=item.item_id)  # ran out, and nobody else took it
    assert ledger.claim(reviewer="bob") is None
    assert not ledger.renew(reviewer="bob", item_id=item.item_id)
    claimed(ledger, lease_s=0)
    assert claimed(ledger, "bob").item_id == item.item_id
    assert not ledger.renew(reviewer="alice", item_id=item.item_id)
    assert not ledger.renew(reviewer="alice", item_id="nothing")


@pytest.mark.parametrize("wrong_s", [-300, 300])
def test_only_the_clock_of_the_database_counts(ledger: Ledger, monkeypatch: pytest.MonkeyPatch, wrong_s: int) -> None:
    fill(ledger, 2)
    item = claimed(ledger, lease_s=60)
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + wrong_s)
    monkeypatch.setattr(time, "time_ns", lambda: int((right() + wrong_s) * 1e9))
    assert claimed(ledger, "bob").item_id != item.item_id
    assert ledger.item(item.item_id).lease_owner == "alice"
    made = decide(ledger, item, "accept", "k")
    monkeypatch.undo()
    assert abs(datetime.fromisoformat(made.created).timestamp() - time.time()) < 30


def test_a_late_decision_is_told_what_the_other_one_says(ledger: Ledger) -> None:
    fill(ledger, 1)
    item = claimed(ledger, lease_s=0)
    decide(ledger, claimed(ledger, "bob"), "edit", "b", "bob", payload=trace(board="4+2"), note="read again")
    words = r"bob \(edit\) decided about this item meanwhile: “The board reads 4\+2.*nothing was saved"
    with pytest.raises(LedgerError, match=words):
        decide(ledger, item, "accept", "a", base_revision=item.revision)
    assert [row.reviewer for row in ledger.decisions()] == ["bob"]
