"""Drawing the table as the tabletop's upper camera sees it."""

from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import cv2
import numpy as np

from dataengine.rendered.arms import arm_parts, arm_shapes, home
from dataengine.rendered.boards import paste, write_board
from dataengine.rendered.camera import Camera, Points
from dataengine.rendered.handwriting import INK
from dataengine.rendered.items import PICTURE_SIZE, Glyph
from dataengine.rendered.keyed import keyed_rng
from dataengine.rendered.shapes import Picture, Rgb, box, box_corners, fill, hull, on_floor, shaded
from dataengine.rendered.views import Board, NumberCard, TableView, Thing
from dataengine.rendered.writing import Ink, write_line

# As the tabletop builds them; a test holds the pictures of the two together.
CARD_HALF_M = (0.030, 0.022, 0.018)
LEDGE_TOP_M = 0.024
LEDGE_CENTRE_M = (0.0, 0.165)
_LEDGE_HALF_M = (0.22, 0.045)
BOARD_HALF_M = (0.20, 0.076)
_BOARD_TILT_RAD = np.deg2rad(20.0)
_FRAME_M = 0.012
_LABEL_M = 0.001  # a card's label ends this far from its edge

_WOOD: Rgb = (189, 163, 134)
_LEDGE: Rgb = (119, 128, 141)
_FRAME: Rgb = (90, 95, 106)
_PAPER: Rgb = (305, 305, 302)
_CARD_SIDE: Rgb = (150, 147, 135)
_INK: Rgb = (INK[0] + 4, INK[1] + 7, INK[2] + 19)  # as lit on the tabletop
_SHADOW = 0.61
_MARGIN_PX, _HELD_MARGIN_PX = 6, 3
_SHADED_WOOD = shaded(_WOOD, _SHADOW)
_DARKER = np.asarray(np.arange(256) * _SHADOW, dtype=np.uint8)
_THING_RGB: dict[str, Rgb] = {
    "red": (203, 42, 44),
    "green": (48, 150, 62),
    "blue": (38, 84, 200),
    "yellow": (236, 204, 48),
    "purple": (134, 58, 160),
    "black": (34, 33, 36),
}
_BLOB_M = 0.02 * np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])  # what a rod's end shades
_SHEET_PX_PER_M = 950.0  # about twice what a metre of board takes in the picture


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DrawnTable:
    """The picture, and where in it things came to lie: what an answer may be asked about."""

    picture: Picture
    glyphs: tuple[Glyph, ...]  # those no arm hides
    card_px: tuple[tuple[float, float], ...]  # centre of each card's label
    card_seen: tuple[bool, ...]  # its number is not hidden
    board_seen: bool
    things_seen: bool
    thing_px: tuple[tuple[float, float] | None, ...]  # middle of each thing; None where an arm hides it


def draw_table(view: TableView, camera: Camera, *, light: tuple[float, float], rng: np.random.Generator) -> DrawnTable:
    """Draw from the table up; arms come last, the cards that grippers hold just before them."""
    picture = _wood(rng)
    _shadows(picture, view, camera, light)
    board_glyphs = [] if view.board is None else _draw_board(picture, view.board, view.style, camera, rng)
    for thing in sorted(view.things, key=lambda thing: -thing.place[1]):
        _draw_thing(picture, thing, camera)
    held = [pose.holds for pose in view.arms if pose.holds is not None]
    arms, over_table = np.zeros((2, *picture.shape[:2]), dtype=np.uint8)
    card_glyphs: dict[int, list[Glyph]] = {}
    for number in sorted(range(len(view.cards)), key=lambda number: number in held):
        card = view.cards[number]
        card_glyphs[number] = _draw_card(picture, card, view.style, camera, rng)
        if number in held:
            fill(over_table, hull(camera.project(_card_box(card))), 255)
    for shape in [shape for pose in view.arms for shape in arm_shapes(camera, pose)]:
        fill(picture, shape.corners_px, shape.colour)
        if shape.outline:
            fill(arms, shape.corners_px, 255)
    over_table |= arms
    seen = [_seen(board_glyphs, over_table)]
    for number in range(len(view.cards)):
        # The hand around a held card is close to its number by nature.
        cover, margin_px = (arms, _HELD_MARGIN_PX) if number in held else (over_table, _MARGIN_PX)
        seen.append(_seen(card_glyphs[number], cover, margin_px))
    centres_px = camera.project(np.array([_label_centre(card) for card in view.cards]).reshape(-1, 3))
    things_px = camera.project(np.array([(*thing.place[:2], 0.0) for thing in view.things]).reshape(-1, 3))
    middles_px = camera.project(np.array([(*thing.place[:2], thing.half_m) for thing in view.things]).reshape(-1, 3))
    return DrawnTable(
        picture=picture,
        glyphs=tuple(glyph for glyphs in seen for glyph in glyphs),
        card_px=tuple((float(x_px), float(y_px)) for x_px, y_px in centres_px),
        card_seen=tuple(len(seen[number + 1]) == len(card_glyphs[number]) for number in range(len(view.cards))),
        board_seen=len(seen[0]) == len(board_glyphs),
        things_seen=all(not _covered(over_table, x_px, y_px) for x_px, y_px in things_px),
        thing_px=tuple(
            None if _covered(over_table, x_px, y_px) else (float(x_px), float(y_px)) for x_px, y_px in middles_px
        ),
    )


def any_hidden(view: TableView, camera: Camera, *, cards: tuple[int, ...], board: bool) -> bool:
    """An arm lies over a card that is asked about, or over the middle of the board: known before drawing."""
    places_m = [_label_centre(view.cards[number]) for number in cards]
    if board and view.board is not None:
        places_m += [on_board(share * BOARD_HALF_M[0], BOARD_HALF_M[1]) for share in (-0.7, -0.35, 0.0, 0.35, 0.7)]
    cover = np.zeros(PICTURE_SIZE[::-1], dtype=np.uint8)
    for pose in view.arms:
        # An arm at home is beside everything; if not, it shows once the table is drawn.
        for shape in () if pose == home(pose.side) else arm_shapes(camera, pose):
            if shape.outline:
                fill(cover, shape.corners_px, 255)
    places_px = camera.project(np.array(places_m).reshape(-1, 3))
    return any(_covered(cover, x_px, y_px) for x_px, y_px in places_px)


def _seen(glyphs: list[Glyph], cover: Ink, margin_px: int = _MARGIN_PX) -> list[Glyph]:
    return [glyph for glyph in glyphs if not _covered(cover, glyph.x_px, glyph.y_px, margin_px)]


def _covered(cover: Ink, x_px: float, y_px: float, margin_px: int = _MARGIN_PX) -> bool:
    """Something lies over the place or `margin_px` beside it, or the place is at the picture's edge or outside."""
    width, height = PICTURE_SIZE
    column, row = round(x_px), round(y_px)
    if not (margin_px <= column < width - margin_px and margin_px <= row < height - margin_px):
        return True
    around = cover[row - margin_px : row + margin_px + 1, column - margin_px : column + margin_px + 1]
    return bool(around.any())


@cache
def _planks() -> Picture:
    """A wide sheet of soft grain along x, to cut backgrounds from."""
    rng = keyed_rng("planks")
    across, along = np.mgrid[0 : 1 : PICTURE_SIZE[1] * 3 * 1j, 0 : 1 : PICTURE_SIZE[0] * 2 * 1j]
    grain = np.zeros_like(across)
    for waves in (7, 15, 33, 61):
        bend = rng.uniform(0.008, 0.02) * np.sin(2 * np.pi * (2 * along + rng.random()))
        grain += np.sin(2 * np.pi * waves * (across + bend + rng.random())) / waves
    return np.asarray((np.array(_WOOD) * (1 + 0.22 * grain[..., None])).clip(0, 255), dtype=np.uint8)


def _wood(rng: np.random.Generator) -> Picture:
    planks = _planks()
    width, height = PICTURE_SIZE
    row = int(rng.integers(planks.shape[0] - height))
    column = int(rng.integers(planks.shape[1] - width))
    return planks[row : row + height, column : column + width].copy()


def _shadows(picture: Picture, view: TableView, camera: Camera, light: tuple[float, float]) -> None:
    solids = [_card_box(card) for card in view.cards]
    solids += [_thing_box(thing) for thing in view.things if thing.kind == "cube"]
    if view.board is not None:
        solids.append(_ledge_box())
    for pose in view.arms:
        boxes, joints_m = arm_parts(pose)
        solids += boxes
        blobs = joints_m[:, None] + _BLOB_M
        solids += [np.concatenate(pair) for pair in pairwise(blobs)]
    shade = np.zeros(picture.shape[:2], dtype=np.uint8)
    # One projection for all: a call for each would take longer than the filling.
    corners_px = camera.project(on_floor(np.concatenate(solids), light)) if solids else np.zeros((0, 2))
    for outline_px in np.split(corners_px, np.cumsum([len(solid) for solid in solids])[:-1]) if solids else ():
        fill(shade, hull(outline_px), 255)
    cv2.copyTo(cv2.LUT(picture, _DARKER), shade, picture)


def _ledge_box() -> Points:
    half_m = (*_LEDGE_HALF_M, LEDGE_TOP_M / 2)
    return box_corners(np.array([*LEDGE_CENTRE_M, LEDGE_TOP_M / 2]), half_m, 0.0)


def on_board(x_m: float, y_m: float, off_m: float = 0.0) -> tuple[float, float, float]:
    """A point of the board's plane: x to the right, y up from the ledge, `off_m` out of it."""
    cos, sin = np.cos(_BOARD_TILT_RAD), np.sin(_BOARD_TILT_RAD)
    foot_y_m = LEDGE_CENTRE_M[1] + _LEDGE_HALF_M[1]
    return x_m, foot_y_m + y_m * cos - off_m * sin, LEDGE_TOP_M + y_m * sin + off_m * cos


def _draw_board(picture: Picture, board: Board, style: str, camera: Camera, rng: np.random.Generator) -> list[Glyph]:
    ledge, low = _ledge_box(), 0.008 - _FRAME_M
    half_x, high = BOARD_HALF_M[0] + _FRAME_M, 0.008 + 2 * BOARD_HALF_M[1] + _FRAME_M
    frame = [on_board(x, y, off) for off in (-0.014, -0.002) for x in (-half_x, half_x) for y in (low, high)]
    fill(picture, hull(camera.project(np.array(frame))), _FRAME)
    for shape in box(camera.project(ledge), side=shaded(_LEDGE, 0.5), top=_LEDGE):
        fill(picture, shape.corners_px, shape.colour)
    low, high = 0.008, 0.008 + 2 * BOARD_HALF_M[1]
    corners = [(-BOARD_HALF_M[0], high), (BOARD_HALF_M[0], high), (BOARD_HALF_M[0], low), (-BOARD_HALF_M[0], low)]
    corners_px = camera.project(np.array([on_board(x, y) for x, y in corners]))
    sheet, marks = write_board(board, style, width_px=380, height_px=144, share=0.62, centre=(0.5, 0.5), rng=rng)
    return paste(picture, sheet, marks, corners_px, paper=_PAPER, ink=_INK)


def _card_box(card: NumberCard) -> Points:
    x_m, y_m, yaw_rad = card.place
    return box_corners(np.array([x_m, y_m, card.raised_m + CARD_HALF_M[2]]), CARD_HALF_M, yaw_rad)


def _label_centre(card: NumberCard) -> tuple[float, float, float]:
    return card.place[0], card.place[1], card.raised_m + 2 * CARD_HALF_M[2]


def _draw_card(picture: Picture, card: NumberCard, style: str, camera: Camera, rng: np.random.Generator) -> list[Glyph]:
    fill(picture, hull(camera.project(_card_box(card))), _CARD_SIDE)
    half_m = (CARD_HALF_M[0] - _LABEL_M, CARD_HALF_M[1] - _LABEL_M, 0.0)
    top = box_corners(np.array(_label_centre(card)), half_m, card.place[2])[:4]
    width_px, height_px = round(2 * half_m[0] * _SHEET_PX_PER_M), round(2 * half_m[1] * _SHEET_PX_PER_M)
    sheet: Ink = np.zeros((height_px, width_px), dtype=np.uint8)
    marks = write_line(
        sheet,
        str(card.number),
        style=style,
        height_px=0.8 * height_px,
        centre_px=(width_px / 2, height_px / 2),
        max_width_px=0.9 * width_px,
        rng=rng,
    )
    # The tabletop's renderer shrinks a card's picture six times and blurs its thin strokes on the way.
    sheet = cv2.GaussianBlur(sheet, (0, 0), float(rng.uniform(0.5, 1.1)))
    return paste(picture, sheet, marks, camera.project(top[[3, 2, 1, 0]]), paper=_PAPER, ink=_INK)


def _thing_box(thing: Thing) -> Points:
    x_m, y_m, yaw_rad = thing.place
    half_z_m = 0.8 * thing.half_m
    return box_corners(np.array([x_m, y_m, half_z_m]), (thing.half_m, thing.half_m, half_z_m), yaw_rad)


def _draw_thing(picture: Picture, thing: Thing, camera: Camera) -> None:
    colour = _THING_RGB[thing.colour]
    x_m, y_m, yaw_rad = thing.place
    middle_m = np.array([[x_m, y_m, thing.half_m]])
    middle_px = camera.project(middle_m)[0]
    radius_px = thing.half_m * float(camera.px_per_m(middle_m)[0])
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    match thing.kind:
        case "cube":
            for shape in box(camera.project(_thing_box(thing)), side=shaded(colour, 0.6), top=colour):
                fill(picture, shape.corners_px, shape.colour)
        case "ball":
            fill(picture, middle_px + (circle + np.array([0.1, -0.35])) * radius_px, _SHADED_WOOD)
            for size, offset, gain in ((1.0, 0.0, 0.75), (0.8, 0.12, 1.0), (0.25, 0.35, 1.5)):
                centre_px = middle_px + np.array([-offset, -offset]) * radius_px
                fill(picture, centre_px + circle * radius_px * size, shaded(colour, gain))
        case "ring":
            column, row = np.round(middle_px * 16).astype(int).tolist()
            rim_px = round(0.85 * radius_px * 16)
            width_px = max(3, round(0.42 * radius_px))
            cv2.circle(picture, (column, row), rim_px, colour, width_px, cv2.LINE_8, 4)
        case "triangle":
            corners = yaw_rad + np.array([np.pi / 2, np.pi / 2 + 2.0944, np.pi / 2 + 4.1888])
            flat = np.stack([np.cos(corners), -np.sin(corners)], axis=1) * 1.25 * radius_px
            fill(picture, middle_px + flat + np.array([0, 1.5]), shaded(colour, 0.6))
            fill(picture, middle_px + flat, colour)
