"""The math matching game: splits that share nothing, boards that can be read."""

import itertools
import re

import numpy as np
import pytest

from apps.sim.game import POSITIONS, SPLITS, STYLES, Equation, Split, draw_scene, equations, layout_names
from apps.sim.tabletop import CARD_HALF_M
from apps.sim.world import World


def test_the_splits_share_no_equation_no_handwriting_and_no_layout() -> None:
    seen, unseen = (set(equations(split)) for split in SPLITS)
    swapped = {Equation(left=e.right, operator=e.operator, right=e.left) for e in seen if e.operator != "-"}
    assert seen
    assert unseen
    assert not unseen & (seen | swapped)
    assert not set(STYLES["in-domain"]) & set(STYLES["open-world"])
    assert not set(layout_names("in-domain")) & set(layout_names("open-world"))


def test_drawn_card_places_of_one_split_never_come_near_those_of_the_other() -> None:
    places = {
        split: np.array(
            [
                [
                    (card.x_m, card.y_m, 0.1 * card.yaw_rad)
                    for card in draw_scene(split=split, seed=3, index=index).cards
                ]
                for index in range(60)
            ]
        ).reshape(60, -1)
        for split in SPLITS
    }
    apart = np.linalg.norm(places["in-domain"][:, None] - places["open-world"][None], axis=-1)
    assert apart.min() > 0.01


@pytest.mark.parametrize("split", SPLITS)
def test_every_scene_shows_the_answer_once_and_short_series_are_balanced(split: Split) -> None:
    scenes = [draw_scene(split=split, seed=0, index=index) for index in range(30)]
    for scene in scenes:
        numbers = [card.number for card in scene.cards]
        assert numbers.count(scene.equation.answer) == 1
        assert len(set(numbers)) == 3
    assert [sum(scene.correct_slot == slot for scene in scenes) for slot in range(len(POSITIONS))] == [10, 10, 10]
    assert len({scene.equation for scene in scenes}) == 30


def test_cards_never_overlap() -> None:
    reach_m = 2 * np.hypot(*CARD_HALF_M[:2])
    for split, index in itertools.product(SPLITS, range(40)):
        cards = draw_scene(split=split, seed=1, index=index).cards
        for left, right in itertools.pairwise(cards):
            assert np.hypot(right.x_m - left.x_m, right.y_m - left.y_m) > reach_m


def test_a_program_reads_board_and_cards_from_the_top_camera() -> None:
    import cv2
    from rapidocr import RapidOCR

    reader = RapidOCR()

    def read(crop: np.ndarray) -> str:
        found = reader(np.ascontiguousarray(crop[..., ::-1]), use_det=False, use_cls=False, use_rec=True)
        return (found.txts[0] if found.txts else "").replace("\u00d7", "x").replace(" ", "")

    boards, cards = [], []
    for split, index in itertools.product(SPLITS, range(4)):
        scene = draw_scene(split=split, seed=7, index=index)
        with World(scene) as world:
            view = world.render("cam_high")
            board = re.match(r"\d+[-+x]\d+", read(view[8:84, 60:260]))
            boards.append(board is not None and board.group() == scene.equation.text)
            for slot, card in enumerate(scene.cards):
                column, row = world.project("cam_high", world.card_centre_m(slot) + np.array([0, 0, CARD_HALF_M[2]]))
                crop = view[round(row) - 11 : round(row) + 11, round(column) - 15 : round(column) + 15]
                cards.append(
                    read(cv2.resize(crop, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)) == str(card.number)
                )
    assert sum(boards) >= 7, f"{sum(boards)} of {len(boards)} boards were read"
    assert sum(cards) >= 22, f"{sum(cards)} of {len(cards)} cards were read"
