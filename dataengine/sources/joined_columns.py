"""Columns that a rig puts together: several arrays side by side, and values of later rows.

`key: "robot0_eef_pos + robot0_eef_rot_axis_angle"` puts arrays side by side. `shift_rows: 1` gives row t the value of
row t + 1; then the last row of the episode has none and the whole episode ends one row earlier.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from dataengine.sources.columns import check_column
from schemas.errors import EpisodeError
from schemas.rigs import Feature, Rig

_BESIDE = " + "


def keys_of(feature: Feature) -> tuple[str, ...]:
    """The raw arrays of a feature, left to right."""
    return tuple(key.strip() for key in feature.key.split(_BESIDE))


def num_rows_lost(rig: Rig) -> int:
    """Rows at the end of every episode for which some feature has no later value."""
    return max((feature.shift_rows for feature in rig.features.values()), default=0)


def joined_columns(episode: str, rig: Rig, arrays: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
    """Every feature of the rig as (rows, dims), checked; `arrays` are all rows by raw key.

    Raises EpisodeError for arrays of different length and for an episode shorter than the shift.
    """
    rows = {key: len(arrays[key]) for feature in rig.features.values() for key in keys_of(feature)}
    total = max(rows.values(), default=0)
    short = next((key for key, count in rows.items() if count != total), None)
    if short is not None:
        raise EpisodeError(
            f"{episode}: {short} has {rows[short]} rows where others have {total}. Record it again or drop the episode."
        )
    kept = total - num_rows_lost(rig)
    if kept < 1:
        raise EpisodeError(
            f"{episode}: {total} rows are too few where an action is taken {num_rows_lost(rig)} rows later. Drop it."
        )
    return {
        name: check_column(episode, name, feature, _beside(feature, arrays)[feature.shift_rows :][:kept])
        for name, feature in rig.features.items()
    }


def _beside(feature: Feature, arrays: Mapping[str, NDArray[np.generic]]) -> NDArray[np.generic]:
    parts = [arrays[key] for key in keys_of(feature)]
    if len(parts) == 1:
        return parts[0]
    return np.concatenate([part.reshape(len(part), int(np.prod(part.shape[1:]))) for part in parts], axis=1)
