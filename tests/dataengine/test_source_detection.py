"""What a path holds: one dataset, wherever it lies below, or a sentence that says why not."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from raw_files import write_aloha_episode, write_diffusion_zarr, write_lerobot_v21

from dataengine.rig_files import load_rig
from dataengine.sources import detect, open_source
from schemas.errors import RigError, SourceError


def test_each_format_is_detected_also_from_a_folder_above(tmp_path: Path) -> None:
    write_aloha_episode(tmp_path / "a/day_1/episode_0.hdf5", num_frames=3)
    write_lerobot_v21(tmp_path / "b/deep/er", lengths=(3,))
    write_diffusion_zarr(tmp_path / "c/data/x.zarr")
    assert [detect(tmp_path / name) for name in "abc"] == ["aloha_hdf5", "lerobot_v21", "diffusion_zarr"]


def test_several_datasets_below_one_folder_are_listed_and_not_chosen_from(tmp_path: Path) -> None:
    write_lerobot_v21(tmp_path / "one", lengths=(3,))
    write_diffusion_zarr(tmp_path / "two")
    with pytest.raises(SourceError, match=r"holds 2 datasets: one \(lerobot_v21\), two \(diffusion_zarr\)"):
        detect(tmp_path)


def test_an_empty_directory_is_called_one(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"is an empty directory"):
        detect(tmp_path)


def test_a_missing_path_and_a_file_are_called_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"does not exist"):
        detect(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(SourceError, match=r"is a file. Give the folder"):
        detect(tmp_path / "notes.txt")


def test_a_folder_without_a_dataset_says_what_would_be_one(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(SourceError, match=r"holds no dataset that can be read. Known: ALOHA/DexVLA \*\.hdf5"):
        detect(tmp_path)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            ["data/table"],
            r"x.h5 holds /data: no HDF5 layout that is known \(ALOHA/DexVLA: /action, /observations; robom",
        ),
        (
            ["Trial0/actions", "Trial1/actions"],
            r"x.h5 is a RoboHive trace \(2 groups, Trial0 first\), which is not read",
        ),
        (["puppet/joint_position", "observations/rgb_images/top"], r"x.h5 is RoboMIND \(/puppet, /master\)"),
        (["observation/robot_state/q", "action/q"], r"x.h5 is a DROID trajectory .*, which is not read yet"),
        (["state/joint/position", "state/effector/position", "action/a"], r"x.h5 is AgiBot World proprioception"),
    ],
)
def test_hdf5_of_another_layout_is_called_what_it_is(tmp_path: Path, keys: list[str], message: str) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for key in keys:
            file[key] = np.zeros((3, 2))
    with pytest.raises(SourceError, match=message):
        detect(tmp_path)


def test_a_strange_file_before_the_episodes_does_not_hide_them(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a_summary.h5", "w") as file:
        file["mean"] = np.zeros(3)
    write_aloha_episode(tmp_path / "episode_0.h5", num_frames=3)
    write_aloha_episode(tmp_path / "episode_1.hdf5", num_frames=3)
    (tmp_path / "dataset_stats.pkl").write_bytes(b"what ACT writes beside its episodes")
    assert detect(tmp_path) == "aloha_hdf5"
    assert open_source(tmp_path, load_rig("aloha")).names() == ["a_summary.h5", "episode_0.h5", "episode_1.hdf5"]


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("openarm_fixture", r"is an OpenArm dataset: one parquet for each stream, such as .*, which is not read yet"),
        (
            "robohive_trace",
            r"is a RoboHive trace \(10 groups, Trial0 first, with empty float16 placeholders such as env_",
        ),
    ],
)
def test_real_data_that_is_not_read_is_called_what_it_is(samples: Path, folder: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        detect(samples / folder)


def test_a_rig_for_another_format_is_refused(tmp_path: Path) -> None:
    write_aloha_episode(tmp_path / "episode_0.hdf5", num_frames=3)
    with pytest.raises(RigError, match=r"rig 'pusht' is for diffusion_zarr, but .* holds aloha_hdf5"):
        open_source(tmp_path, load_rig("pusht"))


def test_hdf5_without_a_rig_says_what_is_not_stored(tmp_path: Path) -> None:
    write_aloha_episode(tmp_path / "episode_0.hdf5", num_frames=3)
    with pytest.raises(RigError, match=r"store no rate, units or colour order. Pass a rig: --rig aloha"):
        open_source(tmp_path, None)


def test_a_folder_of_links_to_nowhere_says_that_none_opens(tmp_path: Path) -> None:
    for index in range(2):
        (tmp_path / f"episode_{index}.hdf5").symlink_to(tmp_path / "unmounted.hdf5")
    with pytest.raises(SourceError, match=r"none of the 2 \.hdf5 files in .* can be opened \(episode_0.hdf5 first\)"):
        detect(tmp_path)


def test_what_only_looks_like_a_file_says_so(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "episode_0.hdf5")
    with pytest.raises(SourceError, match=r"what ends in \.hdf5 or \.h5 in .* is no file"):
        detect(tmp_path)
