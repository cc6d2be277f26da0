"""What an HDF5 file or group holds, read piece by piece: rows, texts, and one hash of all numbers and pictures."""

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xxhash
from numpy.typing import NDArray

from dataengine.sinks.frame_shards import BUFFER_BYTES, Stretch
from dataengine.sources.content import WHOLE_BYTES
from schemas.errors import EpisodeError

BLOCK_BYTES = 8 << 20  # at most this much of a dataset is in memory


def open_hdf5(path: Path) -> h5py.File:
    """Open for reading, also on file systems without locks."""
    return h5py.File(path, "r", locking=False)


def row_bytes(dataset: h5py.Dataset) -> int:
    """Stored bytes of one row of a dataset of fixed-size values."""
    return max(int(np.prod(dataset.shape[1:], dtype=np.int64)) * int(dataset.dtype.itemsize), 1)


def row_offsets(dataset: h5py.Dataset) -> NDArray[np.int64] | None:
    """Where each row starts in the file, (T,); None where rows are filtered, split, external or of variable length.

    Reading rows there skips h5py's slicing, which takes about half of the time for rows of 50 kB.
    """
    if dataset.dtype.hasobject or dataset.file.userblock_size or dataset.external or dataset.is_virtual:
        return None
    num_rows, size = len(dataset), row_bytes(dataset)
    if dataset.chunks is None:
        start = dataset.id.get_offset()
        return None if start is None else start + np.arange(num_rows, dtype=np.int64) * size
    chunk_rows = dataset.chunks[0]
    if dataset.chunks[1:] != dataset.shape[1:] or dataset.id.get_create_plist().get_nfilters():
        return None
    places = _written_chunks(dataset)
    firsts = np.asarray([place.chunk_offset[0] for place in places], np.int64)
    starts = np.asarray([place.byte_offset for place in places], np.int64)
    steps = np.arange(chunk_rows, dtype=np.int64)
    rows = (firsts[:, None] + steps).ravel()
    offsets = np.full(num_rows, -1, np.int64)
    inside = rows < num_rows  # the last chunk may reach beyond the end
    offsets[rows[inside]] = (starts[:, None] + steps * size).ravel()[inside]
    return None if (offsets < 0).any() else offsets  # a chunk never written has no place


def check_written(episode: str, key: str, dataset: h5py.Dataset) -> None:
    """Raise EpisodeError for rows that were never written: HDF5 reads them as zeros and black pictures.

    Their chunks are absent; what was written has chunks, zeros too. Those are counted, and looked at one by one only
    where some are absent.
    """
    num_lost = _num_never_written(dataset)
    if num_lost:
        raise EpisodeError(
            f"{episode}: {num_lost} of {len(dataset)} rows of {key} were never written and would read as fill values. "
            f"Record it again, trim the file to the rows that were written, or take {key} out of the rig."
        )


def _num_never_written(dataset: h5py.Dataset) -> int:
    """Rows of which some part was never written; of a dataset that is not chunked all or none."""
    if not dataset.size or not dataset.ndim or dataset.is_virtual or dataset.external:
        return 0
    if dataset.chunks is None:
        return 0 if dataset.id.get_storage_size() else len(dataset)
    height, *per_row = [-(-length // size) for length, size in zip(dataset.shape, dataset.chunks, strict=True)]
    if dataset.id.get_num_chunks() == height * math.prod(per_row):
        return 0
    written = Counter(place.chunk_offset[0] for place in _written_chunks(dataset))
    size = dataset.chunks[0]
    lost = [first for first in range(0, len(dataset), size) if written[first] < math.prod(per_row)]
    return sum(min(size, len(dataset) - first) for first in lost)


def _written_chunks(dataset: h5py.Dataset) -> list[Any]:
    """h5py's `StoreInfo` of every chunk that was written; the others are passed over."""
    places: list[Any] = []
    dataset.id.chunk_iter(places.append)
    return places


def blocks(dataset: h5py.Dataset) -> Iterator[NDArray[Any]]:
    """A dataset of fixed-size values in pieces of whole chunks and about BLOCK_BYTES."""
    rows = max(BLOCK_BYTES // row_bytes(dataset), 1)
    if dataset.chunks is not None:
        rows = max(rows // dataset.chunks[0], 1) * dataset.chunks[0]
    for start in range(0, len(dataset), rows):
        yield dataset[start : start + rows]


def rows_at(path: Path, offsets: NDArray[np.int64], lengths: NDArray[np.int64]) -> Iterator[bytes]:
    """The bytes at some places of a file. Raises EpisodeError where it ends before them."""
    with path.open("rb", buffering=0) as raw:
        handle = raw.fileno()
        for offset, length in zip(offsets.tolist(), lengths.tolist(), strict=True):
            row = os.pread(handle, length, offset)
            if len(row) != length:
                raise EpisodeError(f"{path.name}: file is truncated. Copy it again from the recorder, or drop it.")
            yield row


def neighbours_at(path: Path, offsets: NDArray[np.int64], lengths: NDArray[np.int64]) -> Iterator[Sequence[memoryview]]:
    """As `rows_at`, with neighbours read together; those that were given are overwritten by the next ones."""
    stretch = Stretch(path=path, offsets=offsets, sizes=lengths)
    buffer = memoryview(bytearray(BUFFER_BYTES))
    with path.open("rb", buffering=0) as raw:
        for low, high in stretch.neighbours():
            start, stop = int(offsets[low]), int(offsets[high - 1] + lengths[high - 1])
            view = buffer[: stop - start] if stop - start <= BUFFER_BYTES else memoryview(bytearray(stop - start))
            if os.preadv(raw.fileno(), [view], start) != len(view):
                raise EpisodeError(f"{path.name}: file is truncated. Copy it again from the recorder, or drop it.")
            begins = (offsets[low:high] - start).tolist()
            yield [view[begin : begin + size] for begin, size in zip(begins, lengths[low:high].tolist(), strict=True)]


def padded_rows(path: Path, dataset: h5py.Dataset, offsets: NDArray[np.int64] | None) -> Iterator[bytes]:
    """Each row's bytes: of uint8 rows with their padding, of variable-length rows as long as they are.

    `offsets` is what `row_offsets` says about the dataset.
    """
    if dataset.ndim == 1:
        yield from _variable_rows(dataset)
        return
    if offsets is not None:
        yield from rows_at(path, offsets, np.full(len(offsets), row_bytes(dataset)))
        return
    for block in blocks(dataset):
        for row in block:
            yield row.tobytes()


def _variable_rows(dataset: h5py.Dataset) -> Iterator[bytes]:
    """Rows of variable length, as many at a time as the longest one so far lets fit into a block."""
    start, longest = 0, BLOCK_BYTES  # the first row alone: how long rows are is known only once one is read
    while start < len(dataset):
        rows = dataset[start : start + max(BLOCK_BYTES // max(longest, 1), 1)]
        start += len(rows)
        longest = max((row.nbytes for row in rows), default=1)
        for row in rows:
            yield bytes(row)


def is_vlen_bytes(dataset: h5py.Dataset) -> bool:
    """Rows of uint8, each of its own length."""
    return bool(dataset.ndim == 1 and h5py.check_vlen_dtype(dataset.dtype) == np.uint8)


def is_jpeg_rows(dataset: h5py.Dataset) -> bool:
    """Rows of bytes of which the first one starts as a JPEG: what the data says, whatever a rig says."""
    is_rows = dataset.ndim == 2 and dataset.dtype == np.uint8
    if not (is_rows or is_vlen_bytes(dataset)) or len(dataset) == 0:
        return False
    return bytes(dataset[0, :2] if is_rows else dataset[0][:2]) == b"\xff\xd8"


def values_digest(dataset: h5py.Dataset) -> str:
    """Hash of all values of a numeric dataset, in order, free of how they are chunked and filtered."""
    digest = xxhash.xxh3_128()
    if is_vlen_bytes(dataset):
        return frames_digest(_variable_rows(dataset))
    if dataset.ndim == 0:
        digest.update(np.asarray(dataset[()]).tobytes())
    elif dataset.size:
        for block in blocks(dataset):
            digest.update(np.ascontiguousarray(block))
    return digest.hexdigest()


def frames_digest(frames: Iterable[bytes | memoryview]) -> str:
    """Hash of pictures that are rows of bytes: of the length and the bytes of each.

    Twelve times as fast as sha256, which took more than half of the time that reading 640x480 JPEGs took; an id tells
    recordings apart, nobody forges his own.
    """
    digest = xxhash.xxh3_128()
    for frame in frames:
        digest.update(len(frame).to_bytes(8, "little"))
        digest.update(frame)
    return digest.hexdigest()


def content_digest(
    group: h5py.Group,
    *,
    known: Mapping[str, str],
    frames: Callable[[h5py.Dataset], Iterator[bytes]],
    skip: Collection[str] = (),
) -> str:
    """Hash of every number and picture below a group, by key; free of texts, attributes and of any rig.

    Texts are left out because labs add reasoning to finished files: the episode stays the one that was reviewed.
    `known` holds hashes of cameras that were made on the way, by key; `frames` gives the JPEGs of any other one;
    `skip` names keys and groups that are derived from others. Raises EpisodeError for a link to another file: what lies
    behind it would not be hashed, and places in this file would be read in its stead.
    """
    digest = hashlib.sha256()

    links: list[tuple[str, str]] = []  # h5py does not survive an exception inside this walk

    def follow(key: bytes, info: Any) -> None:  # noqa: ANN401 - h5py has no types
        if info.type == h5py.h5l.TYPE_EXTERNAL:
            links.append((key.decode(), group.get(key, getlink=True).filename))

    def note(key: str, item: Any) -> None:  # noqa: ANN401 - h5py hands a group or a dataset
        if not isinstance(item, h5py.Dataset) or key in skip or key.split("/", 1)[0] in skip:
            return
        if is_jpeg_rows(item):
            pictures = known.get(key) or frames_digest(frames(item))
            digest.update(f"{key} {len(item)} jpegs {pictures} ".encode())
        elif item.dtype.kind in "fiub" or is_vlen_bytes(item):
            values = known.get(key) or values_digest(item)
            digest.update(f"{key} {item.shape} {item.dtype} {values} ".encode())

    group.id.links.visit(follow, info=True)  # `visititems_links` makes an object of each, in four times the time
    for key, filename in links:
        name = Path(group.file.filename).name
        raise EpisodeError(
            f"{name}: '{key}' is a link to another file ({filename}). Copy the data into the file itself."
        )
    group.visititems(note)
    return digest.hexdigest()


def low_dim_hash(path: Path, skipped: Callable[[str, h5py.Dataset], bool]) -> str:
    """Hash of everything in a file but what is `skipped` (pictures), for a folder's fingerprint.

    A file that can not be opened counts by its sampled bytes alone, and so does one that those cover whole.
    """
    digest = hashlib.sha256()

    def note(key: str, item: Any) -> None:  # noqa: ANN401 - h5py hands a group or a dataset
        digest.update(repr(sorted((name, str(value)) for name, value in item.attrs.items())).encode())
        if isinstance(item, h5py.Dataset) and not skipped(key, item):
            digest.update(f"{key} {item.shape} {item.dtype} ".encode())
            if item.dtype.kind in "fiub":
                digest.update(values_digest(item).encode())
            else:
                digest.update(_spelled(item[()]))

    try:
        if path.stat().st_size <= WHOLE_BYTES:
            return "whole"
        with open_hdf5(path) as file:
            file.visititems(note)
            digest.update(repr(sorted((key, str(value)) for key, value in file.attrs.items())).encode())
    except (OSError, RuntimeError):
        return "unreadable"
    return digest.hexdigest()


def _spelled(values: Any) -> bytes:  # noqa: ANN401 - what h5py gives for text
    """Bytes of a text dataset; `repr` of an array would be shortened."""
    return repr(values.tolist() if isinstance(values, np.ndarray | np.generic) else values).encode()


def texts_of(values: Any, where: str) -> tuple[str, ...]:  # noqa: ANN401 - what h5py gives for text
    """Texts of a dataset or an attribute, scalar or not, bytes or str; `where` begins the sentence of an error.

    Raises EpisodeError for what is no text, or not UTF-8.
    """
    flat = values.ravel().tolist() if isinstance(values, np.ndarray) else [values]
    odd = next((value for value in flat if not isinstance(value, bytes | str)), None)
    if odd is not None:
        raise EpisodeError(f"{where} holds {type(odd).__name__}, not text. Write it again as text.")
    try:
        return tuple(value.decode("utf-8") if isinstance(value, bytes) else str(value) for value in flat)
    except UnicodeDecodeError:
        raise EpisodeError(f"{where} is not UTF-8 text. Write it again.") from None


def text_at(group: h5py.Group, key: str, episode: str) -> tuple[str, ...] | None:
    """The texts at a key: a dataset, an attribute of the group that its path names, or `attribute.field` of JSON.

    None where there is nothing of that name. Numbers are spelled out.
    """
    value = _raw_at(group, key)
    if value is not None:
        return texts_of(value, f"{episode}: {key}") if _is_text(value) else (str(value),)
    base, dot, path = key.partition(".")
    value = _raw_at(group, base) if dot else None
    if value is None:
        return None
    try:
        found = json.loads(texts_of(value, f"{episode}: {base}")[0])
        for step in path.split("."):
            found = found[step]
    except (ValueError, KeyError, TypeError, IndexError):
        return None
    return (found if isinstance(found, str) else json.dumps(found),)


def _is_text(value: Any) -> bool:  # noqa: ANN401 - what h5py gives
    return isinstance(value, bytes | str) or (isinstance(value, np.ndarray) and value.dtype.kind in "SUO")


def _raw_at(group: h5py.Group, key: str) -> Any:  # noqa: ANN401 - what h5py gives
    item = group.get(key)
    if isinstance(item, h5py.Dataset):
        return item[()]
    parent, _, name = key.rpartition("/")
    owner = group.get(parent) if parent else group
    return owner.attrs.get(name) if owner is not None else None
