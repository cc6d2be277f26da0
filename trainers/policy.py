"""A trained model as a policy: it looks, says what it reasons, and writes a chunk of actions.

The same prompt, pixels and normalisation as in training: all three are read from the checkpoint. The hidden states of
the words it has just said condition the actions, as those of the annotated words did in training.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache

from dataengine.mix.pixels import scaled
from schemas.chat import render_chat
from schemas.control import Chunk, Observation
from schemas.errors import TrainError, WireError, did_you_mean
from trainers.checkpoint import Trained, load_trained
from trainers.data import Collator, Embodiment
from trainers.models.vla import seed_of
from trainers.tokenizer import END_OF_TURN

log = logging.getLogger(__name__)


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
        self._collate = Collator(config=trained.config, tokenizer=trained.tokenizer, shape=trained.shape)
        self._end = trained.tokenizer.id_of(END_OF_TURN)
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
        words, h_BTD, num_prompt = self._reason(observation.prompt, images)
        place_BT = torch.arange(h_BTD.shape[1], device=self._device)[None]
        expert = self._trained.vla.action_expert
        seen_BW, reasoned_BW = expert.condition(h_BTD.float(), place_BT < num_prompt, place_BT >= num_prompt, state)
        noise = torch.Generator().manual_seed(seed_of(self.seed, "chunk", self._count))
        self._count += 1
        actions = expert.sample(seen_BW, reasoned_BW, noise)[0].cpu().numpy()
        robot = self.robot
        width = len(robot.normalizer.action_low)
        return Chunk(actions=robot.normalizer.raw_action(actions[: robot.chunk_steps, :width]), reasoning=words)

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

    def _reason(self, instruction: str, images: Sequence[NDArray[np.uint8]]) -> tuple[str, Tensor, int]:
        """Greedy words, the hidden states of prompt and answer (1, T, D), and how many of them are the prompt's.

        The answer's end-of-turn token counts as answer, as it does in training.
        """
        vla, config = self._trained.vla, self._trained.config
        counts = [config.image_tokens(image.shape[1], image.shape[0]) for image in images]
        chat = render_chat(self.robot.ask(instruction), self._trained.tokenizer, counts, open_turn=True)
        ids_BT = torch.tensor([chat.ids], device=self._device)
        patches, grids = (part.to(self._device) for part in self._collate.patches(images))
        positions = vla.positions(ids_BT, grids)
        next_position = int(positions.max()) + 1
        cache = DynamicCache(config=vla.vlm.config.text_config)
        language = vla.vlm.model.language_model
        h_BTD = language(
            inputs_embeds=vla.embed(ids_BT, patches, grids),
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        hidden: list[Tensor] = [h_BTD]
        said: list[int] = []
        while len(said) < self.max_reasoning_tokens and (not said or said[-1] != self._end):
            said.append(int(vla.vlm.lm_head(hidden[-1][:, -1]).argmax()))
            place = torch.full((3, 1, 1), next_position + len(said) - 1, device=self._device)
            embedded = vla.vlm.get_input_embeddings()(torch.tensor([[said[-1]]], device=self._device))
            hidden.append(
                language(
                    inputs_embeds=embedded, position_ids=place, past_key_values=cache, use_cache=True
                ).last_hidden_state
            )
        return self._trained.tokenizer.words(said), torch.cat(hidden, dim=1), len(chat.ids)


def load_policy(
    path: Path, *, embodiment: str | None = None, max_reasoning_tokens: int = 96, seed: int = 0
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
