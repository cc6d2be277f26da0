"""What a proposal rests on: numbers that were read, pictures that exist, nothing that only the future shows."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from annotators.claims import held_object, metadata, no_future, read_numbers, stamps
from annotators.evidence import Evidence
from annotators.perception import BoardReadings
from annotators.structure import vocabulary
from annotators.traces import build_trace
from schemas.annotations import Card, GripperEvent, Proposal, Provenance, Segment, SegmentList
from schemas.spans import NS_PER_S, frame_stamps_ns

CARDS = tuple(Card(text=text, position=place) for text, place in zip("357", ("left", "middle", "right"), strict=True))  # type: ignore[arg-type]  # words of Position
TRACE = build_trace("4+1", CARDS)
EVIDENCE = Evidence(
    rate_hz=10,
    readings=BoardReadings(first="4+1=?", second="4+1"),
    cards_read=("3", "5", "7"),
    metadata={"task": "put the card with the answer on the plate", "session": "2026-11-27 run 2-1"},
    stamps_ns=frame_stamps_ns(50, 10),
    events=(GripperEvent(stamp_ns=2 * NS_PER_S, end_effector="hand", event="close"),),
    frame_size=(320, 240),
)


def proposed(**frames: Any) -> Proposal:
    images = {
        name: {"camera": "top", "frame": frame, "box_xyxy": box}
        for name, (frame, box) in {"board": (0, [10, 10, 100, 60]), "board_again": (15, None), **frames}.items()
    }
    return Proposal(
        episode_id="e",
        stamp_ns=0,
        field="trace",
        family="math-matching@1",
        payload=TRACE,
        provenance=Provenance(backend="perception", model="m"),
        images=images,
    )


def test_every_number_must_have_been_read_or_follow_from_what_was_read() -> None:
    assert read_numbers(TRACE, EVIDENCE)[:2] == ("pass", "9 numbers, all read or worked out.")
    more = TRACE.model_copy(update={"cards": (*CARDS, Card(text="42", position="unknown"))})
    assert read_numbers(more, EVIDENCE).evidence.startswith("42 was read nowhere")
    assert read_numbers(TRACE.model_copy(update={"solution": "4+1=6"}), EVIDENCE).verdict == "fail"
    nothing = replace(EVIDENCE, readings=None, cards_read=None)
    assert read_numbers(TRACE, nothing).verdict == "unknown"


def test_an_unknown_inside_a_sum_is_a_number_that_follows() -> None:
    trace = build_trace("3+?=7", (Card(text="4", position="unknown"),))
    evidence = replace(EVIDENCE, readings=BoardReadings(first="3+?=7", second="3+?=7"), cards_read=("4",))
    assert trace.solution == "3+4=7"
    assert read_numbers(trace, evidence).verdict == "pass"


@pytest.mark.parametrize(
    ("noted", "verdict"),
    [
        ({}, "pass"),
        ({"session": "2026-11-27", "scene": "3/4 of the table", "raw_name": "run_4-1.hdf5"}, "pass"),
        ({"task": "solve 4 + 1 = ? and pick the card"}, "pass"),
        ({"scene": "board: 4+1"}, "pass"),
        ({"task": "solve 4+2=? and pick the card"}, "fail"),
        ({"scene": "the board reads 4-1"}, "fail"),
    ],
)
def test_a_sum_that_was_noted_must_be_the_one_on_the_board(noted: dict[str, str], verdict: str) -> None:
    assert metadata(TRACE, replace(EVIDENCE, metadata=noted)).verdict == verdict


def test_a_noted_sum_without_a_reading_is_unknown_and_so_is_what_was_never_noted() -> None:
    unread = build_trace(None, CARDS)
    assert metadata(unread, replace(EVIDENCE, metadata={"scene": "board: 4+1"})).verdict == "unknown"
    assert metadata(TRACE, replace(EVIDENCE, metadata=None)).verdict == "unknown"


def test_a_picture_must_be_a_row_of_the_episode_and_a_box_must_lie_in_it() -> None:
    assert stamps(proposed(), EVIDENCE)[:2] == ("pass", "2 pictures and events, all on rows of the episode.")
    assert (
        stamps(proposed(board=(50, None)), EVIDENCE).evidence == "board is frame 50, which the episode does not have."
    )
    assert "leaves the picture" in stamps(proposed(board=(0, [10, 10, 400, 60])), EVIDENCE).evidence
    assert stamps(proposed(), replace(EVIDENCE, stamps_ns=None)).verdict == "unknown"
    trimmed = replace(EVIDENCE, stamps_ns=frame_stamps_ns(50, 10)[10:])
    assert stamps(proposed(), trimmed).verdict == "fail"


def test_an_event_between_two_rows_is_found() -> None:
    rows = frame_stamps_ns(50, 10)
    segments = SegmentList(segments=(Segment(start_ns=0, end_ns=5 * NS_PER_S, label="reach", end_effector="hand"),))
    cut = proposed().model_copy(update={"field": "segments", "payload": segments, "images": {}})
    assert stamps(cut, EVIDENCE).verdict == "pass"
    for at_ns, verdict in ((int(rows[7]), "pass"), (int(rows[7]) + 3, "fail")):
        event = GripperEvent(stamp_ns=at_ns, end_effector="hand", event="close")
        told = cut.model_copy(update={"payload": segments.model_copy(update={"events": (event,)})})
        assert stamps(told, EVIDENCE).verdict == verdict


def test_no_word_may_come_from_after_the_first_grasp() -> None:
    assert no_future(proposed(), EVIDENCE).verdict == "pass"
    assert no_future(proposed(after=(49, None), grasp=(30, None)), EVIDENCE).verdict == "pass"  # they only check
    leak = no_future(proposed(board_again=(49, None)), EVIDENCE)
    assert leak[:2] == ("fail", "board_again is of 4.90 s, after the first grasp at 2.00 s.")
    assert [(mark.image, mark.start_ns) for mark in leak.marks] == [
        (None, 2_000_000_000),
        ("board_again", 4_900_000_000),
    ]
    assert no_future(proposed(), replace(EVIDENCE, events=())).verdict == "unknown"
    assert no_future(proposed(), replace(EVIDENCE, events=None)).verdict == "unknown"
    assert no_future(proposed().model_copy(update={"images": {}}), EVIDENCE).verdict == "unknown"


def handled(*labels: str) -> SegmentList:
    return SegmentList(
        segments=tuple(
            Segment(start_ns=at * NS_PER_S, end_ns=(at + 1) * NS_PER_S, label=label, end_effector="hand")
            for at, label in enumerate(labels)
        )
    )


def test_what_a_hand_holds_must_be_what_a_second_look_saw() -> None:
    said = handled("reach yellow bottle", "grasp yellow bottle", "carry yellow bottle to box")
    look = np.int64(NS_PER_S).item()
    for seen, verdict in (("Bottle", "pass"), ("the yellow bottle", "pass"), ("red bottle", "fail"), (None, "unknown")):
        assert held_object(said, replace(EVIDENCE, held=((look, seen),))).verdict == verdict
    assert held_object(said, EVIDENCE).verdict == "unknown"
    assert held_object(handled("reach", "grasp", "carry"), EVIDENCE).verdict == "pass"
    assert held_object(handled("reach cup"), EVIDENCE).verdict == "unknown"


def test_a_label_is_a_phase_of_ours_and_plain_words() -> None:
    rig = replace(EVIDENCE, end_effectors=("hand",))
    assert vocabulary(handled("grasp", "grasp yellow bottle", "carry Becher to box 2"), rig).verdict == "pass"
    for label in ("juggle bottle", "grasp <b>cup</b>", "grasp cup; rm -rf", "grasp " + "very " * 20 + "big cup"):
        assert vocabulary(handled(label), rig).verdict == "fail"
