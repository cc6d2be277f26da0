"""Where the packets of every episode of one camera go: shards of an older version that stay whole are linked.

A shard of which even one episode is left out, or was cut, is never linked: its packets are copied without that episode,
so that excluded pictures are gone from the new version and not merely unlisted.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from dataengine.sinks.packets import Clip, join_clips
from dataengine.sinks.parts import Part, link_or_copy
from dataengine.sinks.staging import StagedVideo
from dataengine.sinks.video_shards import SHARD_BYTES, EpisodeVideo, Place, plan_shards, shard_path

_COPIES = 4  # shards written at once: copying waits for the disk more than for a core


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    """The packets of one episode: a staged file of its own, or a stretch of a shard."""

    video: StagedVideo
    path: Path
    first: int
    num_frames: int
    is_kept: bool


def place_videos(
    root: Path, key: str, camera: str, parts: Sequence[Part], *, rate_hz: int, shard_bytes: int = SHARD_BYTES
) -> list[Place]:
    """Link or write all shards of one video key under `root`; returns the place of every episode."""
    pieces = [_piece(part, camera) for part in parts]
    linked = _linked(pieces, rate_hz)
    places: list[Place | None] = [None] * len(pieces)
    for index, piece in enumerate(pieces):
        number = linked.get(piece.path)
        if number is not None:
            places[index] = Place(shard=number, first=piece.first)
    for source, number in linked.items():
        link_or_copy(source, shard_path(root, key, number))
    rest = [index for index, place in enumerate(places) if place is None]
    videos = [EpisodeVideo(video=pieces[index].video, num_frames=pieces[index].num_frames) for index in rest]
    planned = [
        Place(shard=place.shard + len(linked), first=place.first)
        for place in plan_shards(videos, shard_bytes=shard_bytes)
    ]
    for index, place in zip(rest, planned, strict=True):
        places[index] = place
    shards: dict[int, list[_Piece]] = {}
    for index, place in zip(rest, planned, strict=True):
        shards.setdefault(place.shard, []).append(pieces[index])
    with ThreadPoolExecutor(max_workers=_COPIES) as pool:
        joins = [
            pool.submit(_join, inside, shard_path(root, key, number), rate_hz) for number, inside in shards.items()
        ]
    for join in joins:
        join.result()
    return [place for place in places if place is not None]


def _join(inside: Sequence[_Piece], target: Path, rate_hz: int) -> None:
    clips = [
        Clip(
            path=piece.path,
            first=piece.first,
            num_frames=piece.num_frames,
            content=piece.video.packets,
            file_stat=None if piece.is_kept else piece.video.file_stat,
        )
        for piece in inside
    ]
    join_clips(clips, target, rate_hz=rate_hz, delay=max(piece.video.delay for piece in inside))


def _piece(part: Part, camera: str) -> _Piece:
    video = part.staged.cameras[camera].video
    assert video is not None
    kept = part.videos.get(camera)
    return _Piece(
        video=video,
        path=kept.path if kept else video.path,
        first=kept.first if kept else video.first,
        num_frames=part.staged.num_frames,
        is_kept=kept is not None,
    )


def _linked(pieces: Sequence[_Piece], rate_hz: int) -> dict[Path, int]:
    """Shards of which every picture is still wanted, in the order in which they are met, numbered."""
    wanted: dict[Path, int] = {}
    for piece in pieces:
        if piece.is_kept:
            wanted[piece.path] = wanted.get(piece.path, 0) + piece.num_frames
    whole = [path for path, num_frames in wanted.items() if num_pictures(path) == num_frames]
    return {path: number for number, path in enumerate(whole)}


def num_pictures(path: Path) -> int:
    """Pictures in an mp4 that one of our commits wrote."""
    import av

    with av.open(str(path)) as container:
        return int(container.streams.video[0].frames)
