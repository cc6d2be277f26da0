"""Spans, words, moves and boxes: right ones pass, each way of being wrong fails, what nobody knows is unknown."""

from typing import Any

import numpy as np
import pytest

from annotators.evidence import Evidence
from annotators.moves import Moves
from annotators.structure import card_places, coverage, moves, vocabulary
from annotators.traces import build_trace
from schemas.annotations import Card, GripperEvent, ReasoningTrace, Segment, SegmentList
from schemas.rigs import Arm, EndEffector, Feature, Rig

RATE_HZ = 10
PERIOD_NS = 100_000_000
ROWS = np.arange(50, dtype=np.int64) * PERIOD_NS
RIG = Rig(
    name="one-arm",
    source="aloha_hdf5",
    robot_type="arm",
    rate_hz=RATE_HZ,
    features={"observation.state": Feature(key="qpos", names=("shoulder", "elbow", "gripper"), unit="rad")},
    cameras={},
    end_effectors=(
        EndEffector(name="hand", side="right", feature="observation.state", indices=(2,), open=1, closed=0),
    ),
    arms=(Arm(name="arm", side="right", feature="observation.state", indices=(0, 1)),),
)


def _columns() -> dict[str, Any]:
    """The shoulder turns up for 2 s, then the elbow down for 3 s."""
    state = np.zeros((50, 3), np.float32)
    state[:20, 0] = np.linspace(0, 1, 20)
    state[20:, 0] = 1
    state[20:, 1] = np.linspace(0, -1, 30)
    return {"observation.state": state}


EVIDENCE = Evidence(
    rate_hz=RATE_HZ,
    stamps_ns=ROWS,
    end_effectors=("hand",),
    moves_over=Moves.of(_columns(), RIG, ROWS),
    frame_size=(320, 240),
)


def _segments(*parts: tuple[str, int, int], who: str = "hand", **more: Any) -> SegmentList:
    return SegmentList(
        segments=tuple(
            Segment(start_ns=start * PERIOD_NS, end_ns=end * PERIOD_NS, label=label, end_effector=who, **more)
            for label, start, end in parts
        )
    )


WHOLE = _segments(("reach", 0, 20), ("retreat", 20, 50))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (_segments(("reach", 0, 20), ("retreat", 25, 50)), "leave a gap at 2.00 s"),
        (_segments(("reach", 0, 20), ("retreat", 15, 50)), "overlap at 2.00 s"),
        (_segments(("reach", 3, 20), ("retreat", 20, 50)), "begins at 0.00 s, its first segment at 0.30 s"),
        (_segments(("reach", 0, 20), ("retreat", 20, 45)), "ends at 5.00 s, its last segment at 4.50 s"),
        (_segments(("reach", 0, 20), ("hold", 20, 20), ("retreat", 20, 50)), "hold ends at 2.00 s, before"),
        (SegmentList(segments=()), "no segment"),
    ],
)
def test_a_hole_or_an_end_in_the_wrong_place_is_found(wrong: SegmentList, told: str) -> None:
    found = coverage(wrong, EVIDENCE)
    assert found.verdict == "fail"
    assert told in found.evidence


def test_a_boundary_where_no_row_is_is_found() -> None:
    first, last = WHOLE.segments
    edge = first.end_ns + 3_000_000
    cut = (first.model_copy(update={"end_ns": edge}), last.model_copy(update={"start_ns": edge}))
    assert coverage(SegmentList(segments=cut), EVIDENCE).evidence == f"a segment begins at {edge} ns, where no row is."
    assert coverage(WHOLE, EVIDENCE)[:2] == ("pass", "2 segments cover 50 rows without a gap.")
    assert coverage(WHOLE, Evidence(rate_hz=RATE_HZ)).verdict == "unknown"


def test_words_that_nobody_declared_are_found() -> None:
    assert vocabulary(WHOLE, EVIDENCE).verdict == "pass"
    assert "'juggle' at 0.00 s is no label" in vocabulary(_segments(("juggle", 0, 50)), EVIDENCE).evidence
    third = vocabulary(_segments(("reach", 0, 50), who="third hand"), EVIDENCE)
    assert (third.verdict, "'third hand' is no end effector" in third.evidence) == ("fail", True)
    event = GripperEvent(stamp_ns=0, end_effector="foot", event="close")
    assert vocabulary(WHOLE.model_copy(update={"events": (event,)}), EVIDENCE).verdict == "fail"
    assert vocabulary(WHOLE, Evidence(rate_hz=RATE_HZ)).verdict == "unknown"


def test_a_move_counts_only_over_its_own_span_and_in_its_own_direction() -> None:
    first, last = WHOLE.segments

    def said(up: str, down: str) -> SegmentList:
        rows = (first.model_copy(update={"moves": (up,)}), last.model_copy(update={"moves": (down,)}))
        return SegmentList(segments=rows)

    assert moves(said("shoulder increases", "elbow decreases"), EVIDENCE)[:2] == ("pass", "2 moves, all made.")
    wrong = moves(said("shoulder decreases", "elbow decreases"), EVIDENCE)
    assert wrong[:2] == ("fail", "reach at 0.00 s says shoulder decreases; the joints say shoulder increases.")
    assert [(mark.title, mark.start_ns) for mark in wrong.marks] == [("says shoulder decreases", 0)]
    assert moves(said("shoulder increases", "shoulder increases"), EVIDENCE).verdict == "fail"
    assert moves(WHOLE, EVIDENCE)[:2] == ("pass", "no move is claimed.")
    assert moves(said("shoulder increases", "elbow decreases"), Evidence(rate_hz=RATE_HZ)).verdict == "unknown"


def _trace(
    *boxes: tuple[int, int, int, int] | None, places: tuple[str, ...] = ("left", "middle", "right")
) -> ReasoningTrace:
    cards = tuple(
        Card.model_validate({"text": text, "position": place, "box_xyxy": box})
        for text, place, box in zip("357", places, boxes, strict=True)
    )
    return build_trace("4+1", cards)


APART = ((10, 100, 40, 130), (100, 100, 130, 130), (200, 100, 230, 130))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (_trace(APART[0], APART[1], (300, 100, 330, 130)), "leaves the picture"),
        (_trace(APART[0], (130, 100, 100, 130), APART[2]), "is empty"),
        (_trace(APART[0], (15, 102, 45, 132), APART[2]), "in one place"),
        (_trace(APART[1], APART[0], APART[2]), "card 3 is said to be left of card 5, but lies right of it"),
        (_trace(*APART, places=("left", "left", "right")), "two cards are said to be left"),
        (_trace(*APART, places=("middle", "left", "right")), "said to be middle, left, right"),
    ],
)
def test_cards_that_can_not_lie_as_they_are_said_to_are_found(wrong: ReasoningTrace, told: str) -> None:
    found = card_places(wrong, EVIDENCE)
    assert found.verdict == "fail"
    assert told in found.evidence


def test_cards_in_places_of_their_own_pass_and_cards_without_boxes_are_unknown() -> None:
    assert card_places(_trace(*APART), EVIDENCE)[:2] == ("pass", "3 cards in places of their own, left to right.")
    assert card_places(_trace(APART[0], None, APART[2]), EVIDENCE).verdict == "unknown"
    assert card_places(build_trace("4+1", ()), EVIDENCE).verdict == "unknown"
