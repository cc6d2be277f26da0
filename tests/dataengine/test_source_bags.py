"""ROS 1 bags and rosbag2's sqlite files: split, unlabelled, compressed, cut; real ones and such as we wrote."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from raw_bags import (
    ROS1_COMPRESSED_IMAGE,
    ROS1_JOINT_STATE,
    cdr_messages,
    ros1_compressed_image,
    ros1_joint_state,
    write_db3,
    write_ros1_bag,
)
from raw_files import jpeg, pictures
from raw_recordings import JOINTS, START_NS, joint_state, state_at, teleop_rows, write_ros2_mcap

from dataengine.convert import convert
from dataengine.episode_set import EpisodeSet
from dataengine.inspection import inspect_path
from dataengine.rig_files import load_rig
from dataengine.sources import detect, open_source, ros2_bag
from dataengine.verification import verify
from dataengine.workspace import Workspace
from schemas.episodes import Episode
from schemas.errors import EpisodeError, RigError, SourceError
from schemas.refs import Ref
from schemas.rigs import Rig

BAG2 = Path("ros2_rosbag2/rosbag2_py/test/resources")
STATE = {"key": "/joint_states.position", "joints": list(JOINTS), "names": list(JOINTS)}


def rig(source: str, **changes: Any) -> Rig:
    fields: dict[str, Any] = {
        "name": "arm",
        "source": source,
        "robot_type": "arm",
        "rate_hz": 30,
        "features": {"observation.state": STATE},
        "cameras": {"front": {"key": "/cam/color/compressed"}},
        "task": "Pick up the cup.",
        "clock": {"reference": "front"},
    }
    return Rig.model_validate({**fields, **changes})


def low_dim(source: str, key: str, rate_hz: int, **changes: Any) -> Rig:
    clock = {"reference": "observation.state", **changes}
    return rig(source, features={"observation.state": {"key": key}}, cameras={}, rate_hz=rate_hz, clock=clock)


def jpegs(episode: Episode) -> list[bytes]:
    stream: Any = episode.cameras["front"]
    return list(stream.jpegs())


def write_ros1_episode(path: Path, num_frames: int, *, seed: int = 0, compression: str = "bz2") -> Path:
    """Joint states at 90 Hz and a camera at 30 Hz on two connections of one topic, written by turns."""
    states = [START_NS + index * 10**9 // 90 for index in range(3 * num_frames)]
    frames = [START_NS + index * 10**9 // 30 + 2_000_000 for index in range(num_frames)]
    shown = [
        (stamp, ros1_compressed_image(stamp, jpeg(frame)))
        for stamp, frame in zip(frames, pictures(num_frames, seed=seed), strict=True)
    ]
    camera = ("/cam/color/compressed", "sensor_msgs/CompressedImage", ROS1_COMPRESSED_IMAGE)
    connections = [
        (
            "/joint_states",
            "sensor_msgs/JointState",
            ROS1_JOINT_STATE,
            [(stamp, ros1_joint_state(stamp, state_at(stamp))) for stamp in states],
        ),
        (*camera, shown[::2]),
        (*camera, shown[1::2]),
    ]
    return write_ros1_bag(path, connections, compression=compression)


@pytest.mark.parametrize("compression", ["none", "bz2"])
def test_a_ros1_bag_with_two_connections_on_one_topic_is_read_in_order(tmp_path: Path, compression: str) -> None:
    path = write_ros1_episode(tmp_path / "run.bag", 20, compression=compression)
    assert detect(path) == detect(tmp_path) == "ros1_bag"
    episode = open_source(path, rig("ros1_bag")).read("run.bag")
    assert jpegs(episode) == [jpeg(frame) for frame in pictures(20)]
    stamps = episode.stamps_ns["observation.state"]
    assert (episode.stamps_ns["front"] - stamps).tolist() == [2_000_000] * 20
    expected = np.stack([state_at(stamp) for stamp in stamps.tolist()])
    assert episode.columns["observation.state"].tobytes() == expected.tobytes()


def test_convert_and_verify_a_folder_of_ros1_bags(tmp_path: Path, workspace: Workspace) -> None:
    for index in range(2):
        write_ros1_episode(tmp_path / f"raw/run_{index}.bag", 20 + index, seed=index)
    path = tmp_path / "arm.yaml"
    path.write_text(rig("ros1_bag").model_dump_json())
    ref = Ref("arm", "1")
    report = convert(source_path=tmp_path / "raw", to=ref, workspace=workspace, rig=str(path), sink="both")
    assert (report.num_episodes, report.num_frames, report.rejected) == (2, 41, ())
    assert verify(source_path=tmp_path / "raw", ref=ref, workspace=workspace, rig=str(path)).ok
    assert EpisodeSet.open(workspace, ref).recorded_stamps_ns(EpisodeSet.open(workspace, ref).ids()[0]).keys() == {
        "observation.state",
        "front",
    }


def test_a_bag_that_was_not_closed_or_is_cut_is_refused(tmp_path: Path) -> None:
    whole = write_ros1_episode(tmp_path / "whole.bag", 20)
    cut = tmp_path / "cut.bag"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    (tmp_path / "no.bag").write_bytes(b"PK\x03\x04")
    source = open_source(tmp_path, rig("ros1_bag"))
    assert source.names() == ["cut.bag", "no.bag", "whole.bag"]
    assert source.read("whole.bag").num_frames == 20
    for name, sentence in {"cut.bag": "was not closed.*rosbag reindex", "no.bag": "not a readable ROS 1 bag"}.items():
        with pytest.raises(EpisodeError, match=sentence):
            source.read(name)
    whole.unlink()
    with pytest.raises(SourceError, match=r"none of the 2 recordings can be read. The first: cut\.bag"):
        open_source(tmp_path, rig("ros1_bag"))


def db3_parts(folder: Path, num_frames: int, parts: int, metadata: str | None) -> Path:
    """One recording split by time into several files, as rosbag2 does."""
    rows = sorted(teleop_rows(pictures(num_frames), jpeg), key=lambda row: row[0])
    size = -(-len(rows) // parts)
    for part in range(parts):
        topics = cdr_messages(rows[part * size : (part + 1) * size])
        write_db3(folder / f"{folder.name}_{part}.db3", topics)
    if metadata is not None:
        (folder / "metadata.yaml").write_text(metadata)
    return folder


def metadata_yaml(*files: str, **more: str) -> str:
    lines = ["rosbag2_bagfile_information:", "  version: 5", "  storage_identifier: sqlite3", "  relative_file_paths:"]
    return "\n".join(
        [*lines, *(f"  - {file}" for file in files), *(f"  {key}: {value}" for key, value in more.items())]
    )


def test_a_split_bag_is_one_episode_where_its_metadata_lists_the_parts(tmp_path: Path) -> None:
    names = [f"a/run/run_{part}.db3" for part in range(3)]
    db3_parts(tmp_path / "a/run", 45, 3, metadata_yaml(*(Path(name).name for name in names)))
    db3_parts(tmp_path / "c/run", 45, 1, None)
    source = open_source(tmp_path, rig("ros2_bag"))
    assert source.names() == ["a/run", "c/run/run_0.db3"]
    a, c = (source.read(name) for name in source.names())
    assert a.num_frames == c.num_frames == 45
    assert jpegs(a) == jpegs(c) == [jpeg(frame) for frame in pictures(45)]
    assert a.columns["observation.state"].tobytes() == c.columns["observation.state"].tobytes()
    assert "a/run stores no type definitions; those of ros2_humble are taken" in a.imported["alignment"]
    (tmp_path / "a/run/run_1.db3").unlink()
    with pytest.raises(EpisodeError, match=r"a/run: metadata\.yaml lists run_1\.db3, which is not there"):
        open_source(tmp_path, rig("ros2_bag")).read("a/run")


def test_recordings_numbered_after_their_folder_are_not_merged_and_it_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "raw/pick"
    for number in range(3):  # three demonstrations, saved by a person under the folder's name
        write_db3(folder / f"pick_{number}.db3", cdr_messages(teleop_rows(pictures(20, seed=number), jpeg)))
    source = open_source(tmp_path / "raw", rig("ros2_bag"))
    assert source.names() == ["pick/pick_0.db3", "pick/pick_1.db3", "pick/pick_2.db3"]
    first = source.read("pick/pick_1.db3")
    assert jpegs(first) == [jpeg(frame) for frame in pictures(20, seed=1)]
    note = "pick: pick_0.db3 to pick_2.db3 are named like the parts of one split recording, but no metadata.yaml lists"
    assert any(row.startswith(note) for row in first.imported["alignment"])
    assert sum(record.getMessage().startswith(note) for record in caplog.records) == 1
    assert any(row.startswith(note) for row in inspect_path(tmp_path / "raw").notes)


@pytest.mark.parametrize("said", [True, False])
def test_a_compressed_message_that_unpacks_to_more_than_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bool
) -> None:
    rows = sorted(teleop_rows(pictures(12), jpeg), key=lambda row: row[0])
    pack = zstandard.ZstdCompressor(write_content_size=said).compress
    messages = cdr_messages(rows)
    path = write_db3(tmp_path / "run/run_0.db3", messages)
    with closing(sqlite3.connect(path)) as database, database:
        for key, data in database.execute("SELECT id, data FROM messages").fetchall():
            database.execute("UPDATE messages SET data = ? WHERE id = ?", (pack(data), key))
    (tmp_path / "run/metadata.yaml").write_text(
        metadata_yaml("run_0.db3", compression_mode="MESSAGE", compression_format="zstd")
    )
    source = open_source(tmp_path / "run", rig("ros2_bag"))
    assert jpegs(source.read("run")) == [jpeg(frame) for frame in pictures(12)]
    with closing(sqlite3.connect(path)) as database, database:
        number = database.execute("SELECT id FROM topics WHERE name = '/joint_states'").fetchone()[0]
        bomb = pack(b"\0" * (3 << 20))
        database.execute("UPDATE messages SET data = ? WHERE topic_id = ?", (bomb, number))
    monkeypatch.setattr(ros2_bag, "_MAX_MESSAGE_BYTES", 1 << 20)
    with pytest.raises(EpisodeError, match="a message unpacks to more than 1 MiB"):
        source.read("run")


def test_a_database_whose_journal_was_not_written_back_is_refused(tmp_path: Path) -> None:
    folder = db3_parts(tmp_path / "run", 12, 1, None)
    [path] = folder.glob("*.db3")
    database = sqlite3.connect(path)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("DELETE FROM messages WHERE id > 100")
    database.commit()
    killed = tmp_path / "killed"
    shutil.copytree(folder, killed)  # while it is open: as a killed recorder leaves it
    database.close()
    with pytest.raises(SourceError, match=r"killed before it wrote run_0\.db3-wal into run_0\.db3"):
        open_source(killed, rig("ros2_bag"))


def test_metadata_that_names_another_file_is_passed_over_and_said(tmp_path: Path) -> None:
    db3_parts(tmp_path / "run", 20, 1, metadata_yaml("elsewhere/other_0.db3"))
    episode = open_source(tmp_path, rig("ros2_bag")).read("run")
    assert (
        "run: metadata.yaml names other_0.db3, which is not there; the files there are taken"
        in (episode.imported["alignment"])
    )


def test_messages_compressed_one_by_one_are_read_and_whole_files_are_named(tmp_path: Path) -> None:
    import zstandard

    rows = teleop_rows(pictures(12), jpeg)
    packed = {
        topic: (kind, [(stamp, zstandard.compress(data)) for stamp, data in messages])
        for topic, (kind, messages) in cdr_messages(rows).items()
    }
    write_db3(tmp_path / "run/run_0.db3", packed)
    (tmp_path / "run/metadata.yaml").write_text(metadata_yaml("run_0.db3", compression_mode="MESSAGE"))
    assert jpegs(open_source(tmp_path, rig("ros2_bag")).read("run")) == [jpeg(frame) for frame in pictures(12)]
    (tmp_path / "run/metadata.yaml").write_text(metadata_yaml("run_0.db3", compression_mode="FILE"))
    with pytest.raises(SourceError, match=r"compressed as a whole. Run `zstd -d`"):
        open_source(tmp_path, rig("ros2_bag"))


def test_a_rosbag2_folder_of_mcap_files_is_one_episode_and_loose_ones_are_many(tmp_path: Path) -> None:
    rows = sorted(teleop_rows(pictures(45), jpeg), key=lambda row: row[0])
    half = len(rows) // 2
    write_ros2_mcap(tmp_path / "bag/part_a.mcap", rows[half:])  # named against their order in time
    write_ros2_mcap(tmp_path / "bag/part_b.mcap", rows[:half])
    (tmp_path / "bag/metadata.yaml").write_text(metadata_yaml("part_a.mcap", "part_b.mcap"))
    write_ros2_mcap(tmp_path / "loose/one.mcap", rows)
    write_ros2_mcap(tmp_path / "loose/two.mcap", rows)
    source = open_source(tmp_path, rig("mcap"))
    assert source.names() == ["bag", "loose/one.mcap", "loose/two.mcap"]
    assert jpegs(source.read("bag")) == jpegs(source.read("loose/two.mcap"))


def test_an_id_survives_moving_and_another_rig_and_a_stamp_follows_the_file(tmp_path: Path) -> None:
    db3_parts(tmp_path / "here/run", 20, 2, metadata_yaml("run_0.db3", "run_1.db3"))
    first = open_source(tmp_path / "here", rig("ros2_bag"))
    shutil.copytree(tmp_path / "here", tmp_path / "there/deep")
    again = open_source(tmp_path / "there", rig("ros2_bag", rate_hz=15, clock={}, cameras={}))
    assert first.read("run").meta.episode_id == again.read("deep/run").meta.episode_id
    before = first.stamps()["run"]
    (tmp_path / "here/run/run_0.db3").touch()
    assert first.stamps()["run"] != before


def test_two_formats_in_one_folder_are_listed_and_a_file_may_be_named(tmp_path: Path) -> None:
    write_ros1_episode(tmp_path / "a.bag", 5)
    write_ros2_mcap(tmp_path / "b.mcap", teleop_rows(pictures(5), jpeg))
    with pytest.raises(SourceError, match="holds 2 datasets: files that are mcap, files that are ros1_bag"):
        detect(tmp_path)
    assert detect(tmp_path / "b.mcap") == "mcap"
    with pytest.raises(RigError, match=r"for mcap, but .*a\.bag' holds ros1_bag"):
        open_source(tmp_path / "a.bag", rig("mcap"))


def test_a_csv_names_recordings_by_file_or_folder(tmp_path: Path) -> None:
    db3_parts(tmp_path / "run_a", 12, 1, metadata_yaml("run_a_0.db3"))
    db3_parts(tmp_path / "run_b", 12, 1, metadata_yaml("run_b_0.db3"))
    (tmp_path / "who.csv").write_text("file,operator\nrun_a,ana\nrun_b,bo\n")
    source = open_source(tmp_path, rig("ros2_bag", metadata={"csv": "who.csv"}))
    assert [source.read(name).meta.operator for name in source.names()] == ["ana", "bo"]


def test_real_ros1_bags_with_every_compression_hold_the_same_rows(samples: Path) -> None:
    given = low_dim("ros1_bag", "/turtle1/pose", 60)
    source = open_source(samples / "foxglove_rosbag1", given.model_copy(update={"rate_hz": 62}))
    plain, bz2, lz4 = (source.read(f"example{word}.bag") for word in ("", "-bz2", "-lz4"))
    assert plain.columns["observation.state"].shape == (1344, 5)
    for other in (bz2, lz4):
        assert other.columns["observation.state"].shape == (1344, 5)
    with pytest.raises(EpisodeError, match=r"runs at 62\.50 Hz, the rig says rate_hz: 60"):
        open_source(samples / "foxglove_rosbag1", given).read("example.bag")


def test_the_shipped_turtlesim_rig_reads_all_three_bags(samples: Path) -> None:
    source = open_source(samples / "foxglove_rosbag1", load_rig("turtlesim"))
    assert source.names() == ["example-bz2.bag", "example-lz4.bag", "example.bag"]
    episodes = [source.read(name) for name in source.names()]
    for episode in episodes:
        assert episode.columns["action"].shape == (episode.num_frames, 6)
        assert episode.num_frames > 1000
        assert any("rows at the start" in note for note in episode.imported["alignment"])
        commands = episode.stamps_ns["observation.state"] - episode.stamps_ns["action"]
        assert 0 <= commands.min() <= commands.max() <= 10**9


def test_real_joint_states_at_1_khz_and_a_vendor_message_are_read(samples: Path) -> None:
    fast = low_dim("ros1_bag", "/fake_joints_state.position", 1000)
    path = samples / "plotjuggler/fake_joint_state.bag"
    with pytest.raises(EpisodeError, match=r"runs at|gap"):
        open_source(path, low_dim("ros1_bag", "/fake_joints_state.position", 20)).read(path.name)
    assert open_source(path, fast).read(path.name).num_frames == 2725
    vendor = rig(
        "ros1_bag",
        features={
            "observation.state": {"key": "/imu_data.orientation", "names": ["x", "y", "z", "w"]},
            "observation.gps": {"key": "/info_gps.m_nb_sat"},
        },
        cameras={},
        rate_hz=20,
        clock={"max_age_s": 0.7},
    )
    episode = open_source(samples / "plotjuggler/tilt_laser.bag", vendor).read("tilt_laser.bag")
    assert episode.num_frames > 300
    norms = np.linalg.norm(episode.columns["observation.state"], axis=1)
    np.testing.assert_allclose(norms, 1, atol=1e-3)


def test_a_real_camera_bag_without_robot_state_is_refused_but_its_pictures_are_readable(samples: Path) -> None:
    path = samples / "lerobot_realsense_bag"
    with pytest.raises(SourceError, match=r"test_rs\.bag has pictures but no robot state: /file_version \(UInt32\)"):
        open_source(path, None)
    colour, depth = "/device_0/sensor_1/Color_0/image/data", "/device_0/sensor_0/Depth_0/image/data"
    given = rig(
        "ros1_bag",
        features={"observation.state": {"key": f"{colour}.width"}},
        cameras={"color": {"key": colour}, "depth": {"key": depth, "depth_unit_m": 0.001}},
        clock={"reference": "color", "max_age_s": 1.0},
        rate_hz=29,
    )
    episode = open_source(path, given).read("test_rs.bag")
    assert episode.num_frames == 5
    color_stream, depth_stream = episode.cameras["color"], episode.cameras["depth"]
    assert hasattr(color_stream, "arrays")
    assert hasattr(depth_stream, "depths")
    assert all(array.shape == (480, 640, 3) and array.std() > 10 for array in color_stream.arrays())
    assert 200 < np.median([np.median(array[array > 0]) for array in depth_stream.depths()]) < 10_000


def test_real_rosbag2_folders_are_grouped_as_they_were_recorded(samples: Path) -> None:
    poses = low_dim("ros2_bag", "/pose.pose.position", 25)
    source = open_source(samples / "plotjuggler/rosbag2_test", poses)
    assert source.names() == ["rosbag2_test"]
    episode = source.read("rosbag2_test")
    assert (episode.num_frames, episode.skew["observation.state"].num_dropped) == (1565, 0)
    assert any("metadata.yaml names rosbag2_2020_05_03" in note for note in episode.imported["alignment"])
    with pytest.raises(SourceError, match=r"definition of test_msgs/msg/BasicTypes"):
        open_source(samples / BAG2 / "sqlite3/convert_a", low_dim("ros2_bag", "b_basictypes.int32_value", 500))
    with pytest.raises(SourceError, match=r"multiple_files_0.mcap has no robot state: /chatter \(String\)"):
        open_source(samples / BAG2 / "mcap/reindex_test_bags/multiple_files", None)
    numbers = open_source(samples / BAG2 / "mcap/convert_a", low_dim("mcap", "b_basictypes.int32_value", 500))
    assert numbers.read("convert_a").num_frames == 50


def test_joint_states_of_one_name_order_need_no_list(tmp_path: Path) -> None:
    stamps = [START_NS + index * 10**9 // 30 for index in range(5)]
    rows = [
        (stamp, "/joint_states", "sensor_msgs/msg/JointState", joint_state(stamp, state_at(stamp))) for stamp in stamps
    ]
    write_db3(tmp_path / "x.db3", cdr_messages(rows))
    episode = open_source(tmp_path, low_dim("ros2_bag", "/joint_states.position", 30)).read("x.db3")
    np.testing.assert_array_equal(episode.columns["observation.state"], [state_at(stamp) for stamp in stamps])
