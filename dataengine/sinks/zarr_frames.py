"""The zarr frame store sink: every picture of every episode as one JPEG, in shards of 512, beside plain columns.

Shards are written by hand (JPEG bytes back to back, then an index of uint64 offset and size with its crc32c), which is
exactly what the zarr v3 `sharding_indexed` codec reads; source JPEGs get here byte for byte.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataengine.artifacts import write_atomic
from dataengine.frame_store import COLUMN_ROWS, SHARD_FRAMES
from dataengine.sinks.lerobot_v3 import Committed
from dataengine.sinks.staging import StagedEpisode, load_columns, stamp_keys
from schemas.records import sha256_of
from schemas.rigs import Rig

LAYOUT = 1


def frame_recipe(rig: Rig, frame_size: tuple[int, int] | None, quality: int) -> dict[str, Any]:
    """Every argument that changes the content of a frame store."""
    return {
        "layout": LAYOUT,
        "rig": rig.model_dump(mode="json"),
        "frame_size": list(frame_size) if frame_size else None,
        "jpeg_quality": quality,
    }


def fingerprint(episodes: Sequence[StagedEpisode], recipe: dict[str, Any]) -> str:
    """Identity of the store's logical content: what the source holds, and how it was encoded where it had to be."""
    encoded = any(camera.frames and not camera.frames.copied for row in episodes for camera in row.cameras.values())
    kept = recipe if encoded else {key: recipe[key] for key in ("layout", "rig", "frame_size")}
    return sha256_of({"recipe": kept, "episodes": [episode.content() for episode in episodes]})


def commit(root: Path, episodes: Sequence[StagedEpisode], rig: Rig, recipe: dict[str, Any]) -> Committed:
    """Write the store under `root`; what a killed commit left is written anew."""
    cameras, columns = list(episodes[0].cameras), [*episodes[0].column_types, *stamp_keys(episodes)]
    for name in ("columns", *cameras):
        shutil.rmtree(root / name, ignore_errors=True)
    ends = np.cumsum([episode.num_frames for episode in episodes]).tolist()
    for key in cameras:
        _write_camera(root / key, episodes, key, recipe)
    _write_columns(root / "columns", episodes)
    attributes = {
        "schema_version": LAYOUT,
        "rate_hz": rig.rate_hz,
        "cameras": cameras,
        "columns": columns,
        "episode_ids": [episode.episode_id for episode in episodes],
        "episode_ends": ends,
    }
    _write_json(root / "zarr.json", {"zarr_format": 3, "node_type": "group", "attributes": attributes})
    return Committed(fingerprint=fingerprint(episodes, recipe), num_frames=ends[-1])


def _write_camera(folder: Path, episodes: Sequence[StagedEpisode], key: str, recipe: dict[str, Any]) -> None:
    frames = episodes[0].cameras[key].frames
    assert frames is not None
    num_frames = sum(episode.num_frames for episode in episodes)
    shape = [frames.height, frames.width, 3]
    # A JPEG made from BGR arrays holds swapped channels; this tells the codec so, and any zarr then reads true RGB.
    swapped = {"colorspace_data": "BGR"} if frames.channel_order == "bgr" else {}
    sharding = {
        "chunk_shape": [1, *shape],
        "codecs": [{"name": "imagecodecs_jpeg", "configuration": swapped}],
        "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
        "index_location": "end",
    }
    attributes: dict[str, Any] = {
        "encoding": "jpeg",
        "channel_order": frames.channel_order,
        "orientation": frames.orientation,
        "source_bytes": frames.copied,
    }
    if not frames.copied:
        attributes |= {"jpeg_quality": recipe["jpeg_quality"], "jpeg_subsampling": frames.subsampling}
    _write_array(
        folder,
        shape=[num_frames, *shape],
        dtype="uint8",
        chunk=[SHARD_FRAMES, *shape],
        codecs=[{"name": "sharding_indexed", "configuration": sharding}],
        attributes=attributes,
        dimensions=["row", "height", "width", "channel"],
    )
    _write_shards(folder, _jpegs(episodes, key))


def _jpegs(episodes: Sequence[StagedEpisode], key: str) -> Iterator[memoryview]:
    for episode in episodes:
        folder = episode.folder
        lengths = np.load(folder / f"{key}.npy")
        blob = memoryview(np.memmap(folder / f"{key}.jpegs", mode="r"))
        ends = np.cumsum(lengths).tolist()
        for start, end in zip([0, *ends[:-1]], ends, strict=True):
            yield blob[start:end]


def _write_shards(folder: Path, jpegs: Iterator[memoryview]) -> None:
    shard: list[memoryview] = []
    number = 0
    for jpeg in jpegs:
        shard.append(jpeg)
        if len(shard) == SHARD_FRAMES:
            write_shard(folder / "c" / str(number) / "0" / "0" / "0", shard)
            shard, number = [], number + 1
    if shard:
        write_shard(folder / "c" / str(number) / "0" / "0" / "0", shard)


def write_shard(path: Path, jpegs: Sequence[memoryview | bytes]) -> None:
    """One shard file: the JPEGs, the index, its checksum. Missing inner chunks are marked with 2**64 - 1."""
    import google_crc32c

    index = np.full((SHARD_FRAMES, 2), 2**64 - 1, dtype="<u8")
    sizes = np.asarray([len(jpeg) for jpeg in jpegs], dtype=np.uint64)
    index[: len(jpegs), 0] = np.cumsum(sizes) - sizes
    index[: len(jpegs), 1] = sizes
    raw = index.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.writelines(jpegs)
        file.write(raw)
        file.write(google_crc32c.value(raw).to_bytes(4, "little"))


def _write_columns(folder: Path, episodes: Sequence[StagedEpisode]) -> None:
    parts: dict[str, list[NDArray[np.generic]]] = {}
    stamps = stamp_keys(episodes)
    for episode in episodes:
        for key, column in load_columns(episode, stamps).items():
            parts.setdefault(key, []).append(column)
    _write_json(folder / "zarr.json", {"zarr_format": 3, "node_type": "group", "attributes": {}})
    for key, columns in parts.items():
        whole = np.concatenate(columns)
        whole = whole.astype(whole.dtype.newbyteorder("<"), copy=False)
        chunk = [COLUMN_ROWS, *whole.shape[1:]]
        _write_array(
            folder / key,
            shape=list(whole.shape),
            dtype=whole.dtype.name,
            chunk=chunk,
            codecs=[{"name": "bytes", "configuration": {"endian": "little"}}],
            attributes={},
            dimensions=["row", "dimension"][: whole.ndim],
        )
        for number in range(0, -(-len(whole) // COLUMN_ROWS)):
            rows = np.zeros(chunk, dtype=whole.dtype)
            taken = whole[number * COLUMN_ROWS : (number + 1) * COLUMN_ROWS]
            rows[: len(taken)] = taken
            path = (folder / key / "c" / str(number)).joinpath(*["0"] * (whole.ndim - 1))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(rows.tobytes())


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
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": False if dtype == "bool" else 0.0 if dtype.startswith("float") else 0,
            "codecs": codecs,
            "attributes": attributes,
            "dimension_names": dimensions,
        },
    )


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(value, indent=1).encode())
