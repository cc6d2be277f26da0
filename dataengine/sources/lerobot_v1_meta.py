"""What a LeRobot v1.x dataset holds: rows of all episodes in train/*.arrow or data/*.parquet, metadata in meta_data/.

The format declares no features: the columns' types tell. Which rows are whose is read from the rows, and compared with
meta_data/episode_data_index.safetensors where there is one.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dataengine.sources.content import natural_key
from dataengine.sources.lerobot_columns import stored_numbers
from dataengine.sources.lerobot_info import FeatureInfo, Info, Modality, is_inside
from dataengine.sources.lerobot_rows import Piece, column_of, file_schema
from schemas.errors import SourceError

INFO = "meta_data/info.json"
_INDEX = "meta_data/episode_data_index.safetensors"
_PLACES = (("train", "*.arrow"), ("data", "*.parquet"), ("train", "*.parquet"), ("data", "*.arrow"))
_EVEN = 1e-3  # share of a step that float32 seconds may be off


class _V1Info(BaseModel):
    """The parts of meta_data/info.json that reading needs."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    codebase_version: str = "v1"
    fps: float = Field(gt=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeRobotV1Meta:
    """Where the rows and videos of each episode lie, and the columns as if they had been declared."""

    root: Path
    info: Info  # features by the columns' types; fps 0 where it is neither said nor even
    has_rate: bool  # False: meta_data/info.json is absent
    schema: pa.Schema
    pieces: dict[int, tuple[Piece, ...]]  # episode -> its rows
    videos: dict[tuple[int, str], tuple[str, ...]]  # (episode, camera key) -> files its rows name
    stated: dict[int, int]  # episode -> rows by the index file
    num_rows: int

    @classmethod
    def read(cls, root: Path) -> "LeRobotV1Meta":
        """Read metadata and row numbers. Raises SourceError where there is no data, or it can not be read."""
        files = next((found for place in _PLACES if (found := sorted_files(root, *place))), [])
        if not files:
            raise SourceError(
                f"'{root}' has LeRobot v1 metadata in meta_data/, but no data: neither train/*.arrow nor "
                f"data/*.parquet. Copy the dataset again."
            )
        try:
            schema = file_schema(files[0])
            features = {field.name: _feature(field.type) for field in schema}
            tables = [_table(path, [key for key, row in features.items() if row.dtype == "video"]) for path in files]
        except (pa.ArrowException, OSError, KeyError) as error:
            names = ", ".join(path.name for path in files[:3])
            raise SourceError(f"the data of '{root.name}' can not be read ({names}: {error}). Copy it again.") from None
        info = _info(root)
        return cls(
            root=root,
            info=Info(
                codebase_version=info.codebase_version if info else "v1",
                fps=info.fps if info else _measured_rate(files[0], schema),
                data_path="",
                features=features,
                said_in=INFO if info else "the timestamps",
            ),
            has_rate=info is not None,
            schema=schema,
            pieces=_pieces(files, tables),
            videos=_videos(tables),
            stated=_stated(root),
            num_rows=sum(table.num_rows for table in tables),
        )

    def at_rate(self, rate_hz: int) -> "LeRobotV1Meta":
        """The same, at a rate that somebody else says."""
        return replace(self, info=self.info.model_copy(update={"fps": float(rate_hz)}))

    def names(self) -> list[str]:
        """`episode_000000` and so on, in order; those that only the index or only the rows know too."""
        return [f"episode_{index:06d}" for index in sorted({*self.stated, *self.pieces})]

    def stored(self) -> dict[str, FeatureInfo]:
        """Columns of numbers."""
        return stored_numbers(self.info, self.schema, Modality())

    def video_path(self, file: str) -> Path | None:
        """A file that rows name, also where only its folder was renamed; None for one outside of the dataset."""
        if not is_inside(file):
            return None
        said = self.root / file
        beside = self.root / "videos" / Path(file).name
        return beside if not said.is_file() and beside.is_file() else said

    def paths_of(self, index: int) -> list[Path]:
        """Video files of one episode, of all cameras."""
        keys = self.info.keys("video")
        files = (file for key in keys for file in self.videos.get((index, key), ()))
        return [path for path in map(self.video_path, files) if path is not None]


def sorted_files(root: Path, folder: str, pattern: str) -> list[Path]:
    """Files of one folder in natural order."""
    return sorted((root / folder).glob(pattern), key=lambda path: natural_key(path.name))


def _feature(kind: pa.DataType) -> FeatureInfo:
    """A column's type as if info.json had declared it."""
    if pa.types.is_struct(kind):
        names = {kind.field(number).name for number in range(kind.num_fields)}
        dtype = "video" if names == {"path", "timestamp"} else "image" if names == {"bytes", "path"} else "struct"
        return FeatureInfo(dtype=dtype)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return FeatureInfo(dtype="string", shape=(1,))
    if pa.types.is_fixed_size_list(kind):
        return FeatureInfo(dtype=_number(kind.value_type), shape=(kind.list_size,))
    return FeatureInfo(dtype=_number(kind), shape=(1,))


def _number(kind: pa.DataType) -> str:
    while hasattr(kind, "value_type"):
        kind = kind.value_type
    return str(np.dtype(kind.to_pandas_dtype())) if pa.types.is_primitive(kind) else str(kind)


def _table(path: Path, videos: Sequence[str]) -> pa.Table:
    """Episode of each row, and the file each video column names, of one data file."""
    columns = {"episode_index": column_of(path, "episode_index")}
    for key in videos:
        columns[key] = pc.struct_field(column_of(path, key), "path")
    return pa.table(columns)


def _pieces(files: Sequence[Path], tables: Sequence[pa.Table]) -> dict[int, tuple[Piece, ...]]:
    """Stretches of rows of one episode; an episode that has others between its own gets several in one file."""
    found: dict[int, tuple[Piece, ...]] = {}
    for path, table in zip(files, tables, strict=True):
        numbers: NDArray[np.int64] = table["episode_index"].to_numpy()
        cuts = np.flatnonzero(np.diff(numbers)) + 1
        for first, last in zip([0, *cuts], [*cuts, len(numbers)], strict=True):
            if last > first:
                piece = Piece(path=path, first=int(first), num=int(last - first))
                found[int(numbers[first])] = (*found.get(int(numbers[first]), ()), piece)
    return found


def _videos(tables: Sequence[pa.Table]) -> dict[tuple[int, str], tuple[str, ...]]:
    found: dict[tuple[int, str], set[str]] = {}
    for table in tables:
        for key in table.column_names[1:]:
            pairs = table.group_by(["episode_index", key]).aggregate([])
            for episode, file in zip(pairs["episode_index"].to_pylist(), pairs[key].to_pylist(), strict=True):
                found.setdefault((int(episode), key), set()).add(str(file))
    return {place: tuple(sorted(files)) for place, files in found.items()}


def _stated(root: Path) -> dict[int, int]:
    """Rows of each episode by the index file; empty where there is none."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = root / _INDEX
    if not path.is_file():
        return {}
    try:
        index = load_file(str(path))
        lengths = (index["to"] - index["from"]).tolist()
    except (SafetensorError, KeyError, OSError):
        raise SourceError(f"{_INDEX} can not be read. Copy it again, or remove it: the rows say the same.") from None
    return {number: int(length) for number, length in enumerate(lengths)}


def _info(root: Path) -> _V1Info | None:
    path = root / INFO
    if not path.is_file():
        return None
    try:
        return _V1Info.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, UnicodeDecodeError, ValidationError):
        raise SourceError(f"{INFO} does not say a rate as fps. Copy it again.") from None


def _measured_rate(path: Path, schema: pa.Schema) -> float:
    """The rate at which the first episode's stamps are even; 0 where they are not: then a rig must say it."""
    if "timestamp" not in schema.names:
        return 0.0
    episodes, stamps = column_of(path, "episode_index").to_numpy(), column_of(path, "timestamp").to_numpy()
    seconds = stamps[episodes == episodes[0]].astype(np.float64)
    if len(seconds) < 2 or seconds[-1] <= seconds[0]:
        return 0.0
    rate = round((len(seconds) - 1) / (seconds[-1] - seconds[0]))
    steps = (seconds - seconds[0]) * rate
    return float(rate) if np.abs(steps - np.arange(len(seconds))).max() < max(_EVEN, 1e-6 * len(steps)) else 0.0
