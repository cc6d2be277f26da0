"""ALOHA/DexVLA HDF5: good files give exactly what was written, bad ones say what is wrong with which frame."""

import pickle
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from raw_files import (
    TASK,
    bimanual_14,
    jpeg,
    pictures,
    trajectory,
    write_aloha_episode,
    write_aloha_folder,
    write_metadata_csv,
)

from dataengine.rig_files import load_rig
from dataengine.sources import Source, open_source
from schemas.episodes import Episode
from schemas.errors import EpisodeError, RigError, SourceError
from schemas.rigs import Camera, Rig


def aloha() -> Rig:
    return load_rig("aloha")


def read_one(tmp_path: Path, **options: Any) -> Episode:
    """A folder whose first file is good, so that the rig fits, and whose second one is made with `options`."""
    write_aloha_episode(tmp_path / "raw/episode_0.hdf5")
    write_aloha_episode(tmp_path / "raw/episode_1.hdf5", **options)
    return open_source(tmp_path / "raw", aloha()).read("episode_1.hdf5")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"chunked": False},
        {"with_compress_len": False},
        {"vlen": True},
        {"depth_cameras": ("a_depth", "cam_k_depth")},
    ],
    ids=["chunked", "contiguous", "no compress_len", "variable length", "depth cameras between"],
)
def test_jpeg_rows_come_out_byte_for_byte(tmp_path: Path, options: dict[str, Any]) -> None:
    episode = read_one(tmp_path, num_frames=20, seed=3, **options)
    for number, camera in enumerate(sorted(["cam_high", "cam_low", *options.get("depth_cameras", ())])):
        if camera.endswith("_depth"):
            continue
        stream = episode.cameras[camera]
        written = [jpeg(picture) for picture in pictures(20, seed=30 + number)]
        assert list(stream.jpegs()) == written
        assert len({len(row) for row in written}) > 1, "rows of equal length would not show a wrong trim"
        assert (stream.spec.encoding, stream.spec.height, stream.spec.width) == ("jpeg", 48, 64)


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_jpeg_rows_in_chunks_of_several_come_out_byte_for_byte(tmp_path: Path, compression: str | None) -> None:
    path = write_aloha_episode(tmp_path / "raw/episode_0.hdf5", cameras=("cam_high",))
    key = "observations/images/cam_high"
    with h5py.File(path, "a") as file:
        rows = file[key][:]
        del file[key]
        file.create_dataset(key, data=rows, chunks=(4, rows.shape[1]), compression=compression)
    episode = open_source(tmp_path / "raw", aloha()).read("episode_0.hdf5")
    assert list(episode.cameras["cam_high"].jpegs()) == [jpeg(picture) for picture in pictures(30)]


@pytest.mark.parametrize("chunked", [True, False])
def test_plain_arrays_come_out_pixel_for_pixel(tmp_path: Path, chunked: bool) -> None:
    episode = read_one(tmp_path, compressed=False, chunked=chunked, seed=2)
    assert np.array_equal(list(episode.cameras["cam_low"].arrays()), pictures(30, seed=21))
    assert episode.cameras["cam_low"].spec.encoding == "raw"


def test_columns_are_bit_equal_and_named_by_the_rig(tmp_path: Path) -> None:
    episode = read_one(tmp_path, seed=4)
    assert np.array_equal(episode.columns["observation.state"], bimanual_14(30, seed=4))
    assert np.array_equal(episode.columns["action"], bimanual_14(30, seed=5))
    assert episode.columns["action"].dtype == np.float32
    assert "observation.effort" not in episode.columns, "the files hold no effort"
    assert (episode.rate_hz, episode.meta.task) == (50, TASK)


def test_colour_order_is_what_the_rig_states_for_arrays_and_for_jpegs(tmp_path: Path) -> None:
    plain = read_one(tmp_path / "plain", compressed=False)
    packed = read_one(tmp_path / "packed", compressed=True)
    assert plain.cameras["cam_high"].spec.channel_order == "bgr"
    assert packed.cameras["cam_high"].spec.channel_order == "rgb"


def test_files_are_listed_in_natural_order_from_all_subfolders(tmp_path: Path) -> None:
    for name in ("day_10/episode_0", "day_2/episode_10", "day_2/episode_9"):
        write_aloha_episode(tmp_path / f"{name}.hdf5", num_frames=3)
    (tmp_path / "day_2/._episode_9.hdf5").write_bytes(b"a file manager's leftover")
    names = open_source(tmp_path, aloha()).names()
    assert names == ["day_2/episode_9.hdf5", "day_2/episode_10.hdf5", "day_10/episode_0.hdf5"]


def test_a_scalar_instruction_reads_like_an_array_of_one(tmp_path: Path) -> None:
    assert read_one(tmp_path, language="Wipe the board.", language_scalar=True).meta.task == "Wipe the board."


def test_recorded_reasoning_and_the_sim_flag_are_kept(tmp_path: Path) -> None:
    steps = [f"step {index // 10}" for index in range(30)]
    episode = read_one(tmp_path, substep_reasonings=steps, reasoning="Read the board first.", sim=False)
    assert episode.imported == {
        "substep_reasonings": tuple(steps),
        "reasoning": ("Read the board first.",),
        "sim": ("false",),
    }


def test_reasoning_that_does_not_cover_every_row_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EpisodeError, match=r"substep_reasonings has 4 texts for 30 rows"):
        read_one(tmp_path, substep_reasonings=["a", "b", "c", "d"])


def test_a_truncated_file_says_so(tmp_path: Path) -> None:
    write_aloha_episode(tmp_path / "episode_0.hdf5")
    path = write_aloha_episode(tmp_path / "episode_1.hdf5")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    source = open_source(tmp_path, aloha())
    assert source.names() == ["episode_0.hdf5", "episode_1.hdf5"]
    with pytest.raises(EpisodeError, match=r"episode_1\.hdf5: file is truncated\. Copy it again"):
        source.read("episode_1.hdf5")


def test_a_file_that_is_no_hdf5_says_so(tmp_path: Path) -> None:
    write_aloha_episode(tmp_path / "episode_0.hdf5")
    (tmp_path / "episode_1.hdf5").write_bytes(b"not this")
    with pytest.raises(EpisodeError, match=r"not a readable HDF5 file"):
        open_source(tmp_path, aloha()).read("episode_1.hdf5")


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (trajectory(30, 7), "action has 7 dimensions, the rig names 14"),
        (trajectory(30, 28).reshape(30, 14, 2), r"action has shape \(30, 14, 2\), not \(rows, dims\)"),
        (trajectory(29, 14), "columns differ in length"),
        (trajectory(0, 14), r"action has shape \(0, 14\)"),
    ],
)
def test_an_action_of_another_shape_is_refused(tmp_path: Path, action: Any, message: str) -> None:
    with pytest.raises(EpisodeError, match=message):
        read_one(tmp_path, action=action)


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "an infinite value")])
def test_a_number_that_is_none_is_named_by_frame_and_dimension(tmp_path: Path, value: float, word: str) -> None:
    action = bimanual_14(30)
    action[12, 8] = value
    with pytest.raises(EpisodeError, match=rf"action has {word} at frame 12, dimension 'right_shoulder' \(index 8\)"):
        read_one(tmp_path, action=action)


def test_a_camera_shorter_than_its_episode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EpisodeError, match=r"camera 'cam_low' has 29 frames for 30 rows"):
        read_one(tmp_path, short_camera="cam_low")


def test_a_missing_key_is_the_episodes_fault_when_others_have_it(tmp_path: Path) -> None:
    with pytest.raises(EpisodeError, match=r"episode_1\.hdf5: observations/qpos is missing"):
        read_one(tmp_path, drop=("observations/qpos",))
    with pytest.raises(EpisodeError, match=r"camera 'cam_low' is missing \(has: cam_high\)"):
        read_one(tmp_path / "b", cameras=("cam_high",))


def test_a_key_missing_in_the_first_file_only_does_not_blame_the_rig(tmp_path: Path) -> None:
    write_aloha_episode(tmp_path / "episode_0.hdf5", drop=("action",))
    write_aloha_episode(tmp_path / "episode_1.hdf5")
    source = open_source(tmp_path, aloha())
    assert source.read("episode_1.hdf5").num_frames == 30
    with pytest.raises(EpisodeError, match=r"action is missing"):
        source.read("episode_0.hdf5")


def test_an_optional_camera_of_one_file_only_is_never_dropped_in_silence(tmp_path: Path) -> None:
    for index in range(3):
        cameras = ("cam_high", "cam_left_wrist") if index == 0 else ("cam_high",)
        write_aloha_episode(tmp_path / f"episode_{index}.hdf5", cameras=cameras)
    source = open_source(tmp_path, aloha())
    assert list(source.rig.cameras) == ["cam_high"]
    with pytest.raises(EpisodeError, match=r"has observations/images/cam_left_wrist, which most files here lack"):
        source.read("episode_0.hdf5")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda rows, lengths: rows.__setitem__((5, slice(0, 2)), 0), "frame 5 does not start as a JPEG"),
        (lambda rows, lengths: rows.__setitem__((7, slice(200, None)), 0), r"frame 7 is cut off \(no end marker\)"),
        (lambda rows, lengths: lengths.__setitem__((0, 9), 100), r"frame 9 is cut off"),
        (
            lambda rows, lengths: lengths.__setitem__((0, 2), 1e9),
            r"compress_len of camera 'cam_high' frame 2 is 1e\+09",
        ),
    ],
)
def test_a_damaged_jpeg_is_named_by_camera_and_frame(tmp_path: Path, damage: Any, message: str) -> None:
    path = write_aloha_episode(tmp_path / "raw/episode_0.hdf5")
    with h5py.File(path, "a") as file:
        rows, lengths = file["observations/images/cam_high"][:], file["compress_len"][:]
        damage(rows, lengths)
        file["observations/images/cam_high"][:], file["compress_len"][:] = rows, lengths
    with pytest.raises(EpisodeError, match=message):
        open_source(tmp_path / "raw", aloha()).read("episode_0.hdf5")


def test_a_jpeg_cut_off_without_lengths_is_found_too(tmp_path: Path) -> None:
    path = write_aloha_episode(tmp_path / "episode_0.hdf5", with_compress_len=False)
    with h5py.File(path, "a") as file:
        file["observations/images/cam_low"][3, 400:] = 0
    with pytest.raises(EpisodeError, match=r"camera 'cam_low' frame 3 is cut off"):
        open_source(tmp_path, aloha()).read("episode_0.hdf5")


def with_cameras(rig: Rig, **cameras: Camera) -> Rig:
    return rig.model_copy(update={"name": "mylab", "cameras": cameras})


def test_a_camera_that_no_file_has_is_the_rigs_fault(tmp_path: Path) -> None:
    write_aloha_episode(tmp_path / "ep_3.hdf5")
    rig = with_cameras(aloha(), top=Camera(key="observations/images/top", channel_order="rgb"))
    with pytest.raises(RigError) as caught:
        open_source(tmp_path, rig)
    assert str(caught.value) == (
        "camera 'top' reads observations/images/top, not in ep_3.hdf5 (has: cam_high, cam_low). "
        "Correct its key under cameras: in rig 'mylab'"
    )


def test_files_with_none_of_the_rigs_optional_cameras_do_not_become_blind(tmp_path: Path) -> None:
    write_aloha_episode(tmp_path / "ep_3.hdf5", cameras=("front", "wrist"))
    with pytest.raises(RigError, match=r"none of the rig's cameras is in ep_3.hdf5 \(has: front, wrist\)"):
        open_source(tmp_path, aloha())


def test_a_rig_with_another_number_of_dimensions_does_not_fit(tmp_path: Path) -> None:
    write_aloha_episode(tmp_path / "ep_3.hdf5", action=trajectory(30, 10))
    with pytest.raises(RigError, match=r"'action' has 10 dimensions in ep_3.hdf5, but the rig names 14"):
        open_source(tmp_path, aloha())


def test_a_feature_key_that_no_file_has_is_the_rigs_fault(tmp_path: Path) -> None:
    write_aloha_episode(tmp_path / "ep_3.hdf5", drop=("observations/qpos",))
    with pytest.raises(RigError, match=r"'observation.state' reads observations/qpos, not in ep_3.hdf5 \(has: action"):
        open_source(tmp_path, aloha())


def test_an_unknown_colour_order_is_asked_for(tmp_path: Path) -> None:
    write_aloha_episode(tmp_path / "ep_3.hdf5")
    rig = with_cameras(aloha(), cam_high=Camera(key="observations/images/cam_high"))
    with pytest.raises(RigError, match=r"does not say the colour order of camera 'cam_high'"):
        open_source(tmp_path, rig)


def test_without_any_instruction_the_episode_says_where_to_write_one(tmp_path: Path) -> None:
    write_aloha_episode(tmp_path / "ep_3.hdf5", language=None)
    with pytest.raises(EpisodeError, match=r"no instruction. Record one, write task: in the rig"):
        open_source(tmp_path, aloha()).read("ep_3.hdf5")
    stated = aloha().model_copy(update={"task": "Fold the towel."})
    assert open_source(tmp_path, stated).read("ep_3.hdf5").meta.task == "Fold the towel."


def test_a_link_to_nowhere_is_an_episode_that_says_so(tmp_path: Path) -> None:
    write_aloha_episode(tmp_path / "episode_0.hdf5", num_frames=3)
    (tmp_path / "episode_1.hdf5").symlink_to(tmp_path / "unmounted" / "episode_1.hdf5")
    (tmp_path / ".git/annex").mkdir(parents=True)
    shutil.copy(tmp_path / "episode_0.hdf5", tmp_path / ".git/annex/key.hdf5")
    source = open_source(tmp_path, aloha())
    assert source.names() == ["episode_0.hdf5", "episode_1.hdf5"]
    with pytest.raises(EpisodeError, match=r"episode_1.hdf5: a link to a file that is not there. Mount its drive"):
        source.read("episode_1.hdf5")
    before = source.fingerprint()
    write_aloha_episode(tmp_path / "unmounted.hdf5", num_frames=4)
    (tmp_path / "unmounted").mkdir()
    (tmp_path / "unmounted.hdf5").rename(tmp_path / "unmounted" / "episode_1.hdf5")
    assert source.fingerprint() != before
    assert source.read("episode_1.hdf5").num_frames == 4


def test_the_stamp_of_an_episode_follows_its_file_and_its_row_alone(tmp_path: Path) -> None:
    raw = write_aloha_folder(tmp_path / "raw", num_frames=3)
    before = open_source(raw, load_rig("aloha_sim")).stamps()
    assert list(before) == [f"episode_{index}.hdf5" for index in range(3)]
    write_aloha_episode(raw / "episode_0.hdf5", num_frames=3)
    write_metadata_csv(raw, [{"file": f"episode_{index}.hdf5", "operator": "bob"} for index in range(3)])
    rows = [{"file": f"episode_{index}.hdf5", "operator": "ada" if index else "bob"} for index in range(3)]
    write_metadata_csv(raw, [{**row, "outcome": "success"} for row in rows])
    after = open_source(raw, load_rig("aloha_sim")).stamps()
    assert [name for name in before if before[name] == after[name]] == ["episode_1.hdf5"]


def test_identity_follows_the_content_and_not_the_place(tmp_path: Path) -> None:
    source = open_source(write_aloha_folder(tmp_path / "raw"), load_rig("aloha_sim"))
    moved = shutil.copytree(tmp_path / "raw", tmp_path / "elsewhere/copy", copy_function=shutil.copy)
    other: Source = pickle.loads(pickle.dumps(open_source(moved, load_rig("aloha_sim"))))
    assert other.fingerprint() == source.fingerprint()
    ids = [source.read(name).meta.episode_id for name in source.names()]
    assert [other.read(name).meta.episode_id for name in other.names()] == ids
    assert len(set(ids)) == 3
    assert ids[0].startswith("episode_0-")
    with h5py.File(moved / "episode_0.hdf5", "a") as file:
        file["action"][0, 0] += 1
    assert other.fingerprint() != source.fingerprint()
    assert other.read("episode_0.hdf5").meta.episode_id != ids[0]


def test_one_repaired_number_in_a_large_file_changes_the_fingerprint(tmp_path: Path) -> None:
    path = write_aloha_episode(tmp_path / "episode_0.hdf5", compressed=False, num_frames=400)
    assert path.stat().st_size > 4 << 20
    source = open_source(tmp_path, aloha())
    before = source.fingerprint()
    for frame in (0, 137, 399):
        with h5py.File(path, "a") as file:
            file["action"][frame, 3] += 0.5
        assert source.fingerprint() != before
        before = source.fingerprint()


def test_a_folder_of_broken_files_only_is_no_source(tmp_path: Path) -> None:
    (tmp_path / "episode_0.hdf5").write_bytes(b"")
    with pytest.raises(SourceError, match=r"none of the 1 \.hdf5 files in .* can be opened \(episode_0.hdf5 first\)"):
        open_source(tmp_path, aloha())
