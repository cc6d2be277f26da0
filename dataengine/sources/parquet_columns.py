"""List columns of a parquet table as matrices."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.errors import EpisodeError


def matrix_of(table: pa.Table, name: str, key: str) -> NDArray[Any]:
    """A column of numbers or of (nested) lists of them as (rows, dims); what has several axes row by row.

    Raises EpisodeError where rows are absent, empty or of different length.
    """
    if key not in table.column_names:
        raise EpisodeError(f"{name}: column {key} is missing. Copy the parquet again or drop the episode.")
    values, rows = _one_array(table[key]), table.num_rows
    if not pa.types.is_nested(values.type):
        if values.null_count:
            raise EpisodeError(f"{name}: {key} has empty rows. Repair or drop the episode.")
        return np.asarray(values.to_numpy(zero_copy_only=False))
    while _is_list(values.type):
        values = _flattened(values, name, key)
    if values.null_count:
        raise EpisodeError(f"{name}: {key} has empty rows. Repair or drop the episode.")
    if pa.types.is_nested(values.type) or not rows or len(values) % rows:
        raise EpisodeError(f"{name}: {key} is no plain list per row. Drop the feature from the rig or the episode.")
    return np.asarray(values.to_numpy(zero_copy_only=False)).reshape(rows, len(values) // rows)


def _one_array(column: pa.ChunkedArray) -> Any:  # noqa: ANN401 - whichever array type the column has
    column = column.combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # no chunk at all: an empty table
        column = column.chunk(0) if column.num_chunks else pa.array([], column.type)
    return column.storage if isinstance(column, pa.ExtensionArray) else column


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _flattened(column: Any, name: str, key: str) -> Any:  # noqa: ANN401 - whichever list type
    """The values of a list column, every list of the same length."""
    if column.null_count:
        raise EpisodeError(f"{name}: {key} has empty rows. Repair or drop the episode.")
    lengths = column.value_lengths().to_numpy(zero_copy_only=False)
    if len(lengths) and not np.all(lengths == lengths[0]):
        raise EpisodeError(f"{name}: {key} has rows of different length. Repair or drop the episode.")
    return column.flatten()
