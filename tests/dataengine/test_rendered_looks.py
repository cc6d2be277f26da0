"""Where the words of an answer are found: read from the picture's own facts, against what the answer says."""

import math
import re
from dataclasses import replace
from itertools import pairwise

import pytest

from dataengine.rendered import FULL, SKILLS, Skill, questions
from dataengine.rendered.equations import Equation
from dataengine.rendered.items import Glyph
from dataengine.rendered.looks import Look, looks_among, looks_of
from dataengine.rendered.related import Exercise, Question, render_exercise
from dataengine.rendered.render import draw_item
from dataengine.rendered.views import Board, CloseUp

ROWS = range(8)


def asked(skill: Skill, row: int) -> Exercise:
    return render_exercise(
        split="train",
        seed=5,
        row=row,
        skill=skill,
        most=9,
        asks_places=skill == "cards",
        asks_things=skill == "relation",
    )


def everything() -> list[tuple[Exercise, Question]]:
    return [(made, each) for skill in SKILLS for row in ROWS for made in [asked(skill, row)] for each in made.questions]


@pytest.fixture(scope="module")
def found() -> list[tuple[Exercise, Question]]:
    return everything()


def said(question: Question, look: Look) -> str:
    return question.answer[look.start : look.end]


def points(made: Exercise) -> dict[str, tuple[int, int]]:
    """Card number to the pixel that another answer about the same picture gives."""
    pointed = [
        each for each in made.questions if re.fullmatch(r"\(\d+, \d+\)", each.answer) and "card" in each.question
    ]
    return {
        re.findall(r"\d+", each.question)[0]: tuple(map(int, re.findall(r"\d+", each.answer)))  # type: ignore[misc]
        for each in pointed
    }


def test_each_character_of_the_board_is_looked_for_where_it_stands(found: list[tuple[Exercise, Question]]) -> None:
    checked = 0
    for made, each in found:
        if each.skill not in ("transcribe", "solve", "trace", "choice"):
            continue
        for look in each.looks:
            if look.end - look.start == 1 and look.place_px is not None:
                near = min(made.glyphs, key=lambda glyph: math.dist((glyph.x_px, glyph.y_px), look.place_px))  # type: ignore[arg-type]
                assert near.char == said(each, look)
                checked += 1
    assert checked > 200


def test_cards_are_looked_for_where_other_answers_point(found: list[tuple[Exercise, Question]]) -> None:
    checked: dict[str, int] = {}
    for made, each in found:
        where = points(made)
        for look in each.looks:
            words = said(each, look)
            if each.skill in ("cards", "trace") and (number := re.match(r"(\d+)( \(|[,.])", words)):
                key, card = "listed", number[1]
            elif each.skill in ("trace", "choice") and words in ("left", "middle", "right"):
                key, card = "picked", re.findall(r"I pick (\d+)", each.answer)[0]
            elif each.skill == "cards" and words in ("left.", "middle.", "right."):
                key, card = "placed", re.findall(r"\d+", each.question)[0]
            elif each.skill == "point" and look.place_px is not None:
                key, card = "pointed", re.findall(r"\d+", each.question)[0]
            else:
                continue
            if card in where:
                assert look.place_px == pytest.approx(where[card], abs=0.51), each
                checked[key] = checked.get(key, 0) + 1
    assert min(checked[key] for key in ("listed", "picked", "placed", "pointed")) > 2


def test_the_word_for_how_two_objects_lie_follows_from_the_two_looks(found: list[tuple[Exercise, Question]]) -> None:
    checked = set()
    for _, each in found:
        if each.skill != "relation" or each.answer.startswith("("):
            continue
        if not each.looks:
            continue  # an arm hides the middle of one
        one, other = sorted(each.looks, key=lambda look: look.other)
        assert (one.other, other.other) == (False, True)
        assert one.place_px is not None
        assert other.place_px is not None
        (x, y), (other_x, other_y) = one.place_px, other.place_px
        word = said(each, one)
        assert word == said(each, other)
        assert {"left of": x < other_x, "right of": x > other_x, "above": y < other_y, "below": y > other_y}[word]
        checked.add(word)
    assert checked == {"left of", "right of", "above", "below"}


def test_what_is_not_there_is_looked_for_nowhere(found: list[tuple[Exercise, Question]]) -> None:
    absent = [each for _, each in found if re.match(r"There (is|are) no (card|ball|cube|ring|triangle)", each.answer)]
    empty = [each for _, each in found if each.answer == "No gripper holds anything."]
    assert absent
    assert empty
    for each in (*absent, *empty):
        assert [(said(each, look), look.place_px) for look in each.looks] == [(each.answer, None)]


def test_looks_lie_inside_the_answer_and_do_not_overlap(found: list[tuple[Exercise, Question]]) -> None:
    for _, each in found:
        spans = sorted((look.start, look.end) for look in each.looks if not look.other)
        assert all(0 <= start < end <= len(each.answer) for start, end in spans)
        assert all(end <= start for (_, end), (start, _) in pairwise(spans))


def test_brackets_are_looked_at_where_they_are_begun_and_what_remains_is_not_read() -> None:
    inner = Equation(left=2, operator="-", right=1)
    whole = Equation(left=2, operator="-", right=inner)
    glyphs = tuple(Glyph(char=char, x_px=10.0 * place, y_px=50.0) for place, char in enumerate(whole.text))
    drawn = next(
        drawn
        for row in range(50)
        if (drawn := draw_item(split="train", seed=1, row=row, skill="solve", difficulty=FULL)).table is None
    )
    view = CloseUp(style=drawn.plan.view.style, board=Board(text=whole.text, equation=whole))
    drawn = replace(drawn, item=replace(drawn.item, glyphs=glyphs), plan=replace(drawn.plan, view=view))
    looked = looks_of("", questions.solved(whole), drawn)  # 2-1: 2,1 1,0. 2-1: 2,1 1,0. So 1.
    assert [(look.start, look.place_px) for look in looked] == [(0, (30.0, 50.0)), (1, (40.0, 50.0)), (2, (50.0, 50.0))]
    read = looks_of("", questions.transcribed(whole), drawn)
    assert [look.place_px for look in read] == [(10.0 * place, 50.0) for place in range(len(whole.text))]


def test_every_card_is_told_with_its_number_where_its_number_can_be_seen(
    found: list[tuple[Exercise, Question]],
) -> None:
    hidden = 0
    for made, each in found:
        where = points(made)
        told = {str(card.number): (card.x_px, card.y_px) for card in made.cards if card.number is not None}
        assert all(told[number] == pytest.approx(place, abs=0.51) for number, place in where.items())
        listed = re.fullmatch(r"Cards: (.*)\.", each.answer)
        if listed:
            assert [str(card.number) for card in made.cards] == re.findall(r"\d+", listed[1])
        hidden += any(card.number is None for card in made.cards)
    assert hidden


CARDS = ((12, (80.0, 180.0)), (5, (160.0, 175.0)), (None, (240.0, 185.0)))


@pytest.mark.parametrize(
    ("question", "answer", "found"),
    [
        ("Read the cards.", "Cards: 12 (left), 5 (middle), 7 (right).", ["12 (left),", "5 (middle),", "7 (right)."]),
        ("Pick the card.", "2+3: 2,3 3,2 4,1 5,0. I pick 5 from the middle.", ["middle"]),
        ("Point to the card 12 in pixels.", "(80, 180)", ["(80, 180)"]),
        ("Where is the card 4? Give pixel coordinates.", "There is no card 4.", ["There is no card 4."]),
        ("What do the grippers hold?", "The right gripper holds card 5.", ["The right gripper holds card 5."]),
        ("Which number is on the middle card?", "5.", ["5."]),
        (
            "",
            '{"cards": [{"text": "12", "position": "left"}, {"text": "5", "position": "middle"}, '
            '{"text": "7", "position": "right"}]}',
            ['12", "position": "left', '5", "position": "middle', '7", "position": "right'],
        ),
        ("How many cards lie on the table?", "There are 3 cards.", []),
        ("", '{"writing": "4+1=?"}', []),
    ],
)
def test_of_a_frame_or_a_crop_the_cards_alone_are_known(question: str, answer: str, found: list[str]) -> None:
    looks = looks_among(question, answer, CARDS)
    assert [answer[look.start : look.end] for look in looks] == found
    places = dict(CARDS)
    if "no card" in answer:
        assert [look.place_px for look in looks] == [None]
    elif len(looks) == 3:
        assert [look.place_px for look in looks] == [place for _, place in CARDS]
    else:
        assert all(look.place_px in (places[5], places[12]) for look in looks)
