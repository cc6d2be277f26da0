"""The rules of review: what can be typed, what it becomes, and that nothing typed is lost."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_rows import segments, trace

from annotators.edits import changes, recheck
from annotators.review import (
    POSITIONS,
    TraceForm,
    read_segments,
    read_trace,
    segment_rows,
)
from schemas.annotations import Card, ReasoningTrace, Segment, SegmentList

END_NS = 2_000_000_000


def test_a_form_that_was_not_touched_reads_back_as_the_same_trace() -> None:
    boxed = Card(text="3", position="left", box_xyxy=(1, 2, 3, 4))
    base = trace().model_copy(update={"cards": (boxed, *trace().cards[1:])})
    assert read_trace(TraceForm.of(base), base).payload == base
    empty = ReasoningTrace(board=None, solution=None)
    assert read_trace(TraceForm.of(empty), empty).payload == empty


def test_a_card_that_keeps_its_text_and_place_keeps_its_box() -> None:
    boxed = tuple(card.model_copy(update={"box_xyxy": (1, 2, 3, 4)}) for card in trace().cards)
    base = trace().model_copy(update={"cards": boxed})
    form = replace(TraceForm.of(base), cards=(("3", "left"), ("6", "middle"), ("7", "right")), pick_text="")
    form = replace(form, pick_position="unknown")
    payload = read_trace(form, base).payload
    assert isinstance(payload, ReasoningTrace)
    assert [card.box_xyxy for card in payload.cards] == [(1, 2, 3, 4), None, (1, 2, 3, 4)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"cards": (("3", "left"), ("", "middle"), ("7", "right")), "pick_text": "7", "pick_position": "right"},
            "no number",
        ),
        ({"cards": (("3", "left"), ("5", "left"), ("7", "right"))}, "Two cards are at the left"),
        ({"cards": (("3", "above"), ("5", "middle"), ("7", "right"))}, "can not be at 'above'"),
        ({"pick_text": "9"}, "No card reads '9'"),
        ({"pick_position": "left"}, "The 5 is at the middle, not at the left"),
        ({"pick_text": " "}, "from the middle but has no number"),
    ],
)
def test_what_can_not_be_true_is_said_in_a_sentence(change: dict[str, object], words: str) -> None:
    reading = read_trace(replace(TraceForm.of(trace()), **change), trace())
    assert reading.payload is None
    assert reading.text == ""
    assert any(words in problem for problem in reading.problems), reading.problems


def test_a_wrong_sum_is_shown_and_may_be_saved() -> None:
    reading = read_trace(replace(TraceForm.of(trace()), board="4 + 2"), trace())
    assert isinstance(reading.payload, ReasoningTrace)
    assert reading.text.startswith("The board reads 4 + 2.")
    verdicts = {row.verifier: (row.verdict, row.evidence) for row in recheck(reading.payload)}
    assert verdicts["arithmetic"] == ("fail", "the board gives 4+2=6, the solution says 4+1=5")
    assert verdicts["pick_answers_board"][0] == "fail"
    assert {row.verdict for row in recheck(trace())} == {"pass"}
    assert {row.verdict for row in recheck(trace(board="hello"))} == {"unknown"}


def test_changes_name_each_field_that_differs() -> None:
    after = trace(board="4+2", solution="4+2=6")
    assert [(row.name, row.before, row.after) for row in changes(trace(), after)] == [
        ("board", "4+1", "4+2"),
        ("solution", "4+1=5", "4+2=6"),
    ]
    assert changes(trace(), trace()) == ()


def test_segments_that_were_not_touched_keep_their_nanoseconds() -> None:
    odd = segments(end_ns=1_999_999_999)
    assert read_segments(segment_rows(odd), odd, end_ns=END_NS).payload == odd


def test_an_edited_segment_takes_its_new_time_and_label() -> None:
    rows = segment_rows(segments())
    rows[0][1] = rows[1][0] = "0.6"
    rows[1][2] = "hold"
    payload = read_segments(rows, segments(), end_ns=END_NS).payload
    assert isinstance(payload, SegmentList)
    assert [(part.start_ns, part.label) for part in payload.segments] == [
        (0, "reach"),
        (600_000_000, "hold"),
        (1_000_000_000, "retreat"),
    ]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (["x", "1", "reach", ""], "times are seconds"),
        (["nan", "1", "reach", ""], "times are seconds"),
        (["inf", "1", "reach", ""], "times are seconds"),
        (["1", "0.5", "reach", ""], "must move forward"),
        (["0", "99", "reach", ""], "end by 2.000 s"),
        (["0", "1", "fly", ""], "'fly' is no label"),
        (["", "", "", ""], "There is no segment"),
    ],
)
def test_a_segment_that_can_not_be_is_said_in_a_sentence(row: list[str], words: str) -> None:
    reading = read_segments([row], segments(), end_ns=END_NS)
    assert reading.payload is None
    assert any(words in problem for problem in reading.problems), reading.problems


_text = st.text(max_size=12)
_place = st.sampled_from(POSITIONS)


@given(board=_text, solution=_text, cards=st.lists(st.tuples(_text, _place), max_size=5), pick=_text, where=_place)
def test_whatever_is_typed_becomes_a_trace_or_a_sentence(
    board: str, solution: str, cards: list[tuple[str, str]], pick: str, where: str
) -> None:
    form = TraceForm(board=board, solution=solution, cards=tuple(cards), pick_text=pick, pick_position=where)
    reading = read_trace(form, trace())
    assert (reading.payload is None) == bool(reading.problems)
    if isinstance(reading.payload, ReasoningTrace):
        kept = [(card.text, card.position) for card in reading.payload.cards]
        assert kept == [(" ".join(text.split()), place) for text, place in cards if text.split()]
        recheck(reading.payload)
        again = read_trace(TraceForm.of(reading.payload), reading.payload)
        assert again.payload == reading.payload


def test_a_drawn_box_is_taken_in_pixels_and_a_deleted_one_is_gone() -> None:
    boxed = tuple(card.model_copy(update={"box_xyxy": (1, 2, 3, 4)}) for card in trace().cards)
    base = trace().model_copy(update={"cards": boxed})
    payload = read_trace(replace(TraceForm.of(base), drawn=((0, (5, 6, 7, 8)), (2, None))), base).payload
    assert isinstance(payload, ReasoningTrace)
    assert [card.box_xyxy for card in payload.cards] == [(5, 6, 7, 8), (1, 2, 3, 4), None]
    assert changes(base, payload)[0].after == "3 (left, box (5, 6) to (7, 8))"


@pytest.mark.parametrize(
    ("drawn", "words"),
    [((0, (5, 6, 5, 8)), "is empty or leaves the picture"), ((3, (1, 1, 2, 2)), "has a box and no number")],
)
def test_a_box_that_can_not_be_is_said_in_a_sentence(drawn: tuple[int, tuple[int, int, int, int]], words: str) -> None:
    form = TraceForm.of(trace())
    reading = read_trace(replace(form, cards=(*form.cards, ("", "unknown")), drawn=(drawn,)), trace())
    assert any(words in problem for problem in reading.problems), reading.problems


def test_a_time_that_shows_a_frame_means_the_frame() -> None:
    rows = [["0.000", "0.033", "reach", "arm"], ["0.033", "0.5004", "hold", "arm"]]
    payload = read_segments(rows, SegmentList(segments=()), end_ns=END_NS, rate_hz=30).payload
    assert isinstance(payload, SegmentList)
    assert [part.end_ns for part in payload.segments] == [33_333_333, 500_000_000]
    assert read_segments(rows[:1], SegmentList(segments=()), end_ns=END_NS).payload == SegmentList(
        segments=(payload.segments[0].model_copy(update={"end_ns": 33_000_000}),)
    )


@pytest.mark.parametrize(
    ("board", "solution", "pick", "verdicts"),
    [
        ("3+?=7", "3+4=7", "4", ["pass", "pass"]),
        ("3+?=7", "3+5=7", "5", ["fail", "fail"]),
        ("4 + 1 = ?", "4+1=5", "5", ["pass", "pass"]),
        ("4+1", "5", "5", ["fail", "pass"]),
    ],
)
def test_edited_words_are_judged_wherever_the_unknown_stands(
    board: str, solution: str, pick: str, verdicts: list[str]
) -> None:
    edited = ReasoningTrace(board=board, solution=solution, cards=(), pick_text=pick, pick_position="unknown")
    assert [result.verdict for result in recheck(edited)] == verdicts


def test_a_segment_may_name_what_is_handled_and_nothing_else_for_a_phase() -> None:
    base = SegmentList(segments=(Segment(start_ns=0, end_ns=1_000_000_000, label="grasp", end_effector="left"),))
    named = read_segments([["0", "1", "grasp red cup", "left"]], base, end_ns=1_000_000_000)
    assert isinstance(named.payload, SegmentList)
    assert (named.payload.segments[0].phase, named.payload.segments[0].about) == ("grasp", "red cup")
    assert read_segments([["0", "1", "juggle red cup", "left"]], base, end_ns=1_000_000_000).payload is None
