"""Verify finds what differs between the raw data and what was made of it."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import raw_files

from dataengine.convert import convert
from dataengine.frame_store import FrameStore
from dataengine.sinks.zarr_frames import write_shard
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


def failed(report: VerifyReport) -> set[tuple[str, str]]:
    return {(row.check, row.stream) for row in report.rows if not row.ok}


def test_a_faithful_copy_passes_every_check(built: Path) -> None:
    report = run(built)
    assert report.ok, report.rows
    checks = {row.check for row in report.rows}
    assert {"columns are bit-equal", "frames == rows", "JPEGs are byte-identical"} <= checks
    [video] = [row for row in report.rows if row.stream == "cam_high" and row.check.startswith("video pictures")]
    assert video.detail.startswith("lowest ")


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
    assert failed(run(copied)) == {("columns are bit-equal", "action")}


def test_swapped_pictures_are_found(copied: Path) -> None:
    path = copied / "workspace/frames/tiny@1"
    store = FrameStore.open(path)
    jpegs = [store.jpeg("cam_low", row) for row in range(30)]
    jpegs[4], jpegs[5] = jpegs[5], jpegs[4]
    write_shard(path / "cam_low/c/0/0/0/0", jpegs)
    assert failed(run(copied)) == {("JPEGs are byte-identical", "cam_low")}


def test_swapped_videos_are_found(copied: Path) -> None:
    videos = copied / "workspace/episodes/tiny@1/videos"
    other = videos / "observation.images.cam_low/chunk-000/file-000.mp4"
    shutil.copy(other, videos / "observation.images.cam_high/chunk-000/file-000.mp4")
    assert failed(run(copied)) == {("video pictures are near the source", "cam_high")}


def test_a_changed_column_of_the_frame_store_is_found(copied: Path) -> None:
    path = copied / "workspace/frames/tiny@1/columns/observation.state/c/0/0"
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
        "episode ids are equal",
        "columns of the frame store are bit-equal",
        "JPEGs are byte-identical",
    }


def test_another_folder_is_refused(built: Path, tmp_path: Path) -> None:
    raw_files.write_aloha_folder(tmp_path / "raw", num_episodes=3, num_frames=15)
    with pytest.raises(SourceError, match="3 episodes that were not rejected, 'tiny@1' has 2"):
        verify(source_path=tmp_path / "raw", ref=REF, workspace=Workspace.at(built / "workspace"))
