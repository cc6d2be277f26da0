"""Faults put into right annotations, each for the verifier that is there to find it; None where one does not apply."""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from annotators.arithmetic import worked_line
from annotators.evidence import Evidence
from annotators.verifiers import VerifierName
from schemas.annotations import AnyPayload, Card, Proposal, ReasoningTrace, Segment, SegmentList
from schemas.scenes import PlacementTrace, SceneNotes
from schemas.spans import NS_PER_S, frame_of_ns

type TraceFault = Callable[[ReasoningTrace, np.random.Generator], ReasoningTrace | None]
type SegmentFault = Callable[[SegmentList, np.random.Generator], SegmentList | None]
type PlacementFault = Callable[[PlacementTrace, np.random.Generator], PlacementTrace | None]
type SceneFault = Callable[[SceneNotes, np.random.Generator], SceneNotes | None]
type ProposalFault = Callable[[Proposal, Evidence, np.random.Generator], Proposal | None]

_WAYS = (("increases", "decreases"), ("forward", "back"), ("left", "right"), ("up", "down"))
_OTHER_WAY = {word: other for pair in _WAYS for word, other in (pair, pair[::-1])}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is done to an annotation, and who should notice."""

    name: str
    verifier: VerifierName
    trace: TraceFault | None = None
    segments: SegmentFault | None = None
    placement: PlacementFault | None = None
    scene: SceneFault | None = None
    proposal: ProposalFault | None = None  # of a trace: what it names beside its words

    def put_into(self, payload: AnyPayload, rng: np.random.Generator) -> AnyPayload | None:
        """The payload with this fault; None where it does not apply."""
        match payload:
            case ReasoningTrace():
                return self.trace(payload, rng) if self.trace else None
            case SegmentList():
                return self.segments(payload, rng) if self.segments else None
            case PlacementTrace():
                return self.placement(payload, rng) if self.placement else None
            case SceneNotes():
                return self.scene(payload, rng) if self.scene else None


def _other_digit(text: str, rng: np.random.Generator) -> str:
    places = [at for at, char in enumerate(text) if char.isdigit()]
    at = int(rng.choice(places))
    return text[:at] + str((int(text[at]) + int(rng.integers(1, 10))) % 10) + text[at + 1 :]


def wrong_result(trace: ReasoningTrace, rng: np.random.Generator) -> ReasoningTrace | None:
    """The board is right, what follows from it is not."""
    if not trace.solution:
        return None
    left, _, right = trace.solution.partition("=")
    return trace.model_copy(update={"solution": f"{left}={_other_digit(right, rng)}"})


def wrong_pick(trace: ReasoningTrace, rng: np.random.Generator) -> ReasoningTrace | None:
    """Another card is picked, number and place."""
    others = [card for card in trace.cards if card.position != trace.pick_position and card.text != trace.pick_text]
    if not others or trace.pick_text is None:
        return None
    card = others[int(rng.integers(len(others)))]
    return trace.model_copy(update={"pick_text": card.text, "pick_position": card.position})


def misread_board(trace: ReasoningTrace, rng: np.random.Generator) -> ReasoningTrace | None:
    """A wrong digit on the board, and everything after it in keeping with it: arithmetic alone can not tell."""
    if not trace.board:
        return None
    board = _other_digit(trace.board, rng)
    return trace.model_copy(update={"board": board, "solution": worked_line(board)})


def swapped_sides(trace: ReasoningTrace, rng: np.random.Generator) -> ReasoningTrace | None:
    """The picked number is said to lie where another card lies, and the other way round."""
    places = [at for at, card in enumerate(trace.cards) if card.position != trace.pick_position]
    picked = [at for at, card in enumerate(trace.cards) if card.position == trace.pick_position]
    if not picked or not places:
        return None
    one, other = picked[0], int(rng.choice(places))
    cards = list(trace.cards)
    cards[one], cards[other] = (
        cards[one].model_copy(update={"text": cards[other].text}),
        cards[other].model_copy(update={"text": cards[one].text}),
    )
    return trace.model_copy(update={"cards": tuple(cards), "pick_position": cards[other].position})


def invented_number(trace: ReasoningTrace, rng: np.random.Generator) -> ReasoningTrace | None:
    """A card, or a result, with a number that stands nowhere and follows from nothing."""
    shown = re.findall(r"[0-9]+", trace.render())
    number = next(str(one) for one in rng.permutation(np.arange(10, 100)) if str(one) not in shown)
    if trace.solution and rng.random() < 0.5:
        return trace.model_copy(update={"solution": f"{trace.solution.partition('=')[0]}={number}"})
    return trace.model_copy(update={"cards": (*trace.cards, Card(text=number, position="unknown"))})


def _moved_picture(proposal: Proposal, name: str, frame: int) -> Proposal | None:
    picture = proposal.images.get(name)
    if not isinstance(picture, dict):
        return None
    return proposal.model_copy(update={"images": {**proposal.images, name: {**picture, "frame": frame}}})


def future_leak(proposal: Proposal, evidence: Evidence, rng: np.random.Generator) -> Proposal | None:
    """A picture that words come from is of after the first grasp."""
    closes = [event.stamp_ns for event in evidence.events or () if event.event == "close"]
    if not closes or evidence.stamps_ns is None:
        return None
    first = frame_of_ns(closes[0], evidence.rate_hz) + 1
    last = frame_of_ns(int(evidence.stamps_ns[-1]), evidence.rate_hz)
    names = [name for name in proposal.images if name not in ("grasp", "after")]
    if first > last or not names:
        return None
    return _moved_picture(proposal, str(rng.choice(names)), int(rng.integers(first, last + 1)))


def missing_frame(proposal: Proposal, evidence: Evidence, rng: np.random.Generator) -> Proposal | None:
    """A picture that the episode does not have."""
    if evidence.stamps_ns is None or not proposal.images:
        return None
    beyond = frame_of_ns(int(evidence.stamps_ns[-1]), evidence.rate_hz) + int(rng.integers(1, 500))
    return _moved_picture(proposal, str(rng.choice(list(proposal.images))), beyond)


def wrong_box(trace: ReasoningTrace, rng: np.random.Generator) -> ReasoningTrace | None:
    """One card's box lies on another card, out of the picture, or is turned inside out."""
    boxed = [at for at, card in enumerate(trace.cards) if card.box_xyxy is not None]
    if len(boxed) < 2:
        return None
    one, other = (int(at) for at in rng.permutation(boxed)[:2])
    x0, y0, x1, y1 = trace.cards[one].box_xyxy or (0, 0, 0, 0)
    box = (trace.cards[other].box_xyxy, (x0 + 2000, y0, x1 + 2000, y1), (x1, y0, x0, y1))[int(rng.integers(3))]
    return _with_card(trace, one, trace.cards[one].model_copy(update={"box_xyxy": box}))


def doubled_place(trace: ReasoningTrace, rng: np.random.Generator) -> ReasoningTrace | None:
    """Two cards are said to lie in one place."""
    if len(trace.cards) < 2:
        return None
    one, other = (int(at) for at in rng.permutation(len(trace.cards))[:2])
    return _with_card(trace, one, trace.cards[one].model_copy(update={"position": trace.cards[other].position}))


def _with_card(trace: ReasoningTrace, at: int, card: Card) -> ReasoningTrace:
    return trace.model_copy(update={"cards": (*trace.cards[:at], card, *trace.cards[at + 1 :])})


def shifted_boundary(segments: SegmentList, rng: np.random.Generator) -> SegmentList | None:
    """A grasp or a release begins a second off; its neighbour gives way."""
    rows = list(segments.segments)
    places = [at for at, one in enumerate(rows) if at and one.label in ("grasp", "release")]
    if not places:
        return None
    at = int(rng.choice(places))
    shift_ns = NS_PER_S * (1 if rng.random() < 0.5 else -1)
    edge = rows[at].start_ns + shift_ns
    if not rows[at - 1].start_ns < edge < rows[at].end_ns:
        edge = rows[at].start_ns - shift_ns
        if not rows[at - 1].start_ns < edge < rows[at].end_ns:
            return None
    rows[at - 1] = rows[at - 1].model_copy(update={"end_ns": edge})
    rows[at] = rows[at].model_copy(update={"start_ns": edge})
    return segments.model_copy(update={"segments": tuple(rows)})


def merged_step(segments: SegmentList, rng: np.random.Generator) -> SegmentList | None:
    """A grasp or a release is swallowed by what comes before it."""
    rows = list(segments.segments)
    places = [at for at, one in enumerate(rows) if at and one.label in ("grasp", "release")]
    if not places:
        return None
    at = int(rng.choice(places))
    rows[at - 1] = rows[at - 1].model_copy(update={"end_ns": rows[at].end_ns})
    return segments.model_copy(update={"segments": (*rows[:at], *rows[at + 1 :])})


def dropped_step(segments: SegmentList, rng: np.random.Generator) -> SegmentList | None:
    """One segment is missing and leaves a hole, at an end or within."""
    rows = list(segments.segments)
    if len(rows) < 2:
        return None
    at = int(rng.integers(len(rows)))
    return segments.model_copy(update={"segments": (*rows[:at], *rows[at + 1 :])})


def between_rows(segments: SegmentList, rng: np.random.Generator) -> SegmentList | None:
    """A boundary at a time at which no row was recorded."""
    rows = list(segments.segments)
    if len(rows) < 2:
        return None
    at = int(rng.integers(1, len(rows)))
    edge = rows[at].start_ns + int(rng.integers(1, 5)) * 1_000_000
    rows[at - 1] = rows[at - 1].model_copy(update={"end_ns": edge})
    rows[at] = rows[at].model_copy(update={"start_ns": edge})
    return segments.model_copy(update={"segments": tuple(rows)})


def event_between_rows(segments: SegmentList, rng: np.random.Generator) -> SegmentList | None:
    """A gripper event at a time at which no row was recorded."""
    if not segments.events:
        return None
    at = int(rng.integers(len(segments.events)))
    late = segments.events[at].model_copy(
        update={"stamp_ns": segments.events[at].stamp_ns + int(rng.integers(1, 5)) * 1_000_000}
    )
    return segments.model_copy(update={"events": (*segments.events[:at], late, *segments.events[at + 1 :])})


def other_thing(segments: SegmentList, rng: np.random.Generator) -> SegmentList | None:
    """One grasp is said to be of something else than what a second look saw in the hand."""
    places = [at for at, one in enumerate(segments.segments) if one.phase == "grasp" and one.about]
    if not places:
        return None
    at = int(rng.choice(places))
    thing = str(rng.choice(["red cube", "bottle", "marker", "towel"]))
    return _with_segment(segments, at, segments.segments[at].model_copy(update={"label": f"grasp {thing}"}))


def invented_label(segments: SegmentList, rng: np.random.Generator) -> SegmentList | None:
    """A word that is no label, or a hand that the robot does not have."""
    at = int(rng.integers(len(segments.segments)))
    update = ({"label": "juggle"}, {"end_effector": "third_hand"})[int(rng.integers(2))]
    return _with_segment(segments, at, segments.segments[at].model_copy(update=update))


def reversed_move(segments: SegmentList, rng: np.random.Generator) -> SegmentList | None:
    """A joint is said to turn the other way, or a tool to go there."""
    places = [at for at, one in enumerate(segments.segments) if any(move != "unknown" for move in one.moves)]
    if not places:
        return None
    at = int(rng.choice(places))
    first, *rest = segments.segments[at].moves
    cut = first.find(" moves ") if " moves " in first else first.rfind(" ")  # its own name may have a side in it
    name, way = first[:cut], first[cut:]
    turned = name + re.sub(r"[a-z]+", lambda word: _OTHER_WAY.get(word[0], word[0]), way)
    return _with_segment(segments, at, segments.segments[at].model_copy(update={"moves": (turned, *rest)}))


def _with_segment(segments: SegmentList, at: int, one: Segment) -> SegmentList:
    rows = segments.segments
    return segments.model_copy(update={"segments": (*rows[:at], one, *rows[at + 1 :])})


FAULTS = (
    Fault(name="wrong result", verifier="arithmetic", trace=wrong_result),
    Fault(name="wrong card", verifier="arithmetic", trace=wrong_pick),
    Fault(name="wrong digit on the board", verifier="double_reading", trace=misread_board),
    Fault(name="swapped side", verifier="picked_card", trace=swapped_sides),
    Fault(name="hallucinated number", verifier="read_numbers", trace=invented_number),
    Fault(name="board unlike what was noted", verifier="metadata", trace=misread_board),
    Fault(name="future leak", verifier="no_future", proposal=future_leak),
    Fault(name="frame that is not there", verifier="stamps", proposal=missing_frame),
    Fault(name="event between rows", verifier="stamps", segments=event_between_rows),
    Fault(name="another thing held", verifier="held_object", segments=other_thing),
    Fault(name="wrong box", verifier="card_places", trace=wrong_box),
    Fault(name="one place twice", verifier="card_places", trace=doubled_place),
    Fault(name="boundary off by 1 s", verifier="gripper_events", segments=shifted_boundary),
    Fault(name="merged step", verifier="gripper_events", segments=merged_step),
    Fault(name="dropped step", verifier="coverage", segments=dropped_step),
    Fault(name="boundary between rows", verifier="coverage", segments=between_rows),
    Fault(name="invented label", verifier="vocabulary", segments=invented_label),
    Fault(name="reversed move", verifier="moves", segments=reversed_move),
)
