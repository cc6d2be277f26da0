"""MCAP files as such: without summary, cut, damaged, with ROS 1 messages inside."""

from pathlib import Path

import numpy as np
import pytest
from mcap.writer import CompressionType, IndexType, Writer
from raw_bags import ROS1_JOINT_STATE, ros1_joint_state
from raw_files import jpeg, pictures
from raw_recordings import START_NS, state_at, teleop_rows, write_ros2_mcap
from recording_rigs import STATE, read, rig

from dataengine.sources import open_source
from schemas.errors import SourceError

MS = 1_000_000


def test_a_file_without_summary_is_read_whole_and_a_cut_one_says_how_much_is_left(tmp_path: Path) -> None:
    path = write_ros2_mcap(tmp_path / "a/whole.mcap", teleop_rows(pictures(30), jpeg))
    whole = read(path, rig())
    bare = tmp_path / "b/whole.mcap"
    bare.parent.mkdir()
    copy_without_summary(path, bare)
    found = read(bare, rig())
    assert found.columns["observation.state"].tobytes() == whole.columns["observation.state"].tobytes()
    assert any("has no summary" in note for note in found.imported["alignment"])
    cut = tmp_path / "c/cut.mcap"
    cut.parent.mkdir()
    cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(SourceError, match=r"cut\.mcap is truncated; 0\.\d\d s \(\d+ messages\) can still be read"):
        open_source(cut, rig())
    (tmp_path / "c/no.mcap").write_bytes(b"not an mcap at all")
    with pytest.raises(SourceError, match="no MCAP file"):
        open_source(tmp_path / "c/no.mcap", rig())


def test_a_flipped_byte_inside_a_chunk_is_found(tmp_path: Path) -> None:
    path = write_ros2_mcap(tmp_path / "x.mcap", teleop_rows(pictures(12), jpeg), compression=CompressionType.NONE)
    data = bytearray(path.read_bytes())
    place = data.index(jpeg(pictures(12)[5])) + 100
    data[place] ^= 0x40
    path.write_bytes(data)
    with pytest.raises(SourceError, match=r"x\.mcap: not a readable MCAP file \(.*crc.*\)\. Copy it again"):
        open_source(path, rig())


def test_ros1_messages_in_mcap_are_read_like_ros2_ones(tmp_path: Path) -> None:
    with (tmp_path / "one.mcap").open("wb") as file:
        writer = Writer(file, compression=CompressionType.NONE)
        writer.start(profile="ros1")
        schema = writer.register_schema("sensor_msgs/JointState", "ros1msg", ROS1_JOINT_STATE.encode())
        channel = writer.register_channel("/joint_states", "ros1", schema)
        for index in range(6):
            stamp = START_NS + index * 10**9 // 30
            writer.add_message(channel, stamp + MS, ros1_joint_state(stamp, state_at(stamp)), stamp + MS)
        writer.finish()
    given = rig(features={"observation.state": STATE}, cameras={}, clock={"reference": "observation.state"})
    episode = read(tmp_path / "one.mcap", given)
    assert episode.stamps_ns["observation.state"][0] == START_NS
    np.testing.assert_array_equal(episode.columns["observation.state"][0], state_at(START_NS))


def copy_without_summary(path: Path, target: Path) -> None:
    from mcap.reader import make_reader

    with path.open("rb") as file, target.open("wb") as out:
        writer = Writer(
            out,
            index_types=IndexType.NONE,
            repeat_channels=False,
            repeat_schemas=False,
            use_statistics=False,
            use_summary_offsets=False,
        )
        writer.start()
        schemas: dict[int, int] = {}
        channels: dict[int, int] = {}
        for schema, channel, message in make_reader(file).iter_messages():
            assert schema is not None
            if schema.id not in schemas:
                schemas[schema.id] = writer.register_schema(schema.name, schema.encoding, schema.data)
            if channel.id not in channels:
                kind = schemas[schema.id]
                channels[channel.id] = writer.register_channel(channel.topic, channel.message_encoding, kind)
            writer.add_message(channels[channel.id], message.log_time, message.data, message.publish_time)
        writer.finish()
