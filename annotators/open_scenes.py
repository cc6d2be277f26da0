"""The scene of any manipulation: what a model sees in it, what programs can say about that, and what follows.

Nothing is known beforehand: no layout, no colours, no list of things. A model lists what is there and plans, in one
answer and from the first picture alone; what is there at the end, and how it ended, are questions of their own. Left
and right are the viewer's, who looks at the picture: no rig says how its camera looks at its robot. What only one look
says is asked nothing about.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from annotators.placements import (
    PlacementSeen,
    colour_questions,
    middle,
    moved_nouns,
    named,
    relation_after,
    relation_of,
    relation_questions,
    where_questions,
)
from annotators.things import ThingsView
from schemas.scenes import (
    Box,
    Outcome,
    PictureRef,
    PlanStep,
    QuestionAnswer,
    Relation,
    SceneNotes,
    SceneObject,
    SpatialRelation,
)

_SIDEWAYS = frozenset({"left of", "right of"})  # of any camera; what is nearer, or in something, boxes do not tell
_SAME_PLACE = 0.5  # of the smaller side of two boxes: their middles may be so far apart
_CAMERA_MOVED = 0.5  # of all pixels: an arm and its shadow change less
_VIEW = ThingsView(frame_of_reference="viewer")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OpenScene:
    """What was seen of one episode; `before` and its boxes are of `picture`, the first of the episode."""

    picture: PictureRef
    after_frame: int  # of the recording: the last of the episode
    touched: NDArray[np.bool_] | None = field(default=None, repr=False)  # changed when a hand first closed, halved
    ended: NDArray[np.bool_] | None = field(default=None, repr=False)  # changed from the first picture to the last
    before: tuple[SceneObject, ...] = ()  # from here on: what a model says
    after: tuple[SceneObject, ...] | None = None  # None where nobody was asked
    plan: tuple[PlanStep, ...] = ()
    endings: tuple[Outcome | None, ...] = ()  # one for each look that was asked for; None where it said nothing
    handled: tuple[str, ...] = ()  # what the grasps of the segments name, in their order

    @property
    def has_moving_camera(self) -> bool:
        """Whether so much of the picture changed before the first grasp that the camera itself must have moved."""
        return self.touched is not None and float(self.touched.mean()) > _CAMERA_MOVED

    @property
    def placement(self) -> PlacementSeen:
        """The same as verifiers of relations take it."""
        after = self.after or ()
        return PlacementSeen(
            view=_VIEW,
            picture=self.picture,
            before=self.before,
            after=after,
            after_frame=self.after_frame,
            moved=moved_nouns(self.before, after),
            touched=self.touched,
        )


def open_notes(task: str, seen: OpenScene) -> SceneNotes:
    """Everything that follows about the scene of an episode."""
    return SceneNotes(
        instruction=task,
        outcome=agreed_ending(seen.endings),
        objects=seen.before,
        picture=seen.picture,
        relations=open_relations(seen),
        plan=seen.plan,
        questions=open_questions(seen),
    )


def open_images(seen: OpenScene) -> dict[str, JsonValue]:
    """What a reviewer is shown: the whole picture before and after."""
    frames = {"before": seen.picture.frame, "after": seen.after_frame}
    return {name: {"camera": seen.picture.camera, "frame": frame, "box_xyxy": None} for name, frame in frames.items()}


def agreed_ending(endings: Sequence[Outcome | None]) -> Outcome:
    """What two looks or more say alike; unknown where they differ, or where only one was had."""
    said = set(endings)
    (first, *rest) = said or {None}
    return first if first is not None and not rest and len(endings) > 1 else "unknown"


def settled(seen: OpenScene) -> tuple[SceneObject, ...]:
    """Things of one noun each that a second look finds too: in their place, or elsewhere where a hand took them."""
    found = []
    for one in seen.before:
        other = named(seen.after or (), one.noun)
        if named(seen.before, one.noun) is None or other is None or one.box_xyxy is None or other.box_xyxy is None:
            continue
        if near(one.box_xyxy, other.box_xyxy) or one.noun in seen.handled:
            found.append(one)
    return tuple(found)


def near(one: Box, other: Box) -> bool:
    """Whether two boxes are those of one thing that did not move."""
    (x, y), (other_x, other_y) = middle(one), middle(other)
    side = min(one[2] - one[0], one[3] - one[1], other[2] - other[0], other[3] - other[1])
    return bool(np.hypot(x - other_x, y - other_y) <= _SAME_PLACE * side)


def open_relations(seen: OpenScene) -> tuple[SpatialRelation, ...]:
    """On which side of its place the plan's thing lies, before and after; nothing where boxes do not tell."""
    return tuple(
        SpatialRelation(subject=noun, relation=relation, reference=place, frame_of_reference="viewer", when=when)
        for noun, place in _pairs(seen)
        for when, relation in _sides(seen, noun, place)
        if relation in _SIDEWAYS
    )


def _pairs(seen: OpenScene) -> list[tuple[str, str]]:
    pairs = [(step.noun, step.reference) for step in seen.plan if step.noun and step.reference]
    return list(dict.fromkeys((noun, place) for noun, place in pairs if noun != place))


def _sides(seen: OpenScene, noun: str, place: str) -> Iterator[tuple[Literal["before", "after"], Relation]]:
    one, other = named(seen.before, noun), named(seen.before, place)
    if one is None or other is None or one.box_xyxy is None or other.box_xyxy is None:
        return
    yield "before", relation_of(one.box_xyxy, other.box_xyxy, reference_noun=place, is_turned=False)
    yield "after", relation_after(seen.placement, noun, place, is_turned=False)


def open_questions(seen: OpenScene) -> tuple[QuestionAnswer, ...]:
    """Questions about the picture that boxes of two looks answer; nothing is asked about what only one saw."""
    things = settled(seen)
    nouns = {one.noun for one in things}
    claims = [claim for claim in open_relations(seen) if {claim.subject, claim.reference} <= nouns]
    return (*where_questions(things), *colour_questions(things), *relation_questions(claims))
