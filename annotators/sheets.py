"""Contact sheets: what a model is shown of a whole episode, each picture under a bar that says when it was taken.

The bar stands above the pixels, never over them, and is large enough to be read back by character recognition: stamps
too small to read move a model's boundaries. A collage sets three full-size pictures around one moment side by side.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from annotators.papers import Pixels
from schemas.annotations import SegmentList
from schemas.errors import EpisodeError
from schemas.spans import NS_PER_S

_TILE_WIDTH = 320
_BAR_HEIGHT = 36
_COLUMNS, _ROWS = 4, 3
_LOOK_EVERY_S = 2.0  # within a segment that lasts longer
_MOST_TILES = 2 * _COLUMNS * _ROWS
_GAP = 4
_BESIDE_S = 0.5  # before and after the moment of a collage
_GROUND = 235
_JPEG_QUALITY = 90


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One picture of a sheet: which row of the episode, and what its bar says."""

    index: int
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheets:
    """What a model is shown of one episode."""

    pictures: dict[str, bytes]  # sheet_1, ..., grasp_1, ...: JPEG
    frames: dict[str, int]  # the row in the middle of each segment, by segment_1, ...
    grasps: dict[str, int]  # grasp_1, ... -> start_ns of its segment


def make_sheets(segments: SegmentList, stamps_ns: NDArray[np.int64], frame_at: Callable[[int], Pixels]) -> Sheets:
    """Sheets over all segments, and a collage per grasp."""
    tiles, frames = _tiles(segments, stamps_ns)
    size = _COLUMNS * _ROWS
    pictures = {
        f"sheet_{number}": jpeg(_sheet(tiles[start : start + size], frame_at, width=_TILE_WIDTH, columns=_COLUMNS))
        for number, start in enumerate(range(0, len(tiles), size), 1)
    }
    grasps: dict[str, int] = {}
    for one in segments.segments:
        if one.phase == "grasp":
            name = f"grasp_{len(grasps) + 1}"
            grasps[name] = one.start_ns
            around = _around(one.start_ns, one.end_ns, stamps_ns)
            pictures[name] = jpeg(_sheet(around, frame_at, width=None, columns=len(around)))
    return Sheets(pictures=pictures, frames=frames, grasps=grasps)


def _tiles(segments: SegmentList, stamps_ns: NDArray[np.int64]) -> tuple[list[Tile], dict[str, int]]:
    """The middle of each segment, and more looks into long ones while there is room."""
    middles: dict[str, int] = {}
    extra: list[tuple[int, int]] = []
    for number, one in enumerate(segments.segments, 1):
        start, stop = (int(at) for at in np.searchsorted(stamps_ns, (one.start_ns, one.end_ns)))
        middles[f"segment_{number}"] = min((start + stop) // 2, len(stamps_ns) - 1)
        looks = int((one.end_ns - one.start_ns) / NS_PER_S / _LOOK_EVERY_S)
        extra += [(number, int(at)) for at in np.linspace(start, stop - 1, looks + 2)[1:-1]] if looks > 1 else []
    chosen = {(number, index) for number, index in enumerate(middles.values(), 1)}
    room = max(0, _MOST_TILES - len(chosen))
    chosen |= {extra[int(at)] for at in np.linspace(0, len(extra) - 1, min(room, len(extra)))} if extra else set()
    tiles = [Tile(index=at, words=f"{stamps_ns[at] / NS_PER_S:.2f} s  #{number}") for number, at in sorted(chosen)]
    return tiles, middles


def _around(start_ns: int, end_ns: int, stamps_ns: NDArray[np.int64]) -> list[Tile]:
    """Before a grasp begins, when it is over, and after."""
    beside_ns = round(_BESIDE_S * NS_PER_S)
    tiles = []
    for word, at_ns in (("before", start_ns - beside_ns), ("now", end_ns), ("after", end_ns + beside_ns)):
        at = int(np.clip(np.searchsorted(stamps_ns, at_ns), 0, len(stamps_ns) - 1))
        tiles.append(Tile(index=at, words=f"{word}  {stamps_ns[at] / NS_PER_S:.2f} s"))
    return tiles


def _sheet(tiles: Sequence[Tile], frame_at: Callable[[int], Pixels], *, width: int | None, columns: int) -> Pixels:
    """Tiles row by row; each `width` pixels wide, or as large as it was recorded."""
    parts = [_labelled(frame_at(tile.index), tile.words, width) for tile in tiles]
    height, across = parts[0].shape[0] + _GAP, parts[0].shape[1] + _GAP
    rows = -(-len(parts) // columns)
    sheet = np.full((rows * height - _GAP, min(columns, len(parts)) * across - _GAP, 3), _GROUND, np.uint8)
    for place, part in enumerate(parts):
        top, left = place // columns * height, place % columns * across
        sheet[top : top + part.shape[0], left : left + part.shape[1]] = part
    return sheet


def _labelled(frame: Pixels, words: str, width: int | None) -> Pixels:
    if width is not None:
        height = max(1, round(frame.shape[0] * width / frame.shape[1]))
        frame = np.asarray(cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    bar = np.full((_BAR_HEIGHT, frame.shape[1], 3), 255, np.uint8)
    cv2.putText(bar, words, (8, _BAR_HEIGHT - 10), cv2.FONT_HERSHEY_DUPLEX, 0.8, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([bar, frame])


def jpeg(picture: Pixels) -> bytes:
    """A picture as it is sent to a model where sharp edges do not matter."""
    bgr = np.ascontiguousarray(picture[:, :, ::-1])
    written, data = cv2.imencode(".jpg", bgr, (cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY))
    if not written:
        raise EpisodeError(f"a picture of {picture.shape[1]}x{picture.shape[0]} can not be encoded.")
    return data.tobytes()
