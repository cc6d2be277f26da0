"""Checks that every low-dimensional column passes, whatever format it came from."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import EpisodeError
from schemas.rigs import Feature


def num_dims(feature: Feature) -> int | None:
    """Dimensions the rig promises for a column; None where it does not say."""
    return len(feature.names) if feature.names else (len(feature.columns) if feature.columns else None)


def check_column(episode: str, name: str, feature: Feature, values: NDArray[Any]) -> NDArray[Any]:
    """One episode's column as (rows, dims): the rig's dimensions of it, numbers only, all finite.

    Raises EpisodeError that names the frame and the dimension.
    """
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim != 2 or len(values) == 0:
        raise EpisodeError(f"{episode}: {feature.key} has shape {values.shape}, not (rows, dims). Record it again.")
    if values.dtype.kind not in "fiub":
        raise EpisodeError(f"{episode}: {feature.key} holds {values.dtype}, not numbers. Check features: in the rig.")
    if feature.columns is not None:
        if max(feature.columns) >= values.shape[1]:
            raise EpisodeError(
                f"{episode}: {feature.key} has {values.shape[1]} dimensions, "
                f"the rig takes number {max(feature.columns)}. Record it again or correct columns: in the rig."
            )
        values = values[:, list(feature.columns)]
    expected = num_dims(feature)
    if expected is not None and values.shape[1] != expected:
        raise EpisodeError(
            f"{episode}: {feature.key} has {values.shape[1]} dimensions, the rig names {expected}. "
            f"Drop the episode or correct names: in the rig."
        )
    if values.dtype.kind == "f":
        _check_finite(episode, name, feature, values)
    return np.ascontiguousarray(values)


def _check_finite(episode: str, name: str, feature: Feature, values: NDArray[Any]) -> None:
    bad = np.argwhere(~np.isfinite(values.astype(np.float64, copy=False)))
    if not len(bad):
        return
    frame, index = (int(number) for number in bad[0])
    what = "NaN" if np.isnan(values[frame, index]) else "an infinite value"
    label = f"'{feature.names[index]}' (index {index})" if feature.names else f"index {index}"
    raise EpisodeError(
        f"{episode}: {name} has {what} at frame {frame}, dimension {label}; {len(bad)} bad values in all. "
        f"Repair or drop the episode."
    )
