"""Recordings: stamped messages on named topics, whatever file they lie in (MCAP, ROS 1 bag, rosbag2 sqlite).

One recording is one episode: a file, or the files that the metadata.yaml of a rosbag2 folder lists.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import yaml

from dataengine.sources.content import natural_key
from schemas.errors import EpisodeError, SourceError
from schemas.rigs import SourceKind

SUFFIXES: Mapping[str, SourceKind] = {".mcap": "mcap", ".bag": "ros1_bag", ".db3": "ros2_bag"}
_METADATA = "metadata.yaml"
_PICTURES = {
    "Image": "raw",
    "RawImage": "raw",
    "CompressedImage": "compressed",
    "CompressedVideo": "video",
}
# Types that describe the recording or the cameras, or list what no fixed row of numbers can hold.
_NO_STATE = frozenset(
    [
        "CameraInfo",
        "CameraCalibration",
        "Log",
        "ParameterEvent",
        "WriteSplitEvent",
        "String",
        "KeyValue",
        "DiagnosticArray",
        "TFMessage",
        "tfMessage",
        "FrameTransform",
        "FrameTransforms",
        "TransformStamped",
        "Transform",
        "PointCloud",
        "PointCloud2",
        "MarkerArray",
        "Marker",
        "SceneUpdate",
        "StreamInfo",
        "PointField",
        "Grid",
        "OccupancyGrid",
        "LaserScan",
        "LaserEcho",
        "MultiEchoLaserScan",
        "ImageAnnotations",
        "Empty",
        "Clock",
        "RegionOfInterest",
        "TimeReference",
        "JoyFeedback",
        "JoyFeedbackArray",
        "ChannelFloat32",
        "Header",
        "Bool",
    ]
)


class Message(NamedTuple):
    """One message as stored. Stamps in ns: when it was written, and when it was sent where that is known."""

    topic: str
    log_ns: int
    publish_ns: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """One topic: the type of its messages, how they are serialised, and what defines the type."""

    name: str
    type_name: str  # "sensor_msgs/msg/JointState", "foxglove.CompressedImage", ...
    encoding: str  # "cdr", "ros1", "protobuf", "json"
    definition: bytes
    definition_format: str  # "ros2msg", "ros2idl", "ros1msg", "protobuf", "jsonschema"; "ros2_humble" etc.: built in
    num_messages: int

    @property
    def short_type(self) -> str:
        """`JointState` of sensor_msgs/msg/JointState."""
        return re.split(r"[/.]", self.type_name)[-1]

    @property
    def picture_kind(self) -> str | None:
        """ "raw", "compressed" or "video" of a topic of pictures; None for any other."""
        return _PICTURES.get(self.short_type)

    @property
    def may_be_state(self) -> bool:
        """Whether its messages could be what a robot measures or is told."""
        return self.picture_kind is None and self.short_type not in _NO_STATE


class Recording(Protocol):
    """One episode's messages. `words` holds text stored beside them, by "record.key"."""

    @property
    def topics(self) -> Mapping[str, Topic]: ...
    @property
    def words(self) -> Mapping[str, str]: ...
    @property
    def notes(self) -> tuple[str, ...]: ...

    def messages(self, topics: frozenset[str]) -> Iterator[Message]:
        """All messages of some topics in the order of their log stamps; of one topic always in the same order."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingFiles:
    """Which files one episode lies in, and what its folder's metadata.yaml says of them."""

    name: str  # relative to the folder that was named
    paths: tuple[Path, ...]
    metadata: Path | None = None  # rosbag2's, where there is one that can be read
    notes: tuple[str, ...] = ()

    def open(self, kind: SourceKind) -> Recording:
        """Raises EpisodeError for a truncated or damaged file."""
        match kind:
            case "mcap":
                from dataengine.sources.mcap_files import McapRecording

                return McapRecording.open(self)
            case "ros1_bag":
                from dataengine.sources.ros1_bag import Ros1Recording

                return Ros1Recording.open(self)
            case "ros2_bag":
                from dataengine.sources.ros2_bag import Ros2Recording

                return Ros2Recording.open(self)
            case other:
                raise SourceError(f"{other} is no recording of messages.")

    def information(self) -> dict[str, Any]:
        """What rosbag2 wrote about the bag; empty where there is no metadata.yaml."""
        return _information(self.metadata) or {} if self.metadata else {}


def kind_of_file(name: str) -> SourceKind | None:
    """The format of a recording file by its name; None for any other file."""
    return SUFFIXES.get(Path(name).suffix)


def find_recordings(root: Path, kind: SourceKind) -> list[RecordingFiles]:
    """Every recording in or below a folder (or the one file named), in natural order; hidden ones are none.

    Files that a metadata.yaml lists are one episode; any other file is its own. Names alone join nothing: people number
    separate demonstrations after their folder just as rosbag2 numbers the parts of one (pick/pick_0.mcap ...).
    """
    if root.is_file():
        return [RecordingFiles(name=root.name, paths=(root,))]
    found: list[RecordingFiles] = []
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        mine = [name for name in files if not name.startswith(".") and kind_of_file(name) == kind]
        if mine:
            found += _of_folder(root, Path(folder), sorted(mine, key=natural_key))
    return sorted(found, key=lambda each: natural_key(each.name))


def _of_folder(root: Path, folder: Path, files: list[str]) -> list[RecordingFiles]:
    name = root.resolve().name if folder == root else folder.relative_to(root).as_posix()
    metadata = folder / _METADATA
    about = _information(metadata) if metadata.is_file() else None
    listed = [] if about is None else [Path(str(path)).name for path in about.get("relative_file_paths") or ()]
    together = [path for path in listed if path in files]
    notes: list[str] = []
    if about is not None and together != listed:
        missing = [path for path in listed if path not in files]
        if together:  # part of a split bag is gone: the episode has a hole, which reading it says
            together = listed
        else:
            notes.append(f"{name}: metadata.yaml names {missing[0]}, which is not there; the files there are taken")
    numbered = _numbered(folder.resolve().name, files) if not together else []
    if len(numbered) == len(listed):  # the folder was renamed, and its files with it
        together = together or numbered
    alone = [file for file in files if file not in together]
    here = folder.relative_to(root)
    unsaid = [] if together or len(numbered) < 2 else [_unsaid(name, numbered)]
    episodes = [
        RecordingFiles(
            name=(here / file).as_posix(), paths=(folder / file,), notes=tuple(unsaid if file in numbered else ())
        )
        for file in alone
    ]
    if together:
        paths = tuple(folder / file for file in together)
        own = metadata if about is not None else None
        episodes.append(RecordingFiles(name=name, paths=paths, metadata=own, notes=tuple(notes)))
    return episodes


def _numbered(stem: str, files: list[str]) -> list[str]:
    """rosbag2 names the parts of bag `run` run_0, run_1, ...: these, where they are whole."""
    parts = {int(match[1]): file for file in files if (match := re.fullmatch(rf"{re.escape(stem)}_(\d+)\.\w+", file))}
    return [parts[index] for index in range(len(parts))] if set(parts) == set(range(len(parts))) else []


def _unsaid(name: str, files: list[str]) -> str:
    return (
        f"{name}: {files[0]} to {files[-1]} are named like the parts of one split recording, but no metadata.yaml "
        f"lists them: each is an episode of its own. If they are one, run `ros2 bag reindex` on the folder"
    )


def _information(path: Path) -> dict[str, Any] | None:
    """rosbag2's metadata.yaml; None for any other file of that name."""
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError):
        return None
    about = value.get("rosbag2_bagfile_information") if isinstance(value, dict) else None
    return about if isinstance(about, dict) else None


def one_topic(name: str, topics: Mapping[str, Topic], topic: Topic, episode: str) -> Topic:
    """`topic` joined with what is known of it. Raises EpisodeError where one topic has messages of two types."""
    known = topics.get(name)
    if known is None:
        return topic
    if (known.type_name, known.encoding) != (topic.type_name, topic.encoding):
        raise EpisodeError(
            f"{episode}: topic {name} has messages of {known.type_name} and of {topic.type_name}. "
            f"Record them on topics of their own."
        )
    return Topic(
        name=name,
        type_name=known.type_name,
        encoding=known.encoding,
        definition=known.definition,
        definition_format=known.definition_format,
        num_messages=known.num_messages + topic.num_messages,
    )


def listing(topics: Mapping[str, Topic], shown: int = 8) -> str:
    """Topics with messages and their types, for a sentence."""
    rows = [f"{topic.name} ({topic.short_type})" for topic in topics.values() if topic.num_messages]
    more = f" and {len(rows) - shown} more" if len(rows) > shown else ""
    return (", ".join(rows[:shown]) + more) or "no topic with a message"
