"""LeRobot v2.1: videos are handed on untouched, and what is missing or short is said per episode."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot_files import edit_info
from raw_files import TASK, trajectory, write_lerobot_v21, write_mp4

from dataengine.rig_files import load_rig
from dataengine.sources import open_source
from schemas.episodes import VideoFile
from schemas.errors import EpisodeError, RigError, SourceError
from schemas.rigs import Rig


@pytest.mark.parametrize("fixed_size", [True, False])
def test_episodes_come_out_as_written(tmp_path: Path, fixed_size: bool) -> None:
    root = write_lerobot_v21(tmp_path / "raw", cameras=("cam_high", "wrist"), fixed_size=fixed_size)
    source = pickle.loads(pickle.dumps(open_source(root, None)))
    assert source.names() == ["episode_000000", "episode_000001"]
    episode = source.read("episode_000001")
    assert np.array_equal(episode.columns["observation.state"], trajectory(25, 4, seed=1))
    assert np.array_equal(episode.columns["action"], trajectory(25, 4, seed=51))
    assert (episode.meta.task, episode.rate_hz, episode.stamps_ns) == (TASK, 30, {})
    video = episode.cameras["wrist"]
    assert isinstance(video, VideoFile)
    assert video.path == root / "videos/chunk-000/observation.images.wrist/episode_000001.mp4"
    assert (video.num_frames, video.spec.encoding, video.spec.channel_order) == (25, "h264", "rgb")
    assert (video.spec.height, video.spec.width) == (48, 64)


def test_a_rig_is_derived_from_info_json_with_nested_names_flattened(tmp_path: Path) -> None:
    rig = open_source(write_lerobot_v21(tmp_path / "raw"), None).rig
    assert rig.features["action"].names == ("joint_0", "joint_1", "joint_2", "joint_3")
    assert (rig.robot_type, rig.rate_hz, rig.end_effectors) == ("test_arm", 30, ())
    assert set(rig.features) == {"observation.state", "action"}


def test_a_derived_rig_does_not_know_the_folders_name(tmp_path: Path) -> None:
    one = open_source(write_lerobot_v21(tmp_path / "one", lengths=(3,), robot_type=None), None)
    other = open_source(write_lerobot_v21(tmp_path / "other", lengths=(3,), robot_type=None), None)
    assert one.rig == other.rig
    assert (one.rig.name, one.rig.robot_type) == ("unknown", "unknown")


def test_the_stamp_of_an_episode_follows_its_own_files_and_the_metadata(tmp_path: Path) -> None:
    root = write_lerobot_v21(tmp_path / "raw", lengths=(3, 3, 3))
    before = open_source(root, None).stamps()
    [video] = root.rglob("episode_000001.mp4")
    video.unlink()
    after = open_source(root, None).stamps()
    assert [name for name in before if before[name] != after[name]] == ["episode_000001"]
    (root / "meta/tasks.jsonl").write_text((root / "meta/tasks.jsonl").read_text().replace("card", "cube"))
    assert not set(after.values()) & set(open_source(root, None).stamps().values())


def test_names_in_groups_are_flattened_and_wrong_counts_dropped(tmp_path: Path) -> None:
    grouped = write_lerobot_v21(tmp_path / "a", lengths=(3,), names={"motors": ["a", "b", "c", "d"]})
    assert open_source(grouped, None).rig.features["action"].names == ("a", "b", "c", "d")
    short = write_lerobot_v21(tmp_path / "b", lengths=(3,), names=["a", "b"])
    assert open_source(short, None).rig.features["action"].names == ()


def test_a_missing_video_is_said_per_episode(tmp_path: Path) -> None:
    source = open_source(write_lerobot_v21(tmp_path / "raw", missing_videos=(0,)), None)
    assert source.read("episode_000001").num_frames == 25
    with pytest.raises(EpisodeError) as caught:
        source.read("episode_000000")
    assert str(caught.value) == (
        "episode_000000: video videos/chunk-000/observation.images.cam_high/episode_000000.mp4 is missing. "
        "Copy it or drop the episode."
    )


def test_a_video_with_fewer_frames_than_rows_is_refused(tmp_path: Path) -> None:
    source = open_source(write_lerobot_v21(tmp_path / "raw", frames_lost={1: 2}), None)
    with pytest.raises(EpisodeError, match=r"camera 'cam_high' has 23 frames for 25 rows"):
        source.read("episode_000001")


def test_a_truncated_video_is_refused(tmp_path: Path) -> None:
    root = write_lerobot_v21(tmp_path / "raw", lengths=(20,))
    path = root / "videos/chunk-000/observation.images.cam_high/episode_000000.mp4"
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(EpisodeError, match=r"episode_000000.mp4 is not a readable video"):
        open_source(root, None).read("episode_000000")


def test_a_video_of_another_size_is_refused(tmp_path: Path) -> None:
    root = write_lerobot_v21(tmp_path / "raw", lengths=(20,))
    path = root / "videos/chunk-000/observation.images.cam_high/episode_000000.mp4"
    write_mp4(path, np.zeros((20, 32, 80, 3), np.uint8))
    with pytest.raises(EpisodeError, match=r"is 80x32, but info.json says shape \[48, 64, 3\]"):
        open_source(root, None).read("episode_000000")


def test_nan_in_an_action_is_named(tmp_path: Path) -> None:
    source = open_source(write_lerobot_v21(tmp_path / "raw", nan_at=(0, 7, 2)), None)
    with pytest.raises(EpisodeError, match=r"action has NaN at frame 7, dimension 'joint_2' \(index 2\)"):
        source.read("episode_000000")


def test_rows_that_the_metadata_does_not_promise_are_refused(tmp_path: Path) -> None:
    root = write_lerobot_v21(tmp_path / "raw", lengths=(20,))
    (root / "meta/episodes.jsonl").write_text('{"episode_index": 0, "tasks": [], "length": 21}\n')
    with pytest.raises(EpisodeError, match=r"20 rows, but meta/episodes.jsonl says 21"):
        open_source(root, None).read("episode_000000")


def test_a_missing_or_truncated_parquet_is_refused(tmp_path: Path) -> None:
    source = open_source(write_lerobot_v21(tmp_path / "raw"), None)
    whole = tmp_path / "raw/data/chunk-000/episode_000000.parquet"
    whole.write_bytes(whole.read_bytes()[:500])
    (tmp_path / "raw/data/chunk-000/episode_000001.parquet").unlink()
    with pytest.raises(EpisodeError, match=r"is no readable parquet"):
        source.read("episode_000000")
    with pytest.raises(EpisodeError, match=r"episode_000001.parquet is missing"):
        source.read("episode_000001")


def test_another_video_changes_the_fingerprint_and_the_id_of_its_episode_only(tmp_path: Path) -> None:
    source = open_source(write_lerobot_v21(tmp_path / "raw"), None)
    before = source.fingerprint(), [source.read(name).meta.episode_id for name in source.names()]
    video = tmp_path / "raw/videos/chunk-000/observation.images.cam_high/episode_000001.mp4"
    write_mp4(video, np.full((25, 48, 64, 3), 90, np.uint8))
    after = source.fingerprint(), [source.read(name).meta.episode_id for name in source.names()]
    assert after[0] != before[0]
    assert after[1][0] == before[1][0]
    assert after[1][1] != before[1][1]


def test_each_episode_gets_its_own_instruction(tmp_path: Path) -> None:
    source = open_source(write_lerobot_v21(tmp_path / "raw", tasks=("Open the jar.", "Close the jar.")), None)
    assert [source.read(name).meta.task for name in source.names()] == ["Open the jar.", "Close the jar."]


def test_uneven_stamps_are_kept(tmp_path: Path) -> None:
    root = write_lerobot_v21(tmp_path / "raw", lengths=(20,))
    path = root / "data/chunk-000/episode_000000.parquet"
    table = pq.read_table(path)
    seconds = np.arange(20) / 30 + np.where(np.arange(20) >= 10, 0.05, 0)
    column = table.column_names.index("timestamp")
    pq.write_table(table.set_column(column, "timestamp", pa.array(seconds.astype(np.float32))), path)
    stamps = open_source(root, None).read("episode_000000").stamps_ns["timestamp"]
    assert stamps[9] == pytest.approx(0.3e9, abs=1e3)
    assert stamps[10] == pytest.approx(10e9 / 30 + 0.05e9, abs=1e3)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"fps": 29.97}, RigError, "says fps 29.97; only whole rates"),
        ({"codebase_version": "v3.0"}, SourceError, "meta/episodes holds no parquet"),
        ({"codebase_version": "v1.6"}, SourceError, "is LeRobot v1.6 in meta/info.json; read are v2.0, v2.1 and v3.0"),
        ({"features": None}, SourceError, "meta/info.json: features is missing or wrong"),
    ],
)
def test_metadata_that_cannot_be_read_says_why(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    root = write_lerobot_v21(tmp_path / "raw", lengths=(3,))
    edit_info(root, **changes)
    with pytest.raises(error, match=message):
        open_source(root, None)


def test_metadata_lines_that_are_missing_or_damaged_say_so(tmp_path: Path) -> None:
    root = write_lerobot_v21(tmp_path / "raw", lengths=(3,))
    (root / "meta/tasks.jsonl").write_text('{"task": "Wave."}\n')
    with pytest.raises(SourceError, match=r"a row without what it needs \('task_index'\)"):
        open_source(root, None)
    (root / "meta/tasks.jsonl").write_text('{"task": "Wa')
    with pytest.raises(SourceError, match=r"meta/tasks.jsonl holds a line that is not JSON"):
        open_source(root, None)
    (root / "meta/tasks.jsonl").unlink()
    with pytest.raises(SourceError, match=r"meta/tasks.jsonl is missing"):
        open_source(root, None)


def test_a_rig_that_contradicts_info_json_is_refused(tmp_path: Path) -> None:
    root = write_lerobot_v21(tmp_path / "raw", lengths=(3,))
    derived = open_source(root, None).rig

    def changed(**update: Any) -> Rig:
        return Rig.model_validate({**derived.model_dump(), "name": "mylab", **update})

    with pytest.raises(RigError, match=r"says 50 Hz, but meta/info.json says 30"):
        open_source(root, changed(rate_hz=50))
    with pytest.raises(
        RigError, match=r"camera 'top' reads top, not in meta/info.json \(has: observation.images.cam_high\)"
    ):
        open_source(root, changed(cameras={"top": {"key": "top"}}))
    swapped = {"action": {"key": "action", "names": ["joint_0", "joint_2", "joint_1", "joint_3"]}}
    with pytest.raises(
        RigError, match=r"'action' dimension 1 is 'joint_1' in meta/info.json, but the rig names 'joint_2'"
    ):
        open_source(root, changed(features=swapped))


def test_the_real_g1_episodes_with_video_are_read_and_the_others_say_what_is_missing(samples: Path) -> None:
    source = open_source(samples / "g1_inspire_v21", load_rig("g1_inspire"))
    read, refused = [], []
    for name in source.names():
        try:
            read.append(source.read(name))
        except EpisodeError as error:
            refused.append(str(error))
    assert [episode.meta.raw_name[-2:] for episode in read] == ["28", "29", "30", "31", "59", "82"]
    assert sum(episode.num_frames for episode in read) == 1583
    assert {episode.cameras["cam_high"].spec.encoding for episode in read} == {"av1"}
    assert len(refused) == 94
    assert all(message.endswith(".mp4 is missing. Copy it or drop the episode.") for message in refused)


def test_the_g1_rig_sees_the_right_hand_grip_and_let_go(samples: Path) -> None:
    source = open_source(samples / "g1_inspire_v21", load_rig("g1_inspire"))
    hand = next(part for part in source.rig.end_effectors if part.side == "right")
    closed, opened = np.asarray(hand.closed), np.asarray(hand.open)
    values = source.read("episode_000028").columns[hand.feature][:, list(hand.indices)].astype(np.float64)
    openness = np.clip((values - closed) / (opened - closed), 0, 1).mean(axis=1)
    assert openness[85] > 0.7, "stretched around the bottle before the grip"
    assert openness[110:200].max() < 0.4, "holding it"
    assert openness[255] > 0.7, "letting go"
