"""Several questions about one picture agree with each other, and with the one that the picture was drawn for."""

import re

import numpy as np
import pytest

from dataengine.rendered import SKILLS, Skill, render_item
from dataengine.rendered.related import Exercise, render_exercise

ROWS = range(6)


def exercise(skill: Skill, row: int, most: int = 9) -> Exercise:
    return render_exercise(split="train", seed=3, row=row, skill=skill, most=most)


@pytest.mark.parametrize("skill", SKILLS)
def test_the_picture_and_the_first_question_are_those_of_the_item(skill: Skill) -> None:
    item = render_item(split="train", seed=3, row=1, skill=skill)
    made = exercise(skill, 1)
    assert np.array_equal(made.picture, item.picture)
    assert made.glyphs == item.glyphs
    first = made.questions[0]
    assert (first.skill, first.question, first.answer) == (skill, item.question, item.answer)


def test_the_same_arguments_give_the_same_questions_and_never_more_than_asked_for() -> None:
    assert exercise("trace", 2).questions == exercise("trace", 2).questions
    assert len(exercise("trace", 2, most=3).questions) == 3
    assert len(exercise("trace", 2, most=1).questions) == 1


@pytest.mark.parametrize("skill", ["trace", "choice", "cards", "point", "solve"])
def test_all_answers_about_one_picture_tell_one_story(skill: Skill) -> None:
    """Read from the words alone: what is solved is what was read, what is picked lies there and is the result."""
    num_solved = num_picked = 0
    for row in ROWS:
        said = {question.skill: question.answer for question in exercise(skill, row).questions}
        read = re.fullmatch(r"The board reads (.+)\.", said.get("transcribe", ""))
        solved = re.fullmatch(r"(.+) So (\d+)\.", said.get("solve", ""))
        if read and solved:
            begun = re.search(r"\((.+)\)", read[1]) or read  # what is in brackets comes first
            assert solved[1].startswith(f"{begun[1]}: ")
            assert eval(read[1].replace("x", "*")) == int(solved[2])
            num_solved += 1
        lying = re.findall(r"(\d+)(?: \((\w+)\))?[,.]", said.get("cards", ""))
        if count := re.search(r"\d+", said.get("count", "")):
            assert not lying or len(lying) == int(count[0])
        if picked := re.fullmatch(r"(.+,0\.) (I pick (\d+) from the (\w+)\.)", said.get("choice", "")):
            assert not lying or picked.group(3, 4) in lying
            assert not solved or picked.group(1, 3) == solved.groups()
            assert said.get("trace", picked[2]).endswith(picked[2])
            num_picked += 1
    assert num_solved >= {"trace": 3, "choice": 3, "solve": 3}.get(skill, 0)
    assert num_picked >= {"trace": 3, "choice": 3}.get(skill, 0)


def test_company_comes_from_other_skills_and_points_at_cards_that_lie_there() -> None:
    for row in ROWS:
        made = exercise("cards", row)
        assert [question.skill for question in made.questions].count("cards") == 1
        lying = set(re.findall(r"\d+", made.questions[0].answer))
        for question in made.questions:
            if question.skill == "point":
                [number] = re.findall(r"\d+", question.question)
                assert number in lying
                x_px, y_px = map(int, re.findall(r"\d+", question.answer))
                near = [g.char for g in made.glyphs if abs(g.x_px - x_px) < 16 and abs(g.y_px - y_px) < 12]
                assert set(number) <= set(near)


def test_places_are_asked_of_three_cards_and_fit_what_is_listed() -> None:
    """`Which number is on the left card?` and its reverse, answered as the list from left to right says."""
    num_asked = 0
    for row in ROWS:
        made = render_exercise(split="train", seed=3, row=row, skill="cards", most=9, most_cards=3, asks_places=True)
        listed = re.findall(r"(\d+) \((\w+)\)", made.questions[0].answer)
        lying = {position: number for number, position in listed}
        asked = [question for question in made.questions[1:] if question.skill == "cards"]
        assert bool(asked) == bool(lying)
        for question in asked:
            num_asked += 1
            if which := re.fullmatch(r"Which number is on the (\w+) card\?", question.question):
                assert question.answer == f"{lying[which[1]]}."
            else:
                [number] = re.findall(r"\d+", question.question)
                assert lying[question.answer.rstrip(".")] == number
    assert num_asked


def test_where_an_object_lies_is_asked_by_its_name_and_fits_the_picture() -> None:
    num_asked = 0
    for row in ROWS:
        made = render_exercise(split="train", seed=3, row=row, skill="relation", most=9, asks_things=True)
        lying = {thing.kind: (round(thing.x_px), round(thing.y_px)) for thing in made.things}
        for question in made.questions:
            if which := re.fullmatch(r"Where is the (\w+)\? Give pixel coordinates\.", question.question):
                num_asked += 1
                assert question.answer == "({}, {})".format(*lying[which[1]])
    assert num_asked >= len(ROWS)


def test_no_more_cards_lie_there_than_asked_for() -> None:
    counts = set()
    for row in range(12):
        made = render_exercise(split="train", seed=3, row=row, skill="cards", most=1, most_cards=2)
        counts.add(len(re.findall(r"\d+", made.questions[0].answer)))
    assert counts == {1, 2}
