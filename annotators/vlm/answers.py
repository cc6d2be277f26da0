"""What questions may be answered with, and reading answers back.

A server may ignore the schema it was sent, so every answer is validated here, whatever the server promised.
"""

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from annotators.calls import RawAnswer
from annotators.traces import MOST_CARDS
from schemas.annotations import Position
from schemas.chat import chat_marker
from schemas.errors import BackendError
from schemas.records import sha256_of
from schemas.scenes import Outcome

_FENCED = re.compile(r"\A\s*```(?:json)?\s*\n(.*?)\n\s*```\s*\Z", re.DOTALL)
_MOST_SEGMENTS = 200
_LONGEST_NAME = 60
_MOST_THINGS = 60
_MOST_STEPS = 60
_MOST_WORDINGS, _LONGEST_WORDING = 8, 400
Question = Literal[
    "board", "cards", "steps", "held", "things", "setting", "things_after", "ending", "wordings", "retelling"
]


def _plain(words: str) -> str:
    if marker := chat_marker(words):
        raise ValueError(f"it holds the chat marker {marker}")
    return words


Words = Annotated[str, AfterValidator(_plain)]
Noun = Annotated[str, Field(max_length=_LONGEST_NAME), AfterValidator(_plain)]


class BoardAnswer(BaseModel):
    """What is written on the board; null where it can not be read."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    writing: Words | None


class CardAnswer(BaseModel):
    """One card as read."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    text: Words | None
    position: Position


class CardsAnswer(BaseModel):
    """The cards from left to right."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    cards: tuple[CardAnswer, ...] = Field(max_length=MOST_CARDS)


class StepAnswer(BaseModel):
    """What one segment is about; null where the pictures do not show it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    number: int
    object: Noun | None
    place: Noun | None


class StepsAnswer(BaseModel):
    """All segments of one episode."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    segments: tuple[StepAnswer, ...] = Field(max_length=_MOST_SEGMENTS)


class HeldAnswer(BaseModel):
    """What a hand holds; null where nothing, or where it can not be seen."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    object: Noun | None


class ThingAnswer(BaseModel):
    """One thing: its noun, and its box (x0, y0, x1, y1) in pixels of the picture; null where it can not be told."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    noun: Annotated[str, Field(min_length=1, max_length=_LONGEST_NAME), AfterValidator(_plain)]
    box: Annotated[tuple[int, ...], Field(min_length=4, max_length=4)] | None


class ThingsAnswer(BaseModel):
    """Everything that lies on a table."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    things: tuple[ThingAnswer, ...] = Field(max_length=_MOST_THINGS)


class PlanStepAnswer(BaseModel):
    """One step of a plan: what the hand does, with what, and where to; null where the step has none."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    label: Literal["reach", "grasp", "carry", "release", "retreat", "move"]
    object: Noun | None
    place: Noun | None


class SettingAnswer(BaseModel):
    """What is there before a robot begins, and what it has to do."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    things: tuple[ThingAnswer, ...] = Field(max_length=_MOST_THINGS)
    plan: tuple[PlanStepAnswer, ...] = Field(max_length=_MOST_STEPS)


class EndingAnswer(BaseModel):
    """How an episode ended."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    outcome: Outcome


class WordingsAnswer(BaseModel):
    """Other wordings of one instruction."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    wordings: tuple[Annotated[str, Field(max_length=_LONGEST_WORDING), AfterValidator(_plain)], ...] = Field(
        max_length=_MOST_WORDINGS
    )


type Form = (
    type[BoardAnswer]
    | type[CardsAnswer]
    | type[StepsAnswer]
    | type[HeldAnswer]
    | type[ThingsAnswer]
    | type[SettingAnswer]
    | type[EndingAnswer]
    | type[WordingsAnswer]
)


def schema_of(question: Question) -> dict[str, Any]:
    """The JSON schema an answer is held to."""
    return form_of(question).model_json_schema()


def form_of(question: str) -> Form:
    """What the answer to a question is read as."""
    match question:
        case "board":
            return BoardAnswer
        case "cards":
            return CardsAnswer
        case "steps":
            return StepsAnswer
        case "held":
            return HeldAnswer
        case "things" | "things_after":
            return ThingsAnswer
        case "setting":
            return SettingAnswer
        case "ending":
            return EndingAnswer
        case "wordings" | "retelling":
            return WordingsAnswer
        case _:
            raise BackendError(f"'{question}' is no question. Ask one of {', '.join(get_args(Question))}.")


def schema_hash(*asked: Question) -> str:
    """One hash over the schemas of some questions."""
    return sha256_of([schema_of(question) for question in asked])


def parse[Answer: BaseModel](answer: RawAnswer, form: type[Answer]) -> Answer | None:
    """The answer in its form, also out of a code fence; None for anything cut off, blocked or not of that form."""
    if answer.outcome != "success":
        return None
    fenced = _FENCED.match(answer.text)
    try:
        return form.model_validate_json(fenced.group(1) if fenced else answer.text)
    except ValidationError:
        return None


def in_form(question: str, answer: RawAnswer) -> bool:
    """Whether the answer can be used."""
    return parse(answer, form_of(question)) is not None


def keeps_to_schema(question: str, text: str) -> bool:
    """Whether a server that holds answers to a schema can have said this: bare JSON, no fence, no prose."""
    try:
        form_of(question).model_validate_json(text)
    except ValidationError:
        return False
    return True
