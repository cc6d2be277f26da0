"""What a conversion would take, from a few episodes: for `convert --dry-run`."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dataengine.executor import num_workers
from dataengine.sinks.shard_links import num_pictures
from dataengine.sinks.video_encoding import VideoEncoding
from dataengine.sources import Source
from dataengine.stage_sample import StageSample
from schemas.episodes import CameraStream, Episode, VideoFile
from schemas.errors import EpisodeError

_WANTED = 5  # readable episodes to extrapolate from
_MOST = 40  # episodes looked at to find them
_PICTURES = 8
_START_S = 8.0  # Ray and its workers come up
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
    minutes: float | None = None  # on this machine, from a sample that was really read and staged; None where none can


def estimate(
    source: Source,
    names: Sequence[str],
    *,
    videos: bool,
    frames: bool,
    encoding: VideoEncoding | None = None,
    frame_size: tuple[int, int] | None = None,
    quality: int = 90,
    workers: int | None = None,
) -> Estimate:
    """Look at a few episodes, drawn with a fixed seed, time a piece of one, and extrapolate."""
    lengths: list[int] = []
    sizes: list[float] = []
    read_s: list[float] = []
    reasons: list[str] = []
    shortest: tuple[str, Episode] | None = None
    for number in np.random.default_rng(0).permutation(len(names))[:_MOST]:
        try:
            start = time.perf_counter()
            episode = source.read(names[number])
            read_s.append(time.perf_counter() - start)
            sizes.append(_episode_bytes(episode, videos=videos, frames=frames))
            lengths.append(episode.num_frames)
            if shortest is None or episode.num_frames < shortest[1].num_frames:
                shortest = (names[number], episode)
        except EpisodeError as error:
            reasons.append(str(error))
        if len(lengths) == _WANTED:
            break
    readable = len(names) * len(lengths) / max(1, len(lengths) + len(reasons))
    num_frames = round(float(np.mean(lengths)) * readable) if lengths else 0
    minutes = None
    if shortest is not None:
        width = max(1, min(workers or num_workers(None), os.cpu_count() or 1, len(names)))
        sample = StageSample(encoding=encoding or VideoEncoding(), frame_size=frame_size, quality=quality)
        staging_s = sample.seconds_per_frame(source, *shortest, videos=videos, frames=frames, threads=width)
        if staging_s is not None:
            work_s = float(np.mean(read_s)) * readable + staging_s * num_frames
            minutes = (_START_S + work_s / width) / 60
    return Estimate(
        num_episodes=round(readable),
        num_frames=num_frames,
        hours=num_frames / source.rig.rate_hz / 3600,
        disk_bytes=round(float(np.mean(sizes)) * readable) if sizes else 0,
        num_looked_at=len(lengths) + len(reasons),
        unreadable=tuple(reasons),
        minutes=minutes,
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
    size = stream.path.stat().st_size
    if stream.whole:
        return size
    return size * len(stream) // max(num_pictures(stream.path), len(stream))  # other episodes lie in it too


def _jpeg_bytes(stream: CameraStream) -> float:
    """Bytes of all JPEGs of a stream, from its first ones; 0 where it holds none."""
    if isinstance(stream, VideoFile) or not hasattr(stream, "jpegs"):
        return 0
    sizes = [len(jpeg) for _, jpeg in zip(range(_PICTURES), stream.jpegs(), strict=False)]
    return float(np.mean(sizes)) * len(stream) if sizes else 0
