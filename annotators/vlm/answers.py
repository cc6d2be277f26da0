"""What the math-matching questions may be answered with, and reading answers back.

A server may ignore the schema it was sent, so every answer is validated here, whatever the server promised.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from annotators.calls import RawAnswer
from annotators.traces import MOST_CARDS
from schemas.annotations import Position
from schemas.chat import chat_marker
from schemas.errors import BackendError
from schemas.records import sha256_of

_FENCED = re.compile(r"\A\s*```(?:json)?\s*\n(.*?)\n\s*```\s*\Z", re.DOTALL)
Question = Literal["board", "cards"]


def _plain(words: str) -> str:
    if marker := chat_marker(words):
        raise ValueError(f"it holds the chat marker {marker}")
    return words


Words = Annotated[str, AfterValidator(_plain)]


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


def schema_of(question: Question) -> dict[str, Any]:
    """The JSON schema an answer is held to."""
    return form_of(question).model_json_schema()


def form_of(question: str) -> type[BoardAnswer] | type[CardsAnswer]:
    """What the answer to a question is read as."""
    match question:
        case "board":
            return BoardAnswer
        case "cards":
            return CardsAnswer
        case _:
            raise BackendError(f"'{question}' is no question. Ask 'board' or 'cards'.")


def schema_hash() -> str:
    """One hash over both schemas."""
    return sha256_of([schema_of("board"), schema_of("cards")])


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
