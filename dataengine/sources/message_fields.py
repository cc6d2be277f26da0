"""Messages as values: decoding by the stored type definition, and the numbers at a path inside one.

A rig names a value `topic.field.sub[3]`. An array or a message of numbers is a column of several dimensions; a list of
messages (foxglove's joints) gives one dimension for each.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dataengine.sources.recordings import Topic, listing
from schemas.errors import EpisodeError, SourceError

if TYPE_CHECKING:
    from rosbags.typesys.store import Typestore

_NAMES = ("name", "names", "joint_names")  # fields that say what the values beside them are
_NOT_VALUES = frozenset({"header", "timestamp", "stamp", "frame_id", "seq"})
_STRAY_BYTES = 8
_STEP = re.compile(r"\.?([A-Za-z_]\w*)|\[(\d+)\]")
type Node = Any  # a decoded message or any value inside it: what the codecs give


def decoder(topic: Topic) -> Callable[[bytes], Node]:
    """What turns stored bytes into a message. Raises SourceError for a type that cannot be read."""
    return _decoder(topic.type_name, topic.encoding, topic.definition, topic.definition_format, topic.name)


@lru_cache(maxsize=256)
def _decoder(
    type_name: str, encoding: str, definition: bytes, definition_format: str, topic: str
) -> Callable[[bytes], Node]:
    match encoding:
        case "json":
            return json.loads
        case "protobuf":
            return _protobuf_decoder(type_name, definition, topic)
        case "cdr" | "ros1":
            return _ros_decoder(type_name, encoding, definition.decode("utf-8", "replace"), definition_format, topic)
        case other:
            raise SourceError(f"{topic} is serialised as {other or 'nothing known'}, which is not read. Leave it out.")


def _protobuf_decoder(type_name: str, definition: bytes, topic: str) -> Callable[[bytes], Node]:
    from google.protobuf.message import DecodeError
    from mcap.exceptions import McapError
    from mcap.records import Schema
    from mcap_protobuf.decoder import DecoderFactory

    try:
        schema = Schema(id=1, name=type_name, encoding="protobuf", data=definition)
        decode = DecoderFactory().decoder_for("protobuf", schema)
    except (McapError, DecodeError, TypeError, KeyError) as error:
        raise SourceError(f"the definition of {topic} ({type_name}) cannot be read ({error}). Leave it out.") from None
    if decode is None:
        raise SourceError(f"{topic} ({type_name}) is protobuf without a protobuf definition. Leave it out.")
    return decode


def _ros_decoder(
    type_name: str, encoding: str, definition: str, definition_format: str, topic: str
) -> Callable[[bytes], Node]:
    from rosbags.typesys import Stores, TypesysError, get_types_from_idl, get_types_from_msg, get_typestore

    parts = type_name.split("/")
    full = type_name if len(parts) == 3 else f"{parts[0]}/msg/{parts[-1]}"
    try:
        if definition_format in {store.value for store in Stores}:
            store = get_typestore(Stores(definition_format))
            if full not in store.types:
                raise SourceError(
                    f"the bag stores no definition of {type_name} ({topic}), and {definition_format} has none. "
                    f"Record it again with rosbag2 of 2023 or later, or as MCAP."
                )
        else:
            store = get_typestore(Stores.EMPTY)
            reading = get_types_from_idl if definition_format == "ros2idl" else None
            store.register(reading(definition) if reading else get_types_from_msg(definition, full))
    except (TypesysError, ValueError) as error:
        raise SourceError(f"the definition of {topic} ({type_name}) cannot be read ({error}). Leave it out.") from None
    return (lambda data: store.deserialize_cdr(data, full)) if encoding == "cdr" else _ros1_reader(store, full)


def _ros1_reader(store: "Typestore", full: str) -> Callable[[bytes], Node]:
    """ROS itself reads past nothing it does not need: RealSense's recorder leaves 4 stray bytes after each picture."""
    definition = store.get_msgdef(full)

    def read(data: bytes) -> Node:
        message, end = definition.deserialize_ros1(data, 0, definition.cls, store)
        if not len(data) - _STRAY_BYTES <= end <= len(data):
            raise ValueError(f"{len(data)} bytes where {full} has {end}")
        return message

    return read


def decode_faults() -> tuple[type[Exception], ...]:
    """What the codecs raise for bytes that do not fit their definition."""
    import struct

    from google.protobuf.message import DecodeError
    from rosbags.serde import SerdeError

    # a cut message ends in an index, a shape or an assertion, by codec and field
    return (DecodeError, SerdeError, struct.error, ValueError, IndexError, KeyError, AssertionError, TypeError)


def child(node: Node, name: str) -> Node:
    """A field of a message or of a JSON object; None where there is none."""
    if isinstance(node, dict):
        return node.get(name)
    return getattr(node, name, None)


def field_names(node: Node) -> list[str]:
    """Fields of a message in declared order; none of a value."""
    if isinstance(node, dict):
        return list(node)
    if is_dataclass(node):  # what has a default is a constant of the type, e.g. POWER_SUPPLY_STATUS_FULL = 4
        return [each.name for each in fields(node) if each.default is MISSING]
    descriptor = getattr(node, "DESCRIPTOR", None)
    return [each.name for each in descriptor.fields] if descriptor is not None else []


def stamp_ns(message: Node) -> int | None:
    """`header.stamp` of ROS or `timestamp` of foxglove in ns; None where the type has neither, 0 where unset."""
    header = child(message, "header")
    stamp = child(header, "stamp") if header is not None else child(message, "timestamp")
    if stamp is None:
        return None
    seconds = next((value for name in ("sec", "seconds", "secs") if (value := child(stamp, name)) is not None), None)
    parts = (child(stamp, name) for name in ("nanosec", "nsec", "nanos", "nsecs"))
    nanos = next((value for value in parts if value is not None), 0)
    return None if seconds is None else int(seconds) * 1_000_000_000 + int(nanos)


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldPath:
    """A value inside the messages of one topic."""

    key: str  # as the rig writes it
    topic: str
    steps: tuple[str | int, ...]

    @classmethod
    def of(cls, key: str, topics: Mapping[str, Topic]) -> "FieldPath | None":
        """The longest topic that the key starts with, and the rest as steps; None where no topic fits.

        Raises SourceError for a rest that is no path.
        """
        fitting = [name for name in topics if key == name or (key.startswith(name) and key[len(name)] in ".[")]
        if not fitting:
            return None
        topic = max(fitting, key=len)
        rest, place, steps = key[len(topic) :], 0, list[str | int]()
        while place < len(rest):
            match = _STEP.match(rest, place)
            if match is None:
                raise SourceError(
                    f"'{key}': '{rest}' is no path. Write topic.field, topic.field.sub or topic.field[3]."
                )
            steps.append(match[1] or int(match[2]))
            place = match.end()
        return cls(key=key, topic=topic, steps=tuple(steps))

    def value(self, message: Node) -> Node:
        """What lies at the path; None where there is nothing."""
        return _follow(message, self.steps)

    def labels(self, message: Node) -> tuple[str, ...] | None:
        """What the message itself calls the values: the names beside them. None where it does not."""
        for depth in range(len(self.steps) - 1, -1, -1):
            if any(isinstance(step, int) for step in self.steps[depth:]):
                return None  # one value out of the named ones
            beside = _follow(message, self.steps[:depth])
            for name in _NAMES:
                found = _follow(beside, (name,)) if beside is not None else None
                if found is not None and not isinstance(found, str) and len(found) and isinstance(found[0], str):
                    return tuple(found)
        return None


def _follow(node: Node, steps: tuple[str | int, ...]) -> Node:
    for number, step in enumerate(steps):
        if node is None:
            return None
        if isinstance(step, int):
            node = node[step] if hasattr(node, "__len__") and step < len(node) else None
        elif _is_list(node) and not isinstance(node, np.ndarray):
            return [_follow(each, steps[number:]) for each in node]
        else:
            node = child(node, step)
    return node


def _is_list(node: Node) -> bool:
    return isinstance(node, np.ndarray) or (hasattr(node, "__len__") and not isinstance(node, str | bytes | dict))


def numbers(value: Node) -> NDArray[Any] | None:
    """A value as one row of numbers, (dims,); None where it holds anything else.

    Of a message: all its fields in declared order, without header, stamps and frame_id.
    """
    if isinstance(value, np.ndarray):
        return value.ravel() if value.dtype.kind in "fiub" else None
    if isinstance(value, np.generic):
        return np.array([value]) if value.dtype.kind in "fiub" else None
    if isinstance(value, bool | int | float):
        return np.array([value])
    if value is None or isinstance(value, str | bytes):
        return None
    if _is_list(value):
        parts = [numbers(each) for each in value]
    else:
        parts = [numbers(child(value, name)) for name in field_names(value) if name not in _NOT_VALUES]
        if not parts:
            return None
    whole = [part for part in parts if part is not None]
    if len(whole) != len(parts):
        return None
    return np.concatenate(whole) if whole else np.zeros(0)


def numeric_paths(message: Node, prefix: str = "", depth: int = 4) -> Iterator[tuple[str, NDArray[Any]]]:
    """Every field path of a message that holds numbers, topmost array or scalar first; fields of time left out."""
    for name in field_names(message):
        if name in _NOT_VALUES:
            continue
        value, path = child(message, name), f"{prefix}.{name}"
        found = numbers(value)
        if found is not None and len(found):
            yield path, found
        elif depth and value is not None and not _is_list(value) and not isinstance(value, str | bytes):
            yield from numeric_paths(value, path, depth - 1)


def text_at(path: FieldPath, message: Node, episode: str) -> str:
    """A text inside a message. Raises EpisodeError for anything else."""
    value = path.value(message)
    if not isinstance(value, str):
        raise EpisodeError(f"{episode}: {path.key} is no text. Correct task_key or metadata.keys in the rig.")
    return value.strip()


def no_topic(key: str, topics: Mapping[str, Topic]) -> str:
    """The half sentence that says what a key does not find."""
    return f"{key}, but no topic of that name (has: {listing(topics)})"
