"""Writers of bags, for tests: rosbag2's sqlite by SQL, ROS 1 bags byte by byte. They share nothing with our readers."""

import bz2
import sqlite3
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from raw_recordings import DEFINITIONS, JOINTS, LINE, Row


def write_db3(path: Path, topics: dict[str, tuple[str, list[tuple[int, bytes]]]]) -> Path:
    """A rosbag2 sqlite file of 2022: no type definitions. topics: name -> (type, [(stamp, CDR bytes)])."""
    path.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(path)
    database.execute(
        "CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL, "
        "serialization_format TEXT NOT NULL, offered_qos_profiles TEXT NOT NULL)"
    )
    database.execute(
        "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL, timestamp INTEGER NOT NULL, "
        "data BLOB NOT NULL)"
    )
    database.execute("CREATE INDEX timestamp_idx ON messages (timestamp ASC)")
    for number, (name, (kind, messages)) in enumerate(topics.items(), start=1):
        database.execute("INSERT INTO topics VALUES(?, ?, ?, 'cdr', '')", (number, name, kind))
        database.executemany(
            "INSERT INTO messages(topic_id, timestamp, data) VALUES(?, ?, ?)",
            [(number, stamp, data) for stamp, data in messages],
        )
    database.commit()
    database.close()
    return path


def cdr_messages(rows: Iterable[Row]) -> dict[str, tuple[str, list[tuple[int, bytes]]]]:
    """Rows serialised by mcap_ros2's own CDR writer, by topic."""
    from mcap_ros2._dynamic import serialize_dynamic

    encoders: dict[str, Any] = {}
    topics: dict[str, tuple[str, list[tuple[int, bytes]]]] = {}
    for stamp, topic, kind, message in sorted(rows, key=lambda row: row[0]):
        if kind not in encoders:
            encoders[kind] = serialize_dynamic(kind, DEFINITIONS[kind])[kind]
        topics.setdefault(topic, (kind, []))[1].append((stamp, bytes(encoders[kind](message))))
    return topics


def _field(name: str, value: bytes) -> bytes:
    body = name.encode() + b"=" + value
    return struct.pack("<I", len(body)) + body


def _record(fields: list[tuple[str, bytes]], data: bytes) -> bytes:
    head = b"".join(_field(name, value) for name, value in fields)
    return struct.pack("<I", len(head)) + head + struct.pack("<I", len(data)) + data


def _ros1_time(stamp_ns: int) -> bytes:
    return struct.pack("<II", stamp_ns // 10**9, stamp_ns % 10**9)


def write_ros1_bag(
    path: Path, connections: list[tuple[str, str, str, list[tuple[int, bytes]]]], *, compression: str = "bz2"
) -> Path:
    """A ROS 1 bag 2.0 of one chunk, byte by byte; connections: (topic, type, definition, [(stamp, ROS 1 bytes)])."""
    rows = sorted(
        ((stamp, number, data) for number, (_, _, _, messages) in enumerate(connections) for stamp, data in messages)
    )
    chunk, places = b"", dict[int, list[tuple[int, int]]]()
    heads = b"".join(_ros1_connection(number, *connection[:3]) for number, connection in enumerate(connections))
    chunk += heads
    for stamp, number, data in rows:
        places.setdefault(number, []).append((stamp, len(chunk)))
        fields = [("op", b"\x02"), ("conn", struct.pack("<I", number)), ("time", _ros1_time(stamp))]
        chunk += _record(fields, data)
    packed = bz2.compress(chunk) if compression == "bz2" else chunk
    fields = [("op", b"\x05"), ("compression", compression.encode()), ("size", struct.pack("<I", len(chunk)))]
    body = _record(fields, packed)
    for number, entries in places.items():
        fields = [
            ("op", b"\x04"),
            ("ver", struct.pack("<I", 1)),
            ("conn", struct.pack("<I", number)),
            ("count", struct.pack("<I", len(entries))),
        ]
        body += _record(fields, b"".join(_ros1_time(stamp) + struct.pack("<I", place) for stamp, place in entries))
    chunk_place = 13 + 4096
    fields = [
        ("op", b"\x06"),
        ("ver", struct.pack("<I", 1)),
        ("chunk_pos", struct.pack("<Q", chunk_place)),
        ("start_time", _ros1_time(rows[0][0])),
        ("end_time", _ros1_time(rows[-1][0])),
        ("count", struct.pack("<I", len(places))),
    ]
    counts = b"".join(struct.pack("<II", number, len(entries)) for number, entries in places.items())
    index = heads + _record(fields, counts)
    fields = [
        ("op", b"\x03"),
        ("index_pos", struct.pack("<Q", chunk_place + len(body))),
        ("conn_count", struct.pack("<I", len(connections))),
        ("chunk_count", struct.pack("<I", 1)),
    ]
    head = b"".join(_field(name, value) for name, value in fields)
    bag_head = struct.pack("<I", len(head)) + head
    bag_head += struct.pack("<I", 4096 - len(bag_head) - 4)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"#ROSBAG V2.0\n" + bag_head.ljust(4096) + body + index)
    return path


def _ros1_connection(number: int, topic: str, kind: str, definition: str) -> bytes:
    about = [("topic", topic), ("type", kind), ("md5sum", "0" * 32), ("message_definition", definition)]
    data = b"".join(_field(name, value.encode()) for name, value in about)
    return _record([("op", b"\x07"), ("conn", struct.pack("<I", number)), ("topic", topic.encode())], data)


def ros1_joint_state(stamp_ns: int, values: NDArray[Any]) -> bytes:
    """sensor_msgs/JointState of ROS 1, by hand."""
    names = b"".join(struct.pack("<I", len(name)) + name.encode() for name in JOINTS[: len(values)])
    count = struct.pack("<I", len(values))
    return (
        struct.pack("<I", 7) + _ros1_time(stamp_ns) + struct.pack("<I", 0) + count + names
        + count + np.asarray(values, "<f8").tobytes() + struct.pack("<II", 0, 0)
    )  # fmt: skip


def ros1_compressed_image(stamp_ns: int, data: bytes) -> bytes:
    """sensor_msgs/CompressedImage of ROS 1, by hand."""
    words = b"rgb8; jpeg compressed bgr8"
    head = struct.pack("<I", 7) + _ros1_time(stamp_ns) + struct.pack("<I", 0)
    return head + struct.pack("<I", len(words)) + words + struct.pack("<I", len(data)) + data


ROS1_HEADER = f"\n{LINE}\nMSG: std_msgs/Header\nuint32 seq\ntime stamp\nstring frame_id\n"
ROS1_JOINT_STATE = (
    f"Header header\nstring[] name\nfloat64[] position\nfloat64[] velocity\nfloat64[] effort{ROS1_HEADER}"
)
ROS1_COMPRESSED_IMAGE = f"Header header\nstring format\nuint8[] data{ROS1_HEADER}"
