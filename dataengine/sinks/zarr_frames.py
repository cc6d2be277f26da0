"""The zarr frame store sink: every picture of every episode as one JPEG, in shards of 512, beside plain columns.

Shards are written by hand (JPEG bytes back to back, then an index of uint64 offset and size with its crc32c), which is
exactly what the zarr v3 `sharding_indexed` codec reads; source JPEGs get here byte for byte. A shard of an older
version whose 512 pictures stay the same ones in the same places is linked.
"""

import json
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataengine.frame_store import COLUMN_ROWS, LAYOUTS, chunk_name
from dataengine.sinks.camera_features import camera_array
from dataengine.sinks.camera_shards import SEPARATOR, CameraShards
from dataengine.sinks.kept import CONTENTS, write_contents
from dataengine.sinks.lerobot_v3 import Committed
from dataengine.sinks.parts import Part, stamp_keys_of
from dataengine.sinks.shard_plan import drop_plans
from dataengine.sinks.staging import StagedEpisode
from schemas.records import sha256_of
from schemas.rigs import Rig

LAYOUT = LAYOUTS[-1]
_COPIES = 4  # shards written at once: copying waits for the disk more than for a core


def frame_recipe(rig: Rig, frame_size: tuple[int, int] | None, quality: int) -> dict[str, Any]:
    """Every argument that changes the content of a frame store."""
    return {
        "layout": LAYOUT,
        "rig": rig.model_dump(mode="json"),
        "frame_size": list(frame_size) if frame_size else None,
        "jpeg_quality": quality,
    }


def fingerprint(episodes: Sequence[StagedEpisode | Part], recipe: dict[str, Any]) -> str:
    """Identity of the store's logical content: what the source holds, and how it was encoded where it had to be."""
    parts = [Part.of(episode, int(recipe["rig"]["rate_hz"])) for episode in episodes]
    cameras = [camera for part in parts for camera in part.staged.cameras.values()]
    encoded = any(camera.frames and not camera.frames.copied for camera in cameras)
    names = ("layout", "rig", "frame_size", *(("jpeg_quality",) if encoded else ()))
    kept = {key: recipe[key] for key in names}
    return sha256_of({"recipe": kept, "episodes": [part.content() for part in parts]})


def commit(root: Path, episodes: Sequence[StagedEpisode | Part], rig: Rig, recipe: dict[str, Any]) -> Committed:
    """Write the store under `root` from staged and kept episodes; what a killed commit left is written anew."""
    parts = [Part.of(episode, rig.rate_hz) for episode in episodes]
    first = parts[0].staged
    cameras, columns = list(first.cameras), [*first.column_types, *stamp_keys_of(parts)]
    for name in ("columns", *cameras):
        shutil.rmtree(root / name, ignore_errors=True)
    ends = np.cumsum([part.staged.num_frames for part in parts])
    shards: list[tuple[CameraShards, int]] = []
    for key in cameras:
        unit_m, frames = first.cameras[key].depth_unit_m, first.cameras[key].frames
        assert frames is not None
        quality = recipe["jpeg_quality"]
        _write_array(root / key, **camera_array(frames, int(ends[-1]), depth_unit_m=unit_m, jpeg_quality=quality))
        camera = CameraShards(folder=root / key, key=key, parts=parts, ends=ends)
        shards += [(camera, number) for number in camera.numbers() if not camera.take_planned(number)]
    for staging in {part.staged.folder.parent for part in parts if part.frames is None}:
        drop_plans(staging)
    with ThreadPoolExecutor(max_workers=_COPIES) as pool:
        written = [pool.submit(camera.write, number) for camera, number in shards if not camera.link_kept(number)]
        _write_columns(root / "columns", parts, columns)
        write_contents(root / CONTENTS, parts)
    for shard in written:
        shard.result()
    attributes = {
        "schema_version": LAYOUT,
        "rig": recipe["rig"],  # of a version that extends another one, not that of its own recipe
        "rate_hz": rig.rate_hz,
        "cameras": cameras,
        "columns": columns,
        "episode_ids": [part.staged.episode_id for part in parts],
        "episode_ends": ends.tolist(),
    }
    _write_json(root / "zarr.json", {"zarr_format": 3, "node_type": "group", "attributes": attributes})
    return Committed(fingerprint=fingerprint(parts, recipe), num_frames=int(ends[-1]))


def _write_columns(folder: Path, parts: Sequence[Part], keys: Sequence[str]) -> None:
    """Every column as one plain array, chunk by chunk: no more than one chunk of each is in memory."""
    stamps = stamp_keys_of(parts)
    num_rows = sum(part.staged.num_frames for part in parts)
    _write_json(folder / "zarr.json", {"zarr_format": 3, "node_type": "group", "attributes": {}})
    arrays: dict[str, _ColumnWriter] = {}
    for part in parts:
        columns = part.columns(stamps)
        for key in keys:
            if key not in arrays:
                arrays[key] = _ColumnWriter(folder / key, columns[key], num_rows)
            arrays[key].add(columns[key])
    for array in arrays.values():
        array.close()


class _ColumnWriter:
    """One low-dimensional column, in chunks of COLUMN_ROWS rows; the last one is filled up with zeros.

    A store of fewer rows has one chunk of just these: filled up, 936 rows took 15 MB.
    """

    def __init__(self, folder: Path, first: NDArray[np.generic], num_rows: int) -> None:
        self._folder = folder
        self._dtype = first.dtype.newbyteorder("<")
        self._chunk = [min(COLUMN_ROWS, num_rows), *first.shape[1:]]
        self._rows = np.zeros(self._chunk, dtype=self._dtype)
        self._filled = self._number = 0
        _write_array(
            folder,
            shape=[num_rows, *first.shape[1:]],
            dtype=first.dtype.name,
            chunk=self._chunk,
            codecs=[{"name": "bytes", "configuration": {"endian": "little"}}],
            attributes={},
            dimensions=["row", "dimension"][: first.ndim],
        )

    def add(self, column: NDArray[np.generic]) -> None:
        """Append the rows of one episode."""
        while len(column):
            taken = column[: self._chunk[0] - self._filled]
            self._rows[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            column = column[len(taken) :]
            if self._filled == self._chunk[0]:
                self._flush()

    def _flush(self) -> None:
        self._rows[self._filled :] = 0
        path = self._folder / chunk_name(self._number, len(self._chunk), SEPARATOR)
        path.write_bytes(self._rows.tobytes())
        self._filled, self._number = 0, self._number + 1

    def close(self) -> None:
        """Write the last chunk."""
        if self._filled:
            self._flush()


def _write_array(
    folder: Path,
    *,
    shape: list[int],
    dtype: str,
    chunk: list[int],
    codecs: list[dict[str, Any]],
    attributes: dict[str, Any],
    dimensions: list[str],
) -> None:
    _write_json(
        folder / "zarr.json",
        {
            "zarr_format": 3,
            "node_type": "array",
            "shape": shape,
            "data_type": dtype,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": SEPARATOR}},
            "fill_value": False if dtype == "bool" else 0.0 if dtype.startswith("float") else 0,
            "codecs": codecs,
            "attributes": attributes,
            "dimension_names": dimensions,
        },
    )


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1))  # publishing waits for the disk; half a store is written anew
