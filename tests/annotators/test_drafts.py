"""Beside decisions: drafts of which the last change is kept, remarks, reasons, and what became of one's own words."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from ledger_rows import claimed, decide, fill, trace

from annotators.ledger import Draft, Ledger, Remark, ReviewItem
from schemas.annotations import UNUSABLE
from schemas.errors import LedgerError


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as opened:
        fill(opened)
        yield opened


def draft(item: ReviewItem, **more: object) -> Draft:
    words = Draft(
        item_id=item.item_id,
        reviewer="alice",
        key="k1",
        base_proposal_id=item.head.proposal_id,
        revision=item.revision,
        shown_ms=1000,
        sequence=1,
        body_json='{"board":"4+8"}',
    )
    return replace(words, **more)


def test_the_last_change_of_a_draft_is_kept_whichever_comes_last(ledger: Ledger) -> None:
    item = claimed(ledger)
    assert ledger.keep_draft(draft(item, sequence=3, body_json="third"))
    assert not ledger.keep_draft(draft(item, sequence=2, body_json="second"))
    assert not ledger.keep_draft(draft(item, shown_ms=900, sequence=9, body_json="of an older page"))
    assert ledger.keep_draft(draft(item, shown_ms=2000, sequence=0, body_json="of a newer page", key="k2"))
    kept = ledger.draft(reviewer="alice", item_id=item.item_id)
    assert kept is not None
    assert (kept.body_json, kept.sequence) == ("of a newer page", 0)
    assert kept.saved.startswith("20")


def test_a_draft_outlives_the_lease_and_is_seen_by_its_writer_alone(ledger: Ledger) -> None:
    item = claimed(ledger)
    ledger.keep_draft(draft(item))
    ledger.renew(reviewer="alice", item_id=item.item_id, lease_s=0)
    claimed(ledger, "bob", item_id=item.item_id)
    assert ledger.draft(reviewer="bob", item_id=item.item_id) is None
    assert ledger.keep_draft(draft(item, sequence=2))  # she types on, and it is his
    assert ledger.item(item.item_id).lease_owner == "bob"
    assert ledger.draft(reviewer="alice", item_id=item.item_id) is not None


@pytest.mark.parametrize("action", ["accept", "reject"])
def test_a_decision_ends_the_draft_and_no_late_change_brings_it_back(ledger: Ledger, action: str) -> None:
    item = claimed(ledger)
    ledger.keep_draft(draft(item))
    decide(ledger, item, action, f"k1:{action}")
    assert ledger.draft(reviewer="alice", item_id=item.item_id) is None
    assert not ledger.keep_draft(draft(item, sequence=2))
    assert ledger.draft(reviewer="alice", item_id=item.item_id) is None


def test_a_draft_is_no_decision(ledger: Ledger) -> None:
    before = ledger.seq()
    item = claimed(ledger)
    ledger.keep_draft(draft(item))
    assert (ledger.seq(), ledger.decisions(), ledger.item(item.item_id).status) == (before, [], "open")
    assert ledger.audit().problems == ()


@pytest.mark.parametrize("wrong", [{"sequence": -1}, {"body_json": "x" * 300_000}])
def test_a_draft_that_can_not_be_is_refused(ledger: Ledger, wrong: dict[str, object]) -> None:
    with pytest.raises(LedgerError):
        draft(claimed(ledger), **wrong)


def test_what_a_decision_says_about_itself_is_part_of_the_chain(ledger: Ledger) -> None:
    item = claimed(ledger)
    made = decide(ledger, item, "reject", "k", reason=UNUSABLE, guideline="math 1 (ab)", ticked="board pick")
    assert (made.reason, made.guideline, made.ticked) == (UNUSABLE, "math 1 (ab)", "board pick")
    assert made.link_hash() == made.hash
    for change in ({"reason": "other"}, {"guideline": "math 2 (cd)"}, {"ticked": None}):
        assert replace(made, **change).link_hash() != made.hash
    assert ledger.audit().problems == ()


@pytest.mark.parametrize(("action", "reason"), [("accept", "other"), ("reject", "because")])
def test_a_reason_belongs_to_a_reject_and_to_the_list(ledger: Ledger, action: str, reason: str) -> None:
    with pytest.raises(LedgerError, match="is no reason for"):
        decide(ledger, claimed(ledger), action, "k", reason=reason)


def test_a_remark_is_noted_once_and_never_erased(ledger: Ledger) -> None:
    item = claimed(ledger)
    said = Remark(remark_id="r", item_id=item.item_id, reviewer="alice", kind="flag", words="look at frame 3")
    assert ledger.remark(said)
    assert not ledger.remark(said)
    [kept] = ledger.remarks(item.item_id)
    assert (kept.words, kept.kind, kept.reviewer) == ("look at frame 3", "flag", "alice")
    with pytest.raises(LedgerError, match="needs words"):
        replace(said, words="  ")
    with pytest.raises(LedgerError, match="no item"):
        ledger.remark(replace(said, remark_id="q", item_id="nowhere"))


def test_remarks_about_a_shared_item_wait_until_it_is_settled(ledger: Ledger) -> None:
    item = claimed(ledger)
    ledger.assign([item.item_id], overlap=2)
    for name in ("alice", "bob"):
        ledger.remark(Remark(remark_id=name, item_id=item.item_id, reviewer=name, kind="comment", words=name))
    assert [row.words for row in ledger.remarks(item.item_id, reviewer="alice")] == ["alice"]
    decide(ledger, item, "accept", "a", reviewer="alice")
    decide(ledger, item, "accept", "b", reviewer="bob")
    assert {row.words for row in ledger.remarks(item.item_id, reviewer="alice")} == {"alice", "bob"}


def test_a_reviewer_is_told_what_became_of_each_decision(ledger: Ledger) -> None:
    first, second, third = (ledger.item(row.item_id) for row in ledger.queue())
    decide(ledger, first, "accept", "1")
    decide(ledger, second, "accept", "2")
    decide(ledger, third, "skip", "3")
    fates = {row.decision.item_id: (row.fate, row.by) for row in ledger.own("alice")}
    assert fates == {
        first.item_id: ("stands", None),
        second.item_id: ("stands", None),
        third.item_id: ("skipped", None),
    }
    other = decide(ledger, first, "edit", "4", reviewer="bob", payload=trace(board="4 + 1"), note="as written")
    decide(ledger, second, "accept", "5", reviewer="bob")
    ledger.undo(reviewer="alice", idem_key="6")
    newest_first = [(row.fate, row.by and row.by.reviewer) for row in ledger.own("alice")]
    assert newest_first == [("undone", None), ("confirmed", "bob"), ("overturned", "bob")]
    [*_, overturned] = ledger.own("alice")
    assert overturned.by == other
    assert ledger.own("carol") == []


def test_who_waits_for_others_is_not_told_what_they_said(ledger: Ledger) -> None:
    item = claimed(ledger)
    ledger.assign([item.item_id], overlap=2)
    decide(ledger, item, "accept", "a", reviewer="alice")
    assert [(row.fate, row.by) for row in ledger.own("alice")] == [("waits", None)]
    decide(ledger, item, "reject", "b", reviewer="bob")
    assert [(row.fate, row.by) for row in ledger.own("alice")] == [("waits", None)]
    decide(ledger, item, "reject", "c", reviewer="carol", track="adjudication", note="no card")
    [mine] = ledger.own("alice")
    assert (mine.fate, mine.by and mine.by.note) == ("overturned", "no card")
