"""Verifiers of placements: pure functions like those of `annotators.verifiers`, which runs them.

What they compare with comes from other frames than the boxes they judge: the frame in which the hand closed, and one
after the release. The instruction is what the recording says, the steps done are what the joints say.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np

from annotators.evidence import Evidence
from annotators.placements import (
    PlacementSeen,
    middle,
    named,
    placement_ended,
    read_instruction,
    relation_after,
    relation_of,
    scene_questions,
)
from annotators.structure import Finding, box_words, counted, impossible, overlap
from annotators.wordings import changed_fact, changed_in_retelling
from schemas.annotations import Mark
from schemas.scenes import Box, PictureRef, PlacementTrace, Relation, SceneNotes, SceneObject, SpatialRelation
from schemas.spans import frame_ns

Placement = PlacementTrace | SceneNotes
_LEAST_AREA, _MOST_AREA = 0.0005, 0.25  # of the picture
_MOST_OVERLAP = 0.25  # of the smaller box, for two things that lie apart
_SAME_PLACE = 0.5  # of the smaller side of two boxes: their middles may be so far apart
_TOUCHED, _UNTOUCHED = 0.30, 0.05  # share of a box that changed when the hand closed
_NOT_SEEN = "nobody looked for things in the pictures."
_NUMBER = re.compile(r"\d+")
_BOX_TEXT = re.compile(r"\[(\d+), (\d+), (\d+), (\d+)\]")


def instruction(payload: Placement, evidence: Evidence) -> Finding:
    """The trace places what the recording's instruction says; other wordings of it say the same."""
    asked = read_instruction(evidence.task)
    if asked is None:
        return Finding("unknown", "the recording's instruction is none that is known.")
    if isinstance(payload, PlacementTrace):
        said = (
            payload.target.noun if payload.target else "nothing",
            payload.relation,
            payload.reference.noun if payload.reference else "nothing",
        )
        told = (asked.target, asked.relation, asked.reference)
        if said != told:
            return Finding("fail", f"asked was {' '.join(told)}, the trace says {' '.join(said)}.")
        return Finding("pass", f"as asked: {' '.join(told)}.")
    if retold := badly_retold(payload):
        return retold
    for words in (payload.instruction, *payload.paraphrases):
        if problem := changed_fact(evidence.task, words):
            return Finding("fail", f"'{words}' does not say what was asked for: {problem}.")
    return Finding("pass", f"{counted(len(payload.paraphrases), 'other wording')}, all with the same facts.")


def badly_retold(notes: SceneNotes) -> Finding | None:
    """What other words for the trace change in it; None where they tell the same, or there are none."""
    for words in notes.retold.words if notes.retold else ():
        if problem := changed_in_retelling(notes.retold.trace if notes.retold else "", words):
            return Finding("fail", f"'{words}' is not what the trace says: {problem}.")
    return None


def moved_thing(trace: PlacementTrace, evidence: Evidence) -> Finding:
    """What lies elsewhere after the release is what the trace moves."""
    seen = evidence.placement
    if seen is None:
        return Finding("unknown", _NOT_SEEN)
    if trace.target is None:
        return Finding("unknown", "the trace moves nothing.")
    where = f"between frames {seen.picture.frame} and {seen.after_frame}"
    marks = (
        _frame_mark("things before", seen.picture.frame, evidence, image="before"),
        _frame_mark(f"moved: {', '.join(seen.moved) or 'nothing'}", seen.after_frame, evidence, image="after"),
    )
    if not seen.moved:
        return Finding("unknown", f"no thing was seen to move {where}.", marks)
    if seen.moved != (trace.target.noun,):
        words = f"{' and '.join(seen.moved)} moved {where}, the trace moves {trace.target.noun}."
        return Finding("fail", words, marks)
    return Finding("pass", f"{trace.target.noun} moved {where}, and nothing else.", marks)


def _frame_mark(
    title: str, frame: int, evidence: Evidence, *, image: str | None = None, number: str | None = None
) -> Mark:
    return Mark(title=title, start_ns=frame_ns(frame, evidence.rate_hz), image=image, number=number)


def relation(payload: Placement, evidence: Evidence) -> Finding:
    """Where things lie to each other, computed again from boxes in the declared frame of reference."""
    seen = evidence.placement
    if seen is None:
        return Finding("unknown", _NOT_SEEN)
    claims = list(_claims(payload))
    if not claims:
        return Finding("unknown", "no relation is claimed.")
    doubt = ""
    for claim in claims:
        found = _found(claim, seen)
        words = f"{claim.when}, {claim.subject} {claim.relation} {claim.reference} ({claim.frame_of_reference})"
        if found == "unknown":
            doubt = doubt or f"{words}: the boxes do not tell."
        elif found != claim.relation:
            return Finding("fail", f"{words}: the boxes say {found}.")
    if doubt:
        return Finding("unknown", doubt)
    return Finding("pass", f"{counted(len(claims), 'relation')} as the boxes have them.")


def _claims(payload: Placement) -> Iterator[SpatialRelation]:
    if isinstance(payload, SceneNotes):
        yield from payload.relations
    elif payload.target and payload.reference and payload.relation != "unknown":
        yield SpatialRelation(
            subject=payload.target.noun,
            relation=payload.relation,
            reference=payload.reference.noun,
            frame_of_reference=payload.frame_of_reference,
            when="after",
        )


def _found(claim: SpatialRelation, seen: PlacementSeen) -> Relation:
    is_turned = seen.view.is_turned_for(claim.frame_of_reference)
    if claim.when == "after":
        return relation_after(seen, claim.subject, claim.reference, is_turned=is_turned)
    one, other = named(seen.before, claim.subject), named(seen.before, claim.reference)
    if one is None or other is None or one.box_xyxy is None or other.box_xyxy is None:
        return "unknown"
    return relation_of(one.box_xyxy, other.box_xyxy, reference_noun=other.noun, is_turned=is_turned)


def boxes(payload: Placement, evidence: Evidence) -> Finding:
    """Boxes lie in the picture, each in its own place, and where the thing is in other frames; the hand closed there.

    No rig of ours says how its camera looks at its robot, so where the hand is in a picture is taken from the picture:
    a box that nothing came near while the hand closed is not the box of what it took.
    """
    seen = evidence.placement
    things = _things(payload)
    boxed = [(one.noun, one.box_xyxy) for one in things if one.box_xyxy is not None]
    if not boxed or payload.picture is None:
        return Finding("unknown", "no thing has a box.")
    for noun, box in boxed:
        if problem := _problem(box, payload.picture):
            at = _frame_mark(f"the box of {noun}", payload.picture.frame, evidence, number=box_words(box))
            return Finding("fail", f"the box of {noun} {problem}: {box_words(box)}.", (at,))
    for (noun, box), (other_noun, other_box) in combinations(boxed, 2):
        if overlap(box, other_box) > _MOST_OVERLAP and not _is_in(noun, other_noun, payload):
            at = _frame_mark(f"{noun} and {other_noun}", payload.picture.frame, evidence, number=box_words(box))
            return Finding("fail", f"{noun} and {other_noun} are said to be in one place: {box_words(box)}.", (at,))
    if seen is None:
        return Finding("unknown", _NOT_SEEN)
    for noun, box in boxed:
        after = named(seen.after, noun)
        if noun not in seen.moved and after is not None and after.box_xyxy and not _near(box, after.box_xyxy):
            there = box_words(after.box_xyxy)
            return Finding(
                "fail",
                f"{noun} did not move and lies at {there} in frame {seen.after_frame}, not at {box_words(box)}.",
                (_frame_mark(f"{noun} lies here", seen.after_frame, evidence, image="after", number=there),),
            )
    for noun, box in boxed:
        other = named(seen.recognised, noun)
        if other is not None and other.box_xyxy and not _near(box, other.box_xyxy):
            told = f"programs find {noun} at {box_words(other.box_xyxy)} in the same picture"
            at = _frame_mark(f"{noun} is found here", seen.picture.frame, evidence, number=box_words(other.box_xyxy))
            return Finding("fail", f"{told}, not at {box_words(box)}.", (at,))
    if isinstance(payload, PlacementTrace) and (doubt := _grasped(payload, seen)) is not None:
        return doubt
    if len(boxed) < len(things):
        return Finding("unknown", f"{len(things) - len(boxed)} of {len(things)} things have no box.")
    return Finding("pass", f"{counted(len(boxed), 'box', 'boxes')}, each in a place of its own.")


def _things(payload: Placement) -> list[SceneObject]:
    if isinstance(payload, SceneNotes):
        return list(payload.objects)
    return [one for one in (payload.target, payload.reference) if one is not None]


def _problem(box: Box, picture: PictureRef) -> str | None:
    if problem := impossible(box, (picture.width, picture.height)):
        return problem
    share = (box[2] - box[0]) * (box[3] - box[1]) / (picture.width * picture.height)
    if share < _LEAST_AREA:
        return "is too small for a thing"
    return "is too large for a thing" if share > _MOST_AREA else None


def _is_in(noun: str, other_noun: str, payload: Placement) -> bool:
    """Whether one of two things is said to have been on or in the other from the start."""
    if isinstance(payload, PlacementTrace):
        return False
    return any(
        claim.when == "before"
        and claim.relation in ("on top of", "inside")
        and {claim.subject, claim.reference} == {noun, other_noun}
        for claim in payload.relations
    )


def _near(one: Box, other: Box) -> bool:
    (x, y), (other_x, other_y) = middle(one), middle(other)
    side = min(one[2] - one[0], one[3] - one[1], other[2] - other[0], other[3] - other[1])
    return bool(np.hypot(x - other_x, y - other_y) <= _SAME_PLACE * side)


def _grasped(trace: PlacementTrace, seen: PlacementSeen) -> Finding | None:
    """What the frame in which the hand closed says against the target's box; None where it agrees."""
    if trace.target is None or trace.target.box_xyxy is None:
        return None
    if seen.touched is None:
        return Finding("unknown", "no hand closed.")
    x0, y0, x1, y1 = (value // 2 for value in trace.target.box_xyxy)
    part = seen.touched[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)]
    share = float(part.mean()) if part.size else 0.0
    words = f"{share:.0%} of the box of {trace.target.noun} changed when the hand closed"
    if share < _UNTOUCHED:
        return Finding("fail", f"{words}: it closed elsewhere.")
    return None if share >= _TOUCHED else Finding("unknown", f"{words}: that may be a shadow.")


def plan_order(notes: SceneNotes, evidence: Evidence) -> Finding:
    """What was done is a subsequence of the plan."""
    if not notes.plan:
        return Finding("unknown", "there is no plan.")
    if evidence.executed is None:
        return Finding("unknown", "what was done is not known.")
    steps = iter(notes.plan)
    for number, label in enumerate(evidence.executed, 1):
        if not any(step.label == label for step in steps):
            done = ", ".join(evidence.executed)
            return Finding("fail", f"step {number} of what was done ({done}) has no place in the plan, in this order.")
    return Finding("pass", f"{counted(len(evidence.executed), 'step')} done, all planned in this order.")


def nouns(payload: Placement, evidence: Evidence) -> Finding:
    """One noun for each thing: no two share one, and whatever is spoken of is in the inventory under the same noun."""
    things = [one.noun for one in _things(payload)]
    if not things:
        return Finding("unknown", "no thing is named.")
    if doubled := next((noun for noun in things if things.count(noun) > 1), None):
        return Finding("fail", f"two things are called {doubled}.")
    if isinstance(payload, SceneNotes):
        spoken = [noun for claim in payload.relations for noun in (claim.subject, claim.reference)]
        spoken += [noun for step in payload.plan for noun in (step.noun, step.reference) if noun is not None]
        if strange := next((noun for noun in spoken if noun not in things), None):
            return Finding("fail", f"{strange} is spoken of, and the inventory has {', '.join(things)}.")
        return Finding("pass", f"{counted(len(things), 'thing')}, one noun each.")
    seen = evidence.placement
    if seen is None:
        return Finding("unknown", _NOT_SEEN)
    there = [one.noun for one in seen.before]
    if strange := next((noun for noun in things if noun not in there), None):
        return Finding("unknown", f"{strange} was not recognised; {', '.join(there) or 'nothing'} was.")
    return Finding("pass", f"{' and '.join(things)} are among the {len(there)} things recognised.")


def numbers(notes: SceneNotes, evidence: Evidence) -> Finding:
    """Every number in the words is a count of things, a box of a thing, or in the recording's instruction."""
    words = [*notes.paraphrases, *(step.render() for step in notes.plan)]
    words += [text for one in notes.questions for text in (one.question, one.answer)]
    known = {list_of(one.box_xyxy) for one in notes.objects if one.box_xyxy is not None}
    allowed = {str(len(notes.objects)), *_NUMBER.findall(evidence.task)}
    count = 0
    for text in words:
        for found in _BOX_TEXT.finditer(text):
            count += 4
            if found.group(0) not in known:
                return Finding("fail", f"'{text}' names {found.group(0)}, which is no box of a thing.")
        for number in _NUMBER.findall(_BOX_TEXT.sub("", text)):
            count += 1
            if number not in allowed:
                return Finding("fail", f"'{text}' says {number}, and nothing is {number}.")
    return Finding("pass", f"{counted(count, 'number')}, all accounted for.")


def answers(notes: SceneNotes, evidence: Evidence) -> Finding:
    """Every question about the picture is answered again from the boxes that were found."""
    seen = evidence.placement
    if seen is None:
        return Finding("unknown", _NOT_SEEN)
    if not notes.questions:
        return Finding("unknown", "nothing is asked.")
    right = {one.question: one.answer for one in scene_questions(read_instruction(evidence.task), seen)}
    for one in notes.questions:
        if one.question in right and one.answer != right[one.question]:
            told = f"'{one.question}' is answered {one.answer}"
            return Finding("fail", f"{told} The boxes say {right[one.question]}")
    if strange := [one.question for one in notes.questions if one.question not in right]:
        return Finding("unknown", f"no box answers '{strange[0]}'")
    return Finding("pass", f"{counted(len(notes.questions), 'question')}, answered the same again.")


def placement_outcome(notes: SceneNotes, evidence: Evidence) -> Finding:
    """How it ended follows from what moved and where it lies afterwards."""
    seen = evidence.placement
    if seen is None:
        return Finding("unknown", _NOT_SEEN)
    found = placement_ended(read_instruction(evidence.task), seen)
    moved = " and ".join(seen.moved) or "nothing"
    if "unknown" in (found, notes.outcome):
        return Finding("unknown", f"{moved} was seen to move; whether that is what was asked for can not be told.")
    if found != notes.outcome:
        return Finding("fail", f"the notes say {notes.outcome}; {moved} moved, which is a {found}.")
    return Finding("pass", f"{moved} moved, which is a {found}.")


def list_of(box: Sequence[int]) -> str:
    """A box as words have it."""
    return str(list(box))
