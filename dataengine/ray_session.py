"""One way to start Ray, so that workers on every node run this code."""

import logging
import os
from pathlib import Path
from typing import Any

import schemas
from schemas.errors import UsageError


def init_ray(address: str | None = None, *, num_cpus: int | None = None) -> Any:  # noqa: ANN401 - the ray module
    """Connect to a cluster, or start Ray on this machine; does nothing when Ray already runs. Returns the ray module.

    The packages that workers need are shipped to a cluster's nodes, because their generic names must not be taken
    from whatever else is installed there.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")  # the default timed out once on a busy laptop
    import ray

    if ray.is_initialized():
        return ray
    try:
        if address:
            ray.init(address=address, runtime_env={"py_modules": _our_packages()}, logging_level=logging.ERROR)
        else:
            ray.init(
                address="local",  # never somebody else's cluster that happens to run here
                num_cpus=num_cpus,
                include_dashboard=False,
                object_store_memory=256 * 1024 * 1024,  # no pixel crosses the object store; 256 MB is ample
                logging_level=logging.ERROR,
                log_to_driver=False,
            )
    except Exception as error:
        # The boundary to Ray, which raises bare Exceptions where it can not start or finds no cluster.
        told = " ".join(str(error).split())[:160].rstrip(".")
        if address:
            raise UsageError(
                f"no Ray cluster answers at '{address}' ({told}). Check --ray-address, e.g. auto or 10.0.0.5:6379."
            ) from error
        raise UsageError(
            f"Ray did not start on this machine ({told}). Free cores and memory, then try again."
        ) from error
    return ray


def _our_packages() -> list[str]:
    """Folders of the packages installed beside this one; paths, because importing upwards is not ours to do."""
    home = Path(schemas.__file__).parent.parent
    return [str(home / name) for name in ("schemas", "dataengine", "annotators", "trainers")]
