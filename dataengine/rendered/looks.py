"""Where in the picture the words of an answer are found: what a person's finger would follow while answering.

A model is told these places while it learns, and nobody is afterwards.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dataengine.rendered.items import Glyph
from dataengine.rendered.questions import POSITIONS
from dataengine.rendered.render import Drawn
from dataengine.rendered.views import THINGS, CloseUp

type PlacePx = tuple[float, float]  # column and row of the upright picture
type CardPlace = tuple[int | None, PlacePx]  # what a card shows, where it can be seen, and where it lies

_NUMBER = re.compile(r"\d+")
_ABSENT = re.compile(
    rf"There is no (card \d+|{'|'.join(THINGS)})\.|There are no cards\.|No gripper holds anything\."
)  # not of boards: whether one is there is seen at once
_ABOUT_THING = re.compile(r"The (\w+) is \w+\.")
_ABOUT_TWO = re.compile(r"The (\w+) is (left of|right of|above|below) the (\w+)\.")
_POINT = re.compile(r"\(\d+, \d+\)")
_HELD = re.compile(r"The (left|right) gripper holds .*\.")
_HOLDS = re.compile(r"The (?:left|right) gripper holds card (\d+)\.")
_IN_JSON = re.compile(r'"text": "(\d+)", "position": "(\w+)"')
_PLACED = re.compile(r"(\d+|left|middle|right)\.")
_LISTED = re.compile(r"Cards: (.*?)\.")
_BRACKET = re.compile(r"\((.*)\)")
_PICKED = re.compile(r"I pick (\d+) from the (\w+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Characters `start` to `end` of an answer are about what lies at a place; None: about something that is not there.

    `other`: the second of two things that one word is about.
    """

    start: int
    end: int
    place_px: PlacePx | None
    other: bool = False


def looks_of(question: str, answer: str, drawn: Drawn) -> tuple[Look, ...]:
    """All that are known; none where words follow from other words, as a sum does from its terms."""
    return tuple(_looks(question, answer, drawn))


def looks_at(answer: str, place_px: PlacePx | None) -> Look:
    """A whole answer about one place."""
    return Look(start=0, end=len(answer), place_px=place_px)


def _looks(question: str, answer: str, drawn: Drawn) -> Iterator[Look]:
    if _ABSENT.fullmatch(answer):
        yield looks_at(answer, None)
        return
    yield from _equation(answer, drawn)
    view, table = drawn.plan.view, drawn.table
    if table is None or isinstance(view, CloseUp):
        return
    cards = tuple((card.number, place_px) for card, place_px in zip(view.cards, table.card_px, strict=True))
    things = {
        thing.kind: place_px
        for thing, place_px in zip(view.things, table.thing_px, strict=True)
        if place_px is not None
    }
    if thing := next((kind for kind in things if f"the {kind}?" in question and _POINT.fullmatch(answer)), None):
        yield looks_at(answer, things[thing])
    elif (two := _ABOUT_TWO.fullmatch(answer)) and two[1] in things and two[3] in things:
        yield Look(start=two.start(2), end=two.end(2), place_px=things[two[1]])
        yield Look(start=two.start(2), end=two.end(2), place_px=things[two[3]], other=True)
    elif (one := _ABOUT_THING.fullmatch(answer)) and one[1] in things:
        yield looks_at(answer, things[one[1]])
    elif _HELD.fullmatch(answer):
        yield from (looks_at(answer, table.card_px[pose.holds]) for pose in view.arms if pose.holds is not None)
    else:
        yield from _among(question, answer, cards)


def looks_among(question: str, answer: str, cards: Sequence[CardPlace]) -> tuple[Look, ...]:
    """Those that are known where only the cards are, from left to right, as of a simulator frame or a crop."""
    if _ABSENT.fullmatch(answer):
        return (looks_at(answer, None),)
    return tuple(_among(question, answer, cards))


def _among(question: str, answer: str, cards: Sequence[CardPlace]) -> Iterator[Look]:
    places = [place for _, place in cards]
    if _POINT.fullmatch(answer):
        asked = [place for number, place in cards if [str(number)] == _NUMBER.findall(question)]
        yield from (looks_at(answer, place) for place in asked[:1])
    elif (held := _HOLDS.fullmatch(answer)) is not None:
        yield from (looks_at(answer, place) for number, place in cards if str(number) == held[1])
    elif _PLACED.fullmatch(answer):
        yield from _placed(question, answer, cards)
    elif found := list(_IN_JSON.finditer(answer)):
        for card, place_px in zip(found, places, strict=True):
            yield Look(start=card.start(1), end=card.end(2), place_px=place_px)
    else:
        yield from _listed(answer, places)
        yield from _picked(answer, {number: place for number, place in cards if number is not None})


def _equation(answer: str, drawn: Drawn) -> Iterator[Look]:
    """Each character of the board's problem wherever the answer says it, and of its bracket where that is begun."""
    for text, glyphs in _board(drawn):
        for found in _found(text, answer):
            yield from _read(found, glyphs)
        for inner in _BRACKET.finditer(text):
            # What is left of `2-(2-1)` is written like its bracket, and is not read but worked out.
            for found in _found(inner[1], answer)[:1]:
                yield from _read(found, glyphs[inner.start(1) : inner.end(1)])


def _found(text: str, answer: str) -> list[re.Match[str]]:
    """Where an answer says a problem by itself, not as part of a longer one."""
    return list(re.finditer(rf"(?<![\d(]){re.escape(text)}(?![\d)])", answer))


def _read(found: re.Match[str], glyphs: Sequence[Glyph]) -> Iterator[Look]:
    for place, glyph in enumerate(glyphs, found.start()):
        yield Look(start=place, end=place + 1, place_px=(glyph.x_px, glyph.y_px))


def _board(drawn: Drawn) -> Iterator[tuple[str, Sequence[Glyph]]]:
    board = drawn.plan.view.board
    if board is None or board.equation is None:
        return
    text = board.equation.text
    glyphs = drawn.item.glyphs[: len(text)]  # a table's come board first; where an arm hides one, others follow
    if "".join(glyph.char for glyph in glyphs) == text and (drawn.table is None or drawn.table.board_seen):
        yield text, glyphs


def _listed(answer: str, places: Sequence[PlacePx]) -> Iterator[Look]:
    """A card's number, and `(left)` behind it where it has one."""
    found = _LISTED.search(answer)
    if found is None:
        return
    start = found.start(1)
    for words, place_px in zip(found[1].split(", "), places, strict=True):
        # With the mark behind the number: that it ends is read from the card as well.
        yield Look(start=start, end=start + len(words) + 1, place_px=place_px)
        start += len(words) + len(", ")


def _picked(answer: str, places: dict[int, PlacePx]) -> Iterator[Look]:
    found = _PICKED.search(answer)
    if found is not None and int(found[1]) in places:
        yield Look(start=found.start(2), end=found.end(2), place_px=places[int(found[1])])


def _placed(question: str, answer: str, cards: Sequence[CardPlace]) -> Iterator[Look]:
    """One word about one of three cards."""
    asked = [place for number, place in cards if str(number) in _NUMBER.findall(question)]
    asked += [
        place for position, (_, place) in zip(POSITIONS, cards, strict=False) if f"the {position} card" in question
    ]
    yield from (looks_at(answer, place) for place in asked[:1])
