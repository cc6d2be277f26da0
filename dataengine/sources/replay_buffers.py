"""Replay buffers as diffusion policy and UMI write them: one zarr group, all episodes end to end.

data/<array> (N, ...) and meta/episode_ends (episodes,), cumulative and exclusive. zarr v2 or v3, a folder or a
`.zarr.zip`. Pictures may be stored with codecs of imagecodecs (UMI: JPEG XL, one picture per chunk).
"""

import asyncio
import itertools
import zipfile
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataengine.sources.content import files_stamp
from schemas.errors import EpisodeError, SourceError

ZIP_SUFFIX = ".zarr.zip"
_BLOCK_BYTES = 32 << 20  # decoded pixels in memory at a time
_METADATA = (".zarray", ".zgroup", ".zattrs", ".zmetadata", "zarr.json")


def open_buffer(root: Path) -> Any:  # noqa: ANN401 - zarr ships no types
    """The group, read-only. Raises SourceError for one that is no replay buffer."""
    import zarr

    _register_codecs()
    try:
        group = _open_zip(root, _version(root)) if root.is_file() else zarr.open_group(str(root), mode="r")
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise SourceError(f"{root.name} is not a readable zarr group ({error}). Copy it again.") from None
    if "data" not in group or "episode_ends" not in group.get("meta", {}):
        raise SourceError(f"{root.name} has no data/ and meta/episode_ends, so it is no replay buffer. Check the path.")
    return group


def _version(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_size


@lru_cache(maxsize=1)
def _open_zip(root: Path, version: tuple[int, int]) -> Any:  # noqa: ANN401 - a zarr group
    """A zip of a million pictures takes seconds to list: once per worker, not once per episode."""
    import zarr

    return zarr.open_group(zarr.storage.ZipStore(root, mode="r"), mode="r")


@cache
def _register_codecs() -> None:
    """UMI's JPEG XL and diffusion policy's JPEG 2000 chunks: numcodecs knows them once they are registered."""
    from imagecodecs.numcodecs import register_codecs

    register_codecs(["imagecodecs_jpegxl", "imagecodecs_jpeg2k"], verbose=False)


def read_ends(root: Path, group: Any) -> tuple[int, ...]:  # noqa: ANN401 - a zarr group
    """Where each episode ends. Raises SourceError when they go back or do not match the arrays."""
    ends = np.asarray(group["meta"]["episode_ends"][:]).astype(np.int64)
    lengths = {key: int(array.shape[0]) if array.shape else 0 for key, array in group["data"].arrays()}
    if not len(ends) or (np.diff(ends, prepend=0) < 0).any():
        raise SourceError(f"{root.name}: meta/episode_ends is empty or goes back, so episodes cannot be told apart.")
    wrong = {key: rows for key, rows in lengths.items() if rows != ends[-1]}
    if wrong:
        key = min(wrong)
        raise SourceError(
            f"{root.name}: data/{key} has {wrong[key]} rows, but meta/episode_ends ends at {ends[-1]}. Copy it again."
        )
    return tuple(ends.tolist())


def array_names(root: Path) -> list[str]:
    """Names under data/, without opening any: for telling layouts apart. Empty where the zip can not be listed."""
    if root.is_dir():
        return sorted(path.name for path in (root / "data").iterdir() if path.is_dir())
    try:
        with zipfile.ZipFile(root) as file:
            parts = [name.split("/") for name in file.namelist()]
    except (OSError, zipfile.BadZipFile):
        return []
    return sorted({part[1] for part in parts if len(part) > 2 and part[0] == "data"})


def is_umi(names: Sequence[str]) -> bool:
    """UMI's names: pictures of a hand's camera and poses of that hand."""
    return "camera0_rgb" in names and "robot0_eef_pos" in names


def is_picture(array: Any) -> bool:  # noqa: ANN401 - a zarr array
    """True for (N, height, width, 3) of uint8 or floats."""
    return len(array.shape) == 4 and array.shape[3] == 3 and array.dtype in (np.uint8, np.float32, np.float64)


def one_picture_per_chunk(array: Any) -> bool:  # noqa: ANN401 - a zarr array
    """True where a stored chunk is one whole uint8 picture, so that its bytes belong to one episode alone."""
    return is_picture(array) and array.dtype == np.uint8 and _chunk_shape(array) == (1, *array.shape[1:])


def zarr_blocks(array: Any, first: int, num_frames: int) -> Iterator[tuple[int, NDArray[Any]]]:  # noqa: ANN401
    """(first frame within the episode, decoded frames) of rows [first, first + num_frames), cut at chunk borders."""
    frame_bytes = max(int(np.prod(array.shape[1:])) * array.dtype.itemsize, 1)
    rows = _chunk_shape(array)[0]
    step = max(_BLOCK_BYTES // frame_bytes // rows, 1) * rows
    row = first
    while row < first + num_frames:
        end = min((row // step + 1) * step, first + num_frames)
        yield row - first, np.asarray(array[row:end])
        row = end


def check_chunks(label: str, array: Any, first: int, num_frames: int) -> None:  # noqa: ANN401 - a zarr array
    """Raise EpisodeError where a chunk of these rows is not stored: zarr would read it as zeros without a word."""
    from zarr.core.sync import sync

    keys = _chunk_keys(array, first, num_frames)

    async def present() -> list[bool]:
        return list(await asyncio.gather(*(array.store.exists(f"{array.path}/{key}") for key in keys)))

    _refuse_absent(label, array, keys, sync(present()))


def stored_pictures(label: str, array: Any, first: int, num_frames: int) -> Iterator[bytes]:  # noqa: ANN401
    """The stored bytes of each picture, as they lie in the store; of arrays with one picture per chunk."""
    from zarr.buffer import default_buffer_prototype
    from zarr.core.sync import sync  # on zarr's own loop: the caller may run one already

    keys = _chunk_keys(array, first, num_frames)

    async def load(some: Sequence[str]) -> list[Any]:
        prototype = default_buffer_prototype()
        return list(await asyncio.gather(*(array.store.get(f"{array.path}/{key}", prototype) for key in some)))

    for some in itertools.batched(keys, 256):
        buffers = sync(load(some))
        _refuse_absent(label, array, some, [buffer is not None for buffer in buffers])
        for buffer in buffers:
            yield buffer.to_bytes()


def _refuse_absent(label: str, array: Any, keys: Sequence[str], present: Sequence[bool]) -> None:  # noqa: ANN401
    absent = [key for key, found in zip(keys, present, strict=True) if not found]
    if absent:
        raise EpisodeError(
            f"{label}: {len(absent)} of {len(keys)} chunks of {array.path} are not in the store ({absent[0]} first). "
            f"Copy it again; a store that leaves out chunks of zeros must be written with write_empty_chunks."
        )


def _chunk_keys(array: Any, first: int, num_frames: int) -> list[str]:  # noqa: ANN401 - a zarr array
    """Store keys of every chunk that holds some of these rows."""
    sizes = _chunk_shape(array)
    grid = [range(first // sizes[0], (first + num_frames - 1) // sizes[0] + 1)]
    grid += [range(-(-length // size)) for length, size in zip(array.shape[1:], sizes[1:], strict=True)]
    return [array.metadata.encode_chunk_key(place) for place in itertools.product(*grid)]


def chunk_version(root: Path, array: Any, number: int) -> tuple[str, ...]:  # noqa: ANN401 - a zarr array
    """Which array and which state on disk a chunk of these rows is of: another after it was written anew."""
    keys = _chunk_keys(array, number * _chunk_shape(array)[0], 1)
    files = [root] if root.is_file() else [root / array.path / key for key in keys]
    return (str(root), array.path, files_stamp(files, {}))


def _chunk_shape(array: Any) -> tuple[int, ...]:  # noqa: ANN401 - a zarr array
    """What is one file in the store: a shard where there are shards."""
    return tuple(array.shards or array.chunks)


def folder_files(root: Path) -> tuple[list[Path], list[Path]]:
    """(chunks of pictures, everything else) of a folder store; told by metadata, so that no rig is needed."""
    group = open_buffer(root)
    pictures = {root / "data" / key for key, array in group["data"].arrays() if is_picture(array)}
    files = [path for path in root.rglob("*") if path.is_file()]
    inside = {path for path in files if path.name not in _METADATA and not pictures.isdisjoint(path.parents)}
    return sorted(inside), sorted(set(files) - inside)


def stored_bytes(root: Path) -> int:
    """Bytes of the whole store."""
    files = [root] if root.is_file() else root.rglob("*")
    return sum(path.stat().st_size for path in files if path.is_file())


def zip_members(root: Path) -> list[str]:
    """Name, size and stored CRC-32 of every member: the whole content, without reading it."""
    with zipfile.ZipFile(root) as file:
        return sorted(f"{each.filename} {each.file_size} {each.CRC:08x}" for each in file.infolist())
