"""Pictures of a replay buffer: decoded once, checked exactly, and hashed whatever a rig says about them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from dataengine.sources.replay_buffers import (
    check_chunks,
    chunk_version,
    is_picture,
    one_picture_per_chunk,
    open_buffer,
    stored_pictures,
    zarr_blocks,
)
from schemas.episodes import CameraSpec
from schemas.errors import EpisodeError

_WHOLE_TOLERANCE = 1e-3  # float32 noise on a whole number
_CACHED_BYTES = 16 << 20  # pixels of a chunk that is kept for the next episode
_KEPT_BYTES = 64 << 20  # pixels of one camera kept from hashing to encoding; of a longer episode all are decoded twice


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ZarrArrays:
    """One episode's rows of a camera array; `first` is the row it starts at, `kept` are its pixels where they are few.

    Without `kept` the stream decodes block by block, so that memory stays bounded.
    """

    spec: CameraSpec
    root: Path
    key: str
    first: int
    num_frames: int
    kept: tuple[NDArray[np.uint8], ...] = ()

    def __len__(self) -> int:
        return self.num_frames

    def arrays(self) -> Iterator[NDArray[np.uint8]]:
        """Each frame, (height, width, 3) uint8."""
        if self.kept:
            yield from (picture for block in self.kept for picture in block)
            return
        for start, block in zarr_blocks(open_buffer(self.root)["data"][self.key], self.first, self.num_frames):
            yield from whole_pixels(block, f"camera '{self.spec.name}'", first=start)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HashedArray:
    """Content of one array in one episode: its hash, and its values where they are at hand."""

    digest: bytes
    values: NDArray[Any] | None  # of a column: (rows,) or (rows, dims)
    pixels: tuple[NDArray[np.uint8], ...] = ()  # of pictures that were few enough to keep
    whole: bool = True  # every pixel is a whole number in 0..255


def hash_array(
    name: str,
    root: Path,
    array: Any,  # noqa: ANN401 - a zarr array
    first: int,
    num_frames: int,
    *,
    keep: bool,
) -> HashedArray:
    """Read one array's rows of one episode, once.

    Pictures that are each one stored chunk are hashed as stored (they are decoded only to be encoded); others as
    decoded, as uint8 where that is exact, because chunks hold rows of several episodes. `keep` says that the pixels
    will be wanted. Raises EpisodeError for a chunk that is absent.
    """
    if len(array.shape) <= 2:
        check_chunks(name, array, first, num_frames)
        values = np.ascontiguousarray(array[first : first + num_frames])
        head = f"{values.dtype.str} {values.shape} ".encode()
        return HashedArray(digest=xxhash.xxh3_128(head + values.tobytes()).digest(), values=values)
    digest = xxhash.xxh3_128(f"{array.shape[1:]} ".encode())
    if one_picture_per_chunk(array):
        for stored in stored_pictures(name, array, first, num_frames):
            digest.update(len(stored).to_bytes(8, "little"))
            digest.update(stored)
        return HashedArray(digest=digest.digest(), values=None)
    check_chunks(name, array, first, num_frames)
    keep = keep and num_frames * int(np.prod(array.shape[1:])) <= _KEPT_BYTES
    whole = True
    kept: list[NDArray[np.uint8]] = []
    for block in _blocks(root, array, first, num_frames):
        pixels = _as_bytes(block)[0] if is_picture(array) else None
        digest.update(np.ascontiguousarray(block if pixels is None else pixels))
        whole = whole and pixels is not None
        if keep and pixels is not None:
            kept.append(pixels)
    return HashedArray(digest=digest.digest(), values=None, pixels=tuple(kept) if whole else (), whole=whole)


def _blocks(root: Path, array: Any, first: int, num_frames: int) -> Iterator[NDArray[Any]]:  # noqa: ANN401
    """Decoded rows; a chunk that ends one episode and begins the next is decoded once for both."""
    rows = int((array.shards or array.chunks)[0])
    small = rows * int(np.prod(array.shape[1:])) <= _CACHED_BYTES
    if not small or not is_picture(array):
        yield from (block for _, block in zarr_blocks(array, first, num_frames))
        return
    for number in range(first // rows, (first + num_frames - 1) // rows + 1):
        pixels = _chunk_pixels(_Chunk(chunk_version(root, array, number), number, rows, array))
        yield pixels[max(first - number * rows, 0) : first + num_frames - number * rows]


@dataclass(frozen=True, slots=True)
class _Chunk:
    """One chunk of one array, as it is on disk now."""

    version: tuple[str, ...]
    number: int
    rows: int
    array: Any = field(compare=False)


@lru_cache(maxsize=4)  # the last chunk of each of four cameras
def _chunk_pixels(chunk: _Chunk) -> NDArray[Any]:
    """All rows of a chunk, as uint8 where that is exact."""
    start = chunk.number * chunk.rows
    block = np.asarray(chunk.array[start : start + chunk.rows])
    pixels = _as_bytes(block)[0]
    return block if pixels is None else pixels


def check_pixels(label: str, array: Any, first: int, num_frames: int) -> None:  # noqa: ANN401 - a zarr array
    """Raise EpisodeError that names the first pixel that is no whole number in 0..255."""
    for start, block in zarr_blocks(array, first, num_frames):
        whole_pixels(block, label, first=start)


def whole_pixels(block: NDArray[Any], label: str, *, first: int = 0) -> NDArray[np.uint8]:
    """Pixels as uint8, exactly. Raises EpisodeError where a value is no whole number in 0..255."""
    pixels, wrong = _as_bytes(block)
    if pixels is not None:
        return pixels
    frame = int(np.argwhere(wrong)[0][0])
    value = float(block[wrong][0])
    peak = float(np.nanmax(block))
    hint = "They look like 0..1: multiply by 255 first." if 0 < peak <= 1 else "Store them as uint8 first."
    raise EpisodeError(f"{label} frame {first + frame} has the value {value:g}, no whole number in 0..255. {hint}")


def _as_bytes(block: NDArray[Any]) -> tuple[NDArray[np.uint8] | None, NDArray[np.bool_]]:
    """(pixels, or None where some value is no whole number in 0..255; which ones)."""
    none = np.zeros(0, dtype=np.bool_)
    if block.dtype == np.uint8:
        return block, none
    with np.errstate(invalid="ignore"):  # NaN and overflow do not survive the comparison
        exact = block.astype(np.uint8)
    if np.array_equal(exact, block):
        return exact, none
    whole = np.rint(block)
    wrong = ~((np.abs(block - whole) <= _WHOLE_TOLERANCE) & (whole >= 0) & (whole <= 255))  # NaN is wrong too
    return (None, wrong) if wrong.any() else (whole.astype(np.uint8), none)
