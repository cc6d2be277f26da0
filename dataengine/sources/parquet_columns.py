"""List columns of a parquet table as matrices."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.errors import EpisodeError


def matrix_of(table: pa.Table, name: str, key: str) -> NDArray[Any]:
    """A list column as (rows, dims). Raises EpisodeError where rows are absent, empty or of different length."""
    if key not in table.column_names:
        raise EpisodeError(f"{name}: column {key} is missing. Copy the parquet again or drop the episode.")
    column = table[key].combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # no chunk at all: an empty table
        column = column.chunk(0) if column.num_chunks else pa.array([], column.type)
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if not pa.types.is_nested(column.type):
        return np.asarray(column.to_numpy(zero_copy_only=False))
    values = column.flatten()
    if column.null_count or values.null_count:
        raise EpisodeError(f"{name}: {key} has empty rows. Repair or drop the episode.")
    if pa.types.is_nested(values.type) or not len(column) or len(values) % len(column):
        raise EpisodeError(f"{name}: {key} is no plain list per row. Drop the feature from the rig or the episode.")
    dims = len(values) // len(column)
    if not pa.types.is_fixed_size_list(column.type) and not np.all(np.diff(column.offsets.to_numpy()) == dims):
        raise EpisodeError(f"{name}: {key} has rows of different length. Repair or drop the episode.")
    return np.asarray(values.to_numpy(zero_copy_only=False)).reshape(len(column), dims)
