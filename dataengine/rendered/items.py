"""One question about one rendered picture."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

PICTURE_SIZE = (320, 240)  # width, height

type Skill = Literal[
    "transcribe",
    "solve",
    "cards",
    "choice",
    "trace",
    "count",
    "colour",
    "relation",
    "point",
    "gripper",
    "refusal",
]
SKILLS: tuple[Skill, ...] = get_args(Skill.__value__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Glyph:
    """One drawn character and the centre of its ink in the finished picture."""

    char: str
    x_px: float
    y_px: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Item:
    """A picture, (240, 320, 3) upright RGB, a question about it and the one right answer.

    `glyphs` are the characters that can be seen; `point_px` is (column, row) of what a point question asks for.
    """

    row_id: str
    skill: Skill
    picture: NDArray[np.uint8]
    question: str
    answer: str
    glyphs: tuple[Glyph, ...]
    point_px: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        width, height = PICTURE_SIZE
        if self.picture.shape != (height, width, 3) or self.picture.dtype != np.uint8:
            raise ValueError(f"{self.row_id}: a picture is ({height}, {width}, 3) uint8, got {self.picture.shape}.")
        if (self.point_px is not None) != (self.skill == "point"):
            raise ValueError(f"{self.row_id}: a point question, and no other, has a point.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Difficulty:
    """How much of what varies may vary, each from 0 (nothing) to 1 (all); a curriculum raises them."""

    styles: float  # share of the handwriting styles
    equations: float  # 0: sums of one-digit numbers; 1: also - and x, two digits, brackets
    geometry: float  # perspective, scale, position, where cards and arms are
    weather: float  # blur, noise, glare, an arm in the way of a close-up
    hands: float = 0.0  # share of what is written in a drawn hand, see `hands`; of training alone
    brackets: float = 0.0  # share of boards that have brackets for certain, beside those that `equations` brings

    def __post_init__(self) -> None:
        for name in ("styles", "equations", "geometry", "weather", "hands", "brackets"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"Difficulty.{name} lies in 0..1, got {value}.")


EASY = Difficulty(styles=0, equations=0, geometry=0, weather=0)
FULL = Difficulty(styles=1, equations=1, geometry=1, weather=1)
