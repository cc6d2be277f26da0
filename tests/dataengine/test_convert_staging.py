"""What is staged stays whole: mended raw files, workers left over from killed runs, drafts and videos that vanish."""

import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import raw_files
from test_convert import REF, fingerprints, markers, run, write_raw

from dataengine import convert as convert_module
from dataengine.artifacts import begin
from dataengine.convert import convert
from dataengine.executor import for_each_episode
from dataengine.rig_files import load_rig
from dataengine.sinks.mp4_tables import stat_of
from dataengine.sinks.staged_columns import read_head, with_head
from dataengine.sinks.staging import StageFrames, StageVideos, load_columns, load_staged, marker_of
from dataengine.sinks.staging_writer import stage_episode
from dataengine.sinks.video_encoding import VideoEncoding
from dataengine.sources import open_source
from dataengine.sources.content import files_stamp
from dataengine.workspace import Workspace
from schemas.episodes import Rejected
from schemas.errors import ArtifactError, RejectedError


def dates(paths: list[Path]) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in paths}


def test_a_mended_file_is_staged_and_the_others_are_not_again(tmp_path: Path, workspace: Workspace) -> None:
    raw = write_raw(tmp_path / "raw", bad=(2,))
    with pytest.raises(RejectedError, match="1 of 4"):
        run(raw, workspace)
    kept = dates(markers(workspace, "episodes") + markers(workspace, "frames"))
    assert len(kept) == 6
    raw_files.write_aloha_episode(raw / "episode_2.hdf5", num_frames=22, seed=2)
    seen: list[tuple[int, int]] = []

    def note(done: int, total: int) -> None:
        seen.append((done, total))
        assert dates(list(kept)) == kept

    report = run(raw, workspace, on_progress=note)
    assert seen == [(4, 4)]
    assert (report.num_episodes, report.rejected) == (4, ())
    assert fingerprints(report) == fingerprints(run(raw, Workspace.at(tmp_path / "fresh")))


def test_a_removed_file_leaves_the_others_staged(tmp_path: Path, workspace: Workspace) -> None:
    raw = write_raw(tmp_path / "raw", bad=(2,))
    with pytest.raises(RejectedError):
        run(raw, workspace)
    (raw / "episode_2.hdf5").unlink()
    raw_files.write_metadata_csv(raw, [{"file": f"episode_{index}.hdf5"} for index in (0, 1, 3)])
    seen: list[int] = []
    report = run(raw, workspace, on_progress=lambda done, _: seen.append(done))
    assert (seen, report.num_episodes) == ([], 3)


def test_what_changed_under_a_staged_episode_is_staged_again_and_what_was_only_touched_is_not(
    tmp_path: Path, workspace: Workspace
) -> None:
    raw = write_raw(tmp_path / "raw", bad=(3,))
    with pytest.raises(RejectedError):
        run(raw, workspace)
    folders = sorted(path for marker in markers(workspace, "frames") for path in [*marker.parent.iterdir()])
    before = (raw / "episode_0.hdf5").stat()
    raw_files.write_aloha_episode(raw / "episode_0.hdf5", num_frames=20, seed=70)  # another take under the old name
    os.utime(raw / "episode_0.hdf5", ns=(before.st_atime_ns, before.st_mtime_ns))
    os.utime(raw / "episode_1.hdf5")
    rows = [{"file": f"episode_{index}.hdf5", "operator": "eve" if index == 2 else "bob"} for index in range(4)]
    raw_files.write_metadata_csv(raw, rows)
    raw_files.write_aloha_episode(raw / "episode_3.hdf5", num_frames=23, seed=3)
    now: list[Path] = []
    report = run(
        raw,
        workspace,
        on_progress=lambda *_: now.extend(
            path for mark in markers(workspace, "frames") for path in mark.parent.iterdir()
        ),
    )
    assert fingerprints(report) == fingerprints(run(raw, Workspace.at(tmp_path / "fresh")))
    assert set(folders) < set(now)


def test_an_episode_that_was_only_touched_keeps_what_was_encoded(tmp_path: Path, workspace: Workspace) -> None:
    raw = write_raw(tmp_path / "raw", num_episodes=2, bad=(1,))
    with pytest.raises(RejectedError):
        run(raw, workspace)
    [folder] = [path for path in markers(workspace, "episodes")[0].parent.iterdir() if path.is_dir()]
    os.utime(raw / "episode_0.hdf5")
    with pytest.raises(RejectedError):
        run(raw, workspace)
    assert [path for path in folder.parent.iterdir() if path.is_dir()] == [folder]
    seen: list[int] = []
    with pytest.raises(RejectedError):
        run(raw, workspace, on_progress=lambda done, _: seen.append(done))
    assert seen == [2]  # the new date is known now: only the bad one was read again


def test_a_copied_video_that_vanishes_while_converting_is_a_sentence(
    tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = raw_files.write_lerobot_v21(tmp_path / "raw", lengths=(10, 12))
    [gone] = raw.rglob("episode_000001.mp4")
    kept = tmp_path / "kept.mp4"
    stage = convert_module._stage

    def vanishing(*arguments: object) -> dict[str, str]:
        rejected = stage(*arguments)  # type: ignore[arg-type]  # handed through
        shutil.move(gone, kept)
        return rejected

    monkeypatch.setattr(convert_module, "_stage", vanishing)
    with pytest.raises(
        ArtifactError, match=r"episode_000001 was staged, but the video .* is gone. Run the same command"
    ):
        convert(source_path=raw, to=REF, workspace=workspace, rig=None)
    monkeypatch.undo()
    shutil.move(kept, gone)
    assert convert(source_path=raw, to=REF, workspace=workspace, rig=None).num_episodes == 2


def change_head(marker: Path, pattern: str, words: str) -> None:
    head = re.sub(pattern, words, read_head(marker).decode())
    marker.write_bytes(with_head(marker.read_bytes(), head.encode()))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda marker: marker.unlink(), "its staged files are gone"),
        (lambda marker: [shutil.rmtree(path) for path in marker.parent.iterdir() if path.is_dir()], "are gone"),
        (lambda marker: change_head(marker, '"meta"', '"more"'), "by another version"),
        (lambda marker: change_head(marker, '"stamp":"[^"]*"', '"stamp":"old"'), "another run"),
    ],
    ids=["no marker", "no folder", "written by another version", "other raw files"],
)
def test_what_happens_to_the_staging_of_a_running_conversion_is_a_sentence(
    tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], object], reason: str
) -> None:
    raw = write_raw(tmp_path / "raw", num_episodes=1)
    stage = convert_module._stage

    def disturbed(*arguments: object) -> dict[str, str]:
        rejected = stage(*arguments)  # type: ignore[arg-type]  # handed through
        damage(markers(workspace, "frames")[0])
        return rejected

    monkeypatch.setattr(convert_module, "_stage", disturbed)
    with pytest.raises(ArtifactError, match=rf"episode_0.hdf5 was staged, but .*{reason}.* Run the same command again"):
        run(raw, workspace, sink="zarr")
    monkeypatch.undo()
    assert run(raw, workspace, sink="zarr").num_episodes == 1


def test_a_marker_of_another_version_is_staged_again(tmp_path: Path, workspace: Workspace) -> None:
    raw = write_raw(tmp_path / "raw", bad=(3,))
    with pytest.raises(RejectedError):
        run(raw, workspace)
    marker = markers(workspace, "episodes")[0]
    marker.write_bytes(marker.read_bytes().replace(b'"num_frames"', b'"all_frames"', 1))
    report = run(raw, workspace, max_rejected=0.5)
    assert report.num_episodes == 3


def staging_job(tmp_path: Path, kind: str) -> StageVideos | StageFrames:
    root = tmp_path / "staging"
    root.mkdir(exist_ok=True)
    if kind == "frames":
        return StageFrames(root=root, frame_size=None, quality=90)
    return StageVideos(root=root, encoding=VideoEncoding(), encoder_threads=1)


def test_two_workers_with_the_same_episode_never_leave_a_moment_without_it(tmp_path: Path) -> None:
    """A worker that outlived a killed run stages while the resumed run does: nobody fails, a reader always finds it."""
    raw = write_raw(tmp_path / "raw", num_episodes=1)
    job = staging_job(tmp_path, "frames")

    def stage(word: str) -> int:
        source = open_source(raw, load_rig("aloha_sim"))
        episode = source.read("episode_0.hdf5")
        deadline = time.monotonic() + 120
        for take in range(40):
            (tmp_path / f"{word}.{take}").touch()
            while len(list(tmp_path.glob(f"*.{take}"))) < 2 and time.monotonic() < deadline:
                pass  # both start on a take at the same moment
            stage_episode(episode, f"take_{take}", source.rig, (job,), stamp=word)
            staged = load_staged(job.root, f"take_{take}")
            assert staged is not None
            assert load_columns(staged)[0].keys() == {*episode.columns}
            assert len(list(staged.folder.iterdir())) == 2  # where the JPEGs of two cameras lie
        return take

    results = dict(for_each_episode(stage, ["one", "other"], workers=2))
    assert results == {"one": 39, "other": 39}


def test_a_worker_whose_draft_was_removed_ends_and_does_not_bring_it_back(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw", num_episodes=1)
    source = open_source(raw, load_rig("aloha_sim"))
    job = staging_job(tmp_path, "frames")
    shutil.rmtree(job.root)

    def stage(name: str) -> None:
        stage_episode(source.read(name), name, source.rig, (job,), stamp="")

    with pytest.raises(ArtifactError, match=r"episode_0.hdf5 is staged \(it was removed\).*run the same command again"):
        assert not isinstance(dict(for_each_episode(stage, source.names(), workers=1))["episode_0.hdf5"], Rejected)
    assert not job.root.exists()


def test_columns_of_another_attempt_are_used_only_where_they_are_the_same(tmp_path: Path) -> None:
    """A worker that outlived a killed run puts its marker in place of the one that was loaded."""
    raw = write_raw(tmp_path / "raw", num_episodes=2)
    source, job = open_source(raw, load_rig("aloha_sim")), staging_job(tmp_path, "frames")
    one, other = source.read("episode_0.hdf5"), source.read("episode_1.hdf5")
    stage_episode(one, "take", source.rig, (job,), stamp="")
    staged = load_staged(job.root, "take")
    assert staged is not None
    marker = marker_of(job.root, "take")
    marker.unlink()
    stage_episode(one, "take", source.rig, (job,), stamp="later")
    assert np.array_equal(load_columns(staged)[0]["action"], one.columns["action"])
    marker.unlink()
    stage_episode(other, "take", source.rig, (job,), stamp="")
    with pytest.raises(ArtifactError, match=r"take was staged again by another run\. Run the same command again"):
        load_columns(staged)


def test_a_worker_left_over_from_another_recipe_can_not_mix_in(tmp_path: Path, workspace: Workspace) -> None:
    raw = write_raw(tmp_path / "raw", num_episodes=2, bad=(1,))
    with pytest.raises(RejectedError):
        run(raw, workspace, sink="zarr")
    old = StageFrames(root=markers(workspace, "frames")[0].parent, frame_size=None, quality=90)
    shutil.rmtree(old.root.parents[1])
    with pytest.raises(RejectedError):
        run(raw, workspace, sink="zarr", frame_size=(32, 32))
    [marker] = markers(workspace, "frames")
    source = open_source(raw, load_rig("aloha_sim"))
    with pytest.raises(ArtifactError, match="it was removed"):
        stage_episode(source.read("episode_0.hdf5"), "episode_0.hdf5", source.rig, (old,), stamp="")
    assert markers(workspace, "frames") == [marker]
    staged = load_staged(marker.parent, "episode_0.hdf5")
    assert staged is not None
    assert staged.cameras["cam_high"].frames is not None
    assert staged.cameras["cam_high"].frames.width == 32


def test_nothing_staged_does_not_bind_the_next_recipe(tmp_path: Path, workspace: Workspace) -> None:
    raw = write_raw(tmp_path / "raw", num_episodes=1, bad=(0,))
    with pytest.raises(RejectedError):
        run(raw, workspace, sink="zarr", max_rejected=1.0)
    raw_files.write_aloha_episode(raw / "episode_0.hdf5")
    assert run(raw, workspace, sink="zarr", frame_size=(32, 32)).num_episodes == 1


def test_a_draft_that_can_not_begin_lets_go_of_the_lock_of_the_first(tmp_path: Path, workspace: Workspace) -> None:
    raw = write_raw(tmp_path / "raw", num_episodes=1)
    run(raw, workspace, sink="zarr")
    with pytest.raises(ArtifactError, match=r"frames 'tiny@1' exists and was made differently"):
        run(raw, workspace, frame_size=(32, 32))
    draft = begin(workspace, "episodes", REF, recipe={"other": 1})
    assert not hasattr(draft, "fingerprint")
    with draft:
        pass


def test_a_hard_link_is_no_change_of_a_file_and_a_rewrite_of_the_same_size_is(tmp_path: Path) -> None:
    path = tmp_path / "take.mp4"
    path.write_bytes(b"first")
    before, stat = path.stat(), stat_of(path)
    stamp = files_stamp([path], {})
    time.sleep(0.02)  # a tick of the file system's clock
    os.link(path, tmp_path / "backup.mp4")
    assert path.stat().st_ctime_ns != before.st_ctime_ns
    assert stat_of(path) == stat
    linked = files_stamp([path], {})
    time.sleep(0.02)
    path.write_bytes(b"other")
    assert stat_of(path) != stat
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # what mends a file may give it its old date again
    assert files_stamp([path], {}) not in (stamp, linked)
