"""The zarr frame store sink: every picture of every episode as one JPEG, in shards of 512, beside plain columns.

Shards are written by hand (JPEG bytes back to back, then an index of uint64 offset and size with its crc32c), which is
exactly what the zarr v3 `sharding_indexed` codec reads; source JPEGs get here byte for byte. A shard of an older
version whose 512 pictures stay the same ones in the same places is linked.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataengine.frame_store import COLUMN_ROWS, LAYOUTS, SHARD_FRAMES, FrameStore, chunk_name
from dataengine.sinks.camera_features import camera_array
from dataengine.sinks.frame_shards import Stretch, write_shard
from dataengine.sinks.kept import CONTENTS, write_contents
from dataengine.sinks.lerobot_v3 import Committed
from dataengine.sinks.mp4_tables import stat_of
from dataengine.sinks.parts import Part, link_or_copy, stamp_keys_of
from dataengine.sinks.staging import StagedEpisode
from schemas.errors import ArtifactError
from schemas.records import sha256_of
from schemas.rigs import Rig

LAYOUT = LAYOUTS[-1]
_SEPARATOR = "."
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
    ends = np.cumsum([part.staged.num_frames for part in parts]).tolist()
    with ThreadPoolExecutor(max_workers=_COPIES) as pool:
        shards = [shard for key in cameras for shard in _write_camera(pool, root / key, parts, key, recipe)]
        _write_columns(root / "columns", parts, columns)
        write_contents(root / CONTENTS, parts)
    for shard in shards:
        shard.result()
    attributes = {
        "schema_version": LAYOUT,
        "rig": recipe["rig"],  # of a version that extends another one, not that of its own recipe
        "rate_hz": rig.rate_hz,
        "cameras": cameras,
        "columns": columns,
        "episode_ids": [part.staged.episode_id for part in parts],
        "episode_ends": ends,
    }
    _write_json(root / "zarr.json", {"zarr_format": 3, "node_type": "group", "attributes": attributes})
    return Committed(fingerprint=fingerprint(parts, recipe), num_frames=ends[-1])


def _write_camera(
    pool: Executor, folder: Path, parts: Sequence[Part], key: str, recipe: dict[str, Any]
) -> Iterator[Future[None]]:
    """One camera's array; each of its shards is known from where the parts begin, so that several are written at once.

    Yields what must be waited for.
    """
    frames = parts[0].staged.cameras[key].frames
    assert frames is not None
    ends = np.cumsum([part.staged.num_frames for part in parts])
    num_frames, unit_m = int(ends[-1]), parts[0].staged.cameras[key].depth_unit_m
    _write_array(folder, **camera_array(frames, num_frames, depth_unit_m=unit_m, jpeg_quality=recipe["jpeg_quality"]))
    blobs = _Blobs(parts, key)
    for number in range(-(-num_frames // SHARD_FRAMES)):
        rows = range(number * SHARD_FRAMES, min((number + 1) * SHARD_FRAMES, num_frames))
        source = _same_shard(parts, ends, rows)
        path = _shard_path(folder, number)
        if source is not None:
            link_or_copy(_shard_of(source, key, number), path)
        else:
            yield pool.submit(_write_rows, path, parts, blobs, ends, rows)


def _write_rows(path: Path, parts: Sequence[Part], blobs: "_Blobs", ends: NDArray[np.int64], rows: range) -> None:
    pieces: list[Stretch | bytes] = []
    row = rows.start
    low, high = np.searchsorted(ends, (rows.start, rows.stop - 1), side="right").tolist()
    for index in range(low, high + 1):
        first = row - int(ends[index]) + parts[index].staged.num_frames
        stop = min(rows.stop, int(ends[index]))
        pieces.extend(blobs.pieces(index, first, first + stop - row))
        row = stop
    write_shard(path, pieces)
    for index in range(low, high + 1):  # a raw file may have been written to meanwhile
        blobs.check_raw(index)


class _Blobs:
    """Where the pictures of one camera of all parts lie."""

    def __init__(self, parts: Sequence[Part], key: str) -> None:
        self._parts = parts
        self._key = key

    def pieces(self, index: int, first: int, stop: int) -> Iterator[Stretch | bytes]:
        """Pictures [first, stop) of part `index`."""
        kept = self._parts[index].frames
        if kept is not None:
            store = FrameStore.open(kept.store)  # one of its own: a store is not shared between threads
            for frame in range(first, stop):
                yield store.jpeg(self._key, kept.first + frame)
            store.close()
            return
        staged = self._parts[index].staged
        found, frames = np.load(staged.folder / f"{self._key}.npy"), staged.cameras[self._key].frames
        if frames is None or frames.source is None:
            offsets = np.cumsum(found) - found
            blob = staged.folder / f"{self._key}.jpegs"
            yield Stretch(path=blob, offsets=offsets[first:stop], sizes=found[first:stop])
            return
        self.check_raw(index)
        yield Stretch(path=frames.source, offsets=found[1, first:stop], sizes=found[0, first:stop])

    def check_raw(self, index: int) -> None:
        """Raise ArtifactError where the raw file of part `index` is no longer the one that was read."""
        frames = self._parts[index].staged.cameras[self._key].frames
        if self._parts[index].frames is not None or frames is None or frames.source is None:
            return
        if frames.file_stat is None or stat_of(frames.source) != tuple(frames.file_stat):
            raise ArtifactError(f"{frames.source.name} changed while it was converted. Run the command again.")


def _shard_path(folder: Path, number: int) -> Path:
    return folder / chunk_name(number, 4, _SEPARATOR)


def _shard_of(store: Path, key: str, number: int) -> Path:
    """A shard of an older version, whose names may be another layout's."""
    opened = _open_store(store)
    return (opened.cameras.get(key) or opened.depth_cameras[key]).shard_path(number)


def _same_shard(parts: Sequence[Part], ends: NDArray[np.int64], rows: range) -> Path | None:
    """The store whose shard of the same number holds just these rows in these places; None where none does."""
    first, last = (int(np.searchsorted(ends, row, side="right")) for row in (rows[0], rows[-1]))
    stores = {part.frames.store if part.frames else None for part in parts[first : last + 1]}
    store = stores.pop()
    if stores or store is None:
        return None
    for part, end in zip(parts[first : last + 1], ends[first : last + 1].tolist(), strict=True):
        if part.frames is None or part.frames.first != end - part.staged.num_frames:
            return None
    # the last shard of a store may be partial: it is the same only where it ends in the same row
    num_frames = _num_frames(store)
    return store if min(num_frames, (rows[0] // SHARD_FRAMES + 1) * SHARD_FRAMES) == rows[-1] + 1 else None


def _num_frames(store: Path) -> int:
    return _open_store(store).episode_ends[-1]


@lru_cache(maxsize=8)
def _open_store(path: Path) -> FrameStore:
    return FrameStore.open(path)


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
        path = self._folder / chunk_name(self._number, len(self._chunk), _SEPARATOR)
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
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": _SEPARATOR}},
            "fill_value": False if dtype == "bool" else 0.0 if dtype.startswith("float") else 0,
            "codecs": codecs,
            "attributes": attributes,
            "dimension_names": dimensions,
        },
    )


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1))  # publishing waits for the disk; half a store is written anew
