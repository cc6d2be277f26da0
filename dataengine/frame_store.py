"""Reads the zarr frame store: one pread and one JPEG decode per picture.

The store is plain zarr v3 (`sharding_indexed`; an inner chunk is one JPEG, or one depth picture compressed without
loss); any zarr reads it too, at a quarter of the
speed. This reader keeps each shard's index in memory and the file open, and corrects colour order and orientation as
the array's attributes say.
"""

import json
import os
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataengine.sinks.pictures import Rgb, decode_jpeg, upright
from schemas.errors import ArtifactError

SHARD_FRAMES = 512
COLUMN_ROWS = 65_536  # rows per chunk of a low-dimensional column
_EMPTY = np.uint64(2**64 - 1)
_OPEN_SHARDS = 256
LAYOUTS = (1, 2)  # 2: one file per chunk where 1 had four folders around it, which took a third of the time to write


def chunk_name(number: int, dims: int, separator: str) -> str:
    """Where zarr's default chunk keys put the n-th chunk along the first of `dims` dimensions."""
    return separator.join(["c", str(number), *["0"] * (dims - 1)])


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraArray:
    """One camera's array: (num_frames, height, width, 3) uint8, and how the stored channels and rows must be read.

    Of a depth camera (num_frames, height, width, 1) uint16 or float32, raw: metres = value * depth_unit_m.
    """

    path: Path
    num_frames: int
    height: int
    width: int
    shard_frames: int
    channel_order: str
    orientation: str
    source_bytes: bool  # the JPEGs are the source's own
    separator: str  # between the parts of a chunk's name
    dtype: str = "uint8"
    depth_unit_m: float | None = None  # of a depth camera

    def shard_path(self, number: int) -> Path:
        """Its n-th shard."""
        return self.path / chunk_name(number, 4, self.separator)


@dataclass(slots=True)
class _Shard:
    handle: int
    index: NDArray[np.uint64]  # (shard_frames, 2): offset, number of bytes


@dataclass(slots=True)
class FrameStore:
    """An open frame store; picklable, opens files when first asked."""

    path: Path
    cameras: dict[str, CameraArray]  # colour
    depth_cameras: dict[str, CameraArray]
    columns: tuple[str, ...]
    episode_ids: tuple[str, ...]
    episode_ends: tuple[int, ...]
    rate_hz: int
    rig: dict[str, Any]  # as JSON; empty where the store is of layout 1
    _shards: OrderedDict[tuple[str, int], _Shard] = field(default_factory=OrderedDict, repr=False)
    _starts: dict[str, int] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, path: Path) -> "FrameStore":
        """Open the store in `path`. Raises ArtifactError when it is none."""
        group = _read_json(path / "zarr.json").get("attributes", {})
        if group.get("schema_version") not in LAYOUTS:
            raise ArtifactError(
                f"{path.name} is a frame store of version {group.get('schema_version')}, this program reads "
                f"{' and '.join(map(str, LAYOUTS))}. "
                f"Convert again with this program, or use a newer one."
            )
        cameras = {name: _camera(path / name) for name in group["cameras"]}
        return cls(
            path=path,
            cameras={name: row for name, row in cameras.items() if row.depth_unit_m is None},
            depth_cameras={name: row for name, row in cameras.items() if row.depth_unit_m is not None},
            columns=tuple(group["columns"]),
            episode_ids=tuple(group["episode_ids"]),
            episode_ends=tuple(group["episode_ends"]),
            rate_hz=int(group["rate_hz"]),
            rig=group.get("rig", {}),
        )

    def span(self, episode_id: str) -> tuple[int, int]:
        """First row and the row after the last of one episode."""
        if not self._starts:
            self._starts.update({name: number for number, name in enumerate(self.episode_ids)})
        number = self._starts[episode_id]
        return (self.episode_ends[number - 1] if number else 0), self.episode_ends[number]

    def jpeg(self, camera: str, row: int) -> bytes:
        """The stored bytes of one picture. Raises ArtifactError when it is not there."""
        array = self._array(camera)
        if not 0 <= row < array.num_frames:
            raise IndexError(f"row {row} of {array.num_frames} in camera '{camera}'")
        shard = self._shard(camera, row // array.shard_frames)
        offset, size = shard.index[row % array.shard_frames]
        if offset == _EMPTY:
            raise ArtifactError(f"{self.path.name}: camera '{camera}' has no picture at row {row}. Convert again.")
        return os.pread(shard.handle, int(size), int(offset))

    def frame(self, camera: str, row: int) -> Rgb:
        """One picture, upright RGB (height, width, 3)."""
        array = self.cameras[camera]
        return decode_jpeg(self.jpeg(camera, row), array.channel_order, array.orientation)

    def depth(self, camera: str, row: int) -> NDArray[Any]:
        """One depth picture, upright (height, width), the very values that were recorded: uint16 or float32.

        metres = value * depth_cameras[camera].depth_unit_m; 0 = nothing measured.
        """
        from numcodecs import Zstd

        array = self.depth_cameras[camera]
        raw = np.frombuffer(Zstd().decode(self.jpeg(camera, row)), dtype=np.dtype(array.dtype).newbyteorder("<"))
        return upright(raw.reshape(array.height, array.width).astype(array.dtype, copy=False), array.orientation)

    def _array(self, camera: str) -> CameraArray:
        return self.cameras.get(camera) or self.depth_cameras[camera]

    def column(self, key: str, start: int, stop: int) -> NDArray[Any]:
        """Rows `start` to `stop` of one low-dimensional column, (rows, dims) or (rows,)."""
        folder = self.path / "columns" / key
        meta = _read_json(folder / "zarr.json")
        chunk = meta["chunk_grid"]["configuration"]["chunk_shape"]
        dtype = np.dtype(meta["data_type"]).newbyteorder("<")
        parts = []
        for number in range(start // chunk[0], -(-stop // chunk[0])):
            path = folder / chunk_name(number, len(chunk), _separator(meta))
            rows = np.memmap(path, dtype=dtype, mode="r", shape=tuple(chunk))
            first = number * chunk[0]
            parts.append(np.asarray(rows[max(start, first) - first : min(stop, first + chunk[0]) - first]))
        return np.concatenate(parts)

    def _shard(self, camera: str, number: int) -> _Shard:
        key = (camera, number)
        shard = self._shards.get(key)
        if shard is None:
            array = self._array(camera)
            shard = _open_shard(self.path, array, number)
            self._shards[key] = shard
            if len(self._shards) > _OPEN_SHARDS:
                os.close(self._shards.popitem(last=False)[1].handle)
        else:
            self._shards.move_to_end(key)
        return shard

    def close(self) -> None:
        """Close what is open; the store opens it again when asked."""
        while self._shards:
            os.close(self._shards.popitem()[1].handle)

    def __getstate__(self) -> tuple[Any, ...]:
        cameras = (self.cameras, self.depth_cameras)
        return (self.path, cameras, self.columns, self.episode_ids, self.episode_ends, self.rate_hz, self.rig)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.path, cameras, self.columns, self.episode_ids, self.episode_ends, self.rate_hz, self.rig = state
        self.cameras, self.depth_cameras = cameras
        self._shards, self._starts = OrderedDict(), {}


def _camera(path: Path) -> CameraArray:
    meta = _read_json(path / "zarr.json")
    num_frames, height, width, _ = meta["shape"]
    return CameraArray(
        path=path,
        num_frames=num_frames,
        height=height,
        width=width,
        shard_frames=meta["chunk_grid"]["configuration"]["chunk_shape"][0],
        channel_order=meta["attributes"]["channel_order"],
        orientation=meta["attributes"]["orientation"],
        source_bytes=meta["attributes"]["source_bytes"],
        separator=_separator(meta),
        dtype=meta["data_type"],
        depth_unit_m=meta["attributes"].get("depth_unit_m"),
    )


def _separator(meta: dict[str, Any]) -> str:
    return str(meta["chunk_key_encoding"]["configuration"]["separator"])


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        raise ArtifactError(f"{path.parent.name} holds no readable zarr.json. Convert the data again.") from None
    return value


def _open_shard(store: Path, array: CameraArray, number: int) -> _Shard:
    import google_crc32c

    path, shard_frames = array.shard_path(number), array.shard_frames
    named = path.relative_to(store.parent)
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        raise ArtifactError(f"the frame store lacks {named}. Pull or convert it again.") from None
    num_bytes = shard_frames * 16
    tail = os.pread(handle, num_bytes + 4, max(0, os.fstat(handle).st_size - num_bytes - 4))
    if len(tail) != num_bytes + 4 or google_crc32c.value(tail[:-4]) != int.from_bytes(tail[-4:], "little"):
        os.close(handle)
        raise ArtifactError(f"shard {named} is damaged (its index does not add up). Convert again.")
    return _Shard(handle=handle, index=np.frombuffer(tail[:-4], dtype="<u8").reshape(shard_frames, 2))
