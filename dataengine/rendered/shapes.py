"""Flat shapes: everything on the table is drawn as filled polygons, seen through the camera."""

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from dataengine.rendered.camera import Points

Rgb = tuple[int, int, int]
Picture = NDArray[np.uint8]
_CORNERS = np.array([(x, y, z) for z in (-1.0, 1.0) for x, y in ((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0))])
_CIRCLE = np.stack([np.cos(np.arange(12) * np.pi / 6), np.sin(np.arange(12) * np.pi / 6)], axis=1)
_SHIFT = 4  # cv2 takes fixed-point corners: 1/16 px


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shape:
    """One convex polygon, (N, 2) pixels, in one colour."""

    corners_px: Points
    colour: Rgb
    outline: bool = True  # False: it lies inside of the shape before it


def fill(picture: Picture, corners_px: Points, colour: Rgb | int) -> None:
    """Fill a convex polygon with hard edges, as the tabletop's renderer does."""
    fixed = (corners_px * (1 << _SHIFT) + 0.5).astype(np.int32)
    cv2.fillConvexPoly(picture, fixed, colour if isinstance(colour, tuple) else (colour,), cv2.LINE_8, _SHIFT)


def hull(corners_px: Points) -> Points:
    """The convex hull of points, (N, 2)."""
    return np.asarray(cv2.convexHull(corners_px.astype(np.float32))[:, 0], dtype=np.float64)


def box_corners(centre_m: Points, half_m: tuple[float, float, float], yaw_rad: float) -> Points:
    """(8, 3): the four lower corners, then the four upper ones, each in turning order."""
    cos, sin = np.cos(yaw_rad), np.sin(yaw_rad)
    # Rows turn a corner's (x, y, z) about the vertical and scale it to the box.
    shape = np.array([[half_m[0] * cos, half_m[0] * sin, 0], [-half_m[1] * sin, half_m[1] * cos, 0], [0, 0, half_m[2]]])
    return np.asarray(_CORNERS @ shape + centre_m, dtype=np.float64)


def box(corners_px: Points, *, side: Rgb, top: Rgb) -> list[Shape]:
    """A box from above, (8, 2) as `box_corners` orders them: its outline, then its upper face."""
    return [
        Shape(corners_px=hull(corners_px), colour=side),
        Shape(corners_px=corners_px[4:], colour=top, outline=False),
    ]


def capsule(ends_px: Points, radii_px: Points, colour: Rgb) -> list[Shape]:
    """A rod with round ends, and a lighter stripe along its middle; (2, 2) and (2,)."""
    rims = _CIRCLE * radii_px[:, None, None]
    outer, inner = (hull((ends_px[:, None] + width * rims).reshape(-1, 2)) for width in (1.0, 0.72))
    return [
        Shape(corners_px=outer, colour=shaded(colour, 0.72)),
        Shape(corners_px=inner, colour=colour, outline=False),
    ]


@cache
def shaded(colour: Rgb, gain: float) -> Rgb:
    """A colour made darker or lighter."""
    red, green, blue = (min(255, round(channel * gain)) for channel in colour)
    return red, green, blue


def on_floor(points_m: Points, light: tuple[float, float]) -> Points:
    """Where the shadow of points falls on the table; `light` is metres of shadow per metre of height."""
    height_m = points_m[:, 2:]
    return np.concatenate([points_m[:, :2] + height_m * np.array(light), np.zeros_like(height_m)], axis=1)
