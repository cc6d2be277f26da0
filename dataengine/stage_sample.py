"""How long staging takes on this machine: a piece of a real episode is staged, timed and thrown away."""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataengine.sinks.staging import StageFrames, StageJob, StageVideos
from dataengine.sinks.staging_writer import stage_episode
from dataengine.sinks.video_encoding import VideoEncoding
from dataengine.sources import Source
from schemas.episodes import CameraSpec, CameraStream, Episode, VideoFile
from schemas.errors import EngineError

_FRAMES = 120  # a second or two of work; an encoder's start weighs little beside it
_WARM_FRAMES = 4  # staged first and not timed: importing codecs took longer than the work itself


@dataclass(frozen=True, slots=True, kw_only=True)
class _First:
    """The first pictures of a camera."""

    stream: Any
    count: int

    @property
    def spec(self) -> CameraSpec:
        spec: CameraSpec = self.stream.spec
        return spec

    def __len__(self) -> int:
        return self.count


class _FirstJpegs(_First):
    __slots__ = ()

    def jpegs(self) -> Iterator[bytes]:
        return islice(self.stream.jpegs(), self.count)


class _FirstArrays(_First):
    __slots__ = ()

    def arrays(self) -> Iterator[NDArray[np.uint8]]:
        return islice(self.stream.arrays(), self.count)


class _FirstDepths(_First):
    __slots__ = ()

    def depths(self) -> Iterator[NDArray[np.uint16] | NDArray[np.float32]]:
        return islice(self.stream.depths(), self.count)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSample:
    """What an episode is staged for."""

    encoding: VideoEncoding
    frame_size: tuple[int, int] | None
    quality: int

    def seconds_per_frame(
        self, source: Source, name: str, episode: Episode, *, videos: bool, frames: bool, threads: int
    ) -> float | None:
        """Seconds that one worker takes for a row with all its pictures; None where the piece can not be staged.

        `threads` is how many workers share the machine: an encoder then gets one thread, as in the run itself.
        """
        warm, piece = _piece(episode, _WARM_FRAMES), _piece(episode, _FRAMES)
        with tempfile.TemporaryDirectory() as folder:
            jobs: list[StageJob] = []
            if videos:
                root = Path(folder) / "videos"
                encoder_threads = 1 if threads > 1 else None
                jobs.append(StageVideos(root=root, encoding=self.encoding, encoder_threads=encoder_threads))
            if frames:
                jobs.append(StageFrames(root=Path(folder) / "frames", frame_size=self.frame_size, quality=self.quality))
            for job in jobs:
                job.root.mkdir()
            try:
                stage_episode(warm, f"{name} warm", source.rig, tuple(jobs), stamp="sample")  # imports, first pages
                start = time.perf_counter()
                stage_episode(piece, name, source.rig, tuple(jobs), stamp="sample")
            except (EngineError, OSError):
                return None  # what is wrong with it, the run itself will say; a guess of its time is not worth a stop
            return (time.perf_counter() - start) / piece.num_frames


def _piece(episode: Episode, count: int) -> Episode:
    """The first rows of an episode; all of it where a camera is a video, which is copied or decoded as a whole."""
    count = min(count, episode.num_frames)
    if any(isinstance(stream, VideoFile) for stream in episode.cameras.values()):
        return episode
    return replace(
        episode,
        columns={key: column[:count] for key, column in episode.columns.items()},
        stamps_ns={key: column[:count] for key, column in episode.stamps_ns.items()},
        cameras={key: _first(stream, count) for key, stream in episode.cameras.items()},
    )


def _first(stream: CameraStream, count: int) -> CameraStream:
    if hasattr(stream, "jpegs"):
        return _FirstJpegs(stream=stream, count=count)
    if hasattr(stream, "arrays"):
        return _FirstArrays(stream=stream, count=count)
    return _FirstDepths(stream=stream, count=count)
