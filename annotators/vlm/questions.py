"""The three questions about one math-matching episode, and what their answers say together.

The board is asked about twice, with two crops at two scales, and neither question knows of the cards or the answer: a
model that knows the answer transcribes what should be written. Where no board was located it is not asked about.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from annotators.calls import RawAnswer
from annotators.families import Family
from annotators.observe import Observation
from annotators.perception import BoardReadings
from annotators.traces import UNREAD
from annotators.vlm.answers import BoardAnswer, CardsAnswer, Question, parse, schema_of
from annotators.vlm.inventory import inventory_questions
from annotators.vlm.open_scene import open_questions_about
from annotators.vlm.protocol import ImagePart, Request, Speaker, TextPart, Turn
from annotators.vlm.rewording import wordings_question
from annotators.vlm.steps import step_questions
from schemas.annotations import Card

CROPS: dict[str, Question] = {"board_first": "board", "board_second": "board", "cards": "cards"}
CALLS_PER_EPISODE = len(CROPS)  # about a board and cards, at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a model said about one episode; None and UNREAD stand for what it did not say in the asked form."""

    readings: BoardReadings
    cards: tuple[Card, ...]
    num_invalid: int


def questions_about(family: Family, speaker: Speaker, seen: Observation) -> dict[str, Request]:
    """All that is asked about one episode, by what it is asked about."""
    task, placement, scene = seen.evidence.task, seen.evidence.placement, seen.evidence.scene
    asked = wordings_question(family, speaker, task)
    if "steps" in family.prompts:
        asked |= step_questions(family, speaker, seen.crops, seen.segments, seen.task)
    if scene is not None:
        asked |= open_questions_about(family, speaker, seen.crops, task, scene)
    if "things" in family.prompts and placement is not None:
        asked |= inventory_questions(family, speaker, seen.crops, task, placement)
    return asked | questions(family, speaker, seen.crops)


def questions(family: Family, speaker: Speaker, crops: Mapping[str, bytes]) -> dict[str, Request]:
    """One request per crop that there is, from PNG bytes."""
    return {
        crop: Request(
            speaker=speaker,
            turns=(
                Turn(role="system", parts=(TextPart(family.prompts[question]),)),
                Turn(role="user", parts=(ImagePart(crops[crop]),)),
            ),
            schema_name=question,
            schema=schema_of(question),
        )
        for crop, question in CROPS.items()
        if crop in crops and question in family.prompts
    }


def understand(answers: Mapping[str, RawAnswer], seen: tuple[Card, ...]) -> Said:
    """Join the answers about crops. Where geometry saw as many cards as the model, places and boxes are geometry's."""
    first = parse(answers["board_first"], BoardAnswer) if "board_first" in answers else None
    second = parse(answers["board_second"], BoardAnswer) if "board_second" in answers else None
    cards = parse(answers["cards"], CardsAnswer)
    told = cards.cards if cards else ()
    if seen and len(told) == len(seen):
        joined = tuple(
            card.model_copy(update={"text": one.text or UNREAD}) for card, one in zip(seen, told, strict=True)
        )
    else:
        joined = tuple(Card(text=one.text or UNREAD, position=one.position) for one in told) or seen
    return Said(
        readings=BoardReadings(first=first.writing if first else None, second=second.writing if second else None),
        cards=joined,
        num_invalid=sum(crop in CROPS for crop in answers)
        - sum(parsed is not None for parsed in (first, second, cards)),
    )
