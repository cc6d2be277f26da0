"""Data parquet of LeRobot v3.0: files of about 100 MB, one row group per episode, columns in feature order."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dataengine.sinks.parts import link_or_copy
from dataengine.sinks.video_shards import chunk_and_file

SHARD_BYTES = 100 * 1024 * 1024
# Columns that repeat a few numbers. A dictionary of measured values is as long as they are: with one for every column a
# file took three times as long to write and was a third larger.
_REPEATED = ["episode_index", "task_index"]
# Episodes that are given to the thread together. One at a time, both threads waited for the interpreter's lock at every
# turn, and a commit of short episodes took as long as without the thread.
_AT_ONCE, _AT_ONCE_BYTES = 32, 8 << 20


def to_arrow(column: NDArray[np.generic]) -> pa.Array:
    """(rows,) or (rows, 1) as plain values, (rows, dims) as fixed-size lists: what LeRobot's features expect."""
    flat = np.ascontiguousarray(column).reshape(-1)
    if flat.dtype == np.bool_:
        values = pa.array(flat)
    else:  # its bytes as they are; pa.array would import pandas and look at each column for objects
        values = pa.Array.from_buffers(pa.from_numpy_dtype(flat.dtype), len(flat), [None, pa.py_buffer(flat)])
    if column.ndim == 1 or column.shape[1] == 1:
        return values
    return pa.FixedSizeListArray.from_arrays(values, column.shape[1])


class DataWriter:
    """Writes episodes one after the other; use as a context manager."""

    def __init__(self, root: Path, *, shard_bytes: int = SHARD_BYTES) -> None:
        self._root = root
        self._shard_bytes = shard_bytes
        self._number = -1
        self._sink: pa.OSFile | None = None
        self._writer: pq.ParquetWriter | None = None
        self._thread = ThreadPoolExecutor(max_workers=1)  # encodes some episodes while the next ones are read
        self._writing: Future[None] | None = None
        self._waiting: list[pa.Table] = []
        self._waiting_bytes = 0
        self._most = 0  # bytes of the open file once what waits is written, at most

    def add(self, columns: dict[str, NDArray[np.generic]]) -> tuple[int, int]:
        """Append one episode as one row group; returns (chunk index, file index)."""
        table = pa.table({key: to_arrow(column) for key, column in columns.items()})
        num_bytes = table.nbytes
        if self._writer is None or self._most + num_bytes > self._shard_bytes:
            self._finish()
            self._most = self._sink.tell() if self._sink is not None else 0
            if self._writer is None or self._most + num_bytes > self._shard_bytes:
                self._open(table.schema)
        self._waiting.append(table)
        self._waiting_bytes += num_bytes
        self._most += num_bytes
        if len(self._waiting) == _AT_ONCE or self._waiting_bytes > _AT_ONCE_BYTES:
            self._start()
        return chunk_and_file(self._number)

    def link(self, source: Path) -> tuple[int, int]:
        """Take over a whole data file of an older version; returns (chunk index, file index)."""
        link_or_copy(source, self._next())
        return chunk_and_file(self._number)

    def _next(self) -> Path:
        self.close()
        self._number += 1
        chunk, file = chunk_and_file(self._number)
        return self._root / "data" / f"chunk-{chunk:03d}" / f"file-{file:03d}.parquet"

    def _open(self, schema: pa.Schema) -> None:
        path = self._next()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pq.ParquetWriter(self._sink, schema, compression="snappy", use_dictionary=_REPEATED)
        self._most = 0

    def _start(self) -> None:
        """Give what waits to the thread, once it has written what it was given before; raises what went wrong there."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()
        if self._waiting and self._writer is not None:
            self._writing = self._thread.submit(_write, self._writer, self._waiting)
            self._waiting, self._waiting_bytes = [], 0

    def _finish(self) -> None:
        """Until every episode is in the file."""
        self._start()
        self._start()

    def close(self) -> None:
        """Write the footer."""
        self._finish()
        if self._writer is not None and self._sink is not None:
            self._writer.close()
            self._sink.close()
            self._writer = self._sink = None

    def __enter__(self) -> "DataWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._thread:
            self.close()


def _write(writer: pq.ParquetWriter, tables: Sequence[pa.Table]) -> None:
    for table in tables:
        writer.write_table(table, row_group_size=max(1, len(table)))
