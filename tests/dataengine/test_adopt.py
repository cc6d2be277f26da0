"""Adopt: an existing LeRobot v3.0 dataset becomes an artifact; its video is linked, and what is untrue is mended."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot_files import CAM, TASKS, copied, depth_maps, edit_info, edit_parquet, replaced, write_lerobot_v30
from raw_files import pictures, trajectory, write_lerobot_v21

from dataengine.adopt import adopt
from dataengine.convert import convert
from dataengine.episode_set import EpisodeSet
from dataengine.sources import open_source
from dataengine.verification import verify
from dataengine.workspace import Workspace
from schemas.errors import RejectedError, UsageError
from schemas.refs import Ref

REF = Ref("taken", "1")
LENGTHS = (12, 15, 9)
DATA = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
VIDEO = f"videos/{CAM}/chunk-000/file-000.mp4"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three episodes with a colour and a depth camera, written by lerobot itself."""
    return write_lerobot_v30(tmp_path_factory.mktemp("lerobot") / "v30", depth=True)


@pytest.fixture
def lerobot_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the caches of `datasets` out of HOME."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf" / "datasets")


def open_lerobot(root: Path, **options: Any) -> Any:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    return LeRobotDataset("local/taken", root=root, video_backend="pyav", **options)


def content(root: Path) -> dict[str, str]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.usefixtures("lerobot_cache")
def test_video_is_linked_the_folder_stays_as_it_was_and_lerobot_reads_every_frame(
    original: Path, workspace: Workspace
) -> None:
    before = content(original)
    record = adopt(path=original, to=REF, workspace=workspace, workers=1)
    assert content(original) == before
    assert (record.counts["episodes"], record.counts["frames"], record.rejected) == (3, 36, ())
    assert (record.counts["linked_videos"], record.counts["copied_videos"]) == (2, 0)
    root = workspace.path("episodes", REF)
    assert (root / VIDEO).samefile(original / VIDEO)
    assert adopt(path=original, to=REF, workspace=workspace, workers=1) == record, "already there"
    made = convert(source_path=original, to=Ref("made", "1"), workspace=workspace, rig=None, sink="lerobot", workers=1)
    assert made.records[0].fingerprint == record.fingerprint, "adopted or converted: the same content"
    assert verify(source_path=original, ref=REF, workspace=workspace, workers=1).ok
    _check_episode_set(original, workspace)
    _check_lerobot(original, root)


def _check_episode_set(original: Path, workspace: Workspace) -> None:
    dataset, source = EpisodeSet.open(workspace, REF), open_source(original, None)
    assert dataset.ids() == tuple(source.read(name).meta.episode_id for name in source.names())
    assert dataset.cameras == ("cam_high",)
    for number, episode_id in enumerate(dataset.ids()):
        row = dataset.row(episode_id)
        assert (row.num_frames, row.task) == (LENGTHS[number], TASKS[0])
        expected = trajectory(LENGTHS[number], 4, seed=number)
        assert np.array_equal(dataset.columns(episode_id)["observation.state"], expected)
        shown = dataset.frames(episode_id, "cam_high", range(row.num_frames))
        assert np.abs(shown.astype(int) - pictures(row.num_frames, seed=number * 10)).mean() < 8
    changing = dataset.imported(dataset.ids()[1])["task"]
    assert changing == (TASKS[0],) * 7 + (TASKS[1],) * 8


def _check_lerobot(original: Path, root: Path) -> None:
    """Every frame, and a window over two cameras and the actions, equal to what lerobot reads from the original."""
    deltas = {"action": [-0.1, 0.0, 0.1], CAM: [-0.2, 0.0]}
    theirs, ours = open_lerobot(original, delta_timestamps=deltas), open_lerobot(root, delta_timestamps=deltas)
    assert (len(theirs), len(ours)) == (36, 36)
    for index in range(36):
        before, after = theirs[index], ours[index]
        for key in ("observation.state", "action", CAM, "observation.images.depth", "timestamp", "episode_index"):
            assert np.array_equal(before[key].numpy(), after[key].numpy()), (index, key)
    depth = ours[3]["observation.images.depth"].numpy().reshape(48, 64)
    step = np.abs(depth - depth_maps(12)[3]).max()
    assert step <= 5, f"within one step of the 12-bit code, got {step} mm"
    for key in ("observation.state", "action"):
        values = np.concatenate(
            [trajectory(length, 4, seed=n + 50 * (key == "action")) for n, length in enumerate(LENGTHS)]
        )
        for name, share in (("q01", 0.01), ("q50", 0.5), ("q99", 0.99)):
            expected = np.quantile(values.astype(np.float64), share, axis=0)
            assert np.allclose(ours.meta.stats[key][name], expected, atol=1e-6), "a true quantile of all rows"


def test_what_the_metadata_says_untruly_is_mended_and_said(
    original: Path, tmp_path: Path, workspace: Workspace
) -> None:
    root = copied(original, tmp_path / "raw")
    edit_info(root, total_frames=14_983, total_episodes=50, splits={"train": "0:50"})
    stats = json.loads((root / "meta/stats.json").read_text())
    stats["action"]["mean"] = [10.0] * 4
    (root / "meta/stats.json").write_text(json.dumps(stats))

    def shifted(table: pa.Table) -> pa.Table:
        name = f"videos/{CAM}/from_timestamp"
        table = replaced(table, name, [value + 0.01 for value in table[name].to_pylist()])
        return replaced(table, "dataset_from_index", [5, 6, 7])

    edit_parquet(root / EPISODES, shifted)
    edit_parquet(root / DATA, lambda table: replaced(table, "index", np.arange(len(table)) + 100))
    record = adopt(path=root, to=REF, workspace=workspace, workers=1)
    mended = json.dumps(record.notes["mended"])
    assert "meta/info.json says 14983 frames, meta/episodes 36" in mended
    assert "meta/info.json says 50 episodes, meta/episodes lists 3" in mended
    assert "meta/episodes has 3 videos starting between two pictures: the nearest picture is taken" in mended
    made = workspace.path("episodes", REF)
    info = json.loads((made / "meta/info.json").read_text())
    assert (info["total_frames"], info["total_episodes"], info["splits"]) == (36, 3, {"train": "0:3"})
    rows = pq.read_table(made / EPISODES).to_pylist()
    assert [row[f"videos/{CAM}/from_timestamp"] for row in rows] == [0.0, 1.2, 2.7]
    assert [row["dataset_from_index"] for row in rows] == [0, 12, 27]
    actions = np.concatenate([trajectory(length, 4, seed=n + 50) for n, length in enumerate(LENGTHS)])
    found = json.loads((made / "meta/stats.json").read_text())["action"]
    assert np.allclose(found["mean"], actions.mean(axis=0, dtype=np.float64))
    assert np.allclose(found["q99"], np.quantile(actions.astype(np.float64), 0.99, axis=0))


def test_an_episode_that_can_not_be_mended_is_rejected_and_its_pictures_are_not_taken_along(
    original: Path, tmp_path: Path, workspace: Workspace
) -> None:
    root = copied(original, tmp_path / "raw")
    edit_parquet(root / DATA, lambda table: table.slice(0, 30))
    with pytest.raises(RejectedError, match=r"1 of 3 episodes were rejected .* allow it with --max-rejected 34%"):
        adopt(path=root, to=REF, workspace=workspace, workers=1)
    record = adopt(path=root, to=REF, workspace=workspace, workers=1, max_rejected=0.34)
    assert [row.episode for row in record.rejected] == ["episode_000002"]
    assert "3 rows in data/chunk-000/file-000.parquet, but meta/episodes says 9" in record.rejected[0].reason
    assert (record.counts["linked_videos"], record.counts["copied_videos"]) == (0, 2)
    made = workspace.path("episodes", REF)
    assert (made / VIDEO).stat().st_size < (root / VIDEO).stat().st_size
    dataset = EpisodeSet.open(workspace, REF)
    last = dataset.video_frame(dataset.ids()[1], "cam_high", 14)
    assert np.abs(last.astype(int) - pictures(15, seed=10)[14]).mean() < 8


def test_what_is_no_v3_dataset_or_has_no_video_is_sent_to_convert(tmp_path: Path, workspace: Workspace) -> None:
    root = write_lerobot_v21(tmp_path / "v21", lengths=(3,))
    with pytest.raises(UsageError, match=r"holds lerobot_v21, and only LeRobot v3.0 can be adopted. Convert it"):
        adopt(path=root, to=REF, workspace=workspace)
    images = write_lerobot_v30(tmp_path / "images", use_videos=False, lengths=(3,))
    with pytest.raises(UsageError, match=r"'cam_high' is stored as pictures inside parquet"):
        adopt(path=images, to=REF, workspace=workspace)
