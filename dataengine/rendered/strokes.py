"""Characters as strokes of a pen: what pens write, and what drawn typefaces dress up."""

from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from dataengine.rendered.hands import Nib, Pen
from dataengine.rendered.keyed import keyed_rng

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

# Where a typeface adds to strokes: which stroke, its first or last point, and a foot to stand on, a tick at a bar's
# end, or a drop at a curve's.
_ENDS: dict[str, tuple[tuple[int, Literal[0, -1], Literal["foot", "tick", "drop"]], ...]] = {
    "1": ((0, -1, "foot"), (0, 0, "foot")),
    "1 flagged": ((0, -1, "foot"),),
    "2": ((0, 0, "drop"), (0, -1, "tick")),
    "3": ((0, 0, "drop"), (0, -1, "drop")),
    "4": ((1, -1, "foot"),),
    "4 open": ((1, -1, "foot"),),
    "5": ((0, 0, "tick"), (0, -1, "drop")),
    "6": ((0, 0, "drop"),),
    "7": ((0, 0, "tick"),),
    "7 barred": ((0, 0, "tick"),),
    "9": ((0, -1, "drop"),),
    "x": ((0, 0, "foot"), (0, -1, "foot"), (1, 0, "foot"), (1, -1, "foot")),
    "?": ((0, 0, "drop"),),
}


def pen_mask(char: str, pen: Pen, height_px: float, rng: np.random.Generator) -> Image.Image:
    """A character as a pen writes it, each time a little otherwise: ink in the middle of a square mask."""
    side_px = int(height_px * 1.7)
    mask = Image.new("L", (side_px, side_px), 0)
    draw = ImageDraw.Draw(mask)
    radius_px = pen.stroke * height_px * rng.uniform(0.9, 1.1) / 2
    for stroke in _GLYPHS[_form(char, pen)]:
        path = _smooth(_moved(np.asarray(stroke), pen.wobble, rng))
        x_px = side_px / 2 + ((path[:, 0] - 0.5) * pen.aspect + (0.5 - path[:, 1]) * pen.slant) * height_px
        y_px = side_px / 2 + (path[:, 1] - 0.5) * (height_px - 2 * radius_px)
        for x, y in zip(x_px, y_px, strict=True):
            draw.ellipse((x - radius_px, y - radius_px, x + radius_px, y + radius_px), fill=255)
    return mask


def nib_mask(char: str, nib: Nib, height_px: float, rng: np.random.Generator) -> Image.Image:
    """A character of a drawn typeface: ink in the middle of a square mask."""
    side_px = int(height_px * 1.7)
    mask = Image.new("L", (side_px, side_px), 0)
    draw = ImageDraw.Draw(mask)
    form = _form(char, nib.pen)
    thick_px = nib.pen.stroke * height_px / 2
    shape = keyed_rng("nib form", nib.number, form)
    paths = [
        _smooth(_moved(_moved(np.asarray(stroke), nib.reshaping, shape), nib.pen.wobble, rng))
        for stroke in _GLYPHS[form]
    ]
    placed = [
        np.stack(
            [
                side_px / 2 + ((path[:, 0] - 0.5) * nib.pen.aspect + (0.5 - path[:, 1]) * nib.pen.slant) * height_px,
                side_px / 2 + (path[:, 1] - 0.5) * (height_px - 2 * thick_px),
            ],
            axis=1,
        )
        for path in paths
    ]
    thin_px = thick_px * max(nib.thin, 0.4)
    for path in placed:
        across = np.gradient(path, axis=0)
        angle = np.arctan2(across[:, 1], across[:, 0]) - nib.tilt_rad
        share = np.full(len(path), 0.5) if char in "+-=" else np.abs(np.sin(angle))  # signs are as wide all over
        _dab(draw, path, thick_px * (nib.thin + (1 - nib.thin) * share))
    for number, end, kind in _ENDS.get(form, ()):
        at = placed[number][end]
        match kind:
            case "foot" if nib.foot:
                wide = nib.foot * (0.5 if char == "x" else 1.0) * height_px
                along = np.linspace(-0.5, 0.5, 30)[:, None] * (wide, 0.0)
                _dab(draw, at + along, np.full(30, thin_px))
            case "tick" if nib.foot:
                inward = np.sign(side_px / 2 - at[1])
                along = np.linspace(0, 0.6, 20)[:, None] * (0.0, inward * nib.foot * height_px)
                _dab(draw, at + along, np.full(20, thin_px))
            case "drop" if nib.drop:
                _dab(draw, at[None], np.array([thick_px * nib.drop]))
    return mask


def _dab(draw: ImageDraw.ImageDraw, path: NDArray[np.float64], radius_px: NDArray[np.float64]) -> None:
    """Ink along a path, (N, 2), as wide as each of its points says."""
    for (x, y), radius in zip(path, radius_px, strict=True):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)


def _moved(points: NDArray[np.float64], by: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Every point a little elsewhere; where the pen turns a corner it still does."""
    moved = points + rng.normal(0.0, by, points.shape)
    same = np.all(np.diff(points, axis=0) == 0, axis=1)
    moved[1:][same] = moved[:-1][same]
    return moved


def _form(char: str, pen: Pen) -> str:
    """Which of a character's forms a pen writes."""
    match char:
        case "1" if pen.flagged_one:
            return "1 flagged"
        case "4" if pen.open_four:
            return "4 open"
        case "7" if pen.barred_seven:
            return "7 barred"
        case _:
            return char


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
