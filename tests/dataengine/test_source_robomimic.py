"""robomimic, LIBERO and robosuite: many demos to a file, each read alone, exactly as it was written."""

import pickle
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from raw_files import pictures, trajectory, write_metadata_csv
from raw_robomimic import env_args, write_libero, write_robomimic, write_robosuite
from real_frames import mean_error, pusht_frames

from dataengine.convert import convert
from dataengine.episode_set import EpisodeSet
from dataengine.inspection import inspect_path
from dataengine.rig_files import load_rig
from dataengine.sources import detect, open_source
from dataengine.verification import verify
from dataengine.workspace import Workspace
from schemas.errors import EpisodeError, RigError
from schemas.refs import Ref
from schemas.rigs import EndEffector, Rig


def robomimic() -> Rig:
    return load_rig("robomimic")


def test_demos_of_all_files_are_listed_in_natural_order_whatever_the_file_says(tmp_path: Path) -> None:
    write_robomimic(tmp_path / "lift/low_dim.hdf5", lengths=(3,) * 11, images=False)
    write_robomimic(tmp_path / "can/low_dim.h5", lengths=(4, 5), first=1, images=False)
    names = open_source(tmp_path, robomimic()).names()
    assert names[:3] == ["can/low_dim.h5/demo_1", "can/low_dim.h5/demo_2", "lift/low_dim.hdf5/demo_0"]
    assert names[-2:] == ["lift/low_dim.hdf5/demo_9", "lift/low_dim.hdf5/demo_10"]
    assert detect(tmp_path) == "robomimic_hdf5"


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_a_demo_comes_out_bit_for_bit_and_pixel_for_pixel(tmp_path: Path, compression: str | None) -> None:
    write_robomimic(tmp_path / "image.hdf5", compression=compression)
    episode = open_source(tmp_path, robomimic()).read("image.hdf5/demo_1")
    assert np.array_equal(episode.columns["action"], trajectory(9, 7, seed=1))
    assert episode.columns["action"].dtype == np.float64
    parts = [trajectory(10, dims, seed=1 + dims)[:9] for dims in (3, 4, 2)]
    assert np.array_equal(episode.columns["observation.state"], np.concatenate(parts, axis=1))
    assert episode.columns["observation.state"].dtype == np.float32
    assert episode.columns["next.reward"][:, 0].tolist() == [0.0] * 8 + [1.0]
    assert (episode.rate_hz, episode.meta.task) == (20, "Lift")
    camera: Any = episode.cameras["agentview"]
    assert np.array_equal(list(camera.arrays()), pictures(10, seed=1)[:9])
    assert camera.spec.orientation == "upright"
    assert "eye_in_hand" not in episode.cameras, "the files hold no such camera"


def test_reading_one_demo_leaves_the_others_alone(tmp_path: Path) -> None:
    path = write_robomimic(tmp_path / "image.hdf5")
    with h5py.File(path) as file:
        place = file["data/demo_0/obs/agentview_image"]
        start, size = place.id.get_offset(), place.id.get_storage_size()
    with path.open("r+b") as raw:
        raw.seek(start)
        raw.write(b"\xaa" * size)
    source = open_source(tmp_path, robomimic())
    camera: Any = source.read("image.hdf5/demo_2").cameras["agentview"]
    assert np.array_equal(list(camera.arrays()), pictures(16, seed=2)[:15])
    with h5py.File(path, "a") as file:
        del file["data/demo_0"]
    assert source.read("image.hdf5/demo_2").num_frames == 15


def test_next_obs_is_neither_a_column_nor_part_of_the_identity(tmp_path: Path) -> None:
    path = write_robomimic(tmp_path / "image.hdf5")
    source = open_source(tmp_path, robomimic())
    before = source.read("image.hdf5/demo_0").meta.episode_id
    with h5py.File(path, "a") as file:
        del file["data/demo_0/next_obs"]
        file["data/demo_0"].attrs["note"] = "text is no content"
    assert source.read("image.hdf5/demo_0").meta.episode_id == before
    with h5py.File(path, "a") as file:
        file["data/demo_0/obs/agentview_image"][3, 4, 5, 0] += 1
    assert source.read("image.hdf5/demo_0").meta.episode_id != before


def test_ids_follow_the_content_and_not_the_rig_the_place_or_the_compression(tmp_path: Path) -> None:
    write_robomimic(tmp_path / "a/image.hdf5")
    write_robomimic(tmp_path / "b/deeper/image.hdf5", compression="gzip")
    blind = robomimic().model_copy(update={"cameras": {}})
    few = blind.model_copy(update={"features": {"action": blind.features["action"]}, "arms": ()})
    ids = [open_source(tmp_path / "a", rig).read("image.hdf5/demo_0").meta.episode_id for rig in (robomimic(), few)]
    other = pickle.loads(pickle.dumps(open_source(tmp_path / "b", robomimic())))
    ids.append(other.read("deeper/image.hdf5/demo_0").meta.episode_id)
    assert len(set(ids)) == 1
    assert ids[0].startswith("image_demo_0-")


def test_pictures_that_were_never_written_are_refused_and_not_black(tmp_path: Path) -> None:
    path = write_robomimic(tmp_path / "image.hdf5")
    key = "data/demo_1/obs/agentview_image"
    with h5py.File(path, "a") as file:
        shown = file[key][:]
        del file[key]
        file.create_dataset(key, shown.shape, shown.dtype, chunks=(1, *shown.shape[1:]))[:7] = shown[:7]
    source = open_source(tmp_path, robomimic())
    with pytest.raises(EpisodeError, match=r"demo_1: 2 of 9 rows of obs/agentview_image were never written"):
        source.read("image.hdf5/demo_1")
    assert source.read("image.hdf5/demo_2").num_frames == 15


def test_filters_are_kept_with_each_demo(tmp_path: Path) -> None:
    masks = {"train": ["demo_0", "demo_2"], "valid": ["demo_1"], "20_percent": ["demo_2"]}
    write_robomimic(tmp_path / "image.hdf5", masks=masks)
    source = open_source(tmp_path, robomimic())
    kept = [source.read(name).imported for name in source.names()]
    assert kept == [{"mask": ("train",)}, {"mask": ("valid",)}, {"mask": ("20_percent", "train")}]


def test_a_rate_that_contradicts_the_file_is_refused(tmp_path: Path) -> None:
    write_robomimic(tmp_path / "a.hdf5", args=env_args(control_freq=15))
    with pytest.raises(RigError, match=r"a.hdf5: its env_args say control_freq 15, rig 'robomimic' says 20 Hz"):
        open_source(tmp_path, robomimic())
    write_robomimic(tmp_path / "b.hdf5", seed=1)
    source = open_source(tmp_path, robomimic())
    with pytest.raises(EpisodeError, match=r"a.hdf5/demo_0: its env_args say control_freq 15"):
        source.read("a.hdf5/demo_0")
    assert source.read("b.hdf5/demo_0").rate_hz == 20


def test_another_robot_in_the_folder_is_a_rejected_demo(tmp_path: Path) -> None:
    write_robomimic(tmp_path / "a.hdf5")
    write_robomimic(tmp_path / "b.hdf5", seed=1, args=env_args(robots=["Sawyer"]))
    source = open_source(tmp_path, robomimic())
    with pytest.raises(EpisodeError, match=r"b.hdf5/demo_0: recorded with a Sawyer, rig 'robomimic' is for .* panda"):
        source.read("b.hdf5/demo_0")


def test_what_is_wrong_with_a_demo_or_a_file_is_said(tmp_path: Path) -> None:
    path = write_robomimic(tmp_path / "a.hdf5")
    with h5py.File(path, "a") as file:
        file["data/demo_1"].attrs["num_samples"] = 10
        del file["data/demo_2/actions"]
    (tmp_path / "b.hdf5").write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with h5py.File(tmp_path / "c.hdf5", "w") as file:
        file["q"] = np.zeros((4, 7))
    source = open_source(tmp_path, robomimic())
    assert source.names() == ["a.hdf5/demo_0", "a.hdf5/demo_1", "a.hdf5/demo_2", "b.hdf5", "c.hdf5"]
    said: dict[str, str] = {}
    for name in source.names()[1:]:
        with pytest.raises(EpisodeError) as caught:
            source.read(name)
        said[name] = str(caught.value)
    assert said["a.hdf5/demo_1"] == "a.hdf5/demo_1: num_samples says 10 rows, there are 9. Write it again."
    assert said["a.hdf5/demo_2"].startswith("a.hdf5/demo_2: actions is missing")
    assert said["b.hdf5"].startswith("b.hdf5: file is truncated. Copy it again")
    assert said["c.hdf5"].startswith("c.hdf5 holds /q (4, 7): no HDF5 layout that is known")


def test_a_rig_that_fits_no_demo_says_what_there_is(tmp_path: Path) -> None:
    write_robomimic(tmp_path / "a.hdf5")
    with pytest.raises(
        RigError, match=r"camera 'agentview' reads obs/agentview_rgb, not in a.hdf5/demo_0 \(has: obs/agentview_image\)"
    ):
        open_source(tmp_path, load_rig("libero"))
    with pytest.raises(RigError, match=r"Pass a rig: --rig robomimic, --rig libero"):
        open_source(tmp_path, None)


def test_metadata_comes_from_attributes_and_a_csv_by_demo(tmp_path: Path) -> None:
    write_robomimic(tmp_path / "a.hdf5", attrs={"operator": "ada", "trial": 7})
    rule = {"keys": {"operator": "operator", "session": "trial", "scene": "data/env_args.env_name"}, "csv": "m.csv"}
    rig = Rig.model_validate({**robomimic().model_dump(), "metadata": rule})
    rows = [{"episode": f"demo_{number}", "task": f"Lift it, {number}."} for number in range(3)]
    write_metadata_csv(tmp_path, [{**row, "outcome": "success"} for row in rows]).rename(tmp_path / "m.csv")
    (tmp_path / "m.csv").write_text("episode,task\n" + "".join(f"demo_{n},Lift {n}.\n" for n in range(3)))
    meta = open_source(tmp_path, rig).read("a.hdf5/demo_1").meta
    assert (meta.task, meta.operator, meta.session, meta.scene) == ("Lift 1.", "ada", "7", "Lift")
    lost = Rig.model_validate({**rig.model_dump(), "metadata": {"keys": {"operator": "opperator"}}})
    with pytest.raises(EpisodeError, match=r"a.hdf5/demo_1: no 'opperator', from which the rig takes the operator"):
        open_source(tmp_path, lost).read("a.hdf5/demo_1")


@pytest.mark.parametrize(
    "language", ["put the bowl on the plate", '"put the bowl on the plate"', list("put the bowl on the plate")]
)
def test_libero_is_told_upside_down_and_its_instruction_is_found(tmp_path: Path, language: Any) -> None:
    write_libero(tmp_path / "put_the_bowl_demo.hdf5", language=language)
    source = open_source(tmp_path, load_rig("libero"))
    episode = source.read("put_the_bowl_demo.hdf5/demo_0")
    assert episode.meta.task == "put the bowl on the plate"
    assert {camera.spec.orientation for camera in episode.cameras.values()} == {"flipped_vertical"}
    stored: Any = episode.cameras["agentview"]
    assert np.array_equal(next(stored.arrays()), pictures(10, height=128, width=128)[0, ::-1])
    gripper: EndEffector = source.rig.end_effectors[0]
    assert gripper.feature == "action"
    assert (gripper.closed, gripper.open) == (1.0, -1.0)


def test_libero_converts_upright_and_verifies(tmp_path: Path, samples: Path, workspace: Workspace) -> None:
    frames = pusht_frames(samples, 14)
    write_libero(tmp_path / "raw/bowl_demo.hdf5", lengths=(12, 10), frames=frames)
    ref = Ref("libero", "1")
    report = convert(source_path=tmp_path / "raw", to=ref, workspace=workspace, rig="libero", sink="both", workers=1)
    assert (report.num_episodes, report.num_frames) == (2, 22)
    episodes = EpisodeSet.open(workspace, ref)
    upright = episodes.video_frame(episodes.ids()[0], "agentview", 3)
    assert mean_error(upright, frames[3]) < 4 < mean_error(upright, frames[3, ::-1])
    checked = verify(source_path=tmp_path / "raw", ref=ref, workspace=workspace, workers=1)
    assert not [row for row in checked.rows if not row.ok]


def test_robomimic_converts_and_verifies(tmp_path: Path, samples: Path, workspace: Workspace) -> None:
    write_robomimic(tmp_path / "raw/image.hdf5", frames=pusht_frames(samples, 16), masks={"train": ["demo_0"]})
    ref = Ref("rm", "1")
    report = convert(source_path=tmp_path / "raw", to=ref, workspace=workspace, rig="robomimic", workers=1)
    assert (report.num_episodes, report.num_frames) == (3, 36)
    episodes = EpisodeSet.open(workspace, ref)
    assert [episodes.imported(name).get("mask") for name in episodes.ids()] == [("train",), None, None]
    checked = verify(source_path=tmp_path / "raw", ref=ref, workspace=workspace, workers=1)
    assert not [row for row in checked.rows if not row.ok]


def test_robosuites_own_files_start_at_one_and_have_no_pictures(tmp_path: Path) -> None:
    write_robosuite(tmp_path / "lift/demo.hdf5")
    write_robosuite(tmp_path / "stack/demo.hdf5", env="Stack", states=45, lengths=(11,))
    source = open_source(tmp_path, load_rig("robosuite_panda"))
    assert source.names() == ["lift/demo.hdf5/demo_1", "lift/demo.hdf5/demo_2", "stack/demo.hdf5/demo_1"]
    episode = source.read("stack/demo.hdf5/demo_1")
    assert (episode.meta.task, episode.meta.session, episode.cameras) == ("Stack", "9-4-2020", {})
    assert np.array_equal(episode.columns["observation.state"], trajectory(11, 44, seed=1)[:, :9].astype(np.float64))
    assert np.array_equal(episode.columns["sim_time"][:, 0], 0.002 + np.arange(11) * 0.05)


def test_the_real_robosuite_demonstrations_convert_by_robot(
    samples: Path, workspace: Workspace, tmp_path: Path
) -> None:
    raw = samples / "robosuite_teleop"
    found = inspect_path(raw)
    assert (found.kind, found.num_episodes, found.num_rows) == ("robomimic_hdf5", 14, 14_306)
    assert "several robots (Baxter, Panda, Sawyer): convert each robot with a rig of its own" in found.notes
    panda = raw / "v1.0.1"
    ref = Ref("panda", "1")
    report = convert(source_path=panda, to=ref, workspace=workspace, rig="robosuite_panda", max_rejected=0.2, workers=1)
    assert (report.num_episodes, report.num_frames, len(report.rejected)) == (5, 261 + 412 + 1036 + 1482 + 532, 1)
    assert "actions has 6 dimensions, the rig names 7" in report.rejected[0].reason, "Wipe has no gripper"
    assert verify(source_path=panda, ref=ref, workspace=workspace, workers=1).ok
    sawyer = open_source(raw / "v0.3.0/robosuite/models/assets/demonstrations/SawyerLift", load_rig("robosuite_sawyer"))
    episode = sawyer.read("demo.hdf5/demo_1")
    state: Any = episode.columns["observation.state"]
    width = state[:, 7] - state[:, 8]
    commands = episode.columns["action"][:, 7]
    assert np.median(width[commands == -1]) > 0.02 > np.median(width[commands == 0]), "-1 opens, 0 closes"


def test_a_draft_says_rate_and_robot_and_converts_once_answered(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    write_robomimic(raw / "image.hdf5", masks={"train": ["demo_0"]})
    (raw / "cut.hdf5").write_bytes(b"cut")
    found = inspect_path(raw)
    assert (found.num_episodes, found.num_rows, found.rate_text) == (4, 36, "20 Hz")
    assert found.tasks == ("Lift",)
    assert [(camera.key, camera.height, camera.width) for camera in found.cameras] == [("obs/agentview_image", 48, 64)]
    notes = " | ".join(found.notes)
    assert "cut.hdf5 is broken and was passed over" in notes
    assert "filters: train; kept with each episode" in notes
    assert not [row for row in found.rows if row.key.startswith("next_obs")]
    assert "rate_hz: 20\n" in found.draft_rig_yaml
    assert "robot_type: panda\n" in found.draft_rig_yaml
    (tmp_path / "mylab.yaml").write_text(found.draft_rig_yaml)
    with pytest.raises(RigError, match=r"does not say the colour order of camera 'agentview_image'"):
        open_source(raw, load_rig(str(tmp_path / "mylab.yaml")))
    (tmp_path / "mylab.yaml").write_text(found.draft_rig_yaml.replace("channel_order: unknown", "channel_order: rgb"))
    source = open_source(raw, load_rig(str(tmp_path / "mylab.yaml")))
    assert source.read("image.hdf5/demo_0").columns["observation.robot0_eef_pos"].shape == (12, 3)


def test_a_clock_that_nothing_else_tells_is_shown(tmp_path: Path) -> None:
    write_robosuite(tmp_path / "demo.hdf5")
    found = inspect_path(tmp_path)
    assert found.timing.startswith("states[:, 0] rises as a clock of 20 Hz does")
    assert "left_dpos is empty (20, 0): not read" in found.notes
    assert "rate_hz: null  # ?" in found.draft_rig_yaml


def test_stamps_follow_the_file(tmp_path: Path) -> None:
    write_robomimic(tmp_path / "a.hdf5", images=False)
    write_robomimic(tmp_path / "b.hdf5", images=False, seed=1)
    before = open_source(tmp_path, robomimic()).stamps()
    fingerprint = open_source(tmp_path, robomimic()).fingerprint()
    shutil.copy(tmp_path / "b.hdf5", tmp_path / "c.hdf5")
    with h5py.File(tmp_path / "b.hdf5", "a") as file:
        file["data/demo_0/actions"][0, 0] += 1
    after = open_source(tmp_path, robomimic())
    changed = [name for name in before if before[name] != after.stamps()[name]]
    assert changed == ["b.hdf5/demo_0", "b.hdf5/demo_1", "b.hdf5/demo_2"]
    assert after.fingerprint() != fingerprint
