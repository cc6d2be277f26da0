"""Verifiers by mutation: what is right passes, one thing made wrong fails, what nobody saw is unknown."""

from dataclasses import replace
from typing import Any

import pytest

from annotators.evidence import Evidence, PickEvidence
from annotators.perception import BoardReadings
from annotators.traces import UNREAD, build_trace
from annotators.verifiers import VERIFIERS, arithmetic, double_reading, gripper_events, picked_card, verify
from schemas.annotations import (
    Card,
    GripperEvent,
    Position,
    Proposal,
    Provenance,
    ReasoningTrace,
    Segment,
    SegmentList,
)

CARDS = (
    Card(text="3", position="left"),
    Card(text="5", position="middle"),
    Card(text="7", position="right"),
)
TRACE = build_trace("4+1=?", CARDS)
S = 1_000_000_000


def changed(**fields: Any) -> ReasoningTrace:
    return TRACE.model_copy(update=fields)


def pick(*slots: str, moved: str | None = "5") -> Evidence:
    return Evidence(rate_hz=50, pick=PickEvidence(frame=200, slots=slots, moved_text=moved))  # type: ignore[arg-type]  # words of Slot


def segments(*parts: tuple[str, float], who: str = "right gripper") -> SegmentList:
    bounds = [start for _, start in parts] + [5.0]
    return SegmentList(
        segments=tuple(
            Segment(start_ns=int(start * S), end_ns=int(end * S), label=label, end_effector=who)
            for (label, start), end in zip(parts, bounds[1:], strict=True)
        )
    )


def told(*parts: tuple[str, float], who: str = "right gripper") -> tuple[GripperEvent, ...]:
    return tuple(
        GripperEvent(stamp_ns=int(at * S), end_effector=who, event="close" if event == "close" else "open")
        for event, at in parts
    )


EVENTS = Evidence(
    rate_hz=50, events=told(("close", 1.2), ("open", 3.0)), commanded=told(("close", 0.9), ("open", 2.95))
)
PICK = (("reach", 0.0), ("grasp", 1.2), ("carry", 1.4), ("release", 3.0), ("retreat", 3.2))


def test_the_built_trace_reads_like_the_paper() -> None:
    words = "The board reads 4+1. 4+1=5. Cards: 3 (left), 5 (middle), 7 (right). I pick 5 from the middle."
    assert TRACE.render() == words


def test_a_right_trace_passes_everything() -> None:
    assert arithmetic(TRACE).verdict == "pass"
    readings = Evidence(rate_hz=50, readings=BoardReadings(first="4+1", second="4 + 1 = ?"))
    assert double_reading(TRACE, readings).verdict == "pass"
    assert picked_card(TRACE, pick("full", "empty", "full")).verdict == "pass"


@pytest.mark.parametrize(
    "wrong",
    [
        {"solution": "4+1=6"},
        {"solution": "4+2=6"},
        {"solution": None},
        {"board": "4+2"},
        {"pick_text": "7"},
        {"pick_text": "7", "pick_position": "right"},
        {"pick_position": "left"},
        {"cards": (CARDS[0], CARDS[2]), "pick_text": None, "pick_position": "unknown"},
    ],
)
def test_any_wrong_digit_or_side_fails_the_arithmetic(wrong: dict[str, Any]) -> None:
    assert arithmetic(changed(**wrong)).verdict == "fail"


def test_arithmetic_is_unknown_where_something_was_not_read() -> None:
    assert arithmetic(build_trace(None, CARDS)).verdict == "unknown"
    assert arithmetic(build_trace("4/0", CARDS)).verdict == "unknown"
    hidden = (CARDS[0], Card(text=UNREAD, position="middle"), CARDS[2])
    assert arithmetic(build_trace("4+1", hidden)).verdict == "unknown"
    placeless = tuple(card.model_copy(update={"position": "unknown"}) for card in CARDS)
    assert arithmetic(build_trace("4+1", placeless)).verdict == "unknown"


@pytest.mark.parametrize(
    ("first", "second", "board", "verdict"),
    [
        ("4+1", "4+7", "4+1", "fail"),
        ("4+1", "4+1", "4+7", "fail"),
        ("4+1", "4+1", None, "fail"),
        ("4+1", None, "4+1", "unknown"),
        (None, None, None, "unknown"),
        ("4x1", "4\u00d71=?", "4x1", "pass"),
    ],
)
def test_two_readings_must_agree_with_each_other_and_with_the_trace(
    first: str | None, second: str | None, board: str | None, verdict: str
) -> None:
    evidence = Evidence(rate_hz=50, readings=BoardReadings(first=first, second=second))
    assert double_reading(changed(board=board), evidence).verdict == verdict


@pytest.mark.parametrize(
    ("slots", "moved", "verdict"),
    [
        (("empty", "full", "full"), "3", "fail"),
        (("full", "full", "full"), None, "fail"),
        (("full", "empty", "full"), "7", "fail"),
        (("full", "empty", "full"), None, "pass"),
        (("hidden", "empty", "full"), None, "unknown"),
        (("full", "hidden", "full"), None, "unknown"),
        (("empty", "empty", "full"), None, "unknown"),
        (("empty", "full", "hidden"), None, "fail"),
    ],
)
def test_the_card_that_left_its_place_must_be_the_planned_one(
    slots: tuple[str, ...], moved: str | None, verdict: str
) -> None:
    assert picked_card(TRACE, pick(*slots, moved=moved)).verdict == verdict


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_swapped_side_fails_although_the_number_is_right(side: Position) -> None:
    assert picked_card(changed(pick_position=side), pick("full", "empty", "full")).verdict == "fail"


def test_a_pick_nobody_saw_is_unknown() -> None:
    assert picked_card(TRACE, Evidence(rate_hz=50)).verdict == "unknown"


def test_grasp_and_release_at_the_gripper_events_pass() -> None:
    assert gripper_events(segments(*PICK), EVENTS).verdict == "pass"
    nudged = (("reach", 0.0), ("grasp", 1.26), ("carry", 1.4), ("release", 2.94), ("retreat", 3.2))
    assert gripper_events(segments(*nudged), EVENTS).verdict == "pass"


@pytest.mark.parametrize(
    "parts",
    [
        (("reach", 0.0), ("grasp", 1.6), ("carry", 1.8), ("release", 3.0), ("retreat", 3.2)),
        (("reach", 0.0), ("grasp", 1.2), ("carry", 1.4), ("release", 2.0), ("retreat", 3.2)),
        (("reach", 0.0), ("grasp", 1.2), ("carry", 1.4), ("retreat", 3.2)),
        (("reach", 0.0), ("release", 1.2), ("carry", 1.4), ("grasp", 3.0), ("retreat", 3.2)),
        (("reach", 0.0), ("retreat", 3.2)),
    ],
)
def test_a_shifted_missing_or_swapped_boundary_fails(parts: tuple[tuple[str, float], ...]) -> None:
    assert gripper_events(segments(*parts), EVENTS).verdict == "fail"


def test_a_misplaced_grasp_is_marked_where_it_is_said_and_where_the_gripper_closed() -> None:
    late = (("reach", 0.0), ("grasp", 1.6), ("carry", 1.8), ("release", 3.0), ("retreat", 3.2))
    said, measured = gripper_events(segments(*late), EVENTS).marks
    assert (said.start_ns, said.number) == (1_600_000_000, "0.40 s off")
    assert measured.start_ns == 1_200_000_000
    assert [mark.start_ns for mark in gripper_events(segments(*PICK), EVENTS).marks] == [1_200_000_000, 3_000_000_000]


def test_segments_cut_at_measured_movements_prove_nothing_without_a_command() -> None:
    found = gripper_events(segments(*PICK), replace(EVENTS, commanded=None))
    assert (found.verdict, "no gripper command" in found.evidence) == ("unknown", True)


@pytest.mark.parametrize(
    ("commanded", "verdict"),
    [
        ((("close", 0.25), ("open", 2.05)), "pass"),  # as slow as the slowest hand that is allowed for
        ((("close", 1.3), ("open", 3.1)), "pass"),  # a turning point is found to within a few frames
        ((("close", 0.15), ("open", 2.95)), "fail"),  # 1.05 s is no answer
        ((("close", 1.4), ("open", 2.95)), "fail"),  # moved before it was told to
        ((("close", 0.9),), "fail"),
        ((("open", 2.95),), "fail"),
        ((("open", 0.9), ("close", 2.95)), "fail"),
        ((("close", 0.9), ("open", 1.5), ("close", 2.0), ("open", 2.95)), "fail"),  # told twice, moved once
        ((("close", 0.9), ("open", 2.95), ("close", 4.0)), "pass"),  # a hand that goes back to rest
        ((), "fail"),
    ],
)
def test_every_grasp_and_release_answers_a_command_of_its_own(
    commanded: tuple[tuple[str, float], ...], verdict: str
) -> None:
    assert gripper_events(segments(*PICK), replace(EVENTS, commanded=told(*commanded))).verdict == verdict


def test_the_other_hand_s_command_does_not_count() -> None:
    other = replace(EVENTS, commanded=told(("close", 0.9), ("open", 2.95), who="left gripper"))
    assert gripper_events(segments(*PICK), other).verdict == "fail"


def test_two_readings_of_one_frame_are_not_two_readings() -> None:
    readings = BoardReadings(first="4+1", second="4+1")
    one_frame = Evidence(rate_hz=50, readings=readings, board_frames=(7, 7))
    found = double_reading(TRACE, one_frame)
    assert (found.verdict, "frame 7" in found.evidence) == ("unknown", True)
    assert double_reading(TRACE, replace(one_frame, board_frames=(7, 90))).verdict == "pass"
    differ = replace(one_frame, readings=BoardReadings(first="4+1", second="4+7"))
    assert double_reading(TRACE, differ).verdict == "fail"


def test_the_wrong_hand_fails() -> None:
    assert gripper_events(segments(*PICK, who="left gripper"), EVENTS).verdict == "fail"


def test_a_gap_between_segments_fails() -> None:
    whole = segments(*PICK).segments
    short = whole[0].model_copy(update={"end_ns": whole[0].end_ns - 1})
    assert gripper_events(SegmentList(segments=(short, *whole[1:])), EVENTS).verdict == "fail"


def test_without_end_effectors_gripper_events_are_unknown_and_without_events_nothing_may_be_claimed() -> None:
    assert gripper_events(segments(("unknown", 0.0)), Evidence(rate_hz=50)).verdict == "unknown"
    quiet = Evidence(rate_hz=50, events=(), commanded=())
    assert gripper_events(segments(("move", 0.0)), quiet).verdict == "pass"
    assert gripper_events(segments(*PICK), quiet).verdict == "fail"


def test_each_field_is_judged_by_its_own_verifiers_only() -> None:
    provenance = Provenance(backend="perception", model="m@1")
    trace = Proposal(
        episode_id="e", stamp_ns=0, field="trace", family="math-matching@1", payload=TRACE, provenance=provenance
    )
    cut = trace.model_copy(update={"field": "segments", "payload": segments(*PICK)})
    about_traces = [
        "arithmetic",
        "double_reading",
        "picked_card",
        "card_places",
        "read_numbers",
        "metadata",
        "no_future",
    ]
    assert [r.verifier for r in verify(trace, EVENTS, VERIFIERS)] == [*about_traces, "stamps"]
    about_segments = ["stamps", "gripper_events", "coverage", "vocabulary", "moves", "held_object"]
    assert [r.verifier for r in verify(cut, EVENTS, VERIFIERS)] == about_segments
