"""Writing on the board and on the cards: synthetic pens and jittered typefaces.

A pen style draws each character as strokes through control points, which wobble from glyph to glyph, so
that two writings of one equation differ as two writings of one person do. A typeface style takes an installed
font (see `hands`) and shifts, turns and scales each glyph.
"""

from functools import cache
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from dataengine.rendered.hands import Face, Pen, face_of, font_file, pen_of

INK = (24, 32, 70)
_OVERSAMPLE = 2


Stroke = tuple[tuple[float, float], ...]

# Strokes in a unit box, x to the right, y down. A curve runs smoothly through its points; where a point
# stands twice the pen turns a corner.
_GLYPHS: dict[str, tuple[Stroke, ...]] = {
    "0": (((0.62, 0.0), (0.25, 0.06), (0.06, 0.5), (0.25, 0.95), (0.7, 0.97), (0.94, 0.5), (0.78, 0.08), (0.42, 0.0)),),
    "1": (((0.5, 0.0), (0.5, 0.5), (0.5, 1.0)),),
    "1 flagged": (((0.22, 0.25), (0.58, 0.0), (0.58, 0.0), (0.58, 0.5), (0.58, 1.0)),),
    "2": (
        (
            (0.08, 0.25),
            (0.3, 0.02),
            (0.75, 0.05),
            (0.86, 0.32),
            (0.55, 0.65),
            (0.06, 1.0),
            (0.06, 1.0),
            (0.5, 0.99),
            (0.95, 1.0),
        ),
    ),
    "3": (
        (
            (0.1, 0.12),
            (0.45, 0.0),
            (0.82, 0.15),
            (0.78, 0.38),
            (0.38, 0.48),
            (0.38, 0.48),
            (0.82, 0.58),
            (0.9, 0.82),
            (0.5, 1.0),
            (0.06, 0.88),
        ),
    ),
    "4": (((0.68, 0.0), (0.05, 0.68), (0.05, 0.68), (0.98, 0.68)), ((0.68, 0.0), (0.68, 0.5), (0.68, 1.0))),
    "4 open": (((0.3, 0.0), (0.08, 0.58), (0.08, 0.58), (0.95, 0.58)), ((0.72, 0.22), (0.7, 0.6), (0.68, 1.0))),
    "5": (
        (
            (0.88, 0.0),
            (0.2, 0.0),
            (0.2, 0.0),
            (0.14, 0.44),
            (0.14, 0.44),
            (0.55, 0.36),
            (0.92, 0.62),
            (0.72, 0.95),
            (0.35, 1.0),
            (0.05, 0.88),
        ),
    ),
    "6": (
        (
            (0.78, 0.0),
            (0.32, 0.25),
            (0.08, 0.66),
            (0.25, 0.97),
            (0.7, 0.98),
            (0.92, 0.72),
            (0.65, 0.5),
            (0.3, 0.54),
            (0.1, 0.74),
        ),
    ),
    "7": (((0.05, 0.0), (0.92, 0.0), (0.92, 0.0), (0.6, 0.45), (0.38, 1.0)),),
    "7 barred": (((0.05, 0.0), (0.92, 0.0), (0.92, 0.0), (0.6, 0.45), (0.38, 1.0)), ((0.3, 0.5), (0.82, 0.5))),
    "8": (
        (
            (0.5, 0.46),
            (0.16, 0.26),
            (0.3, 0.03),
            (0.7, 0.03),
            (0.84, 0.26),
            (0.5, 0.46),
            (0.08, 0.74),
            (0.3, 0.99),
            (0.7, 0.99),
            (0.92, 0.74),
            (0.5, 0.46),
        ),
    ),
    "9": (
        (
            (0.86, 0.3),
            (0.6, 0.52),
            (0.2, 0.46),
            (0.1, 0.2),
            (0.38, 0.0),
            (0.75, 0.05),
            (0.86, 0.3),
            (0.84, 0.65),
            (0.72, 1.0),
        ),
    ),
    "+": (((0.05, 0.55), (0.95, 0.55)), ((0.5, 0.22), (0.5, 0.88))),
    "-": (((0.08, 0.55), (0.92, 0.55)),),
    "x": (((0.12, 0.3), (0.88, 0.92)), ((0.86, 0.3), (0.14, 0.92))),
    "(": (((0.72, -0.04), (0.36, 0.2), (0.26, 0.5), (0.36, 0.82), (0.72, 1.04)),),
    ")": (((0.28, -0.04), (0.64, 0.2), (0.74, 0.5), (0.64, 0.82), (0.28, 1.04)),),
    "=": (((0.06, 0.4), (0.94, 0.4)), ((0.06, 0.7), (0.94, 0.7))),
    "?": (((0.1, 0.22), (0.35, 0.0), (0.8, 0.08), (0.86, 0.32), (0.5, 0.5), (0.48, 0.7)), ((0.48, 0.94), (0.48, 0.97))),
}


def write(text: str, *, style: str, size: tuple[int, int], height: float, rng: np.random.Generator) -> Image.Image:
    """A white RGB sheet of `size` (width, height) with `text` centred; `height` is the share of it a digit takes."""
    width_px, height_px = size[0] * _OVERSAMPLE, size[1] * _OVERSAMPLE
    sheet = Image.new("RGB", (width_px, height_px), (250, 250, 248))
    glyphs = [draw_glyph(char, style=style, height_px=height * height_px, rng=rng) for char in text]
    gap_px = 0.16 * height * height_px
    total_px = sum(glyph.width for glyph in glyphs) + gap_px * (len(glyphs) - 1)
    shrink = min(1.0, 0.9 * width_px / total_px)
    left_px = (width_px - total_px * shrink) / 2
    for glyph in glyphs:
        small = glyph.resize((max(1, round(glyph.width * shrink)), max(1, round(glyph.height * shrink))))
        top_px = (height_px - small.height) / 2 + rng.uniform(-0.03, 0.03) * height * height_px
        sheet.paste(INK, (round(left_px), round(top_px)), small)
        left_px += small.width + gap_px * shrink
    return sheet.resize(size, Image.Resampling.LANCZOS)


def draw_glyph(char: str, *, style: str, height_px: float, rng: np.random.Generator) -> Image.Image:
    """An ink mask, cropped in x to the glyph; its height leaves room above and below for a turned glyph."""
    pen = pen_of(style)
    mask = _typeface_mask(char, face_of(style), height_px) if pen is None else _pen_mask(char, pen, height_px, rng)
    turn_deg = float(rng.uniform(-4.0, 4.0)) if char not in "+-=x" else float(rng.uniform(-2.0, 2.0))
    scale = float(rng.uniform(0.94, 1.04))
    mask = mask.rotate(turn_deg, resample=Image.Resampling.BICUBIC)
    mask = mask.resize((max(1, round(mask.width * scale)), max(1, round(mask.height * scale))))
    box = mask.getbbox()
    if box is None:
        raise ValueError(f"The style {style!r} has no glyph for {char!r}.")
    return mask.crop((box[0], 0, box[2], mask.height))


def _pen_mask(char: str, pen: Pen, height_px: float, rng: np.random.Generator) -> Image.Image:
    side_px = int(height_px * 1.7)
    mask = Image.new("L", (side_px, side_px), 0)
    draw = ImageDraw.Draw(mask)
    radius_px = pen.stroke * height_px * rng.uniform(0.9, 1.1) / 2
    for stroke in _strokes(char, pen):
        points = np.asarray(stroke) + rng.normal(0.0, pen.wobble, (len(stroke), 2))
        same = np.all(np.diff(np.asarray(stroke), axis=0) == 0, axis=1)
        points[1:][same] = points[:-1][same]
        path = _smooth(points)
        x_px = side_px / 2 + ((path[:, 0] - 0.5) * pen.aspect + (0.5 - path[:, 1]) * pen.slant) * height_px
        y_px = side_px / 2 + (path[:, 1] - 0.5) * (height_px - 2 * radius_px)
        for x, y in zip(x_px, y_px, strict=True):
            draw.ellipse((x - radius_px, y - radius_px, x + radius_px, y + radius_px), fill=255)
    return mask


def _strokes(char: str, pen: Pen) -> tuple[Stroke, ...]:
    match char:
        case "1" if pen.flagged_one:
            return _GLYPHS["1 flagged"]
        case "4" if pen.open_four:
            return _GLYPHS["4 open"]
        case "7" if pen.barred_seven:
            return _GLYPHS["7 barred"]
        case _:
            return _GLYPHS[char]


def _smooth(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Catmull-Rom curve through the points, (N, 2) -> (M, 2); a repeated point splits it into two curves."""
    corners = [0, *(np.flatnonzero(np.all(np.diff(points, axis=0) == 0, axis=1)) + 1).tolist(), len(points)]
    pieces = []
    share = np.linspace(0.0, 1.0, 40)[:, None]
    for start, stop in pairwise(corners):
        part = points[start:stop]
        padded = np.vstack([2 * part[0] - part[1], part, 2 * part[-1] - part[-2]]) if len(part) > 1 else part
        for a, b, c, d in zip(padded[:-3], padded[1:-2], padded[2:-1], padded[3:], strict=True):
            pieces.append(
                0.5
                * (
                    2 * b
                    + (c - a) * share
                    + (2 * a - 5 * b + 4 * c - d) * share**2
                    + (3 * b - a - 3 * c + d) * share**3
                )
            )
    return np.concatenate(pieces)


def _typeface_mask(char: str, face: Face, height_px: float) -> Image.Image:
    font = _font(face.typeface, round(height_px / 0.72))
    side_px = int(height_px * 1.7)
    mask = Image.new("L", (side_px, side_px), 0)
    # Digits of all these fonts stand on the baseline: anchoring there keeps - and + at their own height.
    ImageDraw.Draw(mask).text((side_px / 2, side_px / 2 + height_px / 2), char, fill=255, font=font, anchor="ms")
    return mask if face.is_plain else _bent(mask, face, height_px)


def _bent(mask: Image.Image, face: Face, height_px: float) -> Image.Image:
    """The same character stretched, slanted and waved, its strokes thicker or thinner."""
    side_px = mask.width
    row, column = np.mgrid[:side_px, :side_px].astype(np.float32) - side_px / 2
    wave_px = face.wave * height_px * np.sin(row / height_px * 2 * np.pi * face.waves + face.phase_rad)
    from_column = (column + face.slant * row - wave_px) / face.stretch + side_px / 2
    blurred = cv2.GaussianBlur(np.asarray(mask), (0, 0), sigmaX=face.softness * height_px)
    bent = cv2.remap(blurred, from_column.astype(np.float32), row + np.float32(side_px / 2), cv2.INTER_LINEAR)
    if not bent.any():
        return mask  # what the typeface does not have is found missing by the caller
    # Where a blurred stroke is called ink decides how thick it is; none is so thin that it is gone.
    threshold = min(face.threshold, 0.6 * float(bent.max()) / 255)
    ink = np.clip((bent.astype(np.float32) / 255 - threshold) * 8 + 0.5, 0, 1)
    return Image.fromarray((ink * 255).astype(np.uint8))


@cache
def _font(typeface: str, size_px: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font_file(typeface), size_px)
