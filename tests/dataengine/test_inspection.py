"""`inspect` works before there is a rig, and its draft asks for exactly what the data cannot say."""

import json
from pathlib import Path

import h5py
import pytest
import yaml
from raw_files import TASK, write_aloha_episode, write_diffusion_zarr, write_lerobot_v21

from dataengine.inspection import inspect_path
from dataengine.rig_files import load_rig
from dataengine.sources import open_source
from schemas.errors import RigError, SourceError


def test_hdf5_shows_keys_cameras_and_what_is_not_stored(tmp_path: Path) -> None:
    write_aloha_episode(tmp_path / "episode_0.hdf5", depth_cameras=("cam_high_depth",), reasoning="Look first.")
    write_aloha_episode(tmp_path / "episode_1.hdf5", cameras=("cam_high",), num_frames=12)
    (tmp_path / "episode_2.hdf5").write_bytes(b"cut")
    found = inspect_path(tmp_path)
    assert (found.kind, found.num_episodes, found.num_rows, found.rate_text) == ("aloha_hdf5", 3, 42, "not stored")
    assert ("observations/qpos", (30, 14), "float32") in [(row.key, row.shape, row.dtype) for row in found.rows]
    assert [(camera.key, camera.height, camera.width, camera.encoding) for camera in found.cameras] == [
        ("observations/images/cam_high", 48, 64, "jpeg"),
        ("observations/images/cam_low", 48, 64, "jpeg"),
    ]
    assert found.tasks == (TASK,)
    notes = " | ".join(found.notes)
    assert "1 of 2 files lack camera cam_low: episode_1.hdf5" in notes
    assert "1 of 3 files cannot be opened: episode_2.hdf5" in notes
    assert "cam_high_depth is uint16" in notes
    assert "colour order of the cameras is not stored" in notes
    assert "reasoning is recorded in reasoning" in notes


def test_lerobot_shows_the_rate_the_timing_and_which_videos_are_missing(tmp_path: Path) -> None:
    found = inspect_path(write_lerobot_v21(tmp_path / "raw", lengths=(20, 25, 9), missing_videos=(0, 2)))
    assert (found.num_episodes, found.num_rows, found.rate_text) == (3, 54, "30 Hz")
    assert "2 of 3 episodes lack their video: episode_000000, episode_000002" in found.notes
    assert found.timing.startswith("episode_000000: 20 rows over 0.63 s, step 33.3")
    assert [(camera.key, camera.encoding) for camera in found.cameras] == [("observation.images.cam_high", "h264")]


def test_a_broken_first_parquet_and_video_are_noted_and_the_next_ones_are_shown(tmp_path: Path) -> None:
    root = write_lerobot_v21(tmp_path / "raw", lengths=(20, 25, 9))
    for pattern in ("episode_000000.parquet", "episode_000001.mp4", "episode_000000.mp4"):
        [path] = root.rglob(pattern)
        path.write_bytes(path.read_bytes()[:300])
    found = inspect_path(root)
    assert found.timing.startswith("episode_000001: 25 rows")
    assert "observation.state" in found.draft_rig_yaml
    assert [(camera.height, camera.width, camera.encoding) for camera in found.cameras] == [(48, 64, "h264")]
    notes = " | ".join(found.notes)
    assert "episode_000001 is broken and was passed over: its video of observation.images.cam_high is not" in notes
    assert "episode_000000 is broken and was passed over" in notes


def test_a_dataset_of_broken_files_only_is_still_described(tmp_path: Path) -> None:
    root = write_lerobot_v21(tmp_path / "raw", lengths=(20, 25))
    for path in [*root.rglob("*.parquet"), *root.rglob("*.mp4")]:
        path.write_bytes(b"cut")
    found = inspect_path(root)
    assert (found.num_episodes, found.timing) == (2, "no stamps stored")
    assert found.cameras[0].encoding == "unknown: no video can be read"


def test_an_hdf5_file_that_opens_but_is_damaged_inside_is_noted(tmp_path: Path) -> None:
    for index in range(2):
        path = write_aloha_episode(tmp_path / f"episode_{index}.hdf5", num_frames=40)
        with h5py.File(path, "a") as file:
            action = file["action"][:]
            del file["action"]
            file.create_dataset("action", data=action, chunks=(40, 14), compression="gzip")
            place = file["action"].id.get_chunk_info(0)
        if index == 0:
            with path.open("r+b") as raw:
                raw.seek(place.byte_offset)
                raw.write(b"\0" * place.size)
    found = inspect_path(tmp_path)
    assert "episode_0.hdf5 is broken and was passed over: its data can not be read" in found.notes
    assert ("action", (40, 14), "float32") in [(row.key, row.shape, row.dtype) for row in found.rows]


def test_a_rate_that_cannot_be_kept_is_shown_and_noted(tmp_path: Path) -> None:
    root = write_lerobot_v21(tmp_path / "raw", lengths=(3,))
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps({**info, "fps": 29.97}))
    found = inspect_path(root)
    assert found.rate_text == "29.97 Hz"
    assert "29.97 Hz is no whole rate: resample before converting" in found.notes


def test_zarr_shows_its_arrays_and_that_no_rate_is_stored(tmp_path: Path) -> None:
    write_diffusion_zarr(tmp_path / "deep/x.zarr")
    found = inspect_path(tmp_path)
    assert (found.folder, found.num_episodes, found.num_rows) == ("deep/x.zarr", 2, 32)
    assert found.rate_text == "not stored"
    assert [(camera.key, camera.encoding) for camera in found.cameras] == [("img", "raw float32")]
    assert "episodes have 12 to 20 rows" in found.notes


def answered(tmp_path: Path, draft: str, answers: dict[str, str]) -> Path:
    for question, answer in answers.items():
        assert question in draft
        draft = draft.replace(question, answer)
    path = tmp_path / "mylab.yaml"
    path.write_text(draft)
    return path


def test_the_draft_of_an_hdf5_rig_is_refused_until_its_questions_are_answered(tmp_path: Path) -> None:
    write_aloha_episode(tmp_path / "raw/episode_0.hdf5")
    draft = inspect_path(tmp_path / "raw").draft_rig_yaml
    with pytest.raises(RigError, match=r"rate_hz is wrong"):
        load_rig(str(answered(tmp_path, draft, {})))
    half = load_rig(str(answered(tmp_path, draft, {"rate_hz: null": "rate_hz: 50"})))
    with pytest.raises(RigError, match=r"does not say the colour order"):
        open_source(tmp_path / "raw", half).read("episode_0.hdf5")
    answers = {"rate_hz: null": "rate_hz: 50", "channel_order: unknown": "channel_order: rgb"}
    rig = load_rig(str(answered(tmp_path, draft, answers)))
    episode = open_source(tmp_path / "raw", rig).read("episode_0.hdf5")
    assert (episode.num_frames, set(episode.cameras)) == (30, {"cam_high", "cam_low"})
    assert {"observation.state", "action"} <= set(episode.columns)


def test_the_draft_of_a_zarr_rig_works_once_answered(tmp_path: Path) -> None:
    write_diffusion_zarr(tmp_path / "raw/x.zarr")
    draft = inspect_path(tmp_path / "raw").draft_rig_yaml
    answers = {
        "rate_hz: null": "rate_hz: 10",
        "channel_order: unknown": "channel_order: rgb",
        "task: null": "task: Push.",
    }
    rig = load_rig(str(answered(tmp_path, draft, answers)))
    assert open_source(tmp_path / "raw", rig).read("episode_000001").meta.task == "Push."


def test_the_draft_of_a_lerobot_rig_works_as_it_is(tmp_path: Path) -> None:
    root = write_lerobot_v21(tmp_path / "raw", names=[["a: b", "yes", "3", "#d"]])
    rig = load_rig(str(answered(tmp_path, inspect_path(root).draft_rig_yaml, {})))
    assert rig.features["action"].names == ("a: b", "yes", "3", "#d")
    assert open_source(root, rig).read("episode_000000").num_frames == 20


def test_every_draft_asks_about_end_effectors(tmp_path: Path) -> None:
    root = write_lerobot_v21(tmp_path / "raw", lengths=(3,))
    draft = inspect_path(root).draft_rig_yaml
    line = next(line for line in draft.splitlines() if line.startswith("end_effectors:"))
    assert "?" in line
    assert yaml.safe_load(draft)["end_effectors"] == []


def test_the_facts_are_plain_json(tmp_path: Path) -> None:
    write_aloha_episode(tmp_path / "episode_0.hdf5")
    facts = json.loads(json.dumps(inspect_path(tmp_path).to_json()))
    assert facts["num_episodes"] == 1
    assert facts["rate_text"] == "not stored"


def test_a_folder_without_a_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"is an empty directory"):
        inspect_path(tmp_path)


def test_the_real_g1_dataset_says_that_94_of_100_videos_are_missing(samples: Path) -> None:
    found = inspect_path(samples / "g1_inspire_v21")
    assert (found.num_episodes, found.num_rows, found.rate_text) == (100, 35_965, "30 Hz")
    assert any(note.startswith("94 of 100 episodes lack their video") for note in found.notes)
    assert found.cameras[0].encoding == "av1"


def test_the_real_pusht_buffer_lies_below_the_folder_and_stores_no_rate(samples: Path) -> None:
    found = inspect_path(samples / "pusht_zarr")
    assert found.folder == "data/pusht/pusht_cchi_v7_replay.zarr"
    assert (found.num_episodes, found.num_rows, found.rate_text) == (206, 25_650, "not stored")
