"""The built-in, offline backend: optical character recognition on the board and the cards, geometry for the rest.

It is no vision-language model and its provenance says so. The board is read twice without knowledge of cards or
answer: once recognised on the straightened board of one frame, once found by text detection in a loose crop of another
frame at another scale. What can not be read is None.
"""

from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotators.arithmetic import canonical, canonical_number
from annotators.papers import Layout, Paper, Pixels, enlarged, rectified

_LEAST_SCORE = 0.5
_BOARD_HEIGHT = 120
_LOOSE_HEIGHT = 192
_LOOSE_MARGIN = 0.15
# Height, room at both sides, and contrast of three looks at one card, all in pixels but the last. Recognition expects a
# line, not a square: the room keeps a lone digit from being stretched.
_CARD_LOOKS = ((64, 40, 1.8), (40, 60, 1.0), (64, 90, 1.0))
_BOARD_INSET = 0.06  # of the sides: drops the frame around the board
_CARD_INSET = 0.15  # drops the card's edge and its shadow
# Text detection works on pictures enlarged to at least so many pixels. 160 reads 48 of 48 rendered boards in 0.05 s;
# the library's 736 splits some equations, reads 45 and takes 0.7 s.
_DETECTION_SIDE = 160


def model_name() -> str:
    """What provenance calls this backend."""
    return f"rapidocr-{version('rapidocr')}+perception@2"


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardReadings:
    """Two readings of one board, canonical (`4+1`), each None where it could not be read."""

    first: str | None
    second: str | None


class Reader:
    """The OCR engine; loading takes about a second, so one per worker."""

    def __init__(self) -> None:
        import logging

        from rapidocr import RapidOCR

        logging.getLogger("RapidOCR").setLevel(logging.ERROR)
        self._engine = RapidOCR(
            params={
                "Global.log_level": "error",
                "Det.limit_side_len": _DETECTION_SIDE,
                "Det.limit_type": "min",
                # Workers share the machine: one thread each, or they fight over the cores.
                "EngineConfig.onnxruntime.intra_op_num_threads": 1,
                "EngineConfig.onnxruntime.inter_op_num_threads": 1,
            }
        )

    def line(self, crop: Pixels) -> str | None:
        """The one line of text a crop holds."""
        found = self._engine(_bgr(crop), use_det=False, use_cls=False, use_rec=True)
        if not found.txts or not found.txts[0].strip() or found.scores[0] < _LEAST_SCORE:
            return None
        return str(found.txts[0])

    def found_line(self, crop: Pixels) -> str | None:
        """The text inside a crop, wherever it stands: everything detected is read as one line."""
        found: Any = self._engine(_bgr(crop), use_det=True, use_cls=False, use_rec=False)
        if found.boxes is None or not len(found.boxes):
            return None
        corners = np.asarray(found.boxes).reshape(-1, 2)
        (x0, y0), (x1, y1) = corners.min(axis=0).astype(int), corners.max(axis=0).astype(int)
        return self.line(crop[max(0, y0 - 4) : y1 + 4, max(0, x0 - 8) : x1 + 8])

    def board(self, tight: Pixels, loose: Pixels) -> BoardReadings:
        """Read one board twice, see `board_crops`."""
        return BoardReadings(first=canonical(self.line(tight)), second=canonical(self.found_line(loose)))

    def card(self, frame: Pixels, card: Paper) -> str | None:
        """The number on one card: two looks that agree, or the majority of three. One look alone reads 11 as 1."""
        looks = (canonical_number(self.line(_card_line(frame, card, *look))) for look in _CARD_LOOKS)
        first, second = next(looks), next(looks)
        if first == second:
            return first
        third = next(looks)
        return third if third in (first, second) else None


def _card_line(frame: Pixels, card: Paper, height: int, room: int, contrast: float) -> Pixels:
    """A card straightened, its ink darkened, on a strip of its own paper."""
    straight = rectified(frame, card, height=height, inset=_CARD_INSET).astype(np.float64)
    inked = np.clip(255.0 - (255.0 - straight) * contrast, 0, 255).astype(np.uint8)
    paper = int(np.median(inked))
    return np.pad(inked, ((6, 6), (room, room), (0, 0)), mode="constant", constant_values=paper)


def board_crops(first: Pixels, second: Pixels, board: Paper, board_again: Paper) -> tuple[Pixels, Pixels]:
    """Two crops of one board: straightened and tight from one frame, upright and loose from another."""
    return (
        rectified(first, board, height=_BOARD_HEIGHT, inset=_BOARD_INSET),
        enlarged(second, board_again.box(second.shape, _LOOSE_MARGIN), height=_LOOSE_HEIGHT),
    )


def same_board(layout: Layout, board: Paper) -> bool:
    """True where `layout` shows the board in the same place and whole: nothing stands in front of it."""
    other = layout.board
    if other is None:
        return False
    apart = np.hypot(other.x - board.x, other.y - board.y)
    return bool(apart < 0.05 * board.width and 0.9 < other.area / board.area < 1.1)


def _bgr(crop: Pixels) -> NDArray[np.uint8]:
    return np.ascontiguousarray(crop[:, :, ::-1])
