"""Sketches of episodes, small enough to compare each with each: the rows they hold, and the way they take."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

STATE, ACTION = "observation.state", "action"
NUM_POINTS = 32  # of a trajectory's outline
_NUM_HASHES = 128  # smallest row hashes kept: the share of common rows is right to about 0.05
_SEED = 20_240


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sketch:
    """`rows` are the smallest hashes of rows that differ from the row before; `outline` is (points, dims)."""

    digest: str
    rows: NDArray[np.uint64]
    outline: NDArray[np.float64]


def sketch(columns: Mapping[str, NDArray[Any]]) -> Sketch:
    """Sketch one episode; the outline is that of the state, else of the action, else of the first column."""
    digest = hashlib.sha256()
    for key in sorted(columns):
        digest.update(key.encode() + np.ascontiguousarray(columns[key]).tobytes())
    outlined = next((key for key in (STATE, ACTION) if key in columns), next(iter(columns)))
    way = columns[outlined].astype(np.float64)
    way = np.where(np.isfinite(way), way, 0.0)
    places = np.linspace(0, len(way) - 1, NUM_POINTS)
    at = np.arange(len(way))
    outline = np.stack([np.interp(places, at, way[:, dim]) for dim in range(way.shape[1])], axis=1)
    # velocities and forces follow from these, and may have been computed anew
    main = {key: columns[key] for key in (STATE, ACTION) if key in columns} or columns
    return Sketch(digest=digest.hexdigest(), rows=_row_hashes(main), outline=outline)


def _row_hashes(columns: Mapping[str, NDArray[Any]]) -> NDArray[np.uint64]:
    """Hashes of the rows in which something moved: standing at rest looks the same in many episodes."""
    words = [
        np.ascontiguousarray(columns[key]).view(np.uint8).reshape(len(columns[key]), -1) for key in sorted(columns)
    ]
    rows = np.concatenate(words, axis=1)
    if rows.shape[1] % 8:
        rows = np.pad(rows, ((0, 0), (0, 8 - rows.shape[1] % 8)))
    wide = np.ascontiguousarray(rows).view(np.uint64)
    moving = np.ones(len(wide), dtype=bool)
    moving[1:] = (wide[1:] != wide[:-1]).any(axis=1)
    factors = np.random.default_rng(_SEED).integers(1, 2**63, wide.shape[1], dtype=np.uint64) * 2 + 1
    with np.errstate(over="ignore"):
        mixed = wide[moving] ^ (wide[moving] >> np.uint64(29))
        hashes: NDArray[np.uint64] = (mixed * factors).sum(axis=1, dtype=np.uint64)
        hashes ^= hashes >> np.uint64(32)
        hashes *= np.uint64(0x9E3779B97F4A7C15)
    return np.asarray(np.unique(hashes)[:_NUM_HASHES], dtype=np.uint64)


def common_share(one: Sketch, other: Sketch) -> float:
    """About which share of all rows of both is in both (Jaccard index, from the smallest hashes)."""
    both = np.union1d(one.rows, other.rows)[: max(len(one.rows), len(other.rows))]
    if not len(both):
        return 0.0
    return float(np.mean(np.isin(both, one.rows) & np.isin(both, other.rows)))
