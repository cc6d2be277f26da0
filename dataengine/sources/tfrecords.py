"""TFRecord files and the tf.Example messages in them, read without TensorFlow.

A record: uint64 length, masked crc32c of the length, data, masked crc32c of the data; all little endian.
A tf.Example: map from name to one list of bytes, float32 or int64 (protocol buffers, tensorflow/core/example).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from schemas.errors import EpisodeError

_LENGTH = struct.Struct("<QI")
_CRC = struct.Struct("<I")
_MASK = 0xA282EAD8
MIN_RECORD_BYTES = _LENGTH.size + _CRC.size  # of one without data

type Values = list[memoryview] | NDArray[np.float32] | NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Record:
    """Where one record's data lies in its file, and the checksum stored with it."""

    offset: int
    num_bytes: int
    crc: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardIndex:
    """All records of one file; `fault` says why it cannot be followed to its end. Records before a fault are good."""

    records: tuple[Record, ...]
    fault: str | None


def masked_crc32c(data: bytes | memoryview) -> int:
    """CRC-32C, rotated and offset as TFRecord stores it."""
    import google_crc32c

    crc = int(google_crc32c.value(bytes(data)))
    return (((crc >> 15) | (crc << 17)) + _MASK) & 0xFFFFFFFF


def index_shard(path: Path) -> ShardIndex:
    """Follow the framing: 16 bytes are read per record, no data. A file that is absent is a fault too."""
    records: list[Record] = []
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            offset = 0
            while offset < size:
                file.seek(offset)
                head = file.read(_LENGTH.size)
                if len(head) < _LENGTH.size:
                    return ShardIndex(records=tuple(records), fault=f"ends inside a record at byte {offset}")
                length, crc = _LENGTH.unpack(head)
                if masked_crc32c(head[:8]) != crc:
                    return ShardIndex(
                        records=tuple(records),
                        fault=f"has a damaged record length at byte {offset}, after which no record can be found",
                    )
                start = offset + _LENGTH.size
                file.seek(start + length)
                tail = file.read(_CRC.size)
                if len(tail) < _CRC.size:
                    return ShardIndex(records=tuple(records), fault=f"ends inside a record at byte {offset}")
                records.append(Record(start, length, _CRC.unpack(tail)[0]))
                offset = start + length + _CRC.size
    except OSError as error:
        return ShardIndex(records=tuple(records), fault=f"can not be read ({error.strerror})")
    return ShardIndex(records=tuple(records), fault=None)


def read_record(path: Path, record: Record, name: str) -> bytes:
    """The data of one record. Raises EpisodeError where it is not what was written."""
    with path.open("rb") as file:
        file.seek(record.offset)
        data = file.read(record.num_bytes)
    if len(data) != record.num_bytes or masked_crc32c(data) != record.crc:
        raise EpisodeError(
            f"{name}: the record at byte {record.offset} of {path.name} fails its checksum. Copy the file again or "
            f"drop the episode."
        )
    return data


def parse_example(data: bytes, name: str) -> dict[str, Values]:
    """Every list of a tf.Example by name; bytes are views into `data`. Raises EpisodeError for another message."""
    found: dict[str, Values] = {}
    try:
        for number, features in _fields(memoryview(data)):
            if number != 1:
                continue
            for _, entry in _fields(_view(features)):
                pair = dict(_fields(_view(entry)))
                found[bytes(_view(pair[1])).decode()] = _list_of(_view(pair.get(2, memoryview(b""))))
    except (ValueError, KeyError, IndexError):
        raise EpisodeError(f"{name}: the record is no tf.Example. Export the dataset again.") from None
    return found


def _list_of(feature: memoryview) -> Values:
    """The one list of a tf.Feature: 1 = bytes, 2 = float, 3 = int64."""
    for number, values in _fields(feature):
        items = [item for _, item in _fields(_view(values))]
        match number:
            case 1:
                return [_view(item) for item in items]
            case 2:
                return np.frombuffer(b"".join(_view(item) for item in items), dtype="<f4")
            case 3:
                parts = [np.array([item], np.uint64) if isinstance(item, int) else _varints(item) for item in items]
                numbers: NDArray[np.int64] = np.concatenate([*parts, np.zeros(0, np.uint64)]).view(np.int64)
                return numbers
    return []


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """(number, value) of each field: bytes of length-delimited and fixed ones, the number of varints."""
    place, end = 0, len(message)
    while place < end:
        tag, place = _varint(message, place)
        match tag & 7:
            case 0:
                value, place = _varint(message, place)
                yield tag >> 3, value
                continue
            case 1:
                length = 8
            case 2:
                length, place = _varint(message, place)
            case 5:
                length = 4
            case kind:
                raise ValueError(f"wire type {kind}")
        if place + length > end:
            raise ValueError("a field that reaches over the end")
        yield tag >> 3, message[place : place + length]
        place += length


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, place
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _varints(packed: memoryview) -> NDArray[np.uint64]:
    """All numbers of a packed list."""
    raw = np.frombuffer(packed, dtype=np.uint8)
    if (raw < 0x80).all():  # flags and small numbers: a byte each
        return raw.astype(np.uint64)
    values: list[int] = []
    place = 0
    while place < len(packed):
        value, place = _varint(packed, place)
        values.append(value)
    return np.array(values, dtype=np.uint64)


def _view(value: memoryview | int) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number where a message was expected")
    return value
