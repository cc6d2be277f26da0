"""Video files as packets: looked at, hashed and joined without decoding.

An mp4's own tables say where its packets lie; its bytes are read once, to hash them. What the tables do not say is read
by PyAV, at a quarter of the speed. Time is renumbered on the way: pts = rank of the picture in presentation order,
dts = place in decode order - D with one D per file. That mends mixed time bases, start offsets and missing edit lists,
and makes `from_timestamp = pictures before / rate` exact.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataengine.sinks.mp4_tables import (
    CODECS,
    FileStat,
    NotPlain,
    Piece,
    VideoTable,
    read_table,
    recent_table,
    stat_of,
    write_joined,
)
from schemas.errors import ArtifactError, EpisodeError

_READ_BYTES = 1 << 20
# Codecs in which a packet is one picture. A packet of AV1 or VP9 may carry hidden pictures besides, which are shown
# seconds later: only the next keyframe is a place behind which nothing of what comes is held.
_ONE_PICTURE = frozenset({"h264", "hevc", "mpeg4", "mjpeg", "ffv1"})


@dataclass(frozen=True, slots=True, kw_only=True)
class PacketScan:
    """What a video file holds, or a closed range of its pictures, read from its packets alone."""

    num_frames: int
    codec: str
    width: int
    height: int
    pix_fmt: str
    parameters: str  # sha256 of codec parameters: two files may share a track only when these are equal
    delay: int  # D: how many pictures decoding runs ahead of showing
    num_bytes: int
    content: str  # xxh3 (128 bits) of the packets in decode order and their sizes
    ranks: NDArray[np.int64]  # presentation rank of each packet, counted from the first one of the range
    keys: NDArray[np.bool_]  # which packets are keyframes
    start: int = 0  # packets of the file, in decode order, before the range
    file_stat: FileStat | None = None  # of the file while it was read


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Track:
    """Packets of a whole file in decode order, however they were read."""

    codec: str
    width: int
    height: int
    pix_fmt: str
    parameters: str
    time_base: Fraction
    sizes: NDArray[np.int64]
    stamps: NDArray[np.int64]
    keys: NDArray[np.bool_]


def scan_video(path: Path, *, rate_hz: int, first: int = 0, num_frames: int | None = None) -> PacketScan:
    """Look at the packets of the first video track: all, or pictures [first, first + num_frames) as they are shown.

    Raises EpisodeError for what must not be copied: no video, no leading keyframe, trimmed or unevenly spaced frames,
    another rate, a range that can not be decoded by itself.
    """
    import av

    try:
        file_stat = stat_of(path)
        try:
            table = read_table(path)
            track = _track_of(table)
            start, stop, ranks = _range(track, path.name, rate_hz, first, num_frames)
            content = _hash_runs(table, start, stop)
        except NotPlain:
            track = _demuxed(path)
            start, stop, ranks = _range(track, path.name, rate_hz, first, num_frames)
            content = _hash_packets(path, track.sizes, start, stop)
    except FileNotFoundError:
        raise EpisodeError(f"{path.name}: video is missing. Add the file or drop the episode.") from None
    except av.error.FFmpegError as error:
        raise EpisodeError(f"{path.name}: no readable video ({error.strerror}). Record it again.") from None
    return PacketScan(
        num_frames=len(ranks),
        codec=track.codec,
        width=track.width,
        height=track.height,
        pix_fmt=track.pix_fmt,
        parameters=track.parameters,
        delay=int(np.max(np.arange(len(ranks)) - ranks)),
        num_bytes=int(track.sizes[start:stop].sum()),
        content=content,
        ranks=ranks,
        keys=track.keys[start:stop],
        start=start,
        file_stat=file_stat,
    )


def _track_of(table: VideoTable) -> _Track:
    parameters = hashlib.sha256(repr((table.fourcc, table.width, table.height, table.boxes)).encode()).hexdigest()
    return _Track(
        codec=CODECS[table.fourcc],
        width=table.width,
        height=table.height,
        pix_fmt=_pix_fmt(parameters, _Hidden(table.path)),
        parameters=parameters,
        time_base=Fraction(1, table.timescale),
        sizes=table.sizes,
        stamps=table.stamps,
        keys=table.keys,
    )


class _Hidden:
    """A path that a cache does not compare: files of equal parameters have the same pixel format."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hidden)

    def __hash__(self) -> int:
        return 0


@lru_cache(maxsize=256)
def _pix_fmt(parameters: str, file: _Hidden) -> str:
    """Pixel format, which FFmpeg tells: opening a file costs more than copying a small one."""
    import av

    with av.open(str(file.path)) as container:
        if not container.streams.video:
            raise NotPlain("FFmpeg sees no video track")
        return str(container.streams.video[0].pix_fmt)


def _hash_runs(table: VideoTable, start: int, stop: int) -> str:
    import xxhash

    digest = xxhash.xxh3_128(table.sizes[start:stop].tobytes())
    buffer = memoryview(bytearray(_READ_BYTES))
    with table.path.open("rb", buffering=0) as file:
        for offset, left in table.runs(start, stop):
            file.seek(offset)
            while left:
                num = file.readinto(buffer[: min(left, _READ_BYTES)])
                if not num:
                    raise EpisodeError(f"{table.path.name}: the file ends before its packets do. Copy it again.")
                digest.update(buffer[:num])
                left -= num
    return digest.hexdigest()


def _hash_packets(path: Path, sizes: NDArray[np.int64], start: int, stop: int) -> str:
    """The same hash, of packets as PyAV gives them."""
    import av
    import xxhash

    digest = xxhash.xxh3_128(sizes[start:stop].tobytes())
    with av.open(str(path)) as container:
        packets = (packet for packet in container.demux(container.streams.video[0]) if packet.size)
        for index, packet in enumerate(packets):
            if start <= index < stop:
                digest.update(bytes(packet))
    return digest.hexdigest()


def _demuxed(path: Path) -> _Track:
    """Packets as PyAV sees them."""
    import av

    with av.open(str(path)) as container:
        if not container.streams.video:
            raise EpisodeError(f"{path.name}: no video track. Add the right file or drop the episode.")
        stream = container.streams.video[0]
        sizes, stamps, keys = [], [], []
        for packet in container.demux(stream):
            if not packet.size:
                continue
            if packet.pts is None or packet.is_discard:
                raise EpisodeError(f"{path.name}: the video is trimmed or has frames without a time. Export it again.")
            sizes.append(packet.size)
            stamps.append(packet.pts)
            keys.append(packet.is_keyframe)
        context = stream.codec_context
        codec = stream.codec.canonical_name
        parameters = (codec, stream.width, stream.height, stream.pix_fmt, context.extradata or b"")
        return _Track(
            codec=codec,
            width=stream.width,
            height=stream.height,
            pix_fmt=str(stream.pix_fmt),
            parameters=hashlib.sha256(repr(parameters).encode()).hexdigest(),
            time_base=stream.time_base,
            sizes=np.asarray(sizes, dtype=np.int64),
            stamps=np.asarray(stamps, dtype=np.int64),
            keys=np.asarray(keys, dtype=np.bool_),
        )


def _range(
    track: _Track, name: str, rate_hz: int, first: int, num_frames: int | None
) -> tuple[int, int, NDArray[np.int64]]:
    """Decode-order range [start, stop) of the pictures asked for, and their ranks in it."""
    stamps = track.stamps
    if not len(stamps) or not track.keys[0]:
        raise EpisodeError(f"{name}: the video does not start with a keyframe. Export it again.")
    order = np.argsort(stamps, kind="stable")
    ranks = np.empty(len(stamps), dtype=np.int64)
    ranks[order] = np.arange(len(stamps))
    last = len(stamps) if num_frames is None else first + num_frames
    if not 0 <= first < last <= len(stamps):
        raise EpisodeError(f"{name}: has {len(stamps)} pictures, asked for {first} to {last}. Copy the file again.")
    _check_rate(stamps[order][first:last], track.time_base, rate_hz, name)
    inside = np.flatnonzero((ranks >= first) & (ranks < last))
    start, stop = int(inside[0]), int(inside[-1]) + 1
    if stop - start != len(inside) or not track.keys[start] or ranks[start] != first:
        raise EpisodeError(
            f"{name}: pictures {first} to {last} can not be decoded by themselves (no keyframe where they begin). "
            f"Encode the video again, one episode per file."
        )
    if not ends_alone(track.codec, track.keys, stop):
        raise EpisodeError(
            f"{name}: pictures {first} to {last} end inside a group of pictures of {track.codec}, whose packets may "
            f"hold later pictures. Encode the video again, one episode per file."
        )
    return start, stop, ranks[start:stop] - first


def ends_alone(codec: str, keys: NDArray[np.bool_], stop: int) -> bool:
    """Whether packets up to `stop`, in decode order, hold nothing of a picture that comes after them."""
    return codec in _ONE_PICTURE or stop == len(keys) or bool(keys[stop])


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


def key_pictures(path: Path, scan: PacketScan, most: int) -> Iterator[Any]:
    """At most `most` evenly spread keyframes of what was scanned, each decoded alone, as PyAV's frames."""
    import av

    keys = np.flatnonzero(scan.keys)
    spread = keys[np.unique(np.linspace(0, len(keys) - 1, min(most, len(keys))).round().astype(int))]
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        for packet in _chosen(container, stream, path, (spread + scan.start).tolist()):
            yield from (*context.decode(packet), *context.decode(None))
            context.flush_buffers()


def _chosen(container: Any, stream: Any, path: Path, wanted: list[int]) -> Iterator[Any]:  # noqa: ANN401 - av has no types
    """Packets by their number in decode order; read where the tables say they lie, else found by walking the file."""
    import av

    try:
        table = recent_table(path)
    except NotPlain:
        chosen = set(wanted)
        packets = (packet for packet in container.demux(stream) if packet.size)
        yield from (packet for index, packet in enumerate(packets) if index in chosen)
        return
    with path.open("rb", buffering=0) as file:
        for index in wanted:
            file.seek(int(table.offsets[index]))
            yield av.Packet(file.read(int(table.sizes[index])))


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """One episode's video, and what must hold of its packets."""

    path: Path
    num_frames: int
    content: str
    first: int = 0  # pictures of the file before it
    file_stat: FileStat | None = None  # while the file has these, its packets need not be hashed again


def join_clips(clips: Sequence[Clip], target: Path, *, rate_hz: int, delay: int) -> None:
    """Copy the packets of `clips`, back to back, into one mp4 at a constant rate.

    Raises ArtifactError when a clip's packets are no longer what they were when it was staged.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for clip in clips:
        _check_unchanged(clip, rate_hz)
    try:
        pieces = [_piece(clip, rate_hz) for clip in clips]
    except NotPlain:
        _join_by_pyav(clips, target, rate_hz=rate_hz, delay=delay)
        return
    write_joined(pieces, target, rate_hz=rate_hz, delay=delay)


def _check_unchanged(clip: Clip, rate_hz: int) -> None:
    if clip.file_stat is not None and clip.path.exists() and stat_of(clip.path) == tuple(clip.file_stat):
        return
    scan = scan_video(clip.path, rate_hz=rate_hz, first=clip.first, num_frames=clip.num_frames)
    if (scan.num_frames, scan.content) != (clip.num_frames, clip.content):
        raise ArtifactError(f"{clip.path.name} changed while it was converted. Run the command again.")


def _piece(clip: Clip, rate_hz: int) -> Piece:
    table = recent_table(clip.path)
    start, stop, ranks = _range(_track_of(table), clip.path.name, rate_hz, clip.first, clip.num_frames)
    return Piece(table=table, start=start, stop=stop, ranks=ranks)


def _join_by_pyav(clips: Sequence[Clip], target: Path, *, rate_hz: int, delay: int) -> None:
    import av

    tick = Fraction(1, rate_hz)
    before = 0
    with _muxer(target) as output:
        track = None
        for clip in clips:
            scan = scan_video(clip.path, rate_hz=rate_hz, first=clip.first, num_frames=clip.num_frames)
            with av.open(str(clip.path)) as container:
                stream = container.streams.video[0]
                if track is None:
                    track = output.add_stream_from_template(stream, opaque=True)
                    track.time_base = tick
                packets = (packet for packet in container.demux(stream) if packet.size)
                for index, packet in enumerate(packets):
                    if not scan.start <= index < scan.start + scan.num_frames:
                        continue
                    packet.stream = track
                    packet.time_base = tick
                    packet.pts = before + int(scan.ranks[index - scan.start])
                    packet.dts = before + index - scan.start - delay
                    packet.duration = 1
                    output.mux(packet)
            before += clip.num_frames


@contextmanager
def _muxer(target: Path) -> Iterator[Any]:
    import av

    # faststart: a browser can seek before it has the whole shard
    with av.open(str(target), "w", format="mp4", options={"movflags": "faststart"}) as output:
        yield output
