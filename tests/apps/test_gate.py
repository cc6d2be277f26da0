"""The action gate: what reaches a motor, and what is said about what does not."""

from dataclasses import replace

import numpy as np
import pytest

from apps.server.gate import ActionGate
from schemas.errors import UsageError
from schemas.normalization import Normalizer

HOME = np.zeros(3, dtype=np.float32)


def _three(value: float) -> np.ndarray:
    return np.full(3, value, dtype=np.float32)


@pytest.fixture
def gate() -> ActionGate:
    return ActionGate(
        lower=_three(-1),
        upper=_three(1),
        max_start_jump=_three(0.3),
        max_step=_three(0.1),
        chunk_steps=4,
        names=("waist", "elbow", "gripper"),
    )


def _ramp(step: float) -> np.ndarray:
    return np.arange(1, 5, dtype=np.float32)[:, None] * np.float32(step) * np.ones(3, dtype=np.float32)


def test_a_smooth_chunk_from_where_the_robot_is_passes(gate: ActionGate) -> None:
    assert gate.refusal(_ramp(0.05), HOME) is None


def test_a_command_exactly_at_a_limit_passes_after_float32_normalisation(gate: ActionGate) -> None:
    rows = np.linspace(-1, 1, 300, dtype=np.float32)[:, None] * np.ones(3, dtype=np.float32)
    normalizer = Normalizer.fit("arm", rows, rows)
    at_limit = normalizer.raw_action(normalizer.action(np.ones((4, 3), dtype=np.float32)))
    assert gate.refusal(at_limit, _three(1)) is None
    assert gate.refusal(at_limit + np.float32(1e-3), _three(1)) is not None


@pytest.mark.parametrize(
    ("chunk", "state", "words"),
    [
        (np.zeros((4, 2)), HOME, "shape (4, 2)"),
        (np.zeros((0, 3)), HOME, "shape (0, 3)"),
        (np.zeros((3, 3)), HOME, "3 steps, announced were 4"),
        (np.full((4, 3), np.nan), HOME, "waist at step 0 is nan"),
        (np.array([[0, 0, 0]] * 3 + [[0, np.inf, 0]]), HOME, "elbow at step 3 is inf"),
        (np.full((4, 3), [0, 0, 1.5]), _three(1), "gripper at step 0 is 1.5000, above the limit 1.0000"),
        (np.full((4, 3), [-1.2, 0, 0]), _three(-1), "waist at step 0 is -1.2000, below the limit -1.0000"),
        (np.full((4, 3), [0, 0.4, 0]), HOME, "elbow starts at 0.4000 while the robot is at 0.0000, a jump over 0.3000"),
        (_ramp(0.11), HOME, "changes by 0.1100 after step"),
        (np.zeros((4, 3)), np.zeros(5), "state has shape (5,)"),
    ],
)
def test_a_bad_chunk_is_refused_with_the_joint_the_value_and_the_limit(
    gate: ActionGate, chunk: np.ndarray, state: np.ndarray, words: str
) -> None:
    reason = gate.refusal(chunk.astype(np.float32), state)
    assert reason is not None
    assert words in reason


def test_a_gate_around_demonstrations_takes_them_and_refuses_what_nobody_did() -> None:
    walk = np.cumsum(np.random.default_rng(0).uniform(-0.01, 0.01, (400, 3)), axis=0).astype(np.float32)
    gate = ActionGate.around(Normalizer.fit("arm", walk, walk), chunk_steps=None)
    assert gate.refusal(walk, walk[0]) is None
    assert gate.refusal(walk + 10, walk[0] + 10) is not None


def test_a_gate_that_leaves_no_room_is_refused(gate: ActionGate) -> None:
    for change in ({"upper": _three(-2)}, {"max_step": _three(0)}, {"names": ("one",)}, {"lower": np.zeros(2)}):
        with pytest.raises(UsageError):
            replace(gate, **change)


def test_the_start_jump_is_measured_by_name_where_orders_differ(gate: ActionGate) -> None:
    named = replace(gate, state_names=("gripper", "force", "waist", "elbow"))
    named.check_state(4)
    state = np.array([0.5, 9.0, -0.4, 0.2], dtype=np.float32)
    still = np.repeat(np.array([[-0.4, 0.2, 0.5]], dtype=np.float32), 4, axis=0)
    assert named.refusal(still, state) is None
    reason = named.refusal(still + np.array([0, 0.31, 0], dtype=np.float32), state)
    assert reason == "elbow starts at 0.5100 while the robot is at 0.2000, a jump over 0.3000"
    assert "not (4,)" in str(named.refusal(still, state[:3]))


def test_a_gate_that_could_not_see_a_jump_is_refused_before_it_serves(gate: ActionGate) -> None:
    with pytest.raises(UsageError, match="measures 5 numbers and takes actions of 3"):
        gate.check_state(5)
    with pytest.raises(UsageError, match="measures 2 numbers and takes actions of 3"):
        replace(gate, state_names=("x", "y"))
    with pytest.raises(UsageError, match="no state number is named 'gripper'"):
        replace(gate, state_names=("waist", "elbow", "force"))
    replace(gate, state_names=("agent_x", "agent_y", "agent_z")).check_state(3)  # other names, one place each
