"""Reads converted episodes: rows, columns and upright RGB pictures by episode id.

Pictures come from the frame store of the same ref where there is one (one pread, one JPEG decode), else from the mp4
shards. No torch, no lerobot; an EpisodeSet is picklable and opens files when first asked, once per process.
"""

import json
import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dataengine.frame_store import FrameStore
from dataengine.sinks.auto_columns import AUTO_COLUMNS
from dataengine.sinks.kept import CONTENTS, written_states
from dataengine.sinks.language_columns import LANGUAGE
from dataengine.sinks.lerobot_v3 import IMAGES, META_COLUMNS, SYNC
from dataengine.sinks.staging import NO_STAMP
from dataengine.video_reader import VideoReader, packet_hashes
from dataengine.workspace import Workspace
from schemas.content_hashes import ContentHashes
from schemas.episodes import StreamSkew
from schemas.errors import ArtifactError, RefError, did_you_mean
from schemas.records import Record
from schemas.refs import Ref
from schemas.rigs import Rig
from schemas.spans import frame_ns, frame_of_ns, frame_stamps_ns

_CACHED_BYTES = 1 << 30  # low-dimensional columns kept in memory per process
_OPEN_VIDEOS = 8
_STAMPS = "stamp_ns."

Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeRow:
    """One episode of a set."""

    episode_id: str
    index: int
    num_frames: int
    task: str
    metadata: dict[str, str]  # raw_name, operator, session, station, scene, outcome, licence
    first_index: int  # row of its first frame in the whole set
    start_ns: int = 0  # source time of its first frame: more than 0 where a trim cut its head off
    start_frame: int = 0  # frames of the recording before it
    source_frames: int = 0  # frames of the untrimmed episode
    hashes: ContentHashes | None = None  # what annotations depend on; None in datasets of an older version


@dataclass(frozen=True, slots=True, kw_only=True)
class _VideoPlace:
    path: Path
    first: int  # pictures before the episode in the shard
    start_s: float
    end_s: float


class EpisodeSet:
    """An episodes artifact, and its frames artifact where there is one."""

    def __init__(self, path: Path, frames_path: Path | None, record: Record) -> None:
        self.path = path
        self.record = record
        self.ref = Ref(record.name, record.version)
        self.fingerprint = record.fingerprint
        self.rig = Rig.model_validate_json((path / "meta" / "rig.json").read_bytes())
        self.info: dict[str, Any] = json.loads((path / "meta" / "info.json").read_bytes())
        self.rate_hz = int(self.info["fps"])
        videos = {key: row for key, row in self.info["features"].items() if row["dtype"] == "video"}
        is_depth = {key.removeprefix(IMAGES): _is_depth(row) for key, row in videos.items()}
        self.cameras: tuple[str, ...] = tuple(key for key, deep in is_depth.items() if not deep)  # in colour
        self.depth_cameras: tuple[str, ...] = tuple(key for key, deep in is_depth.items() if deep)
        self._store = FrameStore.open(frames_path) if frames_path else None
        self._load_rows()
        if self._store:
            self._check_store(self._store)
        self._open_nothing()

    @classmethod
    def open(cls, workspace: Workspace, ref: Ref) -> "EpisodeSet":
        """Open `ref`. Raises RefError when there is no such episodes artifact."""
        path = workspace.find("episodes", ref)
        frames = workspace.path("frames", ref)
        has_frames = (frames / "record.json").is_file()
        return cls(path, frames if has_frames else None, workspace.record("episodes", ref))

    def _load_rows(self) -> None:
        files = sorted((self.path / "meta" / "episodes").glob("*/*.parquet"))
        wanted = [name for name in pq.read_schema(files[0]).names if not name.startswith("stats/")]
        raw = [row for file in files for row in pq.read_table(file, columns=wanted).to_pylist()]
        self._rows: dict[str, EpisodeRow] = {}
        self._places: dict[tuple[str, str], _VideoPlace] = {}
        self._groups: dict[str, tuple[Path, int]] = {}
        groups: dict[Path, int] = {}
        for row in raw:
            name = row["episode_id"]
            self._rows[name] = EpisodeRow(
                episode_id=name,
                index=row["episode_index"],
                num_frames=row["length"],
                task=row["task"],
                metadata={key: row[key] for key in META_COLUMNS if key not in ("episode_id", "task")},
                first_index=row["dataset_from_index"],
                start_ns=row.get("start_ns", 0),
                start_frame=frame_of_ns(row.get("start_ns", 0), self.rate_hz),
                source_frames=row.get("source_frames", row["length"]),
                hashes=_hashes(row),
            )
            data = self.path / self.info["data_path"].format(
                chunk_index=row["data/chunk_index"], file_index=row["data/file_index"]
            )
            self._groups[name] = (data, groups.setdefault(data, 0))
            groups[data] += 1
            for camera in (*self.cameras, *self.depth_cameras):
                self._places[name, camera] = self._place(row, IMAGES + camera)

    def _check_store(self, store: FrameStore) -> None:
        """Raise ArtifactError where the frame store holds something else: its rows are read by their numbers here."""
        difference = "different episodes" if store.episode_ids != self.ids() else None
        rows = list(self._rows.values())
        for row, end in zip(rows, store.episode_ends, strict=False):
            if end != row.first_index + row.num_frames:
                difference = difference or f"different rows of {row.episode_id}"
        for row, (start_frame, hashes) in zip(rows, written_states(store.path / CONTENTS), strict=False):
            changed = row.hashes and row.hashes.difference(hashes, cameras=None)
            if start_frame != row.start_frame or changed:
                difference = difference or f"different readings of {row.episode_id}, {changed or 'cut at other rows'}"
        if difference:
            raise ArtifactError(f"frames '{self.ref}' and episodes '{self.ref}' hold {difference}. Convert again.")

    def _place(self, row: dict[str, Any], key: str) -> _VideoPlace:
        start = row[f"videos/{key}/from_timestamp"]
        relative = self.info["video_path"].format(
            video_key=key, chunk_index=row[f"videos/{key}/chunk_index"], file_index=row[f"videos/{key}/file_index"]
        )
        return _VideoPlace(
            path=self.path / relative,
            first=round(start * self.rate_hz),
            start_s=start,
            end_s=row[f"videos/{key}/to_timestamp"],
        )

    def _open_nothing(self) -> None:
        self._process = os.getpid()
        self._columns: OrderedDict[str, Columns] = OrderedDict()
        self._cached_bytes = 0
        self._videos: OrderedDict[Path, VideoReader] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        hidden = ("_process", "_columns", "_cached_bytes", "_videos")
        return {key: value for key, value in self.__dict__.items() if key not in hidden}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open_nothing()

    @property
    def has_frame_store(self) -> bool:
        """True where pictures come from the frame store."""
        return self._store is not None

    def ids(self) -> tuple[str, ...]:
        """Episode ids in dataset order."""
        return tuple(self._rows)

    def row(self, episode_id: str) -> EpisodeRow:
        """One episode's row. Raises RefError for an unknown id."""
        row = self._rows.get(episode_id)
        if row is None:
            raise RefError(
                f"no episode '{episode_id}' in episodes '{self.ref}'. {did_you_mean(episode_id, self._rows)}"
            )
        return row

    def columns(self, episode_id: str) -> Columns:
        """Features of one episode, (rows, dims) each; read-only, kept in memory up to 1 GiB."""
        return {key: value for key, value in self._all_columns(episode_id).items() if not key.startswith(_STAMPS)}

    def recorded_stamps_ns(self, episode_id: str) -> dict[str, NDArray[np.int64]]:
        """Original stamps by stream, (rows,) each; without streams that recorded none in this episode."""
        columns = self._all_columns(episode_id)
        stamps = {key.removeprefix(_STAMPS): value[:, 0] for key, value in columns.items() if key.startswith(_STAMPS)}
        return {key: value for key, value in stamps.items() if value[0] != NO_STAMP}

    def imported(self, episode_id: str) -> dict[str, tuple[str, ...]]:
        """Annotations found in the raw data, by raw key (`reasoning`, `substep_reasonings`, ...)."""
        self.row(episode_id)
        path = self.path / "meta" / "imported.parquet"
        if not path.is_file():
            return {}
        rows = pq.read_table(path, filters=[("episode_id", "=", episode_id)]).to_pylist()
        return {row["key"]: tuple(row["texts"]) for row in rows}

    def _all_columns(self, episode_id: str) -> Columns:
        self.row(episode_id)
        cached = self._columns.get(episode_id)
        if cached is not None:
            self._columns.move_to_end(episode_id)
            return cached
        path, group = self._groups[episode_id]
        with pq.ParquetFile(path, memory_map=True) as file:
            wanted = [key for key in file.schema_arrow.names if key not in (*AUTO_COLUMNS, *LANGUAGE)]
            table = file.read_row_group(group, columns=wanted)
        columns: Columns = {}
        for key in wanted:
            column = table.column(key).combine_chunks()
            flat = column.flatten() if hasattr(column, "flatten") and hasattr(column.type, "list_size") else column
            values = flat.to_numpy(zero_copy_only=False).reshape(len(column), -1).copy()
            values.flags.writeable = False
            columns[key] = values
        self._columns[episode_id] = columns
        self._cached_bytes += sum(value.nbytes for value in columns.values())
        while self._cached_bytes > _CACHED_BYTES and len(self._columns) > 1:
            _, dropped = self._columns.popitem(last=False)
            self._cached_bytes -= sum(value.nbytes for value in dropped.values())
        return columns

    def stamps_ns(self, episode_id: str) -> NDArray[np.int64]:
        """Source time of each row in nanoseconds: 0 where the recording begins, also when its head was trimmed off."""
        row = self.row(episode_id)
        return frame_stamps_ns(row.start_frame + row.num_frames, self.rate_hz)[row.start_frame :]

    def end_ns(self, episode_id: str) -> int:
        """Source time at which an episode ends."""
        row = self.row(episode_id)
        return frame_ns(row.start_frame + row.num_frames, self.rate_hz)

    def skew(self, episode_id: str) -> dict[str, StreamSkew]:
        """How each stream fitted the rows, where the source aligned several; read from `meta/sync.parquet`."""
        self.row(episode_id)
        path = self.path / "meta" / SYNC
        if not path.is_file():
            return {}
        rows = pq.read_table(path, filters=[("episode_id", "=", episode_id)]).drop(["episode_id"]).to_pylist()
        return {row.pop("stream"): StreamSkew(**row) for row in rows}

    def frame(self, episode_id: str, camera: str, index: int) -> NDArray[np.uint8]:
        """One picture, upright RGB (height, width, 3)."""
        row = self.row(episode_id)
        if not 0 <= index < row.num_frames:
            raise IndexError(f"frame {index} of {row.num_frames} in episode '{episode_id}'")
        if self._store is not None:
            return self._store.frame(self._checked(camera), row.first_index + index)
        return self._from_video(episode_id, camera, index)

    def stored_reading(self, camera: str) -> tuple[str, str] | None:
        """(channel order, orientation) of a camera's stored JPEGs; None where there is no frame store."""
        array = self._store.cameras[self._checked(camera)] if self._store is not None else None
        return None if array is None else (array.channel_order, array.orientation)

    def jpeg(self, episode_id: str, camera: str, index: int) -> bytes:
        """The stored JPEG of one picture, which `stored_reading` says how to read. Needs a frame store."""
        row = self.row(episode_id)
        if not 0 <= index < row.num_frames:
            raise IndexError(f"frame {index} of {row.num_frames} in episode '{episode_id}'")
        if self._store is None:
            raise RefError(f"episodes '{self.ref}' have no frame store. Convert with --sink both.")
        return self._store.jpeg(self._checked(camera), row.first_index + index)

    def depth(self, episode_id: str, camera: str, index: int) -> NDArray[np.float32]:
        """One depth picture in metres, upright (height, width).

        From the frame store every value as it was recorded, 0 where nothing was measured; from the mp4 to within one
        step of its 12-bit codes, 0.01 where nothing was measured.
        """
        row = self.row(episode_id)
        if camera not in self.depth_cameras:
            raise RefError(
                f"no depth camera '{camera}' in episodes '{self.ref}'. {did_you_mean(camera, self.depth_cameras)}"
            )
        if not 0 <= index < row.num_frames:
            raise IndexError(f"frame {index} of {row.num_frames} in episode '{episode_id}'")
        if self._store is not None:
            unit_m = self._store.depth_cameras[camera].depth_unit_m or 1.0
            return np.asarray(self._store.depth(camera, row.first_index + index) * np.float32(unit_m), dtype=np.float32)
        place = self._places[episode_id, camera]
        return self._video(place.path).depth_m(place.first + index)

    def frames(self, episode_id: str, camera: str, indices: Sequence[int]) -> NDArray[np.uint8]:
        """Several pictures, (N, height, width, 3)."""
        return np.stack([self.frame(episode_id, camera, index) for index in indices])

    def video_frame(self, episode_id: str, camera: str, index: int) -> NDArray[np.uint8]:
        """One picture of the mp4, also where there is a frame store."""
        self.row(episode_id)
        return self._from_video(episode_id, camera, index)

    def video_packets(self, episode_id: str, camera: str) -> list[str]:
        """sha256 of each video packet of one episode, in presentation order."""
        row, place = self.row(episode_id), self._video_place(episode_id, camera)
        return packet_hashes(place.path, rate_hz=self.rate_hz, first=place.first, num=row.num_frames)

    def video_clip(self, episode_id: str, camera: str) -> tuple[Path, float, float]:
        """The mp4 shard an episode lies in, and its start and end in it, in seconds."""
        self.row(episode_id)
        place = self._video_place(episode_id, camera)
        return place.path, place.start_s, place.end_s

    def _checked(self, camera: str) -> str:
        if camera not in self.cameras:
            raise RefError(f"no camera '{camera}' in episodes '{self.ref}'. {did_you_mean(camera, self.cameras)}")
        return camera

    def _video_place(self, episode_id: str, camera: str) -> _VideoPlace:
        return self._places[episode_id, camera if camera in self.depth_cameras else self._checked(camera)]

    def _from_video(self, episode_id: str, camera: str, index: int) -> NDArray[np.uint8]:
        place = self._places[episode_id, self._checked(camera)]
        return self._video(place.path).frame(place.first + index)

    def _video(self, path: Path) -> VideoReader:
        if os.getpid() != self._process:  # a decoder does not survive a fork
            self._open_nothing()
        reader = self._videos.get(path)
        if reader is None:
            reader = self._videos[path] = VideoReader(path, rate_hz=self.rate_hz)
            if len(self._videos) > _OPEN_VIDEOS:
                self._videos.popitem(last=False)[1].close()
        self._videos.move_to_end(path)
        return reader

    def close(self) -> None:
        """Close what is open; asked again, the set opens it again."""
        for reader in self._videos.values():
            reader.close()
        self._videos.clear()
        if self._store is not None:
            self._store.close()


def _is_depth(feature: dict[str, Any]) -> bool:
    return bool((feature.get("info") or {}).get("is_depth_map", False))


def _hashes(row: dict[str, Any]) -> ContentHashes | None:
    if "clock_hash" not in row:
        return None
    return ContentHashes(clock=row["clock_hash"], pixels=json.loads(row["pixels_hash"]), columns=row["columns_hash"])
