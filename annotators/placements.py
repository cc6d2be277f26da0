"""Putting one thing to, on or into another: what an instruction asks for, what boxes show, and what follows from both.

Words and geometry meet here and nowhere else: an instruction is read by one grammar, a relation is computed from two
boxes by one rule, and trace and notes are built from what these return. What neither says stays unknown.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from annotators.things import COLOURS, CONTAINERS, ThingsView
from schemas.annotations import SegmentList
from schemas.scenes import (
    RELATION_WORDS,
    Box,
    Outcome,
    PictureRef,
    PlacementTrace,
    PlanStep,
    QuestionAnswer,
    Relation,
    SceneNotes,
    SceneObject,
    SpatialRelation,
)

MODEL = "things@1+placements@2"  # what provenance calls these programs
RELATIONS: tuple[Relation, ...] = ("left of", "right of", "in front of", "behind", "on top of", "inside")
# What a relation is called in instructions, longest first: "on" is looked for when "on top of" was not found.
SAID: tuple[tuple[str, Relation], ...] = (
    ("to the left of", "left of"),
    ("on the left of", "left of"),
    ("to the right of", "right of"),
    ("on the right of", "right of"),
    ("left of", "left of"),
    ("right of", "right of"),
    ("in front of", "in front of"),
    ("on top of", "on top of"),
    ("behind", "behind"),
    ("inside", "inside"),
    ("onto", "on top of"),
    ("into", "inside"),
    ("on", "on top of"),
    ("in", "inside"),
)
_INSTRUCTION = re.compile(
    r"(?:please )?(?:put|place|move|set|pick up|pick|take|grab) the (?P<target>[a-z]+(?: [a-z]+)?)"
    r"(?:,? and (?:then )?(?:put|place|move|set) it)?(?: down)? (?P<where>"
    + "|".join(words for words, _ in SAID)
    + r") the (?P<reference>[a-z]+(?: [a-z]+)?)\.?"
)
_PARAPHRASES = (
    "Put the {target} {where} the {reference}.",
    "Take the {target} and place it {where} the {reference}.",
    "Move the {target} {where} the {reference}.",
    "Please set the {target} down {where} the {reference}.",
)
_MOVED = 0.6  # of its own size: a thing that was only nudged still lies where it lay
_STEEP = 0.75  # a shift as far sideways as this share of its way ahead is neither the one nor the other
_CLEAR_OF_NEXT = 0.04  # of the picture's width: whose middle is further left than every other's by less is not named


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What an instruction asks for."""

    target: str
    relation: Relation
    reference: str

    def words(self, template: str) -> str:
        """A template with the facts in it."""
        where = RELATION_WORDS[self.relation]
        return template.format(target=self.target, where=where, reference=self.reference)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlacementSeen:
    """What programs saw of one placement; boxes are those of `picture`, which is from before the grasp."""

    view: ThingsView
    picture: PictureRef
    before: tuple[SceneObject, ...]
    after: tuple[SceneObject, ...]  # in a frame after the last release; what a hand or a thing hides is not in it
    after_frame: int  # of the recording
    moved: tuple[str, ...]  # nouns of what lies elsewhere afterwards
    touched: NDArray[np.bool_] | None = field(default=None, repr=False)  # changed pixels when the hand closed, halved
    recognised: tuple[SceneObject, ...] = ()  # in `picture`, by programs, where `before` is what a model says


def read_instruction(words: str) -> Asked | None:
    """What an instruction asks for; None where it does not say it in a way that is known."""
    found = _INSTRUCTION.fullmatch(" ".join(words.lower().split()))
    if found is None or found["target"] == found["reference"]:
        return None
    relation = next(relation for said, relation in SAID if said == found["where"])
    return Asked(target=found["target"], relation=relation, reference=found["reference"])


def relation_of(target: Box, reference: Box, *, reference_noun: str, is_turned: bool) -> Relation:
    """How a thing lies to another, from their boxes in one camera's pixels; unknown where two words would fit.

    `is_turned`: the camera looks from the other side, so that left and near change places with right and far.
    """
    (x, y), (other_x, other_y) = middle(target), middle(reference)
    if reference[0] <= x < reference[2] and reference[1] <= y < reference[3]:
        return "inside" if reference_noun.rpartition(" ")[2] in CONTAINERS else "on top of"
    right, near = x - other_x, y - other_y  # picture rows run towards the viewer
    if is_turned:
        right, near = -right, -near
    if min(abs(right), abs(near)) > _STEEP * max(abs(right), abs(near)):
        return "unknown"
    if abs(right) > abs(near):
        return "right of" if right > 0 else "left of"
    return "in front of" if near > 0 else "behind"


def middle(box: Box) -> tuple[float, float]:
    """The centre of a box."""
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def named(objects: Sequence[SceneObject], noun: str) -> SceneObject | None:
    """The one thing that goes by a noun; None where there is none, or more than one."""
    found = [one for one in objects if one.noun == noun]
    return found[0] if len(found) == 1 else None


def moved_nouns(before: Sequence[SceneObject], after: Sequence[SceneObject]) -> tuple[str, ...]:
    """Nouns that one thing goes by in both pictures, and that lie elsewhere in the second."""
    found = []
    for thing in before:
        one, other = named(before, thing.noun), named(after, thing.noun)
        if one is None or other is None or one.box_xyxy is None or other.box_xyxy is None:
            continue
        (x, y), (now_x, now_y) = middle(one.box_xyxy), middle(other.box_xyxy)
        size = min(one.box_xyxy[2] - one.box_xyxy[0], one.box_xyxy[3] - one.box_xyxy[1])
        if np.hypot(now_x - x, now_y - y) > _MOVED * size:
            found.append(thing.noun)
    return tuple(found)


def placement_images(task: str, seen: PlacementSeen) -> dict[str, JsonValue]:
    """What a reviewer is shown: both things, and the whole picture before and after."""
    camera = seen.picture.camera
    images: dict[str, JsonValue] = {
        "before": {"camera": camera, "frame": seen.picture.frame, "box_xyxy": None},
        "after": {"camera": camera, "frame": seen.after_frame, "box_xyxy": None},
    }
    asked = read_instruction(task)
    for name, noun in (("target", asked.target), ("reference", asked.reference)) if asked else ():
        thing = named(seen.before, noun)
        if thing is not None and thing.box_xyxy is not None and _can_be_cut(thing.box_xyxy, seen.picture):
            images[name] = {"camera": camera, "frame": seen.picture.frame, "box_xyxy": list(thing.box_xyxy)}
    return images


def _can_be_cut(box: Box, picture: PictureRef) -> bool:
    """Whether a box holds anything of its picture; what a model says may not, and `boxes` says so."""
    return min(box[2], picture.width) > max(box[0], 0) and min(box[3], picture.height) > max(box[1], 0)


def relation_after(seen: PlacementSeen, target: str, reference: str, *, is_turned: bool) -> Relation:
    """How the target lies to the reference after the release. A reference that did not move may be hidden by then."""
    one = named(seen.after, target)
    other = named(seen.after, reference) if reference in seen.moved else named(seen.before, reference)
    if one is None or other is None or one.box_xyxy is None or other.box_xyxy is None:
        return "unknown"
    return relation_of(one.box_xyxy, other.box_xyxy, reference_noun=reference, is_turned=is_turned)


def placement_trace(task: str, seen: PlacementSeen) -> PlacementTrace:
    """What is to be put where, from the instruction, with boxes from the picture."""
    asked = read_instruction(task)
    frame = seen.view.frame_of_reference
    if asked is None:
        return PlacementTrace(target=None, relation="unknown", reference=None, frame_of_reference=frame)
    target, reference = (named(seen.before, noun) or SceneObject(noun=noun) for noun in (asked.target, asked.reference))
    return PlacementTrace(
        target=target, relation=asked.relation, reference=reference, frame_of_reference=frame, picture=seen.picture
    )


def scene_notes(task: str, seen: PlacementSeen, segments: SegmentList) -> SceneNotes:
    """Everything else that programs can tell about the scene."""
    asked = read_instruction(task)
    return SceneNotes(
        instruction=task,
        paraphrases=_paraphrases(task, asked),
        worded_by=None if asked is None else "templates",
        outcome=placement_ended(asked, seen),
        objects=seen.before,
        picture=seen.picture,
        relations=_relations(asked, seen),
        plan=_plan(asked, segments),
        questions=scene_questions(asked, seen),
    )


def _paraphrases(task: str, asked: Asked | None) -> tuple[str, ...]:
    if asked is None:
        return ()
    return tuple(words for template in _PARAPHRASES if (words := asked.words(template)) != task)


def placement_ended(asked: Asked | None, seen: PlacementSeen) -> Outcome:
    """How the episode ended: what was asked for, and nothing else, lies where it was to lie."""
    if asked is None:
        return "unknown"
    after = relation_after(seen, asked.target, asked.reference, is_turned=seen.view.is_turned)
    if after == "unknown" or not seen.moved:
        return "unknown"
    return "success" if after == asked.relation and seen.moved == (asked.target,) else "failure"


def _relations(asked: Asked | None, seen: PlacementSeen) -> tuple[SpatialRelation, ...]:
    if asked is None:
        return ()
    one, other = named(seen.before, asked.target), named(seen.before, asked.reference)
    before: Relation = "unknown"
    if one and other and one.box_xyxy and other.box_xyxy:
        before = relation_of(one.box_xyxy, other.box_xyxy, reference_noun=other.noun, is_turned=seen.view.is_turned)
    after = relation_after(seen, asked.target, asked.reference, is_turned=seen.view.is_turned)
    found: list[tuple[Literal["before", "after"], Relation]] = [("before", before), ("after", after)]
    return tuple(
        SpatialRelation(
            subject=asked.target,
            relation=relation,
            reference=asked.reference,
            frame_of_reference=seen.view.frame_of_reference,
            when=when,
        )
        for when, relation in found
        if relation != "unknown"
    )


def executed(segments: SegmentList) -> tuple[str, ...]:
    """What was done, in order: the labels of all segments in which the robot did something that has a name."""
    done = [part.label for part in segments.segments if part.label not in ("hold", "unknown")]
    return tuple(label for at, label in enumerate(done) if at == 0 or label != done[at - 1])


def _plan(asked: Asked | None, segments: SegmentList) -> tuple[PlanStep, ...]:
    """The steps that the joints show, each with what it is done to; a second try is a step again."""
    labels = executed(segments)
    last = max((at for at, label in enumerate(labels) if label == "carry"), default=None)
    steps = []
    for at, label in enumerate(labels):
        if asked is None or label in ("retreat", "move"):
            steps.append(PlanStep(label=label))
        elif at == last:
            steps.append(PlanStep(label=label, noun=asked.target, relation=asked.relation, reference=asked.reference))
        else:
            steps.append(PlanStep(label=label, noun=asked.target))
    return tuple(steps)


def scene_questions(asked: Asked | None, seen: PlacementSeen) -> tuple[QuestionAnswer, ...]:
    """Questions about the picture that boxes answer; nothing is asked about what was not recognised."""
    things = [one for one in seen.before if one.box_xyxy is not None]
    if not things:
        return ()
    found = [QuestionAnswer(question="How many things are on the table?", answer=f"{len(things)}.")]
    found += where_questions(things)
    sign = -1 if seen.view.is_turned else 1
    across = sorted(things, key=lambda one: sign * middle(one.box_xyxy or (0, 0, 0, 0))[0])
    if len(across) > 1:
        first, second = (middle(one.box_xyxy or (0, 0, 0, 0))[0] for one in across[:2])
        if abs(second - first) > _CLEAR_OF_NEXT * seen.picture.width:
            found.append(QuestionAnswer(question="What is furthest to the left?", answer=f"The {across[0].noun}."))
    found += colour_questions(things)
    found += relation_questions(_relations(asked, seen))
    return tuple(found)


def where_questions(things: Sequence[SceneObject]) -> list[QuestionAnswer]:
    """Where each thing is, in pixels."""
    return [
        QuestionAnswer(question=f"Where is the {one.noun}?", answer=f"At {list(one.box_xyxy or ())}.") for one in things
    ]


def colour_questions(things: Sequence[SceneObject]) -> list[QuestionAnswer]:
    """What colour a thing has whose noun says it, where no other thing is of its kind."""
    kinds = [one.noun.rpartition(" ")[2] for one in things]
    return [
        QuestionAnswer(question=f"What colour is the {kind}?", answer=f"{colour.capitalize()}.")
        for one, kind in zip(things, kinds, strict=True)
        if (colour := one.noun.rpartition(" ")[0]) in COLOURS and kinds.count(kind) == 1
    ]


def relation_questions(claims: Sequence[SpatialRelation]) -> list[QuestionAnswer]:
    """How things lie to each other in the picture, which is from before the robot acts."""
    found = []
    for claim in claims:
        if claim.when == "before":
            sees = "the robot sees it" if claim.frame_of_reference == "robot" else "it is seen in the picture"
            question = f"How does the {claim.subject} lie to the {claim.reference}, as {sees}?"
            answer = f"It is {RELATION_WORDS[claim.relation]} the {claim.reference}."
            found.append(QuestionAnswer(question=question, answer=answer))
    return found
