"""Shards of the frame store, written from pictures that already lie in files: whole stretches go inside the kernel.

A shard is its pictures back to back, then an index of uint64 offset and size with its crc32c: what the zarr v3
`sharding_indexed` codec reads.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dataengine.frame_store import SHARD_FRAMES
from dataengine.sinks.mp4_tables import copy_range


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stretch:
    """Pictures that lie back to back in one file, from byte `offset` on."""

    path: Path
    offset: int
    sizes: NDArray[np.int64]


def stretches(path: Path, offsets: NDArray[np.int64], sizes: NDArray[np.int64]) -> Iterator[Stretch]:
    """Pictures at `offsets` of one file, neighbours taken together."""
    breaks = np.flatnonzero(offsets[1:] != (offsets + sizes)[:-1]) + 1
    for low, high in zip([0, *breaks.tolist()], [*breaks.tolist(), len(offsets)], strict=True):
        yield Stretch(path=path, offset=int(offsets[low]), sizes=sizes[low:high])


def write_shard(path: Path, pieces: Sequence[Stretch | bytes]) -> None:
    """One shard file of stretches and single pictures. Missing inner chunks are marked with 2**64 - 1."""
    import google_crc32c

    sizes = np.concatenate(
        [piece.sizes if isinstance(piece, Stretch) else np.asarray([len(piece)]) for piece in pieces]
    ).astype(np.uint64)
    index = np.full((SHARD_FRAMES, 2), 2**64 - 1, dtype="<u8")
    index[: len(sizes), 0] = np.cumsum(sizes) - sizes
    index[: len(sizes), 1] = sizes
    raw = index.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        file = stack.enter_context(path.open("wb", buffering=0))
        sources: dict[Path, int] = {}
        for piece in pieces:
            if isinstance(piece, Stretch):
                if piece.path not in sources:
                    sources[piece.path] = stack.enter_context(piece.path.open("rb", buffering=0)).fileno()
                copy_range(sources[piece.path], file.fileno(), piece.offset, int(piece.sizes.sum()))
            else:
                _write_whole(file, piece)
        _write_whole(file, raw + google_crc32c.value(raw).to_bytes(4, "little"))


def _write_whole(file: RawIOBase, content: bytes) -> None:
    """An unbuffered write may stop short, on a disk that is almost full; the next one then says why."""
    view = memoryview(content)
    while len(view):
        view = view[file.write(view) or 0 :]
