"""An episode set gives the same rows and pictures, whichever store they come from and whoever opens it."""

import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import raw_files

from dataengine.convert import convert
from dataengine.episode_set import EpisodeSet
from dataengine.workspace import Workspace
from schemas.errors import ArtifactError, RefError
from schemas.refs import Ref

REF = Ref("tiny", "1")


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Three episodes, both sinks as tiny@1, videos alone as videos@1."""
    root = tmp_path_factory.mktemp("episode_set")
    raw = raw_files.write_aloha_folder(root / "raw", num_episodes=3, num_frames=30)
    workspace = Workspace.at(root / "workspace")
    convert(source_path=raw, to=REF, workspace=workspace, rig="aloha_sim")
    convert(source_path=raw, to=Ref("videos", "1"), workspace=workspace, rig="aloha_sim", sink="lerobot")
    return workspace


def test_rows_columns_and_stamps(converted: Workspace) -> None:
    episodes = EpisodeSet.open(converted, REF)
    assert episodes.cameras == raw_files.ALOHA_CAMERAS
    assert (episodes.rate_hz, episodes.rig.robot_type) == (50, "aloha_sim")
    first, second, _ = episodes.ids()
    row = episodes.row(second)
    assert (row.index, row.num_frames, row.first_index, row.task) == (1, 30, 30, raw_files.TASK)
    assert (row.metadata["operator"], row.metadata["outcome"]) == ("ada", "success")
    columns = episodes.columns(first)
    assert np.array_equal(columns["observation.state"], raw_files.bimanual_14(30, seed=0))
    assert np.array_equal(columns["action"], raw_files.bimanual_14(30, seed=1))
    assert not columns["action"].flags.writeable
    assert episodes.stamps_ns(first).tolist() == [index * 20_000_000 for index in range(30)]


@pytest.mark.parametrize("name", ["tiny", "videos"])
def test_every_picture_is_the_right_one_in_any_order(converted: Workspace, name: str) -> None:
    episodes = EpisodeSet.open(converted, Ref(name, "1"))
    assert episodes.has_frame_store == (name == "tiny")
    order = np.random.default_rng(0).permutation(90)
    sources = [raw_files.pictures(30, seed=index * 10) for index in range(3)]
    for position in order.tolist():
        episode, frame = divmod(position, 30)
        got = episodes.frame(episodes.ids()[episode], "cam_high", frame)
        distances = np.abs(sources[episode].astype(int) - got).mean(axis=(1, 2, 3))
        assert distances.argmin() == frame
        assert distances[frame] < 9
    assert episodes.frames(episodes.ids()[0], "cam_low", [4, 2, 2]).shape == (3, 48, 64, 3)


def test_clips_point_into_the_shard(converted: Workspace) -> None:
    episodes = EpisodeSet.open(converted, REF)
    path, start_s, end_s = episodes.video_clip(episodes.ids()[2], "cam_low")
    assert path.is_file()
    assert (start_s, end_s) == (1.2, 1.8)


def mean_of(episodes: EpisodeSet, position: int) -> float:
    episode_id = episodes.ids()[position % 3]
    return float(
        episodes.frame(episode_id, "cam_high", position).mean() + episodes.columns(episode_id)["action"].mean()
    )


@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.parametrize("name", ["tiny", "videos"])
def test_other_processes_read_the_same(converted: Workspace, name: str, start: str) -> None:
    episodes = EpisodeSet.open(converted, Ref(name, "1"))
    here = [mean_of(episodes, position) for position in range(6)]  # opened before the fork
    with ProcessPoolExecutor(1, mp_context=get_context(start)) as pool:
        there = list(pool.map(mean_of, [episodes] * 6, range(6)))
    assert there == here
    assert pickle.loads(pickle.dumps(episodes)).fingerprint == episodes.fingerprint


def test_unknown_names_are_met_with_the_nearest(converted: Workspace) -> None:
    episodes = EpisodeSet.open(converted, REF)
    with pytest.raises(RefError, match="Did you mean 'cam_high'"):
        episodes.frame(episodes.ids()[0], "cam_hihg", 0)
    with pytest.raises(RefError, match="no episode 'episode_0-x'"):
        episodes.columns("episode_0-x")
    with pytest.raises(RefError, match="no episodes 'tinny@1'"):
        EpisodeSet.open(converted, Ref("tinny", "1"))
    with pytest.raises(IndexError):
        episodes.frame(episodes.ids()[0], "cam_high", 30)


def test_frames_of_other_episodes_are_refused(tmp_path: Path) -> None:
    workspace = Workspace.at(tmp_path / "workspace")
    for index, sink in enumerate(("lerobot", "zarr")):
        raw = tmp_path / f"raw{index}"
        raw_files.write_aloha_folder(raw, num_episodes=1, num_frames=8 + index)
        convert(source_path=raw, to=REF, workspace=workspace, rig="aloha_sim", sink=sink)  # type: ignore[arg-type]  # a literal from a tuple
    with pytest.raises(ArtifactError, match="hold different episodes"):
        EpisodeSet.open(workspace, REF)
