"""`inspect` of recordings: topics with rates and gaps, and a draft rig that converts once it is answered."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from raw_files import jpeg, pictures
from raw_recordings import START_NS, Row, compressed_depth, image, joint_state, state_at, teleop_rows, write_ros2_mcap

from dataengine.inspected import InspectedTopic
from dataengine.inspection import inspect_path
from dataengine.inspection_pictures import inspection_pictures
from dataengine.rig_files import load_rig
from dataengine.sources import open_source
from schemas.rigs import Rig

ANSWERS = {
    "rate_hz: null": "rate_hz: 30",
    "task: null": "task: Pick up the cup.",
    "channel_order: unknown": "channel_order: rgb",
}


def answered(draft: str) -> Rig:
    """The draft as a person leaves it who answers only what stops it from loading."""
    for question, answer in ANSWERS.items():
        draft = draft.replace(question, answer)
    return Rig.model_validate(yaml.safe_load(draft))


def topic(topics: tuple[InspectedTopic, ...], name: str) -> InspectedTopic:
    return next(each for each in topics if each.name == name)


def test_topics_come_with_counts_rates_jitter_and_gaps(tmp_path: Path) -> None:
    rows = [row for row in teleop_rows(pictures(60), jpeg) if not (row[1].startswith("/arm") and 20 <= place(row) < 30)]
    write_ros2_mcap(tmp_path / "run.mcap", rows, silent={"/never": "std_msgs/msg/String"})
    (tmp_path / "cut.mcap").write_bytes((tmp_path / "run.mcap").read_bytes()[:5000])
    found = inspect_path(tmp_path)
    assert (found.kind, found.num_episodes, found.rate_text) == ("mcap", 2, "not stored")
    states, commands = topic(found.topics, "/joint_states"), topic(found.topics, "/arm/command")
    assert (states.type_name, states.encoding, states.num_messages) == ("sensor_msgs/msg/JointState", "cdr", 500)
    assert states.rate_hz == pytest.approx(250, rel=0.01)
    assert 0 < states.jitter_s < 0.003
    assert (commands.num_messages, commands.num_gaps) == (50, 1)
    assert commands.longest_gap_s == pytest.approx(11 / 30, abs=1e-3)
    assert [(each.key, each.encoding) for each in found.cameras] == [
        ("/cam/color/compressed", "rgb8; jpeg compressed bgr8"),
        ("/wrist/image_raw", "bgr8"),
        ("/cam/depth", "16UC1"),
    ]
    notes = " | ".join(found.notes)
    assert "1 topics have no message: /never" in notes
    assert "cut.mcap is broken and was passed over: cut.mcap is truncated" in notes
    assert ("/joint_states.position", (500, 4), "float64") in [(row.key, row.shape, row.dtype) for row in found.rows]


def place(row: tuple[int, str, str, dict[str, Any]]) -> int:
    return round((row[0] - START_NS) * 30 / 1e9)


def test_an_answered_draft_reads_every_stream_it_proposes(tmp_path: Path) -> None:
    rows = teleop_rows(pictures(45), jpeg)
    depth = np.full((48, 64), 700, np.uint16)
    for index in range(9):  # 6 Hz: slower than the clock allows by itself
        stamp = START_NS + index * 10**9 // 6
        rows.append((stamp, "/slow/depth", "sensor_msgs/msg/CompressedImage", compressed_depth(stamp, depth)))
        leader = joint_state(stamp, state_at(stamp))
        rows.append((stamp, "/leader/joint_states", "sensor_msgs/msg/JointState", leader))
    found = inspect_path(write_ros2_mcap(tmp_path / "run.mcap", rows))
    draft = found.draft_rig_yaml
    assert "max_age_s: 0.17  # ? as seen" in draft
    assert "joints: [shoulder, elbow, wrist, gripper]  # by name" in draft
    assert "reference: null  # ? the feature or camera whose stamps are the rows" in draft
    assert "depth_unit_m: 0.001  # ?" in draft
    given = answered(draft)
    assert given.features["observation.state"].key == "/joint_states.position"
    assert given.features["action"].key in ("/arm/command.data", "/leader/joint_states.position")
    assert given.cameras["wrist_image_raw"].channel_order == "bgr"
    episode = open_source(tmp_path, given).read("run.mcap")
    assert len(episode.columns) == 3
    np.testing.assert_array_equal(
        episode.columns["observation.state"],
        [state_at(stamp) for stamp in episode.stamps_ns["observation.state"].tolist()],
    )
    assert len(episode.cameras) == 4
    assert episode.num_frames > 35


def test_header_stamps_of_two_clocks_are_noted(tmp_path: Path) -> None:
    rows = teleop_rows(pictures(12), jpeg)
    same = write_ros2_mcap(tmp_path / "same.mcap", rows)
    assert not [note for note in inspect_path(same).notes if "clocks that differ" in note]
    boot = START_NS - 10**12
    black = np.zeros((8, 8, 3), np.uint8)
    late: list[Row] = []
    for stamp, name, kind, message in rows:
        wrist = name.startswith("/wrist")
        late.append((stamp, name, kind, image(stamp - boot, black, "rgb8") if wrist else message))
    [note] = [note for note in inspect_path(write_ros2_mcap(tmp_path / "two.mcap", late)).notes if "clocks" in note]
    assert "those of /wrist/image_raw are 1699999000.000 s before they were written" in note
    assert note.endswith("set clock.stamp: log")


def test_inspect_shows_a_picture_of_each_camera_before_the_draft_is_answered(tmp_path: Path) -> None:
    path = write_ros2_mcap(tmp_path / "run.mcap", teleop_rows(pictures(12), jpeg))
    shown = inspection_pictures(path, inspect_path(path))
    assert [each.camera for each in shown] == ["cam_color_compressed", "wrist_image_raw", "cam_depth"]
    assert all(each.png.startswith(b"\x89PNG") for each in shown)


def test_drafts_of_real_recordings_can_be_answered(samples: Path, tmp_path: Path) -> None:
    path = samples / "foxglove_rosbag1/example.bag"
    found = inspect_path(path)
    assert found.kind == "ros1_bag"
    assert topic(found.topics, "/turtle1/pose").rate_hz == pytest.approx(62.5, rel=0.01)
    file = tmp_path / "turtle.yaml"
    text = found.draft_rig_yaml
    for question, answer in ANSWERS.items():
        text = text.replace(question, answer)
    file.write_text(text)
    episode = open_source(path, load_rig(str(file))).read("example.bag")
    assert episode.columns["action"].shape[1] == 6
    assert episode.columns["observation.turtle1_pose"].shape[1] == 5


def test_a_recording_without_state_says_so(samples: Path) -> None:
    found = inspect_path(samples / "lichtblick_mcap/custom-camera-model.mcap")
    assert [(each.key, each.width) for each in found.cameras] == [("/image/compressed", 520)]
    notes = " | ".join(found.notes)
    assert "no topic could be robot state" in notes
    assert "the colour order is not stored: /image/compressed" in notes
