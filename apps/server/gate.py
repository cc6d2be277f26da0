"""The action gate: the last thing between a policy and a motor.

A chunk passes whole or not at all: clipping a bad chunk would hide that the policy is wrong and still move the arm.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.errors import UsageError
from schemas.normalization import FloatArray, Normalizer

# A closed gripper is exactly at its limit; through float32 normalisation and back it lands 1e-7 beside it.
_LIMIT_TOLERANCE = 1e-4
_LEAST_RANGE = 0.4  # raw units, meant for radians and gripper openings: a jump of 0.12 and a step of 0.06 then pass


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ActionGate:
    """What a robot may be told, in raw units per dimension; arrays (A,) float32.

    `max_start_jump` bounds first action - measured state (a lagging follower makes this larger than one step),
    `max_step` bounds the change from one action to the next. Both are planning limits, not what the motors survive.
    `names` say which action number is which, `state_names` the same of the measured state. Where the two share a name,
    an action is held against the measurement of its own name; otherwise against the one at its own place.
    `chunk_steps` None takes any length. After `max_rejects` rejected chunks in a row a trial is over.
    """

    lower: FloatArray
    upper: FloatArray
    max_start_jump: FloatArray
    max_step: FloatArray
    chunk_steps: int | None = None
    names: tuple[str, ...] = ()
    state_names: tuple[str, ...] = ()
    max_rejects: int = 5

    def __post_init__(self) -> None:
        shapes = {array.shape for array in (self.lower, self.upper, self.max_start_jump, self.max_step)}
        if len(shapes) != 1 or self.lower.ndim != 1:
            raise UsageError(f"the gate's limits have shapes {sorted(shapes)}. Give one number per action dimension.")
        if not (self.lower < self.upper).all() or not (self.max_start_jump > 0).all() or not (self.max_step > 0).all():
            raise UsageError("the gate's limits leave no room to move. Give lower < upper and positive steps.")
        if self.names and len(self.names) != self.action_dim:
            raise UsageError(f"the gate got {len(self.names)} names for {self.action_dim} dimensions.")
        if self.max_rejects < 1:
            raise UsageError(f"max_rejects is {self.max_rejects}. Give at least 1.")
        unmeasured = [name for name in self.names if name not in self.state_names] if self._by_name else []
        if unmeasured:
            raise UsageError(
                f"no state number is named '{unmeasured[0]}', so nobody could say how far that action jumps. "
                "Name it alike in the rig's observation.state and action."
            )
        if self.state_names:
            self.check_state(len(self.state_names))

    @property
    def action_dim(self) -> int:
        """How many numbers one action has."""
        return len(self.lower)

    @property
    def _by_name(self) -> bool:
        return not set(self.names).isdisjoint(self.state_names)

    def check_state(self, state_dim: int) -> None:
        """Raises UsageError when a state of `state_dim` numbers cannot be told apart from what actions command."""
        if state_dim != (len(self.state_names) if self._by_name else self.action_dim):
            raise UsageError(
                f"the robot measures {state_dim} numbers and takes actions of {self.action_dim}, and their names do "
                "not say which belong together, so a jump at the start of a chunk could not be seen. Name both alike "
                "in the rig, and keep the mix and the episodes of the checkpoint in this workspace."
            )

    @classmethod
    def around(
        cls,
        normalizer: Normalizer,
        *,
        chunk_steps: int | None,
        names: tuple[str, ...] = (),
        state_names: tuple[str, ...] = (),
        margin: float = 0.05,
        jump: float = 0.3,
        step: float = 0.15,
    ) -> "ActionGate":
        """A gate for a robot known only by its demonstrations: fractions of the range their actions had.

        A joint that nobody moved still sags and jitters, so each range counts as at least `_LEAST_RANGE`.
        """
        width = np.maximum(normalizer.action_high - normalizer.action_low, np.float32(_LEAST_RANGE))
        return cls(
            lower=normalizer.action_low - np.float32(margin) * width,
            upper=normalizer.action_high + np.float32(margin) * width,
            max_start_jump=np.float32(jump) * width,
            max_step=np.float32(step) * width,
            chunk_steps=chunk_steps,
            names=names,
            state_names=state_names,
        )

    def refusal(self, actions: NDArray[np.floating], state: NDArray[np.floating]) -> str | None:
        """Why a chunk (steps, A) must not reach a robot measured at `state` (S,); None when it may."""
        if actions.ndim != 2 or actions.shape[1] != self.action_dim or not len(actions):
            return f"the chunk has shape {actions.shape}, the robot takes (steps, {self.action_dim})"
        if self.chunk_steps is not None and len(actions) != self.chunk_steps:
            return f"the chunk has {len(actions)} steps, announced were {self.chunk_steps}"
        if not np.isfinite(actions).all():
            step, dim = np.argwhere(~np.isfinite(actions))[0]
            return f"{self._name(dim)} at step {step} is {actions[step, dim]}, which is no number"
        slack = _LIMIT_TOLERANCE * (self.upper - self.lower)
        for over, limit, words in (
            (self.lower - actions, self.lower, "below the limit"),
            (actions - self.upper, self.upper, "above the limit"),
        ):
            if (over > slack).any():
                step, dim = np.unravel_index(int((over - slack).argmax()), over.shape)
                return f"{self._name(dim)} at step {step} is {actions[step, dim]:.4f}, {words} {limit[dim]:.4f}"
        return self._start_refusal(actions[0], state) or self._step_refusal(actions)

    def _start_refusal(self, first: NDArray[np.floating], state: NDArray[np.floating]) -> str | None:
        want = len(self.state_names) if self._by_name else self.action_dim
        if state.shape != (want,):
            return f"the measured state has shape {state.shape}, not ({want},): the jump cannot be checked"
        if self._by_name:
            state = state[[self.state_names.index(name) for name in self.names]]
        share = np.abs(first - state) / self.max_start_jump
        dim = int(share.argmax())
        if share[dim] <= 1:
            return None
        return (
            f"{self._name(dim)} starts at {first[dim]:.4f} while the robot is at {state[dim]:.4f}, "
            f"a jump over {self.max_start_jump[dim]:.4f}"
        )

    def _step_refusal(self, actions: NDArray[np.floating]) -> str | None:
        if len(actions) < 2:
            return None
        share = np.abs(np.diff(actions, axis=0)) / self.max_step
        step, dim = np.unravel_index(int(share.argmax()), share.shape)
        if share[step, dim] <= 1:
            return None
        change = actions[step + 1, dim] - actions[step, dim]
        return f"{self._name(dim)} changes by {change:.4f} after step {step}, over {self.max_step[dim]:.4f} per step"

    def _name(self, dim: int | np.intp) -> str:
        return self.names[dim] if self.names else f"dimension {dim}"
