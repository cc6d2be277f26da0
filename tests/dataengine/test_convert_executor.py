"""The engine over episodes: one bad episode never stops the others, a wrong rig stops all."""

import errno
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dataengine.executor import for_each_episode
from schemas.episodes import Rejected
from schemas.errors import EpisodeError, RigError


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


@pytest.mark.parametrize(("name", "kind"), [("misfit", RigError), ("full", OSError), ("bug", AttributeError)])
def test_what_is_not_the_episodes_fault_stops_the_run(tmp_path: Path, name: str, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        results(tmp_path, ["a", name, "b"])


def test_no_episodes_need_no_engine(tmp_path: Path) -> None:
    assert results(tmp_path, []) == {}
