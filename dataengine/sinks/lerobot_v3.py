"""The LeRobot v3.0 sink: turns accepted, staged episodes into one dataset directory.

Order, indices and shards are decided here, once, when everything accepted is known; nothing is decoded or encoded.
Episodes of an older version come in beside staged ones: their shards are linked where they stay whole.
Layout and columns follow lerobot 0.6.1 (datasets/utils.py, dataset_metadata.py); beside them stand `meta/rig.json`,
`meta/contents.parquet` and our own columns of `meta/episodes`.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dataengine.artifacts import write_atomic
from dataengine.sinks import parquet_shards, video_shards
from dataengine.sinks.auto_columns import AutoColumns, auto_totals
from dataengine.sinks.camera_features import how_counted, video_feature, video_stats
from dataengine.sinks.kept import CONTENTS, write_contents
from dataengine.sinks.parquet_shards import DataWriter
from dataengine.sinks.parts import Part, runs_of_one_file, stamp_keys_of
from dataengine.sinks.shard_links import place_videos
from dataengine.sinks.staged_columns import Columns
from dataengine.sinks.staging import StagedEpisode, StagedVideo
from dataengine.sinks.totals import Totals
from dataengine.sinks.video_encoding import VideoEncoding
from dataengine.sinks.video_shards import FILES_PER_CHUNK, Place, chunk_and_file
from dataengine.stats import Stats, column_stats
from schemas.episodes import StreamSkew
from schemas.records import canonical_json, sha256_of
from schemas.rigs import Rig

LAYOUT = 2  # version of what we add to LeRobot's format; 2 added contents, hashes and the start of trimmed episodes
IMAGES = "observation.images."
META_COLUMNS = ("episode_id", "raw_name", "task", "operator", "session", "station", "scene", "outcome", "licence")
STATISTICS = "statistics.json"  # feature -> "exact", or "sampled" and of how many pictures
SYNC = "sync.parquet"  # how each stream of each episode fitted its rows, where the source aligned several
_META_BATCH = 500  # episodes per row group of meta/episodes: their statistics are some 30 kB each as Python numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """What a commit made."""

    fingerprint: str
    num_frames: int


def fingerprint(episodes: Sequence[StagedEpisode | Part], rig: Rig, encoding: VideoEncoding) -> str:
    """Identity of the dataset's logical content.

    Covers what the source holds (column bytes, packet hashes of copied video, JPEG or pixel hashes of what is encoded),
    the encoding asked for where one was used, rig and order. Encoder output is not hashed: it may change with the
    encoder's version, the content does not. Where an episode lay before does not matter.
    """
    parts = [Part.of(episode, rig.rate_hz) for episode in episodes]
    cameras = [camera for part in parts for camera in part.staged.cameras.values()]
    encoded = any(camera.video and not camera.video.copied for camera in cameras)
    return sha256_of(
        {
            "layout": LAYOUT,
            "rig": rig.model_dump(mode="json"),
            "encoding": encoding.to_json() if encoded else None,
            "episodes": [part.content() for part in parts],
        }
    )


def commit(
    root: Path,
    episodes: Sequence[StagedEpisode | Part],
    rig: Rig,
    encoding: VideoEncoding,
    *,
    data_bytes: int = parquet_shards.SHARD_BYTES,
    video_bytes: int = video_shards.SHARD_BYTES,
) -> Committed:
    """Write the dataset under `root` from staged and kept episodes; what a killed commit left is written anew.

    A new data or video file is opened where the next episode would pass `data_bytes` or `video_bytes`.
    """
    for name in ("data", "meta", "videos"):
        shutil.rmtree(root / name, ignore_errors=True)
    parts = [Part.of(episode, rig.rate_hz) for episode in episodes]
    tasks = {task: index for index, task in enumerate(dict.fromkeys(part.staged.meta["task"] for part in parts))}
    places = {
        key: place_videos(root, IMAGES + key, key, parts, rate_hz=rig.rate_hz, shard_bytes=video_bytes)
        for key in parts[0].staged.cameras
    }
    meta = root / "meta"
    (meta / "episodes" / "chunk-000").mkdir(parents=True)
    with DataWriter(root, shard_bytes=data_bytes) as writer:
        firsts = np.cumsum([0, *(part.staged.num_frames for part in parts)]).tolist()
        stamps = stamp_keys_of(parts)
        table = _Table(parts=parts, rig=rig, tasks=tasks, places=places, firsts=firsts, stamps=stamps)
        # one file: 10,000 episodes are about 10 MB
        stats = table.write(writer, meta / "episodes" / "chunk-000" / "file-000.parquet")
    for key in places:
        videos = [_video(part, key) for part in parts]
        stats[IMAGES + key] = video_stats(videos)
    counted = dict.fromkeys(stats, "exact") | {
        IMAGES + key: how_counted([_video(part, key) for part in parts]) for key in places
    }
    write_atomic(meta / STATISTICS, json.dumps(counted, indent=1).encode())
    _write_meta(meta, parts, rig, encoding, tasks, stats)
    num_frames = sum(part.staged.num_frames for part in parts)
    return Committed(fingerprint=fingerprint(parts, rig, encoding), num_frames=num_frames)


def _video(part: Part, key: str) -> StagedVideo:
    video = part.staged.cameras[key].video
    assert video is not None
    return video


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """The rows of a dataset while they are written: data parquet and meta/episodes in one pass."""

    parts: Sequence[Part]
    rig: Rig
    tasks: dict[str, int]
    places: dict[str, list[Place]]
    firsts: list[int]  # rows before each part
    stamps: tuple[str, ...]

    def write(self, writer: DataWriter, path: Path) -> dict[str, Stats]:
        """Write both; returns the statistics of every column over all rows, which may take further passes over them."""
        schema: pa.Schema | None = None
        sink: pq.ParquetWriter | None = None
        totals = Totals()
        batch: list[dict[str, Any]] = []
        try:
            for number, (row, columns, stats) in enumerate(self._rows(writer), 1):
                batch.append(row)
                totals.add(columns, stats)
                if len(batch) == _META_BATCH or number == len(self.parts):
                    table = pa.Table.from_pylist(batch, schema=schema)
                    if sink is None:
                        schema = table.schema
                        sink = pq.ParquetWriter(path, schema)
                    sink.write_table(table)
                    batch = []
        finally:
            if sink is not None:
                sink.close()
        while totals.next_pass():
            for number in range(len(self.parts)):
                totals.add(self._columns(number)[0], {})
        lengths = [part.staged.num_frames for part in self.parts]
        return totals.stats() | auto_totals(lengths, [self._task(part) for part in self.parts], self.rig.rate_hz)

    def _rows(self, writer: DataWriter) -> Iterator[tuple[dict[str, Any], Columns, dict[str, Stats]]]:
        """Write the data of every episode; gives its row of meta/episodes, its own columns and their statistics."""
        for run in runs_of_one_file(self.parts):
            link = None
            if all(self._stays(number) for number in run) and _is_whole(self.parts, run):
                rows = self.parts[run[0]].rows
                assert rows is not None
                link = writer.link(rows.path)
            for number in run:
                columns, known = self._columns(number)
                stats = {key: known.get(key) or column_stats(column) for key, column in columns.items()}
                auto = AutoColumns(
                    num_frames=self.parts[number].staged.num_frames,
                    rate_hz=self.rig.rate_hz,
                    episode_index=number,
                    first_index=self.firsts[number],
                    task_index=self._task(self.parts[number]),
                )
                place = link or writer.add(columns | auto.values())
                yield self._row(number, place, stats | auto.stats()), columns, stats

    def _columns(self, number: int) -> tuple[Columns, dict[str, Stats]]:
        """Columns of one episode as they stand in data parquet, and those statistics that are known."""
        found, stats = self.parts[number].rows_and_stats(self.stamps)
        return {key: found[key] for key in (*self.parts[0].staged.columns, *self.stamps)}, stats

    def _task(self, part: Part) -> int:
        return self.tasks[part.staged.meta["task"]]

    def _stays(self, number: int) -> bool:
        """True where the rows of a part lie in its data file just as the new dataset wants them."""
        part = self.parts[number]
        rows, keys = part.rows, (*self.parts[0].staged.columns, *self.stamps)
        return (
            rows is not None
            and rows.whole
            and rows.names == tuple((key, key) for key in keys)
            and rows.place == (number, self.firsts[number], self._task(part))
        )

    def _row(self, number: int, place: tuple[int, int], stats: dict[str, Stats]) -> dict[str, Any]:
        part, first = self.parts[number], self.firsts[number]
        staged, hashes = part.staged, part.hashes()
        row: dict[str, Any] = {
            "episode_index": number,
            "tasks": [staged.meta["task"]],
            "length": staged.num_frames,
            "data/chunk_index": place[0],
            "data/file_index": place[1],
            "dataset_from_index": first,
            "dataset_to_index": first + staged.num_frames,
            "meta/episodes/chunk_index": 0,
            "meta/episodes/file_index": 0,
            **{key: staged.meta[key] for key in META_COLUMNS},
            "start_ns": part.start_ns(self.rig.rate_hz),
            "source_frames": part.origin.source_frames,
            "clock_hash": hashes.clock,
            "columns_hash": hashes.columns,
            "pixels_hash": canonical_json(hashes.pixels),
        }
        for key, found in stats.items():
            row |= _stat_columns(key, found)
        for key, places in self.places.items():
            video = _video(part, key)
            row |= _video_columns(IMAGES + key, places[number], staged.num_frames, self.rig.rate_hz)
            row |= _stat_columns(IMAGES + key, video_stats([video]))
        return row


def _is_whole(parts: Sequence[Part], run: Sequence[int]) -> bool:
    """True where a run of parts is all there is in their data file, in its order."""
    rows = [parts[number].rows for number in run]
    return all(row is not None and (row.group, row.groups) == (place, len(run)) for place, row in enumerate(rows))


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
    meta: Path,
    parts: Sequence[Part],
    rig: Rig,
    encoding: VideoEncoding,
    tasks: dict[str, int],
    stats: dict[str, Stats],
) -> None:
    _write_tasks(meta / "tasks.parquet", tasks)
    listed = {key: {name: value.tolist() for name, value in row.items()} for key, row in stats.items()}
    write_atomic(meta / "stats.json", json.dumps(listed, indent=4).encode())
    write_atomic(meta / "rig.json", rig.model_dump_json(indent=1).encode())
    info = _info(parts, rig, encoding, len(tasks))
    write_atomic(meta / "info.json", json.dumps(info, indent=4, ensure_ascii=False).encode())
    write_contents(meta / CONTENTS, parts)
    imported = [
        {"episode_id": part.staged.episode_id, "key": key, "texts": list(texts)}
        for part in parts
        for key, texts in part.staged.imported.items()
    ]
    skew = [
        {"episode_id": part.staged.episode_id, "stream": stream, **asdict(row)}
        for part in parts
        for stream, row in part.staged.skew.items()
    ]
    if skew:
        pq.write_table(pa.Table.from_pylist(skew), meta / SYNC)
    if imported:  # annotations found in the raw data: kept for `annotate`, no feature of the dataset
        pq.write_table(pa.Table.from_pylist(imported), meta / "imported.parquet")


def skew_of(root: Path) -> dict[str, StreamSkew]:
    """How each stream of a dataset fitted its rows: counts of all episodes together, ages of the worst one."""
    path = root / "meta" / SYNC
    if not path.is_file():
        return {}
    found: dict[str, list[dict[str, Any]]] = {}
    for row in pq.read_table(path).to_pylist():
        found.setdefault(row["stream"], []).append(row)
    return {
        stream: StreamSkew(
            **{key: sum(row[key] for row in rows) for key in ("num_messages", "num_dropped", "num_repeated")},
            **{key: max(row[key] for row in rows) for key in ("p50_s", "p95_s", "max_s")},
        )
        for stream, rows in found.items()
    }


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
    parts: Sequence[Part],
    rig: Rig,
    encoding: VideoEncoding,
    num_tasks: int,
) -> dict[str, Any]:
    return {
        "codebase_version": "v3.0",
        "robot_type": rig.robot_type,
        "total_episodes": len(parts),
        "total_frames": sum(part.staged.num_frames for part in parts),
        "total_tasks": num_tasks,
        "chunks_size": FILES_PER_CHUNK,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": rig.rate_hz,
        "splits": {"train": f"0:{len(parts)}"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
        if parts[0].staged.cameras
        else None,
        "features": _features(parts[0].staged, stamp_keys_of(parts), rig, encoding),
    }


def _features(first: StagedEpisode, stamps: Sequence[str], rig: Rig, encoding: VideoEncoding) -> dict[str, Any]:
    features: dict[str, Any] = {}
    for key, (dtype, dims) in (first.column_types | dict.fromkeys(stamps, ("int64", 1)) | AUTO_TYPES).items():
        names = list(rig.features[key].names) if key in rig.features else []
        if len(names) != dims:
            names = [f"{key.rsplit('.', 1)[-1]}_{dim}" for dim in range(dims)] if dims > 1 else []
        features[key] = {"dtype": dtype, "shape": [dims], "names": names or None}
    for key, camera in first.cameras.items():
        features[IMAGES + key] = video_feature(camera, rig.rate_hz, encoding)
    return features


AUTO_TYPES = {
    "timestamp": ("float32", 1),
    "frame_index": ("int64", 1),
    "episode_index": ("int64", 1),
    "index": ("int64", 1),
    "task_index": ("int64", 1),
}
