"""What every survey says in the same words: drafts of columns, broken episodes, spacing of stamps."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataengine.rig_drafts import DraftColumn

_OUR_NAMES = {"action": "action", "observations/qpos": "observation.state", "state": "observation.state"}
_SHOWN = 3  # names listed in a note


def draft_column(
    key: str, values: NDArray[Any], *, name: str | None = None, labels: tuple[str, ...] = ()
) -> DraftColumn:
    """A column as found, with the range of each dimension; `values` is (rows, ...)."""
    matrix = values.reshape(len(values), int(np.prod(values.shape[1:]))).astype(np.float64)
    ours = name or _OUR_NAMES.get(key) or f"observation.{key.removeprefix('observations/').replace('/', '_')}"
    if not len(matrix):  # an episode without rows has no range
        matrix = np.full((1, matrix.shape[1]), np.nan)
    return DraftColumn(name=ours, key=key, labels=labels, low=matrix.min(axis=0), high=matrix.max(axis=0))


def some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def broken_notes(broken: dict[str, str]) -> list[str]:
    """What was met on the way to the first episode that can be read."""
    notes = [f"{name} is broken and was passed over: {reason}" for name, reason in broken.items()]
    return notes[:_SHOWN] + ([f"{len(notes) - _SHOWN} more broken ones were passed over"] if notes[_SHOWN:] else [])


def timing(name: str, seconds: NDArray[Any]) -> str:
    """Spacing of one episode's stamps, in words."""
    if len(seconds) < 2:
        return f"{name}: one row"
    steps = np.diff(seconds.astype(np.float64)) * 1000
    return (
        f"{name}: {len(seconds)} rows over {float(seconds[-1] - seconds[0]):.2f} s, "
        f"step {steps.min():.2f} to {steps.max():.2f} ms, median {np.median(steps):.2f}"
    )
