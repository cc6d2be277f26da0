"""ROS 1 bags: chunks (plain, bz2 or lz4) of messages on connections; one topic may have several connections."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dataengine.sources.recordings import Message, RecordingFiles, Topic, one_topic
from schemas.errors import EpisodeError


@dataclass(frozen=True, slots=True, kw_only=True)
class Ros1Recording:
    """One episode in one ROS 1 bag."""

    name: str
    path: Path
    topics: dict[str, Topic]
    words: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @classmethod
    def open(cls, files: RecordingFiles) -> "Ros1Recording":
        """Read the index. Raises EpisodeError for a bag that was not closed or is damaged."""
        from rosbags.rosbag1 import Reader, ReaderError

        [path] = files.paths
        topics: dict[str, Topic] = {}
        digests: dict[str, str] = {}
        try:
            with Reader(path) as reader:
                for connection in reader.connections:
                    if digests.setdefault(connection.topic, connection.digest) != connection.digest:
                        raise EpisodeError(
                            f"{files.name}: topic {connection.topic} has two versions of {connection.msgtype}. "
                            f"Record them on topics of their own."
                        )
                    topic = Topic(
                        name=connection.topic,
                        type_name=connection.msgtype,
                        encoding="ros1",
                        definition=connection.msgdef.data.encode(),
                        definition_format="ros1msg",
                        num_messages=connection.msgcount,
                    )
                    topics[topic.name] = one_topic(topic.name, topics, topic, files.name)
        except (ReaderError, OSError, EOFError, ValueError, AssertionError) as error:
            raise EpisodeError(_damaged(files.name, error)) from None
        return cls(name=files.name, path=path, topics=topics, notes=files.notes)

    def messages(self, topics: frozenset[str]) -> Iterator[Message]:
        """Chunk by chunk."""
        from rosbags.rosbag1 import Reader, ReaderError

        try:
            with Reader(self.path) as reader:
                wanted = [each for each in reader.connections if each.topic in topics]
                if not wanted:
                    return  # rosbags would give all
                for connection, stamp, data in reader.messages(connections=wanted):
                    yield Message(connection.topic, stamp, stamp, data)
        except (ReaderError, OSError, EOFError, ValueError, RuntimeError) as error:
            raise EpisodeError(_damaged(self.name, error)) from None


def _damaged(name: str, error: Exception) -> str:
    text = str(error).strip().rstrip(".")
    if "index" in text.lower():
        return f"{name}: the bag was not closed ({text}). Run `rosbag reindex` on a copy of it, or drop it."
    return f"{name}: not a readable ROS 1 bag ({text or 'cut off'}). Copy it again, or drop it."
