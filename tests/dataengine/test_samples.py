"""Every folder of the sample data converts, or is refused with the right sentence; judges nobody here wrote agree."""

import json
import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from dataengine.convert import ConvertReport, convert
from dataengine.inspection import inspect_path
from dataengine.workspace import Workspace
from schemas.errors import EngineError, RigError, SourceError
from schemas.refs import Ref

TASK = "Do what the demonstration does."


@dataclass(frozen=True, slots=True, kw_only=True)
class Converts:
    """What comes out: rows, and how many episodes are left out, the first for this reason."""

    rig: str  # shipped name; "" = none is needed; "draft" = the draft of `inspect`, its instruction answered
    episodes: int
    frames: int
    rejected: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The kind of error, and words that its one sentence holds."""

    error: type[EngineError]
    words: tuple[str, ...]
    rig: str = ""


NO_DATA = Refused(error=SourceError, words=("no data", "train/*.arrow", "Copy the dataset again."))
SAMPLES: dict[str, Converts | Refused] = {
    "foxglove_rosbag1": Converts(rig="turtlesim", episodes=3, frames=3309),
    "g1_inspire_v21": Converts(rig="g1_inspire", episodes=6, frames=1583, rejected=94, reason="is missing"),
    "hand_dapg": Converts(rig="dapg_door", episodes=25, frames=6729),
    "lerobot_realsense_bag": Refused(error=SourceError, words=("pictures but no robot state", "Depth_0")),
    "lerobot_v1_tests": Refused(error=SourceError, words=("holds 14 datasets", "Name one of them")),
    "lerobot_v1_tests/aloha_mobile_cabinet": NO_DATA,
    "lerobot_v1_tests/aloha_sim_insertion_human": Converts(
        rig="draft", episodes=1, frames=500, rejected=49, reason="the data holds none of it"
    ),
    "lerobot_v1_tests/aloha_sim_insertion_human_image": NO_DATA,
    "lerobot_v1_tests/aloha_sim_insertion_scripted": Converts(rig="draft", episodes=1, frames=400, rejected=49),
    "lerobot_v1_tests/aloha_sim_transfer_cube_human": Converts(rig="draft", episodes=1, frames=400),
    "lerobot_v1_tests/aloha_sim_transfer_cube_scripted": Converts(rig="draft", episodes=1, frames=400),
    "lerobot_v1_tests/pusht": Converts(rig="draft", episodes=1, frames=161, rejected=205),
    "lerobot_v1_tests/pusht_image": Converts(rig="draft", episodes=1, frames=161),
    "lerobot_v1_tests/umi_cup_in_the_wild": Converts(rig="draft", episodes=1, frames=400, rejected=1446),
    "lerobot_v1_tests/xarm_lift_medium": Converts(rig="draft", episodes=1, frames=25, rejected=799),
    "lerobot_v1_tests/xarm_lift_medium_image": Converts(rig="draft", episodes=1, frames=25),
    "lerobot_v1_tests/xarm_lift_medium_replay": Converts(rig="draft", episodes=1, frames=25),
    "lerobot_v1_tests/xarm_push_medium": Converts(rig="draft", episodes=1, frames=25),
    "lerobot_v1_tests/xarm_push_medium_replay": NO_DATA,
    "lichtblick_mcap": Refused(error=RigError, words=("recordings state no rate", "dataengine inspect")),
    "octo_bridge_rlds": Converts(
        rig="bridge", episodes=25, frames=250, rejected=25, reason="the same content as train-00000/000006"
    ),
    "openarm_fixture": Refused(error=SourceError, words=("an OpenArm dataset", "is not read yet")),
    "plotjuggler": Refused(error=SourceError, words=("ros1_bag", "ros2_bag", "a single file")),
    "pusht_zarr": Refused(error=RigError, words=("stores no rate", "--rig pusht")),  # whole: test_convert.py
    "rerun_apple_storage": Converts(rig="draft", episodes=3, frames=899),
    "rerun_mcap": Refused(error=RigError, words=("recordings state no rate", "/battery_state")),
    "robohive_trace": Refused(error=SourceError, words=("a RoboHive trace", "float16 placeholders")),
    "robosuite_teleop": Converts(
        rig="robosuite_panda", episodes=5, frames=3723, rejected=9, reason="recorded with a Baxter"
    ),
    "ros2_rosbag2": Refused(error=SourceError, words=("mcap", "ros2_bag", "a single file")),
    "vqa_ocr": Refused(error=SourceError, words=("holds no dataset that can be read", "Known:")),
}
WITHOUT_ACTION = {"lerobot_v1_tests/umi_cup_in_the_wild"}
CONVERTED = [name for name, outcome in SAMPLES.items() if isinstance(outcome, Converts)]


class Shelf:
    """Converts a sample once, however many tests want it."""

    def __init__(self, samples: Path, folder: Path) -> None:
        self.samples = samples
        self.folder = folder
        self.workspace = Workspace.at(folder / "workspace")
        self._reports: dict[str, ConvertReport] = {}

    def report(self, name: str) -> ConvertReport:
        if name not in self._reports:
            outcome = SAMPLES[name]
            self._reports[name] = convert(
                source_path=self.samples / name,
                to=self.ref(name),
                workspace=self.workspace,
                rig=self._rig(name, outcome.rig),
                sink="lerobot",
                max_rejected=1.0,
            )
        return self._reports[name]

    def ref(self, name: str) -> Ref:
        return Ref(name.replace("/", "-"), "1")

    def dataset(self, name: str) -> Path:
        self.report(name)
        return self.workspace.path("episodes", self.ref(name))

    def _rig(self, name: str, rig: str) -> str | None:
        if rig != "draft":
            return rig or None
        path = self.folder / f"{self.ref(name).name}.yaml"
        path.write_text(inspect_path(self.samples / name).draft_rig_yaml.replace("task: null", f"task: {TASK}"))
        return str(path)


@pytest.fixture(scope="module")
def shelf(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return Shelf(samples, tmp_path_factory.mktemp("samples"))


@pytest.fixture(scope="module", autouse=True)
def _no_cache_in_the_home(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("hf_datasets")))
        yield


def test_every_sample_folder_has_an_expected_outcome(samples: Path) -> None:
    folders = {path.name for path in samples.iterdir() if path.is_dir()}
    assert folders <= {name.split("/")[0] for name in SAMPLES}
    assert {path.name for path in (samples / "lerobot_v1_tests").iterdir() if path.is_dir()} == {
        name.split("/")[1] for name in SAMPLES if name.startswith("lerobot_v1_tests/")
    }


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_converts_or_is_refused_with_the_right_sentence(name: str, shelf: Shelf) -> None:
    outcome = SAMPLES[name]
    if isinstance(outcome, Refused):
        with pytest.raises(outcome.error) as caught:
            shelf.report(name)
        missing = [words for words in outcome.words if words not in str(caught.value)]
        assert not missing, f"{missing} not in: {caught.value}"
        return
    report = shelf.report(name)
    assert (report.num_episodes, report.num_frames, len(report.rejected)) == (
        outcome.episodes,
        outcome.frames,
        outcome.rejected,
    )
    if outcome.rejected:
        assert outcome.reason in report.rejected[0].reason


@pytest.mark.parametrize("name", CONVERTED)
def test_lerobot_loads_the_output_with_windows_and_by_episode(name: str, shelf: Shelf) -> None:
    root, report = shelf.dataset(name), shelf.report(name)
    dataset = _lerobot(root)
    assert (dataset.num_episodes, len(dataset)) == (report.num_episodes, report.num_frames)
    table = pq.read_table(root / "data", columns=["frame_index", "episode_index"]).to_pydict()
    cameras = dataset.meta.video_keys
    for index in np.unique(np.linspace(0, len(dataset) - 1, 4).round().astype(int)).tolist():
        item = dataset[index]
        assert item["frame_index"].item() == table["frame_index"][index]
        assert all(item[key].shape[0] == 3 for key in cameras)
    columns = [key for key, feature in dataset.meta.features.items() if feature["dtype"] == "float32"]
    window = [0.0, 1 / dataset.fps]
    windowed = _lerobot(root, delta_timestamps=dict.fromkeys((*cameras, columns[0]), window))
    assert all(windowed[0][key].shape[0] == 2 for key in (*cameras, columns[0]))
    last = report.num_episodes - 1
    alone = _lerobot(root, episodes=[last])
    assert len(alone) == table["episode_index"].count(last)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", CONVERTED)
def test_lerobot_loads_every_frame_of_the_output(name: str, shelf: Shelf) -> None:
    root = shelf.dataset(name)
    dataset = _lerobot(root)
    table = pq.read_table(root / "data", columns=["index", "frame_index", "episode_index"]).to_pydict()
    for index in range(len(dataset)):
        item = dataset[index]
        assert (item["index"].item(), item["frame_index"].item()) == (index, table["frame_index"][index])


@pytest.mark.parametrize("name", CONVERTED)
def test_lerobot_doctor_finds_nothing_wrong_with_the_output(name: str, shelf: Shelf) -> None:
    doctor = Path(sys.executable).parent / "lerobot-doctor"
    command = [str(doctor), "check", str(shelf.dataset(name)), "--ci", "--fail-on", "fail"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)
    failed = [check["messages"] for check in json.loads(done.stdout)["checks"] if check["severity"] == "FAIL"]
    if name in WITHOUT_ACTION:  # as it was recorded: nothing to train on, and nothing is made up
        assert [row["message"] for row in failed[0]] == ["No action features found -- cannot train any policy"]
        del failed[0]
    assert failed == []
    assert done.returncode == 0 or name in WITHOUT_ACTION


READ_WITH_RAY = """
    import sys, ray
    ray.init(num_cpus=1, include_dashboard=False, logging_level="error")
    for root in sys.argv[1:]:
        rows = 0
        for row in ray.data.read_lerobot(root).iter_rows():
            cameras = [key for key in row if key.startswith("observation.images.")]
            assert row["task"] and all(row[key].ndim == 3 for key in cameras), row
            rows += 1
        print(root.rsplit("/", 1)[-1], rows)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ray_data_reads_the_output(shelf: Shelf, tmp_path: Path) -> None:
    names = ["octo_bridge_rlds", "lerobot_v1_tests/pusht"]
    script = tmp_path / "read.py"
    script.write_text(textwrap.dedent(READ_WITH_RAY))
    env = {**os.environ, "LD_LIBRARY_PATH": _ffmpeg_libraries(tmp_path), "RAY_raylet_start_wait_time_s": "120"}
    command = [sys.executable, str(script), *(str(shelf.dataset(name)) for name in names)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=800)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == ["octo_bridge_rlds@1", "250", "lerobot_v1_tests-pusht@1", "161"]


def _ffmpeg_libraries(folder: Path) -> str:
    """Ray decodes with torchcodec, which looks for FFmpeg's libraries by their usual names; PyAV brings them."""
    import av

    bundled = Path(av.__file__).parent.parent / "av.libs"
    named = folder / "ffmpeg"
    named.mkdir()
    for path in [*bundled.glob("libav*.so.*"), *bundled.glob("libsw*.so.*")]:
        stem, _, version = path.name.partition(".so.")
        (named / f"{stem.rsplit('-', 1)[0]}.so.{version.split('.')[0]}").symlink_to(path)
    return f"{named}:{bundled}"


def _lerobot(root: Path, **words: Any) -> Any:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    return LeRobotDataset(repo_id=f"local/{root.name.replace('@', '-')}", root=root, video_backend="pyav", **words)
