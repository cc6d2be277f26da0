"""Diffusion policy and UMI replay buffers as episodes.

No rate, no task, no names: the rig states them. Pixels are uint8 or float32 0..255; floats become uint8 only where
every value is a whole number. Real robots of diffusion policy keep `data/timestamp` and one mp4 per camera and
episode in `videos/` beside the buffer. UMI stores no action: the rig takes it from later poses (`shift_rows`).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataengine.sources.content import STEM, episode_id, files_stamp, folder_fingerprint, hash_files
from dataengine.sources.episode_videos import FOLDER, camera_files, check_rate, video_camera
from dataengine.sources.hdf5_cameras import colour_question
from dataengine.sources.joined_columns import joined_columns, keys_of, num_rows_lost
from dataengine.sources.metadata import MetadataTable, csv_files
from dataengine.sources.optional_parts import without
from dataengine.sources.replay_buffers import (
    folder_files,
    is_picture,
    open_buffer,
    read_ends,
    stored_bytes,
    zip_members,
)
from dataengine.sources.zarr_pixels import HashedArray, ZarrArrays, check_pixels, hash_array
from schemas.episodes import CameraSpec, CameraStream, Episode, StreamSkew
from schemas.errors import EpisodeError, RigError
from schemas.records import sha256_of
from schemas.rigs import Camera, Rig, SourceKind
from schemas.spans import NS_PER_S

STAMPS = "timestamp"  # seconds, of real robots


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffusionZarr:
    """A replay buffer in a folder or a zip, read as diffusion policy's or as UMI's."""

    root: Path
    rig: Rig
    table: MetadataTable
    ends: tuple[int, ...]
    bytes_per_row: float
    kind: SourceKind = "diffusion_zarr"

    @classmethod
    def open(cls, root: Path, rig: Rig, kind: SourceKind = "diffusion_zarr") -> "DiffusionZarr":
        """Check the group and the rig against each other."""
        group = open_buffer(root)
        ends = read_ends(root, group)
        arrays = dict(group["data"].arrays())
        rig = _without_absent(rig, arrays, root, len(ends))
        _check_rig(rig, arrays, root, len(ends))
        aliases = {_name(index): (_name(index), str(index)) for index in range(len(ends))}
        folder = root.parent if root.is_file() else root
        return cls(
            root=root,
            rig=rig,
            table=MetadataTable.of(rig, folder, aliases),
            ends=ends,
            bytes_per_row=stored_bytes(root) / max(ends[-1], 1),
            kind=kind,
        )

    def names(self) -> list[str]:
        """`episode_000000` and so on, by position."""
        return [_name(index) for index in range(len(self.ends))]

    def num_bytes(self, name: str) -> int:
        """An episode's share of the store."""
        index = int(name.rsplit("_", 1)[1])
        return round((self.ends[index] - (self.ends[index - 1] if index else 0)) * self.bytes_per_row)

    def stamps(self) -> dict[str, str]:
        """Sizes and dates of all files, since episodes share chunks, of each one's videos, and its row of the CSV."""
        csv = self.root / self.rig.metadata.csv if self.rig.metadata.csv else None
        files = [self.root]
        if self.root.is_dir():
            files = sorted(path for path in self.root.rglob("*") if path.is_file() and path != csv)
        whole = files_stamp(files, {})
        return {
            name: files_stamp(self._videos(index).values(), {"files": whole, **self.table.row(name)})
            for index, name in enumerate(self.names())
        }

    def fingerprint(self) -> str:
        """Identity of every chunk, metadata file and video, whichever of them the rig reads, and of its CSV."""
        videos = [path for index in range(len(self.ends)) for path in self._videos(index).values()]
        beside = folder_fingerprint(self.root.parent, whole=[], pixels=videos)
        if self.root.is_file():
            csv, members = csv_files(self.rig, self.root.parent), zip_members(self.root)
            inside = folder_fingerprint(self.root.parent, whole=csv, pixels=[self.root], low_dim=members)
        else:
            pixels, rest = folder_files(self.root)
            whole = {*rest, *csv_files(self.rig, self.root)}  # one of them already, unless it lies outside
            inside = folder_fingerprint(self.root, whole=whole, pixels=pixels)
        return sha256_of([inside, beside]) if videos else inside

    def read(self, name: str) -> Episode:
        """One episode, its pixels checked. Raises EpisodeError that names the frame."""
        index = int(name.rsplit("_", 1)[1])
        first = self.ends[index - 1] if index else 0
        num_rows = self.ends[index] - first
        if num_rows == 0:
            raise EpisodeError(f"{name}: has no rows. Remove it from meta/episode_ends.")
        group = open_buffer(self.root)
        data = group["data"]
        wanted = {camera.key for camera in self.rig.cameras.values()}
        hashed = {
            key: hash_array(name, self.root, array, first, num_rows, keep=key in wanted)
            for key, array in sorted(data.arrays())
        }
        values = {key: each.values for key, each in hashed.items() if each.values is not None}
        columns = joined_columns(name, self.rig, values)
        kept = num_rows - num_rows_lost(self.rig)
        stamps = self._stamps(name, values, kept)
        cameras: dict[str, CameraStream] = {}
        skew: dict[str, StreamSkew] = {}
        for ours, camera in self.rig.cameras.items():
            if camera.key in hashed:
                cameras[ours] = self._pictures(name, ours, data[camera.key], hashed[camera.key], first, kept)
            else:
                cameras[ours], age = self._video(name, index, ours, kept, stamps)
                skew |= {ours: age} if age else {}
        return Episode(
            meta=self.table.meta(
                episode_id=episode_id(STEM, self._digest(hashed, index)),
                raw_name=name,
                raw_task=None,
                raw_words=self._words(group, index),
            ),
            rate_hz=self.rig.rate_hz,
            columns=columns,
            cameras=cameras,
            stamps_ns=stamps,
            skew=skew,
        )

    def _digest(self, hashed: Mapping[str, HashedArray], index: int) -> str:
        """Hash of all that is recorded of one episode, whatever the rig takes of it."""
        digest = hashlib.sha256()
        for key, each in hashed.items():
            digest.update(f"{key} ".encode() + each.digest)
        for key, path in self._videos(index).items():
            digest.update(f"{key} {hash_files([path])} ".encode())
        return digest.hexdigest()

    def _words(self, group: Any, index: int) -> dict[str, str]:  # noqa: ANN401 - a zarr group
        """What the store says for the words of metadata.keys: arrays of meta/ with a value per episode, attributes."""
        words: dict[str, str] = {}
        for word, key in self.rig.metadata.keys.items():
            array = group["meta"].get(key)
            if array is not None and getattr(array, "shape", ())[:1] == (len(self.ends),):
                value = np.asarray(array[index]).item()
                words[word] = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
            elif key in group.attrs:
                words[word] = str(group.attrs[key])
        return words

    def _videos(self, index: int) -> dict[str, Path]:
        return camera_files(self.root, index)

    def _stamps(self, name: str, values: Mapping[str, NDArray[Any]], kept: int) -> dict[str, NDArray[np.int64]]:
        """Recorded times of the rows, which must be finite, rise, and step at the rig's rate."""
        if STAMPS not in values or values[STAMPS].dtype.kind != "f":
            return {}
        seconds = values[STAMPS].reshape(-1).astype(np.float64)
        if not np.isfinite(seconds).all() or (np.diff(seconds) <= 0).any():
            raise EpisodeError(f"{name}: data/{STAMPS} has a value that does not rise. Drop the episode.")
        check_rate(self.root.name, self.rig.rate_hz, seconds)
        return {STAMPS: np.round(seconds[:kept] * NS_PER_S).astype(np.int64)}

    def _pictures(
        self,
        name: str,
        ours: str,
        array: Any,  # noqa: ANN401 - a zarr array
        hashed: HashedArray,
        first: int,
        kept: int,
    ) -> ZarrArrays:
        if not hashed.whole:  # which ones?
            check_pixels(f"{name}: camera '{ours}'", array, first, kept)
        height, width = int(array.shape[1]), int(array.shape[2])
        return ZarrArrays(
            spec=_spec(ours, self.rig.cameras[ours], height, width),
            root=self.root,
            key=self.rig.cameras[ours].key,
            first=first,
            num_frames=kept,
            kept=_first_rows(hashed.pixels, kept),
        )

    def _video(
        self, name: str, index: int, ours: str, kept: int, stamps: Mapping[str, NDArray[np.int64]]
    ) -> tuple[CameraStream, StreamSkew | None]:
        camera = self.rig.cameras[ours]
        path = self._videos(index).get(camera.key)
        if path is None:
            raise EpisodeError(
                f"{name}: {FOLDER}/{index}/{Path(camera.key).name}.mp4 is missing beside {self.root.name}. "
                f"Copy it or drop the episode."
            )
        times = np.arange(kept) / self.rig.rate_hz
        if STAMPS in stamps:
            times = (stamps[STAMPS] - stamps[STAMPS][0]) / NS_PER_S
        return video_camera(name, path, _spec(ours, camera, 0, 0), times, camera.max_age_s or self.rig.clock.max_age_s)


def _name(index: int) -> str:
    return f"episode_{index:06d}"


def _spec(ours: str, camera: Camera, height: int, width: int) -> CameraSpec:
    return CameraSpec(
        name=ours,
        height=height,
        width=width,
        encoding="raw",
        channel_order=camera.channel_order,
        orientation=camera.orientation,
    )


def _first_rows(blocks: tuple[NDArray[np.uint8], ...], kept: int) -> tuple[NDArray[np.uint8], ...]:
    """The first `kept` pictures of some blocks."""
    some: list[NDArray[np.uint8]] = []
    for block in blocks:
        some.append(block[: max(kept - sum(map(len, some)), 0)])
    return tuple(some)


def _video_keys(root: Path, num_episodes: int) -> set[str]:
    """Cameras that some episode has a video of."""
    if not (root.parent / FOLDER).is_dir():
        return set()
    return {key for index in range(num_episodes) for key in camera_files(root, index)}


def _without_absent(rig: Rig, arrays: Mapping[str, Any], root: Path, num_episodes: int) -> Rig:
    """The rig without the optional features and cameras that the store does not have."""
    has = set(arrays) | _video_keys(root, num_episodes)
    return without(
        rig,
        features={
            name for name, feature in rig.features.items() if feature.optional and not has.issuperset(keys_of(feature))
        },
        cameras={name for name, camera in rig.cameras.items() if camera.optional and camera.key not in has},
    )


def _check_rig(rig: Rig, arrays: Mapping[str, Any], root: Path, num_episodes: int) -> None:
    where = f"in rig '{rig.name}'"
    has = ", ".join(sorted(arrays)) or "none"
    for ours, feature in rig.features.items():
        dims = 0
        for key in keys_of(feature):
            if key not in arrays:
                raise RigError(f"'{ours}' reads data/{key}, not in the zarr (has: {has}). Correct its key {where}")
            shape = arrays[key].shape
            if len(shape) > 2:
                raise RigError(f"'{ours}' reads data/{key} of shape {shape}, not (rows, dims). Correct its key {where}")
            dims += shape[1] if len(shape) == 2 else 1
        if feature.columns is None and feature.names and len(feature.names) != dims:
            raise RigError(
                f"'{ours}' has {dims} dimensions in data/{feature.key}, but the rig names {len(feature.names)}. "
                f"Correct names: under features: {where}"
            )
    pictures = [key for key, array in arrays.items() if is_picture(array)]
    videos = _video_keys(root, num_episodes)
    for ours, camera in rig.cameras.items():
        if camera.key not in arrays and camera.key not in videos:
            some = ", ".join(sorted([*pictures, *videos])) or "none"
            raise RigError(
                f"camera '{ours}' reads {camera.key}, not in the zarr (has: {some}). "
                f"Correct its key under cameras: {where}"
            )
        if camera.key in arrays and camera.key not in pictures:
            raise RigError(
                f"camera '{ours}' reads data/{camera.key} of shape {arrays[camera.key].shape}, no (N, H, W, 3) "
                f"pictures. Correct its key {where}"
            )
        if camera.depth_unit_m is not None:
            raise RigError(f"camera '{ours}' has depth_unit_m, but no depth is read from zarr. Take it out {where}")
        if camera.channel_order == "unknown":
            raise RigError(colour_question(rig.name, ours))
        if camera.key in videos and camera.channel_order == "bgr":
            raise RigError(f"camera '{ours}' is a video, whose codec says RGB, not bgr. Write rgb {where}")
