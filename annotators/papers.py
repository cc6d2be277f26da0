"""Where the board and the cards are: white rectangles, found by colour and shape, in the pixels of one camera.

Paper is the brightest colourless thing on the table. The board is the largest rectangle of it, the cards are the others
of about one size; left, middle and right are their order in x as the camera, and with it the robot, sees them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from schemas.annotations import Position

Pixels = NDArray[np.uint8]  # (height, width, 3) upright RGB
Box = tuple[int, int, int, int]  # x0, y0, x1, y1; half-open
POSITIONS: tuple[Position, ...] = ("left", "middle", "right")
_LEAST_WHITE = 170  # the darkest channel of paper in ordinary light
_WHITE_OF_BRIGHTEST = 0.82  # of the picture's brightest decile: in dim light paper is grey
_MOST_COLOUR = 45  # largest minus smallest channel of something colourless
_LEAST_AREA = 0.0008  # of the picture
_LEAST_WHOLE = 0.6  # of its hull: less is no piece of paper
_LEAST_FILL = 0.78  # area over area of the enclosing turned rectangle: hands and glare are no rectangles
_BOARD_OVER_CARD = 2.5  # a board is at least so many times a card
_CARD_SPREAD = 2.2  # cards differ in size at most so much: perspective, not kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Paper:
    """One white rectangle: centre, sides (long edge across), and turn about the view axis in degrees."""

    x: float
    y: float
    width: float
    height: float
    turn_deg: float

    @property
    def area(self) -> float:
        """Square pixels."""
        return self.width * self.height

    def box(self, shape: Sequence[int], margin: float = 0.0) -> Box:
        """The upright box around it, widened by a share of its height and cut to the picture of `shape`."""
        corners = cv2.boxPoints(((self.x, self.y), (self.width, self.height), self.turn_deg))
        more = margin * self.height
        x0, y0 = np.floor(corners.min(axis=0) - more)
        x1, y1 = np.ceil(corners.max(axis=0) + more + 1)
        return (max(0, int(x0)), max(0, int(y0)), min(shape[1], int(x1)), min(shape[0], int(y1)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The board, if seen, and the cards from left to right."""

    board: Paper | None
    cards: tuple[Paper, ...]

    def position(self, index: int) -> Position:
        """Left, middle or right of the card `index`; unknown unless there are exactly three."""
        return POSITIONS[index] if len(self.cards) == len(POSITIONS) else "unknown"


def find_papers(frame: Pixels) -> tuple[Paper, ...]:
    """All white rectangles, largest first."""
    channels = frame.astype(np.int16)
    low, high = channels.min(axis=2), channels.max(axis=2)
    least = max(_LEAST_WHITE * 0.6, min(_LEAST_WHITE, _WHITE_OF_BRIGHTEST * float(np.percentile(low, 99))))
    mask = ((low >= least) & (high - low <= _MOST_COLOUR)).astype(np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    papers = [paper for contour in contours if (paper := _paper(contour, frame.shape)) is not None]
    return tuple(sorted(papers, key=lambda paper: -paper.area))


def _paper(contour: NDArray[np.int32], shape: Sequence[int]) -> Paper | None:
    # The hull, because a digit that touches the edge of a small card bites a notch out of its outline.
    area = cv2.contourArea(cv2.convexHull(contour))
    if area < _LEAST_AREA * shape[0] * shape[1]:
        return None
    (x, y), (width, height), turn_deg = cv2.minAreaRect(contour)
    if min(width, height) < 4:
        return None
    if cv2.contourArea(contour) < _LEAST_WHOLE * area or area / (width * height) < _LEAST_FILL:
        return None
    # The paper lies within 45 degrees of upright: of the four ways to say one rectangle, take the least turned.
    quarter = round(turn_deg / 90)
    if quarter % 2:
        width, height = height, width
    return Paper(x=x, y=y, width=width, height=height, turn_deg=turn_deg - 90 * quarter)


def lay_out(papers: Sequence[Paper]) -> Layout:
    """Tell the board from the cards. Without a rectangle that stands out in size there is no board."""
    if not papers:
        return Layout(board=None, cards=())
    board = papers[0] if len(papers) == 1 or papers[0].area >= _BOARD_OVER_CARD * papers[1].area else None
    rest = papers[1:] if board else papers
    if not rest:
        return Layout(board=board, cards=())
    typical = float(np.median([paper.area for paper in rest[: len(POSITIONS)]]))
    cards = [paper for paper in rest if typical / _CARD_SPREAD <= paper.area <= typical * _CARD_SPREAD]
    return Layout(board=board, cards=tuple(sorted(cards, key=lambda paper: paper.x)))


def rectified(frame: Pixels, paper: Paper, *, height: int, inset: float) -> Pixels:
    """The paper as if looked at straight, `height` pixels high, cut in by a share `inset` of its sides."""
    turn = np.deg2rad(paper.turn_deg)
    across = np.array([np.cos(turn), np.sin(turn)]) * paper.width * (1 - inset) / 2
    down = np.array([-np.sin(turn), np.cos(turn)]) * paper.height * (1 - inset) / 2
    centre = np.array([paper.x, paper.y])
    width = max(1, round(height * paper.width / paper.height))
    source = np.array([centre - across - down, centre + across - down, centre - across + down], np.float32)
    target = np.array([[0, 0], [width, 0], [0, height]], np.float32)
    matrix = cv2.getAffineTransform(source, target)
    return np.asarray(
        cv2.warpAffine(frame, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE),
        np.uint8,
    )


def enlarged(frame: Pixels, box: Box, *, height: int) -> Pixels:
    """An upright crop scaled to `height` pixels."""
    x0, y0, x1, y1 = box
    scale = height / max(1, y1 - y0)
    size = (max(1, round((x1 - x0) * scale)), height)
    return np.asarray(cv2.resize(frame[y0:y1, x0:x1], size, interpolation=cv2.INTER_CUBIC), np.uint8)


def cards_box(shape: Sequence[int], cards: Sequence[Paper]) -> Box:
    """One upright box that holds all cards, with a margin."""
    boxes = np.array([card.box(shape, 0.5) for card in cards])
    (x0, y0), (x1, y1) = boxes[:, :2].min(axis=0).tolist(), boxes[:, 2:].max(axis=0).tolist()
    return (x0, y0, x1, y1)
