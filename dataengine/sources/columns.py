"""Checks that every low-dimensional column passes, whatever format it came from, and the rig's declared transform."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import EpisodeError, RigError
from schemas.rigs import Feature


def num_dims(feature: Feature) -> int | None:
    """Dimensions the rig promises for a column; None where it does not say."""
    return len(feature.names) if feature.names else (len(feature.columns) if feature.columns else None)


def check_column(episode: str, name: str, feature: Feature, values: NDArray[Any]) -> NDArray[Any]:
    """One episode's column as (rows, dims): the rig's dimensions of it, numbers only, all finite.

    Where the rig states `scale` or `offset`: value * scale + offset, computed in float64, as float32. Else bit for bit.
    Raises EpisodeError that names the frame and the dimension.
    """
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim != 2 or len(values) == 0:
        raise EpisodeError(f"{episode}: {feature.key} has shape {values.shape}, not (rows, dims). Record it again.")
    if values.dtype.kind not in "fiub":
        raise EpisodeError(f"{episode}: {feature.key} holds {values.dtype}, not numbers. Check features: in the rig.")
    if not values.dtype.isnative:  # big-endian files: the same numbers, in the order that parquet takes
        values = values.astype(values.dtype.newbyteorder("="))
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
    if feature.scale is not None or feature.offset is not None:
        values = _transformed(name, feature, values)
        _check_finite(episode, name, feature, values)  # what float32 can not hold
    return np.ascontiguousarray(values)


def _transformed(name: str, feature: Feature, values: NDArray[Any]) -> NDArray[np.float32]:
    """value * scale + offset, one factor for all dimensions or one for each. Raises RigError for another number."""
    factors = [1.0 if feature.scale is None else feature.scale, 0.0 if feature.offset is None else feature.offset]
    for word, factor in zip(("scale", "offset"), factors, strict=True):
        if isinstance(factor, tuple) and len(factor) != values.shape[1]:
            raise RigError(
                f"'{name}': {word} has {len(factor)} values for {values.shape[1]} dimensions. "
                f"Write one number, or one for each dimension."
            )
    scale, offset = (np.asarray(factor, np.float64) for factor in factors)
    with np.errstate(over="ignore"):  # an overflow is named by frame and dimension
        return (values.astype(np.float64) * scale + offset).astype(np.float32)


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
