"""What lies on a table, by colour and outline: plain things of one colour each, in the pixels of one camera.

A colour is a range of hues, a shape is how a blob fills the turned rectangle and the circle around it. What fits no
shape is a "thing": its colour is said, its shape is not guessed. Blobs of the robot's own hues are left out, and so is
whatever reaches over the edge of the picture, as an arm does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from annotators.papers import Box, Pixels
from schemas.scenes import FrameOfReference

# Hue ranges in degrees; red goes through zero.
_HUES_DEG: tuple[tuple[str, float, float], ...] = (
    ("red", -16, 14),
    ("orange", 14, 44),
    ("yellow", 44, 72),
    ("green", 72, 160),
    ("teal", 160, 196),
    ("blue", 196, 258),
    ("purple", 258, 304),
    ("pink", 304, 344),
)
WHITE = "white"
COLOURS = (*(name for name, _, _ in _HUES_DEG), WHITE)
SHAPES = ("box", "cylinder", "bar", "disc", "tray")
CONTAINERS = frozenset({"tray"})  # what a thing can lie in, rather than on
UNSHAPED = "thing"
_LEAST_SATURATION = 105  # of 255: wood and skin are below, painted toys above
_LEAST_VALUE = 45
_WHITE_SATURATION, _WHITE_VALUE = 34, 190
_LEAST_AREA = 0.001  # of the picture
_LEAST_WHOLE = 0.75  # of its hull: less is no single thing
# Shares of the picture's height: what is wider than a hand is a tray, what is round and flat is wider than a cylinder.
_TRAY_SIDE, _DISC_SIDE = 0.165, 0.099
_BAR_ASPECT = 1.5
# Shares of the turned rectangle and of the circle around it. 93 things of 28 rendered tables, 20 pixels high: boxes
# fill 0.88 to 0.98 of the one and 0.65 to 0.77 of the other, cylinders and discs 0.78 to 0.87 and 0.82 to 0.95.
_SQUARE_FILL, _ROUNDNESS = 0.878, 0.785


class ThingsView(BaseModel):
    """How a family wants things looked for: part of its `family.yaml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    frame_of_reference: FrameOfReference = "robot"
    # Where the camera looks from: the robot's side of the table, or the opposite one, whose left is the robot's right.
    seen_from: Literal["robot", "opposite"] = "robot"
    robot_hues_deg: tuple[tuple[float, float], ...] = ()

    def is_turned_for(self, frame: FrameOfReference) -> bool:
        """True where left and near in the picture are right and far in a frame of reference."""
        return frame == "robot" and self.seen_from == "opposite"

    @property
    def is_turned(self) -> bool:
        """True where they are in the family's own."""
        return self.is_turned_for(self.frame_of_reference)


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """One blob: its colour, its shape or UNSHAPED, the upright box around it, and its middle."""

    colour: str
    shape: str
    box: Box
    x: float
    y: float

    @property
    def noun(self) -> str:
        """`red box`; `red thing` where the shape can not be told."""
        return f"{self.colour} {self.shape}"

    @property
    def size(self) -> float:
        """The shorter side of its box."""
        return float(min(self.box[2] - self.box[0], self.box[3] - self.box[1]))


def find_things(frame: Pixels, view: ThingsView) -> tuple[Thing, ...]:
    """Everything of one colour that lies wholly inside the picture, from left to right."""
    hue_deg, saturation, value = _hsv(frame)
    coloured = (saturation >= _LEAST_SATURATION) & (value >= _LEAST_VALUE)
    for low, high in view.robot_hues_deg:
        coloured &= ~_between(hue_deg, low, high)
    masks = [(name, coloured & _between(hue_deg, low, high)) for name, low, high in _HUES_DEG]
    masks.append((WHITE, (saturation <= _WHITE_SATURATION) & (value >= _WHITE_VALUE)))
    found = [thing for name, mask in masks for thing in _blobs(name, mask)]
    return tuple(sorted(found, key=lambda thing: thing.x))


def _hsv(frame: Pixels) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.uint8]]:
    hsv = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2HSV)
    return hsv[..., 0].astype(np.float32) * 2, hsv[..., 1], hsv[..., 2]


def _between(hue_deg: NDArray[np.float32], low: float, high: float) -> NDArray[np.bool_]:
    return np.asarray((hue_deg - low) % 360 < high - low)


def _blobs(colour: str, mask: NDArray[np.bool_]) -> list[Thing]:
    height, width = mask.shape
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    found = []
    for contour in contours:
        x0, y0, wide, high = cv2.boundingRect(contour)
        box = (x0, y0, x0 + wide, y0 + high)
        hull = cv2.convexHull(contour)
        area = cv2.contourArea(hull)
        if area < _LEAST_AREA * height * width or cv2.contourArea(contour) < _LEAST_WHOLE * area:
            continue
        if x0 == 0 or y0 == 0 or box[2] == width or box[3] == height:
            continue
        (x, y), sides, _ = cv2.minAreaRect(contour)
        shape = _shape(sides, area, cv2.minEnclosingCircle(contour)[1], height)
        if colour == WHITE and shape != "tray":  # small white blobs are glare and fingertips
            continue
        found.append(Thing(colour=colour, shape=shape, box=box, x=x, y=y))
    return found


def _shape(sides: Sequence[float], area: float, radius: float, height: int) -> str:
    short, long = sorted(sides)
    if short < 4:
        return UNSHAPED
    fill = area / (short * long)
    if short >= _TRAY_SIDE * height:
        return "tray" if fill >= _SQUARE_FILL else UNSHAPED
    if long >= _BAR_ASPECT * short:
        return "bar" if fill >= _SQUARE_FILL else UNSHAPED
    roundness = area / (np.pi * radius**2)
    if fill >= _SQUARE_FILL and roundness < _ROUNDNESS:
        return "box"
    if fill < _SQUARE_FILL and roundness >= _ROUNDNESS:
        return "disc" if short >= _DISC_SIDE * height else "cylinder"
    return UNSHAPED
