"""What a reviewer's press writes down: the words that were shown, under the name of the one who pressed."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ledger_rows import proposal, result, segments, trace

from annotators.guidelines import guideline
from annotators.review import TraceForm, segment_rows
from apps.review.access import Gate
from apps.review.desk import Desk, Shown, Typed, typed_cells
from apps.review.markup import markdown
from apps.review.page import Page
from apps.review.panels import words_panel
from apps.review.sheet import Remarked, Sheet
from apps.review.side import side_panel
from apps.review.stage import draw_ahead
from dataengine.workspace import Workspace
from schemas.annotations import BoxedIn, Card, ReasoningTrace, SegmentList
from schemas.errors import LedgerError
from schemas.refs import Ref

EPISODES = Ref("tiny", "1")


@pytest.fixture
def desk(tiny: Workspace, tmp_path: Path) -> Iterator[Desk]:
    opened = Desk(workspace=tiny, episodes=EPISODES, ledger_url=f"sqlite:///{tmp_path / 'ledger.db'}")
    yield opened
    opened.close()


def propose(desk: Desk, payload: ReasoningTrace | SegmentList, model: str = "reader 1") -> None:
    [episode_id] = desk.episodes.ids()
    run_id = desk.ledger.start_run(kind="annotate", recipe={})
    desk.ledger.add_proposals(run_id, [(proposal(episode_id, payload, model), [result("pass")])])


def fields(payload: ReasoningTrace | SegmentList) -> Typed:
    """The form as it starts with a payload."""
    if isinstance(payload, ReasoningTrace):
        return Typed(trace=TraceForm.of(payload), segments=(), note="")
    return Typed(trace=TraceForm(), segments=typed_cells(segment_rows(payload)), note="")


def shown_to(desk: Desk, reviewer: str) -> Shown:
    [row] = desk.queue(desk.wanted())
    found = desk.take(reviewer=reviewer, wanted=desk.wanted(), item_id=row.item_id)
    assert found is not None
    return found


MACHINE, ALICE, NEWER = trace(), trace(board="4+2", solution="4+2=6", pick="7", where="right"), trace(board="9+9")
CUT = segments(400_000_000)
CORRECTED = CUT.model_copy(
    update={"segments": (CUT.segments[0].model_copy(update={"label": "hold"}), *CUT.segments[1:])}
)


def edited_by_alice(desk: Desk, machine: Any = MACHINE, hers: Any = ALICE) -> None:
    propose(desk, machine)
    first = shown_to(desk, "alice")
    desk.decide("edit", token=first.token, reviewer="alice", typed=fields(hers))


@pytest.mark.parametrize(("machine", "hers"), [(MACHINE, ALICE), (CUT, CORRECTED)])
def test_accepting_an_edited_item_confirms_the_words_that_are_shown(desk: Desk, machine: Any, hers: Any) -> None:
    edited_by_alice(desk, machine, hers)
    shown = shown_to(desk, "bob")
    assert shown.start == hers
    made = desk.decide("accept", token=shown.token, reviewer="bob", typed=fields(shown.start))
    assert (made.action, made.payload, made.reviewer) == ("edit", hers, "bob")
    assert desk.ledger.item(made.item_id).confirmed == hers


def test_accepting_a_conflict_keeps_what_stands_in_the_fields_and_ends_the_conflict(desk: Desk) -> None:
    edited_by_alice(desk)
    propose(desk, NEWER, "reader 2")
    shown = shown_to(desk, "bob")
    assert shown.item.conflict
    made = desk.decide("accept", token=shown.token, reviewer="bob", typed=fields(shown.start))
    item = desk.ledger.item(made.item_id)
    assert (item.confirmed, item.conflict) == (ALICE, False)


@pytest.mark.parametrize(("machine", "hers"), [(MACHINE, ALICE), (CUT, CORRECTED)])
def test_fields_put_back_to_the_proposal_are_saved_as_an_accept_of_it(desk: Desk, machine: Any, hers: Any) -> None:
    edited_by_alice(desk, machine, hers)
    shown = shown_to(desk, "bob")
    made = desk.decide("edit", token=shown.token, reviewer="bob", typed=fields(machine))
    assert (made.action, made.payload) == ("accept", None)
    assert desk.ledger.item(made.item_id).confirmed == machine


def test_an_untouched_proposal_is_accepted_as_it_is(desk: Desk) -> None:
    propose(desk, MACHINE)
    shown = shown_to(desk, "bob")
    made = desk.decide("accept", token=shown.token, reviewer="bob", typed=fields(MACHINE))
    assert (made.action, made.payload) == ("accept", None)


def test_a_trace_with_more_cards_than_the_form_is_accepted_whole_and_not_edited(desk: Desk) -> None:
    cards = tuple(Card(text=str(number), position="unknown") for number in range(8))
    many = ReasoningTrace(board="4+1", solution="4+1=5", cards=cards, pick_text="5")
    propose(desk, many)
    shown = shown_to(desk, "bob")
    typed = fields(many)
    assert len(typed.trace.cards) == 6
    changed = replace(typed, trace=replace(typed.trace, board="4+2"))
    with pytest.raises(LedgerError, match="has 8 cards and the form holds 6"):
        desk.decide("edit", token=shown.token, reviewer="bob", typed=changed)
    made = desk.decide("accept", token=shown.token, reviewer="bob", typed=typed)
    assert desk.ledger.item(made.item_id).confirmed == many


def test_a_chat_marker_is_refused_in_a_sentence(desk: Desk) -> None:
    propose(desk, MACHINE)
    shown = shown_to(desk, "bob")
    typed = fields(MACHINE)
    evil = replace(typed, trace=replace(typed.trace, board="4+1<|im_end|>"))
    with pytest.raises(LedgerError, match=r"Not saved yet\. The words hold the chat marker <\|im_end\|>"):
        desk.decide("edit", token=shown.token, reviewer="bob", typed=evil)
    with pytest.raises(LedgerError, match="chat marker"):
        propose(desk, trace(board="<|image_pad|>"), "reader 2")
    with pytest.raises(LedgerError, match="chat marker"):
        desk.ledger.decide(
            item_id=shown.item.item_id,
            base_proposal_id=shown.item.head.proposal_id,
            action="edit",
            reviewer="bob",
            payload=trace(solution="<|endoftext|>"),
            idem_key="x",
            lead_time_ms=1,
        )


@pytest.fixture
def page(desk: Desk) -> Page:
    import gradio as gr

    with gr.Blocks():
        return Page(desk, Gate(desk.ledger.accounts, has_login=False), "alice")


def values(shown: Shown | None, reviewer: str, board: str | None = None) -> list[Any]:
    """What the browser sends."""
    sheet = Sheet.of(MACHINE, shown.token) if shown else Sheet()
    if board is not None:
        sheet = sheet.model_copy(update={"board": board, "sequence": 1})
    return [sheet.model_dump_json(), reviewer, "", -1, "", "", "review"]


def sheet_in(page: Page, given: Any) -> Sheet:
    """The sheet among the values that a handler gives."""
    return Sheet.read(dict(zip(page.outputs, given, strict=True))[page.sheet])


def said_in(page: Page, given: Any) -> str:
    """Why nothing was done, among the values that a handler gives."""
    return str(dict(zip(page.outputs, given, strict=True))[page.said])


NOBODY = SimpleNamespace(username=None)


@pytest.mark.parametrize("handler", ["on_undo", "on_name"])
def test_nothing_that_was_typed_is_dropped_in_silence(desk: Desk, page: Page, handler: str) -> None:
    propose(desk, MACHINE)
    shown = shown_to(desk, "alice")
    given = getattr(page, handler)(NOBODY, *values(shown, "alice", board="4+8"))
    assert "You changed fields" in said_in(page, given)
    assert desk.ledger.item(shown.item.item_id).lease_owner == "alice"


def test_the_newest_proposal_can_be_put_into_the_fields_and_confirmed(desk: Desk, page: Page) -> None:
    edited_by_alice(desk)
    propose(desk, NEWER, "reader 2")
    shown = shown_to(desk, "bob")
    given = page.on_newest(NOBODY, *values(shown, "bob"))
    filled, sheet = dict(zip(page.outputs, given, strict=True)), sheet_in(page, given)
    assert (sheet.board, sheet.token) == ("9+9", shown.token)
    assert filled[page.newest]["visible"] is True
    made = desk.decide("edit", token=shown.token, reviewer="bob", typed=fields(NEWER))
    assert (made.action, desk.ledger.item(made.item_id).confirmed) == ("accept", NEWER)


def test_a_decision_about_nothing_says_so(page: Page) -> None:
    assert "Nothing is shown" in said_in(page, page.on_accept(NOBODY, *values(None, "alice")))
    assert "needs your name" in said_in(page, page.on_accept(NOBODY, *values(None, "")))


def test_a_late_decision_shows_the_other_one_and_keeps_what_was_typed(desk: Desk, page: Page) -> None:
    propose(desk, MACHINE)
    shown = shown_to(desk, "bob")
    desk.ledger.renew(reviewer="bob", item_id=shown.item.item_id, lease_s=0)
    hers = shown_to(desk, "alice")
    desk.decide("edit", token=hers.token, reviewer="alice", typed=fields(ALICE))
    given = dict(zip(page.outputs, page.on_save(NOBODY, *values(shown, "bob", board="4+8")), strict=True))
    assert "alice (edit) decided about this item meanwhile" in str(given[page.said])
    assert "<b>Edited</b> by alice" in given[page.words]
    assert given[page.sheet]["__type__"] == "update"  # the fields stay as they are
    assert [row.reviewer for row in desk.ledger.decisions()] == ["alice"]


def test_typing_keeps_the_item(desk: Desk, page: Page) -> None:
    propose(desk, MACHINE)
    shown = shown_to(desk, "bob")
    desk.ledger.renew(reviewer="bob", item_id=shown.item.item_id, lease_s=0)
    page.on_typing(NOBODY, *values(shown, "bob", board="4+8"))
    assert desk.ledger.item(shown.item.item_id).lease_owner == "bob"


def test_what_was_typed_comes_back_as_a_draft_until_it_is_dropped(desk: Desk, page: Page) -> None:
    propose(desk, MACHINE)
    shown = shown_to(desk, "bob")
    page.on_typing(NOBODY, *values(shown, "bob", board="4+8"))
    assert desk.ledger.decisions() == []
    again = page.on_load(NOBODY, *values(None, "bob"))
    given = dict(zip(page.outputs, again, strict=True))
    assert sheet_in(page, again).board == "4+8"
    assert "Your draft of" in given[page.words]
    dropped = page.on_reset(NOBODY, *values(shown, "bob", board="4+8"))
    assert sheet_in(page, dropped).board == "4+1"
    page.on_typing(NOBODY, *values(shown, "bob", board="4+9"))  # sent before, come too late
    afterwards = page.on_load(NOBODY, *values(None, "bob"))
    assert sheet_in(page, afterwards).board == "4+1"
    assert "Your draft" not in dict(zip(page.outputs, afterwards, strict=True))[page.words]


def test_a_draft_says_what_came_since_it_was_written(desk: Desk, page: Page) -> None:
    propose(desk, MACHINE)
    shown = shown_to(desk, "bob")
    page.on_typing(NOBODY, *values(shown, "bob", board="4+8"))
    desk.ledger.renew(reviewer="bob", item_id=shown.item.item_id, lease_s=0)
    hers = shown_to(desk, "alice")
    assert desk.sheet(hers).board == "4+1"  # a draft is seen by its writer alone
    desk.decide("edit", token=hers.token, reviewer="alice", typed=fields(ALICE))
    his = shown_to(desk, "bob")
    words = words_panel(his, desk.read(his, desk.sheet(his).typed()), draft=desk.sheet(his).saved)
    assert "Somebody decided since" in words
    assert "<b>Edited</b> by alice" in words
    propose(desk, NEWER, "reader 2")
    his = shown_to(desk, "bob")
    assert "A newer proposal came since" in words_panel(his, desk.read(his, fields(ALICE)), draft="then")


@pytest.mark.parametrize("choice", ["accept", "edit", "reject"])
def test_a_double_click_is_one_decision(desk: Desk, choice: Any) -> None:
    propose(desk, MACHINE)
    shown = shown_to(desk, "bob")
    typed = fields(ALICE if choice == "edit" else MACHINE)
    first, second = (desk.decide(choice, token=shown.token, reviewer="bob", typed=typed) for _ in range(2))
    assert first == second
    assert desk.ledger.decisions() == [first]


def test_a_drawn_box_alone_is_an_edit_and_not_an_accept(desk: Desk) -> None:
    propose(desk, MACHINE)
    shown = shown_to(desk, "bob")
    typed = fields(MACHINE)
    drawn = replace(typed, trace=replace(typed.trace, drawn=((1, (2, 3, 9, 8)),)))
    made = desk.decide("edit", token=shown.token, reviewer="bob", typed=drawn)
    assert made.action == "edit"
    assert isinstance(made.payload, ReasoningTrace)
    assert [card.box_xyxy for card in made.payload.cards] == [None, (2, 3, 9, 8), None]


def test_boxes_that_somebody_saw_to_are_kept_by_whoever_accepts_them_later(desk: Desk) -> None:
    propose(desk, MACHINE)
    where = BoxedIn(camera="cam_high", frame=0)
    typed = fields(MACHINE)
    boxed = replace(typed, trace=replace(typed.trace, board_box=(2, 3, 9, 8), boxed_in=where))
    first = desk.decide("edit", token=shown_to(desk, "alice").token, reviewer="alice", typed=boxed)
    again = shown_to(desk, "bob")
    second = desk.decide("accept", token=again.token, reviewer="bob", typed=fields(again.start))
    for made in (first, second):
        assert made.action == "edit"
        assert isinstance(made.payload, ReasoningTrace)
        assert (made.payload.boxed_in, made.payload.board_box_xyxy) == (where, (2, 3, 9, 8))
    assert desk.ledger.item(again.item.item_id).conflict is False
    propose(desk, MACHINE, "reader 2")  # the same words, of a program that says nothing about boxes
    assert desk.ledger.item(again.item.item_id).conflict is False


@pytest.mark.parametrize("where", [BoxedIn(camera="cam_nowhere", frame=0), BoxedIn(camera="cam_high", frame=10**6)])
def test_boxes_in_a_picture_that_is_none_are_refused(desk: Desk, where: BoxedIn) -> None:
    propose(desk, MACHINE)
    shown, typed = shown_to(desk, "bob"), fields(MACHINE)
    good = replace(
        typed, trace=replace(typed.trace, board_box=(2, 3, 9, 8), boxed_in=BoxedIn(camera="cam_high", frame=0))
    )
    assert desk.read(shown, good).problems == ()
    reading = desk.read(shown, replace(good, trace=replace(good.trace, boxed_in=where)))
    assert reading.payload is None
    assert reading.problems == (
        f"There is no frame {where.frame} of '{where.camera}' for the boxes to be in. Draw them again.",
    )


def test_a_decision_names_the_guideline_and_the_fields_that_were_accepted_one_by_one(desk: Desk) -> None:
    propose(desk, MACHINE)
    shown = shown_to(desk, "bob")
    ticked = replace(fields(MACHINE), ticked=("board", "card-1"))
    made = desk.decide("accept", token=shown.token, reviewer="bob", typed=ticked)
    found = guideline("math-matching@1")
    assert found is not None
    assert (made.guideline, made.ticked) == (found.version, "board card-1")
    assert guideline("../../etc@1") is None


def test_side_panes_escape_everything(desk: Desk) -> None:
    evil = "<img src=x onerror=alert(1)>${x}{{y}}"
    propose(desk, trace(board=evil), model=evil)
    shown = shown_to(desk, "bob")
    desk.remark(Remarked(kind="flag", words=evil), token=shown.token, reviewer="bob")
    panes = side_panel(shown_to(desk, "bob"))
    assert "Remarks (1, flagged)" in panes
    assert markdown("**a** `<b>` *c*\n\n- x\n- <i>").count("&lt;") == 2
    for sign in ("<img", "${", "{{"):
        assert sign not in panes + markdown(evil)


@pytest.mark.parametrize("wrong", ["", "{}", "[1]", '{"kind":"trace","sequence":-1}', '{"board":"' + "x" * 600 + '"}'])
def test_a_sheet_that_was_forged_is_about_nothing(wrong: str) -> None:
    assert Sheet.read(wrong).token is None


def test_an_adjudicator_sees_both_decisions_and_a_reviewer_neither(desk: Desk) -> None:
    propose(desk, MACHINE)
    [row] = desk.queue(desk.wanted())
    desk.ledger.assign([row.item_id], overlap=2)
    hers = shown_to(desk, "alice")
    desk.decide("edit", token=hers.token, reviewer="alice", typed=replace(fields(ALICE), note="it says two"))
    his = shown_to(desk, "bob")
    assert his.start == MACHINE
    page = words_panel(his, desk.read(his, fields(MACHINE)))
    assert "alice" not in page
    desk.decide("accept", token=his.token, reviewer="bob", typed=fields(MACHINE))
    assert desk.take(reviewer="alice", wanted=desk.wanted()) is None
    shown = desk.take(reviewer="carol", wanted=desk.wanted(status="disputed"), track="adjudication")
    assert shown is not None
    page = words_panel(shown, desk.read(shown, fields(MACHINE)))
    for words in (
        "<b>alice</b> (edit)",
        "it says two",
        "The board reads 4+2.",
        "<b>bob</b> (accept)",
        "The board reads 4+1.",
    ):
        assert words in page
    made = desk.decide("edit", token=shown.token, reviewer="carol", typed=fields(ALICE))
    assert (made.track, desk.ledger.item(row.item_id).confirmed) == ("adjudication", ALICE)


def test_the_queue_is_filtered_by_what_there_is(desk: Desk) -> None:
    propose(desk, MACHINE)
    assert ("stratum: sum with +", "stratum=sum with +") in desk.facets()
    assert len(desk.queue(desk.wanted(facet="stratum=sum with +"))) == 1
    assert desk.queue(desk.wanted(facet="verifier=arithmetic")) == []


def test_drawing_ahead_leases_nothing_and_spares_the_first_reviewer_the_wait(desk: Desk) -> None:
    propose(desk, MACHINE)
    draw_ahead(desk)
    [episode_id] = desk.episodes.ids()

    def draw_now() -> str:
        raise AssertionError("it was not drawn ahead")

    assert desk.drawn.get(("curves", episode_id), draw_now)
    [row] = desk.queue(desk.wanted())
    assert desk.look(row.item_id, reviewer="alice").item.lease_owner is None


def test_a_damaged_episode_does_not_keep_the_page_from_opening(
    tiny: Workspace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(tiny.root, tmp_path / "damaged")
    workspace = Workspace.at(tmp_path / "damaged")
    [data] = (workspace.root / "episodes" / str(EPISODES) / "data").rglob("*.parquet")
    opened = Desk(workspace=workspace, episodes=EPISODES, ledger_url=f"sqlite:///{tmp_path / 'ledger.db'}")
    propose(opened, MACHINE)
    data.chmod(0o644)
    data.write_bytes(data.read_bytes()[:100])
    draw_ahead(opened)
    assert "can not be drawn" in caplog.text
    opened.close()
