"""Two policies that need no training and say what a trained one is worth.

`RecordedPolicy` replays what a person did and must succeed: when it does not, the data path or the control path is
wrong. `RandomPolicy` moves without looking: what it reaches is luck.
"""

import zlib
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from schemas.control import Chunk, Observation, Policy
from schemas.errors import UsageError
from schemas.normalization import FloatArray, Normalizer


class Yardstick(Policy, Protocol):
    """A policy that is told which trial comes next."""

    def select(self, trial: str) -> None:
        """Name the trial; takes effect at the next `reset`."""
        ...


class RecordedPolicy:
    """Replays the recorded actions of one episode, `stride` steps further at each request.

    Every action goes through the normaliser and back, as a trained policy's would. Past the end of the recording
    the last action is held, which a robot does anyway.
    """

    name = "recorded"

    def __init__(
        self, recording: Callable[[str], NDArray[np.floating]], normalizer: Normalizer, *, chunk_steps: int, stride: int
    ) -> None:
        if not 0 < stride <= chunk_steps:
            raise UsageError(f"a robot cannot execute {stride} steps of a chunk of {chunk_steps}. Execute 1 to all.")
        self._recording = recording
        self._normalizer = normalizer
        self._chunk_steps = chunk_steps
        self._stride = stride
        self._next: str | None = None
        self._actions: FloatArray | None = None
        self._episode_id = ""
        self._start = 0

    def select(self, trial: str) -> None:
        """The episode_id to replay."""
        self._next = trial

    def reset(self) -> None:
        """Rewind to the first action of the selected episode."""
        if self._next is None:
            raise UsageError("no episode is selected. Call select(episode_id) before the robot resets.")
        self._episode_id = self._next
        self._actions = self._normalizer.action(self._recording(self._episode_id))
        self._start = 0

    def infer(self, observation: Observation) -> Chunk:
        """The next block of the recording; what the robot sees is not looked at."""
        if self._actions is None:
            self.reset()
        assert self._actions is not None
        steps = np.minimum(np.arange(self._start, self._start + self._chunk_steps), len(self._actions) - 1)
        reasoning = f"Replays {self._episode_id} from step {self._start} of {len(self._actions)}."
        self._start += self._stride
        return Chunk(actions=self._normalizer.raw_action(self._actions[steps]), reasoning=reasoning)


class RandomPolicy:
    """A walk from where the robot is: each joint keeps a random course and wanders off it.

    `max_step` (A,) bounds one step and should be well under the gate's, so that chunks reach the robot. A function of
    (seed, trial, number of the chunk) and the measured state alone.
    """

    name = "random"

    def __init__(
        self, *, lower: FloatArray, upper: FloatArray, max_step: FloatArray, chunk_steps: int, seed: int
    ) -> None:
        self._lower = lower
        self._upper = upper
        self._max_step = max_step
        self._chunk_steps = chunk_steps
        self._seed = seed
        self._next = self._trial = ""
        self._num_chunks = 0

    def select(self, trial: str) -> None:
        """Which random numbers the next trial gets."""
        self._next = trial

    def reset(self) -> None:
        """Start the selected trial's numbers."""
        self._trial = self._next
        self._num_chunks = 0

    def infer(self, observation: Observation) -> Chunk:
        """A smooth block of `chunk_steps` actions that starts at the measured state."""
        rng = np.random.default_rng([self._seed, zlib.crc32(self._trial.encode()), self._num_chunks])
        self._num_chunks += 1
        course = rng.uniform(-1, 1, len(self._lower))
        wander = rng.uniform(-1, 1, (self._chunk_steps, len(self._lower)))
        steps = self._max_step * (0.7 * course + 0.3 * wander)
        actions = np.clip(observation.state + np.cumsum(steps, axis=0), self._lower, self._upper)
        return Chunk(actions=actions.astype(np.float32), reasoning="")
