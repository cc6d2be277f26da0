"""MCAP files: chunks of messages on channels, with their schemas inside."""

import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dataengine.sources.recordings import Message, RecordingFiles, Topic, one_topic
from schemas.errors import EpisodeError

_MAGIC = b"\x89MCAP0\r\n"
_NS = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class McapRecording:
    """One episode in one or more MCAP files, in the order of their first stamps."""

    name: str
    paths: tuple[Path, ...]
    has_index: bool  # False: a file without summary, read from front to back
    topics: dict[str, Topic]
    words: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @classmethod
    def open(cls, files: RecordingFiles) -> "McapRecording":
        """Read schemas, channels and counts. Raises EpisodeError for a cut or damaged file."""
        topics: dict[str, Topic] = {}
        words: dict[str, str] = {}
        first_ns: dict[Path, int] = {}
        has_index = True
        for path in files.paths:
            contents = _contents(path, files.name)
            has_index &= contents.has_index
            first_ns[path] = contents.first_ns
            words |= contents.words
            for topic in contents.topics:
                topics[topic.name] = one_topic(topic.name, topics, topic, files.name)
        custom = files.information().get("custom_data")
        if isinstance(custom, dict):
            words |= {f"custom_data.{key}": str(value) for key, value in custom.items()}
        notes = files.notes if has_index else (*files.notes, f"{files.name} has no summary; it was read whole")
        ordered = tuple(sorted(files.paths, key=lambda path: first_ns[path]))
        return cls(name=files.name, paths=ordered, has_index=has_index, topics=topics, words=words, notes=notes)

    def messages(self, topics: frozenset[str]) -> Iterator[Message]:
        """Chunk by chunk; at most the chunks that overlap in time are in memory."""
        from mcap.reader import make_reader

        for path in self.paths:
            with path.open("rb") as file:
                try:
                    rows = make_reader(file, validate_crcs=True).iter_messages(
                        topics=sorted(topics), log_time_order=self.has_index
                    )
                    for _, channel, message in rows:
                        yield Message(channel.topic, message.log_time, message.publish_time, message.data)
                except _faults() as error:
                    raise EpisodeError(_damaged(self.name, error)) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Contents:
    """What one file holds."""

    topics: tuple[Topic, ...]
    first_ns: int
    has_index: bool
    words: dict[str, str]


def _contents(path: Path, name: str) -> _Contents:
    from mcap.reader import make_reader

    _check_whole(path, name)
    try:
        with path.open("rb") as file:
            reader = make_reader(file, validate_crcs=True)
            summary = reader.get_summary()
            if summary is None or summary.statistics is None or not _is_indexed(summary):
                return _scanned(path, name)
            counts = summary.statistics.channel_message_counts
            words = {
                f"{record.name}.{key}": value
                for record in reader.iter_metadata()
                for key, value in record.metadata.items()
            }
            return _Contents(
                topics=_topics(summary.channels, summary.schemas, counts),
                first_ns=summary.statistics.message_start_time,
                has_index=True,
                words=words,
            )
    except _faults() as error:
        raise EpisodeError(_damaged(name, error)) from None


def _is_indexed(summary: Any) -> bool:  # noqa: ANN401 - mcap's Summary
    """Whether every chunk is in the index; a file without chunks is read from front to back."""
    return bool(summary.chunk_indexes) and len(summary.chunk_indexes) == summary.statistics.chunk_count


def _topics(channels: Any, schemas: Any, counts: Any) -> tuple[Topic, ...]:  # noqa: ANN401 - mcap's records by id
    rows = []
    for channel in channels.values():
        schema = schemas.get(channel.schema_id)
        rows.append(
            Topic(
                name=channel.topic,
                type_name=schema.name if schema else "unknown",
                encoding=channel.message_encoding,
                definition=schema.data if schema else b"",
                definition_format=schema.encoding if schema else "",
                num_messages=counts.get(channel.id, 0),
            )
        )
    return tuple(rows)


def _check_whole(path: Path, name: str) -> None:
    """A recorder that was killed leaves no end mark: say how much of the file can still be read."""
    try:
        with path.open("rb") as file:
            head = file.read(len(_MAGIC))
            size = file.seek(0, 2)
            file.seek(max(size - len(_MAGIC), 0))
            tail = file.read()
    except OSError as error:
        raise EpisodeError(f"{name}: {path.name} can not be read ({error.strerror}). Copy it again.") from None
    if head != _MAGIC:
        raise EpisodeError(f"{name}: {path.name} is no MCAP file. Copy it again from the recorder, or drop it.")
    if tail == _MAGIC and size > 2 * len(_MAGIC):
        return
    scan = _Scan()
    scan.run(path)
    raise EpisodeError(
        f"{name}: {path.name} is truncated; {scan.span_s:.2f} s ({sum(scan.counts.values())} messages) can still be "
        f"read. Copy it again, or write what is left to a new file (`mcap recover`) and convert that."
    )


def _scanned(path: Path, name: str) -> _Contents:
    scan = _Scan()
    fault = scan.run(path)
    if fault is not None:
        raise EpisodeError(_damaged(name, fault))
    return _Contents(
        topics=_topics(scan.channels, scan.schemas, scan.counts),
        first_ns=scan.first_ns or 0,
        has_index=False,
        words=scan.words,
    )


class _Scan:
    """What reading a file from front to back meets before its end or its first fault."""

    def __init__(self) -> None:
        self.channels: dict[int, Any] = {}
        self.schemas: dict[int, Any] = {}
        self.counts: Counter[int] = Counter()
        self.words: dict[str, str] = {}
        self.first_ns: int | None = None
        self.last_ns = 0

    @property
    def span_s(self) -> float:
        return (self.last_ns - self.first_ns) / _NS if self.first_ns is not None else 0.0

    def run(self, path: Path) -> Exception | None:
        """Returns the fault that ended it, None at the file's end."""
        from mcap.records import Channel, Metadata, Schema
        from mcap.records import Message as Record
        from mcap.stream_reader import StreamReader

        try:
            with path.open("rb") as file:
                for record in StreamReader(file, validate_crcs=True).records:
                    match record:
                        case Record():
                            self.counts[record.channel_id] += 1
                            self.first_ns = min(self.first_ns or record.log_time, record.log_time)
                            self.last_ns = max(self.last_ns, record.log_time)
                        case Channel():
                            self.channels[record.id] = record
                        case Schema():
                            self.schemas[record.id] = record
                        case Metadata():
                            self.words |= {f"{record.name}.{key}": value for key, value in record.metadata.items()}
        except _faults() as error:
            return error
        return None


def _faults() -> tuple[type[Exception], ...]:
    """What mcap and its decompressors raise for damaged bytes (lz4 raises RuntimeError)."""
    from mcap.exceptions import McapError
    from zstandard import ZstdError

    return (McapError, ZstdError, struct.error, zlib.error, EOFError, RuntimeError, ValueError, OSError)


def _damaged(name: str, error: Exception) -> str:
    return f"{name}: not a readable MCAP file ({error or type(error).__name__}). Copy it again, or drop it."
