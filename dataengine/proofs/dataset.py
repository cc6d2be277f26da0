"""An episodes artifact beside itself: rows, indices, stamps, offsets, counts, tasks and statistics agree.

Read with pyarrow alone, file after file and batch after batch, so that a dataset of any size fits into memory.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dataengine.proofs.column_stats import StatsCheck
from dataengine.proofs.findings import Finding

_BATCH_ROWS = 65_536
_IMAGES = "observation.images."
_AUTO = ("index", "frame_index", "episode_index", "task_index", "timestamp")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Meta:
    """What meta/ says."""

    root: Path
    info: dict[str, Any]
    stats: dict[str, Any]
    episodes: list[dict[str, Any]]
    tasks: dict[str, int]

    @classmethod
    def read(cls, root: Path) -> "_Meta":
        files = sorted((root / "meta" / "episodes").glob("*/*.parquet"))
        wanted = [name for name in pq.read_schema(files[0]).names if not name.startswith("stats/")]
        rows = [row for file in files for row in pq.read_table(file, columns=wanted).to_pylist()]
        tasks = pq.read_table(root / "meta" / "tasks.parquet").to_pylist()
        stats = root / "meta" / "stats.json"
        return cls(
            root=root,
            info=json.loads((root / "meta" / "info.json").read_bytes()),
            stats=json.loads(stats.read_bytes()) if stats.is_file() else {},
            episodes=rows,
            tasks={row.get("task", row.get("__index_level_0__")): row["task_index"] for row in tasks},
        )

    @property
    def fps(self) -> int:
        return int(self.info["fps"])


def dataset_findings(root: Path) -> Iterator[Finding]:
    """All that can be said about a dataset without its source."""
    meta = _Meta.read(root)
    yield _counts(meta)
    yield _order(meta)
    yield from _rows(meta)
    for key, feature in meta.info["features"].items():
        if feature["dtype"] == "video":
            yield _offsets(meta, key)


def _finding(check: str, faults: list[str], stream: str = "all") -> Finding:
    return Finding(check=check, stream=stream, ok=not faults, detail=faults[0] if faults else "")


def _counts(meta: _Meta) -> Finding:
    """info.json counts what is there."""
    found = {
        "total_episodes": len(meta.episodes),
        "total_frames": sum(row["length"] for row in meta.episodes),
        "total_tasks": len(meta.tasks),
    }
    faults = [f"{key} says {meta.info[key]}, found {num}" for key, num in found.items() if meta.info[key] != num]
    return _finding("meta/info.json counts what is there", faults)


def _order(meta: _Meta) -> Finding:
    """Episodes are numbered without gaps, and so are their rows; every task is listed."""
    faults: list[str] = []
    first = 0
    for number, row in enumerate(meta.episodes):
        if row["episode_index"] != number:
            faults.append(f"episode {number} is numbered {row['episode_index']}")
        span = (row["dataset_from_index"], row["dataset_to_index"])
        if span != (first, first + row["length"]):
            faults.append(f"episode {number} of {row['length']} rows lies at {span}, expected to begin at {first}")
        if any(task not in meta.tasks for task in row["tasks"]):
            faults.append(f"episode {number} has a task that meta/tasks.parquet does not list")
        first += row["length"]
    if sorted(meta.tasks.values()) != list(range(len(meta.tasks))):
        faults.append("meta/tasks.parquet does not number its tasks from 0")
    return _finding("episodes are numbered without gaps", faults)


def _rows(meta: _Meta) -> Iterator[Finding]:
    """Walk the data files once: the five columns of every row, and statistics of the others."""
    checks = {
        key: StatsCheck.of(key, meta.stats[key])
        for key, feature in meta.info["features"].items()
        if feature["dtype"] not in ("video", "image", "string") and key in meta.stats
    }
    walk = _Walk(meta=meta)
    for path in _data_files(meta):
        try:
            file = pq.ParquetFile(path)
        except (FileNotFoundError, pa.ArrowException):
            walk.fault("rows", f"{path.relative_to(meta.root).as_posix()} is absent or no parquet")
            continue
        with file:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                walk.see(batch)
                for key, check in checks.items():
                    if key in batch.schema.names:
                        check.add(_matrix(batch.column(key)))
    total = sum(row["length"] for row in meta.episodes)
    if walk.seen != total:
        walk.fault("rows", f"data files hold {walk.seen} rows, meta/episodes {total}")
    yield _finding("data rows are those of meta/episodes", walk.faults["rows"])
    yield _finding("indices are contiguous", walk.faults["indices"])
    yield _finding("timestamp == frame_index / fps", walk.faults["timestamp"])
    yield _finding("task_index is the episode's task", walk.faults["task"])
    for key, check in checks.items():
        yield _finding("statistics are those of the rows", check.faults(), key)
    absent = [
        key
        for key, feature in meta.info["features"].items()
        if key not in meta.stats and key not in _AUTO and feature["dtype"] != "language"
    ]
    yield _finding("every feature has statistics", [f"{key} has none" for key in absent])


def _data_files(meta: _Meta) -> list[Path]:
    places = dict.fromkeys((row["data/chunk_index"], row["data/file_index"]) for row in meta.episodes)
    return [meta.root / meta.info["data_path"].format(chunk_index=chunk, file_index=file) for chunk, file in places]


@dataclass(slots=True, kw_only=True)
class _Walk:
    """Where the walk through the rows is, and what was wrong on the way (the first few of each)."""

    meta: _Meta
    seen: int = 0
    faults: dict[str, list[str]] = field(
        default_factory=lambda: {"rows": [], "indices": [], "timestamp": [], "task": []}
    )
    _starts: NDArray[np.int64] = field(init=False)
    _tasks: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        lengths = [row["length"] for row in self.meta.episodes]
        self._starts = np.cumsum([0, *lengths], dtype=np.int64)
        self._tasks = np.asarray([self.meta.tasks.get(row["tasks"][0], -1) for row in self.meta.episodes])

    def fault(self, kind: str, words: str) -> None:
        """Note one; a broken file would give millions."""
        if len(self.faults[kind]) < 3:
            self.faults[kind].append(words)

    def see(self, batch: pa.RecordBatch) -> None:
        """Check the next rows."""
        absent = [key for key in _AUTO if key not in batch.schema.names]
        if absent:
            self.fault("rows", f"column {absent[0]} is absent")
            self.seen += len(batch)
            return
        rows = np.arange(self.seen, self.seen + len(batch))
        self.seen += len(batch)
        episodes = np.minimum(np.searchsorted(self._starts, rows, side="right") - 1, len(self._tasks) - 1)
        frames = rows - self._starts[episodes]
        got = {key: _matrix(batch.column(key))[:, 0] for key in _AUTO}
        for key, expected in (("index", rows), ("frame_index", frames), ("episode_index", episodes)):
            self._equal("indices", key, rows, got[key], expected)
        stamps = (frames / self.meta.fps).astype(got["timestamp"].dtype)
        self._equal("timestamp", "timestamp", rows, got["timestamp"], stamps)
        self._equal("task", "task_index", rows, got["task_index"], self._tasks[episodes])

    def _equal(self, kind: str, key: str, rows: NDArray[np.int64], got: NDArray[Any], expected: NDArray[Any]) -> None:
        odd = np.flatnonzero(got != expected)
        if len(odd):
            at = odd[0]
            self.fault(kind, f"row {rows[at]}: {key} is {got[at]}, expected {expected[at]}")


def _matrix(column: pa.Array) -> NDArray[Any]:
    """(rows, dims) of plain values, or of lists of one length."""
    if pa.types.is_fixed_size_list(column.type) or pa.types.is_list(column.type):
        return np.asarray(column.flatten().to_numpy(zero_copy_only=False)).reshape(len(column), -1)
    return np.asarray(column.to_numpy(zero_copy_only=False)).reshape(len(column), -1)


def _offsets(meta: _Meta, key: str) -> Finding:
    """Each episode has its own stretch of a video file, on whole pictures, and the file is that long."""
    faults: list[str] = []
    ends: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for row in meta.episodes:
        start, stop = (row[f"videos/{key}/{end}_timestamp"] * meta.fps for end in ("from", "to"))
        if abs(start - round(start)) > 1e-3 or round(stop) - round(start) != row["length"]:
            faults.append(
                f"episode {row['episode_index']} of {row['length']} rows lies at pictures {start:g} to {stop:g}"
            )
        place = (row[f"videos/{key}/chunk_index"], row[f"videos/{key}/file_index"])
        ends.setdefault(place, []).append((round(start), round(stop)))
    for (chunk, file), spans in ends.items():
        spans.sort()
        if any(later[0] < earlier[1] for earlier, later in pairwise(spans)):
            faults.append(f"file {chunk}/{file} holds episodes that overlap")
        name = meta.info["video_path"].format(video_key=key, chunk_index=chunk, file_index=file)
        num, uneven = _packet_times(meta.root / name, meta.fps)
        if num < spans[-1][1]:
            faults.append(f"{name} holds {num} pictures, its episodes need {spans[-1][1]}")
        if uneven is not None:
            faults.append(f"{name}: picture {uneven} is not at its place / {meta.fps} s")
    return _finding("video offsets fit the packets", faults, key)


def _packet_times(path: Path, fps: int) -> tuple[int, int | None]:
    """Number of packets with data, and the first that does not lie at n / fps seconds."""
    import av

    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stamps = sorted(packet.pts for packet in container.demux(stream) if packet.size and packet.pts is not None)
            base = float(stream.time_base)
    except (FileNotFoundError, IndexError, av.error.FFmpegError):
        return 0, None
    at = np.asarray(stamps) * base * fps
    odd = np.flatnonzero(np.abs(at - np.arange(len(at))) > 0.01)
    return len(stamps), int(odd[0]) if len(odd) else None
