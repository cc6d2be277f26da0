"""Pictures full of characters: what the vision tower learns to see from before it is asked about boards.

A picture of the table shows seven characters; one of these shows fifty, in every size that boards and cards have.
No equation stands on them: an operator is never written between two numbers.
"""

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dataengine.rendered.boards import paste
from dataengine.rendered.closeup import INKS, PAPER, WALLS
from dataengine.rendered.equations import Split
from dataengine.rendered.handwriting import INK
from dataengine.rendered.items import FULL, PICTURE_SIZE, Difficulty, Glyph
from dataengine.rendered.keyed import keyed_rng
from dataengine.rendered.styles import draw_style
from dataengine.rendered.weather import weathered
from dataengine.rendered.writing import write_line

_DIGITS, _SIGNS = "0123456789", "+-x()=?"
_SIGN_SHARE = 0.3
_SMALLEST_PX, _TALLEST_PX = 9.0, 90.0  # of a character: a card's digit, a close-up's
_EQUATION = re.compile(r"\d\)*[-+x]\(*\d")
_OVERSAMPLE = 2  # sheets are written larger than they show, as boards are


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sheet:
    """A picture, (240, 320, 3) upright RGB, and every character in it."""

    picture: NDArray[np.uint8]
    glyphs: tuple[Glyph, ...]


def render_sheet(*, split: Split, seed: int, row: int, difficulty: Difficulty = FULL) -> Sheet:
    """Papers with random characters all over the picture: a pure function of its arguments."""
    rng = keyed_rng("sheet", split, seed, row)
    width, height = PICTURE_SIZE
    picture = np.empty((height, width, 3), dtype=np.uint8)
    picture[:] = WALLS[int(rng.integers(len(WALLS)))] if rng.random() < difficulty.styles else WALLS[0]
    glyphs: list[Glyph] = []
    tall_px = float(np.exp(rng.uniform(np.log(_SMALLEST_PX), np.log(_TALLEST_PX))))
    top_px = float(rng.uniform(0, 6))
    while top_px + 1.5 * tall_px < height:
        line_px = min(_TALLEST_PX, max(_SMALLEST_PX, tall_px * float(rng.uniform(0.75, 1.3))))
        paper_px = line_px * float(rng.uniform(1.3, 2.0))
        left_px = float(rng.uniform(0, 10))
        while True:
            text = random_text(int(rng.integers(1, 6)), rng)
            wide_px = line_px * (0.75 * len(text) + float(rng.uniform(0.4, 1.2)))
            if left_px + wide_px > width or top_px + paper_px > height:
                break
            right_px, low_px = left_px + wide_px, top_px + paper_px
            box = np.array([(left_px, top_px), (right_px, top_px), (right_px, low_px), (left_px, low_px)])
            box += difficulty.geometry * 0.07 * paper_px * rng.uniform(-1, 1, (4, 2))
            ink = INKS[int(rng.integers(len(INKS)))] if rng.random() < difficulty.styles else INK
            size = (round(_OVERSAMPLE * paper_px), round(_OVERSAMPLE * wide_px))
            sheet = np.zeros(size, dtype=np.uint8)
            marks = write_line(
                sheet,
                text,
                style=draw_style(split, share=difficulty.styles, hands=difficulty.hands, rng=rng),
                height_px=_OVERSAMPLE * line_px,
                centre_px=(size[1] / 2, size[0] / 2),
                max_width_px=0.94 * size[1],
                rng=rng,
            )
            glyphs += paste(picture, sheet, marks, box, paper=PAPER, ink=ink)
            left_px += wide_px + float(rng.uniform(0.2, 1.5)) * line_px
        top_px += paper_px + float(rng.uniform(0.05, 0.5)) * line_px
    return Sheet(picture=weathered(picture, strength=difficulty.weather, rng=rng), glyphs=tuple(glyphs))


def random_text(length: int, rng: np.random.Generator) -> str:
    """Characters of boards and cards in no order, and never an equation."""
    while True:
        signs = rng.random(length) < _SIGN_SHARE
        text = "".join(
            _SIGNS[int(rng.integers(len(_SIGNS)))] if sign else _DIGITS[int(rng.integers(len(_DIGITS)))]
            for sign in signs
        )
        if not _EQUATION.search(text):
            return text
