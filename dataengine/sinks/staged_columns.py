"""The low-dimensional rows of a staged episode as one flat file: columns back to back, then their statistics.

The marker says types and lengths, so nothing is parsed: a zip of npy files took a third of the time of a commit.
Statistics stand there because a worker has the time for them, and the commit that needs them is one process.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dataengine.stats import QUANTILES, Stats, column_stats

_STATS = ("min", "max", "mean", "std", "count", *QUANTILES)  # a float64 row each
_COUNT, _FLOATS = _STATS.index("count"), np.dtype("<f8")
_ALIGNED = 8  # bytes: where a column may start

type Columns = dict[str, NDArray[np.generic]]
type Shapes = Mapping[str, tuple[np.dtype[np.generic], tuple[int, ...]]]  # column -> little-endian dtype, shape


def columns_path(folder: Path) -> Path:
    """Where the rows of an episode lie whose pictures are in `folder`: beside it, as many have no pictures."""
    return folder.with_name(f"{folder.name}.columns")


def write_columns(path: Path, columns: Columns) -> None:
    """Write (rows, dims) and (rows,) columns and the statistics of each."""
    with path.open("wb") as file:
        for column in columns.values():
            little = np.ascontiguousarray(column, dtype=column.dtype.newbyteorder("<"))
            file.write(little)
            file.write(bytes(-little.nbytes % _ALIGNED))
        for column in columns.values():
            stats = column_stats(column)
            rows = [np.broadcast_to(stats[name], stats["mean"].shape) for name in _STATS]
            file.write(np.stack(rows).astype(_FLOATS).tobytes())


def read_columns(path: Path, shapes: Shapes) -> tuple[Columns, dict[str, Stats]]:
    """Columns and their statistics. Raises ValueError or TypeError where the file is not as long as `shapes` say."""
    raw = np.fromfile(path, dtype=np.uint8)
    columns: Columns = {}
    stats: dict[str, Stats] = {}
    place = 0
    for key, (dtype, shape) in shapes.items():
        columns[key] = np.ndarray(shape, dtype, raw, place)
        place += columns[key].nbytes + -columns[key].nbytes % _ALIGNED
    for key, (_, shape) in shapes.items():
        rows: NDArray[np.float64] = np.ndarray((len(_STATS), *(shape[1:] or (1,))), _FLOATS, raw, place)
        stats[key] = dict(zip(_STATS, rows, strict=True)) | {"count": rows[_COUNT, :1].astype(np.int64)}
        place += rows.nbytes
    if place != len(raw):
        raise ValueError(f"{path} has {len(raw)} bytes, not {place}")
    return columns, stats
