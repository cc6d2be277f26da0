"""A trained model as a policy: it looks, says what it reasons, and writes a chunk of actions.

The same prompt, pixels and normalisation as in training: all three are read from the checkpoint. The hidden states of
the words it has just said condition the actions, as those of the annotated words did in training.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dataengine.mix.pixels import scaled
from schemas.control import Chunk, Observation
from schemas.errors import TrainError, WireError, did_you_mean
from trainers.checkpoint import Trained, load_trained
from trainers.data import Embodiment
from trainers.models.vla import seed_of
from trainers.speaking import speak


class VlaPolicy:
    """Satisfies `schemas.control.Policy`. One at a time: `infer` is not made for two threads.

    Deterministic: the noise a chunk starts from is keyed by (seed, chunks since reset).
    """

    def __init__(self, trained: Trained, robot: Embodiment, *, name: str, max_reasoning_tokens: int, seed: int) -> None:
        self.name = name
        self.robot = robot
        self.max_reasoning_tokens = max_reasoning_tokens
        self.seed = seed
        self._trained = trained
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        trained.vla.to(self._device)
        self._count = 0

    @property
    def chunk_steps(self) -> int:
        """Actions per chunk."""
        return self.robot.chunk_steps

    @property
    def cameras(self) -> tuple[str, ...]:
        """Cameras an observation must bring."""
        return self.robot.cameras

    def reset(self) -> None:
        """Start a new trial: the same observations now give the same chunks again."""
        self._count = 0

    @torch.inference_mode()
    def infer(self, observation: Observation) -> Chunk:
        """Raises WireError when a camera is missing or the state has another size."""
        state = self._state(observation)
        images = self._images(observation)
        limit = self.max_reasoning_tokens if self.robot.reasons else 0
        spoken = speak(self._trained, self.robot.ask(observation.prompt), images, max_tokens=limit)
        h_BTD = spoken.hidden_BTD
        place_BT = torch.arange(h_BTD.shape[1], device=self._device)[None]
        expert = self._trained.vla.action_expert
        seen_BW, reasoned_BW = expert.condition(
            h_BTD.float(), place_BT < spoken.num_prompt, place_BT >= spoken.num_prompt, state
        )
        noise = torch.Generator().manual_seed(seed_of(self.seed, "chunk", self._count))
        self._count += 1
        robot, shape = self.robot, self._trained.shape
        width = len(robot.normalizer.action_low)
        real_BHA = torch.zeros((1, shape.steps, shape.action_width), dtype=torch.bool, device=self._device)
        real_BHA[:, : robot.chunk_steps, :width] = True
        actions = expert.sample(seen_BW, reasoned_BW, real_BHA, noise)[0].cpu().numpy()
        return Chunk(actions=robot.normalizer.raw_action(actions[: robot.chunk_steps, :width]), reasoning=spoken.words)

    def _state(self, observation: Observation) -> Tensor:
        """The state in model units, padded to the model's width, (1, S)."""
        want = len(self.robot.normalizer.state_mean)
        if len(observation.state) != want:
            raise WireError(f"robot '{self.robot.name}' has {want} state numbers, got {len(observation.state)}.")
        state = np.zeros((1, self._trained.shape.state_width), np.float32)
        state[0, :want] = self.robot.normalizer.state(observation.state)
        return torch.from_numpy(state).to(self._device)

    def _images(self, observation: Observation) -> list[NDArray[np.uint8]]:
        """The cameras of training, in its order and at its size."""
        missing = [name for name in self.cameras if name not in observation.images]
        if missing:
            raise WireError(
                f"camera {', '.join(missing)} is missing. This policy needs {', '.join(self.cameras)}, "
                f"got {', '.join(sorted(observation.images)) or 'none'}."
            )
        return [
            scaled(observation.images[name], size)
            for name, size in zip(self.cameras, self.robot.image_sizes, strict=True)
        ]


def load_policy(
    path: Path, *, embodiment: str | None = None, max_reasoning_tokens: int = 160, seed: int = 0
) -> VlaPolicy:
    """The policy of a finished checkpoint directory.

    `embodiment` is needed when it was trained on several robots. Raises ArtifactError for a damaged checkpoint and
    TrainError when the robot is unknown or the model never learned to act.
    """
    trained = load_trained(path)
    robots = {robot.name: robot for robot in trained.embodiments}
    if not robots:
        raise TrainError(f"checkpoint '{path.name}' was trained on no robot. Train on a mix with a robot source.")
    if embodiment is None:
        if len(robots) > 1:
            raise TrainError(f"checkpoint '{path.name}' knows {', '.join(robots)}. Say which one (embodiment=).")
        embodiment = next(iter(robots))
    if embodiment not in robots:
        raise TrainError(f"checkpoint '{path.name}' knows no robot '{embodiment}'. {did_you_mean(embodiment, robots)}")
    return VlaPolicy(trained, robots[embodiment], name=path.name, max_reasoning_tokens=max_reasoning_tokens, seed=seed)
