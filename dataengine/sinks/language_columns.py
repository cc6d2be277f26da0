"""LeRobot's two language columns: their exact Arrow types, and one hash of what they say.

Types follow lerobot 0.6.1 (datasets/language.py), whose own writer lets pyarrow guess them from the content, so that
two shards of one dataset can disagree. A persistent row is repeated on every frame of its episode; an event stands on
its frame alone.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.records import sha256_of

PERSISTENT, EVENTS = "language_persistent", "language_events"
LANGUAGE = (PERSISTENT, EVENTS)
FEATURE = {"dtype": "language", "shape": [1], "names": None}  # of both, in info.json
_WORDS = ("role", "content", "style", "camera")

LanguageRow = dict[str, Any]  # role, content, style, timestamp (persistent rows only), camera


def language_type(name: str) -> pa.DataType:
    """The type of one of the two columns: a list of structs."""
    stamp = [pa.field("timestamp", pa.float32(), nullable=False)] if name == PERSISTENT else []
    fields = [
        pa.field("role", pa.string(), nullable=False),
        pa.field("content", pa.string()),
        pa.field("style", pa.string()),
        *stamp,
        pa.field("camera", pa.string()),
        pa.field("tool_calls", pa.list_(pa.json_())),
    ]
    return pa.list_(pa.struct(fields))


def word_leaves() -> list[str]:
    """Parquet paths of all texts: a few words repeated on every row, so a dictionary makes them nearly free."""
    return [f"{name}.list.element.{word}" for name in LANGUAGE for word in _WORDS]


def language_arrays(
    persistent: Sequence[LanguageRow], events: dict[int, list[LanguageRow]], num_frames: int
) -> dict[str, pa.Array]:
    """Both columns of one episode; `events` by frame."""
    each = [events.get(frame, []) for frame in range(num_frames)]
    return {
        PERSISTENT: pa.concat_arrays([_lists(PERSISTENT, [persistent])] * num_frames),
        EVENTS: _lists(EVENTS, each),
    }


def _lists(name: str, frames: Sequence[Sequence[LanguageRow]]) -> pa.Array:
    """Put together field by field: pa.array makes no extension type, which JSON is."""
    struct = language_type(name).value_type
    rows = [row for frame in frames for row in frame]
    offsets = np.cumsum([0, *(len(frame) for frame in frames)], dtype=np.int32)
    fields = [
        pa.nulls(len(rows), field.type)  # nothing of ours calls a tool
        if field.name == "tool_calls"
        else pa.array([row[field.name] for row in rows], type=field.type)
        for field in struct
    ]
    return pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays(fields, fields=list(struct)))


def language_names(root: Path) -> tuple[str, ...]:
    """Those of the two columns that the LeRobot dataset in `root` declares."""
    features = json.loads((root / "meta" / "info.json").read_bytes())["features"]
    return tuple(name for name in LANGUAGE if name in features)


def language_digest(root: Path) -> str:
    """Hash of every row of both columns, read back from the data files of a dataset of ours, episode by episode."""
    said: list[str] = []
    for path in sorted((root / "data").glob("*/*.parquet")):
        with pq.ParquetFile(path, memory_map=True) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=list(LANGUAGE))
                persistent, events = (table.column(name).combine_chunks() for name in LANGUAGE)
                said.append(sha256_of([_once(persistent), _by_frame(events)]))
    return sha256_of(said)


def _once(column: pa.ListArray) -> list[list[LanguageRow]]:
    """The rows that every frame repeats; those of each frame where one does not. Python is too slow for all."""
    first = column.slice(0, 1)
    repeated: list[list[LanguageRow]] = first.to_pylist()
    if column.equals(pa.concat_arrays([first] * len(column))):
        return repeated
    each: list[list[LanguageRow]] = column.to_pylist()
    return each


def _by_frame(column: pa.ListArray) -> list[tuple[int, LanguageRow]]:
    """Each event and its frame."""
    lengths = np.diff(column.offsets.to_numpy())
    frames = np.repeat(np.arange(len(lengths)), lengths).tolist()
    return list(zip(frames, column.flatten().to_pylist(), strict=True))


def exported_fingerprint(base: str, digest: str) -> str:
    """Identity of a dataset with language columns: that of the dataset without them, and what they say."""
    return sha256_of({"episodes": base, "language": digest})
