"""Packets of one episode in a shard, hashed: each alone, and all together as the commit noted them."""

import hashlib
from dataclasses import dataclass

import numpy as np

from dataengine.episode_set import EpisodeSet
from dataengine.proofs.metadata import video_table
from dataengine.sinks.mp4_tables import NotPlain, stat_of
from dataengine.sinks.packets import scan_video
from schemas.episodes import VideoFile


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodePackets:
    """`digests` are sha256 in presentation order; `content` is the hash that staging takes of what it wrote."""

    digests: list[str]
    content: str


def episode_packets(episodes: EpisodeSet, episode_id: str, camera: str) -> EpisodePackets:
    """Read the packets of one episode's pictures; fewer where the file holds fewer."""
    import xxhash

    path, start_s, _ = episodes.video_clip(episode_id, camera)
    first, num = round(start_s * episodes.rate_hz), episodes.row(episode_id).num_frames
    try:
        table = video_table(path, stat_of(path))
    except NotPlain:
        scan = scan_video(path, rate_hz=episodes.rate_hz, first=first, num_frames=num)
        return EpisodePackets(digests=episodes.video_packets(episode_id, camera), content=scan.content)
    ranks = np.empty(len(table.stamps), dtype=np.int64)
    ranks[np.argsort(table.stamps, kind="stable")] = np.arange(len(ranks))
    inside = np.flatnonzero((ranks >= first) & (ranks < first + num))
    content = xxhash.xxh3_128(table.sizes[inside].tobytes())
    digests: dict[int, str] = {}
    with path.open("rb") as file:
        for at in inside.tolist():
            file.seek(int(table.offsets[at]))
            packet = file.read(int(table.sizes[at]))
            content.update(packet)
            digests[int(ranks[at])] = hashlib.sha256(packet).hexdigest()
    return EpisodePackets(digests=[digests[rank] for rank in sorted(digests)], content=content.hexdigest())


def source_packets(stream: VideoFile, *, rate_hz: int) -> list[str]:
    """Hash of each packet of the episode's part of a source video, in presentation order."""
    import av

    with av.open(str(stream.path)) as container:
        track = container.streams.video[0]
        if stream.first:
            # a part of a shared file begins with a keyframe; anything before it is another episode's
            container.seek(round(stream.first / rate_hz / track.time_base), stream=track, backward=True)
        found = []
        for packet in container.demux(track):
            if not packet.size:
                continue
            found.append((packet.pts, hashlib.sha256(bytes(packet)).hexdigest()))
            shown = -1 if stream.whole or packet.dts is None else packet.dts * track.time_base * rate_hz
            if shown >= stream.first + stream.num_frames:
                break  # no picture is shown before it is decoded
    digests = sorted(found)
    if stream.whole:
        return [digest for _, digest in digests]
    numbered = [(round(float(pts * track.time_base) * rate_hz), digest) for pts, digest in digests]
    return [digest for number, digest in numbered if stream.first <= number < stream.first + stream.num_frames]
