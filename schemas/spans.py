"""Time inside an episode: integer nanoseconds since its first row, intervals half-open."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.errors import EpisodeError

NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A half-open interval of episode time, `[start_ns, end_ns)`."""

    start_ns: int
    end_ns: int

    def __post_init__(self) -> None:
        if self.start_ns < 0 or self.start_ns >= self.end_ns:
            raise EpisodeError(
                f"a span must start at 0 or later and move forward, got [{self.start_ns}, {self.end_ns}) ns."
            )

    def contains(self, stamp_ns: int) -> bool:
        """True where `start_ns <= stamp_ns < end_ns`."""
        return self.start_ns <= stamp_ns < self.end_ns


def frame_stamps_ns(num_frames: int, rate_hz: int) -> NDArray[np.int64]:
    """Nanoseconds of each frame of an evenly sampled episode, shape (num_frames,), first one 0."""
    return (np.arange(num_frames, dtype=np.int64) * NS_PER_S) // rate_hz


def frame_ns(frame: int, rate_hz: int) -> int:
    """Nanoseconds from the first frame of a recording to frame `frame`."""
    return frame * NS_PER_S // rate_hz


def frame_of_ns(stamp_ns: int, rate_hz: int) -> int:
    """The frame whose `frame_ns` is `stamp_ns`."""
    return -(-stamp_ns * rate_hz // NS_PER_S)
