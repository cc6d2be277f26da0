"""What a conversion would take, from a few episodes: for `convert --dry-run`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dataengine.sources import Source
from schemas.episodes import CameraStream, Episode, VideoFile
from schemas.errors import EpisodeError

_WANTED = 5  # readable episodes to extrapolate from
_MOST = 40  # episodes looked at to find them
_PICTURES = 8
_VIDEO_BYTES_PER_PIXEL = 0.06  # libsvtav1 crf 30 g 2, measured on 640x480 teleoperation
_JPEG_BYTES_PER_PIXEL = 0.35  # quality 90, 4:4:4


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """About what a conversion holds and takes; extrapolated from `num_looked_at` episodes, some of them unreadable."""

    num_episodes: int  # readable ones
    num_frames: int
    hours: float
    disk_bytes: int
    num_looked_at: int
    unreadable: tuple[str, ...]  # reasons met while looking


def estimate(source: Source, names: Sequence[str], *, videos: bool, frames: bool) -> Estimate:
    """Look at a few episodes, drawn with a fixed seed, and extrapolate."""
    lengths: list[int] = []
    sizes: list[float] = []
    reasons: list[str] = []
    for number in np.random.default_rng(0).permutation(len(names))[:_MOST]:
        try:
            episode = source.read(names[number])
            sizes.append(_episode_bytes(episode, videos=videos, frames=frames))
            lengths.append(episode.num_frames)
        except EpisodeError as error:
            reasons.append(str(error))
        if len(lengths) == _WANTED:
            break
    readable = len(names) * len(lengths) / max(1, len(lengths) + len(reasons))
    num_frames = round(float(np.mean(lengths)) * readable) if lengths else 0
    return Estimate(
        num_episodes=round(readable),
        num_frames=num_frames,
        hours=num_frames / source.rig.rate_hz / 3600,
        disk_bytes=round(float(np.mean(sizes)) * readable) if sizes else 0,
        num_looked_at=len(lengths) + len(reasons),
        unreadable=tuple(reasons),
    )


def _episode_bytes(episode: Episode, *, videos: bool, frames: bool) -> float:
    """Bytes of one converted episode; staging takes the same again while the conversion runs."""
    total = float(sum(column.nbytes for column in episode.columns.values()))
    for stream in episode.cameras.values():
        pixels = stream.spec.height * stream.spec.width * episode.num_frames
        if videos:
            copied = isinstance(stream, VideoFile) and stream.path.is_file()
            total += _file_bytes(stream) if copied else pixels * _VIDEO_BYTES_PER_PIXEL
        if frames:
            total += _jpeg_bytes(stream) or pixels * _JPEG_BYTES_PER_PIXEL
    return total


def _file_bytes(stream: CameraStream) -> int:
    assert isinstance(stream, VideoFile)
    return stream.path.stat().st_size


def _jpeg_bytes(stream: CameraStream) -> float:
    """Bytes of all JPEGs of a stream, from its first ones; 0 where it holds none."""
    if isinstance(stream, VideoFile) or not hasattr(stream, "jpegs"):
        return 0
    sizes = [len(jpeg) for _, jpeg in zip(range(_PICTURES), stream.jpegs(), strict=False)]
    return float(np.mean(sizes)) * len(stream) if sizes else 0
