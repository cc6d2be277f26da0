"""The metadata of a LeRobot v2.0 or v2.1 dataset: which episodes there are, of what, and where their files lie."""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from dataengine.sources.lerobot_columns import column_notes, stored_numbers
from dataengine.sources.lerobot_info import (
    IMAGE_PREFIX,
    FeatureInfo,
    Info,
    Modality,
    filled,
    mended_template,
    read_info,
    read_modality,
)
from dataengine.sources.lerobot_rows import file_schema
from schemas.errors import SourceError

_EPISODE_FILE = re.compile(r"episode_(\d+)\.parquet")


@dataclass(frozen=True, slots=True, kw_only=True)
class LeRobotMeta:
    """meta/info.json, episodes.jsonl, tasks.jsonl and modality.json of one folder, and what its files say to that."""

    root: Path
    info: Info  # as declared; path templates point to the folders that are there
    modality: Modality
    lengths: dict[int, int]  # episode index -> rows
    unlisted: tuple[int, ...]  # episodes that have a parquet but no line in episodes.jsonl
    tasks: dict[int, str]
    episode_tasks: dict[int, tuple[str, ...]]  # instructions that episodes.jsonl names
    schema: pa.Schema | None  # of the first parquet that can be read
    notes: tuple[str, ...]  # where metadata and files differ, in words

    @classmethod
    def read(cls, root: Path) -> "LeRobotMeta":
        """Read the files. Raises SourceError for one that is missing or damaged."""
        said = read_info(root)
        info = said.model_copy(
            update={
                "data_path": mended_template(root, said.data_path),
                "video_path": mended_template(root, said.video_path) if said.video_path else None,
            }
        )
        episodes, tasks = _read_lines(root, "episodes.jsonl"), _read_lines(root, "tasks.jsonl")
        modality = read_modality(root)
        try:
            lengths = {int(row["episode_index"]): int(row["length"]) for row in episodes}
            episode_tasks = {
                int(row["episode_index"]): tuple(str(task) for task in row.get("tasks") or ()) for row in episodes
            }
            by_number = {int(row["task_index"]): str(row["task"]) for row in tasks}
        except (KeyError, TypeError, ValueError) as error:
            raise SourceError(f"meta/*.jsonl has a row without what it needs ({error}). Copy it again.") from None
        meta = cls(
            root=root,
            info=info,
            modality=modality,
            lengths=lengths,
            unlisted=tuple(sorted(_stored_episodes(root, info) - set(lengths))),
            tasks=by_number,
            episode_tasks=episode_tasks,
            schema=None,
            notes=(),
        )
        schema = meta._first_schema()
        notes = (*_folder_notes(said, info), *meta._count_notes(), *column_notes(info, schema, modality))
        return replace(meta, schema=schema, notes=notes)

    def names(self) -> list[str]:
        """`episode_000000` and so on, in order; those that only have a parquet too."""
        return [f"episode_{index:06d}" for index in sorted({*self.lengths, *self.unlisted})]

    def stored(self) -> dict[str, FeatureInfo]:
        """Columns of numbers that the parquet files hold."""
        return stored_numbers(self.info, self.schema, self.modality)

    def parquet_path(self, name: str) -> Path:
        """Where the parquet of one episode should be."""
        return self.root / self._path(self.info.data_path, episode_number(name), None)

    def video_path(self, index: int, camera_key: str) -> Path:
        """Where the mp4 of one episode and camera is, also in a folder of the camera's short name; or should be."""
        if self.info.video_path is None:
            raise SourceError("meta/info.json names cameras but no video_path. Add the template to info.json.")
        said = self.root / self._path(self.info.video_path, index, camera_key)
        if said.is_file():
            return said
        short = camera_key.removeprefix(IMAGE_PREFIX).removeprefix("observation.")
        for other in (short, f"{IMAGE_PREFIX}{short}", f"observation.{short}"):
            path = self.root / self._path(self.info.video_path, index, other)
            if path.is_file():
                return path
        return said

    def said_video_path(self, index: int, camera_key: str) -> Path:
        """Where the mp4 should be by meta/info.json."""
        return self.root / self._path(str(self.info.video_path), index, camera_key)

    def _path(self, template: str, index: int, camera_key: str | None) -> str:
        chunk = index // self.info.chunks_size
        words = {"episode_chunk": chunk, "chunk_index": chunk, "episode_index": index, "video_key": camera_key}
        return filled(template, words)

    def _first_schema(self) -> pa.Schema | None:
        for name in self.names():
            try:
                return file_schema(self.parquet_path(name))
            except (pa.ArrowException, OSError):
                continue  # `read` says what is wrong with it
        return None

    def _count_notes(self) -> list[str]:
        notes, info = [], self.info
        if info.total_episodes is not None and info.total_episodes != len(self.lengths):
            notes.append(
                f"meta/info.json says {info.total_episodes} episodes, meta/episodes.jsonl lists {len(self.lengths)}"
            )
        if info.total_frames is not None and info.total_frames != sum(self.lengths.values()):
            notes.append(
                f"meta/info.json says {info.total_frames} frames, meta/episodes.jsonl {sum(self.lengths.values())}"
            )
        if self.unlisted:
            notes.append(f"{len(self.unlisted)} parquet files are of episodes that meta/episodes.jsonl does not list")
        return notes


def _folder_notes(said: Info, used: Info) -> list[str]:
    pairs = [(said.data_path, used.data_path), (said.video_path or "", used.video_path or "")]
    return [
        f"meta/info.json says {before.split('/')[0]}/, which is not there: {after.split('/')[0]}/ is read"
        for before, after in pairs
        if before != after
    ]


def _stored_episodes(root: Path, info: Info) -> set[int]:
    folder = root / info.data_path.split("/")[0]
    found = (_EPISODE_FILE.fullmatch(path.name) for path in folder.glob("**/episode_*.parquet"))
    return {int(match[1]) for match in found if match}


def episode_number(name: str) -> int:
    """The index in a name that `names` gave."""
    return int(name.rsplit("_", 1)[1])


def _read_lines(root: Path, file: str) -> list[dict[str, Any]]:
    path = root / "meta" / file
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except FileNotFoundError:
        raise SourceError(f"meta/{file} is missing, so this is no LeRobot v2 dataset. Copy it again.") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise SourceError(f"meta/{file} holds a line that is not JSON. Copy it again.") from None
