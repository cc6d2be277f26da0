"""The low-dimensional rows of a staged episode, packed flat: columns back to back, then their statistics.

Its JSON says types and lengths, so nothing is parsed: a zip of npy files took a third of the time of a commit. Both
stand in one file, because making a file took 0.5 ms, a fifth of the time of an episode without pictures. Statistics
stand there because a worker has the time for them, and the commit that needs them is one process.
"""

import os
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dataengine.stats import QUANTILES, Stats, column_stats

_STATS = ("min", "max", "mean", "std", "count", *QUANTILES)  # a float64 row each
_COUNT, _FLOATS = _STATS.index("count"), np.dtype("<f8")
_ALIGNED = 8  # bytes: where a column may start
_LENGTH = struct.Struct("<Q")

type Columns = dict[str, NDArray[np.generic]]
type Shapes = Mapping[str, tuple[np.dtype[np.generic], tuple[int, ...]]]  # column -> little-endian dtype, shape


def pack(head: bytes, columns: Columns) -> bytes:
    """The file of one episode: length of `head`, `head`, (rows, dims) and (rows,) columns, and statistics of each."""
    parts = [_LENGTH.pack(len(head)), head, _filling(len(head))]
    for column in columns.values():
        little = np.ascontiguousarray(column, dtype=column.dtype.newbyteorder("<"))
        parts += [little.tobytes(), _filling(little.nbytes)]
    for column in columns.values():
        stats = column_stats(column)
        rows = [np.broadcast_to(stats[name], stats["mean"].shape) for name in _STATS]
        parts.append(np.stack(rows).astype(_FLOATS).tobytes())
    return b"".join(parts)


def read_head(path: Path) -> bytes:
    """What `pack` was given as head. Raises FileNotFoundError; b"" where the file is no such one."""
    with path.open("rb") as file:
        length = _head_length(file.read(_LENGTH.size))
        # A damaged length may be larger than memory.
        return file.read(length) if length <= os.fstat(file.fileno()).st_size else b""


def head_of(content: bytes) -> bytes:
    """`read_head` of a file that is in memory."""
    return content[_LENGTH.size : _LENGTH.size + _head_length(content)]


def _head_length(content: bytes) -> int:
    return int(_LENGTH.unpack_from(content)[0]) if len(content) >= _LENGTH.size else 0


def with_head(content: bytes, head: bytes) -> bytes:
    """The same file with another head."""
    start = _start(_LENGTH.unpack_from(content)[0])
    return b"".join([_LENGTH.pack(len(head)), head, _filling(len(head)), content[start:]])


def _filling(num_bytes: int) -> bytes:
    return bytes(-num_bytes % _ALIGNED)


def _start(head_bytes: int) -> int:
    """Where columns begin."""
    return _LENGTH.size + head_bytes + len(_filling(head_bytes))


def read_columns(path: Path, shapes: Shapes) -> tuple[bytes, Columns, dict[str, Stats]]:
    """Head, columns and their statistics. Raises ValueError or TypeError where the file is not as long as they say."""
    raw = np.fromfile(path, dtype=np.uint8)
    columns: Columns = {}
    stats: dict[str, Stats] = {}
    head_bytes = _head_length(raw[: _LENGTH.size].tobytes())
    head = raw[_LENGTH.size : _LENGTH.size + head_bytes].tobytes()
    place = _start(head_bytes)
    for key, (dtype, shape) in shapes.items():
        columns[key] = np.ndarray(shape, dtype, raw, place)
        place += columns[key].nbytes + -columns[key].nbytes % _ALIGNED
    for key, (_, shape) in shapes.items():
        rows: NDArray[np.float64] = np.ndarray((len(_STATS), *(shape[1:] or (1,))), _FLOATS, raw, place)
        stats[key] = dict(zip(_STATS, rows, strict=True)) | {"count": rows[_COUNT, :1].astype(np.int64)}
        place += rows.nbytes
    if place != len(raw):
        raise ValueError(f"{path} has {len(raw)} bytes, not {place}")
    return head, columns, stats
