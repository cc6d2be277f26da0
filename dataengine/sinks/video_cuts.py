"""Cutting pictures out of a video: packets are copied, only the group of pictures that a cut goes through is encoded.

What is encoded anew can share a track with what is copied where the codec parameters are equal, and in AV1, whose
keyframes carry their own. Elsewhere the whole cut is encoded: a track with two sets shows wrong pictures without an
error.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dataengine.sinks.mp4_tables import NotPlain, Piece, read_table, write_joined
from dataengine.sinks.packets import Clip, PacketScan, ends_alone, join_clips, scan_video
from dataengine.sinks.pictures import video_frames
from dataengine.sinks.video_encoding import PIX_FMT, VideoEncoding, VideoWriter, quiet_codecs
from schemas.episodes import CameraSpec, VideoFile
from schemas.errors import EpisodeError

_ENCODERS = {"av1": "libsvtav1", "h264": "libx264", "hevc": "libx265"}
_SEQUENCE_HEADER = 1  # OBU type (AV1 specification, 6.2.2)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """Pictures [first, stop) of the source, copied or encoded anew."""

    first: int
    stop: int
    copied: bool


def cut_clip(path: Path, first: int, num_frames: int, target: Path, rate_hz: int, encoding: VideoEncoding) -> int:
    """Write pictures [first, first + num_frames) of `path` as one mp4; returns how many of them were encoded anew.

    Args:
        encoding: how to encode where the source's own codec can not be used; its g and crf count everywhere.

    Raises EpisodeError where the range is not in the file or does not decode.
    """
    quiet_codecs()
    scan = scan_video(path, rate_hz=rate_hz)
    if not 0 <= first < first + num_frames <= scan.num_frames:
        raise EpisodeError(
            f"{path.name}: pictures {first} to {first + num_frames} of {scan.num_frames} can not be cut out. "
            f"Give a range inside the video."
        )
    parts = list(_plan(scan, first, first + num_frames))
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.stem}.") as folder:
        job = _Cut(path=path, scan=scan, rate_hz=rate_hz, folder=Path(folder), encoding=encoding)
        if job.joined(parts, target):
            return sum(part.stop - part.first for part in parts if not part.copied)
        job.encoded(_Part(first=first, stop=first + num_frames, copied=False), encoding).replace(target)
    return num_frames


def _plan(scan: PacketScan, first: int, stop: int) -> Iterator[_Part]:
    """Head up to the first place where decoding can start, packets that stand alone, and the tail."""
    starts = entry_points(scan)
    inside = starts[(starts >= first) & (starts < stop)]
    if not len(inside):
        yield _Part(first=first, stop=stop, copied=False)
        return
    begin = int(inside[0])
    ends = [end for end in (stop, *inside[:0:-1].tolist()) if _is_closed(scan, begin, end)]
    if begin > first:
        yield _Part(first=first, stop=begin, copied=False)
    end = int(ends[0]) if ends else begin
    if end > begin:
        yield _Part(first=begin, stop=end, copied=True)
    if end < stop:
        yield _Part(first=end, stop=stop, copied=False)


def entry_points(scan: PacketScan) -> NDArray[np.int64]:
    """Pictures, as numbered when shown, that are keyframes which nothing decoded later is shown before."""
    later = np.minimum.accumulate(scan.ranks[::-1])[::-1]  # the earliest picture shown of this packet and all after it
    return np.sort(scan.ranks[scan.keys & (later == scan.ranks)])


def _is_closed(scan: PacketScan, first: int, stop: int) -> bool:
    inside = np.flatnonzero((scan.ranks >= first) & (scan.ranks < stop))
    last = int(inside[-1])
    return last - int(inside[0]) + 1 == len(inside) and ends_alone(scan.codec, scan.keys, last + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cut:
    path: Path
    scan: PacketScan
    rate_hz: int
    folder: Path
    encoding: VideoEncoding

    def joined(self, parts: list[_Part], target: Path) -> bool:
        """Write the parts as one file; False where what is encoded can not share a track with what is copied."""
        if all(part.copied for part in parts):
            [part] = parts
            scan = self._scanned(part)
            clip = Clip(path=self.path, first=part.first, num_frames=part.stop - part.first, content=scan.content)
            join_clips([clip], target, rate_hz=self.rate_hz, delay=scan.delay)
            return True
        if self.scan.codec not in _ENCODERS or self.scan.pix_fmt != PIX_FMT:
            return False
        if not any(part.copied for part in parts):
            return False
        try:
            pieces = [self._piece(part) for part in parts]
        except NotPlain:
            return False
        if not all(_fits(piece, pieces, self.scan.codec) for piece in pieces):
            return False
        copied = next(piece for piece, part in zip(pieces, parts, strict=True) if part.copied)
        # the track is described as the source's was: what is copied is most of it
        pieces = [replace(piece, table=replace(piece.table, entry=copied.table.entry)) for piece in pieces]
        delay = max(int(np.max(np.arange(len(piece.ranks)) - piece.ranks)) for piece in pieces)
        write_joined(pieces, target, rate_hz=self.rate_hz, delay=delay)
        return True

    def _scanned(self, part: _Part) -> PacketScan:
        return scan_video(self.path, rate_hz=self.rate_hz, first=part.first, num_frames=part.stop - part.first)

    def _piece(self, part: _Part) -> Piece:
        if part.copied:
            scan, table = self._scanned(part), read_table(self.path)
        else:
            path = self.encoded(part, self._like_source())
            scan, table = scan_video(path, rate_hz=self.rate_hz), read_table(path)
        return Piece(table=table, start=scan.start, stop=scan.start + scan.num_frames, ranks=scan.ranks)

    def _like_source(self) -> VideoEncoding:
        """The source's own codec; crf means about the same for all of them only within one codec."""
        codec = _ENCODERS[self.scan.codec]
        if codec == self.encoding.codec:
            return self.encoding
        if codec == "libsvtav1":
            return VideoEncoding(g=self.encoding.g)
        return VideoEncoding(codec=codec, g=self.encoding.g, crf=18, preset="medium")

    def encoded(self, part: _Part, encoding: VideoEncoding) -> Path:
        """Pictures of the source as an mp4 of their own."""
        path = self.folder / f"{part.first}-{part.stop}.mp4"
        spec = CameraSpec(
            name=self.path.stem,
            height=self.scan.height,
            width=self.scan.width,
            encoding=self.scan.codec,
            channel_order="rgb",
        )
        num_frames = part.stop - part.first
        stream = VideoFile(spec=spec, path=self.path, num_frames=num_frames, first=part.first, whole=False)
        num = 0
        with VideoWriter(
            path, width=spec.width, height=spec.height, rate_hz=self.rate_hz, encoding=encoding, threads=None
        ) as writer:
            for frame in video_frames(stream):
                writer.add(frame.to_ndarray(format="rgb24"))
                num += 1
        if num != num_frames:
            raise EpisodeError(f"{self.path.name}: {num} of {num_frames} pictures decode. Record the episode again.")
        return path


def _fits(piece: Piece, others: list[Piece], codec: str) -> bool:
    """Whether a decoder that was told of one piece's parameters reads all of them right."""
    if all(other.table.boxes == piece.table.boxes for other in others):
        return True
    size = (piece.table.width, piece.table.height)
    same_size = all((other.table.width, other.table.height) == size for other in others)
    return codec == "av1" and same_size and all(_carries_header(piece, index) for index in _keys(piece))


def _keys(piece: Piece) -> list[int]:
    return [int(index) + piece.start for index in np.flatnonzero(piece.table.keys[piece.start : piece.stop])]


def _carries_header(piece: Piece, index: int) -> bool:
    """Whether an AV1 packet holds a sequence header of its own."""
    with piece.table.path.open("rb") as file:
        file.seek(int(piece.table.offsets[index]))
        packet = file.read(int(piece.table.sizes[index]))
    position = 0
    while position < len(packet):
        head = packet[position]
        if head >> 3 & 15 == _SEQUENCE_HEADER:
            return True
        position += 2 if head & 4 else 1
        if not head & 2:  # without a size it is the last one
            return False
        size = shift = 0
        while True:
            byte = packet[position]
            size |= (byte & 127) << shift
            position, shift = position + 1, shift + 7
            if byte < 128:
                break
        position += size
    return False
