"""Push and pull where something is wrong: damage on either side, records that lie, secrets in URLs."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import raw_files
from transfer_material import NUM_FILES, REF, content, make, row_of

from dataengine.convert import convert
from dataengine.transfer import pull, push
from dataengine.transfer.redaction import shown_url, without_secrets
from dataengine.transfer.store import attempt, open_store
from dataengine.workspace import Workspace
from schemas.errors import ArtifactError, TransferError, UsageError
from schemas.records import sha256_of
from schemas.refs import Kind, Ref


@pytest.fixture
def other(tmp_path: Path) -> Workspace:
    return Workspace.at(tmp_path / "other")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shelf that holds a small dataset and its frame store."""
    root = tmp_path_factory.mktemp("shelf")
    raw = raw_files.write_aloha_folder(root / "raw", num_episodes=2, num_frames=12)
    workspace = Workspace.at(root / "workspace")
    convert(source_path=raw, to=REF, workspace=workspace, rig="aloha_sim", sink="both", workers=1)
    kinds: tuple[Kind, ...] = ("episodes", "frames")
    for kind in kinds:
        push(workspace=workspace, kind=kind, ref=REF, url=f"file://{root}/shelf")
    return root / "shelf"


def lying(shelf: Path, tmp_path: Path, kind: str, change: Callable[[dict[str, Any]], None]) -> str:
    """A copy of an artifact whose record is changed."""
    home = tmp_path / "lying" / kind / "tiny@1"
    shutil.copytree(shelf / kind / "tiny@1", home)
    record = json.loads((home / "record.json").read_bytes())
    change(record)
    (home / "record.json").write_text(json.dumps(record))
    return f"file://{home}"


# --- damage ---


@pytest.mark.parametrize("damage", ["gone", "short"])
def test_an_artifact_here_that_lost_files_is_not_called_already_there(
    damage: str, tmp_path: Path, workspace: Workspace, other: Workspace
) -> None:
    make(workspace)
    url = push(workspace=workspace, kind="mixes", ref=REF, url=f"file://{tmp_path}/shelf").url
    pull(workspace=other, url=url)
    home = other.find("mixes", REF)
    if damage == "gone":
        shutil.rmtree(home / "part-1")
    else:
        (home / "part-1/1.bin").write_bytes(b"cut")
    count = 4 if damage == "gone" else 1
    with pytest.raises(ArtifactError, match=rf"is here but damaged: {count} of its 12 files .*part-1/1\.bin.* Delete "):
        pull(workspace=other, url=url)
    shutil.rmtree(home)
    assert pull(workspace=other, url=url).num_moved == NUM_FILES


def test_a_changed_byte_there_is_found_where_no_journal_tells_of_the_file(
    tmp_path: Path, workspace: Workspace, other: Workspace
) -> None:
    make(workspace)
    url = push(workspace=workspace, kind="mixes", ref=REF, url=f"file://{tmp_path}/shelf").url
    there = tmp_path / "shelf/mixes/tiny@1"
    (there / ".push.json").unlink()
    damaged = there / "part-1/1.bin"
    damaged.write_bytes(b"x" + damaged.read_bytes()[1:])
    mended = push(workspace=workspace, kind="mixes", ref=REF, url=f"file://{tmp_path}/shelf")
    assert (mended.already_there, mended.num_moved) == (False, 1)
    assert pull(workspace=other, url=url).num_moved == NUM_FILES
    again = push(workspace=workspace, kind="mixes", ref=REF, url=f"file://{tmp_path}/shelf")
    assert (again.already_there, again.num_moved) == (True, 0)
    assert len(json.loads((there / ".push.json").read_bytes())["sent"]) == NUM_FILES  # known without reading from now


def test_damage_there_that_can_not_be_mended_from_here_is_named(tmp_path: Path, workspace: Workspace) -> None:
    make(workspace)
    push(workspace=workspace, kind="mixes", ref=REF, url=f"file://{tmp_path}/shelf")
    there = tmp_path / "shelf/mixes/tiny@1"
    record = json.loads((there / "record.json").read_bytes())
    record["files"] = record["files"][1:]  # equal content in other files, as another encoder makes them
    (there / "record.json").write_text(json.dumps(record))
    assert push(workspace=workspace, kind="mixes", ref=REF, url=f"file://{tmp_path}/shelf").already_there
    (there / "part-1/1.bin").unlink()
    with pytest.raises(ArtifactError, match=r"part-1/1\.bin at file://.* is missing or not the file.*Remove what is"):
        push(workspace=workspace, kind="mixes", ref=REF, url=f"file://{tmp_path}/shelf")


def test_a_full_disk_is_said_in_sizes_that_mean_something(
    tmp_path: Path, workspace: Workspace, other: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(workspace)
    url = push(workspace=workspace, kind="mixes", ref=REF, url=f"file://{tmp_path}/shelf").url
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 10_000))
    with pytest.raises(ArtifactError, match=r"0\.02 MB are to come, but .* has 0\.01 MB left"):
        pull(workspace=other, url=url)


# --- records that lie ---


def test_what_was_pushed_is_pulled(shelf: Path, other: Workspace) -> None:
    for kind in ("episodes", "frames"):
        got = pull(workspace=other, url=f"file://{shelf}/{kind}/tiny@1")
        assert content(other.root / kind / "tiny@1") == content(shelf / kind / "tiny@1")
        assert got.record.kind == kind


@pytest.mark.parametrize("kind", ["episodes", "frames"])
def test_a_fingerprint_that_the_contents_do_not_have_is_refused(
    kind: str, shelf: Path, tmp_path: Path, other: Workspace
) -> None:
    url = lying(shelf, tmp_path, kind, lambda record: record.update(fingerprint=sha256_of("else")))
    with pytest.raises(ArtifactError, match=rf"says fingerprint {sha256_of('else')[:12]}, but the {kind} .* have"):
        pull(workspace=other, url=url)
    assert other.all_records() == []


def test_contents_of_another_version_of_the_program_still_come_and_the_log_says_so(
    shelf: Path, tmp_path: Path, other: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "lying/episodes/tiny@1/meta/contents.parquet"

    def change(record: dict[str, Any]) -> None:
        pq.write_table(pa.table({"episode_id": ["a"], "content_json": ['{"of_tomorrow": 1}']}), path)
        record["files"] = [
            row_of(path, "meta/contents.parquet") if row["path"] == "meta/contents.parquet" else row
            for row in record["files"]
        ]

    url = lying(shelf, tmp_path, "episodes", change)
    with caplog.at_level(logging.WARNING):
        assert pull(workspace=other, url=url).num_moved > 0
    assert "was made by another version and is not counted again" in caplog.text


def test_a_frame_store_that_can_not_be_opened_is_no_traceback(
    shelf: Path, tmp_path: Path, other: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "lying/frames/tiny@1/zarr.json"

    def change(record: dict[str, Any]) -> None:
        path.write_text("[]")
        record["files"] = [row_of(path, row["path"]) if row["path"] == path.name else row for row in record["files"]]

    with caplog.at_level(logging.WARNING):
        pull(workspace=other, url=lying(shelf, tmp_path, "frames", change))
    assert "is not counted again" in caplog.text


def _drop(start: str) -> Callable[[dict[str, Any]], None]:
    def change(record: dict[str, Any]) -> None:
        record["files"] = [row for row in record["files"] if not row["path"].startswith(start)]

    return change


def _add(path: str, **words: Any) -> Callable[[dict[str, Any]], None]:
    def change(record: dict[str, Any]) -> None:
        record["files"].append({"path": path, "num_bytes": 0, "sha256": sha256_of(""), **words})

    return change


@pytest.mark.parametrize(
    ("kind", "change", "sentence"),
    [
        ("episodes", _drop("meta/info.json"), "lists no meta/info.json, without which episodes can not be read"),
        ("episodes", _drop("meta/rig.json"), "lists no meta/rig.json"),
        ("episodes", _drop("data/"), "lists no data/"),
        ("episodes", _drop("meta/episodes/"), "lists no meta/episodes/"),
        ("episodes", _drop("meta/contents.parquet"), "hold no meta/contents.parquet"),
        ("frames", _drop("zarr.json"), "lists no zarr.json"),
        ("episodes", _add("meta/info.json"), "lists 'meta/info.json' twice"),
        ("episodes", _add("meta"), "lists 'meta' as a file and as a folder"),
        ("episodes", _add("record.json"), "lists itself"),
        ("episodes", _add("x" * 300), "which is too long for a file system"),
        ("episodes", _add("/".join("x" * 600)), "which is too long for a file system"),
        ("episodes", _add("meta//a"), "which is not how a path is written"),
        ("episodes", _add("meta/a\0b"), "which is not how a path is written"),
        ("episodes", _add("a", num_bytes=-1), "a size or sha256 that no file has"),
        ("episodes", _add("a", sha256="0"), "a size or sha256 that no file has"),
        (
            "episodes",
            lambda record: record.update(kind="frames"),
            "lies among episodes, but its record.json says",
        ),
    ],
)
def test_a_record_that_can_not_be_true_is_refused_before_anything_is_fetched(
    kind: str, change: Callable[[dict[str, Any]], None], sentence: str, shelf: Path, tmp_path: Path, other: Workspace
) -> None:
    with pytest.raises(ArtifactError) as raised:
        pull(workspace=other, url=lying(shelf, tmp_path, kind, change))
    assert sentence in str(raised.value)
    assert other.all_records() == []


# --- secrets ---


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sftp://ann:p@ss@host/shelf", "sftp://host/shelf"),
        ("sftp://ann:pa/ss@host/shelf/mixes/tiny@1", "sftp://host/shelf/mixes/tiny@1"),
        ("sftp://ann@host:22/shelf/mixes/tiny@1", "sftp://host:22/shelf/mixes/tiny@1"),
        ("s3://key:secret@bucket/team/mixes/tiny@1", "s3://bucket/team/mixes/tiny@1"),
        ("https://host/shelf?sig=a/b&x='y z'", "https://host/shelf"),
        ("simplecache::ftp://ann:pw@host/a?token=1", "simplecache::ftp://host/a"),
        ("ann:pw@host/shelf", "host/shelf"),
        ("file:///disk/a b/mixes/tiny@1/", "file:///disk/a b/mixes/tiny@1"),
        ("hf://team/tiny@1", "hf://team/tiny@1"),
    ],
)
def test_a_url_is_shown_without_user_password_and_query(url: str, shown: str) -> None:
    assert shown_url(url) == shown


def test_secrets_in_what_a_client_says_are_cut_too() -> None:
    said = [
        "Cannot connect to 'https://ann:pw@host/x?sig=SECRET' (port 443)",
        "HTTPSConnectionPool(host='host'): Max retries exceeded with url: /x?X-Amz-Signature=SECRET (Caused by ...)",
        "401, url=URL('sftp://ann:p@ss@host/x?SECRET')",
    ]
    for text in said:
        assert not any(secret in without_secrets(text) for secret in ("SECRET", "pw", "ss@", "ann:"))
    assert without_secrets("the file 'a@1' is gone. Why? Nobody knows") == "the file 'a@1' is gone. Why? Nobody knows"


def test_no_error_and_no_report_holds_a_secret(
    tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dataengine.transfer.store._WAITS_S", ())
    make(workspace)
    for url in ("ftp://ann:hunter2@127.0.0.1:9/x?sig=hunter2", "carrier://ann:hunter2@host/x", "ann:hunter2@host/x"):
        with pytest.raises((TransferError, UsageError)) as raised:
            push(workspace=workspace, kind="mixes", ref=REF, url=url)
        assert "hunter2" not in str(raised.value)
    url = f"file://{tmp_path}/shelf?token=hunter2"
    report = push(workspace=workspace, kind="mixes", ref=REF, url=url)
    assert "hunter2" not in json.dumps(report.to_json())

    def fail() -> None:
        raise ConnectionError("GET https://ann:hunter2@host/x?sig=hunter2 failed")

    with pytest.raises(TransferError) as failed:
        attempt(fail, "https://host/x", "is read")
    assert "hunter2" not in str(failed.value)


def test_a_wrong_hub_url_is_a_wrong_word_and_no_failed_transfer(other: Workspace) -> None:
    with pytest.raises(UsageError, match=r"^'hf://tiny' is no repository\. Write hf://OWNER/NAME"):
        pull(workspace=other, url="hf://tiny")
    with pytest.raises(UsageError, match="is no repository") as raised:
        open_store("hf://ann:hunter2@team/tiny@1", {})
    assert "hunter2" not in str(raised.value)


def test_another_name_for_episodes_keeps_their_fingerprint(shelf: Path, other: Workspace) -> None:
    got = pull(workspace=other, url=f"file://{shelf}/episodes/tiny@1", to=Ref("ours", "7"))
    assert (got.record.name, got.num_moved) == ("ours", got.num_files)
