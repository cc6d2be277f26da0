"""What the numbers of one episode say: steps, ranges, how state follows action, whether a joint stands still."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_WRAP = 2 * np.pi
_SMOOTH = 3  # rows averaged before steps are correlated: encoders count in whole ticks
_AFTER_S = 0.5  # a state may follow its command this much later
_STILL = 0.05  # a joint that stands still moves by less than this share of what its command does
_MIN_ROWS = 20  # of an episode whose lag can be told

type Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ColumnFacts:
    """One low-dimensional column; arrays have one number per dimension."""

    num_bad: int  # values that are NaN or infinite
    bad_at: tuple[int, int] | None  # row, dimension of the first one
    low: Floats
    high: Floats
    jump: Floats  # largest change of step from one row to the next
    jump_at: NDArray[np.int64]  # the row where
    usual_jump: Floats  # 95 % of the changes of step are smaller: one jump makes three of them large
    step: Floats  # largest step of one row
    step_at: NDArray[np.int64]
    smoothness: Floats  # range over typical step: about 5 for noise, far more for motion

    @property
    def range(self) -> Floats:
        """High minus low."""
        return self.high - self.low


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LagFacts:
    """How the state follows the action, over pairs of dimensions (the action's are `pairs`' first)."""

    pairs: tuple[tuple[int, int], ...]
    lag: dict[str, int]  # "absolute" | "delta" action -> rows the state comes later, where it fits best
    fit: dict[str, float]  # correlation there
    pair_fit: dict[str, Floats]  # of each pair, at that lag


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StuckFacts:
    """Per pair of dimensions: the window in which the command moved most while the joint stood still."""

    command: Floats  # how far the command moved in it; 0 = never
    frame: NDArray[np.int64]
    num_frames: int


def column_facts(values: NDArray[Any]) -> ColumnFacts:
    """Facts of (rows, dims)."""
    rows: Floats = values.reshape(len(values), -1).astype(np.float64)
    finite = np.isfinite(rows)
    bad = np.argwhere(~finite)
    if len(bad):  # what follows looks at the rest
        rows = np.where(finite, rows, 0.0)
    steps = _unwrapped_steps(rows)
    changes = np.abs(np.diff(steps, axis=0)) if len(steps) > 1 else np.zeros((1, rows.shape[1]))
    steps = np.abs(steps) if len(steps) else np.zeros((1, rows.shape[1]))
    spread = rows.max(axis=0) - rows.min(axis=0)
    typical = np.sqrt(np.mean(steps**2, axis=0))
    return ColumnFacts(
        num_bad=len(bad),
        bad_at=(int(bad[0][0]), int(bad[0][1])) if len(bad) else None,
        low=rows.min(axis=0),
        high=rows.max(axis=0),
        jump=changes.max(axis=0),
        jump_at=changes.argmax(axis=0) + 1,
        usual_jump=np.percentile(changes, 95, axis=0),
        step=steps.max(axis=0),
        step_at=steps.argmax(axis=0) + 1,
        smoothness=np.divide(spread, typical, out=np.zeros_like(spread), where=typical > 0),
    )


def _unwrapped_steps(rows: Floats) -> Floats:
    """Row to row differences; an angle that leaves at +pi and comes back at -pi has not jumped."""
    steps: Floats = np.diff(rows, axis=0)
    angles = (np.abs(rows) <= _WRAP + 0.1).all(axis=0)
    wraps = angles & (np.abs(steps) > 0.9 * _WRAP) & (np.abs(steps) < 1.1 * _WRAP)
    return np.where(wraps, steps - np.sign(steps) * _WRAP, steps)


def paired_dims(
    action_names: tuple[str, ...], state_names: tuple[str, ...], num_actions: int, num_states: int
) -> tuple[tuple[int, int], ...]:
    """Which state each action commands: the one of the same name, else of the same place where both are as many."""
    if len(action_names) == num_actions and len(state_names) == num_states:
        pairs = tuple((at, state_names.index(name)) for at, name in enumerate(action_names) if name in state_names)
        if pairs:
            return pairs
    return tuple((at, at) for at in range(num_actions)) if num_actions == num_states else ()


def lag_facts(
    state: NDArray[Any], action: NDArray[Any], pairs: tuple[tuple[int, int], ...], *, most: int
) -> LagFacts | None:
    """Cross-correlation of state steps with action steps ("absolute") and with actions ("delta").

    None where there is nothing to correlate: too few rows, or nothing moves. `most` is the largest lag tried, in rows.
    """
    if not pairs or len(state) < _MIN_ROWS + most:
        return None
    states = _smooth(state.astype(np.float64)[:, [pair[1] for pair in pairs]])
    actions = action.astype(np.float64)[:, [pair[0] for pair in pairs]]
    if not (np.isfinite(states).all() and np.isfinite(actions).all()):
        return None
    moved = np.diff(states, axis=0)
    lags, fits, pair_fits = {}, {}, {}
    for mode, told in (("absolute", np.diff(_smooth(actions), axis=0)), ("delta", _smooth(actions)[1:])):
        curves = np.stack([_correlations(told, moved, lag) for lag in range(-most, most + 1)])
        known = np.isfinite(curves).all(axis=0)
        if not known.any():
            continue
        weight = _energy(told)[known]
        mean = curves[:, known] @ (weight / weight.sum())
        best = int(np.argmax(mean))
        lags[mode], fits[mode], pair_fits[mode] = best - most, float(mean[best]), curves[best]
    return LagFacts(pairs=pairs, lag=lags, fit=fits, pair_fit=pair_fits) if lags else None


def _smooth(values: Floats) -> Floats:
    """Mean over three rows; the first and last row stay as they are."""
    out = values.copy()
    out[1:-1] = (values[:-2] + values[1:-1] + values[2:]) / _SMOOTH
    return out


def _energy(told: Floats) -> Floats:
    """How much each dimension says: one for what moves, little for what is noise; ranges do not matter."""
    change = np.abs(np.diff(told, axis=0)).mean(axis=0)
    size = np.abs(told - told.mean(axis=0)).mean(axis=0)
    return np.asarray(np.divide(size, change, out=np.zeros_like(size), where=change > 0) + 1e-6)


def _correlations(told: Floats, moved: Floats, lag: int) -> Floats:
    """Correlation of each pair where `moved` comes `lag` rows later; NaN where one does not move."""
    num = len(told) - abs(lag)
    one = told[max(0, -lag) :][:num]
    two = moved[max(0, lag) :][:num]
    one, two = one - one.mean(axis=0), two - two.mean(axis=0)
    scale = np.sqrt((one**2).sum(axis=0) * (two**2).sum(axis=0))
    return np.asarray(np.divide((one * two).sum(axis=0), scale, out=np.full_like(scale, np.nan), where=scale > 1e-12))


def stuck_facts(
    state: NDArray[Any], action: NDArray[Any], pairs: tuple[tuple[int, int], ...], *, rate_hz: int, stuck_s: float
) -> StuckFacts | None:
    """The window of `stuck_s` in which a command moved most while its joint stood still, for each pair."""
    window, after = max(2, round(stuck_s * rate_hz)), max(1, round(_AFTER_S * rate_hz))
    if not pairs or len(state) < window + after:
        return None
    command = np.zeros(len(pairs))
    frame = np.zeros(len(pairs), dtype=np.int64)
    for number, (at_action, at_state) in enumerate(pairs):
        told = _ranges(action[:, at_action].astype(np.float64), window)
        done = _ranges(state[:, at_state].astype(np.float64), window + after)
        told = told[: len(done)]
        still = done <= _STILL * told
        if still.any():
            best = int(np.argmax(np.where(still, told, -1.0)))
            command[number], frame[number] = told[best], best
    return StuckFacts(command=command, frame=frame, num_frames=window + after)


def _ranges(values: Floats, window: int) -> Floats:
    """Range within each window of rows."""
    views = np.lib.stride_tricks.sliding_window_view(values, window)
    return np.asarray(views.max(axis=1) - views.min(axis=1))
