"""Verify finds what is untrue in an artifact's own files and metadata, and reads nonsense as a failed check."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import raw_files

from dataengine.convert import convert
from dataengine.episode_set import EpisodeSet
from dataengine.proofs.findings import Finding
from dataengine.proofs.metadata import episode_metadata, picture_findings, rig_findings
from dataengine.proofs.records import content_findings, file_findings
from dataengine.verification import verify
from dataengine.workspace import Workspace, read_record
from schemas.refs import Ref
from schemas.rigs import Rig

REF = Ref("tiny", "1")
EPISODES = "meta/episodes/chunk-000/file-000.parquet"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw folder and a workspace made from it."""
    root = tmp_path_factory.mktemp("metadata")
    raw = raw_files.write_aloha_folder(root / "raw", num_episodes=2, num_frames=15)
    convert(source_path=raw, to=REF, workspace=Workspace.at(root / "workspace"), rig="aloha_sim")
    return root


@pytest.fixture
def copied(built: Path, tmp_path: Path) -> Path:
    """The dataset, to be damaged; its workspace is three folders up."""
    shutil.copytree(built, tmp_path / "copy")
    return tmp_path / "copy/workspace/episodes/tiny@1"


def findings_of(root: Path) -> list[Finding]:
    """All that is said without the raw data."""
    record = read_record(root)
    rig = Rig.model_validate_json((root / "meta/rig.json").read_bytes())
    episodes = EpisodeSet(root, None, record)
    found = [*file_findings(root, record, "episodes", REF), *content_findings(root, record)]
    found += [*rig_findings(root, rig), *picture_findings(root)]
    return found + [row for name in episodes.ids() for row in episode_metadata(episodes, name)]


def faults(root: Path) -> dict[str, str]:
    """Check -> detail of those that fail."""
    return {row.check: row.detail for row in findings_of(root) if not row.ok}


def edit_json(path: Path, change: Callable[[Any], None]) -> None:
    content = json.loads(path.read_bytes())
    change(content)
    path.write_text(json.dumps(content))


def edit_column(path: Path, key: str, change: Callable[[Any], Any], row: int = 1) -> None:
    table = pq.read_table(path)
    values = table.column(key).to_pylist()
    values[row] = change(values[row])
    at = table.column_names.index(key)
    pq.write_table(table.set_column(at, key, pa.array(values, table.schema.field(key).type)), path)


def test_a_faithful_dataset_has_no_fault(built: Path) -> None:
    assert faults(built / "workspace/episodes/tiny@1") == {}
    frames = built / "workspace/frames/tiny@1"
    record = read_record(frames)
    found = [*file_findings(frames, record, "frames", REF), *content_findings(frames, record)]
    assert [row.ok for row in found] == [True] * 4


def test_files_that_are_missing_extra_or_changed_are_named(copied: Path) -> None:
    (copied / "meta/tasks.parquet").rename(copied / "meta/other.parquet")
    path = copied / "data/chunk-000/file-000.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)
    [row, _] = file_findings(copied, read_record(copied), "episodes", REF)
    assert not row.ok
    assert row.detail == (
        "missing: meta/tasks.parquet; not in record.json: meta/other.parquet; changed: data/chunk-000/file-000.parquet"
    )


def test_a_record_of_another_artifact_is_found(copied: Path) -> None:
    [_, row] = file_findings(copied, read_record(copied), "episodes", Ref("other", "2"))
    assert (row.ok, row.detail) == (False, "it is of episodes tiny 1")


def test_a_record_that_counts_wrong_or_claims_another_fingerprint_is_found(copied: Path) -> None:
    def change(record: Any) -> None:
        record["fingerprint"] = "0" * 64
        record["counts"]["frames"] = 1

    edit_json(copied / "record.json", change)
    found = faults(copied)
    assert found["record.json counts what is there"] == "frames says 1, found 30"
    assert found["fingerprint is that of the contents"].startswith("is 000000000000, the contents give")


@pytest.mark.parametrize(
    ("change", "check", "words"),
    [
        (lambda info: info["features"]["action"]["names"].reverse(), "meta/info.json is that of the rig", "action"),
        (lambda info: info.update(robot_type="x"), "meta/info.json is that of the rig", "robot_type is 'x'"),
        (lambda info: info.update(fps=49), "meta/info.json is that of the rig", "fps is 49, expected 50"),
        (
            lambda info: info["features"]["observation.images.cam_high"].update(shape=[3, 3, 3]),
            "camera features are those of the video",
            "shape is [3, 3, 3]",
        ),
        (
            lambda info: info["features"]["observation.images.cam_high"]["info"].update({"video.codec": "h264"}),
            "camera features are those of the video",
            "video.codec is 'h264', file-000.mp4 has 'av1'",
        ),
    ],
)
def test_an_untrue_info_is_found(copied: Path, change: Callable[[Any], None], check: str, words: str) -> None:
    edit_json(copied / "meta/info.json", change)
    rig = Rig.model_validate_json((copied / "meta/rig.json").read_bytes())
    found = {row.check: row.detail for row in rig_findings(copied, rig) if not row.ok}
    assert list(found) == [check]
    assert words in found[check]


def test_untrue_picture_statistics_are_found(copied: Path) -> None:
    edit_json(
        copied / "meta/stats.json",
        lambda stats: stats["observation.images.cam_high"].update(mean=[[[0.99]], [[0.99]], [[0.99]]]),
    )
    edit_json(copied / "meta/statistics.json", lambda row: row.update({"observation.images.cam_low": "exact by far"}))
    found = [(row.stream, row.detail) for row in picture_findings(copied) if not row.ok]
    assert [key for key, _ in found] == ["observation.images.cam_high", "observation.images.cam_low"]
    assert found[0][1].startswith("mean of ")
    assert "exact by far" in found[1][1]


@pytest.mark.parametrize(
    ("key", "change", "check"),
    [
        ("stats/action/mean", lambda value: [9.0, *value[1:]], "statistics of the episode are those of its rows"),
        ("stats/action/q50", lambda value: [9.0, *value[1:]], "statistics of the episode are those of its rows"),
        (
            "stats/observation.images.cam_low/max",
            lambda _: [[[0.1]], [[0.1]], [[0.1]]],
            "statistics of the episode are those of its rows",
        ),
        ("clock_hash", lambda _: "x", "hashes are those of the rows"),
        ("columns_hash", lambda _: "x", "hashes are those of the rows"),
        ("pixels_hash", lambda _: "{}", "hashes are those of the rows"),
        ("start_ns", lambda _: 5, "hashes are those of the rows"),
        ("source_frames", lambda _: 999, "hashes are those of the rows"),
    ],
)
def test_untrue_metadata_of_an_episode_is_found(
    copied: Path, key: str, change: Callable[[Any], Any], check: str
) -> None:
    edit_column(copied / EPISODES, key, change)
    found = faults(copied)
    assert set(found) == {check, "files of episodes are those of record.json"}


@pytest.mark.parametrize(
    "name", ["meta/contents.parquet", "meta/statistics.json", "meta/stats.json", "meta/info.json", "pixels_hash"]
)
def test_a_damaged_file_is_a_failed_check_and_no_traceback(copied: Path, name: str) -> None:
    if name == "pixels_hash":
        edit_column(copied / EPISODES, name, lambda _: "no JSON")
        name = EPISODES
    else:
        (copied / name).write_bytes(b"nonsense")
    root = copied.parents[2]
    report = verify(source_path=root / "raw", ref=REF, workspace=Workspace.at(root / "workspace"), workers=1)
    failed = {row.check: row.detail for row in report.rows if not row.ok}
    assert failed["files of episodes are those of record.json"].endswith(f"changed: {name}")
    assert "everything can be read" in failed
