"""The metadata of a LeRobot v3.0 dataset: where in its shared files the rows and pictures of each episode lie."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dataengine.sources.lerobot_columns import column_notes, stored_numbers
from dataengine.sources.lerobot_info import (
    FeatureInfo,
    Info,
    Modality,
    filled,
    mended_template,
    read_info,
    read_modality,
)
from dataengine.sources.lerobot_rows import column_of, file_schema, num_rows
from schemas.errors import SourceError

_NEEDED = ("episode_index", "length", "data/chunk_index", "data/file_index")


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoPlace:
    """Where meta/episodes says the pictures of one camera of an episode lie."""

    path: Path
    from_s: float
    to_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodePlace:
    """What meta/episodes says of one episode."""

    length: int
    data: Path
    first_index: int | None  # dataset_from_index
    tasks: tuple[str, ...]
    videos: Mapping[str, VideoPlace]  # camera key -> shard; without cameras of which nothing is said


@dataclass(frozen=True, slots=True, kw_only=True)
class LeRobotV30Meta:
    """meta/info.json, meta/episodes, tasks.parquet and subtasks.parquet of one folder, and what its files say to it."""

    root: Path
    info: Info
    modality: Modality
    episodes: dict[int, EpisodePlace]
    unlisted: dict[int, Path]  # episodes whose rows are in the data, but not in meta/episodes
    tasks: dict[int, str]
    subtasks: dict[int, str]
    schema: pa.Schema | None  # of the first data file that can be read
    notes: tuple[str, ...]

    @classmethod
    def read(cls, root: Path) -> "LeRobotV30Meta":
        """Read the files. Raises SourceError for one that is missing or damaged."""
        said = read_info(root)
        info = said.model_copy(
            update={
                "data_path": mended_template(root, said.data_path),
                "video_path": mended_template(root, said.video_path) if said.video_path else None,
            }
        )
        modality = read_modality(root)
        episodes = _episodes(root, info)
        schema = _first_schema(dict.fromkeys(place.data for place in episodes.values()))
        unlisted = _unlisted(root, info, episodes)
        return cls(
            root=root,
            info=info,
            modality=modality,
            episodes=episodes,
            unlisted=unlisted,
            tasks=_numbered(root / "meta/tasks.parquet", "task_index"),
            subtasks=_numbered(root / "meta/subtasks.parquet", "subtask_index"),
            schema=schema,
            notes=(*_count_notes(said, info, episodes, unlisted), *column_notes(info, schema, modality)),
        )

    def names(self) -> list[str]:
        """`episode_000000` and so on, in order; those that meta/episodes does not list too."""
        return [f"episode_{index:06d}" for index in sorted({*self.episodes, *self.unlisted})]

    def stored(self) -> dict[str, FeatureInfo]:
        """Columns of numbers that the data files hold; numbers that stand for subtasks are text."""
        found = stored_numbers(self.info, self.schema, self.modality)
        return {key: row for key, row in found.items() if not (key == "subtask_index" and self.subtasks)}

    def shards(self, key: str) -> list[Path]:
        """The video files of one camera that episodes lie in, in order."""
        return list(dict.fromkeys(row.videos[key].path for row in self.episodes.values() if key in row.videos))


def _episodes(root: Path, info: Info) -> dict[int, EpisodePlace]:
    files = sorted((root / "meta/episodes").glob("*/*.parquet"))
    if not files:
        raise SourceError("meta/episodes holds no parquet, so it is not said where the episodes lie. Copy it again.")
    found: dict[int, EpisodePlace] = {}
    for path in files:
        for row in _rows(path):
            index = int(row["episode_index"])
            if index in found:
                raise SourceError(f"meta/episodes lists episode {index} twice. Keep one row of it.")
            found[index] = _place(root, info, row)
    return found


def _rows(path: Path) -> Iterable[dict[str, Any]]:
    name = f"meta/episodes/{path.parent.name}/{path.name}"
    try:
        with pq.ParquetFile(path) as file:
            columns = [column for column in file.schema_arrow.names if not column.startswith("stats/")]
            lacking = [column for column in _NEEDED if column not in columns]
            if lacking:
                raise SourceError(f"{name} has no column {lacking[0]}. Repair it with LeRobot, or copy it again.")
            table = file.read(columns=columns)
    except (pa.ArrowException, OSError):
        raise SourceError(
            f"{name} is no readable parquet: a recording that was not finalized has no footer. "
            f"Copy it again, or record it again."
        ) from None
    empty = next((column for column in _NEEDED if table[column].null_count), None)
    if empty is not None:
        raise SourceError(f"{name} has an empty {empty}. Repair it with LeRobot, or copy it again.")
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def _place(root: Path, info: Info, row: Mapping[str, Any]) -> EpisodePlace:
    videos = {}
    for key in info.keys("video"):
        chunk, file = row.get(f"videos/{key}/chunk_index"), row.get(f"videos/{key}/file_index")
        start, end = row.get(f"videos/{key}/from_timestamp"), row.get(f"videos/{key}/to_timestamp")
        if info.video_path is None:
            raise SourceError("meta/info.json names cameras but no video_path. Add the template to info.json.")
        if chunk is None or file is None or start is None or end is None:
            continue
        words = {"video_key": key, "chunk_index": int(chunk), "file_index": int(file)}
        videos[key] = VideoPlace(path=root / filled(info.video_path, words), from_s=float(start), to_s=float(end))
    words = {"chunk_index": int(row["data/chunk_index"]), "file_index": int(row["data/file_index"])}
    first = row.get("dataset_from_index")
    return EpisodePlace(
        length=int(row["length"]),
        data=root / filled(info.data_path, words),
        first_index=None if first is None else int(first),
        tasks=tuple(str(task) for task in row.get("tasks") or ()),
        videos=videos,
    )


def _first_schema(paths: Iterable[Path]) -> pa.Schema | None:
    for path in paths:
        try:
            return file_schema(path)
        except (pa.ArrowException, OSError):
            continue  # `read` says what is wrong with it
    return None


def _unlisted(root: Path, info: Info, episodes: Mapping[int, EpisodePlace]) -> dict[int, Path]:
    """Episodes of which there are rows only. Footers tell whether there can be any; only then rows are looked at."""
    files = sorted((root / info.data_path.split("/")[0]).glob("**/*.parquet"))
    found: dict[int, Path] = {}
    try:
        if sum(num_rows(path) for path in files) == sum(place.length for place in episodes.values()):
            return {}
        for path in files:
            numbers = set(column_of(path, "episode_index").to_pylist())
            found |= dict.fromkeys(sorted(numbers - set(episodes)), path)
    except (pa.ArrowException, OSError, KeyError):
        return found  # a damaged file: `read` says so of each of its episodes
    return found


def _numbered(path: Path, column: str) -> dict[int, str]:
    """Texts by number; the text is the index of a pandas frame, whatever its name. Empty where there is no file."""
    if not path.is_file():
        return {}
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError):
        raise SourceError(f"meta/{path.name} is no readable parquet. Copy it again.") from None
    texts = [field.name for field in table.schema if pa.types.is_string(field.type) or _is_large(field.type)]
    if column not in table.column_names or not texts:
        raise SourceError(f"meta/{path.name} has no {column} and text beside it. Copy it again.")
    named = next((name for name in ("task", "subtask", "__index_level_0__") if name in texts), texts[0])
    pairs = zip(table[column].to_pylist(), table[named].to_pylist(), strict=True)
    return {int(number): str(text) for number, text in pairs}


def _is_large(kind: pa.DataType) -> bool:
    return bool(pa.types.is_large_string(kind))


def _count_notes(
    said: Info, used: Info, episodes: Mapping[int, EpisodePlace], unlisted: Mapping[int, Path]
) -> list[str]:
    notes = [
        f"meta/info.json says {before.split('/')[0]}/, which is not there: {after.split('/')[0]}/ is read"
        for before, after in ((said.data_path, used.data_path), (said.video_path or "", used.video_path or ""))
        if before != after
    ]
    num_frames = sum(place.length for place in episodes.values())
    if said.total_episodes is not None and said.total_episodes != len(episodes):
        notes.append(f"meta/info.json says {said.total_episodes} episodes, meta/episodes lists {len(episodes)}")
    if said.total_frames is not None and said.total_frames != num_frames:
        notes.append(f"meta/info.json says {said.total_frames} frames, meta/episodes {num_frames}")
    if unlisted:
        notes.append(f"rows of {len(unlisted)} episodes are in the data that meta/episodes does not list")
    return notes
