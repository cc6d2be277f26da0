"""A model of a few thousand weights, a mix of a few samples in memory, and a run that can be killed."""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from schemas.chat import Image, Message, Text
from schemas.mixes import Draw, LlavaSource, MixLock, MixSpec, RobotSource, Sample
from schemas.normalization import Normalizer
from trainers.data import InMemoryMix
from trainers.recipes import ActionExpertSize, MoeSize, TrainConfig, VlmSize, nano
from trainers.run import StepRow, TrainResult, run_training
from trainers.tokenizer import nano_tokenizer

TASK = "Pick the card with the correct answer."
ACTIONS, STATES, STEPS = 3, 2, 6
TINY_VLM = VlmSize(
    width=64,
    depth=2,
    heads=4,
    key_heads=2,
    mlp_width=128,
    vocabulary=1024,
    rope_theta=100.0,
    rope_sections=(2, 3, 3),
    vision_width=32,
    vision_depth=2,
    vision_heads=2,
    vision_mlp_ratio=2,
    patch_size=20,
    frames_per_patch=1,
    init_std=0.05,
)


def tiny() -> TrainConfig:
    """Two layers, 12 tokens per image, two stages of three steps."""
    config = nano()
    co_train, following = config.stages
    return replace(
        config,
        name="tiny",
        vlm=replace(
            config.vlm,
            width=32,
            depth=2,
            heads=2,
            key_heads=1,
            mlp_width=32,
            rope_sections=(2, 3, 3),
            vision_width=32,
            vision_depth=1,
            vision_heads=2,
        ),
        moe=MoeSize(num_experts=4, top_k=2, balance_weight=0.01),
        action_expert=ActionExpertSize(width=32, depth=2, heads=2, noise_draws=2),
        stages=(replace(co_train, steps=3, warmup_steps=1), replace(following, steps=3, warmup_steps=1)),
        batch_size=4,
        checkpoint_every=2,
    )


def normalizer() -> Normalizer:
    return Normalizer(
        embodiment="arm",
        state_mean=np.array([1.0, 2.0], np.float32),
        state_std=np.array([2.0, 4.0], np.float32),
        action_low=np.array([-2.0, -1.0, 0.0], np.float32),
        action_high=np.array([2.0, 1.0, 10.0], np.float32),
    )


def robot_sample(position: int, *, steps: int = STEPS) -> Sample:
    rng = np.random.default_rng(position)
    number = int(rng.integers(0, 10))
    return Sample(
        draw=Draw(position=position, source="arms", item=position, repeat=0),
        item_key=f"episode#{position}",
        messages=(
            Message(role="user", parts=(Image("top"), Image("wrist"), Text(TASK))),
            Message(role="assistant", parts=(Text(f"I pick {number}."),), supervised=True),
        ),
        images=tuple(rng.integers(0, 255, (80, 120, 3), dtype=np.uint8) for _ in range(2)),
        embodiment="arm",
        state=rng.normal(size=STATES).astype(np.float32),
        actions=rng.uniform(-1, 1, (steps, ACTIONS)).astype(np.float32),
        action_is_pad=np.arange(steps) >= steps - position % 3,
    )


def text_sample(position: int, *, images: int = 1) -> Sample:
    rng = np.random.default_rng(position)
    places = tuple(Image("image") for _ in range(images))
    return Sample(
        draw=Draw(position=position, source="questions", item=position, repeat=0),
        item_key=f"questions#{position}",
        messages=(
            Message(role="user", parts=(*places, Text("What does the board read?"))),
            Message(role="assistant", parts=(Text(f"{position}+1"),), supervised=True),
        ),
        images=tuple(rng.integers(0, 255, (80, 120, 3), dtype=np.uint8) for _ in range(images)),
    )


def tiny_mix(num_samples: int = 16, *, fingerprint: str = "a" * 64) -> InMemoryMix:
    """Every fourth sample is image-text, every eighth of all has no image."""
    samples = tuple(
        text_sample(i, images=0 if i % 8 == 7 else 1) if i % 4 == 3 else robot_sample(i) for i in range(num_samples)
    )
    spec = MixSpec(
        sources=(
            RobotSource(name="arms", episodes="arms@1", annotations="arms@1", cameras=("top", "wrist"), weight=3),
            LlavaSource(name="questions", path="questions.json", weight=1),
        ),
        num_samples=num_samples,
    )
    lock = MixLock(
        spec=spec,
        sources=(),
        normalizers={"arm": normalizer().to_json()},
        tokenizer_fingerprint=nano_tokenizer().fingerprint,
        num_samples=num_samples,
    )
    return InMemoryMix(lock=lock, samples=samples, fingerprint=fingerprint)


def train_tiny(home: Path, config: TrainConfig | None = None, *, kill_after_step: int | None = None) -> TrainResult:
    """Run in `home/final` and `home/staging`; the process kills itself without a word after a step."""

    def on_step(row: StepRow) -> None:
        if row.step == kill_after_step:
            os.kill(os.getpid(), signal.SIGKILL)

    for name in ("final", "staging"):
        (home / name).mkdir(parents=True, exist_ok=True)
    return run_training(
        config or tiny(), tiny_mix(), folder=home / "final", staging=home / "staging", num_threads=1, on_step=on_step
    )


if __name__ == "__main__":
    train_tiny(Path(sys.argv[1]), kill_after_step=int(sys.argv[2]))
