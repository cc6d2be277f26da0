"""What the small VLM practises on besides questions: sheets full of characters, sums, and pairs of things."""

import re

import numpy as np
import pytest

from dataengine.rendered import EASY, SPLITS, Split
from dataengine.rendered.equations import Equation, equations, split_of
from dataengine.rendered.keyed import keyed_rng
from dataengine.rendered.related import render_exercise
from dataengine.rendered.sheets import random_text, render_sheet
from dataengine.rendered.sums import draw_sum

KINDS = ("plus", "minus", "times", "two-digit", "brackets")

ANY_EQUATION = re.compile(r"\d\)*[-+x]\(*\d")


def test_a_sheet_is_a_pure_function_of_its_arguments() -> None:
    first, again = (render_sheet(split="train", seed=3, row=5) for _ in range(2))
    assert np.array_equal(first.picture, again.picture)
    assert first.glyphs == again.glyphs
    others = [render_sheet(split="train", seed=seed, row=row).picture for seed, row in ((4, 5), (3, 6))]
    assert not any(np.array_equal(first.picture, other) for other in others)


def test_every_character_of_a_sheet_stands_in_ink_where_it_says() -> None:
    """On plain sheets: around the middle of every character there is something darker than its paper."""
    sheets = [render_sheet(split="train", seed=1, row=row, difficulty=EASY) for row in range(20)]
    seen = [(sheet.picture, glyph) for sheet in sheets for glyph in sheet.glyphs]
    assert len(seen) > 20 * 15
    inked = []
    for picture, glyph in seen:
        x, y = round(glyph.x_px), round(glyph.y_px)
        inked.append(picture[max(0, y - 4) : y + 5, max(0, x - 4) : x + 5].min() < 140)
    assert np.mean(inked) > 0.9  # the hollow middle of a large 0 is paper


def test_no_sheet_shows_an_equation() -> None:
    rng = keyed_rng("texts")
    texts = [random_text(5, rng) for _ in range(2000)]
    assert not [text for text in texts if ANY_EQUATION.search(text)]
    assert {char for text in texts for char in text} == set("0123456789+-x()=?")


@pytest.mark.parametrize("split", SPLITS)
def test_sums_keep_to_their_split_and_are_right(split: Split) -> None:
    rng = keyed_rng("sums", split)
    drawn = [draw_sum(split=split, rng=rng) for _ in range(3000)]
    board = {equation for kind in ("plus", "minus", "times") for equation in equations(split, kind)}  # type: ignore[arg-type]
    assert board <= set(drawn)
    for equation in drawn:
        assert split_of(equation) == split
        assert equation.answer == eval(equation.text.replace("x", "*"))  # Python's own arithmetic, of our own digits
        assert 0 <= equation.answer <= 60
    assert sum(max(map(int, re.findall(r"\d+", equation.text))) > 20 for equation in drawn) > 350


def test_a_commuted_pair_is_one_equation_and_no_held_out_one_is_practised() -> None:
    rng = keyed_rng("pairs")
    practised = {draw_sum(split="train", rng=rng).text for _ in range(6000)}
    assert not practised & {one.text for kind in KINDS for one in equations("held-out", kind)}  # type: ignore[arg-type]
    assert split_of(Equation(left=3, operator="+", right=5)) == split_of(Equation(left=5, operator="+", right=3))


def test_each_pair_of_things_is_asked_about_both_ways_where_one_word_says_it() -> None:
    """The relations of one picture agree with each other, and with where the things are seen to lie."""
    opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    asked = 0
    for row in range(12):
        made = render_exercise(split="train", seed=3, row=row, skill="relation", most=20)
        seen = {thing.kind: (thing.x_px, thing.y_px) for thing in made.things}
        said = {}
        for question in made.questions:
            if question.skill == "relation":
                thing, relation, other = re.fullmatch(r"The (\w+) is (.+) the (\w+)\.", question.answer).groups()  # type: ignore[union-attr]
                said[thing, other] = relation
                dx, dy = (a - b for a, b in zip(seen[thing], seen[other], strict=True))
                assert {"left of": -dx, "right of": dx, "above": -dy, "below": dy}[relation] > 0
        assert {(b, a): opposite[relation] for (a, b), relation in said.items()} == said
        asked += len(said)
    assert asked == 24
