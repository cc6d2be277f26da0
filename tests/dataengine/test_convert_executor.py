"""The engine over episodes: one bad episode never stops the others, a wrong rig stops all."""

import errno
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import raw_files

from dataengine.executor import batches, for_each_episode
from dataengine.ray_session import init_ray
from dataengine.rig_files import load_rig
from dataengine.sources import open_source
from dataengine.sources.sizes import raw_bytes
from schemas.episodes import Rejected
from schemas.errors import ArtifactError, EpisodeError, RigError


def worker(folder: Path) -> Callable[[str], int]:
    """A task that does what the name says; local, so that it travels to the workers by value."""

    def work(name: str) -> int:
        match name:
            case "bad":
                raise EpisodeError("bad: its camera is short. Drop it.")
            case "damaged":
                raise ValueError("broken bytes")
            case "deadly":
                os.kill(os.getpid(), signal.SIGKILL)
            case "misfit":
                raise RigError("the rig names no camera. Correct it.")
            case "full":
                raise OSError(errno.ENOSPC, "No space left on device")
            case "bug":
                raise AttributeError("our own mistake")
        mark = folder / f"{name}.running"
        mark.touch()
        together = len(list(folder.glob("*.running")))
        time.sleep(0.05)
        mark.unlink()
        return together

    return work


def results(folder: Path, names: list[str], workers: int = 2) -> dict[str, int | Rejected]:
    return dict(for_each_episode(worker(folder), names, workers=workers))


def test_bad_episodes_become_rows_and_the_others_go_on(tmp_path: Path) -> None:
    got = results(tmp_path, ["a", "bad", "b", "damaged", "deadly", "c"])
    assert {name for name, row in got.items() if isinstance(row, Rejected)} == {"bad", "damaged", "deadly"}
    reasons = {name: row.reason for name, row in got.items() if isinstance(row, Rejected)}
    assert reasons["bad"] == "bad: its camera is short. Drop it."
    assert "ValueError: broken bytes" in reasons["damaged"]
    assert "the worker died" in reasons["deadly"]


def test_no_more_workers_run_than_asked(tmp_path: Path) -> None:
    got = results(tmp_path, [f"episode_{index}" for index in range(12)], workers=1)
    assert set(got.values()) == {1}


@pytest.mark.parametrize(("name", "kind"), [("misfit", RigError), ("full", ArtifactError), ("bug", AttributeError)])
def test_what_is_not_the_episodes_fault_stops_the_run(tmp_path: Path, name: str, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        results(tmp_path, ["a", name, "b"])


def test_no_episodes_need_no_engine(tmp_path: Path) -> None:
    assert results(tmp_path, []) == {}


def test_small_episodes_share_a_task_and_large_ones_have_their_own() -> None:
    sizes = {f"small_{index}": 1000 for index in range(400)} | {"huge": 90 << 20, "large": 80 << 20}
    cut = batches(list(sizes), sizes.__getitem__, 2)
    assert [batch.names for batch in cut[:2]] == [("huge",), ("large",)]
    assert sorted(name for batch in cut for name in batch.names) == sorted(sizes)
    assert 8 <= len(cut[2:]) <= 12
    assert max(batch.num_bytes for batch in cut[2:]) <= 64 << 20
    assert [name for batch in cut[2:] for name in batch.names] == [f"small_{index}" for index in range(400)]


def test_few_episodes_do_not_share_a_task() -> None:
    assert [batch.names for batch in batches(["a", "b", "c"], lambda _: 10, 2)] == [("a",), ("b",), ("c",)]
    assert len(batches(["a", "b"], lambda _: 0, 2)) == 2


def test_bad_episodes_in_a_shared_task_harm_no_other_one(tmp_path: Path) -> None:
    names = [f"episode_{index}" for index in range(14)]
    names[3:3] = ["deadly", "bad"]
    task = worker(tmp_path)
    got = dict(for_each_episode(task, names, workers=1, num_bytes=lambda _: 1000, disk=tmp_path))
    assert len(batches(names, lambda _: 1000, 1)) < len(names)
    assert set(got) == set(names)
    rejected = {name: row.reason for name, row in got.items() if isinstance(row, Rejected)}
    assert set(rejected) == {"bad", "deadly"}
    assert rejected["deadly"].startswith("deadly: the worker died while reading it, 2 times")


def test_a_worker_that_dies_once_costs_no_episode(tmp_path: Path) -> None:
    folder = tmp_path

    def work(name: str) -> str:
        mark = folder / f"{name}.died"
        if name == "unlucky" and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return name

    got = dict(for_each_episode(work, ["a", "unlucky", "b"], workers=1))
    assert got == {"a": "a", "unlucky": "unlucky", "b": "b"}
    assert (folder / "unlucky.died").exists()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_workers_that_stand_still_are_replaced_and_what_stalls_twice_is_rejected(tmp_path: Path) -> None:
    """A stopped process stands for a codec that waits for itself: it works no more, and nobody tells."""
    folder = tmp_path

    def work(name: str) -> str:
        mark = folder / f"{name}.{os.getpid()}"
        if name == "always" or (name == "once" and not list(folder.glob("once.*"))):
            mark.touch()
            os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(0.05)
        return name

    got = dict(for_each_episode(work, ["a", "once", "always", "b", "c"], workers=2, stall_s=4.0))
    rejected = got.pop("always")
    assert isinstance(rejected, Rejected)
    assert rejected.reason == ("always: the worker stood still while reading it, 2 times (4 s without any work).")
    assert got == {name: name for name in ("a", "once", "b", "c")}
    stopped = [int(mark.suffix[1:]) for name in ("once", "always") for mark in folder.glob(f"{name}.*")]
    assert len(stopped) == 3
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in stopped if psutil.pid_exists(pid)], timeout=60)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []


def test_work_is_no_stall_however_long_it_takes(tmp_path: Path) -> None:
    folder = tmp_path

    def work(name: str) -> int:
        started = folder / f"{name}.{time.monotonic_ns()}"
        started.touch()
        end = time.monotonic() + 6.0
        while time.monotonic() < end:
            pass
        return len(list(folder.glob(f"{name}.*")))

    assert dict(for_each_episode(work, ["busy"], workers=1, stall_s=3.0)) == {"busy": 1}


def test_fewer_tasks_run_where_the_disk_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each episode says that it is larger than half of what is free, so that two at a time would fill the disk."""
    init_ray()
    names = [f"episode_{index}" for index in range(6)]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9 - 10**6, 10**6))
    got = dict(for_each_episode(worker(tmp_path), names, workers=2, num_bytes=lambda _: 600_000, disk=tmp_path))
    assert set(got.values()) == {1}


def test_a_file_or_a_folder_tells_how_large_its_episode_is(tmp_path: Path) -> None:
    raw = raw_files.write_aloha_folder(tmp_path / "raw", num_episodes=2, num_frames=4)
    size = raw_bytes(open_source(raw, load_rig("aloha_sim")))
    assert size("episode_0.hdf5") == (raw / "episode_0.hdf5").stat().st_size
    dataset = raw_files.write_lerobot_v21(tmp_path / "set", lengths=(5, 5))
    share = raw_bytes(open_source(dataset, None))
    total = sum(path.stat().st_size for path in dataset.rglob("*") if path.is_file())
    assert sum(share(name) for name in open_source(dataset, None).names()) == pytest.approx(total, abs=2)
