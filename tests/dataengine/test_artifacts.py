"""Artifacts: published whole or not at all, never overwritten, the same after moving."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dataengine.artifacts import Draft, begin
from dataengine.workspace import Workspace, read_record
from schemas.errors import ArtifactError, RefError
from schemas.records import InputRef, Record, RejectedRow
from schemas.refs import Ref

REF = Ref("kitchen", "1")


def build(workspace: Workspace, recipe: dict[str, object], text: str = "hello") -> Record:
    draft = begin(workspace, "episodes", REF, recipe=recipe)
    if isinstance(draft, Record):
        return draft
    with draft:
        (draft.path / "data").mkdir(exist_ok=True)
        (draft.path / "data" / "rows.txt").write_text(text)
        (draft.staging / "half.tmp").write_text("not part of it")
        return draft.publish(
            fingerprint="f" * 64, counts={"episodes": 1}, rejected=[RejectedRow(episode="ep_2", reason="no video")]
        )


def test_a_published_artifact_holds_its_files_and_a_record_but_no_staging(workspace: Workspace) -> None:
    record = build(workspace, {"rate_hz": 50})
    home = workspace.find("episodes", REF)
    assert sorted(path.name for path in home.rglob("*") if path.is_file()) == ["record.json", "rows.txt"]
    assert [row.path for row in record.files] == ["data/rows.txt"]
    assert record.rejected[0].reason == "no video"
    assert workspace.record("episodes", REF) == record


def test_the_same_recipe_again_is_already_there_and_changes_nothing(workspace: Workspace) -> None:
    first = build(workspace, {"rate_hz": 50})
    stamp = (workspace.find("episodes", REF) / "record.json").stat().st_mtime_ns
    assert build(workspace, {"rate_hz": 50}, text="other") == first
    assert (workspace.find("episodes", REF) / "record.json").stat().st_mtime_ns == stamp


def test_another_recipe_under_the_same_version_is_refused_and_names_the_difference(workspace: Workspace) -> None:
    build(workspace, {"rate_hz": 50})
    with pytest.raises(ArtifactError, match=r"rate_hz: was 50, now 30\)\. Choose a new version, e\.g\. kitchen@2"):
        build(workspace, {"rate_hz": 30})


def test_other_inputs_under_the_same_version_are_refused(workspace: Workspace) -> None:
    one = InputRef(kind="raw", ref="lab", fingerprint="a" * 64)
    draft = begin(workspace, "mixes", REF, recipe={}, inputs=[one])
    assert isinstance(draft, Draft)
    with draft:
        draft.publish(fingerprint="0" * 64)
    with pytest.raises(ArtifactError, match="input lab: was aaaaaaaaaaaa, now lab bbbbbbbbbbbb"):
        begin(workspace, "mixes", REF, recipe={}, inputs=[one.model_copy(update={"fingerprint": "b" * 64})])


def test_a_draft_survives_an_error_and_is_found_again(workspace: Workspace) -> None:
    draft = begin(workspace, "episodes", REF, recipe={"rate_hz": 50})
    assert isinstance(draft, Draft)
    with pytest.raises(RuntimeError), draft:
        (draft.staging / "episode_1.done").write_text("x")
        raise RuntimeError("power cut")
    assert workspace.refs("episodes") == []
    again = begin(workspace, "episodes", REF, recipe={"rate_hz": 50})
    assert isinstance(again, Draft)
    with again:
        assert (again.staging / "episode_1.done").read_text() == "x"


def test_a_draft_that_holds_work_of_another_recipe_is_neither_mixed_in_nor_thrown_away(workspace: Workspace) -> None:
    draft = begin(workspace, "episodes", REF, recipe={"rate_hz": 50})
    assert isinstance(draft, Draft)
    with draft:
        (draft.staging / "episode_1.done").write_text("x")
    with pytest.raises(ArtifactError, match=r"was begun differently \(rate_hz: was 50, now 30\).*or delete"):
        begin(workspace, "episodes", REF, recipe={"rate_hz": 30})
    again = begin(workspace, "episodes", REF, recipe={"rate_hz": 50})
    assert isinstance(again, Draft)
    with again:
        assert (again.staging / "episode_1.done").read_text() == "x"


def test_a_draft_that_holds_no_work_makes_way(workspace: Workspace) -> None:
    draft = begin(workspace, "episodes", REF, recipe={"rate_hz": 50})
    assert isinstance(draft, Draft)
    with draft:
        (draft.path / "half.parquet").write_text("x")
    other = begin(workspace, "episodes", REF, recipe={"rate_hz": 30})
    assert isinstance(other, Draft)
    with other:
        assert not (other.path / "half.parquet").exists()


def raw(fingerprint: str, name: str = "lab") -> InputRef:
    return InputRef(kind="raw", ref=name, fingerprint=fingerprint * 64)


def test_a_mended_raw_file_keeps_what_is_checked_item_by_item(workspace: Workspace) -> None:
    draft = begin(workspace, "episodes", REF, recipe={}, inputs=[raw("a")], inputs_checked_per_item=True)
    assert isinstance(draft, Draft)
    with draft:
        (draft.staging / "episode_1.done").write_text("x")
    with pytest.raises(ArtifactError, match="was begun differently"):
        begin(workspace, "episodes", REF, recipe={}, inputs=[raw("b")])
    mended = begin(workspace, "episodes", REF, recipe={}, inputs=[raw("b")], inputs_checked_per_item=True)
    assert isinstance(mended, Draft)
    with mended:
        assert (mended.staging / "episode_1.done").read_text() == "x"
        record = mended.publish(fingerprint="0" * 64)
    assert record.inputs[0].fingerprint == "b" * 64


def test_renaming_the_raw_folder_changes_nothing(workspace: Workspace) -> None:
    draft = begin(workspace, "episodes", REF, recipe={}, inputs=[raw("a", "monday")])
    assert isinstance(draft, Draft)
    with draft:
        record = draft.publish(fingerprint="0" * 64)
    assert begin(workspace, "episodes", REF, recipe={}, inputs=[raw("a", "tuesday")]) == record


@pytest.mark.parametrize("moment", ["rename", "rmtree"])
def test_a_kill_in_the_last_moments_of_publishing_costs_nothing(workspace: Workspace, moment: str) -> None:
    """Killed at the first rename (the staging moves away) or while the moved staging is removed."""
    code = (
        "import os, shutil, signal, sys\n"
        "from dataengine.artifacts import begin\n"
        "from dataengine.workspace import Workspace\n"
        "from schemas.refs import Ref\n"
        "draft = begin(Workspace.at(sys.argv[1]), 'episodes', Ref('kitchen', '1'), recipe={})\n"
        "(draft.path / 'rows').write_text('x'); (draft.staging / 'one').write_text('1')\n"
        "real = os.rename\n"
        "def rename(old, new):\n"
        "    real(old, new)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "if sys.argv[2] == 'rename': os.rename = rename\n"
        "else: shutil.rmtree = lambda path, **_: os.path.exists(path) and os.kill(os.getpid(), signal.SIGKILL)\n"
        "draft.publish(fingerprint='0' * 64)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(workspace.root), moment], env=os.environ, check=False)
    assert done.returncode == -signal.SIGKILL
    record = begin(workspace, "episodes", REF, recipe={})
    assert isinstance(record, Record)
    assert (workspace.find("episodes", REF) / "rows").read_text() == "x"
    assert workspace.record("episodes", REF) == record


def test_an_artifact_of_a_newer_program_says_so(workspace: Workspace) -> None:
    build(workspace, {})
    path = workspace.find("episodes", REF) / "record.json"
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 99'))
    with pytest.raises(ArtifactError, match=r"schema 99.*Update"):
        read_record(path.parent)


def test_two_builders_of_one_artifact_are_told_apart(workspace: Workspace) -> None:
    draft = begin(workspace, "episodes", REF, recipe={})
    assert isinstance(draft, Draft)
    with draft, pytest.raises(ArtifactError, match="being built by another process"):
        begin(workspace, "episodes", REF, recipe={})


def test_a_process_killed_before_publishing_leaves_no_artifact_and_releases_the_lock(workspace: Workspace) -> None:
    code = (
        "import os, signal, sys\n"
        "from dataengine.artifacts import begin\n"
        "from dataengine.workspace import Workspace\n"
        "from schemas.refs import Ref\n"
        "draft = begin(Workspace.at(sys.argv[1]), 'episodes', Ref('kitchen', '1'), recipe={})\n"
        "(draft.staging / 'one').write_text('1')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(workspace.root)], env=os.environ, check=False)
    assert done.returncode == -signal.SIGKILL
    assert workspace.refs("episodes") == []
    draft = begin(workspace, "episodes", REF, recipe={})
    assert isinstance(draft, Draft)
    with draft:
        assert (draft.staging / "one").read_text() == "1"


def test_moving_the_workspace_changes_nothing(workspace: Workspace, tmp_path: Path) -> None:
    record = build(workspace, {"rate_hz": 50})
    moved = Workspace.at(tmp_path / "elsewhere")
    workspace.root.rename(moved.root)
    assert moved.record("episodes", REF) == record
    assert build(moved, {"rate_hz": 50}) == record


def test_a_missing_artifact_names_the_nearest_one(workspace: Workspace) -> None:
    build(workspace, {})
    with pytest.raises(RefError, match=r"no episodes 'kitchn@1' in the workspace\. Did you mean 'kitchen@1'\?"):
        workspace.find("episodes", Ref("kitchn", "1"))


def test_a_damaged_record_is_named(workspace: Workspace) -> None:
    build(workspace, {})
    home = workspace.find("episodes", REF)
    (home / "record.json").write_text('{"kind": "episodes"}')
    with pytest.raises(ArtifactError, match=r"record\.json is damaged \(name"):
        read_record(home)


def test_a_kill_while_files_are_hashed_keeps_what_was_staged(workspace: Workspace) -> None:
    code = (
        "import os, signal, sys\n"
        "from dataengine.artifacts import begin\n"
        "from dataengine.workspace import Workspace\n"
        "from schemas.refs import Ref\n"
        "draft = begin(Workspace.at(sys.argv[1]), 'episodes', Ref('kitchen', '1'), recipe={})\n"
        "(draft.staging / 'one').write_text('1')\n"
        "with (draft.path / 'rows').open('wb') as rows: rows.truncate(1 << 36)\n"  # 64 GB of nothing take long to hash
        "signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGKILL))\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.3)\n"
        "draft.publish(fingerprint='0' * 64)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(workspace.root)], env=os.environ, check=False)
    assert done.returncode == -signal.SIGKILL
    draft = begin(workspace, "episodes", REF, recipe={})
    assert isinstance(draft, Draft)
    with draft:
        assert (draft.staging / "one").read_text() == "1"
