"""An encoder must not take the machine: SVT-AV1, run by root, makes its caller real-time for good."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from dataengine.proofs.bare_codecs import bare_video
from dataengine.sinks.scheduling import ordinary_scheduling
from dataengine.sinks.video_encoding import VideoEncoding, VideoWriter

PICTURE = np.zeros((48, 64, 3), np.uint8)


REAL_TIME = {os.SCHED_FIFO, os.SCHED_RR}


def real_time_threads() -> list[str]:
    """Names of this process's real-time threads. Mesa's idle ones are SCHED_BATCH, which takes nothing from anybody."""
    found = []
    for at in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError, FileNotFoundError):  # it has just ended
            if os.sched_getscheduler(int(at.name)) in REAL_TIME:
                found.append((at / "comm").read_text())
    return found


def child_policy() -> int:
    """What a process started now would run with."""
    words = [sys.executable, "-c", "import os; print(os.sched_getscheduler(0))"]
    return int(subprocess.run(words, capture_output=True, check=True, text=True).stdout)


def test_an_encoded_episode_leaves_threads_and_children_scheduled_as_they_were(tmp_path: Path) -> None:
    assert real_time_threads() == []
    before = os.sched_getscheduler(0)
    encoding = VideoEncoding(codec="libsvtav1")
    with VideoWriter(tmp_path / "a.mp4", width=64, height=48, rate_hz=30, encoding=encoding, threads=2) as writer:
        for _ in range(3):
            writer.add(PICTURE)
            assert real_time_threads() == []
    assert len(bare_video([PICTURE] * 3, encoding=encoding, rate_hz=30)) == 3
    assert real_time_threads() == []
    assert child_policy() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may choose a real-time policy")
def test_what_was_real_time_before_stays_so() -> None:
    ordinary = os.sched_param(0)
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        with ordinary_scheduling():
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(99))
        assert os.sched_getscheduler(0) == os.SCHED_RR
        assert os.sched_getparam(0).sched_priority == 1
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, ordinary)
