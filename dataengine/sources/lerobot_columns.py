"""Columns of one LeRobot episode of any version: numbers as the rig asks, recorded times, texts kept as imported."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dataengine.sources.columns import check_column
from dataengine.sources.lerobot_info import BOOKKEEPING, PICTURES, FeatureInfo, Info, Modality
from dataengine.sources.lerobot_rows import EpisodeRows
from dataengine.sources.parquet_columns import matrix_of
from schemas.errors import EpisodeError
from schemas.rigs import Rig
from schemas.spans import NS_PER_S, frame_stamps_ns

LANGUAGE = ("language_persistent", "language_events")
_STAMP_TOLERANCE_NS = 1_000_000  # float32 seconds of a long episode are good to about this much


def stored_numbers(info: Info, schema: pa.Schema | None, modality: Modality) -> dict[str, FeatureInfo]:
    """Columns of numbers that the data holds: those declared, then those that are there undeclared.

    `schema` is that of the first file that can be read; None, where none can, means that what is declared is believed.
    """
    annotations = modality.annotation_columns()
    declared = {key: row for key, row in info.low_dim() if key not in annotations}
    if schema is None:
        return declared
    found = {key: row for key, row in declared.items() if key in schema.names}
    for field in schema:
        known = field.name in info.features or field.name in (*BOOKKEEPING, *annotations)
        if not known and not field.name.startswith("__") and (dtype := _leaf(field.type)) is not None:
            dims = field.type.list_size if pa.types.is_fixed_size_list(field.type) else 1
            found[field.name] = FeatureInfo(dtype=dtype, shape=(dims,))
    return found


def column_notes(info: Info, schema: pa.Schema | None, modality: Modality) -> list[str]:
    """Where the metadata and the stored columns differ, in words."""
    if schema is None:
        return []
    stored = stored_numbers(info, schema, modality)
    absent = [key for key, _ in info.low_dim() if key not in schema.names]
    notes = [f"{key} is declared in meta/info.json, but no column of the data: it is left out" for key in absent]
    notes += [f"{key} is a column that meta/info.json does not declare" for key in stored if key not in info.features]
    for key in stored.keys() & info.features.keys():
        leaf, said = _leaf(schema.field(key).type), info.features[key]
        if leaf is not None and leaf != said.dtype:
            notes.append(f"{key} is declared {said.dtype}, but stored as {leaf}, which is kept")
        if len(said.shape) > 1:
            notes.append(f"{key} has {len(said.shape)} axes: they are laid out row by row as {said.num_dims} numbers")
    notes += [f"{key} is text, kept as an imported annotation" for key in text_columns(info, schema)]
    return notes


def _leaf(kind: pa.DataType) -> str | None:
    """The numpy name of the numbers in a (nested) list column; None where it holds none."""
    while True:
        if isinstance(kind, pa.ExtensionType):
            kind = kind.storage_type
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
            kind = kind.value_type
        else:
            break
    numbers = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    return str(np.dtype(kind.to_pandas_dtype())) if numbers else None


def text_columns(info: Info, schema: pa.Schema) -> list[str]:
    """Columns of text, declared or not, language columns included."""
    return [
        field.name
        for field in schema
        if field.name in LANGUAGE
        or (
            (pa.types.is_string(field.type) or pa.types.is_large_string(field.type))
            and not field.name.startswith("__")
            and (field.name not in info.features or info.features[field.name].dtype not in PICTURES)
        )
    ]


def read_numbers(name: str, rows: EpisodeRows, rig: Rig, more: Sequence[str]) -> tuple[pa.Table, dict[str, Any]]:
    """The columns the rig asks for, checked; and the table they came from, with row numbers, times and `more`."""
    schema = rows.schema()
    keys = dict.fromkeys([*(feature.key for feature in rig.features.values()), *BOOKKEEPING, *more])
    table = rows.read([key for key in keys if key in schema.names])
    frames = table["frame_index"].to_numpy() if "frame_index" in table.column_names else np.arange(table.num_rows)
    if not np.array_equal(frames, np.arange(table.num_rows)):
        raise EpisodeError(f"{name}: frame_index does not count 0..{table.num_rows - 1}. Sort or drop it.")
    columns = {
        ours: check_column(name, ours, feature, matrix_of(table, name, feature.key))
        for ours, feature in rig.features.items()
    }
    return table, columns


def recorded_stamps(table: pa.Table, name: str, rate_hz: int) -> dict[str, NDArray[np.int64]]:
    """Recorded times, where they say more than "every 1/fps"."""
    if "timestamp" not in table.column_names:
        return {}
    seconds = matrix_of(table, name, "timestamp").reshape(-1).astype(np.float64)
    if not np.isfinite(seconds).all():
        raise EpisodeError(f"{name}: timestamp has a value that is no number. Repair or drop the episode.")
    stamps = np.round(seconds * NS_PER_S).astype(np.int64)
    even = frame_stamps_ns(len(stamps), rate_hz)
    return {} if np.abs(stamps - even).max(initial=0) <= _STAMP_TOLERANCE_NS else {"timestamp": stamps}


def texts_by_number(table: pa.Table, name: str, column: str, texts: Mapping[int, str], where: str) -> tuple[str, ...]:
    """What the numbers of a column stand for: one text where all rows say the same, else one for each row."""
    numbers = matrix_of(table, name, column).reshape(-1).tolist()
    unknown = sorted({int(number) for number in numbers} - set(texts))
    if unknown:
        raise EpisodeError(f"{name}: {column} {unknown[0]} is not in {where}. Add it there.")
    return _one_or_all([texts[int(number)] for number in numbers])


def imported_texts(table: pa.Table, columns: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Text columns as imported annotations; rows of the language columns as JSON, each with its frame."""
    found: dict[str, tuple[str, ...]] = {}
    for column in columns:
        if column not in table.column_names:
            continue
        cells = table[column].to_pylist()
        if column not in LANGUAGE:
            texts = _one_or_all([str(cell) if cell is not None else "" for cell in cells])
        elif column == "language_persistent":  # the same rows at every frame of the episode
            texts = tuple(_json(row) for row in (cells[0] if cells and cells[0] else []))
        else:
            texts = tuple(
                _json({**row, "frame_index": frame}) for frame, cell in enumerate(cells) for row in cell or []
            )
        if any(texts):
            found[column] = texts
    return found


def _one_or_all(texts: list[str]) -> tuple[str, ...]:
    return tuple(texts if len(set(texts)) > 1 else texts[:1])


def _json(row: Mapping[str, Any]) -> str:
    return json.dumps(row, sort_keys=True, ensure_ascii=False, default=str)
