"""Cameras inside an HDF5 file: rows of JPEG bytes, or plain arrays; streamed, never a whole episode in memory.

Compressed rows are (T, longest) uint8, zero padded. Where the file stores them without a filter, each frame is one
read at a known byte offset, at about twice the speed of h5py's slicing.
"""

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from schemas.episodes import ArrayStream, CameraSpec, JpegStream
from schemas.errors import EpisodeError, RigError
from schemas.rigs import Camera, Rig

IMAGES = "observations/images"
_BLOCK_BYTES = 8 << 20  # at most this much of a camera is in memory
_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Hdf5Jpegs:
    """A camera stored as JPEG rows. lengths: (T,) int64 bytes without padding; offsets: (T,) int64 in the file."""

    spec: CameraSpec
    path: Path
    key: str
    lengths: NDArray[np.int64]
    offsets: NDArray[np.int64] | None

    def __len__(self) -> int:
        return len(self.lengths)

    def jpegs(self) -> Iterator[bytes]:
        """The bytes of each frame, exactly as stored, padding cut off."""
        if self.offsets is None:
            with open_hdf5(self.path) as file:
                for row, length in zip(_rows(file[self.key]), self.lengths, strict=True):
                    yield row[: int(length)]
            return
        with self.path.open("rb", buffering=0) as raw:
            for offset, length in zip(self.offsets.tolist(), self.lengths.tolist(), strict=True):
                yield os.pread(raw.fileno(), length, offset)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hdf5Arrays:
    """A camera stored as plain (T, height, width, 3) uint8."""

    spec: CameraSpec
    path: Path
    key: str
    num_frames: int

    def __len__(self) -> int:
        return self.num_frames

    def arrays(self) -> Iterator[NDArray[np.uint8]]:
        """Each frame, (height, width, 3) in the declared channel order."""
        with open_hdf5(self.path) as file:
            for block in _blocks(file[self.key]):
                yield from block


def open_hdf5(path: Path) -> h5py.File:
    """Open for reading, also on file systems without locks."""
    return h5py.File(path, "r", locking=False)


def camera_names(file: h5py.File) -> list[str]:
    """Everything under observations/images, by name."""
    group = file.get(IMAGES)
    return sorted(group) if isinstance(group, h5py.Group) else []


def open_camera(path: Path, file: h5py.File, episode: str, name: str, rig: Rig) -> JpegStream | ArrayStream:
    """The stream of one camera, every frame's ends checked. Raises EpisodeError that names the frame."""
    camera = rig.cameras[name]
    dataset = file.get(camera.key)
    if not isinstance(dataset, h5py.Dataset):
        has = ", ".join(camera_names(file)) or "none"
        raise EpisodeError(f"{episode}: camera '{name}' is missing (has: {has}). Record it again or drop the episode.")
    if dataset.ndim == 4 and dataset.shape[3] == 3 and dataset.dtype == np.uint8:
        spec = _spec(name, camera, rig, height=dataset.shape[1], width=dataset.shape[2], encoding="raw")
        return Hdf5Arrays(spec=spec, path=path, key=camera.key, num_frames=len(dataset))
    is_rows = dataset.ndim == 2 and dataset.dtype == np.uint8
    if not is_rows and not (dataset.ndim == 1 and h5py.check_vlen_dtype(dataset.dtype) == np.uint8):
        raise EpisodeError(
            f"{episode}: camera '{name}' has shape {dataset.shape} of {dataset.dtype}, neither (T, H, W, 3) uint8 nor "
            f"JPEG rows. Correct cameras: in the rig or record it again."
        )
    return _open_jpegs(path, file, dataset, episode, name, rig)


def _spec(name: str, camera: Camera, rig: Rig, *, height: int, width: int, encoding: str) -> CameraSpec:
    order = camera.channel_order
    if encoding == "jpeg" and camera.jpeg_channel_order is not None:
        order = camera.jpeg_channel_order
    if order == "unknown":
        raise RigError(colour_question(rig.name, name))
    return CameraSpec(
        name=name, height=height, width=width, encoding=encoding, channel_order=order, orientation=camera.orientation
    )


def colour_question(rig_name: str, camera: str) -> str:
    """The one thing about a camera that no file tells."""
    return (
        f"rig '{rig_name}' does not say the colour order of camera '{camera}', and the data cannot tell. "
        f"Write channel_order: rgb or bgr under cameras: {camera}."
    )


def _open_jpegs(path: Path, file: h5py.File, dataset: h5py.Dataset, episode: str, name: str, rig: Rig) -> Hdf5Jpegs:
    if len(dataset) == 0:
        raise EpisodeError(f"{episode}: camera '{name}' has no frames. Record it again or drop the episode.")
    stated = _stated_lengths(file, dataset, episode, name)
    offsets = _offsets(file, dataset)
    lengths = np.empty(len(dataset), np.int64)
    with path.open("rb", buffering=0) as raw:
        for frame, ends in enumerate(_frame_ends(dataset, stated, offsets, raw.fileno())):
            head, tail, lengths[frame] = ends
            if head != _SOI or tail != _EOI:
                fault = "does not start as a JPEG" if head != _SOI else "is cut off (no end marker)"
                raise EpisodeError(
                    f"{episode}: camera '{name}' frame {frame} {fault}. Record it again or drop the episode."
                )
    width, height = _size(bytes(dataset[0]), episode, name)
    spec = _spec(name, rig.cameras[name], rig, height=height, width=width, encoding="jpeg")
    return Hdf5Jpegs(spec=spec, path=path, key=rig.cameras[name].key, lengths=lengths, offsets=offsets)


def _stated_lengths(file: h5py.File, dataset: h5py.Dataset, episode: str, name: str) -> NDArray[np.int64] | None:
    """This camera's row of `compress_len` (float32 in the layout), or None where the file has none."""
    table = file.get("compress_len")
    if not isinstance(table, h5py.Dataset) or dataset.ndim != 2:
        return None
    rows = [key for key in camera_names(file) if not key.endswith("_depth")]  # depth is stored uncompressed
    camera = dataset.name.rsplit("/", 1)[-1]
    if table.ndim != 2 or camera not in rows or len(table) != len(rows) or table.shape[1] < len(dataset):
        raise EpisodeError(
            f"{episode}: compress_len has shape {table.shape}, not ({len(rows)} cameras, {len(dataset)} frames). "
            f"Write it again or remove it."
        )
    values = table[rows.index(camera), : len(dataset)]
    wrong = ~((values >= 4) & (values <= dataset.shape[1]) & (values == np.floor(values)))
    if wrong.any():
        frame = int(np.argmax(wrong))
        raise EpisodeError(
            f"{episode}: compress_len of camera '{name}' frame {frame} is {values[frame]:g}, "
            f"outside 4..{dataset.shape[1]}. Write it again or drop the episode."
        )
    lengths: NDArray[np.int64] = values.astype(np.int64)
    return lengths


def _frame_ends(
    dataset: h5py.Dataset, stated: NDArray[np.int64] | None, offsets: NDArray[np.int64] | None, handle: int
) -> Iterator[tuple[bytes, bytes, int]]:
    """First two bytes, last two bytes and length of each frame; touches only those bytes where that is possible."""
    if stated is not None and offsets is not None:
        for offset, length in zip(offsets.tolist(), stated.tolist(), strict=True):
            yield os.pread(handle, 2, offset), os.pread(handle, 2, offset + length - 2), length
        return
    for frame, row in enumerate(_rows(dataset)):
        # A JPEG ends in D9, so the zeros after it are padding.
        jpeg = row[: int(stated[frame])] if stated is not None else row.rstrip(b"\0")
        yield jpeg[:2], jpeg[-2:], len(jpeg)


def _offsets(file: h5py.File, dataset: h5py.Dataset) -> NDArray[np.int64] | None:
    """Where each row starts in the file, (T,); None where rows are filtered, split or of variable length."""
    if dataset.ndim != 2 or file.userblock_size or dataset.external:
        return None
    num_rows, row_bytes = dataset.shape
    if dataset.chunks is None:
        start = dataset.id.get_offset()
        return None if start is None else start + np.arange(num_rows, dtype=np.int64) * row_bytes
    chunk_rows, chunk_bytes = dataset.chunks
    if chunk_bytes != row_bytes or dataset.id.get_create_plist().get_nfilters():
        return None
    offsets = np.full(num_rows, -1, np.int64)

    def note(chunk: Any) -> None:  # noqa: ANN401 - h5py's StoreInfo
        first = chunk.chunk_offset[0]
        rows = np.arange(min(chunk_rows, num_rows - first), dtype=np.int64)
        offsets[first : first + len(rows)] = chunk.byte_offset + rows * row_bytes

    dataset.id.chunk_iter(note)
    return None if (offsets < 0).any() else offsets


def _blocks(dataset: h5py.Dataset) -> Iterator[NDArray[Any]]:
    """The dataset in pieces of whole chunks and at most _BLOCK_BYTES."""
    row_bytes = max(int(np.prod(dataset.shape[1:], dtype=np.int64)) * dataset.dtype.itemsize, 1)
    rows = max(_BLOCK_BYTES // row_bytes, 1)
    if dataset.chunks is not None:
        rows = max(rows // dataset.chunks[0], 1) * dataset.chunks[0]
    for start in range(0, len(dataset), rows):
        yield dataset[start : start + rows]


def _rows(dataset: h5py.Dataset) -> Iterator[bytes]:
    """Each row's bytes, padding included."""
    if dataset.ndim == 1:  # variable length: a block's size is not known before it is read
        for index in range(len(dataset)):
            yield bytes(dataset[index])
        return
    for block in _blocks(dataset):
        for row in block:
            yield row.tobytes()


def first_picture_size(dataset: h5py.Dataset, name: str) -> tuple[int, int]:
    """(width, height) of a camera's first JPEG row; padding does not matter to its header."""
    return _size(bytes(dataset[0]), dataset.file.filename.rsplit("/", 1)[-1], name)


def _size(jpeg: bytes, episode: str, name: str) -> tuple[int, int]:
    """(width, height) from a JPEG's header. Raises EpisodeError for one that is no colour picture."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(jpeg)) as picture:
            size, mode = picture.size, picture.mode
    except (UnidentifiedImageError, OSError):
        raise EpisodeError(
            f"{episode}: camera '{name}' frame 0 has no readable JPEG header. Record it again or drop the episode."
        ) from None
    if mode != "RGB":
        raise EpisodeError(f"{episode}: camera '{name}' is {mode}, not colour. Leave it out of cameras: in the rig.")
    return size
