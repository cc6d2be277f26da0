"""Sample tables of mp4 files: read without touching a picture, and written anew so that videos join at copy speed.

A table says where each packet lies, when it is shown and which are keyframes (ISO 14496-12, `stbl` and its boxes).
Files whose tables do not say it all (fragments, several sets of codec parameters, packets in other files) raise
`NotPlain`: PyAV reads those.
"""

import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from schemas.errors import EpisodeError

CODECS = {"av01": "av1", "avc1": "h264", "avc3": "h264", "hvc1": "hevc", "hev1": "hevc", "vp09": "vp9"}
FileStat = tuple[int, int, int]  # size, modified (ns) and inode: with the same ones it is the same while a run lasts
_ENTRY_HEAD = 78  # bytes of a visual sample entry before its boxes
_BUFFER_BYTES = 1 << 20
_MOST_MOOV = 1 << 29  # a table of half a gigabyte would be 30 million packets


class NotPlain(Exception):
    """These tables do not say all that is needed; the reason is the message."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VideoTable:
    """The first video track of one mp4, packet by packet in decode order."""

    path: Path
    fourcc: str
    width: int
    height: int
    entry: bytes  # the visual sample entry without its bit rate box, which differs from file to file
    boxes: bytes  # of the entry: codec parameters, colour, pixel shape; what must be equal in one track
    timescale: int
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    stamps: NDArray[np.int64]  # when each packet is shown, in 1/timescale s
    keys: NDArray[np.bool_]

    def runs(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """(offset, number of bytes) of the packets [start, stop), neighbours taken together."""
        offsets, sizes = self.offsets[start:stop], self.sizes[start:stop]
        if not len(offsets):
            return
        breaks = np.flatnonzero(offsets[1:] != (offsets + sizes)[:-1]) + 1
        for low, high in zip([0, *breaks.tolist()], [*breaks.tolist(), len(offsets)], strict=True):
            yield int(offsets[low]), int(sizes[low:high].sum())


def read_table(path: Path) -> VideoTable:
    """The tables of `path`.

    Raises NotPlain where PyAV has to look, EpisodeError for a trimmed or cut file, FileNotFoundError.
    """
    with path.open("rb") as file:
        moov = _moov(file)
        num_bytes = os.fstat(file.fileno()).st_size
    try:
        table, edits = _video_track(path, moov)
    except (struct.error, IndexError, ValueError, KeyError) as error:
        raise NotPlain(f"its tables do not parse ({error})") from None
    if not len(table.sizes):
        raise NotPlain("its video track holds no packets")
    if int((table.offsets + table.sizes).max()) > num_bytes:
        raise EpisodeError(f"{path.name}: the file is cut short of its own tables. Copy it again.")
    _check_edits(table, edits)
    return table


@lru_cache(maxsize=8)
def _kept_table(path: Path, file_stat: FileStat) -> VideoTable:
    return read_table(path)


def recent_table(path: Path) -> VideoTable:
    """`read_table`, parsed once for the many episodes that may lie in one file."""
    return _kept_table(path, stat_of(path))


def stat_of(path: Path) -> FileStat:
    """Size, date and inode of a file.

    Not the date of its inode: a hard link made beside it, by us or by a backup, would make it look rewritten. The
    stamps of sources hold that, so that the next run reads again what was rewritten under its old date.
    """
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ino


def _moov(file: BinaryIO) -> bytes:
    """Content of the movie box. Raises NotPlain for anything that is not one movie box beside its packets."""
    position = 0
    while head := file.read(16):
        if len(head) < 8:
            break
        size, kind = struct.unpack(">I4s", head[:8])
        start = 8
        if size == 1 and len(head) == 16:
            size, start = struct.unpack(">Q", head[8:])[0], 16
        if kind in (b"moof", b"sidx"):
            raise NotPlain("it is fragmented")
        if kind == b"moov":
            if not start <= size <= _MOST_MOOV:
                raise NotPlain("its movie box has no sane size")
            file.seek(position + start)
            return file.read(size - start)
        if size < start:  # 0 = to the end of the file
            break
        position += size
        file.seek(position)
    raise NotPlain("it has no movie box")


def _boxes(content: bytes, start: int = 0) -> Iterator[tuple[bytes, bytes]]:
    """(kind, content) of the boxes in `content`."""
    position = start
    while position + 8 <= len(content):
        size, kind = struct.unpack_from(">I4s", content, position)
        head = 8
        if size == 1:
            size, head = struct.unpack_from(">Q", content, position + 8)[0], 16
        if size == 0:
            size = len(content) - position
        if size < head or position + size > len(content):
            raise ValueError(f"box {kind!r} of {size} bytes")
        yield kind, content[position + head : position + size]
        position += size


def _inside(content: bytes, *path: bytes) -> bytes:
    """The first box at `path`. Raises KeyError."""
    for kind in path:
        content = next((inner for found, inner in _boxes(content) if found == kind), None) or _absent(kind)
    return content


def _absent(kind: bytes) -> bytes:
    raise KeyError(kind.decode("latin-1"))


def _video_track(path: Path, moov: bytes) -> tuple[VideoTable, bytes]:
    """The first video track, and its edit list ("" where it has none)."""
    movie = list(_boxes(moov))
    if any(kind == b"mvex" for kind, _ in movie):
        raise NotPlain("it is fragmented")
    for kind, trak in movie:
        if kind == b"trak" and _inside(trak, b"mdia", b"hdlr")[8:12] == b"vide":
            edits = next((_inside(inner, b"elst") for found, inner in _boxes(trak) if found == b"edts"), b"")
            timescale = _timescale(moov)
            return _table(path, _inside(trak, b"mdia")), edits and struct.pack(">I", timescale) + edits
    raise NotPlain("it has no video track")


def _timescale(moov: bytes) -> int:
    mvhd = _inside(moov, b"mvhd")
    return int(struct.unpack_from(">I", mvhd, 20 if mvhd[0] else 12)[0])


def _table(path: Path, mdia: bytes) -> VideoTable:
    mdhd, minf = _inside(mdia, b"mdhd"), _inside(mdia, b"minf")
    stbl = dict(_boxes(_inside(minf, b"stbl")))
    if _inside(minf, b"dinf", b"dref")[19:20] != b"\x01":
        raise NotPlain("its packets lie in another file")
    fourcc, entry, boxes = _entry(stbl[b"stsd"])
    sizes = _sizes(stbl)
    stamps = _stamps(stbl, len(sizes))
    keys = np.zeros(len(sizes), dtype=np.bool_) if b"stss" in stbl else np.ones(len(sizes), dtype=np.bool_)
    if b"stss" in stbl:
        keys[_numbers(stbl[b"stss"], 8) - 1] = True
    width, height = struct.unpack_from(">HH", entry, 8 + 24)
    return VideoTable(
        path=path,
        fourcc=fourcc,
        width=width,
        height=height,
        entry=entry,
        boxes=boxes,
        timescale=int(struct.unpack_from(">I", mdhd, 20 if mdhd[0] else 12)[0]),
        offsets=_offsets(stbl, sizes),
        sizes=sizes,
        stamps=stamps,
        keys=keys,
    )


def _entry(stsd: bytes) -> tuple[str, bytes, bytes]:
    """Four letters of the codec, the sample entry, and the boxes in it, bit rate left out."""
    [(kind, content)] = list(_boxes(stsd, 8)) if struct.unpack_from(">I", stsd, 4)[0] == 1 else [(b"", b"")]
    fourcc = kind.decode("latin-1")
    if fourcc not in CODECS:
        raise NotPlain(f"its packets are '{fourcc or 'of several kinds'}'")
    boxes = b"".join(box(name, inner) for name, inner in _boxes(content, _ENTRY_HEAD) if name != b"btrt")
    return fourcc, box(kind, content[:6], b"\0\1", content[8:_ENTRY_HEAD], boxes), boxes


def _numbers(content: bytes, start: int, dtype: str = ">u4") -> NDArray[np.int64]:
    """A counted list whose count stands 4 bytes before `start`."""
    count = struct.unpack_from(">I", content, start - 4)[0]
    return np.frombuffer(content, dtype=dtype, count=count, offset=start).astype(np.int64)


def _pairs(content: bytes, width: int) -> NDArray[np.int64]:
    count = struct.unpack_from(">I", content, 4)[0]
    rows = np.frombuffer(content, dtype=">u4", count=count * width, offset=8)
    return rows.reshape(count, width).astype(np.int64)


def _sizes(stbl: dict[bytes, bytes]) -> NDArray[np.int64]:
    fixed, count = struct.unpack_from(">II", stbl[b"stsz"], 4)
    return np.full(count, fixed, dtype=np.int64) if fixed else _numbers(stbl[b"stsz"], 12)


def _stamps(stbl: dict[bytes, bytes], count: int) -> NDArray[np.int64]:
    steps = _pairs(stbl[b"stts"], 2)
    durations = np.repeat(steps[:, 1], steps[:, 0])
    if len(durations) != count:
        raise ValueError(f"{len(durations)} times for {count} packets")
    stamps = np.cumsum(durations) - durations
    if b"ctts" in stbl:
        rows = _pairs(stbl[b"ctts"], 2)
        shifts = np.repeat(rows[:, 1].astype(np.uint32).view(np.int32), rows[:, 0]).astype(np.int64)
        if len(shifts) != count:
            raise ValueError(f"{len(shifts)} shifts for {count} packets")
        stamps = stamps + shifts
    return stamps


def _offsets(stbl: dict[bytes, bytes], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    chunks = _numbers(stbl[b"co64"], 8, ">u8") if b"co64" in stbl else _numbers(stbl[b"stco"], 8)
    rows = _pairs(stbl[b"stsc"], 3)
    if np.any(rows[:, 2] != 1):
        raise NotPlain("its packets are of several kinds")
    firsts = np.append(rows[:, 0], len(chunks) + 1)
    per_chunk = np.repeat(rows[:, 1], np.diff(firsts))
    if int(per_chunk.sum()) != len(sizes):
        raise ValueError(f"{per_chunk.sum()} packets in chunks for {len(sizes)}")
    before = np.cumsum(sizes) - sizes
    starts = np.cumsum(per_chunk) - per_chunk
    offsets: NDArray[np.int64] = np.repeat(chunks - before[starts], per_chunk) + before
    return offsets


def _check_edits(table: VideoTable, edits: bytes) -> None:
    """Only a list that shows everything is followed: a start offset, or the lag of reordered pictures."""
    if not edits:
        return
    movie_scale, version = struct.unpack_from(">IB", edits)
    count = struct.unpack_from(">I", edits, 8)[0]
    form, size = (">QqI", 20) if version else (">IiI", 12)
    shown = [
        (duration, start)
        for duration, start, _ in (struct.unpack_from(form, edits, 12 + size * row) for row in range(count))
        if start != -1  # an empty edit: the video starts later
    ]
    first = int(table.stamps.min())
    span = (int(table.stamps.max()) - first) / table.timescale  # to the start of the last picture
    whole = len(shown) == 1 and shown[0][1] <= first
    if not whole or (shown[0][0] and shown[0][0] / movie_scale < span - 1e-3):
        raise EpisodeError(f"{table.path.name}: the video is trimmed by its edit list. Export it again.")


def box(kind: bytes, *parts: bytes) -> bytes:
    """One box."""
    content = b"".join(parts)
    return struct.pack(">I4s", 8 + len(content), kind) + content


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A range of packets of one file, [start, stop) in decode order, and when each is shown, counted from 0."""

    table: VideoTable
    start: int
    stop: int
    ranks: NDArray[np.int64]


def write_joined(pieces: Sequence[Piece], target: Path, *, rate_hz: int, delay: int) -> None:
    """One mp4 of all pieces, back to back, its table first: a browser can seek before it has the whole file.

    Codec parameters must be the same in all pieces. `delay`: how many pictures decoding runs ahead of showing.
    """
    sizes = np.concatenate([piece.table.sizes[piece.start : piece.stop] for piece in pieces])
    num_bytes = int(sizes.sum())
    wide = num_bytes > (1 << 32) - (1 << 27)
    mdat = struct.pack(">I4sQ", 1, b"mdat", num_bytes + 16) if wide else struct.pack(">I4s", num_bytes + 8, b"mdat")
    ftyp = box(b"ftyp", b"isom", struct.pack(">I", 512), b"isomiso2mp41")
    blank = _movie(pieces, sizes, first=0, wide=wide, rate_hz=rate_hz, delay=delay)
    first = len(ftyp) + len(blank) + len(mdat)
    moov = _movie(pieces, sizes, first=first, wide=wide, rate_hz=rate_hz, delay=delay)
    with target.open("wb", buffering=0) as file:
        file.write(ftyp + moov + mdat)
        for piece in pieces:
            with piece.table.path.open("rb", buffering=0) as source:
                for offset, size in piece.table.runs(piece.start, piece.stop):
                    copy_range(source.fileno(), file.fileno(), offset, size)


def copy_range(source: int, target: int, offset: int, num_bytes: int) -> None:
    """Append bytes of one open file to another. Raises OSError when the source ends early.

    Through a buffer that stays in the processor's cache: `copy_file_range`, which goes through pipes of 64 kB here,
    took 1.3 times as long.
    """
    buffer = memoryview(bytearray(min(num_bytes, _BUFFER_BYTES)))
    while num_bytes:
        done = os.preadv(source, [buffer[:num_bytes]], offset)
        if not done:
            raise OSError(f"a file ended {num_bytes} bytes early while it was copied")
        written = 0
        while written < done:  # a write may stop short, on a disk that is almost full; the next one then says why
            written += os.write(target, buffer[written:done])
        offset += done
        num_bytes -= done


def _movie(
    pieces: Sequence[Piece], sizes: NDArray[np.int64], *, first: int, wide: bool, rate_hz: int, delay: int
) -> bytes:
    """The movie box: one video track at a constant rate, one chunk per piece."""
    tick = 1
    while rate_hz * tick < 10_000:  # as FFmpeg does: coarse clocks confuse some players
        tick *= 2
    table, total = pieces[0].table, len(sizes)
    matrix = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    length = total * tick
    clock = struct.pack(">QQIQ", 0, 0, rate_hz * tick, length)
    mvhd = _full(b"mvhd", 1, 0, clock, struct.pack(">IH10x", 0x10000, 0x100), matrix, bytes(24), struct.pack(">I", 2))
    head = struct.pack(">QQI4xQ8xHHHxx", 0, 0, 1, length, 0, 0, 0)
    side = struct.pack(">II", table.width << 16, table.height << 16)
    tkhd = _full(b"tkhd", 1, 3, head, matrix, side)
    elst = _full(b"elst", 1, 0, struct.pack(">IQqI", 1, length, delay * tick, 0x10000))
    mdhd = _full(b"mdhd", 1, 0, clock, struct.pack(">HH", 0x55C4, 0))
    hdlr = _full(b"hdlr", 0, 0, b"\0\0\0\0vide", bytes(12), b"VideoHandler\0")
    dref = _full(b"dref", 0, 0, struct.pack(">I", 1), _full(b"url ", 0, 1))
    stbl = _samples(pieces, sizes, first=first, wide=wide, tick=tick, delay=delay)
    minf = box(b"minf", _full(b"vmhd", 0, 1, bytes(8)), box(b"dinf", dref), stbl)
    trak = box(b"trak", tkhd, box(b"edts", elst), box(b"mdia", mdhd, hdlr, minf))
    return box(b"moov", mvhd, trak)


def _full(kind: bytes, version: int, flags: int, *parts: bytes) -> bytes:
    return box(kind, struct.pack(">I", version << 24 | flags), *parts)


def _samples(
    pieces: Sequence[Piece], sizes: NDArray[np.int64], *, first: int, wide: bool, tick: int, delay: int
) -> bytes:
    lengths = [piece.stop - piece.start for piece in pieces]
    keys = np.concatenate([piece.table.keys[piece.start : piece.stop] for piece in pieces])
    shown = np.concatenate([piece.ranks + before for piece, before in zip(pieces, _before(lengths), strict=True)])
    parts = [
        _full(b"stsd", 0, 0, struct.pack(">I", 1), pieces[0].table.entry),
        _full(b"stts", 0, 0, struct.pack(">III", 1, len(sizes), tick)),
    ]
    shifts = (shown - np.arange(len(shown)) + delay) * tick
    if delay:
        parts.append(_full(b"ctts", 0, 0, _run_lengths(shifts)))
    if not keys.all():
        parts.append(_full(b"stss", 0, 0, _listed(np.flatnonzero(keys) + 1)))
    chunks = [struct.pack(">III", number + 1, length, 1) for number, length in enumerate(lengths)]
    parts.append(_full(b"stsc", 0, 0, struct.pack(">I", len(chunks)), *chunks))
    parts.append(_full(b"stsz", 0, 0, struct.pack(">I", 0), _listed(sizes)))
    ends = np.cumsum(sizes)
    starts = first + (ends - sizes)[np.asarray(_before(lengths))]
    parts.append(_full(b"co64", 0, 0, _listed(starts, ">u8")) if wide else _full(b"stco", 0, 0, _listed(starts)))
    return box(b"stbl", *parts)


def _before(lengths: Sequence[int]) -> list[int]:
    return [0, *np.cumsum(lengths)[:-1].tolist()]


def _listed(values: NDArray[np.int64], dtype: str = ">u4") -> bytes:
    return struct.pack(">I", len(values)) + values.astype(dtype).tobytes()


def _run_lengths(values: NDArray[np.int64]) -> bytes:
    """(count, value) pairs, counted."""
    starts = np.flatnonzero(np.append(True, values[1:] != values[:-1]))
    counts = np.diff(np.append(starts, len(values)))
    return struct.pack(">I", len(starts)) + np.stack([counts, values[starts]], axis=1).astype(">u4").tobytes()
