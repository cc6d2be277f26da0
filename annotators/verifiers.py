"""Programs that check proposals: pass, fail or unknown, with evidence a person can follow. Unknown is not pass.

Pure functions of a proposal's payload and the evidence; they never look at who proposed it. A change in what one of
them says is a new version of it.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

from annotators.arithmetic import answer, canonical, canonical_number, worked_line
from annotators.card_checks import CARD_SCENES
from annotators.claims import held_object, metadata, no_future, read_numbers, stamps
from annotators.evidence import Evidence
from annotators.open_checks import OPEN_SCENES
from annotators.placement_checks import (
    answers,
    boxes,
    instruction,
    moved_thing,
    nouns,
    numbers,
    placement_outcome,
    plan_order,
    relation,
)
from annotators.structure import card_mark, card_places, coverage, moves, span_mark, vocabulary
from annotators.traces import UNREAD
from schemas.annotations import (
    FieldName,
    GripperEvent,
    Mark,
    Proposal,
    ReasoningTrace,
    SegmentList,
    Verdict,
    VerifierResult,
)
from schemas.scenes import PlacementTrace, SceneNotes
from schemas.spans import NS_PER_S, frame_ns

VerifierName = Literal[
    "arithmetic",
    "double_reading",
    "picked_card",
    "card_places",
    "read_numbers",
    "metadata",
    "no_future",
    "stamps",
    "gripper_events",
    "coverage",
    "vocabulary",
    "moves",
    "instruction",
    "moved_thing",
    "relation",
    "boxes",
    "plan_order",
    "nouns",
    "numbers",
    "held_object",
    "outcome",
    "answers",
]
VERIFIERS: tuple[VerifierName, ...] = get_args(VerifierName)
VERSIONS: dict[VerifierName, int] = {
    "arithmetic": 3,
    "double_reading": 3,
    "picked_card": 3,
    "card_places": 2,
    "read_numbers": 1,
    "metadata": 1,
    "no_future": 2,
    "stamps": 2,
    "gripper_events": 4,
    "coverage": 2,
    "vocabulary": 3,
    "moves": 2,
    "instruction": 2,
    "moved_thing": 2,
    "relation": 2,
    "boxes": 3,
    "plan_order": 2,
    "nouns": 2,
    "numbers": 2,
    "held_object": 2,
    "outcome": 1,
    "answers": 2,
}
_ABOUT: dict[str, frozenset[VerifierName]] = {
    "segments": frozenset({"gripper_events", "coverage", "vocabulary", "moves", "stamps", "held_object"}),
    "trace": frozenset(
        {
            "arithmetic",
            "double_reading",
            "picked_card",
            "card_places",
            "read_numbers",
            "metadata",
            "no_future",
            "stamps",
        }
    ),
    "trace of things": frozenset({"instruction", "moved_thing", "relation", "boxes", "nouns", "no_future", "stamps"}),
    "scene": frozenset(
        {"instruction", "relation", "boxes", "plan_order", "nouns", "numbers", "stamps", "outcome", "answers"}
    ),
}
TOLERANCE_S = 0.10  # how far a segment may begin from the gripper event it names
# How far behind its command a gripper may begin to move, and how far ahead of it it may seem to. 219 events of 100
# recordings of a real humanoid's hand lag by 11 frames of 30 Hz at the median and by 29 or fewer in 208; 9 lag by more,
# 2 seem to lead by 13 and 14. 108 events of 50 simulated ALOHA demonstrations lag by -6 to 6 frames of 50 Hz: a turning
# point is found to within a few frames.
LAG_S = 1.0
LEAD_S = 0.15


def verify(proposal: Proposal, evidence: Evidence, names: Sequence[VerifierName]) -> tuple[VerifierResult, ...]:
    """Run those of `names` that have something to say about this kind of payload."""
    payload = proposal.payload
    results = []
    for name in names:
        match name, payload:
            case "arithmetic", ReasoningTrace():
                results.append(arithmetic(payload))
            case "double_reading", ReasoningTrace():
                results.append(double_reading(payload, evidence))
            case "picked_card", ReasoningTrace():
                results.append(picked_card(payload, evidence))
            case "card_places", ReasoningTrace():
                results.append(_result(name, *card_places(payload, evidence)))
            case "read_numbers", ReasoningTrace():
                results.append(_result(name, *read_numbers(payload, evidence)))
            case "metadata", ReasoningTrace():
                results.append(_result(name, *metadata(payload, evidence)))
            case "no_future", ReasoningTrace() | PlacementTrace():
                results.append(_result(name, *no_future(proposal, evidence)))
            case "stamps", _:
                results.append(_result(name, *stamps(proposal, evidence)))
            case "gripper_events", SegmentList():
                results.append(gripper_events(payload, evidence))
            case "coverage", SegmentList():
                results.append(_result(name, *coverage(payload, evidence)))
            case "vocabulary", SegmentList():
                results.append(_result(name, *vocabulary(payload, evidence)))
            case "moves", SegmentList():
                results.append(_result(name, *moves(payload, evidence)))
            case _, SceneNotes() if evidence.table is not None and (check := CARD_SCENES.get(name)):
                results.append(_result(name, *check(payload, evidence)))
            case _, SceneNotes() if evidence.scene is not None and (check := OPEN_SCENES.get(name)):
                results.append(_result(name, *check(payload, evidence)))
            case "outcome", SceneNotes():
                results.append(_result(name, *placement_outcome(payload, evidence)))
            case "answers", SceneNotes():
                results.append(_result(name, *answers(payload, evidence)))
            case "instruction", PlacementTrace() | SceneNotes():
                results.append(_result(name, *instruction(payload, evidence)))
            case "moved_thing", PlacementTrace():
                results.append(_result(name, *moved_thing(payload, evidence)))
            case "relation", PlacementTrace() | SceneNotes():
                results.append(_result(name, *relation(payload, evidence)))
            case "boxes", PlacementTrace() | SceneNotes():
                results.append(_result(name, *boxes(payload, evidence)))
            case "plan_order", SceneNotes():
                results.append(_result(name, *plan_order(payload, evidence)))
            case "nouns", PlacementTrace() | SceneNotes():
                results.append(_result(name, *nouns(payload, evidence)))
            case "numbers", SceneNotes():
                results.append(_result(name, *numbers(payload, evidence)))
            case "held_object", SegmentList():
                results.append(_result(name, *held_object(payload, evidence)))
    return tuple(results)


def applicable(names: Sequence[VerifierName], field: FieldName, *, of_things: bool) -> frozenset[tuple[str, int]]:
    """(verifier, version) of those that speak about a field; `of_things`: its traces are about things, not cards."""
    about = _ABOUT["trace of things" if of_things and field == "trace" else field]
    return frozenset((name, VERSIONS[name]) for name in names if name in about)


def arithmetic(trace: ReasoningTrace) -> VerifierResult:
    """The worked line follows from the board, and the picked number is its result, on the card it is said to be on."""
    name: VerifierName = "arithmetic"
    line, result = worked_line(trace.board) if trace.board else None, answer(trace.board)
    if line is None or result is None:
        return _result(name, "unknown", f"the board ({trace.board or 'not read'}) gives no result to check.")
    if trace.solution != line:
        return _result(name, "fail", f"{trace.board} gives {line}, the trace says {trace.solution or 'nothing'}.")
    if trace.pick_text is None:
        if any(card.text == UNREAD for card in trace.cards) or not trace.cards:
            return _result(name, "unknown", f"{line}, but no card was picked and not every card was read.")
        return _result(name, "fail", f"{line}, but no card shows {result}: {_cards(trace)}.")
    if canonical_number(trace.pick_text) != result:
        return _result(name, "fail", f"{line}, but the trace picks {trace.pick_text}.")
    there = [card.text for card in trace.cards if card.position == trace.pick_position]
    if trace.pick_position == "unknown" or not there:
        return _result(name, "unknown", f"{line}; on which card {trace.pick_text} stands is not said.")
    if [canonical_number(text) for text in there] != [result]:
        marks = tuple(card_mark(trace.pick_position, text) for text in there)
        return _result(name, "fail", f"{line}, but the {trace.pick_position} card shows {', '.join(there)}.", marks)
    picked = card_mark(trace.pick_position, trace.pick_text)
    return _result(name, "pass", f"{line}; the {trace.pick_position} card shows {trace.pick_text}.", (picked,))


def double_reading(trace: ReasoningTrace, evidence: Evidence) -> VerifierResult:
    """Two readings of the board, blind to the cards and the answer, agree with each other and with the trace."""
    name: VerifierName = "double_reading"
    readings = evidence.readings
    first, second = (canonical(readings.first), canonical(readings.second)) if readings else (None, None)
    times: list[int | None] = [None, None]
    if evidence.board_frames:
        times = [frame_ns(frame, evidence.rate_hz) for frame in evidence.board_frames]
    marks = tuple(
        Mark(title=title, start_ns=at_ns, image=image, number=read)
        for title, at_ns, image, read in zip(
            ("board, first reading", "board, second reading"),
            times,
            ("board", "board_again"),
            (first or "not read", second or "not read"),
            strict=True,
        )
    )
    if first is None or second is None:
        return _result(name, "unknown", f"read as {first or 'nothing'} and as {second or 'nothing'}.", marks)
    if first != second:
        return _result(name, "fail", f"read once as {first}, once as {second}.", marks)
    if canonical(trace.board) != first:
        return _result(name, "fail", f"read twice as {first}, the trace says {trace.board or 'nothing'}.", marks)
    if evidence.board_frames and len(set(evidence.board_frames)) == 1:
        words = f"read twice as {first}, but both times in frame {evidence.board_frames[0]}: no other shows it."
        return _result(name, "unknown", words, marks[:1])
    return _result(name, "pass", f"read twice as {first}.", marks)


def picked_card(trace: ReasoningTrace, evidence: Evidence) -> VerifierResult:
    """The card that left its place in the video, at the grasp and for good, is the one the trace picks."""
    name: VerifierName = "picked_card"
    pick = evidence.pick
    if pick is None:
        return _result(name, "unknown", "the three card places can not be told apart in the video.")
    where = f"{_gone(pick.empty)} in frame {pick.frame}"
    at_ns = frame_ns(pick.frame, evidence.rate_hz)
    after = (Mark(title=_gone(pick.empty), start_ns=at_ns, image="after", number=canonical_number(pick.moved_text)),)
    if trace.pick_text is None or trace.pick_position == "unknown":
        return _result(name, "unknown", f"the trace picks no place; {where}.", after)
    slot = dict(zip(("left", "middle", "right"), pick.slots, strict=True))[trace.pick_position]
    if slot == "full":
        return _result(name, "fail", f"the {trace.pick_position} card still lies there; {where}.", after)
    carried = evidence.grasp
    if carried and dict(zip(("left", "middle", "right"), carried.slots, strict=True))[trace.pick_position] == "full":
        told = f"{_gone(carried.empty)} in frame {carried.frame}, after the grasp"
        carried_ns = frame_ns(carried.frame, evidence.rate_hz)
        during = Mark(title=_gone(carried.empty), start_ns=carried_ns, image="grasp")
        return _result(name, "fail", f"the {trace.pick_position} card still lies there; {told}.", (during,))
    if "hidden" in pick.slots:
        words = f"a card place is hidden in frame {pick.frame} and every other one looked at."
        return _result(name, "unknown", words, after)
    if len(pick.empty) > 1:
        return _result(name, "unknown", f"{where}: more than the picked card was moved.", after)
    shown = canonical_number(pick.moved_text)
    if shown is not None and shown != canonical_number(trace.pick_text):
        return _result(name, "fail", f"{where}, but the moved card shows {shown}, not {trace.pick_text}.", after)
    seen = f" and the moved card shows {shown}" if shown else ""
    return _result(name, "pass", f"{where}{seen}.", after)


def gripper_events(segments: SegmentList, evidence: Evidence) -> VerifierResult:
    """Grasps begin where a gripper closes and releases where it opens; order, and no gap or overlap in time.

    Segments are cut at measured movements, so those alone prove nothing: each must answer a command of its own, and
    no command may go unanswered. Where the episode holds no command that can be compared, nobody can tell.
    """
    name: VerifierName = "gripper_events"
    for before, after in pairwise(segments.segments):
        if before.end_ns != after.start_ns or before.start_ns >= before.end_ns:
            words = f"segments {before.label} and {after.label} leave a gap or overlap."
            return _result(name, "fail", words, (span_mark(before), span_mark(after)))
    if evidence.events is None:
        return _result(name, "unknown", "the rig declares no end effector.")
    expected = [(str(event.event), event.end_effector, event.stamp_ns) for event in evidence.events]
    named = {"grasp": "close", "release": "open"}
    said = [(named[one.phase], one.end_effector, one.start_ns) for one in segments.segments if one.phase in named]
    tolerance_ns = int(TOLERANCE_S * NS_PER_S)
    for event, end_effector, stamp_ns in said:
        nearest = [abs(at - stamp_ns) for what, who, at in expected if (what, who) == (event, end_effector)]
        if not nearest or min(nearest) > tolerance_ns:
            off = f"the nearest is {min(nearest) / NS_PER_S:.2f} s away" if nearest else "it never does"
            words = f"{end_effector} should {event} at {stamp_ns / NS_PER_S:.2f} s, where a segment begins; {off}."
            far = f"{min(nearest) / NS_PER_S:.2f} s off" if nearest else None
            claim = Mark(title=f"{end_effector} should {event}", start_ns=stamp_ns, number=far)
            really = min(
                (one for one in evidence.events if (one.event, one.end_effector) == (event, end_effector)),
                key=lambda one: abs(one.stamp_ns - stamp_ns),
                default=None,
            )
            return _result(name, "fail", words, (claim, *(_event_marks([really]) if really else ())))
    missing = Counter((what, who) for what, who, _ in expected) - Counter((what, who) for what, who, _ in said)
    hidden = sum(missing.values())
    if hidden and not _overlapped(evidence):
        (event, who), count = next(iter(missing.items()))
        same = [one for one in evidence.events if (one.event, one.end_effector) == (event, who)]
        return _result(name, "fail", f"{who} has {count} {event} events that no segment names.", _event_marks(same))
    if evidence.commanded is None:
        words = "the episode holds no gripper command to compare with."
        return _result(name, "unknown", words, _event_marks(evidence.events))
    claimed = [(str(one.event), one.end_effector, one.stamp_ns) for one in segments.events] or said
    odd = _uncommanded(claimed, evidence.commanded, lenient=not segments.events and _overlapped(evidence))
    if odd is not None:
        return _result(name, "fail", odd[0], (odd[1],))
    if not expected:
        return _result(name, "pass", "no gripper event, no gripper command, and no grasp or release is claimed.")
    frames = round(TOLERANCE_S * evidence.rate_hz)
    return _result(
        name,
        "pass",
        f"{len(said)} grasps and releases begin within {frames} frames of a gripper event, and {len(claimed)} events "
        f"follow commands within {LAG_S:g} s.",
        _event_marks(evidence.events),
    )


def _event_marks(events: Sequence[GripperEvent]) -> tuple[Mark, ...]:
    verbs = {"close": "closes", "open": "opens"}
    return tuple(Mark(title=f"{one.end_effector} {verbs[one.event]}", start_ns=one.stamp_ns) for one in events)


def _uncommanded(
    claimed: Sequence[tuple[str, str, int]], commanded: Sequence[GripperEvent], *, lenient: bool
) -> tuple[str, Mark] | None:
    """Pair claims with commands one to one, in order; what is wrong and where, None where all is paired.

    A last closing that nothing answers is a hand going back to rest. `lenient`: commands without a claim are fine.
    """
    lag_ns, lead_ns = int(LAG_S * NS_PER_S), int(LEAD_S * NS_PER_S)
    left = sorted(commanded, key=lambda one: one.stamp_ns)
    for event, end_effector, stamp_ns in sorted(claimed, key=lambda claim: claim[2]):
        same = [one for one in left if (one.event, one.end_effector) == (event, end_effector)]
        answered = next((one for one in same if -lead_ns <= stamp_ns - one.stamp_ns <= lag_ns), None)
        if answered is None:
            verb = "closes" if event == "close" else "opens"
            words = f"{end_effector} {verb} at {stamp_ns / NS_PER_S:.2f} s"
            untold = Mark(title=f"{end_effector} {verb}, untold", start_ns=stamp_ns)
            return f"{words}, but was not told to in the {LAG_S:g} s before.", untold
        left.remove(answered)
    last = {one.end_effector: one for one in sorted(commanded, key=lambda one: one.stamp_ns)}
    left = [one for one in left if one.event != "close" or last[one.end_effector] is not one]
    if left and not lenient:
        one = left[0]
        told = f"{one.end_effector} was told to {one.event}"
        ignored = Mark(title=f"{told}, and did not", start_ns=one.stamp_ns)
        return f"{told} at {one.stamp_ns / NS_PER_S:.2f} s, and nothing followed.", ignored
    return None


def _overlapped(evidence: Evidence) -> bool:
    """Several end effectors act: in one timeline a grasp of one may stand inside a louder stretch of the other."""
    return len({event.end_effector for event in evidence.events or ()}) > 1


def _cards(trace: ReasoningTrace) -> str:
    return ", ".join(f"{card.text} ({card.position})" for card in trace.cards)


def _gone(empty: Sequence[str]) -> str:
    match len(empty):
        case 0:
            return "no card left its place"
        case 1:
            return f"the {empty[0]} card left its place"
        case _:
            return f"the cards {' and '.join(empty)} left their places"


def _result(name: VerifierName, verdict: Verdict, evidence: str, marks: tuple[Mark, ...] = ()) -> VerifierResult:
    return VerifierResult(verifier=name, version=VERSIONS[name], verdict=verdict, evidence=evidence, marks=marks)
