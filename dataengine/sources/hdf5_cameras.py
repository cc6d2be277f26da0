"""Cameras inside an HDF5 file: rows of JPEG bytes, plain arrays, or depth; streamed, never a whole episode in memory.

Compressed rows are (T, longest) uint8, zero padded, or of variable length. Opening a camera reads it once: every frame
is hashed, and every JPEG's start and end are looked at without decoding it.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from dataengine.sinks.mp4_tables import FileStat, stat_of
from dataengine.sinks.pictures import check_jpeg
from dataengine.sinks.staging import PlannedRows
from dataengine.sources.copying import CopyTo
from dataengine.sources.hdf5_content import (
    blocks,
    check_written,
    frames_digest,
    is_jpeg_rows,
    is_vlen_bytes,
    neighbours_at,
    open_hdf5,
    padded_rows,
    row_bytes,
    row_offsets,
    rows_at,
    values_digest,
)
from schemas.episodes import CameraSpec
from schemas.errors import EpisodeError, RigError
from schemas.rigs import Camera, Rig

IMAGES = "observations/images"
LENGTHS = "compress_len"
_SOI, _SOS, _EOI = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Hdf5Jpegs:
    """A camera stored as JPEG rows, every one of them looked at when it was opened.

    lengths: (T,) int64 bytes without padding; offsets: (T,) int64 in the file.
    """

    spec: CameraSpec
    path: Path
    key: str
    lengths: NDArray[np.int64]
    offsets: NDArray[np.int64] | None
    content: str  # hash of all JPEGs
    file_stat: FileStat  # before they were read
    planned: PlannedRows | None  # where they were copied to

    def __len__(self) -> int:
        return len(self.lengths)

    def jpegs(self) -> Iterator[bytes]:
        """The bytes of each frame, exactly as stored, padding cut off."""
        if self.offsets is not None:
            yield from rows_at(self.path, self.offsets, self.lengths)
            return
        with open_hdf5(self.path) as file:
            for row, length in zip(padded_rows(self.path, file[self.key], None), self.lengths.tolist(), strict=True):
                yield row[:length]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Hdf5Arrays:
    """A camera stored as plain (T, height, width, 3) uint8."""

    spec: CameraSpec
    path: Path
    key: str
    num_frames: int
    offsets: NDArray[np.int64] | None
    content: str  # hash of all pixels

    def __len__(self) -> int:
        return self.num_frames

    def arrays(self) -> Iterator[NDArray[np.uint8]]:
        """Each frame, (height, width, 3) in the declared channel order."""
        shape = (self.spec.height, self.spec.width, 3)
        if self.offsets is not None:
            lengths = np.full(self.num_frames, int(np.prod(shape)))
            for row in rows_at(self.path, self.offsets, lengths):
                yield np.frombuffer(row, np.uint8).reshape(shape)
            return
        with open_hdf5(self.path) as file:
            for block in blocks(file[self.key]):
                yield from block


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Hdf5Depths:
    """A depth camera stored as (T, height, width) or (T, height, width, 1) uint16 or float32."""

    spec: CameraSpec
    path: Path
    key: str
    num_frames: int
    content: str  # hash of all values

    def __len__(self) -> int:
        return self.num_frames

    def depths(self) -> Iterator[NDArray[np.uint16] | NDArray[np.float32]]:
        """Each picture, (height, width); metres = value * spec.depth_unit_m."""
        with open_hdf5(self.path) as file:
            for block in blocks(file[self.key]):
                yield from block.reshape(len(block), self.spec.height, self.spec.width)


type Hdf5Camera = Hdf5Jpegs | Hdf5Arrays | Hdf5Depths


def camera_names(file: h5py.Group) -> list[str]:
    """Everything under observations/images, by name."""
    group = file.get(IMAGES)
    return sorted(group) if isinstance(group, h5py.Group) else []


def open_camera(
    path: Path, group: h5py.Group, episode: str, name: str, rig: Rig, copy_to: CopyTo | None = None
) -> Hdf5Camera:
    """The stream of one camera, every frame read once. Raises EpisodeError that names the frame."""
    camera = rig.cameras[name]
    dataset = group.get(camera.key)
    if not isinstance(dataset, h5py.Dataset):
        has = ", ".join(picture_keys(group)) or "none"
        raise EpisodeError(f"{episode}: camera '{name}' is missing (has: {has}). Record it again or drop the episode.")
    check_written(episode, camera.key, dataset)
    key = str(dataset.name)
    if camera.depth_unit_m is not None:
        spec = _depth_spec(dataset, episode, name, camera)
        content = values_digest(dataset)
        return Hdf5Depths(spec=spec, path=path, key=key, num_frames=len(dataset), content=content)
    if dataset.ndim == 4 and dataset.shape[3] == 3 and dataset.dtype == np.uint8:
        spec = _spec(name, camera, rig, height=dataset.shape[1], width=dataset.shape[2], encoding="raw")
        offsets, content = row_offsets(dataset), values_digest(dataset)
        return Hdf5Arrays(spec=spec, path=path, key=key, num_frames=len(dataset), offsets=offsets, content=content)
    if not (dataset.ndim == 2 and dataset.dtype == np.uint8) and not is_vlen_bytes(dataset):
        hint = " Depth needs depth_unit_m: there." if dataset.ndim in (3, 4) else ""
        raise EpisodeError(
            f"{episode}: camera '{name}' has shape {dataset.shape} of {dataset.dtype}, neither (T, H, W, 3) uint8 nor "
            f"JPEG rows. Correct cameras: in the rig or record it again.{hint}"
        )
    return _open_jpegs(path, group, dataset, episode, name, rig, copy_to)


def jpeg_sizes(group: h5py.Group, episode: str, name: str, rig: Rig) -> NDArray[np.int64] | None:
    """Bytes of each JPEG of one camera, as the file states them; None where it does not."""
    dataset = group.get(rig.cameras[name].key)
    is_rows = isinstance(dataset, h5py.Dataset) and dataset.ndim == 2 and dataset.dtype == np.uint8
    return _stated_lengths(group, dataset, episode, name) if is_rows else None


def picture_keys(group: h5py.Group) -> list[str]:
    """Keys of all cameras below a group, short where all lie under observations/images."""
    names = camera_names(group)
    if names:
        return names
    found: list[str] = []

    def note(key: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset) and is_picture(item) and not key.startswith("next_obs/"):
            found.append(key)

    group.visititems(note)
    return found


def is_picture(dataset: h5py.Dataset) -> bool:
    """Colour arrays or JPEG rows, as far as shape, type and the first bytes tell."""
    return (dataset.ndim == 4 and dataset.shape[3] == 3 and dataset.dtype == np.uint8) or is_jpeg_rows(dataset)


def _spec(name: str, camera: Camera, rig: Rig, *, height: int, width: int, encoding: str) -> CameraSpec:
    order = camera.channel_order
    if encoding == "jpeg" and camera.jpeg_channel_order is not None:
        order = camera.jpeg_channel_order
    if order == "unknown":
        raise RigError(colour_question(rig.name, name))
    return CameraSpec(
        name=name, height=height, width=width, encoding=encoding, channel_order=order, orientation=camera.orientation
    )


def _depth_spec(dataset: h5py.Dataset, episode: str, name: str, camera: Camera) -> CameraSpec:
    is_map = dataset.ndim == 3 or (dataset.ndim == 4 and dataset.shape[3] == 1)
    if not is_map or dataset.dtype not in (np.uint16, np.float32):
        raise EpisodeError(
            f"{episode}: depth camera '{name}' has shape {dataset.shape} of {dataset.dtype}, not (T, H, W) uint16 or "
            f"float32. Correct depth_unit_m: in the rig or record it again."
        )
    return CameraSpec(
        name=name,
        height=dataset.shape[1],
        width=dataset.shape[2],
        encoding="raw",
        channel_order="rgb",  # of no meaning for one value per pixel
        orientation=camera.orientation,
        depth_unit_m=camera.depth_unit_m,
    )


def check_colours(rig: Rig) -> None:
    """Raise RigError for the first colour camera of which the rig does not say the order of its channels."""
    for name, camera in rig.cameras.items():
        if camera.channel_order == "unknown" and camera.jpeg_channel_order is None and camera.depth_unit_m is None:
            raise RigError(colour_question(rig.name, name))


def colour_question(rig_name: str, camera: str) -> str:
    """The one thing about a camera that no file tells."""
    return (
        f"rig '{rig_name}' does not say the colour order of camera '{camera}', and the data cannot tell. "
        f"Write channel_order: rgb or bgr under cameras: {camera}."
    )


def _open_jpegs(
    path: Path,
    group: h5py.Group,
    dataset: h5py.Dataset,
    episode: str,
    name: str,
    rig: Rig,
    copy_to: CopyTo | None,
) -> Hdf5Jpegs:
    if len(dataset) == 0:
        raise EpisodeError(f"{episode}: camera '{name}' has no frames. Record it again or drop the episode.")
    file_stat = stat_of(path)
    stated = _stated_lengths(group, dataset, episode, name)
    offsets = row_offsets(dataset)
    lengths: list[int] = []
    copy = copy_to(name, stated) if copy_to and stated is not None and offsets is not None else None
    specs: list[CameraSpec] = []  # of the first frame: all others must be like it
    head = b""  # of it, up to its last scan: cameras write the same tables and sizes before every picture

    def look_at(jpeg: bytes) -> None:
        """A frame whose head is another one."""
        nonlocal head
        if jpeg[:2] != _SOI or jpeg[-2:] != _EOI:
            fault = "does not start as a JPEG" if jpeg[:2] != _SOI else "is cut off (no end marker)"
            raise EpisodeError(
                f"{episode}: camera '{name}' frame {len(lengths)} {fault}. Record it again or drop the episode."
            )
        if specs:
            check_jpeg(jpeg, specs[0])
            return
        width, height = _size(jpeg, episode, name)
        specs.append(_spec(name, rig.cameras[name], rig, height=height, width=width, encoding="jpeg"))
        head = jpeg[: jpeg.rfind(_SOS)]

    def checked() -> Iterator[bytes | memoryview]:
        for neighbours in _neighbours(path, dataset, stated, offsets):
            for jpeg in neighbours:
                if not head or bytes(jpeg[: len(head)]) != head or jpeg[-2:] != _EOI:
                    look_at(bytes(jpeg))
                lengths.append(len(jpeg))
                yield jpeg
            if copy is not None:  # while they are in the processor's cache
                copy.write(neighbours)

    content = frames_digest(checked())
    return Hdf5Jpegs(
        spec=specs[0],
        path=path,
        key=str(dataset.name),
        lengths=np.asarray(lengths, np.int64),
        offsets=offsets,
        content=content,
        file_stat=file_stat,
        planned=copy.place if copy else None,
    )


def _neighbours(
    path: Path, dataset: h5py.Dataset, stated: NDArray[np.int64] | None, offsets: NDArray[np.int64] | None
) -> Iterator[Sequence[bytes | memoryview]]:
    """As `_frames`, several at a time where the file says where they lie; the next ones overwrite them."""
    if stated is not None and offsets is not None:
        yield from neighbours_at(path, offsets, stated)
    else:
        for jpeg in _frames(path, dataset, stated, offsets):
            yield [jpeg]


def _frames(
    path: Path, dataset: h5py.Dataset, stated: NDArray[np.int64] | None, offsets: NDArray[np.int64] | None
) -> Iterator[bytes]:
    """Each JPEG; the padding after it is not even read where the file states its length."""
    if stated is not None and offsets is not None:
        yield from rows_at(path, offsets, stated)
    elif stated is not None:
        for row, length in zip(padded_rows(path, dataset, offsets), stated.tolist(), strict=True):
            yield row[:length]
    else:  # a JPEG ends in D9, so the zeros after it are padding
        for row in padded_rows(path, dataset, offsets):
            yield row.rstrip(b"\0")


def unnamed_frames(path: Path, file: h5py.Group, dataset: h5py.Dataset) -> Iterator[bytes]:
    """The JPEGs of a camera that no rig names, as `open_camera` would cut them, nothing checked."""
    try:
        stated = _stated_lengths(file, dataset, "", "")
    except EpisodeError:
        stated = None
    return _frames(path, dataset, stated, row_offsets(dataset))


def _stated_lengths(group: h5py.Group, dataset: h5py.Dataset, episode: str, name: str) -> NDArray[np.int64] | None:
    """This camera's row of `compress_len` (float32 in the layout), or None where the file has none."""
    table = group.get(LENGTHS)
    if not isinstance(table, h5py.Dataset) or dataset.ndim != 2:
        return None
    rows = [key for key in camera_names(group) if not key.endswith("_depth")]  # depth is stored uncompressed
    camera = str(dataset.name).rsplit("/", 1)[-1]
    if table.ndim != 2 or camera not in rows or len(table) != len(rows) or table.shape[1] < len(dataset):
        raise EpisodeError(
            f"{episode}: {LENGTHS} has shape {table.shape}, not ({len(rows)} cameras, {len(dataset)} frames). "
            f"Write it again or remove it."
        )
    values = table[rows.index(camera), : len(dataset)]
    longest = row_bytes(dataset)
    wrong = ~((values >= 4) & (values <= longest) & (values == np.floor(values)))
    if wrong.any():
        frame = int(np.argmax(wrong))
        raise EpisodeError(
            f"{episode}: {LENGTHS} of camera '{name}' frame {frame} is {values[frame]:g}, "
            f"outside 4..{longest}. Write it again or drop the episode."
        )
    lengths: NDArray[np.int64] = values.astype(np.int64)
    return lengths


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
