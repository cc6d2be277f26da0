"""Which staged mp4s of one camera go into which shard of about 200 MB.

A new shard is opened where codec parameters differ: a track with two sets of parameters shows wrong pictures without
an error.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dataengine.sinks.staging import StagedVideo

SHARD_BYTES = 200 * 1024 * 1024
FILES_PER_CHUNK = 1000


def chunk_and_file(number: int) -> tuple[int, int]:
    """LeRobot's two-level numbering of the n-th file."""
    return number // FILES_PER_CHUNK, number % FILES_PER_CHUNK


def shard_path(root: Path, key: str, number: int) -> Path:
    """Path of the n-th shard of one video key."""
    chunk, file = chunk_and_file(number)
    return root / "videos" / key / f"chunk-{chunk:03d}" / f"file-{file:03d}.mp4"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where one episode's video lies: shard number, and how many pictures come before it in that shard."""

    shard: int
    first: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeVideo:
    """One staged video and its length."""

    video: StagedVideo
    num_frames: int


def plan_shards(videos: Sequence[EpisodeVideo], *, shard_bytes: int = SHARD_BYTES) -> list[Place]:
    """Place every episode, in order; an episode is never split."""
    places: list[Place] = []
    shard, first, size, parameters = -1, 0, 0, ""
    for row in videos:
        full = size + row.video.num_bytes > shard_bytes
        if shard < 0 or full or row.video.parameters != parameters:
            shard, first, size, parameters = shard + 1, 0, 0, row.video.parameters
        places.append(Place(shard=shard, first=first))
        first += row.num_frames
        size += row.video.num_bytes
    return places
