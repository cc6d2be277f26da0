"""MCAP recordings: every value a row holds is the newest one recorded before it, and every picture the right one."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mcap.writer import CompressionType
from numpy.typing import NDArray
from raw_files import jpeg, pictures
from raw_recordings import (
    JOINTS,
    START_NS,
    Row,
    annex_b,
    compressed,
    joint_state,
    json_image,
    state_at,
    teleop_rows,
    time_of,
    write_json_mcap,
    write_protobuf_mcap,
    write_ros2_mcap,
)
from recording_rigs import STATE, arrays, read, rig

from dataengine.convert import convert
from dataengine.episode_set import EpisodeSet
from dataengine.rig_files import load_rig
from dataengine.sources import detect, open_source
from dataengine.verification import verify
from dataengine.workspace import Workspace
from schemas.episodes import Episode
from schemas.errors import EpisodeError, RigError, SourceError
from schemas.refs import Ref
from schemas.rigs import Arm, Position, Rig

NUM_FRAMES = 45
MS = 1_000_000


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mcap") / "run_0.mcap"
    return write_ros2_mcap(path, teleop_rows(pictures(NUM_FRAMES), jpeg), silent={"/never": "std_msgs/msg/String"})


def test_each_row_takes_the_newest_state_by_name_and_the_newest_picture(recording: Path) -> None:
    episode = read(recording, rig())
    rows_ns = episode.stamps_ns["action"]
    assert episode.num_frames == len(rows_ns) == NUM_FRAMES - 1, "the first command came before the first picture"
    state_ns = episode.stamps_ns["observation.state"]
    assert (state_ns <= rows_ns).all()
    assert (rows_ns - state_ns).max() < 8 * MS, "at 250 Hz with jitter nothing newer was there"
    expected = np.stack([state_at(stamp) for stamp in state_ns.tolist()])
    assert episode.columns["observation.state"].dtype == np.float64
    assert episode.columns["observation.state"].tobytes() == expected.tobytes(), "joints by name, bit for bit"
    commands = np.stack([state_at(stamp + 50 * MS) for stamp in rows_ns.tolist()])
    assert episode.columns["action"].tobytes() == commands.tobytes()
    frames = [jpeg(frame) for frame in pictures(NUM_FRAMES)]
    taken = [frames.index(picture) for picture in arrays(episode, "front")]
    assert taken == list(range(NUM_FRAMES - 1)), "the picture 25 ms before each command, never the one 8 ms after"
    skew = episode.skew["front"]
    assert 0.02 < skew.p50_s < skew.max_s < 0.031
    assert episode.skew["observation.state"].num_dropped > 250
    notes = " | ".join(episode.imported["alignment"])
    assert "stamps: header of /joint_states, /cam/color/compressed" in notes
    assert "stamps: log (no header stamp) of /arm/command" in notes
    assert "trimmed 1 rows at the start and 0 at the end" in notes


def test_raw_pictures_lose_their_row_padding_and_depth_keeps_its_millimetres(recording: Path) -> None:
    cameras = {
        "wrist": {"key": "/wrist/image_raw", "channel_order": "bgr"},
        "depth": {"key": "/cam/depth", "depth_unit_m": 0.001},
    }
    episode = read(recording, rig(cameras=cameras, clock={"reference": "wrist"}))
    assert episode.num_frames == NUM_FRAMES
    frames = pictures(NUM_FRAMES)
    assert episode.cameras["wrist"].spec.channel_order == "bgr"
    np.testing.assert_array_equal(np.stack(arrays(episode, "wrist")), frames[:, ::2, ::2, ::-1])
    depth = np.stack(arrays(episode, "depth"))
    assert depth.dtype == np.uint16
    assert episode.cameras["depth"].spec.depth_unit_m == 0.001
    np.testing.assert_array_equal(depth, frames[..., 0].astype(np.uint16) * 20 + 300)


def test_the_episode_id_is_the_contents_and_not_the_rigs(recording: Path, tmp_path: Path) -> None:
    first = read(recording, rig())
    other = read(recording, rig(cameras={}, rate_hz=60, clock={"max_age_s": 0.2}))
    assert first.meta.episode_id == other.meta.episode_id
    changed = write_ros2_mcap(tmp_path / "run_0.mcap", teleop_rows(pictures(NUM_FRAMES), jpeg, seed=1))
    assert read(changed, rig()).meta.episode_id != first.meta.episode_id


def test_convert_and_verify_a_folder_of_recordings_one_of_them_cut(workspace: Workspace, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    for index in range(5):
        rows = teleop_rows(pictures(24 + index, seed=index), jpeg, seed=index)
        write_ros2_mcap(raw / f"day_1/run_{index}.mcap", rows, metadata={"session": {"who": "ana"}})
    cut = raw / "day_1/run_4.mcap"
    cut.write_bytes(cut.read_bytes()[: int(cut.stat().st_size * 0.8)])
    path = tmp_path / "arm.yaml"
    given = rig(metadata={"keys": {"operator": "session.who"}})
    path.write_text(given.model_dump_json())
    ref = Ref("arm", "1")
    report = convert(source_path=raw, to=ref, workspace=workspace, rig=str(path), sink="both", max_rejected=0.5)
    assert (report.num_episodes, report.num_frames) == (4, 23 + 24 + 25 + 26)
    [row] = report.rejected
    assert row.episode == "day_1/run_4.mcap"
    assert "run_4.mcap is truncated; 0." in row.reason
    assert "s (" in row.reason
    episodes = EpisodeSet.open(workspace, ref)
    assert {episodes.row(each).metadata["operator"] for each in episodes.ids()} == {"ana"}
    stamps = episodes.recorded_stamps_ns(episodes.ids()[0])
    assert set(stamps) == {"observation.state", "action", "front"}
    cut.unlink()
    checked = verify(source_path=raw, ref=ref, workspace=workspace, rig=str(path))
    assert checked.ok, checked


def video_rows(frames: NDArray[np.uint8], codec: str, skip: int = 0) -> list[Row]:
    words = {"libx264": "h264", "libx265": "h265"}[codec]
    rows: list[Row] = []
    for index, data in enumerate(annex_b(frames, codec)):
        stamp = START_NS + index * 10**9 // 30
        message = {"timestamp": time_of(stamp), "frame_id": "c", "data": data, "format": words}
        if index >= skip:
            rows.append((stamp, "/video", "foxglove_msgs/msg/CompressedVideo", message))
        rows.append((stamp, "/joint_states", "sensor_msgs/msg/JointState", joint_state(stamp, state_at(stamp))))
    return rows


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_video_messages_are_decoded_in_order_from_their_first_key_picture(tmp_path: Path, codec: str) -> None:
    frames = pictures(40, height=96, width=128)
    path = write_ros2_mcap(tmp_path / "v.mcap", video_rows(frames, codec, skip=3))
    given = rig(
        features={"observation.state": STATE},
        cameras={"front": {"key": "/video"}},
        rate_hz=10,
        clock={"reference": None},
    )
    episode = read(path, given)
    assert (episode.cameras["front"].spec.height, episode.cameras["front"].spec.width) == (96, 128)
    numbers = np.searchsorted(START_NS + np.arange(40) * 10**9 // 30, episode.stamps_ns["front"])
    assert numbers.tolist() == list(range(10, 40, 3)), "message 3 to 9 lean on a key picture that was not recorded"
    for number, array in zip(numbers, arrays(episode, "front"), strict=True):
        errors = [float(np.abs(array.astype(int) - frame).mean()) for frame in frames]
        assert int(np.argmin(errors)) == number
        assert errors[number] < 6
    assert "'front': 7 pictures before its first key picture can not be decoded" in episode.imported["alignment"]


def state_only(tmp_path: Path, messages: list[dict[str, Any]], feature: dict[str, Any]) -> Episode:
    rows: list[Row] = [
        (START_NS + index * 10**9 // 30, "/joint_states", "sensor_msgs/msg/JointState", message)
        for index, message in enumerate(messages)
    ]
    path = write_ros2_mcap(tmp_path / "s.mcap", rows)
    return read(
        path, rig(features={"observation.state": feature}, cameras={}, clock={"reference": "observation.state"})
    )


def stamped(num: int = 6, **changes: Any) -> list[dict[str, Any]]:
    stamps = [START_NS + index * 10**9 // 30 for index in range(num)]
    return [joint_state(stamp, state_at(stamp), **changes) for stamp in stamps]


def test_two_publishers_on_one_topic_are_told_apart_by_joint_names(tmp_path: Path) -> None:
    rows: list[Row] = []
    for index in range(12):
        stamp = START_NS + index * 10**9 // 60
        values = state_at(stamp)
        message = joint_state(stamp, values, order=(0, 1, 2) if index % 2 == 0 else (3,))
        rows.append((stamp, "/joint_states", "sensor_msgs/msg/JointState", message))
    path = write_ros2_mcap(tmp_path / "two.mcap", rows)
    arm = {"key": "/joint_states.position", "joints": list(JOINTS[:3])}
    hand = {"key": "/joint_states.position", "joints": ["gripper"]}
    given = rig(
        features={"observation.state": arm, "observation.gripper": hand},
        cameras={},
        clock={"reference": "observation.state"},
    )
    episode = read(path, given)
    assert episode.num_frames == 5, "the gripper speaks for the first time after the first arm message"
    expected = np.stack([state_at(stamp)[:3] for stamp in episode.stamps_ns["observation.state"].tolist()])
    np.testing.assert_array_equal(episode.columns["observation.state"], expected)
    np.testing.assert_array_equal(
        episode.columns["observation.gripper"][:, 0],
        [state_at(stamp)[3] for stamp in episode.stamps_ns["observation.gripper"].tolist()],
    )


@pytest.mark.parametrize(
    ("messages", "feature", "error"),
    [
        (
            [*stamped(3), *stamped(6, order=(1, 0, 2, 3))[3:]],
            {"key": "/joint_states.position"},
            r"message 3 names its values in another order.*joints: of 'observation.state'",
        ),
        (stamped(), {"key": "/joint_states.velocity"}, r"message 0: /joint_states.velocity is empty"),
        (stamped(), {"key": "/joint_states.torque"}, r"reads /joint_states.torque, but /joint_states has header, name"),
        (stamped(), {"key": "/joints.position"}, r"no topic of that name \(has: /joint_states \(JointState\)\)"),
        (stamped(), {**STATE, "joints": ["shoulder", "knee"], "names": []}, r"has no 'knee' \(has: shoulder, elbow"),
        (stamped(), {"key": "/joint_states.position", "names": ["a", "b"]}, r"4 dimensions, but the rig names 2"),
        (
            [*stamped(4), *[m | {"header": {"stamp": time_of(START_NS), "frame_id": ""}} for m in stamped(6)[4:]]],
            STATE,
            r"header stamps of /joint_states go back by 0\.100 s at message 4.*clock\.stamp: log",
        ),
        (
            [*stamped(4), *[m | {"header": {"stamp": time_of(0), "frame_id": ""}} for m in stamped(6)[4:]]],
            STATE,
            r"message 4 of /joint_states has no header stamp, others have one",
        ),
    ],
)
def test_odd_states_are_refused_by_name(
    tmp_path: Path, messages: list[dict[str, Any]], feature: dict[str, Any], error: str
) -> None:
    with pytest.raises((EpisodeError, RigError), match=error):
        state_only(tmp_path, messages, feature)


def test_an_optional_velocity_that_is_always_empty_is_left_out(tmp_path: Path) -> None:
    features = {"observation.state": STATE, "observation.velocity": {"key": "/joint_states.velocity", "optional": True}}
    given = rig(features=features, cameras={}, clock={"reference": "observation.state"})
    rows: list[Row] = [
        (START_NS + index * 10**9 // 30, "/joint_states", "sensor_msgs/msg/JointState", message)
        for index, message in enumerate(stamped())
    ]
    source = open_source(write_ros2_mcap(tmp_path / "s.mcap", rows), given)
    assert list(source.rig.features) == ["observation.state"]
    full = [(*row[:3], row[3] | {"velocity": [0.5] * 4}) for row in rows]
    assert list(open_source(write_ros2_mcap(tmp_path / "s.mcap", full), given).rig.features) == list(features)


def test_header_stamps_of_zero_fall_back_to_the_log_and_say_so(tmp_path: Path) -> None:
    unset = {"stamp": time_of(0), "frame_id": ""}
    episode = state_only(tmp_path, [message | {"header": unset} for message in stamped()], STATE)
    assert episode.stamps_ns["observation.state"][0] == START_NS
    assert "stamps: log (header stamps are 0) of /joint_states" in episode.imported["alignment"]


def test_a_message_of_numbers_is_one_column_without_its_constants_and_stamps(tmp_path: Path) -> None:
    rows: list[Row] = []
    for index in range(5):
        stamp = START_NS + index * 10**9 // 30
        hand = {"stamp": time_of(stamp), "state": index % 2, "width": 0.5 * index, "force": [1.5, index]}
        rows.append((stamp, "/hand", "robot_msgs/msg/Hand", hand))
    features = {"observation.state": {"key": "/hand"}, "action": {"key": "/hand.force[1]"}}
    given = rig(features=features, cameras={}, clock={"reference": "action"})
    episode = read(write_ros2_mcap(tmp_path / "hand.mcap", rows), given)
    expected = [[index % 2, 0.5 * index, 1.5, index] for index in range(5)]
    np.testing.assert_array_equal(episode.columns["observation.state"], expected)
    np.testing.assert_array_equal(episode.columns["action"][:, 0], np.arange(5))


def test_protobuf_joints_are_read_by_name_and_topics_may_have_dots(tmp_path: Path) -> None:
    frames = pictures(20)
    path = write_protobuf_mcap(tmp_path / "p.mcap", frames, jpeg)
    given = rig(
        features={"observation.state": {"key": "/joints.joints.position", "joints": list(JOINTS[:3])}},
        cameras={"front": {"key": "/camera.front", "channel_order": "rgb"}},
        clock={"reference": "front"},
    )
    episode = read(path, given)
    assert episode.num_frames == 20
    expected = np.stack([state_at(stamp)[:3] for stamp in episode.stamps_ns["observation.state"].tolist()])
    np.testing.assert_array_equal(episode.columns["observation.state"], expected)
    assert arrays(episode, "front") == [jpeg(frame) for frame in frames]


def test_json_messages_are_read_with_their_base64_pictures(tmp_path: Path) -> None:
    stamps = [START_NS + index * 10**9 // 30 for index in range(10)]
    frames = pictures(10)
    path = write_json_mcap(
        tmp_path / "j.mcap",
        {
            "/arm": ("ArmState", [(stamp, {"q": {"a": [1, index], "b": 2.5}}) for index, stamp in enumerate(stamps)]),
            "/cam": (
                "foxglove.CompressedImage",
                [(s, json_image(s, jpeg(f))) for s, f in zip(stamps, frames, strict=True)],
            ),
        },
    )
    given = rig(
        features={"observation.state": {"key": "/arm.q"}, "action": {"key": "/arm.q.a[1]"}},
        cameras={"cam": {"key": "/cam", "channel_order": "rgb"}},
        clock={"reference": "cam"},
    )
    episode = read(path, given)
    np.testing.assert_array_equal(episode.columns["observation.state"], [[1, index, 2.5] for index in range(10)])
    np.testing.assert_array_equal(episode.columns["action"][:, 0], np.arange(10.0))
    assert arrays(episode, "cam") == [jpeg(frame) for frame in frames]


def test_recordings_without_robot_state_are_refused_with_what_they_hold(tmp_path: Path, samples: Path) -> None:
    path = samples / "lichtblick_mcap/custom-camera-model.mcap"
    assert detect(path) == "mcap"
    sentence = r"pictures but no robot state: /image/compressed \(CompressedImage\), /camera_calibration"
    with pytest.raises(SourceError, match=sentence):
        open_source(path, None)
    with pytest.raises(SourceError, match=sentence):
        open_source(path, rig())
    with pytest.raises(RigError, match=r"state no rate of rows.*Pass a rig"):
        open_source(write_ros2_mcap(tmp_path / "x.mcap", teleop_rows(pictures(5), jpeg)), None)


def test_a_real_recording_of_every_sensor_type_gives_its_joints(samples: Path) -> None:
    joints = {"key": "/joint_state.position"}
    clock = {"reference": "observation.state", "max_age_s": 1.0}
    given = rig(features={"observation.state": joints}, cameras={}, rate_hz=10, clock=clock)
    source = open_source(samples / "rerun_mcap", given)
    episode = source.read("rosbag2_2025_09_10-13_03_56_0.mcap")
    assert episode.columns["observation.state"].shape == (15, 4)
    with pytest.raises(EpisodeError, match=r"no message for 'observation.state'.*has: mouse \(MouseEvent\)"):
        source.read("simple-protobuf.mcap")
    mouse = rig(features={"observation.state": {"key": "mouse"}}, cameras={}, rate_hz=50, clock={"max_age_s": 5.0})
    assert read(samples / "rerun_mcap/simple-protobuf.mcap", mouse).columns["observation.state"].shape[1] == 2


def test_the_shipped_rig_reads_a_teleop_recording_with_real_pictures(samples: Path, tmp_path: Path) -> None:
    shards = sorted((samples / "octo_bridge_rlds").rglob("*.tfrecord-*"))
    shots = re.findall(rb"\xff\xd8\xff\xe0.+?\xff\xd9(?=[^\xff]{0,8})", shards[0].read_bytes(), re.DOTALL)[:20]
    given = load_rig("ros2_arm")
    joints = given.features["observation.state"].joints
    rows: list[Row] = []
    for index in range(5 * len(shots)):
        stamp = START_NS + index * 10**9 // 150
        for topic, delay in (("/joint_states", 0), ("/leader/joint_states", 1_000_000)):
            values = state_at(stamp + delay, 7)
            message = joint_state(stamp + delay, values, names=joints, order=range(6, -1, -1) if index % 2 else None)
            rows.append((stamp + delay, topic, "sensor_msgs/msg/JointState", message))
    for index, shot in enumerate(shots):
        stamp = START_NS + index * 10**9 // 30 + 2_000_000
        picture = compressed(stamp, shot)
        rows.append((stamp, "/camera/color/image_raw/compressed", "sensor_msgs/msg/CompressedImage", picture))
    rows.append((START_NS, "/instruction", "std_msgs/msg/String", {"data": "put the spoon in the pot"}))
    source = open_source(write_ros2_mcap(tmp_path / "teleop.mcap", rows, compression=CompressionType.LZ4), given)
    assert (list(source.rig.features), list(source.rig.cameras)) == (["observation.state", "action"], ["cam_high"])
    episode = source.read("teleop.mcap")
    assert episode.meta.task == "put the spoon in the pot"
    assert arrays(episode, "cam_high") == shots
    for name in ("observation.state", "action"):
        expected = np.stack([state_at(stamp, 7) for stamp in episode.stamps_ns[name].tolist()])
        np.testing.assert_array_equal(episode.columns[name], expected)


def test_an_arm_whose_joints_were_not_recorded_stays_where_its_tool_is_stated(tmp_path: Path) -> None:
    features = {"observation.state": STATE, "observation.joints": {"key": "/arm.position", "optional": True}}
    joints = {"feature": "observation.joints", "indices": [0], "joints": ["waist"], "tool": "tip"}
    arms = [{"name": "arm", **joints, "position": {"indices": [0, 1, 2]}}, {"name": "unstated arm", **joints}]
    words = {"cameras": {}, "clock": {"reference": "observation.state"}, "kinematics": {"file": "arm.xml"}}
    rows: list[Row] = [
        (START_NS + index * 10**9 // 30, "/joint_states", "sensor_msgs/msg/JointState", message)
        for index, message in enumerate(stamped())
    ]
    source = open_source(write_ros2_mcap(tmp_path / "s.mcap", rows), rig(features=features, arms=arms, **words))
    stated = Arm(name="arm", feature="observation.state", indices=(0, 1, 2), position=Position(indices=(0, 1, 2)))
    assert source.rig.arms == (stated,)
    assert Rig.model_validate_json(source.rig.model_dump_json()) == source.rig
