"""Video files as packets: looked at, hashed and joined without decoding.

Time is renumbered on the way: pts = rank of the picture in presentation order, dts = place in decode order - D with one
D per file. That mends mixed time bases, start offsets and missing edit lists, and makes
`from_timestamp = pictures before / rate` exact.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ArtifactError, EpisodeError


@dataclass(frozen=True, slots=True, kw_only=True)
class PacketScan:
    """What a video file holds, read from its packets alone."""

    num_frames: int
    codec: str
    width: int
    height: int
    pix_fmt: str
    parameters: str  # sha256 of codec parameters: two files may share a track only when these are equal
    delay: int  # D: how many pictures decoding runs ahead of showing
    num_bytes: int
    content: str  # sha256 over the packets in decode order
    ranks: NDArray[np.int64]  # presentation rank of each packet
    keys: NDArray[np.bool_]  # which packets are keyframes


def scan_video(path: Path, *, rate_hz: int) -> PacketScan:
    """Read all packets of the first video track.

    Raises EpisodeError for what must not be copied: no video, no leading keyframe, trimmed or unevenly spaced frames,
    another rate.
    """
    import av

    try:
        with av.open(str(path)) as container:
            return _scan(container, path.name, rate_hz)
    except FileNotFoundError:
        raise EpisodeError(f"{path.name}: video is missing. Add the file or drop the episode.") from None
    except av.error.FFmpegError as error:
        raise EpisodeError(f"{path.name}: no readable video ({error.strerror}). Record it again.") from None


def _scan(container: Any, name: str, rate_hz: int) -> PacketScan:  # noqa: ANN401 - av has no types
    if not container.streams.video:
        raise EpisodeError(f"{name}: no video track. Add the right file or drop the episode.")
    stream = container.streams.video[0]
    digest, stamps, keys, num_bytes = hashlib.sha256(), [], [], 0
    for packet in container.demux(stream):
        if not packet.size:
            continue
        if packet.pts is None or packet.is_discard:
            raise EpisodeError(f"{name}: the video is trimmed or has frames without a time. Export it again.")
        content = bytes(packet)
        digest.update(hashlib.sha256(content).digest())
        stamps.append(packet.pts)
        keys.append(packet.is_keyframe)
        num_bytes += len(content)
    if not stamps or not keys[0]:
        raise EpisodeError(f"{name}: the video does not start with a keyframe. Export it again.")
    order = np.argsort(np.asarray(stamps, dtype=np.int64), kind="stable")
    ranks = np.empty(len(stamps), dtype=np.int64)
    ranks[order] = np.arange(len(stamps))
    _check_rate(np.asarray(stamps, dtype=np.int64)[order], stream.time_base, rate_hz, name)
    context = stream.codec_context
    parameters = (stream.codec.canonical_name, stream.width, stream.height, stream.pix_fmt, context.extradata or b"")
    return PacketScan(
        num_frames=len(stamps),
        codec=stream.codec.canonical_name,
        width=stream.width,
        height=stream.height,
        pix_fmt=str(stream.pix_fmt),
        parameters=hashlib.sha256(repr(parameters).encode()).hexdigest(),
        delay=int(np.max(np.arange(len(ranks)) - ranks)),
        num_bytes=num_bytes,
        content=digest.hexdigest(),
        ranks=ranks,
        keys=np.asarray(keys, dtype=np.bool_),
    )


def _check_rate(stamps: NDArray[np.int64], time_base: Fraction, rate_hz: int, name: str) -> None:
    """Frames must be evenly spaced at the rig's rate, to within half a frame over the whole episode."""
    expected = np.arange(len(stamps)) / rate_hz
    got = (stamps - stamps[0]) * float(time_base)
    worst = float(np.max(np.abs(got - expected)))
    if worst > 0.5 / rate_hz:
        mean_hz = (len(stamps) - 1) / got[-1] if got[-1] > 0 else float("nan")
        raise EpisodeError(
            f"{name}: frames are {worst:.3f} s away from an even {rate_hz} Hz (mean {mean_hz:.3f} Hz). "
            f"Set rate_hz in the rig, or export at a constant rate."
        )


def key_pictures(path: Path, scan: PacketScan, most: int) -> Iterator[NDArray[np.uint8]]:
    """At most `most` evenly spread keyframes, decoded alone, as stored (height, width, 3)."""
    import av

    keys = np.flatnonzero(scan.keys)
    chosen = set(keys[np.unique(np.linspace(0, len(keys) - 1, min(most, len(keys))).round().astype(int))].tolist())
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        packets = (packet for packet in container.demux(stream) if packet.size)
        for index, packet in enumerate(packets):
            if index in chosen:
                for frame in (*context.decode(packet), *context.decode(None)):
                    yield frame.to_ndarray(format="rgb24")
                context.flush_buffers()


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """One episode's video, and what must hold of its packets."""

    path: Path
    num_frames: int
    content: str


def join_clips(clips: Sequence[Clip], target: Path, *, rate_hz: int, delay: int) -> None:
    """Copy the packets of `clips`, back to back, into one mp4 at a constant rate.

    Raises ArtifactError when a clip's packets are no longer what they were when it was staged.
    """
    import av

    target.parent.mkdir(parents=True, exist_ok=True)
    tick = Fraction(1, rate_hz)
    first = 0
    with _muxer(target) as output:
        track = None
        for clip in clips:
            scan = scan_video(clip.path, rate_hz=rate_hz)
            if (scan.num_frames, scan.content) != (clip.num_frames, clip.content):
                raise ArtifactError(f"{clip.path.name} changed while it was converted. Run the command again.")
            with av.open(str(clip.path)) as container:
                stream = container.streams.video[0]
                if track is None:
                    track = output.add_stream_from_template(stream, opaque=True)
                    track.time_base = tick
                packets = (packet for packet in container.demux(stream) if packet.size)
                for index, packet in enumerate(packets):
                    packet.stream = track
                    packet.time_base = tick
                    packet.pts = first + int(scan.ranks[index])
                    packet.dts = first + index - delay
                    packet.duration = 1
                    output.mux(packet)
            first += clip.num_frames


@contextmanager
def _muxer(target: Path) -> Iterator[Any]:
    import av

    # faststart: a browser can seek before it has the whole shard
    with av.open(str(target), "w", format="mp4", options={"movflags": "faststart"}) as output:
        yield output
