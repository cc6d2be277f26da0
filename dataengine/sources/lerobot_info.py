"""meta/info.json of LeRobot v2.x and v3.0, and GR00T's meta/modality.json beside it: what a dataset says of itself."""

import json
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from string import Formatter
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.errors import SourceError

IMAGE_PREFIX = "observation.images."
BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "index", "task_index")
PICTURES = ("video", "image")
_TEXTS = ("string", "language")
_CHANNELS = (1, 3, 4)
_FORM = re.compile(r"(0?\d{1,2}d?)?|d")  # of a number in a path template
_FROZEN = ConfigDict(frozen=True, extra="ignore")


class FeatureInfo(BaseModel):
    """One feature as info.json declares it."""

    model_config = _FROZEN
    dtype: str
    shape: tuple[int, ...] = ()
    names: Any = None
    info: dict[str, Any] | None = None
    video_info: dict[str, Any] | None = None  # what older writers call `info`

    def labels(self) -> tuple[str, ...]:
        """Names of the dimensions; the format's habits (nested lists, groups) undone. Empty where none fit."""
        flat = _flatten(self.names)
        return tuple(flat) if len(flat) == self.num_dims else ()

    @property
    def num_dims(self) -> int:
        """Numbers in one row."""
        return int(np.prod(self.shape))

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) of pictures, whether channels are declared last or first; None where it is no picture's."""
        if len(self.shape) == 2:
            return self.shape[0], self.shape[1]
        if len(self.shape) != 3:
            return None
        first = self.shape[0] in _CHANNELS and self.shape[2] not in _CHANNELS
        return (self.shape[1], self.shape[2]) if first else (self.shape[0], self.shape[1])

    @property
    def video(self) -> dict[str, Any]:
        """What is declared of the video, keys with or without the prefix `video.`."""
        return {key.removeprefix("video."): value for key, value in (self.info or self.video_info or {}).items()}

    @property
    def is_depth(self) -> bool:
        """Declared to hold depth itself: in three channels it is a picture of depth, whose colours nobody knows."""
        return bool(self.video.get("is_depth_map")) and 3 not in (self.shape[:1] + self.shape[-1:])

    @property
    def depth_unit_m(self) -> float | None:
        """Metres of one stored unit of a depth feature; None where the unit is not declared."""
        return {"mm": 0.001, "m": 1.0}.get(str(self.video.get("depth_unit"))) if self.is_depth else None


class Info(BaseModel):
    """The parts of meta/info.json that reading needs."""

    model_config = _FROZEN
    codebase_version: str
    robot_type: str | None = None
    fps: float
    chunks_size: int = Field(default=1000, gt=0)
    data_path: str
    video_path: str | None = None
    total_episodes: int | None = None
    total_frames: int | None = None
    features: dict[str, FeatureInfo]
    said_in: str = "meta/info.json"  # for errors

    def keys(self, *dtypes: str) -> list[str]:
        """Features of some dtypes, e.g. "video"."""
        return [key for key, feature in self.features.items() if feature.dtype in dtypes]

    @property
    def whole_rate_hz(self) -> int | None:
        """The rate, where it is a whole number of hertz."""
        return int(self.fps) if np.isfinite(self.fps) and self.fps == int(self.fps) > 0 else None

    def low_dim(self) -> list[tuple[str, FeatureInfo]]:
        """Features that are numbers about the robot, not pictures, text or row numbers."""
        return [
            (name, feature)
            for name, feature in self.features.items()
            if feature.dtype not in (*PICTURES, *_TEXTS) and name not in BOOKKEEPING
        ]


class Slice(BaseModel):
    """Some dimensions of one column, as modality.json names them."""

    model_config = _FROZEN
    start: int
    end: int
    original_key: str | None = None


class Original(BaseModel):
    """Another name of one column, as modality.json gives it."""

    model_config = _FROZEN
    original_key: str | None = None


class Modality(BaseModel):
    """GR00T's meta/modality.json: names for slices of state and action, for cameras and for annotation columns."""

    model_config = _FROZEN
    state: dict[str, Slice] = Field(default_factory=dict)
    action: dict[str, Slice] = Field(default_factory=dict)
    video: dict[str, Original] = Field(default_factory=dict)
    annotation: dict[str, Original] = Field(default_factory=dict)

    def slices(self, key: str) -> dict[str, range]:
        """The named dimensions of one column."""
        rows = [("observation.state", self.state), ("action", self.action)]
        return {
            name: range(part.start, part.end)
            for default, parts in rows
            for name, part in parts.items()
            if (part.original_key or default) == key
        }

    def labels(self, key: str, num_dims: int) -> tuple[str, ...]:
        """A name for each dimension of a column: "left_arm_0" ...; empty unless the slices cover all of it once."""
        found: dict[int, str] = {}
        for name, part in self.slices(key).items():
            for number, dim in enumerate(part):
                if dim in found:
                    return ()
                found[dim] = name if len(part) == 1 else f"{name}_{number}"
        return tuple(found[dim] for dim in range(num_dims)) if set(found) == set(range(num_dims)) else ()

    def camera_names(self) -> dict[str, str]:
        """Our name of each camera key that is named here."""
        return {row.original_key or f"{IMAGE_PREFIX}{name}": name for name, row in self.video.items()}

    def annotation_columns(self) -> dict[str, str]:
        """Column of each annotation, whose numbers stand for rows of tasks.jsonl, and its name."""
        return {row.original_key or f"annotation.{name}": name for name, row in self.annotation.items()}


def read_info(root: Path) -> Info:
    """meta/info.json. Raises SourceError for one that is damaged."""
    return _read(root / "meta/info.json", Info)


def read_modality(root: Path) -> Modality:
    """meta/modality.json; empty where there is none. Raises SourceError for one that is damaged."""
    path = root / "meta/modality.json"
    return _read(path, Modality) if path.is_file() else Modality()


def _read[Model: BaseModel](path: Path, model: type[Model]) -> Model:
    name = f"meta/{path.name}"
    try:
        return model.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except json.JSONDecodeError as error:
        raise SourceError(f"{name} is not JSON (line {error.lineno}). Copy it again.") from None
    except UnicodeDecodeError:
        raise SourceError(f"{name} is not UTF-8 text. Copy it again.") from None
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"]) or "the whole"
        raise SourceError(f"{name}: {where} is missing or wrong. Copy it again.") from None


def filled(template: str, words: Mapping[str, Any]) -> str:
    """A path template with its words put in. Raises SourceError for one that asks for another word, or leads away.

    Fields are plain `{episode_index}` or `{episode_index:06d}`: str.format would follow attributes too.
    """
    try:
        for _, name, form, conversion in Formatter().parse(template):
            if name is not None and (name not in words or conversion or not _FORM.fullmatch(form or "")):
                raise KeyError(f"{{{name}}}")
        said = template.format(**words)
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise SourceError(
            f"meta/info.json has a path template that cannot be filled: {template} ({error}). Correct it there."
        ) from None
    return _checked(said)


def is_inside(said: str) -> bool:
    """Whether a path that a dataset's metadata names can only lie in its own folder: not absolute, and without `..`.

    Links are followed all the same: a hub's cache is a folder of links to blobs that lie outside of it, and who puts a
    link on this disk can read the disk already. Words in a downloaded file are a stranger's.
    """
    return bool(said) and "\0" not in said and not said.startswith("/") and ".." not in PurePosixPath(said).parts


def _checked(said: str) -> str:
    if not is_inside(said):
        raise SourceError(f"meta/info.json names {said}, which is not in the dataset's folder. Correct it there.")
    return said


def mended_template(root: Path, template: str) -> str:
    """The template with the first folder that is there: recorders write video/ where info.json says videos/."""
    _checked(template)
    said, slash, rest = template.partition("/")
    if not slash or "{" in said or (root / said).is_dir():
        return template
    like = [folder.name for folder in root.iterdir() if folder.is_dir() and _singular(folder.name) == _singular(said)]
    return f"{like[0]}/{rest}" if len(like) == 1 else template


def _singular(name: str) -> str:
    return name.lower().removesuffix("s")


def _flatten(names: Any) -> list[str]:  # noqa: ANN401 - whatever JSON the recorder wrote
    if isinstance(names, str):
        return [names]
    if isinstance(names, dict):
        return [label for value in names.values() for label in _flatten(value)]
    if isinstance(names, list):
        return [label for value in names for label in _flatten(value)]
    return []
