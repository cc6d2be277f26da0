"""Diffusion-policy zarr: floats become pixels exactly or not at all, and the rate is asked for."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import zarr
from raw_files import pictures, trajectory, write_diffusion_zarr

from dataengine.rig_files import load_rig
from dataengine.sources import detect, open_source
from schemas.errors import EpisodeError, RigError, SourceError


@pytest.mark.parametrize("float_images", [True, False])
def test_episodes_are_cut_at_the_ends_and_pixels_are_exact(tmp_path: Path, float_images: bool) -> None:
    root = write_diffusion_zarr(tmp_path / "raw/x.zarr", float_images=float_images)
    source = pickle.loads(pickle.dumps(open_source(tmp_path / "raw", load_rig("pusht"))))
    assert source.names() == ["episode_000000", "episode_000001"]
    first, second = (source.read(name) for name in source.names())
    assert (first.num_frames, second.num_frames, first.rate_hz) == (12, 20, 10)
    state = 256 + 100 * trajectory(32, 5, seed=4)
    assert np.array_equal(second.columns["observation.state"], state[12:, :2])
    assert np.array_equal(second.columns["observation.environment_state"], state[12:, 2:])
    frames = list(second.cameras["image"].arrays())
    assert np.array_equal(frames, pictures(20, height=32, width=32, seed=1))
    assert frames[0].dtype == np.uint8
    assert second.cameras["image"].spec.encoding == "raw"
    assert first.meta.task == "Push the T-shaped block onto the T-shaped target."
    assert detect(root) == "diffusion_zarr"


def test_pixels_that_are_no_whole_numbers_are_refused_and_not_rounded(tmp_path: Path) -> None:
    write_diffusion_zarr(tmp_path / "x.zarr", image_offset=0.25)
    with pytest.raises(
        EpisodeError, match=r"episode_000000: camera 'image' frame 0 has the value .*25, no whole number"
    ):
        open_source(tmp_path, load_rig("pusht")).read("episode_000000")


def test_one_bad_pixel_is_named_by_its_frame_within_the_episode(tmp_path: Path) -> None:
    root = write_diffusion_zarr(tmp_path / "x.zarr")
    zarr.open_group(str(root), mode="a")["data"]["img"][12 + 9, 3, 3, 0] = 300.0
    source = open_source(tmp_path, load_rig("pusht"))
    assert source.read("episode_000000").num_frames == 12
    with pytest.raises(EpisodeError, match=r"frame 9 has the value 300"):
        source.read("episode_000001")


def test_nan_in_the_state_is_named(tmp_path: Path) -> None:
    state = 256 + trajectory(32, 5)
    state[14, 1] = np.nan
    write_diffusion_zarr(tmp_path / "x.zarr", state=state)
    with pytest.raises(EpisodeError, match=r"observation.state has NaN at frame 2, dimension 'agent_y'"):
        open_source(tmp_path, load_rig("pusht")).read("episode_000001")


def test_without_a_rig_the_rate_is_asked_for_in_one_sentence(tmp_path: Path) -> None:
    write_diffusion_zarr(tmp_path / "x.zarr")
    with pytest.raises(RigError, match=r"stores no rate. Pass a rig that states it: --rig pusht"):
        open_source(tmp_path, None)


def test_a_rig_that_does_not_fit_names_what_the_store_has(tmp_path: Path) -> None:
    write_diffusion_zarr(tmp_path / "x.zarr", drop=("state",))
    with pytest.raises(RigError, match=r"'observation.state' reads data/state, not in the zarr \(has: action, img\)"):
        open_source(tmp_path, load_rig("pusht"))
    write_diffusion_zarr(tmp_path / "x.zarr", drop=("img",))
    with pytest.raises(RigError, match=r"camera 'image' not in the zarr \(has: none\)"):
        open_source(tmp_path, load_rig("pusht"))


def test_ends_that_do_not_match_the_arrays_are_refused(tmp_path: Path) -> None:
    root = write_diffusion_zarr(tmp_path / "x.zarr")
    ends = zarr.open_group(str(root), mode="a")["meta"]["episode_ends"]
    ends[:] = np.array([12, 31])
    with pytest.raises(SourceError, match=r"data/action has 32 rows, but meta/episode_ends ends at 31"):
        open_source(tmp_path, load_rig("pusht"))
    ends[:] = np.array([32, 12])
    with pytest.raises(SourceError, match=r"goes back"):
        open_source(tmp_path, load_rig("pusht"))


def test_a_zarr_group_that_is_no_replay_buffer_is_refused(tmp_path: Path) -> None:
    root = write_diffusion_zarr(tmp_path / "x.zarr", drop=("episode_ends",))
    with pytest.raises(SourceError, match=r"x.zarr has no data/ and meta/episode_ends"):
        open_source(root, load_rig("pusht"))


def test_an_episodes_id_does_not_depend_on_its_neighbours(tmp_path: Path) -> None:
    write_diffusion_zarr(tmp_path / "a/x.zarr")
    root = write_diffusion_zarr(tmp_path / "b/x.zarr")
    zarr.open_group(str(root), mode="a")["data"]["action"][0, 0] = 7.0
    one, two = (open_source(tmp_path / name, load_rig("pusht")) for name in ("a", "b"))
    assert one.read("episode_000001").meta.episode_id == two.read("episode_000001").meta.episode_id
    assert one.read("episode_000000").meta.episode_id != two.read("episode_000000").meta.episode_id
    assert one.fingerprint() != two.fingerprint()


def test_the_real_pusht_buffer_has_206_episodes_and_25650_frames(samples: Path) -> None:
    source = open_source(samples / "pusht_zarr", load_rig("pusht"))
    names = source.names()
    assert len(names) == 206
    assert source.ends[-1] == 25_650
    last = source.read(names[-1])
    stored = zarr.open_group(str(next((samples / "pusht_zarr").rglob("*.zarr"))), mode="r")["data"]["img"]
    frames = np.stack(list(last.cameras["image"].arrays()))
    assert np.array_equal(frames, stored[25_650 - last.num_frames :])


def test_the_stamps_follow_the_files_of_the_store(tmp_path: Path) -> None:
    root = write_diffusion_zarr(tmp_path / "raw/x.zarr")
    before = open_source(root, load_rig("pusht")).stamps()
    assert list(before) == ["episode_000000", "episode_000001"]
    assert open_source(root, load_rig("pusht")).stamps() == before
    zarr.open_group(str(root), mode="r+")["data"]["action"][15] = 7.0
    after = open_source(root, load_rig("pusht")).stamps()
    assert all(before[name] != after[name] for name in before)  # episodes share chunks
