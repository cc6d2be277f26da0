"""What the raw data holds and the rig does not name is never dropped without a word."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml
from raw_files import jpeg, pictures, trajectory, write_aloha_episode
from raw_robomimic import write_libero, write_robomimic
from rlds_files import episode, tensor, write_rlds
from typer.testing import CliRunner

from apps.cli.main import app
from apps.cli.words import convert_words
from dataengine.convert import ConvertReport, convert
from dataengine.rig_files import RIG_FOLDER
from dataengine.workspace import Workspace
from schemas.refs import Ref


def converted(raw: Path, rig: str, workspace: Workspace, *, version: str = "1", **options: Any) -> ConvertReport:
    to = Ref("tiny", version)
    return convert(source_path=raw, to=to, workspace=workspace, rig=rig, workers=1, **{"sink": "zarr", **options})


def notes(report: ConvertReport) -> list[dict[str, Any]]:
    return [record.notes for record in report.records]


def sentence(*keys: str) -> str:
    return f"not taken: {', '.join(keys)}; name columns and cameras in the rig to keep them"


def write_more(path: Path, *, seed: int) -> None:
    """An ALOHA episode with what its rig does not name: two cameras, forces and a text per row; and a calibration."""
    write_aloha_episode(
        path,
        num_frames=6,
        seed=seed,
        cameras=("cam_belly", "cam_high"),
        depth_cameras=("belly_depth",),
        substep_reasonings=["reach"] * 6,
        reasoning="The card is on the left.",
    )
    with h5py.File(path, "a") as file:
        file["observations/ft"] = trajectory(6, 6, seed=seed)
        file["phase"] = [b"reach"] * 6
        file["calibration"] = np.eye(4)


def test_a_camera_and_a_column_that_the_rig_does_not_name_are_said(tmp_path: Path, workspace: Workspace) -> None:
    for index in range(2):
        write_more(tmp_path / f"raw/episode_{index}.hdf5", seed=index)
    images = [f"observations/images/{name} (camera)" for name in ("belly_depth", "cam_belly")]
    line = sentence("observations/ft", *images, "phase (text)")
    report = converted(tmp_path / "raw", "aloha", workspace, sink="both")
    assert notes(report) == [{"not_taken": [line]}] * 2
    assert convert_words(report).splitlines()[1:] == [f"  {line}"], "once, not for each artifact"
    again = converted(tmp_path / "raw", "aloha", workspace, sink="both")
    assert again.already_there
    assert line in convert_words(again)
    shown = CliRunner().invoke(app, ["show", "frames/tiny@1", "--workspace", str(workspace.root)])
    assert f"\n  {line}\n" in shown.output


def test_what_the_rig_names_is_not_said(tmp_path: Path, workspace: Workspace) -> None:
    write_more(tmp_path / "raw/episode_0.hdf5", seed=0)
    rig = yaml.safe_load((RIG_FOLDER / "aloha.yaml").read_text())
    rig["features"]["observation.force"] = {"key": "/observations/ft"}
    rig["cameras"]["belly"] = {"key": "observations/images/cam_belly", "channel_order": "rgb"}
    rig["cameras"]["depth"] = {"key": "observations/images/belly_depth", "depth_unit_m": 0.001}
    rig["metadata"]["keys"] = {"scene": "calibration"}
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(rig))
    report = converted(tmp_path / "raw", str(tmp_path / "my.yaml"), workspace)
    assert notes(report) == [{"not_taken": [sentence("phase (text)")]}]


def test_files_that_are_no_episodes_do_not_hide_what_the_others_hold(tmp_path: Path, workspace: Workspace) -> None:
    write_more(tmp_path / "raw/episode_0.hdf5", seed=0)
    (tmp_path / "raw/a.hdf5").write_bytes(b"cut off")
    with h5py.File(tmp_path / "raw/b.hdf5", "w") as file:
        file["calibration"] = np.eye(4)
    report = converted(tmp_path / "raw", "aloha", workspace, max_rejected=0.7)
    assert "observations/images/cam_belly (camera), phase (text)" in convert_words(report)


def test_demos_say_what_is_not_taken_but_not_what_follows_from_the_rest(tmp_path: Path, workspace: Workspace) -> None:
    write_robomimic(tmp_path / "lift/image.hdf5")
    assert notes(converted(tmp_path / "lift", "robomimic", workspace)) == [{"not_taken": [sentence("states")]}]
    write_libero(tmp_path / "libero/bowl.hdf5")
    report = converted(tmp_path / "libero", "libero", workspace, version="2")
    assert notes(report) == [{"not_taken": [sentence("obs/ee_ori", "obs/ee_pos", "robot_states", "states")]}]


def test_steps_of_rlds_say_what_is_not_taken_but_not_the_marks_of_the_format(
    tmp_path: Path, workspace: Workspace
) -> None:
    picture = {"image": {"shape": {"dimensions": ["48", "64", "3"]}, "dtype": "uint8", "encodingFormat": "jpeg"}}
    more = {
        "language_instruction_2": {"text": {}},
        "wrist": picture,
        "reward": tensor("float32"),
        "discount": tensor("float32"),
        "is_terminal": tensor("bool"),
    }
    values = {
        "steps/language_instruction_2": [b"the other cup"] * 6,
        "steps/wrist": [jpeg(each) for each in pictures(6, seed=9)],
        "steps/reward": np.zeros(6, np.float32),
        "steps/discount": np.ones(6, np.float32),
        "steps/is_terminal": [0, 0, 0, 0, 0, 1],
    }
    write_rlds(tmp_path / "raw", {"train": [[episode(0, **values)]]}, more=more)
    line = sentence("count", "language_instruction_2 (text)", "reward", "wrist (camera)")
    assert notes(converted(tmp_path / "raw", "bridge", workspace)) == [{"not_taken": [line]}]
