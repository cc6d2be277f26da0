"""Keeping an encoder from taking the machine: what a codec does to the scheduling of threads is undone."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_THREADS = Path("/proc/self/task")


@contextmanager
def ordinary_scheduling() -> Iterator[None]:
    """Whatever opens an encoder inside leaves every thread of this process scheduled as it was before.

    SVT-AV1, run by root as in containers, makes its threads and its caller real-time (SCHED_FIFO, 99) for good, and
    what the caller starts later inherits that: two busy children then stop all else on a machine of two cores.
    Threads that came up inside get the caller's policy. Without /proc (not Linux) nothing is changed.
    """
    if not _THREADS.is_dir():
        yield
        return
    before = _policies()
    own, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        for thread, policy in _policies().items():
            wanted, param = before.get(thread, (own, priority))
            if policy != (wanted, param):
                _schedule(thread, wanted, param)


def _policies() -> dict[int, tuple[int, os.sched_param]]:
    found = {}
    for folder in _THREADS.iterdir():
        thread = int(folder.name)
        try:
            found[thread] = (os.sched_getscheduler(thread), os.sched_getparam(thread))
        except ProcessLookupError:  # it has just ended
            continue
    return found


def _schedule(thread: int, policy: int, param: os.sched_param) -> None:
    try:
        os.sched_setscheduler(thread, policy, param)
    except ProcessLookupError:  # it has just ended
        return
