"""Diffusion-policy zarr: floats become pixels exactly or not at all, and the rate is asked for."""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import av
import numcodecs
import numpy as np
import pytest
import yaml
import zarr
from numpy.typing import NDArray
from raw_files import pictures, trajectory, write_diffusion_zarr, write_mp4

from dataengine.convert import convert
from dataengine.episode_set import EpisodeSet
from dataengine.inspection import inspect_path
from dataengine.rig_files import RIG_FOLDER, load_rig
from dataengine.sources import detect, open_source
from dataengine.verification import verify
from dataengine.workspace import Workspace
from schemas.episodes import VideoFile
from schemas.errors import EpisodeError, RigError, SourceError
from schemas.refs import Ref
from schemas.rigs import Clock


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
    with pytest.raises(RigError, match=r"camera 'image' reads img, not in the zarr \(has: none\)"):
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


def test_an_id_survives_the_removal_of_an_episode_before_it(tmp_path: Path) -> None:
    arrays = {"state": trajectory(30, 5, seed=1), "action": trajectory(30, 2, seed=2)}
    rig = load_rig("pusht").model_copy(update={"cameras": {}})
    write_store(tmp_path / "all.zarr", arrays, (12, 18))
    write_store(tmp_path / "less.zarr", {key: values[12:] for key, values in arrays.items()}, (18,))
    second = open_source(tmp_path / "all.zarr", rig).read("episode_000001")
    alone = open_source(tmp_path / "less.zarr", rig).read("episode_000000")
    assert second.meta.episode_id == alone.meta.episode_id
    assert (second.meta.raw_name, alone.meta.raw_name) == ("episode_000001", "episode_000000")


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


def write_store(
    root: Path,
    arrays: dict[str, NDArray[Any]],
    lengths: Sequence[int],
    *,
    zarr_format: Literal[2, 3] = 2,
    zipped: bool = False,
    compressor: Any = "auto",
    chunk: int = 7,
) -> Path:
    """Any arrays as a replay buffer, in a folder or a zip."""
    root.parent.mkdir(parents=True, exist_ok=True)
    store = zarr.storage.ZipStore(root, mode="w") if zipped else zarr.storage.LocalStore(root)
    group = zarr.open_group(store, mode="w", zarr_format=zarr_format)
    for key, values in {**{f"data/{key}": each for key, each in arrays.items()}, "meta/episode_ends": None}.items():
        each = np.cumsum(lengths).astype(np.int64) if values is None else values
        array = group.create_array(
            key,
            shape=each.shape,
            chunks=(min(chunk, len(each)), *each.shape[1:]),
            dtype=each.dtype,
            compressors=compressor,
            config={"write_empty_chunks": True},
        )
        array[:] = each
    store.close()
    return root


def small_arrays(*, dtype: Any = np.float32) -> dict[str, NDArray[Any]]:
    return {
        "action": 256 + 100 * trajectory(32, 2, seed=3),
        "state": 256 + 100 * trajectory(32, 5, seed=4),
        "img": pictures(32, height=32, width=32, seed=1).astype(dtype),
    }


def test_folder_and_zip_of_both_zarr_versions_hold_the_same_episodes(tmp_path: Path) -> None:
    blosc = numcodecs.Blosc(cname="zstd", clevel=5, shuffle=numcodecs.Blosc.BITSHUFFLE)
    arrays = small_arrays()
    roots = [
        write_store(tmp_path / "a/x.zarr", arrays, (12, 20), compressor=blosc),
        write_store(tmp_path / "b/x.zarr", arrays, (12, 20), zarr_format=3, chunk=5),
        write_store(tmp_path / "c/x.zarr.zip", arrays, (12, 20), zipped=True, compressor=blosc),
        write_store(tmp_path / "d/x.zarr.zip", arrays, (12, 20), zipped=True, zarr_format=3),
        write_store(tmp_path / "e/x.zarr", small_arrays(dtype=np.uint8), (12, 20)),
    ]
    episodes = [open_source(root, load_rig("pusht")).read("episode_000001") for root in roots]
    assert len({episode.meta.episode_id for episode in episodes}) == 1
    for episode in episodes:
        assert np.array_equal(episode.columns["action"], arrays["action"][12:])
        assert np.array_equal(list(episode.cameras["image"].arrays()), arrays["img"][12:])
    assert detect(tmp_path / "c") == detect(roots[3]) == "diffusion_zarr"


def test_an_id_is_the_recordings_and_not_the_rigs(tmp_path: Path) -> None:
    rig = load_rig("pusht")
    other = rig.model_copy(
        update={
            "features": {"action": rig.features["action"].model_copy(update={"scale": 2.0})},
            "cameras": {},
        }
    )
    root = write_store(tmp_path / "x.zarr", small_arrays(), (12, 20))
    ids = [open_source(root, each).read("episode_000001").meta.episode_id for each in (rig, other)]
    assert ids[0] == ids[1]
    assert open_source(root, rig).fingerprint() == open_source(root, other).fingerprint()
    zarr.open_group(str(root), mode="a")["data"]["img"][20, 0, 0, 0] += 1  # a camera the second rig does not read
    assert open_source(root, other).read("episode_000001").meta.episode_id != ids[1]


def test_a_fingerprint_covers_a_csv_outside_the_store(tmp_path: Path) -> None:
    root, labels = write_store(tmp_path / "x.zarr", small_arrays(), (12, 20)), tmp_path / "labels.csv"
    labels.write_text("episode,operator\n0,ada\n1,bob\n")
    rig = load_rig("pusht")
    told = rig.model_copy(update={"metadata": rig.metadata.model_copy(update={"csv": "../labels.csv"})})
    before = open_source(root, told).fingerprint()
    labels.write_text("episode,operator\n0,ada\n1,eve\n")
    assert open_source(root, told).fingerprint() != before


def test_a_long_episode_is_streamed_and_equal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_store(tmp_path / "x.zarr", small_arrays(), (12, 20))
    short = open_source(root, load_rig("pusht")).read("episode_000001")
    monkeypatch.setattr("dataengine.sources.zarr_pixels._KEPT_BYTES", 1000)
    monkeypatch.setattr("dataengine.sources.zarr_pixels._CACHED_BYTES", 1000)
    long = open_source(root, load_rig("pusht")).read("episode_000001")
    assert long.meta == short.meta
    assert np.array_equal(list(long.cameras["image"].arrays()), list(short.cameras["image"].arrays()))


@pytest.mark.parametrize("lost", ["data/img/2.0.0.0", "data/action/2.0"])
def test_a_chunk_that_was_not_copied_is_an_error_and_not_zeros(tmp_path: Path, lost: str) -> None:
    root = write_store(tmp_path / "x.zarr", small_arrays(), (12, 20))
    (root / lost).unlink()
    source = open_source(root, load_rig("pusht"))
    with pytest.raises(EpisodeError, match=rf"1 of \d chunks of {lost.rpartition('/')[0]} are not in the store"):
        source.read("episode_000001")


def test_words_of_an_episode_come_from_meta_and_attributes(tmp_path: Path) -> None:
    root = write_store(tmp_path / "x.zarr", small_arrays(), (12, 20))
    group = zarr.open_group(str(root), mode="a")
    group.attrs["lab"] = "bench 2"
    station = group["meta"].create_array("day", shape=(2,), chunks=(2,), dtype=np.int64)
    station[:] = [3, 7]
    rig = load_rig("pusht")
    keys = {"station": "lab", "session": "day"}
    told = rig.model_copy(update={"metadata": rig.metadata.model_copy(update={"keys": keys})})
    meta = open_source(root, told).read("episode_000001").meta
    assert (meta.station, meta.session) == ("bench 2", "7")


def write_real_robot(root: Path, *, video_hz: int, lengths: Sequence[int] = (12, 20), lost_s: float = 0.0) -> Path:
    """A real robot's recording: 10 rows a second with their times, and one video per episode and camera."""
    total = sum(lengths)
    times = np.concatenate(
        [1.7e9 + 100 * index + np.arange(length) / 10 for index, length in enumerate(lengths)]
    ).astype(np.float64)
    arrays = {
        "action": trajectory(total, 6, seed=1).astype(np.float64),
        "robot_eef_pose": trajectory(total, 6, seed=2).astype(np.float64),
        "stage": np.arange(total) // 9,
        "timestamp": times,
    }
    write_store(root / "replay_buffer.zarr", arrays, lengths)
    for index, length in enumerate(lengths):
        frames = pictures(round((length / 10 - lost_s) * video_hz), seed=index)
        for camera in (0, 1):
            write_mp4(root / f"videos/{index}/{camera}.mp4", frames, rate_hz=video_hz)
    return root


def real_rig(tmp_path: Path, **changes: Any) -> str:
    rig = yaml.safe_load((RIG_FOLDER / "diffusion_real.yaml").read_text())
    path = tmp_path / "my.yaml"
    path.write_text(yaml.safe_dump({**rig, "task": "Push the block.", **changes}))
    return str(path)


def test_a_real_robots_videos_are_sampled_at_the_rows_and_their_ages_told(tmp_path: Path) -> None:
    root = write_real_robot(tmp_path / "raw", video_hz=30)
    source = pickle.loads(pickle.dumps(open_source(root, load_rig(real_rig(tmp_path)))))
    assert set(source.rig.cameras) == {"camera_0", "camera_1"}
    episode = source.read("episode_000001")
    with av.open(str(root / "videos/1/1.mp4")) as container:
        every = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert np.array_equal(list(episode.cameras["camera_1"].arrays()), every[::3])
    skew = episode.skew["camera_1"]
    assert (skew.num_messages, skew.num_dropped, skew.num_repeated) == (60, 40, 0)
    assert skew.max_s < 1e-3
    steps = np.diff(episode.stamps_ns["timestamp"])
    assert np.abs(steps - 100_000_000).max() < 1000  # seconds since 1970 in float64 are good to 0.24 us
    assert episode.columns["stage"].dtype == np.int64


def test_a_gap_in_a_video_beside_the_rows_is_refused_by_the_clocks_or_the_cameras_max_age(tmp_path: Path) -> None:
    root = write_real_robot(tmp_path / "raw", video_hz=4, lengths=(20, 20))
    rig = load_rig(real_rig(tmp_path))
    with pytest.raises(
        EpisodeError, match=r"episode_000000: the newest picture of video 0.mp4 is 0.200 s old at row 2"
    ):
        open_source(root, rig).read("episode_000000")
    slow = rig.model_copy(update={"clock": Clock(max_age_s=0.3)})
    assert open_source(root, slow).read("episode_000000").skew["camera_0"].num_repeated == 12
    cameras = {name: camera.model_copy(update={"max_age_s": 0.3}) for name, camera in rig.cameras.items()}
    assert open_source(root, rig.model_copy(update={"cameras": cameras})).read("episode_000001").num_frames == 20


def test_videos_with_a_picture_per_row_are_handed_on_as_files(tmp_path: Path) -> None:
    root = write_real_robot(tmp_path / "raw", video_hz=10)
    first = open_source(root, load_rig(real_rig(tmp_path))).read("episode_000000")
    assert isinstance(first.cameras["camera_0"], VideoFile)
    assert not first.skew


def test_videos_that_end_early_or_are_missing_and_rows_at_another_rate_are_refused(tmp_path: Path) -> None:
    root = write_real_robot(tmp_path / "raw", video_hz=30, lost_s=0.5)
    source = open_source(root, load_rig(real_rig(tmp_path)))
    with pytest.raises(EpisodeError, match=r"episode_000000: video 0.mp4 ends at 0.70 s, the rows at 1.10 s"):
        source.read("episode_000000")
    (root / "videos/0/1.mp4").unlink()
    (root / "videos/0/0.mp4").unlink()
    with pytest.raises(EpisodeError, match=r"videos/0/0.mp4 is missing beside replay_buffer.zarr"):
        source.read("episode_000000")
    fast = load_rig(real_rig(tmp_path)).model_copy(update={"rate_hz": 20})
    with pytest.raises(RigError, match=r"data/timestamp steps by 0.1000 s, but the rig says 20 Hz"):
        open_source(root, fast).read("episode_000001")


def test_a_real_robots_recording_converts_verifies_and_its_draft_knows_the_rate(tmp_path: Path) -> None:
    root = write_real_robot(tmp_path / "raw", video_hz=30)
    found = inspect_path(root)
    assert (found.rate_hz, [camera.key for camera in found.cameras]) == (10.0, ["videos/0", "videos/1"])
    draft = found.draft_rig_yaml
    assert "task: null" in draft
    (tmp_path / "mylab.yaml").write_text(draft.replace("task: null", "task: Push."))
    workspace, ref = Workspace.at(tmp_path / "workspace"), Ref("real", "1")
    rig = str(tmp_path / "mylab.yaml")
    report = convert(source_path=root, to=ref, workspace=workspace, rig=rig, sink="both", workers=1)
    assert (report.num_episodes, report.num_frames, report.rejected) == (2, 32, ())
    proof = verify(source_path=root, ref=ref, workspace=workspace, workers=1)
    assert [row for row in proof.rows if not row.ok] == []


def test_the_first_real_pusht_episodes_convert_and_verify(samples: Path, tmp_path: Path) -> None:
    [path] = (samples / "pusht_zarr").rglob("*.zarr")
    real = zarr.open_group(str(path), mode="r")
    ends = real["meta"]["episode_ends"][:3]
    arrays = {key: array[: ends[-1]] for key, array in real["data"].arrays()}
    blosc = numcodecs.Blosc(cname="zstd", clevel=5, shuffle=numcodecs.Blosc.BITSHUFFLE)
    root = write_store(
        tmp_path / "raw/pusht.zarr", arrays, np.diff(ends, prepend=0).tolist(), compressor=blosc, chunk=161
    )
    workspace, ref = Workspace.at(tmp_path / "workspace"), Ref("pusht", "1")
    report = convert(source_path=root, to=ref, workspace=workspace, rig="pusht", sink="both", workers=1)
    assert (report.num_episodes, report.num_frames) == (3, int(ends[-1]))
    proof = verify(source_path=root, ref=ref, workspace=workspace, workers=1)
    assert [row for row in proof.rows if not row.ok] == []
    whole = open_source(samples / "pusht_zarr", load_rig("pusht"))
    ids = [whole.read(name).meta.episode_id for name in whole.names()[:3]]
    assert list(EpisodeSet.open(workspace, ref).ids()) == ids


def test_what_reads_an_absent_optional_array_goes_with_it_and_the_dataset_opens(tmp_path: Path) -> None:
    arrays = {"action": trajectory(32, 6, seed=1), "robot_eef_pose": trajectory(32, 6, seed=2)}
    root = write_store(tmp_path / "raw/x.zarr", arrays, (12, 20))
    features = {
        "observation.state": {"key": "robot_eef_pose"},
        "action": {"key": "action"},
        "observation.gripper": {"key": "gripper", "optional": True},
    }
    hand = {"name": "gripper", "feature": "observation.gripper", "indices": [0], "closed": 0.0, "open": 0.08}
    arms = [{"name": "arm", "indices": [0, 1]}, {"name": "finger", "feature": "observation.gripper", "indices": [0]}]
    rig = real_rig(tmp_path, features=features, end_effectors=[hand], arms=arms)
    workspace, ref = Workspace.at(tmp_path / "workspace"), Ref("real", "1")
    convert(source_path=root, to=ref, workspace=workspace, rig=rig, workers=1)
    opened = EpisodeSet.open(workspace, ref).rig
    assert (set(opened.features), opened.end_effectors) == ({"observation.state", "action"}, ())
    assert [arm.name for arm in opened.arms] == ["arm"]
