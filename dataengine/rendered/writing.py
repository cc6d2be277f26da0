"""Fast writing: glyph masks are drawn once per (style, character, variant) and then only scaled and placed."""

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from dataengine.rendered.hands import nib_of, pen_of
from dataengine.rendered.handwriting import draw_glyph
from dataengine.rendered.keyed import keyed_rng

_GLYPH_PX = 72
_NUM_VARIANTS = 6  # of one character in one hand
_GAP = 0.16  # between two characters, in glyph heights, as on the tabletop's board
Ink = NDArray[np.uint8]  # (height, width), 255 where the pen was


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A character on a sheet: the centre of its ink in sheet pixels."""

    char: str
    x_px: float
    y_px: float


def write_line(
    sheet: Ink,
    text: str,
    *,
    style: str,
    height_px: float,
    centre_px: tuple[float, float],
    max_width_px: float,
    rng: np.random.Generator,
) -> list[Mark]:
    """Write `text` into the sheet, centred, smaller where it would be too wide; where each character came to stand.

    A space leaves a gap and no mark.
    """
    variants = rng.integers(_NUM_VARIANTS, size=len(text))
    lifts = rng.uniform(-0.03, 0.03, size=len(text)) * height_px
    glyphs = [
        None if char == " " else _glyph(style, char, int(variant)) for char, variant in zip(text, variants, strict=True)
    ]
    scale = height_px / _GLYPH_PX
    widths = [0.3 * _GLYPH_PX if glyph is None else glyph[0].shape[1] for glyph in glyphs]
    total_px = (sum(widths) + _GAP * _GLYPH_PX * (len(text) - 1)) * scale
    scale *= min(1.0, max_width_px / total_px)
    left_px = centre_px[0] - min(total_px, max_width_px) / 2
    marks = []
    for char, glyph, width, lift_px in zip(text, glyphs, widths, lifts, strict=True):
        if glyph is not None:
            mask, middle = glyph
            size = (max(1, round(mask.shape[1] * scale)), max(1, round(mask.shape[0] * scale)))
            small = cv2.resize(mask, size, interpolation=cv2.INTER_AREA)
            x_px, y_px = round(left_px), round(centre_px[1] - size[1] / 2 + lift_px)
            _stamp(sheet, small, x_px, y_px)
            marks.append(Mark(char=char, x_px=x_px + size[0] / 2, y_px=y_px + middle * scale))
        left_px += (width + _GAP * _GLYPH_PX) * scale
    return marks


def can_write(style: str) -> bool:
    """Whether a style has letters, too: what is drawn by strokes has only what stands in an equation."""
    return pen_of(style) is None and nib_of(style) is None


@cache
def _glyph(style: str, char: str, variant: int) -> tuple[Ink, float]:
    """A mask, and the row that the middle of its ink lies in."""
    drawn = draw_glyph(char, style=style, height_px=_GLYPH_PX, rng=keyed_rng("glyph", style, char, variant))
    mask = np.asarray(drawn)
    rows = np.flatnonzero(mask.max(axis=1) > 127)
    return mask, (int(rows[0]) + int(rows[-1]) + 1) / 2


def _stamp(sheet: Ink, mask: Ink, x_px: int, y_px: int) -> None:
    height, width = sheet.shape
    left, top = max(0, x_px), max(0, y_px)
    right, bottom = min(width, x_px + mask.shape[1]), min(height, y_px + mask.shape[0])
    if left < right and top < bottom:
        part = sheet[top:bottom, left:right]
        np.maximum(part, mask[top - y_px : bottom - y_px, left - x_px : right - x_px], out=part)
