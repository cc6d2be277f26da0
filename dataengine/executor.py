"""The Ray engine over episodes: bounded in flight, one bad episode never stops the others.

Workers read and write files on the workspace's shared disk and return small rows; nothing large crosses the object
store.
"""

import errno
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataengine.ray_session import init_ray
from dataengine.stall import Watch
from schemas.episodes import Rejected
from schemas.errors import ArtifactError, EngineError, EpisodeError

# A full disk, no memory, no file handles: nobody's episode is to blame.
_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOMEM, errno.EMFILE, errno.ENFILE}
_TASK_BYTES = 64 << 20  # of raw data: a second or two of work, beside which Ray's 2 ms for a task do not count
_TASK_EPISODES = 256  # results of a task come at once, and progress must move
_TASKS_PER_WORKER = 4  # at least, where there are episodes for it, so that no worker waits for the last one
_FLIGHT_BYTES = 4 << 30  # of raw data, for each worker: what a cluster of them reads at once must not drown the disk
_LOOK_AGAIN_S = 10.0
_STALL_S = 180.0
_TRIES = 2  # of an episode whose worker or node died: a node that goes away is nobody's fault, twice is a pattern
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """Episodes that one task does, one after the other."""

    names: tuple[str, ...]
    num_bytes: int
    tries: int = 0


def for_each_episode[Result](
    task: Callable[[str], Result],
    names: Sequence[str],
    *,
    workers: int | None,
    ray_address: str | None = None,
    num_bytes: Callable[[str], int] | None = None,
    disk: Path | None = None,
    stall_s: float = _STALL_S,
) -> Iterator[tuple[str, Result | Rejected]]:
    """Call `task(name)` for every name on Ray workers; yields (name, result or Rejected) as they finish.

    `task` must be picklable (a functools.partial of a module function). An EpisodeError, a decoder that fails or a
    worker that twice dies, or stands still, over the same episode makes a Rejected; every other EngineError (a rig that
    does not fit) and a full disk stop the run.

    Args:
        num_bytes: raw bytes of an episode: small ones then share a task, and what is in flight is bounded.
        disk: where the task writes: fewer tasks run at a time when its free space gets short.
        stall_s: after so long without a result or any work, Ray on this machine is started anew. A cluster is not:
            its workers can not be seen from here.
    """
    if not names:
        return
    ray = init_ray(ray_address)
    width = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
    ready = 0 if workers else width  # tasks that Ray holds until a core is free: asking first took 5 ms of each
    run, shared = _offered(ray, task)
    waiting = list(reversed(batches(names, num_bytes, width)))
    running: dict[Any, _Batch] = {}
    watch = None if ray_address else Watch(limit_s=stall_s)
    try:
        while waiting or running:
            while waiting and _may_start(waiting[-1], running.values(), width, ready, disk):
                batch = waiting.pop()
                running[run.remote(shared, batch.names)] = batch
            done, _ = ray.wait(list(running), num_returns=1, timeout=min(_LOOK_AGAIN_S, stall_s / 4))
            for handle in done:
                batch = running.pop(handle)
                results, again = _fetch(ray, handle, batch)
                yield from results
                waiting.extend(again)
            if watch is None:
                continue
            if done:
                watch.progressed()
            elif watch.sees_a_stall():
                stuck = list(running.values())
                running.clear()
                ray.shutdown()
                ray = init_ray()
                run, shared = _offered(ray, task)
                ready = 0  # from now on what Ray holds is being done, so what stands still is to blame
                for batch in stuck:
                    results, again = _tried(batch, "stood still", f"{stall_s:g} s without any work")
                    yield from results
                    waiting.extend(again)
                watch = Watch(limit_s=stall_s)
    finally:
        for handle in running:
            ray.cancel(handle)


def _offered(ray: Any, task: Callable[[str], Any]) -> tuple[Any, Any]:  # noqa: ANN401 - Ray's own
    """What does a batch, and the task it does, which holds the source: once per run, not once per episode.

    Who died over what is counted here, not by Ray.
    """
    return ray.remote(num_cpus=1, max_retries=0)(_isolated_batch), ray.put(task)


def num_workers(workers: int | None) -> int:
    """How many workers a run on this machine gets."""
    return workers or os.cpu_count() or 1


def batches(names: Sequence[str], num_bytes: Callable[[str], int] | None, width: int) -> list[_Batch]:
    """Neighbours share a task up to _TASK_BYTES; larger episodes have one of their own, and those come first.

    A huge episode that starts last would keep one worker busy while all others wait.
    """
    if num_bytes is None:
        return [_Batch(names=(name,), num_bytes=0) for name in names]
    sizes = {name: max(num_bytes(name), 0) for name in names}
    limit = min(_TASK_BYTES, sum(sizes.values()) / (width * _TASKS_PER_WORKER))
    most = max(1, min(_TASK_EPISODES, len(names) // (width * _TASKS_PER_WORKER)))
    large, small = [], []
    group: list[str] = []
    held = 0
    for name, size in sizes.items():
        if size >= limit:
            large.append(_Batch(names=(name,), num_bytes=size))
            continue
        if group and (held + size > limit or len(group) == most):
            small.append(_Batch(names=tuple(group), num_bytes=held))
            group, held = [], 0
        group.append(name)
        held += size
    if group:
        small.append(_Batch(names=tuple(group), num_bytes=held))
    return [*sorted(large, key=lambda batch: -batch.num_bytes), *small]


def _may_start(batch: _Batch, running: Any, width: int, ready: int, disk: Path | None) -> bool:  # noqa: ANN401 - values
    """Whether one more task may go to Ray; one always may, whatever its size, so that a run never stands still."""
    if not running:
        return True
    if len(running) >= width + ready:
        return False
    flight = sum(other.num_bytes for other in running) + batch.num_bytes
    if flight > _FLIGHT_BYTES * width:
        return False
    # What a task writes is about as large as what it reads; what runs may have written nothing of it yet.
    return disk is None or shutil.disk_usage(disk).free > flight


def _fetch(ray: Any, handle: Any, batch: _Batch) -> tuple[list[tuple[str, Any]], list[_Batch]]:  # noqa: ANN401
    """Results of a task, and what of it has to be tried again."""
    lost = (
        ray.exceptions.WorkerCrashedError,
        ray.exceptions.OutOfMemoryError,
        ray.exceptions.NodeDiedError,
        ray.exceptions.ObjectLostError,
    )
    try:
        return ray.get(handle), []
    except lost as error:
        kind = type(error).__name__
    except ray.exceptions.LocalRayletDiedError as error:
        raise ArtifactError(
            "Ray died on this machine; its logs are in /tmp/ray/session_latest. Run the same command again: what is "
            "staged is kept."
        ) from error
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, OSError) and error.cause.errno in _MACHINE:
            raise ArtifactError(
                f"this machine can not go on ({error.cause.strerror}). Mend that and run the same command again: what "
                f"is staged is kept."
            ) from error
        if isinstance(error.cause, EngineError | OSError):
            raise error.cause from None
        raise
    return _tried(batch, "died", kind)


def _tried(batch: _Batch, did: str, how: str) -> tuple[list[tuple[str, Any]], list[_Batch]]:
    """Results of a task whose worker did not end it, and what of it has to be tried again."""
    if len(batch.names) > 1:  # which of them it was, each one alone will tell
        share = batch.num_bytes // len(batch.names)
        return [], [_Batch(names=(name,), num_bytes=share) for name in batch.names]
    name = batch.names[0]
    if batch.tries + 1 < _TRIES:
        _log.info("%s: its worker %s (%s), trying again", name, did, how)
        return [], [_Batch(names=batch.names, num_bytes=batch.num_bytes, tries=batch.tries + 1)]
    reason = f"{name}: the worker {did} while reading it, {_TRIES} times ({how})."
    return [(name, Rejected(episode=name, reason=reason))], []


def _isolated_batch(task: Callable[[str], Any], names: Sequence[str]) -> list[tuple[str, Any]]:
    return [(name, _isolated(task, name)) for name in names]


def _isolated(task: Callable[[str], Any], name: str) -> Any:  # noqa: ANN401 - whatever the task returns
    """Run the task; turn a bad episode into a row."""
    try:
        return task(name)
    except EpisodeError as error:
        return Rejected(episode=name, reason=str(error))
    except (EngineError, ImportError, AttributeError, NameError, AssertionError):
        raise  # not this episode's fault: the input as a whole, or a bug of ours
    except (
        MemoryError
    ) as error:  # a size that only a damaged header can state, or an episode too large for this machine
        what = str(error) or "more than there is"
        return Rejected(episode=name, reason=f"{name}: needs too much memory ({what}). Mend or split the file.")
    except Exception as error:
        # The isolation boundary: h5py, PyAV and JPEG decoders raise their own kinds for damaged bytes, and one damaged
        # episode must not stop a thousand others.
        if isinstance(error, OSError) and error.errno in _MACHINE:
            raise
        return Rejected(episode=name, reason=f"{name}: can not be read ({type(error).__name__}: {error}).")
