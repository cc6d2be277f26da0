"""What is usual in a dataset: the yardstick that one episode is held against."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dataengine.quality.facts import EpisodeFacts
from dataengine.quality.recordings import ACTION, STATE
from schemas.rigs import Rig

FEW = 4  # episodes; with fewer there is no "usual"
_MOTION = 6.0  # range over typical step: white noise stays below 5, the slowest recorded reach has 8
_FIT = 0.7  # correlation from which a state is said to follow its action closely
_LOOSE_FIT = 0.5  # and from which it is moved by it at all: an idle arm of a bimanual robot only trembles
_USED = 0.2  # of the usual range, from which a dimension counts as used in an episode
_RARE = 0.05  # a dimension that covers less than this in nine of ten episodes is one that is rarely used
_ROBUST = 1.4826  # median absolute deviation of a normal distribution to its standard deviation

type Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Usual:
    """Medians and quantiles over all episodes; arrays have one number per dimension of the feature."""

    num_episodes: int
    names: dict[str, tuple[str, ...]]  # feature -> names of its dimensions
    ranges: dict[str, Floats]  # what a dimension covers in the dataset, without its wildest episodes
    episode_ranges: dict[str, Floats]  # what it covers in an episode in which it moves, median
    jumps: dict[str, Floats]  # (episodes, dims), sorted: largest change of step of each episode
    moving: NDArray[np.bool_]  # dimensions of the state that move as they are told to, and do not only shake
    grippers: dict[str, NDArray[np.bool_]]  # dimensions that may jump from end to end
    length: float  # rows, median
    length_spread: float  # robust standard deviation of the logarithm of the length
    white: dict[str, float]  # camera -> share of white pixels, median
    lag_mode: str | None  # "absolute" | "delta": what actions are; None where state does not follow them
    lag: float  # rows the state comes later, median
    follows: NDArray[np.bool_]  # pairs of dimensions in which the state follows the action


def usual(facts: Sequence[EpisodeFacts], rig: Rig) -> Usual:
    """Measure the dataset."""
    features = [key for key in facts[0].columns if all(key in row.columns for row in facts)]
    ranges, episode_ranges, jumps, names, grippers = {}, {}, {}, {}, {}
    for key in features:
        columns = [row.columns[key] for row in facts]
        low, high = np.stack([row.low for row in columns]), np.stack([row.high for row in columns])
        inner = np.quantile(high, 0.9, axis=0) - np.quantile(low, 0.1, axis=0)
        ranges[key] = np.where(inner > 0, inner, high.max(axis=0) - low.min(axis=0))
        episode_ranges[key] = _when_it_moves(high - low)
        jumps[key] = np.sort(np.stack([row.jump for row in columns]), axis=0)
        names[key] = _names(rig, key, low.shape[1])
        grippers[key] = _grippers(rig, key, low.shape[1])
    lengths = np.log([max(row.num_frames, 1) for row in facts])
    mode, lag, fit = _lag(facts)
    return Usual(
        num_episodes=len(facts),
        names=names,
        ranges=ranges,
        episode_ranges=episode_ranges,
        jumps=jumps,
        moving=_moving(facts, fit) if STATE in features else np.zeros(0, dtype=np.bool_),
        grippers=grippers,
        length=float(np.exp(np.median(lengths))),
        length_spread=float(_ROBUST * np.median(np.abs(lengths - np.median(lengths)))),
        white=_white(facts),
        lag_mode=mode,
        lag=lag,
        follows=fit >= _FIT,
    )


def _when_it_moves(ranges: Floats) -> Floats:
    """Median over the episodes that use a dimension: of two arms one may rest in most episodes."""
    high, most = np.quantile(ranges, 0.9, axis=0), ranges.max(axis=0)
    high = np.where(high >= _RARE * most, high, most)
    found = np.zeros(ranges.shape[1])
    for dim in np.flatnonzero(high > 0):
        column = ranges[:, dim]
        found[dim] = np.median(column[column >= _USED * high[dim]])
    return found


def _moving(facts: Sequence[EpisodeFacts], fit: Floats) -> NDArray[np.bool_]:
    ranges = np.stack([row.columns[STATE].range for row in facts])
    smoothness = np.stack([row.columns[STATE].smoothness for row in facts])
    used = (ranges > 0) & (ranges >= _USED * _when_it_moves(ranges))
    smooth = np.asarray(
        [bool(at.any()) and np.median(of[at]) >= _MOTION for of, at in zip(smoothness.T, used.T, strict=True)]
    )
    told = np.zeros(len(smooth), dtype=np.bool_)
    if len(fit) == len(facts[0].pairs):
        told[[pair[1] for pair, value in zip(facts[0].pairs, fit, strict=True) if value >= _LOOSE_FIT]] = True
    return smooth & told if (smooth & told).any() else smooth


def _names(rig: Rig, key: str, num_dims: int) -> tuple[str, ...]:
    names = rig.features[key].names if key in rig.features else ()
    return names if len(names) == num_dims else tuple(str(dim) for dim in range(num_dims))


def _grippers(rig: Rig, key: str, num_dims: int) -> NDArray[np.bool_]:
    """Dimensions of end effectors; the action has them where the state of as many dimensions has."""
    found = np.zeros(num_dims, dtype=np.bool_)
    state = rig.features.get(STATE)
    for end in rig.end_effectors:
        same = key == ACTION and end.feature == STATE and state is not None and len(state.names) == num_dims
        if end.feature == key or same:
            found[[index for index in end.indices if index < num_dims]] = True
    return found


def _white(facts: Sequence[EpisodeFacts]) -> dict[str, float]:
    keys = dict.fromkeys(key for row in facts for key in row.cameras)
    shares = {
        key: [
            float(np.median(row.cameras[key].white))
            for row in facts
            if key in row.cameras and len(row.cameras[key].white)
        ]
        for key in keys
    }
    return {key: float(np.median(values)) for key, values in shares.items() if values}


def _lag(facts: Sequence[EpisodeFacts]) -> tuple[str | None, float, Floats]:
    """The kind of action that fits best over all episodes, its usual lag, and how well each pair fits."""
    known = [row.lag for row in facts if row.lag is not None]
    best: tuple[float, str] | None = None
    for mode in ("absolute", "delta"):
        fits = [row.fit[mode] for row in known if mode in row.fit]
        if fits and (best is None or np.median(fits) > best[0]):
            best = (float(np.median(fits)), mode)
    if best is None or best[0] < _FIT / 2:
        return None, 0.0, np.zeros(0)
    mode = best[1]
    rows = [row for row in known if mode in row.lag]
    pair_fits = np.stack([row.pair_fit[mode] for row in rows])
    told = np.isfinite(pair_fits).any(axis=0)  # in some episode at least; an arm may rest in the others
    fit = np.zeros(pair_fits.shape[1])
    fit[told] = np.nanmedian(pair_fits[:, told], axis=0)
    return mode, float(np.median([row.lag[mode] for row in rows])), fit
