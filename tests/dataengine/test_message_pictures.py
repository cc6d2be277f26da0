"""Pictures inside messages: every encoding is read exactly, and what is not read is refused by name."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from raw_files import jpeg, pictures
from raw_recordings import (
    START_NS,
    Row,
    compressed,
    compressed_depth,
    image,
    joint_state,
    png,
    state_at,
    write_ros2_mcap,
)

from dataengine.sources import open_source
from schemas.episodes import Episode
from schemas.errors import EpisodeError, RigError
from schemas.rigs import Rig


def rig(cameras: dict[str, Any]) -> Rig:
    return Rig.model_validate(
        {
            "name": "arm",
            "source": "mcap",
            "robot_type": "arm",
            "rate_hz": 30,
            "features": {"observation.state": {"key": "/joint_states.position"}},
            "cameras": cameras,
            "task": "Pick up the cup.",
            "clock": {"reference": "observation.state"},
        }
    )


def arrays(episode: Episode, camera: str) -> list[Any]:
    """Every picture of a camera, whatever its stream yields."""
    stream = episode.cameras[camera]
    word = next(word for word in ("jpegs", "arrays", "depths") if hasattr(stream, word))
    return list(getattr(stream, word)())


def still(rows: list[tuple[str, str, dict[str, Any]]], num: int = 4) -> list[Row]:
    """Each message at 30 Hz, with the same stamps as a joint state."""
    made: list[Row] = []
    for index in range(num):
        stamp = START_NS + index * 10**9 // 30
        made.append((stamp, "/joint_states", "sensor_msgs/msg/JointState", joint_state(stamp, state_at(stamp))))
        made += [(stamp, topic, kind, message) for topic, kind, message in rows]
    return made


def one_camera(tmp_path: Path, kind: str, message: dict[str, Any], **camera: Any) -> Episode:
    path = write_ros2_mcap(tmp_path / "one.mcap", still([("/c", f"sensor_msgs/msg/{kind}", message)]))
    return open_source(path, rig({"c": {"key": "/c", **camera}})).read(path.name)


FRAME = pictures(1, height=32, width=48)[0]
DEPTH = (np.arange(32 * 48, dtype=np.uint16).reshape(32, 48) * 7) + 1
ALPHA = np.dstack([FRAME, np.full((32, 48), 9, np.uint8)])
GRAY = np.repeat(FRAME[..., :1], 3, axis=2)


@pytest.mark.parametrize(
    ("message", "order", "expected"),
    [
        (image(START_NS, FRAME, "rgb8", padding=3), "rgb", FRAME),
        (image(START_NS, FRAME[..., ::-1].copy(), "bgr8"), "bgr", FRAME[..., ::-1]),
        (image(START_NS, ALPHA, "rgba8", padding=1), "rgb", FRAME),
        (image(START_NS, ALPHA[..., [2, 1, 0, 3]].copy(), "bgra8"), "bgr", FRAME[..., ::-1]),
        (image(START_NS, FRAME[..., 0].copy(), "mono8", padding=7), "rgb", GRAY),
    ],
)
def test_raw_encodings_are_read_exactly(
    tmp_path: Path, message: dict[str, Any], order: str, expected: NDArray[np.uint8]
) -> None:
    episode = one_camera(tmp_path, "Image", message)
    assert episode.cameras["c"].spec.channel_order == order
    for array in arrays(episode, "c"):
        np.testing.assert_array_equal(array, expected)


COLOUR = np.array([200, 90, 20], np.uint8)
BAYER = [
    ("bayer_rggb8", (0, 1, 1, 2)),
    ("bayer_bggr8", (2, 1, 1, 0)),
    ("bayer_gbrg8", (1, 2, 0, 1)),
    ("bayer_grbg8", (1, 0, 2, 1)),
]


def mosaic_of(channels: tuple[int, ...]) -> NDArray[np.uint8]:
    """(32, 48) of one colour, behind a Bayer filter."""
    raw = np.zeros((32, 48), np.uint8)
    for place, channel in enumerate(channels):
        raw[place // 2 :: 2, place % 2 :: 2] = COLOUR[channel]
    return raw


@pytest.mark.parametrize(("encoding", "channels"), BAYER)
def test_bayer_patterns_give_back_red_green_and_blue(tmp_path: Path, encoding: str, channels: tuple[int, ...]) -> None:
    array = arrays(one_camera(tmp_path, "Image", image(START_NS, mosaic_of(channels), encoding)), "c")[0]
    np.testing.assert_array_equal(array[8, 8], COLOUR)


@pytest.mark.parametrize(("encoding", "channels"), BAYER)
def test_a_compressed_mosaic_gives_back_red_green_and_blue(
    tmp_path: Path, encoding: str, channels: tuple[int, ...]
) -> None:
    raw = mosaic_of(channels)
    for data, words in (
        (png(raw), f"{encoding}; png compressed "),
        (jpeg(raw, quality=100), f"{encoding}; jpeg compressed "),
        (jpeg(raw, quality=100), f"{encoding}; jpeg compressed {encoding}"),
    ):
        episode = one_camera(tmp_path, "CompressedImage", compressed(START_NS, data, words))
        assert (episode.cameras["c"].spec.encoding, episode.cameras["c"].spec.channel_order) == ("raw", "rgb")
        np.testing.assert_allclose(arrays(episode, "c")[0][8, 8].astype(int), COLOUR, atol=3)
    converted = compressed(START_NS, jpeg(raw), f"{encoding}; jpeg compressed mono8")
    array = arrays(one_camera(tmp_path, "CompressedImage", converted), "c")[0]
    np.testing.assert_array_equal(array, np.repeat(array[..., :1], 3, axis=2))


@pytest.mark.parametrize(("encoding", "places"), [("yuv422", (1, 0, 3, 2)), ("yuv422_yuy2", (0, 1, 2, 3))])
def test_yuv422_gives_back_colours(tmp_path: Path, encoding: str, places: tuple[int, ...]) -> None:
    red = np.array([81, 90, 81, 240], np.uint8)  # Y U Y V of pure red in BT.601 video range
    raw = np.zeros((32, 24, 4), np.uint8)
    for value, place in zip(red, places, strict=True):
        raw[..., place] = value
    array = arrays(
        one_camera(tmp_path, "Image", image(START_NS, raw.reshape(32, 96)[..., None], encoding) | {"width": 48}), "c"
    )
    np.testing.assert_allclose(array[0][5, 5], (255, 0, 0), atol=4)


@pytest.mark.parametrize("big", [False, True])
def test_depth_follows_the_stated_byte_order(tmp_path: Path, big: bool) -> None:
    episode = one_camera(tmp_path, "Image", image(START_NS, DEPTH, "16UC1", padding=2, big=big), depth_unit_m=0.001)
    np.testing.assert_array_equal(arrays(episode, "c")[0], DEPTH)
    metres = DEPTH.astype(np.float32) / 1000
    metres[0, :3] = (np.nan, np.inf, 0)
    episode = one_camera(tmp_path, "Image", image(START_NS, metres, "32FC1", big=big), depth_unit_m=1.0)
    found = arrays(episode, "c")[0]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[0, :3], 0)
    np.testing.assert_array_equal(found[1:], metres[1:])


def test_compressed_depth_and_png_are_lossless(tmp_path: Path) -> None:
    episode = one_camera(tmp_path, "CompressedImage", compressed_depth(START_NS, DEPTH), depth_unit_m=0.001)
    np.testing.assert_array_equal(arrays(episode, "c")[0], DEPTH)
    words = "bgr8; png compressed bgr8"
    episode = one_camera(tmp_path, "CompressedImage", compressed(START_NS, png(FRAME), words))
    np.testing.assert_array_equal(arrays(episode, "c")[0], FRAME)


@pytest.mark.parametrize(
    ("message", "camera", "error"),
    [
        (compressed(START_NS, jpeg(FRAME), "jpeg"), {}, r"does not say the colour order of camera 'c'"),
        (compressed(START_NS, jpeg(FRAME)), {"channel_order": "bgr"}, r"says channel_order: bgr .* which is rgb"),
        (compressed(START_NS, b""), {}, r"/c message 0 is an empty picture"),
        (compressed(START_NS, b"theora", "theora"), {}, r"compressed as 'theora', which is not read"),
        (image(START_NS, FRAME, "rgb16"), {}, r"has encoding 'rgb16', which is not read. Known: rgb8"),
        (compressed(START_NS, png(DEPTH), "bayer_rggb16; png compressed "), {}, r"has encoding 'bayer_rggb16', which"),
        (image(START_NS, FRAME, "rgb8") | {"height": 0, "width": 0, "data": b""}, {}, r"is an empty picture \(0x0\)"),
        (image(START_NS, FRAME, "rgb8") | {"height": 31}, {}, r"4608 bytes and a step of 144, not what 48x31 rgb8"),
        (image(START_NS, DEPTH, "16UC1"), {}, r"holds depth \('16UC1'\). Write depth_unit_m"),
        (image(START_NS, FRAME, "rgb8"), {"depth_unit_m": 0.001}, r"has depth_unit_m, but its messages hold colour"),
    ],
)
def test_odd_pictures_are_refused_by_name(
    tmp_path: Path, message: dict[str, Any], camera: dict[str, Any], error: str
) -> None:
    kind = "Image" if "encoding" in message else "CompressedImage"
    with pytest.raises((EpisodeError, RigError), match=error):
        arrays(one_camera(tmp_path, kind, message, **camera), "c")


def test_streaming_a_camera_holds_a_few_pictures_and_not_all(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (300, 96, 128, 3), dtype=np.uint8)
    rows: list[Row] = []
    for index, frame in enumerate(noise):
        stamp = START_NS + index * 10**9 // 30
        rows.append((stamp, "/joint_states", "sensor_msgs/msg/JointState", joint_state(stamp, state_at(stamp))))
        rows.append((stamp, "/c", "sensor_msgs/msg/Image", image(stamp, frame, "rgb8")))
    path = write_ros2_mcap(tmp_path / "long.mcap", rows, chunk_bytes=256 * 1024)
    tracemalloc.start()
    stream: Any = open_source(path, rig({"c": {"key": "/c"}})).read(path.name).cameras["c"]
    assert sum(np.array_equal(array, frame) for array, frame in zip(stream.arrays(), noise, strict=True)) == 300
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < noise.nbytes / 3, f"{peak / 1e6:.1f} MB of {noise.nbytes / 1e6:.1f} MB were in memory at once"
