"""Pictures that are written into planned shards while they are read: the same store, whatever turns out otherwise."""

import os
import random
import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
import raw_files
from numpy.typing import NDArray
from test_convert_faults import ROOT, assert_one_sentence, command, remount, small_disk, used_bytes

from dataengine.convert import convert
from dataengine.frame_store import SHARD_FRAMES
from dataengine.rig_files import load_rig
from dataengine.sinks import zarr_frames
from dataengine.sinks.shard_plan import ShardPlan, planned_shard
from dataengine.sinks.staging import StageFrames, boot_id, load_staged
from dataengine.sinks.staging_writer import stage_episode
from dataengine.sources import Source, open_source
from dataengine.sources.copying import read_copying, shard_plan
from dataengine.workspace import Workspace
from schemas.errors import ArtifactError, EpisodeError, RejectedError
from schemas.refs import Ref

REF = Ref("tiny", "1")
ROWS = 150  # four episodes are more than a shard


def source_of(raw: Path) -> Source:
    return open_source(raw, load_rig("aloha_sim"))


def job_in(folder: Path) -> StageFrames:
    folder.mkdir(parents=True)
    return StageFrames(root=folder, frame_size=None, quality=90, boot=boot_id())


def plan_of(source: Source, job: StageFrames) -> ShardPlan:
    plan = shard_plan(source, source.stamps(), (job,))
    assert plan is not None
    return plan


def spoil(path: Path, frame: int) -> None:
    """Cut off one JPEG; nothing in the headers tells."""
    with h5py.File(path, "r+") as file:
        length = int(file["compress_len"][0, frame])
        file["observations/images/cam_high"][frame, length - 2 : length] = 0


def shards(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in sorted(store.glob("cam_*/c.*"))}


def copied_afterwards(raw: Path, folder: Path, *, without: Sequence[str] = ()) -> dict[str, bytes]:
    """The shards of the same store, every picture read from its raw file by the commit."""
    source, job = source_of(raw), job_in(folder / "staging")
    names = [name for name in source.names() if name not in without]
    for name in names:
        stage_episode(source.read(name), name, source.rig, (job,), stamp="")
    staged = [row for name in names if (row := load_staged(job.root, name))]
    (folder / "store").mkdir()
    zarr_frames.commit(folder / "store", staged, source.rig, zarr_frames.frame_recipe(source.rig, None, 90))
    return shards(folder / "store")


def planned_inodes(workspace: Workspace, held: Path) -> dict[str, int]:
    """Which file each planned shard is; linked under `held`, so that a later file can not be given the same number."""
    held.mkdir(exist_ok=True)
    found: dict[str, int] = {}
    for path in workspace.root.glob("frames/.*.draft/.staging/*/shards.*/*"):
        found[path.name] = path.stat().st_ino
        if not (held / path.name).exists():
            os.link(path, held / path.name)
    return found


def published_inodes(workspace: Workspace) -> dict[str, int]:
    store = workspace.path("frames", REF)
    return {f"{path.parent.name}.{path.name.split('.')[1]}": path.stat().st_ino for path in store.glob("cam_*/c.*")}


def test_each_picture_lies_where_the_plan_says_whatever_the_lengths_of_episodes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lengths = [1, 510, 1, 512, 513, 7, 1100, 504, 3]
    sizes = {f"take_{number}": rng.integers(4, 40, length) for number, length in enumerate(lengths)}

    def sizes_of(name: str) -> dict[str, NDArray[np.int64]]:
        if name == "take_unreadable":
            raise EpisodeError("its header is damaged")
        return {"cam": sizes[name]}

    names = [*list(sizes)[:4], "take_unreadable", *list(sizes)[4:]]
    plan = ShardPlan.of(tmp_path, "here", dict.fromkeys(names, "stamp"), sizes_of)
    assert plan is not None
    plan = replace(plan, boot=boot_id() or "")
    plan.prepare()
    pictures = {name: [rng.bytes(int(size)) for size in found] for name, found in sizes.items()}
    for name in random.Random(0).sample(list(sizes), len(sizes)):  # workers finish in any order
        with plan.copies(name) as copies:
            copy = copies.of("cam", sizes[name])
            assert copy is not None
            for start in range(0, len(pictures[name]), 40):
                copy.write(pictures[name][start : start + 40])
    rows = [picture for name in sizes for picture in pictures[name]]
    assert plan.num_rows == len(rows)
    for number in range(-(-len(rows) // SHARD_FRAMES)):
        wanted = b"".join(rows[number * SHARD_FRAMES : (number + 1) * SHARD_FRAMES])
        assert planned_shard(plan.folder, "cam", number).read_bytes() == wanted


def test_what_workers_wrote_is_published_and_equals_what_a_second_reading_would_have_made(
    tmp_path: Path, workspace: Workspace
) -> None:
    raw = raw_files.write_aloha_folder(tmp_path / "raw", num_episodes=4, num_frames=ROWS)
    seen: list[dict[str, int]] = []
    convert(
        source_path=raw,
        to=REF,
        workspace=workspace,
        rig="aloha_sim",
        sink="zarr",
        workers=2,
        on_progress=lambda *_: seen.append(planned_inodes(workspace, tmp_path / "held")),
    )
    assert published_inodes(workspace) == seen[-1]
    assert len(seen[-1]) == 2 * len(raw_files.ALOHA_CAMERAS)
    contents = pq.read_table(workspace.path("frames", REF) / "contents.parquet")
    assert not [row for row in contents.column("content_json").to_pylist() if "planned" in row]
    assert shards(workspace.path("frames", REF)) == copied_afterwards(raw, tmp_path / "twice")


def test_a_rejected_episode_costs_the_shards_from_its_own_on(tmp_path: Path, workspace: Workspace) -> None:
    raw = raw_files.write_aloha_folder(tmp_path / "raw", num_episodes=5, num_frames=ROWS)
    spoil(raw / "episode_4.hdf5", 100)
    with pytest.raises(RejectedError, match=r"episode_4.*frame 100 is cut off"):
        convert(source_path=raw, to=REF, workspace=workspace, rig="aloha_sim", sink="zarr", workers=2)
    before = planned_inodes(workspace, tmp_path / "held")
    convert(source_path=raw, to=REF, workspace=workspace, rig="aloha_sim", sink="zarr", workers=2, max_rejected=0.5)
    now = published_inodes(workspace)
    assert {name for name in now if now[name] == before[name]} == {f"{key}.0" for key in raw_files.ALOHA_CAMERAS}
    wanted = copied_afterwards(raw, tmp_path / "twice", without=["episode_4.hdf5"])
    assert shards(workspace.path("frames", REF)) == wanted


def test_a_mended_file_makes_another_plan_and_what_the_first_one_left_is_removed(
    tmp_path: Path, workspace: Workspace
) -> None:
    raw = raw_files.write_aloha_folder(tmp_path / "raw", num_episodes=4, num_frames=ROWS)
    spoil(raw / "episode_1.hdf5", 3)
    with pytest.raises(RejectedError):
        convert(source_path=raw, to=REF, workspace=workspace, rig="aloha_sim", sink="zarr", workers=2)
    before = {path for path in workspace.root.rglob("shards.*") if path.is_dir()}
    raw_files.write_aloha_episode(raw / "episode_1.hdf5", num_frames=ROWS + 9, seed=8)
    during: list[Path] = []
    convert(
        source_path=raw,
        to=REF,
        workspace=workspace,
        rig="aloha_sim",
        sink="zarr",
        workers=2,
        on_progress=lambda *_: during.extend(workspace.root.rglob("shards.*")),
    )
    assert len(before) == len(set(during)) == 1
    assert before.isdisjoint(during)
    assert shards(workspace.path("frames", REF)) == copied_afterwards(raw, tmp_path / "twice")


def test_a_worker_left_over_from_another_plan_ends_and_rejects_nothing(tmp_path: Path) -> None:
    raw = raw_files.write_aloha_folder(tmp_path / "raw", num_episodes=2, num_frames=5)
    source, job = source_of(raw), job_in(tmp_path / "staging")
    old = plan_of(source, job)
    old.prepare()
    raw_files.write_aloha_episode(raw / "episode_1.hdf5", num_frames=7, seed=4)
    plan_of(source_of(raw), job).prepare()
    with pytest.raises(ArtifactError, match=r"episode_0.hdf5 is staged \(it was removed\)"):
        read_copying(source, "episode_0.hdf5", old)
    assert not old.folder.exists()


def test_a_shard_that_can_not_be_written_is_not_the_episodes_fault(tmp_path: Path) -> None:
    raw = raw_files.write_aloha_folder(tmp_path / "raw", num_episodes=1, num_frames=5)
    source, job = source_of(raw), job_in(tmp_path / "staging")
    plan = plan_of(source, job)
    plan.prepare()
    planned_shard(plan.folder, "cam_high", 0).mkdir()
    with pytest.raises(ArtifactError, match=r"while episode_0.hdf5 is staged \(Is a directory\).*run the same command"):
        read_copying(source, "episode_0.hdf5", plan)


def test_what_is_not_as_planned_is_left_to_the_commit(tmp_path: Path) -> None:
    """Other sizes than the headers said before, or a worker on another machine."""
    raw = raw_files.write_aloha_folder(tmp_path / "raw", num_episodes=2, num_frames=5)
    source, job = source_of(raw), job_in(tmp_path / "staging")
    plan = plan_of(source, job)
    plan.prepare()
    elsewhere = read_copying(source, "episode_0.hdf5", replace(plan, boot="another machine"))
    raw_files.write_aloha_episode(raw / "episode_1.hdf5", num_frames=5, seed=9)
    changed = read_copying(source, "episode_1.hdf5", plan)
    for episode in (elsewhere, changed):
        assert [getattr(stream, "planned", 0) for stream in episode.cameras.values()] == [None, None]
    assert not list(plan.folder.iterdir())
    kept = read_copying(source, "episode_0.hdf5", plan)
    assert all(getattr(stream, "planned", None) for stream in kept.cameras.values())


def test_a_damaged_table_of_sizes_is_a_row_and_the_others_are_planned(tmp_path: Path, workspace: Workspace) -> None:
    raw = raw_files.write_aloha_folder(tmp_path / "raw", num_episodes=3, num_frames=5)
    with h5py.File(raw / "episode_1.hdf5", "r+") as file:
        del file["compress_len"]
        file["compress_len"] = [[b"many"] * 5] * len(raw_files.ALOHA_CAMERAS)
    seen: list[dict[str, int]] = []
    report = convert(
        source_path=raw,
        to=REF,
        workspace=workspace,
        rig="aloha_sim",
        sink="zarr",
        workers=2,
        max_rejected=0.5,
        on_progress=lambda *_: seen.append(planned_inodes(workspace, tmp_path / "held")),
    )
    assert [row.episode for row in report.rejected] == ["episode_1.hdf5"]
    assert published_inodes(workspace) == seen[-1]


@pytest.mark.parametrize("options", [{"with_compress_len": False}, {"compressed": False}, {"vlen": True}])
def test_files_that_do_not_state_the_sizes_of_jpegs_have_no_plan(options: dict[str, bool], tmp_path: Path) -> None:
    raw = raw_files.write_aloha_folder(tmp_path / "raw", num_episodes=1, num_frames=5, **options)
    source, job = source_of(raw), job_in(tmp_path / "staging")
    assert shard_plan(source, source.stamps(), (job,)) is None


def zarr_command(raw: Path, root: Path) -> list[str]:
    return [*command(raw, root), "--sink", "zarr"]


def run(raw: Path, root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(zarr_command(raw, root), cwd=ROOT, capture_output=True, text=True, check=False, timeout=400)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planned") / "raw"
    return raw_files.write_aloha_folder(folder, num_episodes=12, num_frames=60, height=240, width=320)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_kills_while_pictures_are_written_change_nothing(large: Path, tmp_path: Path) -> None:
    """Each of five runs is killed once some more bytes lie in planned shards, or once they are gone from there."""
    wanted = copied_afterwards(large, tmp_path / "twice")
    root, rng = tmp_path / "workspace", random.Random(0)
    for _ in range(5):
        process = subprocess.Popen(zarr_command(large, root), cwd=ROOT, stderr=subprocess.DEVNULL)
        more = bytes_in_plans(root) + rng.randrange(1, 400_000)
        while process.poll() is None and bytes_in_plans(root) < more and not list(root.glob("frames/.*.draft/cam_*")):
            time.sleep(0.001)
        process.kill()
        process.wait()
    done = run(large, root)
    assert done.returncode == 0, done.stderr[-2000:]
    assert shards(root / f"frames/{REF}") == wanted
    assert sorted(path.name for path in (root / "frames").iterdir()) == [f".{REF}.lock", str(REF)]


def bytes_in_plans(root: Path) -> int:
    sizes = []
    for path in root.glob("frames/.*.draft/.staging/*/shards.*/*"):
        try:
            sizes.append(path.stat().st_blocks * 512)
        except FileNotFoundError:  # moved into the store meanwhile
            continue
    return sum(sizes)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_pictures_are_never_on_the_disk_twice_and_a_full_disk_is_one_sentence(large: Path, tmp_path: Path) -> None:
    """Also where an episode in the middle is rejected, and most shards are written anew."""
    raw = tmp_path / "raw"
    raw.mkdir()
    for path in large.iterdir():
        (raw / path.name).write_bytes(path.read_bytes())
    spoil(raw / "episode_9.hdf5", 50)
    wanted = copied_afterwards(raw, tmp_path / "twice", without=["episode_9.hdf5"])
    pictures = sum(map(len, wanted.values()))
    root = tmp_path / "disk"
    with small_disk(root, kilobytes=int(0.7 * pictures) // 1024):
        assert_one_sentence(run(raw, root), "No space left on device", "run the same command again")
        remount(root, f"size={(int(1.2 * pictures) + (1 << 20)) // 1024}k")
        done = run(raw, root)
        assert done.returncode == 0, done.stderr[-2000:]
        assert shards(root / f"frames/{REF}") == wanted
        assert used_bytes(root) < 1.2 * pictures + (1 << 20)
