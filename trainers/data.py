"""Draws from a mix to model inputs: which samples make a batch, and how they are padded.

Padding is masked, never learned: tokens on the right, state and action numbers up to the largest embodiment, steps past
the end of an episode.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from schemas.chat import IGNORE, Image, Message, Text, render_chat
from schemas.errors import MixError, TrainError
from schemas.mixes import Draw, MixLock, Sample
from schemas.normalization import Normalizer
from trainers.models.action_expert import ActionShape
from trainers.models.vla import Batch
from trainers.pixels import patchify
from trainers.recipes import TrainConfig
from trainers.tokenizer import END_OF_TEXT, LocalTokenizer


class SampleSource(Protocol):
    """What training needs from a mix: the sample at each position, the same whenever it is asked."""

    @property
    def lock(self) -> MixLock: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def num_samples(self) -> int: ...
    def draw(self, position: int) -> Draw: ...
    def sample(self, position: int) -> Sample: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class InMemoryMix:
    """A mix held in memory: sample i of the list is the draw at position i, again in every pass."""

    lock: MixLock
    samples: tuple[Sample, ...]
    fingerprint: str

    @property
    def num_samples(self) -> int:
        """Draws per pass."""
        return len(self.samples)

    def draw(self, position: int) -> Draw:
        """The address of the sample at a position."""
        return self.samples[position % len(self.samples)].draw

    def sample(self, position: int) -> Sample:
        """The sample at a position."""
        return self.samples[position % len(self.samples)]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Embodiment:
    """What serving must know about one robot the model was trained on; saved with the checkpoint."""

    name: str
    normalizer: Normalizer
    chunk_steps: int
    image_sizes: tuple[tuple[int, int], ...]  # width, height of each camera's image, in the order of the chat
    prompt: tuple[Message, ...]  # the chat before the answer; the instruction is the last user turn's only text
    reasons: bool  # False: trained without reasoning, so it acts without a word

    @property
    def cameras(self) -> tuple[str, ...]:
        """Camera names in the order the model was shown them."""
        return tuple(part.name for turn in self.prompt for part in turn.parts if isinstance(part, Image))

    def ask(self, instruction: str) -> tuple[Message, ...]:
        """The chat of training with another instruction."""
        *before, last = self.prompt
        parts = tuple(Text(instruction) if isinstance(part, Text) else part for part in last.parts)
        return (*before, Message(role=last.role, parts=parts))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        turns = [
            {
                "role": turn.role,
                "parts": [{"image": p.name} if isinstance(p, Image) else {"text": p.text} for p in turn.parts],
            }
            for turn in self.prompt
        ]
        return {
            "name": self.name,
            "normalizer": self.normalizer.to_json(),
            "chunk_steps": self.chunk_steps,
            "image_sizes": [list(size) for size in self.image_sizes],
            "prompt": turns,
            "reasons": self.reasons,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Embodiment":
        """The inverse of `to_json`."""
        prompt = tuple(
            Message(
                role=turn["role"],
                parts=tuple(Image(p["image"]) if "image" in p else Text(p["text"]) for p in turn["parts"]),
            )
            for turn in value["prompt"]
        )
        return cls(
            name=value["name"],
            normalizer=Normalizer.from_json(value["normalizer"]),
            chunk_steps=value["chunk_steps"],
            image_sizes=tuple((w, h) for w, h in value["image_sizes"]),
            prompt=prompt,
            reasons=value["reasons"],
        )


def robot_sources(lock: MixLock) -> frozenset[str]:
    """Names of the sources whose samples carry actions."""
    return frozenset(source.name for source in lock.spec.sources if source.kind == "robot")


def survey(source: SampleSource) -> tuple[ActionShape, tuple[Embodiment, ...]]:
    """The largest shapes over all robot sources, and what serving must know about each robot.

    Looks at one sample per robot source. Raises TrainError when two sources show one robot differently.
    """
    wanted = set(robot_sources(source.lock))
    found: dict[str, Embodiment] = {}
    for position in range(source.num_samples):
        if not wanted:
            break
        name = source.draw(position).source
        if name in wanted:
            wanted.discard(name)
            seen = _embodiment(source.sample(position), source.lock)
            known = found.setdefault(seen.name, seen)
            if (known.cameras, known.chunk_steps, known.reasons) != (seen.cameras, seen.chunk_steps, seen.reasons):
                raise TrainError(
                    f"robot '{seen.name}' has cameras {known.cameras} with {known.chunk_steps} steps in one source and "
                    f"{seen.cameras} with {seen.chunk_steps} in '{name}', or reasons in only one of them. "
                    "Give all its sources the same."
                )
    if wanted:
        raise TrainError(f"the mix never draws from {sorted(wanted)}. Give it more samples, or drop the source.")
    robots = tuple(found[name] for name in sorted(found))
    shape = ActionShape(
        steps=max((robot.chunk_steps for robot in robots), default=1),
        action_width=max((len(robot.normalizer.action_low) for robot in robots), default=1),
        state_width=max((len(robot.normalizer.state_mean) for robot in robots), default=1),
    )
    return shape, robots


def _embodiment(sample: Sample, lock: MixLock) -> Embodiment:
    if sample.actions is None or sample.embodiment is None or sample.embodiment not in lock.normalizers:
        raise TrainError(f"{sample.item_key}: a robot sample without actions or normalisation. Build the mix again.")
    prompt = tuple(sample.messages[: next((i for i, m in enumerate(sample.messages) if m.role == "assistant"), None)])
    if not prompt or sum(isinstance(part, Text) for part in prompt[-1].parts) != 1:
        raise TrainError(
            f"{sample.item_key}: the turn before the answer must hold one instruction. Build the mix again."
        )
    return Embodiment(
        name=sample.embodiment,
        normalizer=Normalizer.from_json(lock.normalizers[sample.embodiment]),
        chunk_steps=len(sample.actions),
        image_sizes=tuple((image.shape[1], image.shape[0]) for image in sample.images),
        prompt=prompt,
        reasons=any(turn.supervised for turn in sample.messages),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Collator:
    """Pads samples into one batch; the only place where a sample becomes tensors."""

    config: TrainConfig
    tokenizer: LocalTokenizer
    shape: ActionShape
    _pad: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_pad", self.tokenizer.id_of(END_OF_TEXT))

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        """Any mixture of robot and image-text samples, at least one."""
        chats = [
            render_chat(
                s.messages, self.tokenizer, [self.config.image_tokens(i.shape[1], i.shape[0]) for i in s.images]
            )
            for s in samples
        ]
        length = max(len(chat.ids) for chat in chats)
        ids = np.full((len(samples), length), self._pad, np.int64)
        labels = np.full((len(samples), length), IGNORE, np.int64)
        real = np.zeros((len(samples), length), np.bool_)
        for row, chat in enumerate(chats):
            end = len(chat.ids)
            ids[row, :end], labels[row, :end], real[row, :end] = chat.ids, chat.labels, True
        patches, grids = self.patches([image for s in samples for image in s.images])
        state, actions, valid = self._robot(samples)
        return Batch(
            ids_BT=torch.from_numpy(ids),
            labels_BT=torch.from_numpy(labels),
            real_BT=torch.from_numpy(real),
            patches_P=patches,
            grids=grids,
            state_BS=torch.from_numpy(state),
            actions_BHA=torch.from_numpy(actions),
            valid_BHA=torch.from_numpy(valid),
            robot_B=torch.tensor([s.is_robot for s in samples]),
        )

    def patches(self, images: Sequence[np.ndarray[Any, np.dtype[np.uint8]]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Images as Qwen2-VL's flat patches and grids."""
        size = self.config.vlm
        patches, grids = patchify(
            images, patch_size=size.patch_size, merge_size=size.merge_size, frames_per_patch=size.frames_per_patch
        )
        return torch.from_numpy(patches), torch.from_numpy(grids)

    def _robot(
        self, samples: Sequence[Sample]
    ) -> tuple[
        np.ndarray[Any, np.dtype[np.float32]],
        np.ndarray[Any, np.dtype[np.float32]],
        np.ndarray[Any, np.dtype[np.bool_]],
    ]:
        """State, actions and which action numbers are real, padded with zeros to the largest robot."""
        shape = self.shape
        state = np.zeros((len(samples), shape.state_width), np.float32)
        actions = np.zeros((len(samples), shape.steps, shape.action_width), np.float32)
        valid = np.zeros(actions.shape, np.bool_)
        for row, sample in enumerate(samples):
            if sample.state is None or sample.actions is None or sample.action_is_pad is None:
                continue
            steps, width = sample.actions.shape
            if len(sample.state) > shape.state_width or steps > shape.steps or width > shape.action_width:
                raise MixError(f"{sample.item_key}: chunk {steps}x{width} does not fit {shape}. Build the mix again.")
            state[row, : len(sample.state)] = sample.state
            actions[row, :steps, :width] = sample.actions
            valid[row, :steps, :width] = ~sample.action_is_pad[:, None]
        # What lies on padded steps is another episode's or a repeat; the action expert looks at none of it.
        return state, np.where(valid, actions, np.float32(0)), valid


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The draws of one step: positions taken, positions passed over, and where the next step starts."""

    positions: tuple[int, ...]
    taken: dict[str, int]  # draws per source
    passed_over: dict[str, int]
    next_position: int


def plan_step(source: SampleSource, position: int, batch_size: int, *, image_text: bool) -> Plan:
    """Which draws make the step that starts at `position`: a pure function of the lock."""
    robots = robot_sources(source.lock)
    assert image_text or robots, "check_mix refuses a stage that would look for robots for ever"
    positions: list[int] = []
    taken: dict[str, int] = {}
    passed: dict[str, int] = {}
    while len(positions) < batch_size:
        name = source.draw(position).source
        if image_text or name in robots:
            positions.append(position)
            taken[name] = taken.get(name, 0) + 1
        else:
            passed[name] = passed.get(name, 0) + 1
        position += 1
    return Plan(positions=tuple(positions), taken=taken, passed_over=passed, next_position=position)


def batches(
    source: SampleSource, collate: Collator, *, start: int, steps: int, batch_size: int, image_text: bool
) -> Iterator[tuple[Plan, Batch]]:
    """The batches of `steps` steps from position `start`, the next one read while the current one is learned from.

    Only the reading thread touches `source` meanwhile: readers keep caches and are not made for two threads.
    """
    position = start

    def load() -> tuple[Plan, Batch]:
        nonlocal position
        plan = plan_step(source, position, batch_size, image_text=image_text)
        position = plan.next_position
        return plan, collate([source.sample(taken) for taken in plan.positions])

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batch") as pool:
        ahead = pool.submit(load) if steps else None
        for step in range(steps):
            assert ahead is not None
            current = ahead.result()
            ahead = pool.submit(load) if step + 1 < steps else None
            yield current
