"""Shards of the frame store, written from pictures that already lie in files.

A shard is its pictures back to back, then an index of uint64 offset and size with its crc32c: what the zarr v3
`sharding_indexed` codec reads. Neighbours are read and written together through one small buffer: a call per picture
took a third more of the processor, and threads that wait for the interpreter between two pictures do not add up.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dataengine.frame_store import SHARD_FRAMES
from dataengine.sinks.mp4_tables import copy_range

BUFFER_BYTES = 1 << 20  # stays in the processor's cache between its read and its write; 4 MB were 10 % slower
_GAP_BYTES = 1 << 14  # between two pictures that are still read together: padding of HDF5 rows


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stretch:
    """Pictures in one file, each where `offsets` says, in the order of the shard."""

    path: Path
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]

    def neighbours(self) -> Iterator[tuple[int, int]]:
        """Pictures [low, high) that lie one after the other and fit into the buffer; one alone where it does not."""
        ends = self.offsets + self.sizes
        gaps = self.offsets[1:] - ends[:-1]
        is_break = [*((gaps < 0) | (gaps > _GAP_BYTES)).tolist(), True]
        low, offsets, stops = 0, self.offsets.tolist(), ends.tolist()
        for last, breaks in enumerate(is_break):
            if breaks or stops[last + 1] - offsets[low] > BUFFER_BYTES:
                yield low, last + 1
                low = last + 1


def write_shard(path: Path, pieces: Sequence[Stretch | bytes]) -> None:
    """One shard file of stretches and single pictures."""
    sizes = np.concatenate(
        [piece.sizes if isinstance(piece, Stretch) else np.asarray([len(piece)]) for piece in pieces]
    )
    buffer = memoryview(bytearray(BUFFER_BYTES))
    path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        file = stack.enter_context(path.open("wb", buffering=0))
        sources: dict[Path, int] = {}
        for piece in pieces:
            if isinstance(piece, Stretch):
                if piece.path not in sources:
                    sources[piece.path] = stack.enter_context(piece.path.open("rb", buffering=0)).fileno()
                _copy(sources[piece.path], file, piece, buffer)
            else:
                _write_whole(file, piece)
        _write_whole(file, _index(sizes))


def finish_shard(path: Path, sizes: NDArray[np.int64]) -> bool:
    """Append its index to a file of pictures of these sizes; False where it is longer, shorter, or not there."""
    try:
        with path.open("r+b", buffering=0) as file:
            if file.seek(0, os.SEEK_END) != int(sizes.sum()):
                return False
            _write_whole(file, _index(sizes))
    except FileNotFoundError:
        return False
    return True


def _index(sizes: NDArray[np.int64]) -> bytes:
    """The end of a shard. Missing inner chunks are marked with 2**64 - 1."""
    import google_crc32c

    index = np.full((SHARD_FRAMES, 2), 2**64 - 1, dtype="<u8")
    index[: len(sizes), 0] = np.cumsum(sizes) - sizes
    index[: len(sizes), 1] = sizes
    raw = index.tobytes()
    crc: int = google_crc32c.value(raw)
    return raw + crc.to_bytes(4, "little")


def _copy(source: int, file: RawIOBase, piece: Stretch, buffer: memoryview) -> None:
    """Append the pictures of a stretch. Raises OSError when its file ends early."""
    for low, high in piece.neighbours():
        start, stop = int(piece.offsets[low]), int(piece.offsets[high - 1] + piece.sizes[high - 1])
        if stop - start > len(buffer):
            copy_range(source, file.fileno(), start, stop - start)
            continue
        _read_whole(source, buffer[: stop - start], start)
        begins, sizes = (piece.offsets[low:high] - start).tolist(), piece.sizes[low:high].tolist()
        pictures = [buffer[begin : begin + size] for begin, size in zip(begins, sizes, strict=True)]
        done = os.writev(file.fileno(), pictures)
        if done < sum(sizes):
            _write_whole(file, b"".join(pictures)[done:])


def _read_whole(source: int, view: memoryview, offset: int) -> None:
    while len(view):
        done = os.preadv(source, [view], offset)
        if not done:
            raise OSError(f"a file ended {len(view)} bytes early while it was copied")
        offset, view = offset + done, view[done:]


def _write_whole(file: RawIOBase, content: bytes) -> None:
    """An unbuffered write may stop short, on a disk that is almost full; the next one then says why."""
    view = memoryview(content)
    while len(view):
        view = view[file.write(view) or 0 :]
