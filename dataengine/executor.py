"""The Ray engine over episodes: bounded in flight, one bad episode never stops the others.

Workers read and write files on the workspace's shared disk and return small rows; nothing large crosses the object
store.
"""

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from dataengine.ray_session import init_ray
from schemas.episodes import Rejected
from schemas.errors import EngineError, EpisodeError

# A full disk, no memory, no file handles: nobody's episode is to blame.
_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOMEM, errno.EMFILE, errno.ENFILE}


def for_each_episode[Result](
    task: Callable[[str], Result],
    names: Sequence[str],
    *,
    workers: int | None,
    ray_address: str | None = None,
) -> Iterator[tuple[str, Result | Rejected]]:
    """Call `task(name)` for every name on Ray workers; yields (name, result or Rejected) as they finish.

    `task` must be picklable (a functools.partial of a module function). An EpisodeError, a decoder that fails or a
    worker that dies makes a Rejected; every other EngineError (a rig that does not fit) and a full disk stop the run.
    """
    if not names:
        return
    ray = init_ray(ray_address)
    width = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
    run = ray.remote(num_cpus=1, max_retries=1)(_isolated)
    shared = ray.put(task)  # the task holds the source: once per run, not once per episode
    waiting = list(reversed(names))
    running: dict[Any, str] = {}
    try:
        while waiting or running:
            while waiting and len(running) < width:
                name = waiting.pop()
                running[run.remote(shared, name)] = name
            done, _ = ray.wait(list(running), num_returns=1)
            for handle in done:
                name = running.pop(handle)
                yield name, _fetch(ray, handle, name)
    finally:
        for handle in running:
            ray.cancel(handle)


def num_workers(workers: int | None) -> int:
    """How many workers a run on this machine gets."""
    return workers or os.cpu_count() or 1


def _fetch(ray: Any, handle: Any, name: str) -> Any:  # noqa: ANN401 - ray has no types
    try:
        return ray.get(handle)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, EngineError | OSError):
            raise error.cause from None
        raise
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError) as error:
        return Rejected(episode=name, reason=f"{name}: the worker died while reading it ({type(error).__name__}).")


def _isolated(task: Callable[[str], Any], name: str) -> Any:  # noqa: ANN401 - whatever the task returns
    """Run the task; turn a bad episode into a row."""
    try:
        return task(name)
    except EpisodeError as error:
        return Rejected(episode=name, reason=str(error))
    except (EngineError, MemoryError, ImportError, AttributeError, NameError, AssertionError):
        raise  # not this episode's fault: the input as a whole, the machine, or a bug of ours
    except Exception as error:
        # The isolation boundary: h5py, PyAV and JPEG decoders raise their own kinds for damaged bytes, and one damaged
        # episode must not stop a thousand others.
        if isinstance(error, OSError) and error.errno in _MACHINE:
            raise
        return Rejected(episode=name, reason=f"{name}: can not be read ({type(error).__name__}: {error}).")
