"""What is written on a board, and laying the written sheet into a picture."""

from functools import cache

import cv2
import numpy as np

from dataengine.rendered.camera import Points
from dataengine.rendered.doodles import draw_doodle
from dataengine.rendered.items import Glyph
from dataengine.rendered.shapes import Picture, Rgb, fill, shaded
from dataengine.rendered.views import Board
from dataengine.rendered.writing import Ink, Mark, write_line


def write_board(
    board: Board,
    style: str,
    *,
    width_px: int,
    height_px: int,
    share: float,
    centre: tuple[float, float],
    rng: np.random.Generator,
) -> tuple[Ink, list[Mark]]:
    """A sheet with a board's writing; `share` is how much of its height a digit takes, `centre` in shares of it."""
    sheet: Ink = np.zeros((height_px, width_px), dtype=np.uint8)
    middle_px = (centre[0] * width_px, centre[1] * height_px)
    if board.doodle is not None:
        draw_doodle(sheet, board.doodle, centre_px=middle_px, size_px=share * height_px, rng=rng)
        return sheet, []
    if not board.text:
        return sheet, []
    # As wide as the board lets it be around its centre.
    room = 2 * min(centre[0], 1 - centre[0])
    marks = write_line(
        sheet,
        board.text,
        style=style,
        height_px=share * height_px,
        centre_px=middle_px,
        max_width_px=0.9 * room * width_px,
        rng=rng,
    )
    return sheet, marks


def paste(picture: Picture, sheet: Ink, marks: list[Mark], corners_px: Points, *, paper: Rgb, ink: Rgb) -> list[Glyph]:
    """Lay a sheet into the picture; `corners_px` are its upper left, upper right, lower right, lower left corners.

    Paper lighter than 255 is overexposed, as on the tabletop: that thins the edges of the ink. Returns the marks where
    they came to lie.
    """
    fill(picture, corners_px, shaded(paper, 1.0))
    height, width = sheet.shape
    on_sheet = np.array([(0, 0), (width, 0), (width, height), (0, height)], dtype=np.float32)
    to_picture = cv2.getPerspectiveTransform(on_sheet, corners_px.astype(np.float32))
    left, top = np.maximum(np.floor(corners_px.min(axis=0)), 0).astype(int)
    right, bottom = np.minimum(np.ceil(corners_px.max(axis=0)) + 1, picture.shape[1::-1]).astype(int)
    if marks_px := [(mark.x_px, mark.y_px) for mark in marks]:
        moved = cv2.perspectiveTransform(np.array([marks_px], dtype=np.float64), to_picture)[0]
    else:
        moved = np.zeros((0, 2))
    if left < right and top < bottom:
        shift = np.array([[1, 0, -left], [0, 1, -top], [0, 0, 1]], dtype=np.float64)
        size = (int(right - left), int(bottom - top))
        warped = cv2.warpPerspective(sheet, shift @ to_picture, size, flags=cv2.INTER_LINEAR)
        part = picture[top:bottom, left:right]
        inked = warped > 0
        part[inked] = _mixtures(paper, ink)[warped[inked]]
    return [
        Glyph(char=mark.char, x_px=float(x_px), y_px=float(y_px))
        for mark, (x_px, y_px) in zip(marks, moved, strict=True)
    ]


@cache
def _mixtures(paper: Rgb, ink: Rgb) -> Picture:
    """All there are, (256, 3): the paper below the ink is of one colour."""
    shares = np.arange(256)[:, None]
    mixed = ((255 - shares) * np.array(paper) + shares * np.array(ink)) // 255
    return np.asarray(mixed.clip(0, 255), dtype=np.uint8)
