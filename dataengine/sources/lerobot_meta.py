"""The metadata of a LeRobot v2.0 or v2.1 dataset: which episodes there are, of what, and where their files lie."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from schemas.errors import SourceError


class FeatureInfo(BaseModel):
    """One feature as info.json declares it."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    dtype: str
    shape: tuple[int, ...]
    names: Any = None

    def labels(self) -> tuple[str, ...]:
        """Names of the dimensions; the format's habits (nested lists, groups) undone. Empty where none fit."""
        flat = _flatten(self.names)
        return tuple(flat) if len(flat) == int(np.prod(self.shape)) else ()


class Info(BaseModel):
    """The parts of meta/info.json that reading needs."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    codebase_version: str
    robot_type: str | None = None
    fps: float
    chunks_size: int = 1000
    data_path: str
    video_path: str | None = None
    features: dict[str, FeatureInfo]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeRobotMeta:
    """meta/info.json, episodes.jsonl and tasks.jsonl of one folder."""

    root: Path
    info: Info
    lengths: dict[int, int]  # episode index -> rows
    tasks: dict[int, str]

    @classmethod
    def read(cls, root: Path) -> "LeRobotMeta":
        """Read the three files. Raises SourceError for one that is missing or damaged."""
        episodes, tasks = _read_lines(root, "episodes.jsonl"), _read_lines(root, "tasks.jsonl")
        try:
            return cls(
                root=root,
                info=read_info(root),
                lengths={int(row["episode_index"]): int(row["length"]) for row in episodes},
                tasks={int(row["task_index"]): str(row["task"]) for row in tasks},
            )
        except (KeyError, TypeError, ValueError) as error:
            raise SourceError(f"meta/*.jsonl has a row without what it needs ({error}). Copy it again.") from None

    def names(self) -> list[str]:
        """`episode_000000` and so on, in order."""
        return [f"episode_{index:06d}" for index in sorted(self.lengths)]

    def keys(self, dtype: str) -> list[str]:
        """Features of one dtype, e.g. "video"."""
        return [key for key, feature in self.info.features.items() if feature.dtype == dtype]

    @property
    def whole_rate_hz(self) -> int | None:
        """The rate, where it is a whole number of hertz."""
        fps = self.info.fps
        return int(fps) if fps == int(fps) and fps > 0 else None

    def parquet_path(self, name: str) -> Path:
        """Where the parquet of one episode should be."""
        return self.root / self._path(self.info.data_path, episode_number(name), None)

    def video_path(self, index: int, camera_key: str) -> Path:
        """Where the mp4 of one episode and camera should be."""
        if self.info.video_path is None:
            raise SourceError("meta/info.json names cameras but no video_path. Add the template to info.json.")
        return self.root / self._path(self.info.video_path, index, camera_key)

    def _path(self, template: str, index: int, camera_key: str | None) -> str:
        chunk = index // self.info.chunks_size
        words = {"episode_chunk": chunk, "chunk_index": chunk, "episode_index": index, "video_key": camera_key}
        try:
            return template.format(**words)
        except (KeyError, ValueError, IndexError) as error:
            raise SourceError(
                f"meta/info.json has a path template that cannot be filled: {template} ({error})."
            ) from None


def episode_number(name: str) -> int:
    """The index in a name that `names` gave."""
    return int(name.rsplit("_", 1)[1])


def read_info(root: Path) -> Info:
    """meta/info.json. Raises SourceError for one that is damaged."""
    try:
        return Info.model_validate(json.loads((root / "meta/info.json").read_text()))
    except json.JSONDecodeError as error:
        raise SourceError(f"meta/info.json is not JSON (line {error.lineno}). Copy it again.") from None
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise SourceError(f"meta/info.json: {where} is missing or wrong. Copy it again.") from None


def _flatten(names: Any) -> list[str]:  # noqa: ANN401 - whatever JSON the recorder wrote
    if isinstance(names, str):
        return [names]
    if isinstance(names, dict):
        return [label for value in names.values() for label in _flatten(value)]
    if isinstance(names, list):
        return [label for value in names for label in _flatten(value)]
    return []


def _read_lines(root: Path, file: str) -> list[dict[str, Any]]:
    path = root / "meta" / file
    try:
        return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    except FileNotFoundError:
        raise SourceError(f"meta/{file} is missing, so this is no LeRobot v2 dataset. Copy it again.") from None
    except json.JSONDecodeError:
        raise SourceError(f"meta/{file} holds a line that is not JSON. Copy it again.") from None
