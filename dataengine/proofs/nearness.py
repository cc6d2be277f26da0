"""Whether every picture of a video is its own: each is held, made small, against its source picture and others.

Made small, what an encoder loses averages out, and another picture stays another one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dataengine.sinks.pictures import Rgb

_LONG_SIDE = 40  # of a small picture: a cell is 16 pixels of 640 x 480 wide
_NEIGHBOURS = (-3, -2, -1, 1, 2, 3)
_UNRELATED = (1 / 4, 1 / 2, 3 / 4)  # of the episode further
_TEN_DB = 10.0
_SLACK = 0.5  # squared grey levels: what a good encoder loses of small pictures in which nothing is
_FAR_NEARER = 0.25  # of its own distance: what a picture must stay above, to others than its own

type Small = NDArray[np.float32]


def small(rgb: Rgb) -> Small:
    """Mean colours of cells, at most 40 a side."""
    import cv2

    height, width = rgb.shape[:2]
    scale = min(1.0, _LONG_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    # of bytes: rounded to whole levels, an error of 1/12 squared level, far below _SLACK
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), dtype=np.float32)


def apart(one: Small, other: Small) -> float:
    """Mean squared difference of two small pictures; infinite where their shapes differ."""
    return float(np.mean((one - other) ** 2)) if one.shape == other.shape else float("inf")


@dataclass(slots=True, kw_only=True)
class Nearness:
    """Small pictures of a source and of what was made of it, row by row; bytes, so that an hour fits into memory."""

    source: list[NDArray[np.uint8]] = field(default_factory=list)
    made: list[NDArray[np.uint8]] = field(default_factory=list)

    def add(self, source: Rgb, made: Rgb) -> None:
        """The next row."""
        for pictures, rgb in ((self.source, source), (self.made, made)):
            pictures.append(small(rgb).astype(np.uint8))

    def faults(self, bare: Mapping[int, float]) -> list[str]:
        """Rows whose picture is not their own; `bare` gives how far bare pictures of some rows are from their sources.

        A picture is bad where a neighbour's source is far nearer; where it is 10 dB farther from its source than the
        bare one of its row; and, of other rows, than any bare one while unrelated pictures are about as near.
        """
        worst = max(bare.values(), default=0.0)
        found = []
        for row in range(len(self.made)):
            own = self._apart(row, row)
            if own > 2 * worst + _SLACK:
                nearest, other = min((self._apart(row, row + step), row + step) for step in _NEIGHBOURS)
                if nearest < _FAR_NEARER * own:
                    found.append(f"row {row} shows what row {other} of the source shows")
                    continue
            most = _TEN_DB * bare.get(row, worst) + 2 * _SLACK
            if own > most and (row in bare or own > _FAR_NEARER * self._unrelated(row)):
                found.append(
                    f"row {row} is {np.sqrt(own):.1f} grey levels from its source, expected {np.sqrt(most):.1f}"
                )
        return found

    def _apart(self, made: int, source: int) -> float:
        if not 0 <= source < len(self.source):
            return float("inf")
        return apart(self.made[made].astype(np.float32), self.source[source].astype(np.float32))

    def _unrelated(self, row: int) -> float:
        rows = len(self.source)
        return min((self._apart(row, (row + round(share * rows)) % rows) for share in _UNRELATED), default=0.0)
