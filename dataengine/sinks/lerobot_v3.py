"""The LeRobot v3.0 sink: turns accepted, staged episodes into one dataset directory.

Order, indices and shards are decided here, once, when everything accepted is known; nothing is decoded or encoded.
Layout and columns follow lerobot 0.6.1 (datasets/utils.py, dataset_metadata.py); beside them stand `meta/rig.json` and
our own columns of `meta/episodes`.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dataengine.artifacts import write_atomic
from dataengine.sinks import parquet_shards, video_shards
from dataengine.sinks.parquet_shards import DataWriter, auto_columns
from dataengine.sinks.staging import StagedEpisode, load_columns, stamp_keys
from dataengine.sinks.video_encoding import VideoEncoding
from dataengine.sinks.video_shards import FILES_PER_CHUNK, EpisodeVideo, Place, chunk_and_file, write_shards
from dataengine.stats import Stats, column_stats, merged, picture_stats
from schemas.records import sha256_of
from schemas.rigs import Rig

LAYOUT = 1  # version of what we add to LeRobot's format
IMAGES = "observation.images."
META_COLUMNS = ("episode_id", "raw_name", "task", "operator", "session", "station", "scene", "outcome", "licence")


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """What a commit made."""

    fingerprint: str
    num_frames: int


def fingerprint(episodes: Sequence[StagedEpisode], rig: Rig, encoding: VideoEncoding) -> str:
    """Identity of the dataset's logical content.

    Covers what the source holds (column bytes, packet hashes of copied video, JPEG or pixel hashes of what is encoded),
    the encoding asked for where one was used, rig and order. Encoder output is not hashed: it may change with the
    encoder's version, the content does not.
    """
    encoded = any(camera.video and not camera.video.copied for row in episodes for camera in row.cameras.values())
    return sha256_of(
        {
            "layout": LAYOUT,
            "rig": rig.model_dump(mode="json"),
            "encoding": encoding.to_json() if encoded else None,
            "episodes": [episode.content() for episode in episodes],
        }
    )


def commit(
    root: Path,
    episodes: Sequence[StagedEpisode],
    rig: Rig,
    encoding: VideoEncoding,
    *,
    data_bytes: int = parquet_shards.SHARD_BYTES,
    video_bytes: int = video_shards.SHARD_BYTES,
) -> Committed:
    """Write the dataset under `root` from staged episodes; what a killed commit left is written anew.

    A new data or video file is opened where the next episode would pass `data_bytes` or `video_bytes`.
    """
    for name in ("data", "meta", "videos"):
        shutil.rmtree(root / name, ignore_errors=True)
    tasks = {task: index for index, task in enumerate(dict.fromkeys(row.meta["task"] for row in episodes))}
    rows, lows = _write_data(DataWriter(root, shard_bytes=data_bytes), episodes, rig, tasks)
    stats: dict[str, Stats] = {key: column_stats(np.concatenate(parts)) for key, parts in lows.items()}
    for key in episodes[0].cameras:
        videos = [_video(episode, key) for episode in episodes]
        places = write_shards(root, IMAGES + key, videos, rate_hz=rig.rate_hz, shard_bytes=video_bytes)
        for row, place, video in zip(rows, places, videos, strict=True):
            row |= _video_columns(IMAGES + key, place, video.num_frames, rig.rate_hz)
            row |= _stat_columns(IMAGES + key, picture_stats(_counts(video), video.video.num_sampled))
        total = merged((_counts(video), video.video.num_sampled) for video in videos)
        stats[IMAGES + key] = picture_stats(*total)
    _write_meta(root, episodes, rows, rig, encoding, tasks, stats)
    return Committed(fingerprint=fingerprint(episodes, rig, encoding), num_frames=rows[-1]["dataset_to_index"])


def _video(episode: StagedEpisode, key: str) -> EpisodeVideo:
    video = episode.cameras[key].video
    assert video is not None
    return EpisodeVideo(video=video, num_frames=episode.num_frames)


def _counts(row: EpisodeVideo) -> NDArray[np.int64]:
    return np.asarray(row.video.histogram, dtype=np.int64)


def _write_data(
    data: DataWriter, episodes: Sequence[StagedEpisode], rig: Rig, tasks: dict[str, int]
) -> tuple[list[dict[str, Any]], dict[str, list[NDArray[np.generic]]]]:
    """Data parquet; returns the first part of each meta/episodes row, and every column's parts for statistics."""
    rows: list[dict[str, Any]] = []
    parts: dict[str, list[NDArray[np.generic]]] = {}
    first, stamps = 0, stamp_keys(episodes)
    with data as writer:
        for index, episode in enumerate(episodes):
            auto = auto_columns(
                num_frames=episode.num_frames,
                rate_hz=rig.rate_hz,
                episode_index=index,
                first_index=first,
                task_index=tasks[episode.meta["task"]],
            )
            columns = {**load_columns(episode, stamps), **auto}
            chunk, file = writer.add(columns)
            row: dict[str, Any] = {
                "episode_index": index,
                "tasks": [episode.meta["task"]],
                "length": episode.num_frames,
                "data/chunk_index": chunk,
                "data/file_index": file,
                "dataset_from_index": first,
                "dataset_to_index": first + episode.num_frames,
                "meta/episodes/chunk_index": 0,
                "meta/episodes/file_index": 0,
                **{key: episode.meta[key] for key in META_COLUMNS},
            }
            for key, column in columns.items():
                row |= _stat_columns(key, column_stats(column))
                parts.setdefault(key, []).append(column)
            rows.append(row)
            first += episode.num_frames
    return rows, parts


def _video_columns(key: str, place: Place, num_frames: int, rate_hz: int) -> dict[str, Any]:
    chunk, file = chunk_and_file(place.shard)
    return {
        f"videos/{key}/chunk_index": chunk,
        f"videos/{key}/file_index": file,
        f"videos/{key}/from_timestamp": place.first / rate_hz,
        f"videos/{key}/to_timestamp": (place.first + num_frames) / rate_hz,
    }


def _stat_columns(key: str, stats: Stats) -> dict[str, Any]:
    return {f"stats/{key}/{name}": value.tolist() for name, value in stats.items()}


def _write_meta(
    root: Path,
    episodes: Sequence[StagedEpisode],
    rows: list[dict[str, Any]],
    rig: Rig,
    encoding: VideoEncoding,
    tasks: dict[str, int],
    stats: dict[str, Stats],
) -> None:
    meta = root / "meta"
    (meta / "episodes" / "chunk-000").mkdir(parents=True)
    # one file: 10,000 episodes are about 10 MB
    pq.write_table(pa.Table.from_pylist(rows), meta / "episodes" / "chunk-000" / "file-000.parquet")
    _write_tasks(meta / "tasks.parquet", tasks)
    listed = {key: {name: value.tolist() for name, value in row.items()} for key, row in stats.items()}
    write_atomic(meta / "stats.json", json.dumps(listed, indent=4).encode())
    write_atomic(meta / "rig.json", rig.model_dump_json(indent=1).encode())
    info = _info(episodes, rows, rig, encoding, len(tasks))
    write_atomic(meta / "info.json", json.dumps(info, indent=4, ensure_ascii=False).encode())
    imported = [
        {"episode_id": row.episode_id, "key": key, "texts": list(texts)}
        for row in episodes
        for key, texts in row.imported.items()
    ]
    if imported:  # annotations found in the raw data: kept for `annotate`, no feature of the dataset
        pq.write_table(pa.Table.from_pylist(imported), meta / "imported.parquet")


def _write_tasks(path: Path, tasks: dict[str, int]) -> None:
    """tasks.parquet is a pandas frame whose index is named `task`; said in metadata, pandas itself is not needed."""
    table = pa.table({"task_index": pa.array(tasks.values(), pa.int64()), "task": pa.array(tasks, pa.string())})
    described = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [
            {
                "name": "task_index",
                "field_name": "task_index",
                "pandas_type": "int64",
                "numpy_type": "int64",
                "metadata": None,
            },
            {"name": "task", "field_name": "task", "pandas_type": "unicode", "numpy_type": "object", "metadata": None},
        ],
        "pandas_version": "2.3.0",
    }
    pq.write_table(table.replace_schema_metadata({b"pandas": json.dumps(described).encode()}), path)


def _info(
    episodes: Sequence[StagedEpisode],
    rows: list[dict[str, Any]],
    rig: Rig,
    encoding: VideoEncoding,
    num_tasks: int,
) -> dict[str, Any]:
    return {
        "codebase_version": "v3.0",
        "robot_type": rig.robot_type,
        "total_episodes": len(episodes),
        "total_frames": rows[-1]["dataset_to_index"],
        "total_tasks": num_tasks,
        "chunks_size": FILES_PER_CHUNK,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": rig.rate_hz,
        "splits": {"train": f"0:{len(episodes)}"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
        if episodes[0].cameras
        else None,
        "features": _features(episodes[0], stamp_keys(episodes), rig, encoding),
    }


def _features(first: StagedEpisode, stamps: Sequence[str], rig: Rig, encoding: VideoEncoding) -> dict[str, Any]:
    features: dict[str, Any] = {}
    for key, (dtype, dims) in (first.column_types | dict.fromkeys(stamps, ("int64", 1)) | AUTO_TYPES).items():
        names = list(rig.features[key].names) if key in rig.features else []
        if len(names) != dims:
            names = [f"{key.rsplit('.', 1)[-1]}_{dim}" for dim in range(dims)] if dims > 1 else []
        features[key] = {"dtype": dtype, "shape": [dims], "names": names or None}
    for key, camera in first.cameras.items():
        video = camera.video
        assert video is not None
        info: dict[str, Any] = {
            "video.height": camera.height,
            "video.width": camera.width,
            "video.codec": video.codec,
            "video.pix_fmt": video.pix_fmt,
            "video.fps": rig.rate_hz,
            "video.channels": 3,
            "has_audio": False,
            "is_depth_map": False,
        }
        if not video.copied:
            info |= {"video.g": encoding.g, "video.crf": encoding.crf, "video.preset": encoding.preset}
        features[IMAGES + key] = {
            "dtype": "video",
            "shape": [camera.height, camera.width, 3],
            "names": ["height", "width", "channels"],
            "info": info,
        }
    return features


AUTO_TYPES = {
    "timestamp": ("float32", 1),
    "frame_index": ("int64", 1),
    "episode_index": ("int64", 1),
    "index": ("int64", 1),
    "task_index": ("int64", 1),
}
