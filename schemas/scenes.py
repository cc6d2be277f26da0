"""What is on a table, where it lies to what, what is to be done with it and what can be asked about it.

Boxes are pixels (x0, y0, x1, y1), half-open, of one stated picture. Relations hold in a declared frame of reference:
the robot's, which stands at the table and looks across it, or the viewer's, who looks at the picture. `None` and
"unknown" mean "not seen", which is an answer.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Relation = Literal["left of", "right of", "in front of", "behind", "on top of", "inside", "unknown"]
FrameOfReference = Literal["robot", "viewer"]
Outcome = Literal["success", "failure", "unknown"]
Box = tuple[int, int, int, int]
_FROZEN = ConfigDict(frozen=True, extra="forbid")
# How a relation is said between two things: "the red box is to the left of the blue bar".
RELATION_WORDS: dict[Relation, str] = {
    "left of": "to the left of",
    "right of": "to the right of",
    "in front of": "in front of",
    "behind": "behind",
    "on top of": "on top of",
    "inside": "inside",
}


class PictureRef(BaseModel):
    """Which picture boxes are given in; frames are counted from the recording's first."""

    model_config = _FROZEN
    camera: str
    frame: Annotated[int, Field(ge=0)]
    width: Annotated[int, Field(gt=0)]
    height: Annotated[int, Field(gt=0)]


class SceneObject(BaseModel):
    """One thing and the one noun it goes by, e.g. "red box"."""

    model_config = _FROZEN
    noun: Annotated[str, Field(min_length=1)]
    box_xyxy: Box | None = None

    def render(self) -> str:
        """`The red box is at [120, 80, 141, 101].`"""
        where = f"at {list(self.box_xyxy)}" if self.box_xyxy else "somewhere I do not see"
        return f"The {self.noun} is {where}."


class SpatialRelation(BaseModel):
    """How one thing lies to another before or after the robot acted."""

    model_config = _FROZEN
    subject: str
    relation: Relation
    reference: str
    frame_of_reference: FrameOfReference
    when: Literal["before", "after"]

    def render(self) -> str:
        """`Before, the red box is behind the blue bar.`"""
        words = RELATION_WORDS.get(self.relation, "nobody knows where to")
        return f"{self.when.capitalize()}, the {self.subject} is {words} the {self.reference}."


class PlanStep(BaseModel):
    """One step: a label of the segments' vocabulary, what it is done to, and where to."""

    model_config = _FROZEN
    label: str
    noun: str | None = None
    relation: Relation | None = None
    reference: str | None = None

    def render(self) -> str:
        """`Carry the red box to the left of the blue bar`, without a full stop."""
        words = [self.label.capitalize()]
        if self.noun is not None:
            words.append(f"{'for ' if self.label == 'reach' else ''}the {self.noun}")
        if self.relation in RELATION_WORDS and self.reference is not None:
            words.append(f"{RELATION_WORDS[self.relation]} the {self.reference}")
        elif self.reference is not None:  # a place that is named, and nothing about how it lies
            words.append(f"{'at' if self.label == 'release' else 'to'} the {self.reference}")
        return " ".join(words)


class RefusedWording(BaseModel):
    """Another wording of the instruction that a model gave and that changes a fact: kept, with the reason, not used."""

    model_config = _FROZEN
    words: str
    reason: str


class Retelling(BaseModel):
    """A model's other words for a reasoning trace, beside the words they were made from: they hold for no others."""

    model_config = _FROZEN
    trace: str
    words: tuple[str, ...]


class QuestionAnswer(BaseModel):
    """A question about the scene's picture, for co-training on images and text."""

    model_config = _FROZEN
    question: Annotated[str, Field(min_length=1)]
    answer: Annotated[str, Field(min_length=1)]


class PlacementTrace(BaseModel):
    """Structured reasoning of the toy-placement family; the text is rendered from it and can not disagree."""

    model_config = _FROZEN
    kind: Literal["toy-placement"] = "toy-placement"
    target: SceneObject | None  # what is to be moved
    relation: Relation  # where to, seen from the reference
    reference: SceneObject | None
    frame_of_reference: FrameOfReference
    picture: PictureRef | None = None  # of both boxes

    @model_validator(mode="after")
    def _boxes_have_a_picture(self) -> "PlacementTrace":
        boxed = [one for one in (self.target, self.reference) if one is not None and one.box_xyxy is not None]
        if boxed and self.picture is None:
            raise ValueError("a box needs the picture that it is given in")
        return self

    def render(self) -> str:
        """The trace as the model learns to say it: where both things are, then what is done."""
        parts = [one.render() for one in (self.target, self.reference) if one is not None]
        if self.target is None or self.reference is None or self.relation == "unknown":
            return " ".join([*parts, "What to put where can not be told."])
        goal = f"{RELATION_WORDS[self.relation]} the {self.reference.noun}"
        return " ".join([*parts, f"I put the {self.target.noun} {goal}."])


class SceneNotes(BaseModel):
    """An episode's scene beside its trace: inventory, relations, plan, outcome, other wordings, questions."""

    model_config = _FROZEN
    kind: Literal["scene"] = "scene"
    instruction: str
    paraphrases: tuple[str, ...] = ()
    # Who found the other wordings. Left out where nobody says, so that notes from before this field keep their hash.
    worded_by: Annotated[Literal["templates", "model"] | None, Field(exclude_if=lambda said: said is None)] = None
    retold: Annotated[Retelling | None, Field(exclude_if=lambda said: said is None)] = None
    refused: Annotated[tuple[RefusedWording, ...], Field(exclude_if=lambda rows: not rows)] = ()
    outcome: Outcome = "unknown"
    objects: tuple[SceneObject, ...] = ()  # one noun for each
    picture: PictureRef | None = None  # of all boxes, and what the questions are about
    relations: tuple[SpatialRelation, ...] = ()
    plan: tuple[PlanStep, ...] = ()
    questions: tuple[QuestionAnswer, ...] = ()

    @model_validator(mode="after")
    def _boxes_have_a_picture(self) -> "SceneNotes":
        if self.picture is None and (self.questions or any(one.box_xyxy is not None for one in self.objects)):
            raise ValueError("boxes and questions need the picture that they are about")
        return self

    def render(self) -> str:
        """What is there, what is planned, and how it ended."""
        there = ", ".join(f"a {one.noun}" for one in self.objects) or "nothing that was recognised"
        parts = [f"On the table: {there}."]
        parts += [one.render() for one in self.relations]
        if self.plan:
            parts.append(self.plan_text())
        parts.append(f"Outcome: {self.outcome}.")
        return " ".join(parts)

    def plan_text(self) -> str:
        """`1. Reach for the red box. 2. Grasp the red box. ...`"""
        return " ".join(f"{number}. {step.render()}." for number, step in enumerate(self.plan, 1))
