"""Drawing a whiteboard that fills most of the picture."""

import cv2
import numpy as np

from dataengine.rendered.boards import paste, write_board
from dataengine.rendered.camera import Points
from dataengine.rendered.handwriting import INK
from dataengine.rendered.items import PICTURE_SIZE, Glyph
from dataengine.rendered.shapes import Picture, Rgb, fill, shaded
from dataengine.rendered.views import CloseUp

WALLS: tuple[Rgb, ...] = ((189, 163, 134), (206, 205, 198), (150, 158, 166), (224, 217, 196), (120, 130, 118))
_FRAMES: tuple[Rgb, ...] = ((90, 95, 106), (176, 178, 182), (70, 56, 44), (40, 42, 46))
INKS: tuple[Rgb, ...] = (INK, INK, INK, (28, 28, 32), (150, 28, 36), (20, 88, 52), (30, 60, 150))
PAPER: Rgb = (250, 250, 248)
_GLYPH_REACH_PX = 52  # from the middle of the tallest character to its ends


def draw_close_up(
    view: CloseUp, *, geometry: float, colours: float, rng: np.random.Generator
) -> tuple[Picture, list[Glyph]]:
    """A framed board on a wall, and its writing; `geometry` turns and shifts, `colours` varies inks and frames."""
    width, height = PICTURE_SIZE
    vary = rng.random(3) < colours
    wall = WALLS[int(rng.integers(len(WALLS)))] if vary[0] else WALLS[0]
    frame = _FRAMES[int(rng.integers(len(_FRAMES)))] if vary[1] else _FRAMES[0]
    ink = INKS[int(rng.integers(len(INKS)))] if vary[2] else INK
    picture = np.empty((height, width, 3), dtype=np.uint8)
    picture[:] = wall
    corners = np.array([(14, 12), (width - 14, 12), (width - 14, height - 12), (14, height - 12)], dtype=np.float64)
    middle = corners.mean(axis=0)
    moved = middle + (corners - middle) * (1 - geometry * rng.uniform(-0.04, 0.22))
    moved += geometry * rng.uniform(-1, 1, 2) * (14, 10)
    moved += geometry * rng.uniform(-1, 1, (4, 2)) * (16, 14)
    rim = float(rng.uniform(4, 9)) if vary[1] else 6.0
    outward = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * rim
    fill(picture, moved + outward, frame)
    share = 0.34 + geometry * float(rng.uniform(-0.10, 0.12))
    centre = tuple(0.5 + geometry * rng.uniform(-1, 1, 2) * (0.08, 0.2))
    sheet, marks = write_board(
        view.board, view.style, width_px=440, height_px=330, share=share, centre=(centre[0], centre[1]), rng=rng
    )
    glyphs = paste(picture, sheet, marks, moved, paper=PAPER, ink=ink)
    return picture, glyphs


def intrude(picture: Picture, glyphs: list[Glyph], rng: np.random.Generator) -> None:
    """A robot's arm that reaches in from an edge, but over no writing."""
    width, height = PICTURE_SIZE
    for _ in range(6):
        start = np.array([rng.uniform(0, width), height + 30.0])
        end = np.array([rng.uniform(0, width), height - rng.uniform(10, 90)])
        thick_px = int(rng.integers(16, 30))
        if all(_distance_px(glyph, start, end) > thick_px / 2 + _GLYPH_REACH_PX for glyph in glyphs):
            colour: Rgb = ((196, 198, 205), (58, 60, 68))[int(rng.integers(2))]
            for width_px, gain in ((thick_px, 0.72), (round(0.7 * thick_px), 1.0)):
                cv2.line(picture, _pixel(start), _pixel(end), shaded(colour, gain), width_px, cv2.LINE_AA)
            accent: Rgb = ((35, 115, 187), (231, 127, 36))[int(rng.integers(2))]
            cv2.circle(picture, _pixel(end), round(0.62 * thick_px), accent, -1, cv2.LINE_AA)
            return


def _distance_px(glyph: Glyph, start: Points, end: Points) -> float:
    along = end - start
    point = np.array([glyph.x_px, glyph.y_px]) - start
    share = float(np.clip(point @ along / (along @ along), 0, 1))
    return float(np.linalg.norm(point - share * along))


def _pixel(point: Points) -> tuple[int, int]:
    return round(float(point[0])), round(float(point[1]))
