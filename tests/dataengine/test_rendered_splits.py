"""What may be trained on and what is kept to ask about share no equation, no handwriting, no layout and no words."""

import itertools
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from dataengine.rendered import FULL
from dataengine.rendered.doodles import WORDS
from dataengine.rendered.equations import SPLITS, Equation, Kind, equations, split_of
from dataengine.rendered.keyed import keyed_rng
from dataengine.rendered.layouts import TEMPLATES, draw_places, split_of_layout
from dataengine.rendered.render import draw_item
from dataengine.rendered.styles import STYLES

KINDS: tuple[Kind, ...] = get_args(Kind)


def commuted(equation: Equation) -> Equation:
    """The same problem with the sides of every + and x exchanged."""
    left, right = (commuted(s) if isinstance(s, Equation) else s for s in (equation.left, equation.right))
    if equation.operator == "-":
        return Equation(left=left, operator="-", right=right)
    return Equation(left=right, operator=equation.operator, right=left)


@pytest.mark.parametrize("kind", KINDS)
def test_no_equation_nor_its_commuted_twin_is_in_both_splits(kind: Kind) -> None:
    train, kept = (set(equations(split, kind)) for split in SPLITS)
    assert len(train) >= 20
    assert len(kept) >= 20
    assert not kept & (train | {commuted(equation) for equation in train})


def test_a_bracketed_equation_stands_on_the_side_of_what_it_brackets() -> None:
    for split in SPLITS:
        singles = set(equations(split, "plus")) | set(equations(split, "minus"))
        for equation in equations(split, "brackets"):
            inner = [side for side in (equation.left, equation.right) if isinstance(side, Equation)]
            assert len(inner) == 1
            assert inner[0] in singles
            assert split_of(equation) == split


def test_two_digit_problems_have_one_term_of_two_digits_and_an_answer_that_fits_a_card() -> None:
    for split in SPLITS:
        for equation in equations(split, "two-digit"):
            assert max(int(equation.left), int(equation.right)) >= 10  # type: ignore[arg-type]
            assert 0 <= equation.answer <= 40


def test_no_handwriting_style_and_no_words_are_in_both_splits() -> None:
    assert not set(STYLES["train"]) & set(STYLES["held-out"])
    assert not set(WORDS["train"]) & set(WORDS["held-out"])


def test_families_of_typefaces_stay_on_one_side() -> None:
    families = ("STIX", "DejaVuSerif", "DejaVuSans", "cmtt", "cmss", "cmr", "cmb")
    for family in families:
        sides = [split for split in SPLITS if any(style.startswith(family) for style in STYLES[split])]
        assert len(sides) == 1, family


@pytest.mark.parametrize("num_cards", [1, 2, 3, 4, 5])
def test_layouts_of_one_split_are_never_drawn_for_the_other(num_cards: int) -> None:
    drawn = {
        split: [
            draw_places(split=split, num_cards=num_cards, freedom=1.0, rng=keyed_rng("test", split, number))
            for number in range(60)
        ]
        for split in SPLITS
    }
    for split in SPLITS:
        assert {split_of_layout(places) for places in drawn[split]} == {split}
    cells = {split: {tuple(np.round(np.array(p)[:, :2] / 0.02).ravel()) for p in drawn[split]} for split in SPLITS}
    if num_cards != 3:  # those near templates are told apart by distance, not by cell
        assert not cells["train"] & cells["held-out"]


def test_three_cards_are_never_trained_on_near_an_open_world_layout() -> None:
    templates = [np.array(places)[:, :2] for places in TEMPLATES["held-out"].values()]
    for number in range(200):
        places = draw_places(split="train", num_cards=3, freedom=1.0, rng=keyed_rng("near", number))
        xy = np.array(places)[:, :2]
        assert all(np.linalg.norm(xy - template, axis=1).max() > 0.01 for template in templates)


def test_cards_of_a_layout_never_overlap() -> None:
    for split, num_cards, number in itertools.product(SPLITS, (2, 3, 4, 5), range(30)):
        places = draw_places(split=split, num_cards=num_cards, freedom=1.0, rng=keyed_rng("apart", number))
        for left, right in itertools.pairwise(places):
            assert right[0] - left[0] > 0.06


@pytest.mark.parametrize(
    ("left", "operator", "right", "said"), [(1, "/", 2, "operator"), (1, "-", 2, "never negative")]
)
def test_a_senseless_equation_is_refused(left: int, operator: str, right: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Equation(left=left, operator=operator, right=right)


def test_a_recipe_may_ask_for_more_boards_with_brackets_and_all_of_them_are_for_training() -> None:
    for share, low, high in ((0.0, 0.02, 0.25), (0.5, 0.35, 0.75), (1.0, 1.0, 1.0)):
        difficulty = replace(FULL, brackets=share)
        views = [
            draw_item(split="train", seed=1, row=row, skill="transcribe", difficulty=difficulty).plan.view
            for row in range(60)
        ]
        asked = [view.board.equation for view in views if view.board is not None and view.board.equation is not None]
        assert len(asked) == len(views)
        assert low <= np.mean([equation in equations("train", "brackets") for equation in asked]) <= high
    with pytest.raises(ValueError, match=r"Difficulty\.brackets lies in 0\.\.1, got 1\.5"):
        replace(FULL, brackets=1.5)
