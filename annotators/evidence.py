"""What programs saw in an episode, independent of what any proposal says about it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from annotators.open_scenes import OpenScene
from annotators.papers import POSITIONS, Box, Layout, Paper, Pixels, find_papers, lay_out
from annotators.perception import BoardReadings
from annotators.placements import PlacementSeen
from schemas.annotations import GripperEvent, Position
from schemas.scenes import PictureRef

Slot = Literal["full", "empty", "hidden"]
_SAME_PLACE = 0.5  # of a card's width: a card that was only nudged still fills its slot
_TABLE_LIKE = 42.0  # RGB distance between an empty slot and the table beside it; a shadow or an arm is further


@dataclass(frozen=True, slots=True, kw_only=True)
class PickEvidence:
    """What became of the three places where cards lay, seen in one frame after the last release."""

    frame: int
    slots: tuple[Slot, ...]  # left to right
    moved_text: str | None  # the number on the card that now lies elsewhere, if it can be read
    landed: Box | None = None  # where that card lies in `frame`

    @property
    def empty(self) -> tuple[Position, ...]:
        """The places whose card is gone."""
        return tuple(place for place, slot in zip(POSITIONS, self.slots, strict=True) if slot == "empty")


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSeen:
    """Where programs found the board and the cards, in one picture from before the first grasp."""

    picture: PictureRef
    board: Box | None
    cards: tuple[Box, ...]  # left to right


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything the verifiers may look at; None means nobody could see it."""

    rate_hz: int
    readings: BoardReadings | None = None
    cards_read: tuple[str, ...] | None = None  # the texts of the cards, as they were read
    metadata: Mapping[str, str] | None = None  # what was noted when the episode was collected: task, scene, ...
    pick: PickEvidence | None = None
    table: TableSeen | None = None  # None where nobody looked for board and cards
    grasp: PickEvidence | None = None  # the same places while the card is carried
    held: tuple[tuple[int, str | None], ...] | None = None  # (start of a grasp, what a blind look says is held)
    events: tuple[GripperEvent, ...] | None = None  # measured
    commanded: tuple[GripperEvent, ...] | None = None  # what the end effectors were told to do
    board_frames: tuple[int, int] | None = None  # the frames in which the two readings saw the board
    stamps_ns: NDArray[np.int64] | None = field(default=None, compare=False)  # of the episode's rows
    end_effectors: tuple[str, ...] | None = None  # the rig's names for them
    moves_over: Callable[[int, int, str], tuple[str, ...]] | None = field(default=None, compare=False)
    frame_size: tuple[int, int] | None = None  # width, height of what boxes are given in
    task: str = ""  # the instruction, as recorded
    placement: PlacementSeen | None = field(default=None, compare=False)
    scene: OpenScene | None = field(default=None, compare=False)  # None where nobody looked for just anything
    executed: tuple[str, ...] | None = None  # labels of what the joints did, in order


def find_pick(
    before: Pixels,
    layout: Layout,
    later_frames: Sequence[int],
    frame_at: Callable[[int], Pixels],
    read_card: Callable[[Pixels, Paper], str | None],
) -> PickEvidence | None:
    """Which card left its place: look at `later_frames` in turn until no slot is hidden; None without three cards."""
    if len(layout.cards) != len(POSITIONS):
        return None
    best: PickEvidence | None = None
    for index in later_frames:
        frame = frame_at(index)
        papers = lay_out(find_papers(frame))
        slots = tuple(_slot(before, frame, card, papers) for card in layout.cards)
        moved = _moved(papers, layout)
        seen = PickEvidence(
            frame=index,
            slots=slots,
            moved_text=read_card(frame, moved) if moved else None,
            landed=moved.box(frame.shape) if moved else None,
        )
        if best is None or _clarity(seen) > _clarity(best):
            best = seen
        if "hidden" not in slots and (seen.moved_text or "empty" not in slots):
            break
    return best


def _clarity(seen: PickEvidence) -> tuple[int, bool]:
    return (-seen.slots.count("hidden"), seen.moved_text is not None)


def _slot(before: Pixels, frame: Pixels, card: Paper, papers: Layout) -> Slot:
    if any(_near(paper, card) for paper in papers.cards):
        return "full"
    now = _median_colour(frame, card)
    return "empty" if float(np.linalg.norm(now - _table_colour(before, card))) < _TABLE_LIKE else "hidden"


def _near(paper: Paper, card: Paper) -> bool:
    return float(np.hypot(paper.x - card.x, paper.y - card.y)) < _SAME_PLACE * card.width


def _median_colour(frame: Pixels, card: Paper) -> NDArray[np.float64]:
    x0, y0, x1, y1 = card.box(frame.shape)
    return np.asarray(np.median(frame[y0:y1, x0:x1].reshape(-1, 3), axis=0))


def _table_colour(before: Pixels, card: Paper) -> NDArray[np.float64]:
    """What the table looks like around a card that still lies there."""
    x0, y0, x1, y1 = card.box(before.shape, 0.5)
    a0, b0, a1, b1 = card.box(before.shape, 0.12)
    ring = np.ones((y1 - y0, x1 - x0), dtype=bool)
    ring[b0 - y0 : b1 - y0, a0 - x0 : a1 - x0] = False
    return np.asarray(np.median(before[y0:y1, x0:x1][ring], axis=0))


def _moved(papers: Layout, layout: Layout) -> Paper | None:
    """The one card that lies where no card lay before."""
    moved = [paper for paper in papers.cards if not any(_near(paper, card) for card in layout.cards)]
    return moved[0] if len(moved) == 1 else None
