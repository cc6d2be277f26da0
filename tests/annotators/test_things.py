"""Things by colour and outline, on pictures drawn by hand: what is not clear is not named."""

import cv2
import numpy as np
import pytest

from annotators.papers import Pixels
from annotators.things import ThingsView, find_things

VIEW = ThingsView(robot_hues_deg=((20, 40), (200, 222)))
RED, GREEN, BLUE, WHITE = (205, 30, 30), (30, 160, 55), (30, 50, 210), (240, 240, 238)


def table() -> Pixels:
    return np.full((240, 320, 3), (168, 143, 117), np.uint8)


def block(
    picture: Pixels, at: tuple[int, int], size: tuple[int, int], colour: tuple[int, int, int], turn: float = 0
) -> None:
    corners = cv2.boxPoints((at, size, turn))
    cv2.fillPoly(picture, [corners.round().astype(np.int32)], colour)


def nouns(picture: Pixels) -> list[str]:
    return [thing.noun for thing in find_things(picture, VIEW)]


@pytest.mark.parametrize("turn", [0, 20, 45])
def test_colour_and_shape_make_the_noun_from_left_to_right(turn: float) -> None:
    picture = table()
    block(picture, (60, 120), (21, 21), RED, turn)
    cv2.circle(picture, (120, 100), 10, GREEN, -1)
    block(picture, (180, 130), (44, 21), BLUE, turn)
    cv2.circle(picture, (240, 90), 14, RED, -1)
    assert nouns(picture) == ["red box", "green cylinder", "blue bar", "red disc"]


def test_a_wide_white_rectangle_is_a_tray_and_what_lies_in_it_is_seen_too() -> None:
    picture = table()
    block(picture, (150, 120), (60, 54), WHITE)
    block(picture, (150, 122), (20, 20), BLUE)
    found = {thing.noun: thing.box for thing in find_things(picture, VIEW)}
    assert set(found) == {"white tray", "blue box"}
    assert found["blue box"] == (140, 112, 161, 133)


def test_the_robot_and_whatever_reaches_into_the_picture_is_no_thing() -> None:
    picture = table()
    block(picture, (100, 100), (22, 22), (230, 125, 33))  # the right arm's accent
    block(picture, (200, 100), (22, 22), (36, 117, 191))  # the left arm's
    block(picture, (250, 232), (20, 30), RED)  # cut by the edge
    assert nouns(picture) == []


def test_a_shape_that_is_neither_is_called_a_thing() -> None:
    picture = table()
    cv2.ellipse(picture, (150, 120), (12, 30), 0, 0, 360, GREEN, -1)
    assert nouns(picture) == ["green thing"]
