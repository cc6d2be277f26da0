"""Finding and reading board and cards: on frames of the simulated tabletop, and on pictures drawn by hand."""

import os

import cv2
import numpy as np
import pytest

from annotators.evidence import find_pick
from annotators.papers import Pixels, find_papers, lay_out
from annotators.perception import Reader, board_crops
from apps.sim.game import Split, draw_scene
from apps.sim.world import World

os.environ.setdefault("MUJOCO_GL", "egl")
TABLE = (168, 143, 117)
PLACES = (70, 160, 250)


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader()


def table(*, board: bool = True, cards: tuple[int | None, ...] = (3, 12, 7), ledge: int | None = None) -> Pixels:
    """A table drawn with rectangles: a board, cards at three places, perhaps one on the ledge."""
    picture = np.full((240, 320, 3), TABLE, np.uint8)
    if board:
        cv2.rectangle(picture, (60, 5), (260, 85), (255, 255, 255), -1)
        cv2.putText(picture, "5+7=?", (80, 62), cv2.FONT_HERSHEY_SIMPLEX, 1.7, (20, 30, 70), 4, cv2.LINE_AA)
    for x, number in zip(PLACES, cards, strict=True):
        if number is not None:
            _card(picture, x, 185, number)
    if ledge is not None:
        _card(picture, 150, 110, ledge)
    return picture


def _card(picture: Pixels, x: int, y: int, number: int) -> None:
    cv2.rectangle(picture, (x - 18, y - 13), (x + 18, y + 13), (250, 250, 250), -1)
    left = x - 7 * len(str(number))
    cv2.putText(picture, str(number), (left, y + 8), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (20, 30, 70), 2, cv2.LINE_AA)


def pick_in(reader: Reader, after: Pixels) -> tuple[tuple[str, ...], str | None]:
    before = table()
    found = find_pick(before, lay_out(find_papers(before)), [0], lambda index: after, reader.card)
    assert found is not None
    return found.slots, found.moved_text


@pytest.mark.parametrize("split", ["in-domain", "open-world"])
def test_board_and_cards_of_the_tabletop_are_read_in_both_splits(reader: Reader, split: Split) -> None:
    for index in range(2):
        scene = draw_scene(split=split, seed=21, index=index)
        with World(scene, image_size=(320, 240)) as world:
            frame = world.render("cam_high")
        layout = lay_out(find_papers(frame))
        assert layout.board is not None
        readings = reader.board(*board_crops(frame, frame, layout.board, layout.board))
        assert (readings.first, readings.second) == (scene.equation.text, scene.equation.text)
        cards = [(layout.position(at), reader.card(frame, card)) for at, card in enumerate(layout.cards)]
        numbers = [str(card.number) for card in scene.cards]
        assert cards == list(zip(("left", "middle", "right"), numbers, strict=True))


def test_a_turned_and_dim_picture_is_still_laid_out(reader: Reader) -> None:
    turn = cv2.getRotationMatrix2D((160, 120), 6, 0.95)
    turned = cv2.warpAffine(table(), turn, (320, 240), borderMode=cv2.BORDER_CONSTANT, borderValue=TABLE)
    dim = (np.asarray(turned) * 0.75).astype(np.uint8)
    layout = lay_out(find_papers(dim))
    assert layout.board is not None
    assert [reader.card(dim, card) for card in layout.cards] == ["3", "12", "7"]
    assert reader.board(*board_crops(dim, dim, layout.board, layout.board)).first == "5+7"


def test_what_can_not_be_read_is_none_and_not_a_guess(reader: Reader) -> None:
    blurred = np.asarray(cv2.GaussianBlur(table(), (0, 0), 9), np.uint8)
    sharp = lay_out(find_papers(table()))
    assert sharp.board is not None
    readings = reader.board(*board_crops(blurred, blurred, sharp.board, sharp.board))
    assert (readings.first, readings.second) == (None, None)
    assert [reader.card(blurred, card) for card in sharp.cards] == [None, None, None]


def test_without_a_board_there_is_no_board_and_without_three_cards_no_side() -> None:
    bare = lay_out(find_papers(table(board=False)))
    assert bare.board is None
    assert len(bare.cards) == 3
    two = lay_out(find_papers(table(cards=(3, None, 7))))
    assert [two.position(index) for index in range(len(two.cards))] == ["unknown", "unknown"]
    assert lay_out(find_papers(np.full((240, 320, 3), TABLE, np.uint8))).cards == ()


def test_the_card_that_left_its_place_is_found_and_read_where_it_lies_now(reader: Reader) -> None:
    assert pick_in(reader, table(cards=(3, None, 7), ledge=12)) == (("full", "empty", "full"), "12")
    assert pick_in(reader, table(cards=(None, 12, 7), ledge=3)) == (("empty", "full", "full"), "3")
    assert pick_in(reader, table()) == (("full", "full", "full"), None)


def test_an_arm_over_a_place_hides_it_instead_of_emptying_it(reader: Reader) -> None:
    after = table(cards=(3, None, 7))
    cv2.rectangle(after, (130, 160), (190, 240), (40, 40, 44), -1)
    assert pick_in(reader, after)[0] == ("full", "hidden", "full")


def test_a_card_that_was_only_nudged_still_lies_in_its_place(reader: Reader) -> None:
    after = table(cards=(3, 12, None))
    _card(after, PLACES[2] + 9, 189, 7)
    assert pick_in(reader, after)[0] == ("full", "full", "full")
