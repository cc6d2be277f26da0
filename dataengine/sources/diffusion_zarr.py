"""Diffusion-policy replay buffers: one zarr v2 group, all episodes end to end.

data/<array> (N, ...) and meta/episode_ends (episodes,), cumulative and exclusive. No rate, no task, no names: the
rig states them. Pixels are uint8 or float32 0..255; floats become uint8 only where every value is a whole number.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataengine.sources.columns import check_column
from dataengine.sources.content import episode_id, files_stamp, folder_fingerprint
from dataengine.sources.hdf5_cameras import colour_question
from dataengine.sources.metadata import MetadataTable
from schemas.episodes import CameraSpec, Episode
from schemas.errors import EpisodeError, RigError, SourceError
from schemas.rigs import Camera, Rig, SourceKind

_BLOCK_BYTES = 32 << 20  # decoded pixels in memory at a time
_WHOLE_TOLERANCE = 1e-3  # float32 noise on a whole number


@dataclass(frozen=True, slots=True, kw_only=True)
class ZarrArrays:
    """One episode's rows of a camera array; `first` is the row it starts at."""

    spec: CameraSpec
    root: Path
    key: str
    first: int
    num_frames: int

    def __len__(self) -> int:
        return self.num_frames

    def arrays(self) -> Iterator[NDArray[np.uint8]]:
        """Each frame, (height, width, 3) uint8."""
        for _, block in zarr_blocks(open_zarr(self.root)["data"][self.key], self.first, self.num_frames):
            yield from _as_bytes(block, self.spec.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffusionZarr:
    """A replay buffer in a directory store."""

    root: Path
    rig: Rig
    table: MetadataTable
    ends: tuple[int, ...]
    kind: SourceKind = "diffusion_zarr"

    @classmethod
    def open(cls, root: Path, rig: Rig) -> "DiffusionZarr":
        """Check the group and the rig against each other."""
        group = open_zarr(root)
        _check_rig(rig, group)
        ends = read_ends(root, group)
        aliases = {_name(index): (_name(index), str(index)) for index in range(len(ends))}
        return cls(root=root, rig=rig, table=MetadataTable.of(rig, root, aliases), ends=ends)

    def names(self) -> list[str]:
        """`episode_000000` and so on, by position."""
        return [_name(index) for index in range(len(self.ends))]

    def stamps(self) -> dict[str, str]:
        """Sizes and dates of all files, since episodes share chunks, and each one's row of the CSV."""
        csv = self.root / self.rig.metadata.csv if self.rig.metadata.csv else None
        whole = files_stamp(sorted(path for path in self.root.rglob("*") if path.is_file() and path != csv), {})
        return {name: files_stamp([], {"files": whole, **self.table.row(name)}) for name in self.names()}

    def fingerprint(self) -> str:
        """Identity of every chunk and metadata file."""
        files = [path for path in self.root.rglob("*") if path.is_file()]
        pictures = {self.root / "data" / camera.key for camera in self.rig.cameras.values()}
        return folder_fingerprint(
            self.root,
            whole=[path for path in files if path.parent not in pictures],
            pixels=[path for path in files if path.parent in pictures],
        )

    def read(self, name: str) -> Episode:
        """One episode, its pixels checked. Raises EpisodeError that names the frame."""
        index = int(name.rsplit("_", 1)[1])
        first = self.ends[index - 1] if index else 0
        num_frames = self.ends[index] - first
        if num_frames == 0:
            raise EpisodeError(f"{name}: has no rows. Remove it from meta/episode_ends.")
        data = open_zarr(self.root)["data"]
        digest = hashlib.sha256()
        columns = {}
        for ours, feature in self.rig.features.items():
            values = np.asarray(data[feature.key][first : first + num_frames])
            digest.update(f"{feature.key} {values.dtype.str} {values.shape}".encode())
            digest.update(np.ascontiguousarray(values).tobytes())
            columns[ours] = check_column(name, ours, feature, values)
        cameras = {ours: self._camera(name, data, ours, first, num_frames, digest) for ours in self.rig.cameras}
        return Episode(
            meta=self.table.meta(
                episode_id=episode_id(name, digest.hexdigest()),
                raw_name=name,
                raw_task=None,
            ),
            rate_hz=self.rig.rate_hz,
            columns=columns,
            cameras={**cameras},
        )

    def _camera(
        self,
        name: str,
        data: Any,  # noqa: ANN401 - a zarr group
        ours: str,
        first: int,
        num_frames: int,
        digest: "hashlib._Hash",
    ) -> ZarrArrays:
        camera = self.rig.cameras[ours]
        array = data[camera.key]
        for start, block in zarr_blocks(array, first, num_frames):
            digest.update(_as_bytes(block, ours, label=f"{name}: camera '{ours}'", first=start).tobytes())
        spec = CameraSpec(
            name=ours,
            height=int(array.shape[1]),
            width=int(array.shape[2]),
            encoding="raw",
            channel_order=camera.channel_order,
            orientation=camera.orientation,
        )
        return ZarrArrays(spec=spec, root=self.root, key=camera.key, first=first, num_frames=num_frames)


def _name(index: int) -> str:
    return f"episode_{index:06d}"


def open_zarr(root: Path) -> Any:  # noqa: ANN401 - zarr ships no types
    """The group, read-only. Raises SourceError for one that is no replay buffer."""
    import zarr

    try:
        group = zarr.open_group(str(root), mode="r")
    except (OSError, ValueError, KeyError) as error:
        raise SourceError(f"{root.name} is not a readable zarr group ({error}). Copy it again.") from None
    if "data" not in group or "episode_ends" not in group.get("meta", {}):
        raise SourceError(f"{root.name} has no data/ and meta/episode_ends, so it is no replay buffer. Check the path.")
    return group


def read_ends(root: Path, group: Any) -> tuple[int, ...]:  # noqa: ANN401 - a zarr group
    """Where each episode ends. Raises SourceError when they go back or do not match the arrays."""
    ends = np.asarray(group["meta"]["episode_ends"][:]).astype(np.int64)
    lengths = {key: int(array.shape[0]) for key, array in group["data"].arrays()}
    if not len(ends) or (np.diff(ends, prepend=0) < 0).any():
        raise SourceError(f"{root.name}: meta/episode_ends is empty or goes back, so episodes cannot be told apart.")
    wrong = {key: rows for key, rows in lengths.items() if rows != ends[-1]}
    if wrong:
        key = min(wrong)
        raise SourceError(
            f"{root.name}: data/{key} has {wrong[key]} rows, but meta/episode_ends ends at {ends[-1]}. Copy it again."
        )
    return tuple(ends.tolist())


def zarr_blocks(array: Any, first: int, num_frames: int) -> Iterator[tuple[int, NDArray[Any]]]:  # noqa: ANN401
    """(first frame within the episode, decoded frames) of rows [first, first + num_frames), cut at chunk borders."""
    frame_bytes = max(int(np.prod(array.shape[1:])) * array.dtype.itemsize, 1)
    step = max(_BLOCK_BYTES // frame_bytes // array.chunks[0], 1) * array.chunks[0]
    row = first
    while row < first + num_frames:
        end = min((row // step + 1) * step, first + num_frames)
        yield row - first, np.asarray(array[row:end])
        row = end


def _as_bytes(block: NDArray[Any], camera: str, *, label: str = "", first: int = 0) -> NDArray[np.uint8]:
    """Pixels as uint8, exactly. Raises EpisodeError where a value is no whole number in 0..255."""
    if block.dtype == np.uint8:
        return block
    with np.errstate(invalid="ignore"):  # NaN and overflow do not survive the comparison
        exact = block.astype(np.uint8)
    if np.array_equal(exact, block):
        return exact
    whole = np.rint(block)
    wrong = ~((np.abs(block - whole) <= _WHOLE_TOLERANCE) & (whole >= 0) & (whole <= 255))  # NaN is wrong too
    if wrong.any():
        frame = int(np.argwhere(wrong)[0][0])
        value = float(block[wrong][0])
        peak = float(np.nanmax(block))
        hint = "They look like 0..1: multiply by 255 first." if 0 < peak <= 1 else "Store them as uint8 first."
        raise EpisodeError(
            f"{label or camera} frame {first + frame} has the value {value:g}, no whole number in 0..255. {hint}"
        )
    pixels: NDArray[np.uint8] = whole.astype(np.uint8)
    return pixels


def _check_rig(rig: Rig, group: Any) -> None:  # noqa: ANN401 - a zarr group
    arrays = dict(group["data"].arrays())
    where = f"in rigs/{rig.name}.yaml"
    has = ", ".join(sorted(arrays)) or "none"
    for ours, feature in rig.features.items():
        if feature.key not in arrays:
            raise RigError(f"'{ours}' reads data/{feature.key}, not in the zarr (has: {has}). Correct its key {where}")
        shape = arrays[feature.key].shape
        if len(shape) > 2:
            raise RigError(
                f"'{ours}' reads data/{feature.key} of shape {shape}, not (rows, dims). Correct its key {where}"
            )
        dims = shape[1] if len(shape) == 2 else 1
        if feature.columns is None and feature.names and len(feature.names) != dims:
            raise RigError(
                f"'{ours}' has {dims} dimensions in data/{feature.key}, but the rig names {len(feature.names)}. "
                f"Correct names: under features: {where}"
            )
    for ours, camera in rig.cameras.items():
        _check_camera(ours, camera, arrays, rig.name)


def _check_camera(ours: str, camera: Camera, arrays: dict[str, Any], rig_name: str) -> None:
    where = f"in rigs/{rig_name}.yaml"
    pictures = [key for key, array in arrays.items() if is_picture(array)]
    if camera.key not in arrays:
        has = ", ".join(sorted(pictures)) or "none"
        raise RigError(f"camera '{ours}' not in the zarr (has: {has}). Name it under cameras: {where}")
    if camera.key not in pictures:
        raise RigError(
            f"camera '{ours}' reads data/{camera.key} of shape {arrays[camera.key].shape}, no (N, H, W, 3) pictures. "
            f"Correct its key {where}"
        )
    if camera.channel_order == "unknown":
        raise RigError(colour_question(rig_name, ours))


def is_picture(array: Any) -> bool:  # noqa: ANN401 - a zarr array
    """True for (N, height, width, 3) of uint8 or floats."""
    return len(array.shape) == 4 and array.shape[3] == 3 and array.dtype in (np.uint8, np.float32, np.float64)
