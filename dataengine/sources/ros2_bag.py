"""rosbag2's sqlite files: tables `topics` and `messages`, and from 2023 on the definitions of the types."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from dataengine.sources.recordings import Message, RecordingFiles, Topic, one_topic
from schemas.errors import EpisodeError

_COMMONEST = "ros2_humble"  # what a bag without definitions and without a distribution is taken for, and said
# Of one unpacked message; an uncompressed 8K picture has 100 MB. A frame of 40 kB can unpack to 1 GB.
_MAX_MESSAGE_BYTES = 1 << 28
_BLOCK = 64  # rows fetched at a time: pictures of 1 MB each


@dataclass(frozen=True, slots=True, kw_only=True)
class Ros2Recording:
    """One episode in one or more *.db3 files."""

    name: str
    paths: tuple[Path, ...]
    compressed: bool  # each message is a zstd frame of its own
    topics: dict[str, Topic]
    words: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @classmethod
    def open(cls, files: RecordingFiles) -> "Ros2Recording":
        """Read topics and counts. Raises EpisodeError for a damaged, missing or wholly compressed file."""
        about = files.information()
        if str(about.get("compression_mode") or "").upper() == "FILE":
            raise EpisodeError(f"{files.name}: its files are compressed as a whole. Run `zstd -d` on them first.")
        distribution = str(about.get("ros_distro") or "")
        builtin = f"ros2_{distribution}" if distribution not in ("", "rosbags", "unknown") else _COMMONEST
        topics: dict[str, Topic] = {}
        first_ns: dict[Path, int] = {}
        undefined: set[str] = set()
        for path in files.paths:
            try:
                with closing(_connect(path, files.name)) as database:
                    found = database.execute("SELECT MIN(timestamp) FROM messages").fetchone()[0]
                    first_ns[path] = found or 0
                    for topic in _topics(database, builtin):
                        topics[topic.name] = one_topic(topic.name, topics, topic, files.name)
                        undefined |= {topic.type_name} if topic.definition_format == builtin else set()
            except sqlite3.DatabaseError as error:
                raise EpisodeError(_damaged(files.name, path, error)) from None
        notes = list(files.notes)
        if undefined:
            notes.append(f"{files.name} stores no type definitions; those of {builtin} are taken")
        custom = about.get("custom_data")
        words = {f"custom_data.{key}": str(value) for key, value in custom.items()} if isinstance(custom, dict) else {}
        return cls(
            name=files.name,
            paths=tuple(sorted(files.paths, key=lambda path: first_ns[path])),
            compressed=str(about.get("compression_mode") or "").upper() == "MESSAGE",
            topics=topics,
            words=words,
            notes=tuple(notes),
        )

    def messages(self, topics: frozenset[str]) -> Iterator[Message]:
        """Row by row."""
        plain = _decompressor(self.name) if self.compressed else bytes
        for path in self.paths:
            try:
                with closing(_connect(path, self.name)) as database:
                    names = {
                        key: name for key, name in database.execute("SELECT id, name FROM topics") if name in topics
                    }
                    marks = ",".join("?" * len(names))
                    cursor = database.execute(
                        f"SELECT topic_id, timestamp, data FROM messages WHERE topic_id IN ({marks}) "
                        f"ORDER BY timestamp, id",
                        tuple(names),
                    )
                    cursor.arraysize = _BLOCK
                    for topic_id, stamp, data in cursor:
                        yield Message(names[topic_id], stamp, stamp, plain(data))
            except sqlite3.DatabaseError as error:
                raise EpisodeError(_damaged(self.name, path, error)) from None


def _connect(path: Path, name: str) -> sqlite3.Connection:
    if not path.is_file():
        raise EpisodeError(
            f"{name}: metadata.yaml lists {path.name}, which is not there. Copy it, or drop the episode."
        )
    journal = path.with_name(f"{path.name}-wal")
    if journal.is_file() and journal.stat().st_size:
        raise EpisodeError(
            f"{name}: the recorder was killed before it wrote {journal.name} into {path.name}. On a copy of both, run "
            f"`sqlite3 {path.name} 'PRAGMA wal_checkpoint(TRUNCATE)'`, or drop the episode."
        )
    # immutable: a read-only disk can hold no lock file
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)


def _topics(database: sqlite3.Connection, builtin: str) -> Iterator[Topic]:
    tables = {row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    definitions: dict[str, tuple[str, str]] = {}
    if "message_definitions" in tables:
        rows = database.execute("SELECT topic_type, encoding, encoded_message_definition FROM message_definitions")
        definitions = {kind: (encoding, text) for kind, encoding, text in rows if text and encoding != "unknown"}
    counts = dict(database.execute("SELECT topic_id, COUNT(*) FROM messages GROUP BY topic_id"))
    for key, name, kind, encoding in database.execute("SELECT id, name, type, serialization_format FROM topics"):
        definition_format, text = definitions.get(kind, (builtin, ""))
        yield Topic(
            name=name,
            type_name=kind,
            encoding=encoding,
            definition=text.encode(),
            definition_format=definition_format,
            num_messages=counts.get(key, 0),
        )


def _decompressor(name: str) -> Callable[[bytes], bytes]:
    """Unpacks a message. Raises EpisodeError for a damaged one, and one of more than _MAX_MESSAGE_BYTES."""
    import zstandard

    def plain(data: bytes) -> bytes:
        found = bytearray()
        try:
            said = zstandard.frame_content_size(data)  # -1: not said
            pieces = zstandard.ZstdDecompressor().read_to_iter(data) if said <= _MAX_MESSAGE_BYTES else ()
            for piece in pieces:
                found += piece
                if len(found) > _MAX_MESSAGE_BYTES:
                    break
        except zstandard.ZstdError:
            raise EpisodeError(f"{name}: a message is no whole zstd frame. Copy it again, or drop it.") from None
        if max(said, len(found)) > _MAX_MESSAGE_BYTES:
            raise EpisodeError(
                f"{name}: a message unpacks to more than {_MAX_MESSAGE_BYTES >> 20} MiB, which is the most that is "
                f"read. Drop the episode."
            )
        if 0 <= said != len(found):
            raise EpisodeError(f"{name}: a message is no whole zstd frame. Copy it again, or drop it.")
        return bytes(found)

    return plain


def _damaged(name: str, path: Path, error: Exception) -> str:
    return f"{name}: {path.name} is not a readable rosbag2 file ({error}). Copy it again, or drop it."
