"""Checks of numbers: NaN, jumps, a joint that is stuck, an episode without motion, state and action out of step."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from dataengine.quality.facts import EpisodeFacts
from dataengine.quality.limits import QualityLimits
from dataengine.quality.motion_facts import ColumnFacts
from dataengine.quality.recordings import ACTION, STATE
from dataengine.quality.rows import QualityRow
from dataengine.quality.usual import FEW, Usual

_PLACES = ("observation.state", "observation.environment_state", "action")  # what can not be elsewhere at once
_FIT = 0.5  # correlation below which nothing is said about the lag of one episode
_OWN = 6.0  # with few episodes: a jump is this much more than three times what 95 % of the rows do
_IDLE = 0.2  # of what the others move counts as the range of a dimension that hardly moves
_HIGH = 0.9  # quantile over the other episodes that counts as usual


def finite_rows(facts: EpisodeFacts, usual: Usual, limits: QualityLimits) -> Iterator[QualityRow]:
    """No number is NaN or infinite."""
    for key, column in facts.columns.items():
        at = column.bad_at
        detail = (
            "" if at is None else f"{column.num_bad} values, the first at row {at[0]} in {_name(usual, key, at[1])}"
        )
        yield QualityRow(
            episode_id=facts.episode_id,
            check="not_finite",
            stream=key,
            verdict="fail" if at else "pass",
            value=float(column.num_bad),
            limit=0.0,
            unit="values",
            detail=detail,
            dim=at[1] if at else None,
            frame=at[0] if at else None,
        )


def jump_rows(facts: EpisodeFacts, usual: Usual, limits: QualityLimits) -> Iterator[QualityRow]:
    """No step changes from one row to the next by far more than in other episodes; no step is above a stated limit."""
    for key, column in facts.columns.items():
        if key not in usual.jumps or facts.num_frames < 3:
            yield _unknown(facts, "jump", key, "too short to tell")
            continue
        stated = _stated_step(facts, key, column, usual, limits)
        if stated is not None or not key.startswith(_PLACES):
            yield stated or _unknown(facts, "jump", key, "forces and velocities may jump; max_step gives them a limit")
            continue
        limit = np.maximum(limits.jump_ratio * _usual_jump(column, usual, key), _least_jump(usual, key, limits))
        over = np.divide(column.jump, limit, out=np.zeros_like(limit), where=limit > 0)
        over = np.where((limit <= 0) & (column.jump > 0), np.inf, over)
        dim = int(np.argmax(over))
        bad = bool(over[dim] > 1)
        yield QualityRow(
            episode_id=facts.episode_id,
            check="jump",
            stream=key,
            verdict="fail" if bad else "pass",
            value=float(column.jump[dim]),
            limit=float(limit[dim]),
            unit="change of step",
            detail=f"{_name(usual, key, dim)} at row {column.jump_at[dim]}" if bad else "",
            dim=dim,
            frame=int(column.jump_at[dim]),
        )


def _least_jump(usual: Usual, key: str, limits: QualityLimits) -> NDArray[np.float64]:
    """What is worth a word: a share of the range; of a dimension that hardly moves, of what the others move."""
    ranges = usual.ranges[key]
    others = ranges[usual.moving] if key == STATE and usual.moving.any() else ranges[ranges > 0]
    least = _IDLE * float(np.median(others)) if len(others) else 0.0
    return np.asarray(limits.jump_share * np.maximum(ranges, least))


def _usual_jump(column: ColumnFacts, usual: Usual, key: str) -> NDArray[np.float64]:
    """What other episodes do in their most sudden moment; a gripper may go from end to end."""
    jumps = usual.jumps[key]
    if usual.num_episodes < FEW:
        found = _OWN * column.usual_jump
    else:
        # of N sorted values without this episode's own; the largest of few others would hide a second bad episode
        place = int(_HIGH * (usual.num_episodes - 2))
        own = np.asarray([np.searchsorted(jumps[:, dim], column.jump[dim]) for dim in range(jumps.shape[1])])
        found = np.where(own <= place, jumps[place + 1], jumps[place])
    gripper = usual.grippers[key]
    return np.where(gripper, np.maximum(found, usual.ranges[key]), found)


def _stated_step(
    facts: EpisodeFacts, key: str, column: ColumnFacts, usual: Usual, limits: QualityLimits
) -> QualityRow | None:
    for dim, name in enumerate(usual.names[key]):
        limit = limits.max_step.get(f"{key}.{name}", limits.max_step.get(key))
        if limit is not None and column.step[dim] > limit:
            return QualityRow(
                episode_id=facts.episode_id,
                check="jump",
                stream=key,
                verdict="fail",
                value=float(column.step[dim]),
                limit=limit,
                unit="step",
                detail=f"{name} at row {column.step_at[dim]}",
                dim=dim,
                frame=int(column.step_at[dim]),
            )
    return None


def stuck_rows(facts: EpisodeFacts, usual: Usual, limits: QualityLimits) -> Iterator[QualityRow]:
    """No joint stands still while its command moves."""
    if facts.stuck is None or usual.lag_mode != "absolute" or len(usual.follows) != len(facts.pairs):
        yield _unknown(facts, "stuck_joint", STATE, "which number of the action commands which joint is not known")
        return
    actions = np.asarray([pair[0] for pair in facts.pairs])
    ranges = usual.episode_ranges[ACTION][actions]
    share = np.divide(facts.stuck.command, ranges, out=np.zeros_like(ranges), where=ranges > 0)
    # a gripper that holds something stands still, however far it is told to close
    judged = usual.follows & ~usual.grippers[STATE][[pair[1] for pair in facts.pairs]]
    share = np.where(judged, share, 0.0)
    if not judged.any():
        yield _unknown(facts, "stuck_joint", STATE, "no state follows its action in this dataset")
        return
    at = int(np.argmax(share))
    bad = bool(share[at] > limits.stuck_command)
    dim = facts.pairs[at][1]
    yield QualityRow(
        episode_id=facts.episode_id,
        check="stuck_joint",
        stream=STATE,
        verdict="fail" if bad else "pass",
        value=float(share[at]),
        limit=limits.stuck_command,
        unit="of the usual range, commanded while still",
        detail=f"{_name(usual, STATE, dim)} from row {facts.stuck.frame[at]}" if bad else "",
        dim=dim,
        frame=int(facts.stuck.frame[at]),
        num_frames=facts.stuck.num_frames,
    )


def static_rows(facts: EpisodeFacts, usual: Usual, limits: QualityLimits) -> Iterator[QualityRow]:
    """Something moves."""
    key = STATE if STATE in facts.columns and STATE in usual.episode_ranges else None
    if key is None or usual.num_episodes < FEW or not usual.moving.any():
        yield _unknown(facts, "static_episode", STATE, "what motion is usual is not known")
        return
    ranges = usual.episode_ranges[key]
    moves = usual.moving & (ranges > 0)
    share = np.divide(facts.columns[key].range, ranges, out=np.zeros_like(ranges), where=moves)
    dim = int(np.argmax(share))
    bad = bool(share[dim] < limits.static_share)
    yield QualityRow(
        episode_id=facts.episode_id,
        check="static_episode",
        stream=key,
        verdict="fail" if bad else "pass",
        value=float(share[dim]),
        limit=limits.static_share,
        unit="of the usual range",
        detail=f"{_name(usual, key, dim)} moves most, by {share[dim]:.1%} of its usual range" if bad else "",
        dim=dim,
        frame=0 if bad else None,
        num_frames=facts.num_frames,
    )


def lag_rows(facts: EpisodeFacts, usual: Usual, limits: QualityLimits) -> Iterator[QualityRow]:
    """The state follows the action soon, and as soon as in the other episodes."""
    mode = usual.lag_mode
    if mode is None or facts.lag is None or facts.lag.fit.get(mode, 0.0) < _FIT:
        yield _unknown(facts, "action_lag", ACTION, "the state does not follow the action closely enough to tell")
        return
    lag, tolerance = facts.lag.lag[mode], max(1, round(limits.lag_difference_s * facts.rate_hz))
    most = max(1, round(limits.lag_s * facts.rate_hz))
    away = usual.num_episodes >= FEW and abs(lag - usual.lag) > tolerance
    bad = away or lag > most or lag < -tolerance
    detail = f"the state comes {lag} rows after the {mode} action"
    yield QualityRow(
        episode_id=facts.episode_id,
        check="action_lag",
        stream=ACTION,
        verdict="fail" if bad else "pass",
        value=lag / facts.rate_hz,
        limit=(usual.lag + tolerance) / facts.rate_hz if usual.num_episodes >= FEW else most / facts.rate_hz,
        unit="s",
        detail=f"{detail}; usual are {usual.lag:g}" if away else detail,
        frame=None,
    )


def _name(usual: Usual, key: str, dim: int) -> str:
    names = usual.names.get(key, ())
    return names[dim] if dim < len(names) else f"dimension {dim}"


def _unknown(facts: EpisodeFacts, check: str, stream: str, why: str) -> QualityRow:
    match check:
        case "jump" | "stuck_joint" | "static_episode" | "action_lag":
            return QualityRow(episode_id=facts.episode_id, check=check, stream=stream, verdict="unknown", detail=why)
        case _:
            raise AssertionError(check)
