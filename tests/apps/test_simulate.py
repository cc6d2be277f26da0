"""`simulate`: files as a lab would have them, the same ones every time."""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from apps.sim import recording
from apps.sim.robot import SimRobot
from apps.sim.simulate import SimulateReport, simulate
from schemas.errors import EpisodeError, UsageError

SIZE = (96, 72)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> SimulateReport:
    out = tmp_path_factory.mktemp("sim") / "raw"
    return simulate(out=out, num_episodes=2, split="in-domain", seed=4, image_size=SIZE)


def test_an_episode_file_has_the_published_layout(report: SimulateReport) -> None:
    with h5py.File(report.out / "episode_0.hdf5") as file:
        assert bool(file.attrs["sim"]) is True
        assert bool(file.attrs["compress"]) is True
        num_frames = len(file["action"])
        for key in ("action", "observations/qpos", "observations/qvel"):
            assert (file[key].shape, file[key].dtype) == ((num_frames, 14), np.float32)
            assert np.isfinite(file[key][:]).all()
        cameras = list(file["observations/images"])
        assert cameras == ["cam_high", "cam_low"]
        assert (file["compress_len"].shape, file["compress_len"].dtype) == ((2, num_frames), np.float32)
        assert file["language_raw"].shape == (1,)
        assert file["language_raw"][0].decode() == "Answer the question and pick the card with the correct answer."
        assert not [key for key in file if "reason" in key]
        for camera, lengths in zip(cameras, file["compress_len"][:].astype(int), strict=True):
            rows = file["observations/images"][camera]
            assert (len(rows), rows.dtype) == (num_frames, np.uint8)
            for row, length in ((rows[t], lengths[t]) for t in (0, num_frames - 1)):
                assert not row[length:].any()
                assert bytes(row[length - 2 : length]) == b"\xff\xd9"
                assert Image.open(io.BytesIO(row[:length].tobytes())).convert("RGB").size == SIZE
        assert 150 <= num_frames <= 450
        gripper = file["action"][:, [6, 13]]
        assert gripper.min() >= 0
        assert gripper.max() <= 1


def test_recorded_colours_decode_to_what_the_camera_saw(report: SimulateReport) -> None:
    robot = SimRobot(image_size=SIZE)
    robot.reset(split="in-domain", seed=4, index=0)
    seen = robot.observe().images["cam_low"]
    robot.close()
    with h5py.File(report.out / "episode_0.hdf5") as file:
        jpeg = file["observations/images/cam_low"][0][: int(file["compress_len"][1, 0])].tobytes()
    recorded = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")).astype(int)
    assert np.abs(recorded - seen).mean() < 6
    assert np.abs(recorded[..., ::-1] - seen).mean() > 12


def test_recorded_actions_replayed_from_the_file_succeed(report: SimulateReport) -> None:
    robot = SimRobot(image_size=SIZE)
    for index in range(report.num_episodes):
        with h5py.File(report.out / f"episode_{index}.hdf5") as file:
            actions, qpos = file["action"][:], file["observations/qpos"][:]
        robot.reset(split="in-domain", seed=4, index=index)
        np.testing.assert_array_equal(robot.observe().qpos, qpos[0])
        for action in actions:
            robot.apply(action)
        assert robot.outcome().success
    robot.close()


def test_metadata_and_ground_truth_lie_where_they_belong(report: SimulateReport) -> None:
    rows = list(csv.DictReader((report.out / "metadata.csv").open()))
    assert [row["file"] for row in rows] == ["episode_0.hdf5", "episode_1.hdf5"]
    assert {row["outcome"] for row in rows} == {"success"}
    truth = json.loads((report.ground_truth / "episode_0.json").read_text())
    assert report.ground_truth.parent == report.out.parent
    assert [card["position"] for card in truth["cards"]] == ["left", "middle", "right"]
    chosen = next(card for card in truth["cards"] if card["position"] == truth["chosen_position"])
    assert chosen["number"] == truth["answer"]
    phases = truth["phases"]
    assert phases[0]["start"] == 0
    assert phases[-1]["stop"] == truth["num_frames"]
    assert [phase["start"] for phase in phases[1:]] == [phase["stop"] for phase in phases[:-1]]
    assert str(truth["equation"]) not in (report.out / "metadata.csv").read_text()


def test_workers_and_order_change_no_byte(report: SimulateReport, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    again = simulate(
        out=tmp_path / "raw",
        num_episodes=2,
        split="in-domain",
        seed=4,
        image_size=SIZE,
        workers=2,
        on_progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(0, 2), (1, 2), (2, 2)]
    for index in range(2):
        name = f"episode_{index}.hdf5"
        assert (again.out / name).read_bytes() == (report.out / name).read_bytes()


@pytest.mark.slow
def test_a_killed_simulate_goes_on_where_it_stopped(report: SimulateReport, tmp_path: Path) -> None:
    out = tmp_path / "raw"
    code = (
        "from pathlib import Path\nfrom apps.sim.simulate import simulate\n"
        f"simulate(out=Path({str(out)!r}), num_episodes=50, split='in-domain', seed=4, image_size={SIZE})"
    )
    run = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2], env={**os.environ})
    deadline_s = time.monotonic() + 240
    while not (out / "episode_0.hdf5").exists():
        assert run.poll() is None
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    run.send_signal(signal.SIGKILL)
    run.wait()
    (out / ".episode_1.hdf5.1.part").write_bytes(b"half a file")
    first = (out / "episode_0.hdf5").stat().st_mtime_ns
    resumed = simulate(out=out, num_episodes=2, split="in-domain", seed=4, image_size=SIZE)
    assert resumed.num_already_there >= 1
    assert (out / "episode_0.hdf5").stat().st_mtime_ns == first
    names = {path.name for path in out.iterdir()}  # a kill that came late leaves later episodes too
    assert {"episode_0.hdf5", "episode_1.hdf5", "metadata.csv"} <= names
    assert not [name for name in names if name.endswith(".part")]
    for index in range(2):
        name = f"episode_{index}.hdf5"
        assert (out / name).read_bytes() == (report.out / name).read_bytes()


def test_another_recipe_into_the_same_folder_is_refused(report: SimulateReport) -> None:
    with pytest.raises(UsageError, match=r"another recipe \(seed 4, not 5\)"):
        simulate(out=report.out, num_episodes=2, split="in-domain", seed=5, image_size=SIZE)


def test_senseless_arguments_are_refused_in_a_sentence(tmp_path: Path) -> None:
    good = {"out": tmp_path / "raw", "num_episodes": 1, "split": "in-domain", "seed": 0}
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    for bad, words in (
        ({"num_episodes": 0}, "at least 1"),
        ({"split": "in-domian"}, "Did you mean 'in-domain'"),
        ({"seed": -1}, "at least 0"),
        ({"image_size": (0, 240)}, "Try 320x240"),
        ({"workers": 0}, "at least 1"),
        ({"out": tmp_path / "full"}, "did not write"),
    ):
        with pytest.raises(UsageError, match=words):
            simulate(**{**good, **bad})
    assert not (tmp_path / "raw").exists()


def test_fewer_episodes_than_the_folder_holds_lose_no_row(report: SimulateReport, tmp_path: Path) -> None:
    out = copied(report, tmp_path)
    fewer = simulate(out=out, num_episodes=1, split="in-domain", seed=4, image_size=SIZE)
    assert (fewer.num_episodes, fewer.num_already_there, fewer.num_frames) == (2, 2, report.num_frames)
    assert (out / "metadata.csv").read_bytes() == (report.out / "metadata.csv").read_bytes()


def test_a_scene_that_can_not_be_played_is_left_out_and_said(
    report: SimulateReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = copied(report, tmp_path)
    (out / "episode_1.hdf5").unlink()
    monkeypatch.setattr(recording, "MAX_ATTEMPTS", 0)
    told: list[tuple[int, int]] = []
    one = simulate(
        out=out,
        num_episodes=2,
        split="in-domain",
        seed=4,
        image_size=SIZE,
        on_progress=lambda done, total: told.append((done, total)),
    )
    assert (one.num_episodes, one.skipped, told) == (1, (1,), [(1, 2), (2, 2)])
    assert "failed every time: episode_1" in one.summary()
    assert [row["file"] for row in csv.DictReader((out / "metadata.csv").open())] == ["episode_0.hdf5"]
    with pytest.raises(EpisodeError, match=r"episode_0: the scripted operator failed .* Choose another --seed"):
        simulate(out=tmp_path / "new", num_episodes=1, split="in-domain", seed=4, image_size=SIZE)


def copied(report: SimulateReport, tmp_path: Path) -> Path:
    """A folder of its own with what `report` left."""
    shutil.copytree(report.ground_truth, tmp_path / report.ground_truth.name)
    return Path(shutil.copytree(report.out, tmp_path / report.out.name))
