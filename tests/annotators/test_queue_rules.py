"""Who gets which item: several people about one, gold among the rest, disagreements to a third, filters."""

import pytest
from ledger_rows import claimed, decide, fill, proposal, result, segments, trace

from annotators.ledger import Ledger, QueueFilter
from annotators.release import Withheld, choose
from annotators.review import chosen_share
from schemas.errors import LedgerError
from schemas.records import sha256_of

OTHER = trace(board="4+2", solution="4+2=6")
NEVER = 10**9  # no gold by chance


def shared(ledger: Ledger, num_episodes: int = 1, overlap: int = 2) -> list[str]:
    """Items that several people decide about."""
    fill(ledger, num_episodes)
    ids = [row.item_id for row in ledger.queue()]
    assert ledger.assign(ids, overlap=overlap) == num_episodes
    assert ledger.assign(ids, overlap=overlap) == 0
    return ids


def test_two_who_agree_settle_an_item_and_neither_sees_it_twice(ledger: Ledger) -> None:
    [item_id] = shared(ledger)
    decide(ledger, claimed(ledger), "accept", "a")
    assert ledger.claim(reviewer="alice") is None
    assert ledger.item(item_id).status == "open"
    decide(ledger, claimed(ledger, "bob"), "accept", "b", "bob")
    item = ledger.item(item_id)
    assert (item.status, item.last_word.reviewer) == ("accepted", "bob")
    assert ledger.claim(reviewer="carol") is None
    assert ledger.audit().problems == ()


def test_nobody_sees_what_others_decided_before_it_is_settled(ledger: Ledger) -> None:
    [item_id] = shared(ledger)
    decide(ledger, claimed(ledger), "edit", "a", payload=OTHER, note="it says two")
    item = claimed(ledger, "bob")
    assert (item.history, item.last_word, item.confirmed, item.votes) == ((), None, None, ())
    assert (item.status, item.revision) == ("open", 0)
    [row] = ledger.queue(reviewer="bob")
    assert (row.status, row.decided_by) == ("open", None)
    assert ledger.queue(reviewer="alice") == []
    own = ledger.item(item_id, reviewer="alice")
    assert (own.status, own.confirmed, own.revision) == ("edited", OTHER, 1)
    assert ledger.progress().by_reviewer == {}


def test_a_decision_of_somebody_else_makes_none_late_on_a_shared_item(ledger: Ledger) -> None:
    [item_id] = shared(ledger, overlap=3)
    late = claimed(ledger, lease_s=0)
    decide(ledger, claimed(ledger, "bob"), "reject", "b", "bob")
    decide(ledger, late, "accept", "a", base_revision=late.revision)
    with pytest.raises(LedgerError, match=r"alice \(accept\) decided about this item meanwhile"):
        decide(ledger, late, "reject", "a again", base_revision=late.revision)  # her own second tab
    assert len(ledger.history(item_id)) == 2


def test_who_disagrees_is_settled_by_a_third_who_sees_both(ledger: Ledger) -> None:
    [item_id] = shared(ledger)
    decide(ledger, claimed(ledger), "accept", "a")
    decide(ledger, claimed(ledger, "bob"), "edit", "b", "bob", payload=OTHER)
    assert ledger.item(item_id).status == "disputed"
    for name in ("alice", "bob", "carol"):
        assert ledger.claim(reviewer=name) is None
    for name in ("alice", "bob"):
        assert ledger.claim(reviewer=name, track="adjudication") is None
    assert [row.status for row in ledger.queue(reviewer="carol", track="adjudication")] == ["disputed"]
    item = claimed(ledger, "carol", track="adjudication")
    assert [(row.reviewer, row.action) for row in item.votes] == [("alice", "accept"), ("bob", "edit")]
    ledger.renew(reviewer="carol", item_id=item_id, lease_s=0)
    with pytest.raises(LedgerError, match="you decided about this item yourself"):
        decide(ledger, item, "accept", "x", "bob", track="adjudication")
    made = decide(ledger, item, "edit", "c", "carol", payload=OTHER, track="adjudication", base_revision=item.revision)
    settled = ledger.item(item_id)
    assert (settled.status, settled.confirmed, settled.last_word) == ("edited", OTHER, made)
    assert ledger.claim(reviewer="dave", track="adjudication") is None
    assert ledger.undo(reviewer="carol", idem_key="undo") is not None
    assert ledger.item(item_id).status == "disputed"
    assert ledger.audit().problems == ()


def test_own_decisions_can_be_undone_after_others_decided_and_not_after_it_was_settled(ledger: Ledger) -> None:
    [item_id] = shared(ledger)
    decide(ledger, claimed(ledger), "accept", "a")
    decide(ledger, claimed(ledger, "bob"), "reject", "b", "bob")
    assert ledger.undo(reviewer="alice", idem_key="undo a") is not None
    assert ledger.item(item_id).status == "open"
    decide(ledger, claimed(ledger), "edit", "a 2", payload=OTHER)
    item = claimed(ledger, "carol", track="adjudication")
    decide(ledger, item, "accept", "c", "carol", track="adjudication")
    with pytest.raises(LedgerError, match="carol decided about that item after you"):
        ledger.undo(reviewer="alice", idem_key="undo a 2")


def test_an_unsettled_item_is_released_under_no_policy(ledger: Ledger) -> None:
    shared(ledger)
    decide(ledger, claimed(ledger), "accept", "a")
    _, [half] = ledger.snapshot()
    decide(ledger, claimed(ledger, "bob"), "reject", "b", "bob")
    _, [whole] = ledger.snapshot()
    for policy in ("human", "verified", "either"):
        for history, words in ((half, "alice decided, 2 have to"), (whole, "alice, bob disagree")):
            kept = choose(history, policy, numbers="")
            assert isinstance(kept, Withheld)
            assert words in kept.reason
    _, [then] = ledger.snapshot(seq=half.decisions[0].seq)
    assert then == half  # what is frozen at a number stays, whatever is assigned or decided later


def gold(ledger: Ledger, num_episodes: int = 3) -> str:
    """One item that a lead made gold, among others."""
    fill(ledger, num_episodes)
    made = decide(ledger, claimed(ledger, "lead"), "edit", "truth", "lead", payload=OTHER)
    assert ledger.assign([made.item_id], gold=True) == 1
    return made.item_id


def test_a_gold_item_looks_like_any_other_and_keeps_its_truth(ledger: Ledger) -> None:
    item_id = gold(ledger)
    item = claimed(ledger, gold_every=1)
    assert (item.item_id, item.status, item.confirmed, item.history, item.last_word) == (
        item_id,
        "open",
        None,
        (),
        None,
    )
    row = next(row for row in ledger.queue(reviewer="alice") if row.item_id == item_id)
    assert (row.status, row.decided_by, row.conflict) == ("open", None, False)
    decide(ledger, item, "accept", "a", base_revision=item.revision)
    assert ledger.item(item_id).confirmed == OTHER
    assert claimed(ledger, gold_every=1).item_id != item_id  # no second time
    assert claimed(ledger, "lead", gold_every=1).item_id != item_id  # nor to who said the truth
    assert claimed(ledger, "bob", gold_every=1).item_id == item_id
    assert ledger.progress().num_items == 2
    assert ledger.audit().problems == ()


def test_gold_comes_now_and_then_and_not_when_it_is_not_due(ledger: Ledger) -> None:
    item_id = gold(ledger, 12)
    assert claimed(ledger, gold_every=NEVER).item_id != item_id
    places = []
    for number in range(10):
        item = claimed(ledger, "bob", gold_every=2)
        places += [number] if item.item_id == item_id else []
        decide(ledger, item, "accept", f"k {number}", "bob")
    assert len(places) == 1


def test_only_what_somebody_decided_can_be_gold(ledger: Ledger) -> None:
    fill(ledger, 1)
    [row] = ledger.queue()
    with pytest.raises(LedgerError, match="nobody decided about episode_0"):
        ledger.assign([row.item_id], gold=True)
    with pytest.raises(LedgerError, match="Use 1 to 20"):
        ledger.assign([row.item_id], overlap=0)
    with pytest.raises(LedgerError, match="no item 'nothing'"):
        ledger.assign(["nothing"], overlap=2)
    assert ledger.seq() == 3


def test_a_queue_is_filtered_by_family_verifier_stratum_annotator_and_set(ledger: Ledger) -> None:
    run_id = ledger.start_run(kind="annotate", recipe={})
    rows = [
        (proposal("plus"), [result("pass"), result("fail", "picked_card")]),
        (proposal("times", trace(board="4\u00d71"), model="reader 2"), [result("unknown")]),
        (proposal("cut", segments()).model_copy(update={"family": "generic@1"}), [result("pass")]),
    ]
    ledger.add_proposals(run_id, rows)

    def found(**wanted: str) -> list[str]:
        return sorted(row.episode_id for row in ledger.queue(QueueFilter(**wanted)))

    assert ledger.facets() == {
        "family": ["generic@1", "math-matching@1"],
        "annotator": ["perception reader 1", "perception reader 2"],
        "stratum": ["3 segments", "sum with +", "sum with \u00d7"],
        "verifier": ["arithmetic", "picked_card"],
    }
    assert found(family="generic@1") == ["cut"]
    assert found(annotator="perception reader 2") == ["times"]
    assert found(stratum="sum with +") == ["plus"]
    assert found(verifier="picked_card") == ["plus"]
    assert found(verifier="picked") == []
    scope = ledger.scope(["plus", "cut", "cut"])
    assert ledger.scope(["cut", "plus"]) == scope
    assert found(scope=scope) == ["cut", "plus"]
    assert claimed(ledger, wanted=QueueFilter(stratum="sum with \u00d7")).episode_id == "times"


def test_a_share_is_the_same_each_time_and_holds_every_smaller_one() -> None:
    ids = [sha256_of(number) for number in range(1000)]
    few, more = chosen_share(ids, 0.1), chosen_share(ids, 0.3)
    assert 60 < len(few) < 140
    assert set(few) < set(more)
    assert chosen_share(ids, 1) == ids
    assert chosen_share(ids, 0) == []
