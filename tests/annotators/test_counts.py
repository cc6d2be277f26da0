"""How far the review is, counted once and moved by every decision."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from ledger_rows import proposal, result, trace

from annotators.ledger import Ledger, QueueFilter, ReviewItem, StoredDecision
from apps.review.counts import Counts
from apps.review.shelf import Shelf
from schemas.annotations import Action

NEVER_S = 1e9


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as opened:
        run_id = opened.start_run(kind="annotate", recipe={})
        opened.add_proposals(run_id, [(proposal(f"episode-{number}"), [result("pass")]) for number in range(6)])
        yield opened


def decide(ledger: Ledger, action: Action, reviewer: str) -> StoredDecision:
    item = ledger.claim(reviewer=reviewer)
    assert item is not None
    return decided(ledger, item, action, reviewer)


def decided(ledger: Ledger, item: ReviewItem, action: Action, reviewer: str) -> StoredDecision:
    return ledger.decide(
        item_id=item.item_id,
        base_proposal_id=item.head.proposal_id,
        action=action,
        reviewer=reviewer,
        payload=trace(board="9+9") if action == "edit" else None,
        idem_key=f"{reviewer} {item.item_id} {action}",
        lead_time_ms=1,
    )


def same(counts: Counts, ledger: Ledger) -> bool:
    kept, fresh = counts.progress(), ledger.progress()
    names = ("num_items", "by_reviewer", "by_rank", "num_conflicts", "num_done", "num_left")
    return (
        all(getattr(kept, name) == getattr(fresh, name) for name in names)
        and {status: count for status, count in kept.by_status.items() if count} == fresh.by_status
    )


def test_what_is_decided_here_is_counted_at_once(ledger: Ledger) -> None:
    counts = Counts(ledger, QueueFilter(), least_s=NEVER_S)
    assert counts.progress().num_done == 0
    actions: tuple[Action, ...] = ("accept", "edit", "reject", "skip")
    for number, action in enumerate(actions):
        item = ledger.claim(reviewer=f"person {number}")
        assert item is not None
        before = counts.group(item.item_id)
        for _ in range(2):  # a double click
            counts.add(decided(ledger, item, action, f"person {number}"), before)
        assert same(counts, ledger), action
    assert counts.progress().num_done == 3


def test_what_others_decide_is_counted_with_the_next_count(ledger: Ledger) -> None:
    counts = Counts(ledger, QueueFilter(), least_s=NEVER_S)
    counts.progress()
    made = decide(ledger, "accept", "somebody else")
    assert counts.progress().num_done == 0
    counts.include(made.seq)
    assert same(counts, ledger)
    assert Counts(ledger, QueueFilter(), least_s=0.0).progress().num_done == 1


def test_a_decision_that_a_count_has_seen_is_not_added_again(ledger: Ledger) -> None:
    counts = Counts(ledger, QueueFilter(), least_s=NEVER_S)
    item = ledger.claim(reviewer="alice")
    assert item is not None
    before = counts.group(item.item_id)
    made = decide(ledger, "accept", "alice")
    counts.include(made.seq)
    counts.progress()
    counts.add(made, before)
    assert same(counts, ledger)


def test_a_shelf_holds_so_much_and_drops_what_was_not_asked_for() -> None:
    made: list[str] = []

    def text(name: str) -> str:
        def make() -> str:
            made.append(name)
            return name * 4

        return shelf.get((name,), make)

    shelf = Shelf(10)
    assert [text(name) for name in "abaca"] == ["aaaa", "bbbb", "aaaa", "cccc", "aaaa"]
    assert made == ["a", "b", "c"]
    text("b")
    assert made == ["a", "b", "c", "b"]

    def fails() -> str:
        raise ValueError("no such picture")

    for _ in range(2):
        with pytest.raises(ValueError, match="no such picture"):
            shelf.get(("d",), fails)
    assert shelf.get(("d",), lambda: "dd") == "dd"
