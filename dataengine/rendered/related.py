"""Several questions about one picture: what a skill's picture shows besides, asked as the other skills ask it."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from dataengine.rendered import questions
from dataengine.rendered.equations import Equation, Split
from dataengine.rendered.items import FULL, Difficulty, Glyph, Skill
from dataengine.rendered.keyed import keyed_rng
from dataengine.rendered.looks import Look, looks_of
from dataengine.rendered.render import Drawn, draw_item
from dataengine.rendered.scenes import ASIDE_M, FAR_ACROSS_M, FAR_ALONG_M
from dataengine.rendered.table import DrawnTable
from dataengine.rendered.views import CloseUp, Colour, TableView, Thing, ThingKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked about a picture, the one right answer, and where in the picture its words are found."""

    skill: Skill
    question: str
    answer: str
    looks: tuple[Look, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ThingAt:
    """A coloured object that can be seen, and its middle in the picture."""

    kind: ThingKind
    colour: Colour
    x_px: float
    y_px: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CardAt:
    """A card and the middle of its label in the picture; no number where it is hidden."""

    number: int | None
    x_px: float
    y_px: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Exercise:
    """A picture and several questions about it; the first is the one that `render_item` asks."""

    picture: NDArray[np.uint8]
    glyphs: tuple[Glyph, ...]
    things: tuple[ThingAt, ...]
    cards: tuple[CardAt, ...]
    questions: tuple[Question, ...]


def render_exercise(
    *,
    split: Split,
    seed: int,
    row: int,
    skill: Skill,
    most: int,
    difficulty: Difficulty = FULL,
    most_cards: int | None = None,
    asks_places: bool = False,
    asks_things: bool = False,
) -> Exercise:
    """The picture of `render_item` with at most `most` questions: a pure function of its arguments.

    `asks_places`: half of the other questions are about which of three cards lies where, a step on the way to listing.
    `asks_things`: or about where an object lies, a step on the way to how two of them lie.
    """
    drawn = draw_item(split=split, seed=seed, row=row, skill=skill, difficulty=difficulty, most_cards=most_cards)
    item, rng = drawn.item, keyed_rng("related", split, seed, row, skill)
    asked = [Question(skill=item.skill, question=item.question, answer=item.answer)]
    others = [other for other in _others(drawn, rng) if (other.skill, other.answer) != (item.skill, item.answer)]
    places = list(_places(drawn)) if asks_places else []
    places += _thing_places(drawn) if asks_things else []
    asked += [places[int(place)] for place in rng.permutation(len(places))[: most // 2]]
    order = rng.permutation(len(others))[: most - len(asked)]
    return Exercise(
        picture=item.picture,
        glyphs=item.glyphs,
        things=tuple(_things_at(drawn)),
        cards=tuple(_cards_at(drawn)),
        questions=tuple(
            replace(every, looks=looks_of(every.question, every.answer, drawn))
            for every in (*asked, *(others[int(place)] for place in order))
        ),
    )


def _things_at(drawn: Drawn) -> Iterator[ThingAt]:
    view, table = drawn.plan.view, drawn.table
    if table is None or isinstance(view, CloseUp):
        return
    for thing, place_px in zip(view.things, table.thing_px, strict=True):
        if place_px is not None:
            yield ThingAt(kind=thing.kind, colour=thing.colour, x_px=place_px[0], y_px=place_px[1])


def _cards_at(drawn: Drawn) -> Iterator[CardAt]:
    view, table = drawn.plan.view, drawn.table
    if table is None or isinstance(view, CloseUp):
        return
    for card, (x_px, y_px), is_seen in zip(view.cards, table.card_px, table.card_seen, strict=True):
        yield CardAt(number=card.number if is_seen else None, x_px=x_px, y_px=y_px)


def _others(drawn: Drawn, rng: np.random.Generator) -> Iterator[Question]:
    """Everything else that can be seen and asked."""
    view = drawn.plan.view
    equation = None if view.board is None else view.board.equation
    match view:
        case CloseUp():
            if equation is not None:
                yield from _reading(equation, rng)
        case TableView():
            assert drawn.table is not None
            if equation is not None and drawn.table.board_seen:
                yield from _reading(equation, rng)
            yield from _cards(view, drawn.table, equation, rng)
            yield from _things(view, drawn.table, rng)
            if all(drawn.table.card_seen) and all(pose.holds is None for pose in view.arms):
                # a hand that hides a card may or may not hold it
                yield _ask("gripper", questions.held(None, None), rng)


def _places(drawn: Drawn) -> Iterator[Question]:
    """Which number lies where, of three cards in plain sight."""
    view, table = drawn.plan.view, drawn.table
    if table is None or isinstance(view, CloseUp) or len(view.cards) != len(questions.POSITIONS):
        return
    if not all(table.card_seen) or any(pose.holds is not None for pose in view.arms):
        return
    for position, card in zip(questions.POSITIONS, view.cards, strict=True):
        yield Question(
            skill="cards", question=f"Which number is on the {position} card?", answer=questions.placed(card.number)
        )
        yield Question(
            skill="cards",
            question=f"Is the card {card.number} on the left, in the middle or on the right?",
            answer=questions.placed(position),
        )


def _thing_places(drawn: Drawn) -> Iterator[Question]:
    """Which pixel each object lies on."""
    for thing in _things_at(drawn):
        yield Question(
            skill="relation",
            question=f"Where is the {thing.kind}? Give pixel coordinates.",
            answer=questions.pointed((thing.x_px, thing.y_px)),
        )


def _reading(equation: Equation, rng: np.random.Generator) -> Iterator[Question]:
    yield _ask("transcribe", questions.transcribed(equation), rng)
    yield _ask("solve", questions.solved(equation), rng)


def _cards(
    view: TableView, table: DrawnTable, equation: Equation | None, rng: np.random.Generator
) -> Iterator[Question]:
    for place, card in enumerate(view.cards):
        if table.card_seen[place]:
            yield _ask("point", questions.pointed(table.card_px[place]), rng, number=card.number)
    if not all(table.card_seen) or any(pose.holds is not None for pose in view.arms):
        return
    numbers = [card.number for card in view.cards]
    yield _ask("cards", questions.listed(numbers), rng)
    yield _ask("count", questions.counted(len(numbers)), rng)
    if equation is not None and table.board_seen and len(numbers) == 3 and equation.answer in numbers:
        yield _ask("choice", questions.chosen(equation, numbers), rng)
        yield _ask("trace", questions.traced(equation, numbers), rng)


def _things(view: TableView, table: DrawnTable, rng: np.random.Generator) -> Iterator[Question]:
    if not table.things_seen:
        return
    for thing in view.things:
        yield _ask("colour", f"The {thing.kind} is {thing.colour}.", rng, thing=thing.kind)
    for thing, other in permutations(view.things, 2):
        relation = _relation(thing, other)
        if relation is not None:
            answer = f"The {thing.kind} is {relation} the {other.kind}."
            yield _ask("relation", answer, rng, thing=thing.kind, other=other.kind)


def _relation(thing: Thing, other: Thing) -> str | None:
    """Where one lies, seen from the other; None where nobody would say it in one word."""
    dx_m, dy_m = thing.place[0] - other.place[0], thing.place[1] - other.place[1]
    if abs(dx_m) >= FAR_ACROSS_M and abs(dy_m) <= ASIDE_M:
        return "left of" if dx_m < 0 else "right of"
    if abs(dy_m) >= FAR_ALONG_M and abs(dx_m) <= ASIDE_M:
        return "above" if dy_m > 0 else "below"
    return None


def _ask(skill: Skill, answer: str, rng: np.random.Generator, **words: object) -> Question:
    return Question(skill=skill, question=questions.phrase(skill, rng, **words), answer=answer)
