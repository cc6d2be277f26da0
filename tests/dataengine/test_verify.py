"""Verify finds what differs between the raw data and what was made of it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import raw_files

from dataengine.convert import convert
from dataengine.frame_store import FrameStore
from dataengine.proofs.dataset import dataset_findings
from dataengine.sinks.frame_shards import write_shard
from dataengine.sinks.pictures import encode_jpeg
from dataengine.sinks.video_encoding import VideoEncoding
from dataengine.verification import VerifyReport, verify
from dataengine.workspace import Workspace
from schemas.errors import SourceError
from schemas.refs import Ref

REF = Ref("tiny", "1")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw folder and a workspace made from it."""
    root = tmp_path_factory.mktemp("verify")
    raw = raw_files.write_aloha_folder(root / "raw", num_episodes=2, num_frames=15)
    convert(source_path=raw, to=REF, workspace=Workspace.at(root / "workspace"), rig="aloha_sim")
    return root


@pytest.fixture
def copied(built: Path, tmp_path: Path) -> Path:
    """The same, to be damaged."""
    return Path(shutil.copytree(built, tmp_path / "copy"))


def run(root: Path) -> VerifyReport:
    return verify(source_path=root / "raw", ref=REF, workspace=Workspace.at(root / "workspace"), workers=1)


FILES = {f"files of {kind} are those of record.json" for kind in ("episodes", "frames")}


def failed(report: VerifyReport) -> set[tuple[str, str]]:
    """What failed, but for the files: those are found changed whatever is done to them."""
    return {(row.check, row.stream) for row in report.rows if not row.ok and row.check not in FILES}


def test_a_faithful_copy_passes_every_check(built: Path) -> None:
    report = run(built)
    assert report.ok, report.rows
    checks = {row.check for row in report.rows}
    assert {"columns are bit-equal", "frames == rows", "JPEGs are byte-identical"} <= checks
    [video] = [row for row in report.rows if row.stream == "cam_high" and row.check.startswith("video is within")]
    words = video.detail.split()
    assert [words[0], *words[2:]] == ["lowest", "dB", "beside", "bare", "PyAV"]
    assert abs(float(words[1])) < 0.1


def test_one_changed_number_is_found(copied: Path) -> None:
    path = copied / "workspace/episodes/tiny@1/data/chunk-000/file-000.parquet"
    file = pq.ParquetFile(path)
    groups = [file.read_row_group(number) for number in range(2)]
    rows = np.stack(groups[1].column("action").to_pylist()).astype(np.float32)
    rows[3, 3] = np.nextafter(rows[3, 3], np.float32(9))
    changed = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), 14)
    groups[1] = groups[1].set_column(groups[1].column_names.index("action"), "action", changed)
    with pq.ParquetWriter(path, file.schema_arrow) as writer:
        for group in groups:
            writer.write_table(group.cast(file.schema_arrow))
    assert failed(run(copied)) == {
        ("columns are bit-equal", "action"),
        ("hashes are those of the rows", "all"),
    }


def test_swapped_pictures_are_found(copied: Path) -> None:
    path = copied / "workspace/frames/tiny@1"
    store = FrameStore.open(path)
    jpegs = [store.jpeg("cam_low", row) for row in range(30)]
    jpegs[4], jpegs[5] = jpegs[5], jpegs[4]
    write_shard(path / "cam_low/c.0.0.0.0", jpegs)
    assert failed(run(copied)) == {("JPEGs are byte-identical", "cam_low")}


def test_swapped_videos_are_found(copied: Path) -> None:
    videos = copied / "workspace/episodes/tiny@1/videos"
    other = videos / "observation.images.cam_low/chunk-000/file-000.mp4"
    shutil.copy(other, videos / "observation.images.cam_high/chunk-000/file-000.mp4")
    assert failed(run(copied)) == {
        ("video is within 0.1 dB of bare PyAV", "cam_high"),
        ("video packets are those that were committed", "cam_high"),
        ("video pictures are those of their rows", "cam_high"),
    }


def test_a_changed_column_of_the_frame_store_is_found(copied: Path) -> None:
    path = copied / "workspace/frames/tiny@1/columns/observation.state/c.0.0"
    content = bytearray(path.read_bytes())
    content[14 * 4 * 20] ^= 1  # row 20
    path.write_bytes(content)
    assert failed(run(copied)) == {("columns of the frame store are bit-equal", "observation.state")}


def test_one_changed_packet_of_a_copied_video_is_found(tmp_path: Path) -> None:
    raw = raw_files.write_lerobot_v21(tmp_path / "raw", lengths=(10, 12))
    workspace = Workspace.at(tmp_path / "workspace")
    convert(source_path=raw, to=REF, workspace=workspace, rig=None, sink="lerobot")
    assert verify(source_path=raw, ref=REF, workspace=workspace).ok
    shard = workspace.path("episodes", REF) / "videos/observation.images.cam_high/chunk-000/file-000.mp4"
    content = bytearray(shard.read_bytes())
    content[content.index(b"mdat") + 2000] ^= 0x55
    shard.write_bytes(content)
    assert ("video packets are byte-identical", "cam_high") in failed(
        verify(source_path=raw, ref=REF, workspace=workspace)
    )


def test_a_frame_store_alone_can_be_verified(built: Path, tmp_path: Path) -> None:
    workspace = Workspace.at(tmp_path / "workspace")
    convert(source_path=built / "raw", to=REF, workspace=workspace, rig="aloha_sim", sink="zarr")
    report = verify(source_path=built / "raw", ref=REF, workspace=workspace)
    assert report.ok
    assert {row.check for row in report.rows} == {
        "every episode has its source",
        "source pictures == rows",
        "episode ids are equal",
        "columns of the frame store are bit-equal",
        "JPEGs are byte-identical",
        "files of frames are those of record.json",
        "record.json is of this artifact",
        "record.json counts what is there",
        "fingerprint is that of the contents",
    }


def test_another_folder_is_refused(built: Path, tmp_path: Path) -> None:
    raw_files.write_aloha_folder(tmp_path / "raw", num_episodes=3, num_frames=15)
    with pytest.raises(SourceError, match="3 episodes that were not rejected, 'tiny@1' has 2"):
        verify(source_path=tmp_path / "raw", ref=REF, workspace=Workspace.at(built / "workspace"))


def rewrite(path: Path, key: str, row: int, change: Callable[[Any], Any]) -> None:
    """Change one plain value of a data file, and leave its row groups as they are."""
    file = pq.ParquetFile(path)
    groups = [file.read_row_group(number) for number in range(file.num_row_groups)]
    for number, group in enumerate(groups):
        if 0 <= row < len(group):
            values = group.column(key).to_pylist()
            values[row] = change(values[row])
            column = pa.array(values, group.schema.field(key).type)
            groups[number] = group.set_column(group.column_names.index(key), key, column)
        row -= len(group)
    with pq.ParquetWriter(path, file.schema_arrow) as writer:
        for group in groups:
            writer.write_table(group)


def dataset_faults(root: Path) -> dict[str, str]:
    """What the dataset says of itself that is not so: check -> detail."""
    path = root / "workspace/episodes/tiny@1"
    return {row.check: row.detail for row in dataset_findings(path) if not row.ok}


DATA = "workspace/episodes/tiny@1/data/chunk-000/file-000.parquet"
META = "workspace/episodes/tiny@1/meta"


def test_a_faithful_dataset_agrees_with_itself(built: Path) -> None:
    assert dataset_faults(built) == {}


def test_a_time_stamp_off_the_grid_is_found(copied: Path) -> None:
    rewrite(copied / DATA, "timestamp", 17, lambda value: value + 1e-3)
    faults = dataset_faults(copied)
    assert faults["timestamp == frame_index / fps"].startswith("row 17: timestamp is")


@pytest.mark.parametrize("key", ["index", "frame_index", "episode_index"])
def test_a_gap_in_the_indices_is_found(copied: Path, key: str) -> None:
    rewrite(copied / DATA, key, 20, lambda value: value + 1)
    assert f"row 20: {key} is" in dataset_faults(copied)["indices are contiguous"]


def test_a_row_of_another_task_is_found(copied: Path) -> None:
    rewrite(copied / DATA, "task_index", 3, lambda value: value + 1)
    assert "row 3" in dataset_faults(copied)["task_index is the episode's task"]


@pytest.mark.parametrize("name", ["min", "max", "mean", "std", "q50", "q99", "count"])
def test_statistics_that_are_not_those_of_the_rows_are_found(copied: Path, name: str) -> None:
    path = copied / META / "stats.json"
    stats = json.loads(path.read_bytes())
    stats["action"][name][-1] = stats["action"][name][-1] + 1
    path.write_text(json.dumps(stats))
    assert name in dataset_faults(copied)["statistics are those of the rows"]


def test_counts_in_info_that_are_not_true_are_found(copied: Path) -> None:
    path = copied / META / "info.json"
    info = json.loads(path.read_bytes())
    path.write_text(json.dumps({**info, "total_frames": 14_983}))
    assert dataset_faults(copied)["meta/info.json counts what is there"] == "total_frames says 14983, found 30"


@pytest.mark.parametrize(
    ("key", "change", "check"),
    [
        ("videos/observation.images.cam_low/from_timestamp", 0.02, "video offsets fit the packets"),
        ("videos/observation.images.cam_low/to_timestamp", 0.2, "video offsets fit the packets"),
        ("dataset_from_index", 1, "episodes are numbered without gaps"),
        ("episode_index", 1, "episodes are numbered without gaps"),
    ],
)
def test_a_wrong_offset_of_an_episode_is_found(copied: Path, key: str, change: float, check: str) -> None:
    path = copied / META / "episodes/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    values = table.column(key).to_pylist()
    values[1] += change
    at = table.column_names.index(key)
    pq.write_table(table.set_column(at, key, pa.array(values, table.schema.field(key).type)), path)
    assert check in dataset_faults(copied)


def test_a_video_that_is_short_of_its_episodes_is_found(copied: Path) -> None:
    videos = copied / "workspace/episodes/tiny@1/videos"
    path = videos / "observation.images.cam_high/chunk-000/file-000.mp4"
    raw_files.write_mp4(path, raw_files.pictures(20), rate_hz=50)
    assert "holds 20 pictures, its episodes need 30" in dataset_faults(copied)["video offsets fit the packets"]


def test_a_worse_encoding_than_the_recorded_one_is_found(copied: Path, built: Path) -> None:
    """The same pictures at crf 50, where the record says 30."""
    workspace = Workspace.at(copied / "other")
    convert(
        source_path=built / "raw",
        to=REF,
        workspace=workspace,
        rig="aloha_sim",
        sink="lerobot",
        encoding=VideoEncoding(crf=50),
    )
    name = "videos/observation.images.cam_low/chunk-000/file-000.mp4"
    shutil.copy(workspace.path("episodes", REF) / name, copied / "workspace/episodes/tiny@1" / name)
    report = run(copied)
    assert failed(report) == {
        ("video is within 0.1 dB of bare PyAV", "cam_low"),
        ("video packets are those that were committed", "cam_low"),
    }


def test_pictures_of_a_smaller_frame_store_are_held_against_a_bare_encoder(built: Path, tmp_path: Path) -> None:
    workspace = Workspace.at(tmp_path / "workspace")
    convert(source_path=built / "raw", to=REF, workspace=workspace, rig="aloha_sim", sink="zarr", frame_size=(32, 24))
    report = verify(source_path=built / "raw", ref=REF, workspace=workspace)
    check = "stored pictures are within 0.1 dB of a bare JPEG encoder"
    assert report.ok, report.rows
    assert {row.stream for row in report.rows if row.check == check} == {"cam_high", "cam_low"}
    store = FrameStore.open(workspace.path("frames", REF))
    jpegs = [store.jpeg("cam_low", row) for row in range(30)]
    jpegs[7] = encode_jpeg(store.frame("cam_low", 7), quality=40, subsampling="420")
    write_shard(workspace.path("frames", REF) / "cam_low/c.0.0.0.0", jpegs)
    again = verify(source_path=built / "raw", ref=REF, workspace=workspace)
    assert failed(again) == {(check, "cam_low")}


def test_changed_metadata_is_found(copied: Path) -> None:
    path = copied / META / "episodes/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    operators = ["somebody", *table.column("operator").to_pylist()[1:]]
    pq.write_table(table.set_column(table.column_names.index("operator"), "operator", pa.array(operators)), path)
    assert ("metadata is equal", "all") in failed(run(copied))
