"""Writers of MCAP recordings, for tests: with the mcap and mcap_ros2 writers, protobuf and JSON by hand. They share
nothing with our readers.
"""

import base64
import io
import json
import struct
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from mcap.writer import CompressionType, Writer
from mcap_ros2.writer import Writer as Ros2Writer
from numpy.typing import NDArray
from PIL import Image

START_NS = 1_700_000_000_000_000_000
JOINTS = ("shoulder", "elbow", "wrist", "gripper")
LINE = "=" * 80
_HEADER = (
    f"\n{LINE}\nMSG: std_msgs/Header\nbuiltin_interfaces/Time stamp\nstring frame_id"
    f"\n{LINE}\nMSG: builtin_interfaces/Time\nint32 sec\nuint32 nanosec"
)
DEFINITIONS = {
    "sensor_msgs/msg/JointState": "std_msgs/Header header\nstring[] name\nfloat64[] position\nfloat64[] velocity\n"
    f"float64[] effort{_HEADER}",
    "sensor_msgs/msg/CompressedImage": f"std_msgs/Header header\nstring format\nuint8[] data{_HEADER}",
    "sensor_msgs/msg/Image": "std_msgs/Header header\nuint32 height\nuint32 width\nstring encoding\n"
    f"uint8 is_bigendian\nuint32 step\nuint8[] data{_HEADER}",
    "foxglove_msgs/msg/CompressedVideo": "builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\n"
    f"string format\n{LINE}\nMSG: builtin_interfaces/Time\nint32 sec\nuint32 nanosec",
    "std_msgs/msg/String": "string data",
    "robot_msgs/msg/Hand": "uint8 CLOSED=0\nuint8 OPEN=1\nbuiltin_interfaces/Time stamp\nuint8 state\nfloat64 width\n"
    f"float32[2] force\n{LINE}\nMSG: builtin_interfaces/Time\nint32 sec\nuint32 nanosec",
    "std_msgs/msg/Float64MultiArray": "std_msgs/MultiArrayLayout layout\nfloat64[] data"
    f"\n{LINE}\nMSG: std_msgs/MultiArrayLayout\nstd_msgs/MultiArrayDimension[] dim\nuint32 data_offset"
    f"\n{LINE}\nMSG: std_msgs/MultiArrayDimension\nstring label\nuint32 size\nuint32 stride",
}
Row = tuple[int, str, str, dict[str, Any]]  # log stamp ns, topic, type, message


def time_of(stamp_ns: int) -> dict[str, int]:
    return {"sec": stamp_ns // 10**9, "nanosec": stamp_ns % 10**9}


def header(stamp_ns: int) -> dict[str, Any]:
    return {"stamp": time_of(stamp_ns), "frame_id": "base"}


def joint_state(
    stamp_ns: int,
    values: NDArray[Any],
    *,
    names: Sequence[str] = JOINTS,
    order: Iterable[int] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """One JointState; `order` is the order in which this message names the joints."""
    places = list(order if order is not None else range(len(values)))
    return {
        "header": header(stamp_ns),
        "name": [names[place] for place in places],
        "position": [float(values[place]) for place in places],
        "velocity": [],
        "effort": [],
        **more,
    }


def image(stamp_ns: int, array: NDArray[Any], encoding: str, *, padding: int = 0, big: bool = False) -> dict[str, Any]:
    """One Image; rows end in `padding` stray bytes."""
    rows = array.astype(array.dtype.newbyteorder(">" if big else "<")).reshape(len(array), -1)
    raw = np.frombuffer(rows.tobytes(), np.uint8).reshape(len(array), -1)
    padded = np.concatenate([raw, np.full((len(array), padding), 0xAB, np.uint8)], axis=1)
    return {
        "header": header(stamp_ns),
        "height": array.shape[0],
        "width": array.shape[1],
        "encoding": encoding,
        "is_bigendian": int(big),
        "step": padded.shape[1],
        "data": padded.tobytes(),
    }


def compressed(stamp_ns: int, data: bytes, words: str = "rgb8; jpeg compressed bgr8") -> dict[str, Any]:
    return {"header": header(stamp_ns), "format": words, "data": data}


def png(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG")
    return buffer.getvalue()


def compressed_depth(stamp_ns: int, depth: NDArray[np.uint16]) -> dict[str, Any]:
    data = struct.pack("<iff", 0, 0.0, 0.0) + png(depth)
    return compressed(stamp_ns, data, "16UC1; compressedDepth png")


def annex_b(frames: NDArray[np.uint8], codec: str = "libx264", keyframe_every: int = 10) -> list[bytes]:
    """One coded picture for each frame, with start codes, parameters in every keyframe and no B-frames."""
    context = av.CodecContext.create(codec, "w")
    context.height, context.width = frames.shape[1:3]
    context.pix_fmt, context.time_base = "yuv420p", Fraction(1, 30)
    context.gop_size, context.max_b_frames = keyframe_every, 0
    context.options = (
        {"crf": "16", "tune": "zerolatency", "x264-params": "repeat-headers=1:scenecut=0"}
        if codec == "libx264"
        else {"crf": "16", "tune": "zerolatency", "x265-params": "repeat-headers=1:scenecut=0:bframes=0:log-level=none"}
    )
    packets: list[bytes] = []
    for frame in [*(av.VideoFrame.from_ndarray(array, format="rgb24") for array in frames), None]:
        packets += [bytes(packet) for packet in context.encode(frame)]
    assert len(packets) == len(frames)
    return packets


def write_ros2_mcap(
    path: Path,
    rows: Iterable[Row],
    *,
    compression: CompressionType = CompressionType.ZSTD,
    metadata: dict[str, dict[str, str]] | None = None,
    silent: dict[str, str] | None = None,
    chunk_bytes: int = 64 * 1024,
) -> Path:
    """A ROS 2 recording; `silent` are topics (and types) without a message."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        writer = Ros2Writer(file, chunk_size=chunk_bytes, compression=compression)
        schemas = {}
        for stamp, topic, kind, message in sorted(rows, key=lambda row: row[0]):
            if kind not in schemas:
                schemas[kind] = writer.register_msgdef(kind, DEFINITIONS[kind])
            writer.write_message(topic, schemas[kind], message, log_time=stamp, publish_time=stamp)
        for topic, kind in (silent or {}).items():
            schema = schemas.get(kind) or writer.register_msgdef(kind, DEFINITIONS[kind])
            writer._writer.register_channel(topic=topic, message_encoding="cdr", schema_id=schema.id)
        for name, words in (metadata or {}).items():
            writer.add_metadata(name, words)
        writer.finish()  # type: ignore[no-untyped-call]  # the library types its other calls
    return path


def teleop_rows(
    frames: NDArray[np.uint8],
    jpeg: Callable[[NDArray[np.uint8]], bytes],
    *,
    seed: int = 0,
    state_hz: float = 250.0,
    num_dims: int = 4,
    log_delay_ns: int = 3_000_000,
) -> list[Row]:
    """A multi-rate recording: joint states at 250 Hz with jitter, whose names change order; commands at 30 Hz; a JPEG
    camera with irregular stamps that starts late; a padded bgr8 camera; depth as 16UC1. Written 3 ms after its stamps.
    """
    rng = np.random.default_rng(seed)
    seconds = len(frames) / 30
    rows: list[Row] = []
    state_stamps = START_NS + np.sort(
        (np.arange(int(seconds * state_hz)) * 1e9 / state_hz + rng.uniform(-1e6, 1e6, int(seconds * state_hz))).astype(
            int
        )
    )
    for index, stamp in enumerate(state_stamps.tolist()):
        values = state_at(stamp, num_dims)
        order = list(rng.permutation(num_dims)) if index % 7 == 3 else None
        rows.append(
            (
                stamp + log_delay_ns,
                "/joint_states",
                "sensor_msgs/msg/JointState",
                joint_state(stamp, values, order=order),
            )
        )
    for index, frame in enumerate(frames):
        stamp = START_NS + index * 10**9 // 30
        command = {"layout": {"dim": [], "data_offset": 0}, "data": state_at(stamp + 50_000_000, num_dims).tolist()}
        rows.append(
            (stamp, "/arm/command", "std_msgs/msg/Float64MultiArray", command)
        )  # no header: the log stamp counts
        camera = stamp + 8_000_000 + int(rng.uniform(-3e6, 3e6))
        rows.append(
            (
                camera + log_delay_ns,
                "/cam/color/compressed",
                "sensor_msgs/msg/CompressedImage",
                compressed(camera, jpeg(frame)),
            )
        )
        wrist = image(camera, frame[::2, ::2, ::-1].copy(), "bgr8", padding=5)
        rows.append((camera + log_delay_ns, "/wrist/image_raw", "sensor_msgs/msg/Image", wrist))
        depth = (frame[..., 0].astype(np.uint16) * 20) + 300
        rows.append((camera + log_delay_ns, "/cam/depth", "sensor_msgs/msg/Image", image(camera, depth, "16UC1")))
    return rows


def state_at(stamp_ns: int, num_dims: int = 4) -> NDArray[np.float64]:
    """The made-up robot's joints at a time: what a row must hold can be computed from its stamp alone."""
    seconds = (stamp_ns - START_NS) / 1e9
    return np.array([np.sin(seconds * (dim + 1)) + dim for dim in range(num_dims)])


def write_json_mcap(path: Path, topics: dict[str, tuple[str, list[tuple[int, dict[str, Any]]]]]) -> Path:
    """topics: name -> (schema name, [(log ns, message)])."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        writer = Writer(file, compression=CompressionType.LZ4)
        writer.start()
        for name, (kind, messages) in topics.items():
            schema = writer.register_schema(kind, "jsonschema", b'{"type": "object"}')
            channel = writer.register_channel(name, "json", schema)
            for stamp, message in messages:
                writer.add_message(channel, stamp, json.dumps(message).encode(), stamp)
        writer.finish()
    return path


def json_image(stamp_ns: int, data: bytes) -> dict[str, Any]:
    """foxglove.CompressedImage in JSON."""
    return {
        "timestamp": {"sec": stamp_ns // 10**9, "nsec": stamp_ns % 10**9},
        "frame_id": "cam",
        "format": "jpeg",
        "data": base64.b64encode(data).decode(),
    }


def protobuf_types() -> tuple[bytes, dict[str, Any]]:
    """A FileDescriptorSet as an MCAP stores it, and classes that write foxglove-like messages."""
    file = FileDescriptorProto(name="test.proto", package="foxglove", syntax="proto3")
    stamp = file.message_type.add(name="Stamp")
    stamp.field.add(name="seconds", number=1, type=FieldDescriptorProto.TYPE_INT64, label=1)
    stamp.field.add(name="nanos", number=2, type=FieldDescriptorProto.TYPE_INT32, label=1)
    joint = file.message_type.add(name="JointState")
    joint.field.add(name="name", number=1, type=FieldDescriptorProto.TYPE_STRING, label=1)
    joint.field.add(name="position", number=2, type=FieldDescriptorProto.TYPE_DOUBLE, label=1)
    states = file.message_type.add(name="JointStates")
    _stamp_field(states)
    states.field.add(
        name="joints", number=2, type=FieldDescriptorProto.TYPE_MESSAGE, type_name=".foxglove.JointState", label=3
    )
    picture = file.message_type.add(name="CompressedImage")
    _stamp_field(picture)
    picture.field.add(name="data", number=2, type=FieldDescriptorProto.TYPE_BYTES, label=1)
    picture.field.add(name="format", number=3, type=FieldDescriptorProto.TYPE_STRING, label=1)
    pool = DescriptorPool()
    pool.Add(file)
    names = ("JointStates", "JointState", "CompressedImage", "Stamp")
    classes = {name: GetMessageClass(pool.FindMessageTypeByName(f"foxglove.{name}")) for name in names}
    return FileDescriptorSet(file=[file]).SerializeToString(), classes


def _stamp_field(message: Any) -> None:
    message.field.add(
        name="timestamp", number=1, type=FieldDescriptorProto.TYPE_MESSAGE, type_name=".foxglove.Stamp", label=1
    )


def write_protobuf_mcap(path: Path, frames: NDArray[np.uint8], jpeg: Callable[[NDArray[np.uint8]], bytes]) -> Path:
    """JointStates at 60 Hz (whose joints change places) and a JPEG camera at 30 Hz."""
    definition, classes = protobuf_types()
    with path.open("wb") as file:
        writer = Writer(file)
        writer.start()
        channels = {}
        for topic, kind in (("/joints", "JointStates"), ("/camera.front", "CompressedImage")):
            schema = writer.register_schema(f"foxglove.{kind}", "protobuf", definition)
            channels[topic] = writer.register_channel(topic, "protobuf", schema)
        for index in range(2 * len(frames)):
            stamp = START_NS + index * 10**9 // 60
            message = classes["JointStates"]()
            message.timestamp.seconds, message.timestamp.nanos = stamp // 10**9, stamp % 10**9
            places = range(3) if index % 2 else (2, 0, 1)
            for place in places:
                message.joints.add(name=JOINTS[place], position=float(state_at(stamp)[place]))
            writer.add_message(channels["/joints"], stamp, message.SerializeToString(), stamp)
        for index, frame in enumerate(frames):
            stamp = START_NS + index * 10**9 // 30
            picture = classes["CompressedImage"](data=jpeg(frame), format="jpeg")
            picture.timestamp.seconds, picture.timestamp.nanos = stamp // 10**9, stamp % 10**9
            writer.add_message(channels["/camera.front"], stamp, picture.SerializeToString(), stamp)
        writer.finish()
    return path
