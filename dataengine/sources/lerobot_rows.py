"""The rows of one episode inside parquet or arrow files that may hold others: read, hashed and walked alone.

A data file of LeRobot v3.0 or v1.x holds hundreds of episodes, and pictures where there is no video: only the row
groups an episode lies in are opened, and pictures come a few rows at a time.
"""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import EpisodeError

_BATCH_ROWS = 1024
_PICTURE_ROWS = 16  # rows of a picture column held at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Rows `first` to `first + num` of one .parquet or .arrow file."""

    path: Path
    first: int
    num: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeRows:
    """All rows of one episode, in order; `label` names the episode and its file in errors."""

    label: str
    pieces: tuple[Piece, ...]

    def __len__(self) -> int:
        return sum(piece.num for piece in self.pieces)

    def schema(self) -> pa.Schema:
        """Columns of the first file. Raises EpisodeError for a file that is absent or damaged."""
        with readable(self.label):
            return file_schema(self.pieces[0].path)

    def read(self, columns: Sequence[str]) -> pa.Table:
        """Some columns, in memory. Raises EpisodeError for a file that is absent or damaged."""
        with readable(self.label):
            parts = [
                pa.Table.from_batches(_batches(piece, columns, _BATCH_ROWS), _selected(piece.path, columns))
                for piece in self.pieces
            ]
            return pa.concat_tables(parts) if parts else pa.table({})

    def cells(self, column: str) -> Iterator[Any]:
        """One column's values as Python objects, a few rows in memory at a time."""
        with readable(self.label):
            for piece in self.pieces:
                for batch in _batches(piece, [column], _PICTURE_ROWS):
                    yield from batch.column(0).to_pylist()

    def digest(self, leave_out: Collection[str]) -> str:
        """Hex sha256 of the values of all columns but some: the same in whatever file, row group or list type."""
        columns = sorted(name for name in self.schema().names if name not in leave_out)
        hashes: dict[str, Any] = {}
        with readable(self.label):
            for piece in self.pieces:
                for name in columns:  # one at a time: a picture column must not hold up the numbers in memory
                    for batch in _batches(piece, [name], _BATCH_ROWS if _is_flat(piece, name) else _PICTURE_ROWS):
                        for leaf, content in _leaves(batch.column(0), name):
                            hashes.setdefault(leaf, hashlib.sha256()).update(content)
        whole = hashlib.sha256(str(len(self)).encode())
        for leaf in sorted(hashes):
            whole.update(f"\0{leaf}\0".encode() + hashes[leaf].digest())
        return whole.hexdigest()


@contextmanager
def readable(label: str) -> Iterator[None]:
    """Turn what pyarrow says of an absent or damaged file into an EpisodeError."""
    try:
        yield
    except FileNotFoundError:
        raise EpisodeError(f"{label} is missing. Copy it again.") from None
    except (pa.ArrowException, OSError):
        raise EpisodeError(f"{label} is no readable {_kind(label)}. Copy it again.") from None


def _kind(label: str) -> str:
    return "arrow file" if label.endswith(".arrow") else "parquet"


def file_schema(path: Path) -> pa.Schema:
    """Names and types of the columns of one .parquet or .arrow file."""
    if path.suffix == ".parquet":
        return _footer(path).schema.to_arrow_schema()
    with _arrow_reader(path) as reader:
        return reader.schema


def num_rows(path: Path) -> int:
    """Rows of one .parquet or .arrow file; of parquet only the footer is read."""
    if path.suffix == ".parquet":
        return int(_footer(path).num_rows)
    with _arrow_reader(path) as reader:
        return sum(batch.num_rows for batch in reader)


def column_of(path: Path, column: str) -> pa.ChunkedArray:
    """One whole column of a file: for row numbers, which are small."""
    batches = _batches(Piece(path=path, first=0, num=num_rows(path)), [column], 1 << 16)
    return pa.Table.from_batches(batches, _selected(path, [column])).column(0)


def find_episode(path: Path, episode: int, label: str) -> Piece | None:
    """Where one episode's rows lie in a parquet; row groups that cannot hold it are not opened. None: nowhere.

    Raises EpisodeError where rows of another episode lie between them, or the file can not be read.
    """
    found: list[tuple[int, int]] = []
    with readable(label):
        footer = _footer(path)
        if footer.schema.to_arrow_schema().get_field_index("episode_index") < 0:
            raise EpisodeError(f"{label} has no column episode_index. Copy it again.")
        start = 0
        for group in range(footer.num_row_groups):
            meta = footer.row_group(group)
            if _may_hold(meta, episode):
                runs = _runs(path, _version(path), group).get(episode, ())
                found += [(start + first, num) for first, num in runs]
            start += meta.num_rows
    if not found:
        return None
    first, num = found[0][0], sum(rows for _, rows in found)
    if found[-1][0] + found[-1][1] - first != num:
        raise EpisodeError(f"{label}: rows of other episodes lie between those of episode {episode}. Sort the file.")
    return Piece(path=path, first=first, num=num)


def _version(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _footer(path: Path) -> pq.FileMetaData:
    return _footer_of(path, _version(path))


@lru_cache(maxsize=16)  # a shard of v3.0 holds hundreds of episodes, which are read one after the other
def _footer_of(path: Path, version: tuple[int, int]) -> pq.FileMetaData:
    return pq.read_metadata(path)


@lru_cache(maxsize=64)
def _runs(path: Path, version: tuple[int, int], group: int) -> dict[int, tuple[tuple[int, int], ...]]:
    """(first row, rows) of every stretch of one episode in one row group."""
    with pq.ParquetFile(path, metadata=_footer_of(path, version)) as file:
        numbers = file.read_row_group(group, columns=["episode_index"]).column("episode_index").to_numpy()
    starts = np.flatnonzero(np.diff(numbers, prepend=np.nan))
    found: dict[int, tuple[tuple[int, int], ...]] = {}
    for first, end in zip(starts.tolist(), [*starts[1:].tolist(), len(numbers)], strict=False):
        episode = int(numbers[first])
        found[episode] = (*found.get(episode, ()), (first, end - first))
    return found


def _may_hold(group: Any, episode: int) -> bool:  # noqa: ANN401 - pyarrow's metadata has no types
    for number in range(group.num_columns):
        column = group.column(number)
        if column.path_in_schema == "episode_index":
            stats = column.statistics
            return stats is None or not stats.has_min_max or bool(stats.min <= episode <= stats.max)
    return True


def _selected(path: Path, columns: Sequence[str]) -> pa.Schema:
    schema = file_schema(path)
    return pa.schema([schema.field(name) for name in columns])


def _is_flat(piece: Piece, column: str) -> bool:
    kind = file_schema(piece.path).field(column).type
    return not (pa.types.is_struct(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _batches(piece: Piece, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
    """The piece's rows of some columns, at most `rows` at a time."""
    walk = _parquet_batches if piece.path.suffix == ".parquet" else _arrow_batches
    for start, batch in walk(piece, columns, rows):
        low, high = max(piece.first - start, 0), min(piece.first + piece.num - start, batch.num_rows)
        for first in range(low, high, rows):
            yield batch.slice(first, min(rows, high - first)).select(list(columns))


def _parquet_batches(piece: Piece, columns: Sequence[str], rows: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    with pq.ParquetFile(piece.path, metadata=_footer(piece.path), pre_buffer=False) as file:
        start = 0
        for group in range(file.num_row_groups):
            num = file.metadata.row_group(group).num_rows
            if start < piece.first + piece.num and start + num > piece.first:
                at = start
                for batch in file.iter_batches(rows, row_groups=[group], columns=list(columns)):
                    yield at, batch
                    at += batch.num_rows
            start += num


def _arrow_batches(piece: Piece, columns: Sequence[str], rows: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    with _arrow_reader(piece.path) as reader:
        start = 0
        for batch in reader:
            if start < piece.first + piece.num and start + batch.num_rows > piece.first:
                yield start, batch
            start += batch.num_rows


@contextmanager
def _arrow_reader(path: Path) -> Iterator[Any]:
    """Batches of an arrow file, stream or random access, mapped into memory."""
    with pa.memory_map(str(path)) as file:
        magic = file.read(6)
        file.seek(0)
        if magic != b"ARROW1":
            with pa.ipc.open_stream(file) as reader:
                yield reader
            return
        random_access = pa.ipc.open_file(file)
        batches = (random_access.get_batch(number) for number in range(random_access.num_record_batches))
        yield pa.RecordBatchReader.from_batches(random_access.schema, batches)


def _leaves(column: Any, path: str) -> Iterator[tuple[str, bytes]]:  # noqa: ANN401 - whichever array type
    """The values of a column by leaf, such that the bytes of two batches are those of both together."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    yield f"{path} absent", column.is_null().to_numpy(zero_copy_only=False).tobytes()
    kind = column.type
    if pa.types.is_struct(kind):
        for number in range(kind.num_fields):
            yield from _leaves(column.field(number), f"{path}/{kind.field(number).name}")
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        lengths = column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
        yield f"{path} lengths", np.asarray(lengths, np.int64).tobytes()
        yield from _leaves(column.flatten(), f"{path}[]")
    elif pa.types.is_primitive(kind) and not pa.types.is_temporal(kind):
        values = column.fill_null(False if pa.types.is_boolean(kind) else 0).to_numpy(zero_copy_only=False)
        yield f"{path} {values.dtype.name}", values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
    else:
        for value in column.to_pylist():
            raw = value if isinstance(value, bytes) else str(value).encode()
            yield f"{path} texts", len(raw).to_bytes(8, "little") + raw
