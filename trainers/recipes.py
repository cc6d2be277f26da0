"""What a training run is: every number that shapes the model or its weights. A recipe is a function that returns one.

Derive your own by calling one and replacing fields: `dataclasses.replace(nano(), batch_size=32)`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from schemas.errors import TrainError, did_you_mean
from trainers.pixels import image_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class VlmSize:
    """The shape of a Qwen2-VL; names as in the paper, not as in any config file."""

    width: int
    depth: int
    heads: int
    key_heads: int
    mlp_width: int
    vocabulary: int
    rope_theta: float
    rope_sections: tuple[int, int, int]  # half of a head's width, shared out to time, row, column
    vision_width: int
    vision_depth: int
    vision_heads: int
    vision_mlp_ratio: int
    patch_size: int
    merge_size: int = 2
    frames_per_patch: int = 2
    init_std: float = 0.02

    def __post_init__(self) -> None:
        head = self.width // self.heads
        if self.width % self.heads or self.heads % self.key_heads or self.vision_width % self.vision_heads:
            raise TrainError("VLM widths must divide by their head counts, and heads by key_heads.")
        if sum(self.rope_sections) * 2 != head:
            raise TrainError(f"rope_sections {self.rope_sections} must add up to half a head ({head // 2}).")


@dataclass(frozen=True, slots=True, kw_only=True)
class MoeSize:
    """How the language model's MLPs become routed experts (ChatVLA-2 section 3.2: 8 experts, 2 chosen)."""

    num_experts: int = 8
    top_k: int = 2
    every: int = 1  # 1 swaps the MLP of each layer, 2 of every second one, counted from the first
    noise: float = 0.01  # relative noise on experts 1..; identical copies give the router no gradient
    balance_weight: float = 0.0  # switch-style balance loss; the paper names none
    dispatch: Literal["grouped_mm", "batched_mm", "eager"] = "grouped_mm"

    def __post_init__(self) -> None:
        if not 1 <= self.top_k <= self.num_experts:
            raise TrainError(f"top_k {self.top_k} must be between 1 and num_experts {self.num_experts}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionExpertSize:
    """The diffusion transformer that writes action chunks (ScaleDP), and its noise schedule."""

    width: int
    depth: int
    heads: int
    mlp_ratio: int = 4
    train_noise_steps: int = 100
    sample_steps: int = 10
    noise_draws: int = 1  # noise levels per sample and step; more of them amortise the VLM's pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stretch of training with its own schedule and its own choice of what learns."""

    name: str
    steps: int
    train_vlm: bool  # False: the VLM is frozen and only the action expert learns
    image_text: bool  # False: image-text draws are passed over, because nothing in them moves an action
    learning_rate: float
    final_learning_rate: float
    warmup_steps: int
    text_weight: float = 1.0
    action_weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """A whole training run. `steps` of the stages add up to the run."""

    name: str
    vlm: VlmSize
    moe: MoeSize
    action_expert: ActionExpertSize
    stages: tuple[Stage, ...]
    batch_size: int
    tokenizer: Literal["nano", "weights"]  # made here, or read from the local weights directory
    needs_weights: bool = False  # start from a local Qwen2-VL directory
    seed: int = 0
    betas: tuple[float, float] = (0.9, 0.98)
    epsilon: float = 1e-7
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    checkpoint_every: int = 100
    precision: Literal["float32", "bfloat16"] = "float32"
    gradient_checkpointing: bool = False
    weights: Path | None = None  # where the local Qwen2-VL lies; a place, so no part of the identity

    def __post_init__(self) -> None:
        if not self.stages or any(stage.steps < 0 for stage in self.stages):
            raise TrainError(f"recipe {self.name} needs stages with zero or more steps each.")
        if self.batch_size < 1 or self.checkpoint_every < 1:
            raise TrainError(f"recipe {self.name}: batch_size and checkpoint_every must be positive.")

    @property
    def num_steps(self) -> int:
        """Optimizer steps over all stages."""
        return sum(stage.steps for stage in self.stages)

    def image_tokens(self, width: int, height: int) -> int:
        """How many placeholder tokens an image takes; what `build_mix` asks for."""
        return image_tokens(width, height, patch_size=self.vlm.patch_size, merge_size=self.vlm.merge_size)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, no paths; `from_json` gives back an equal config."""
        plain: dict[str, Any] = TypeAdapter(TrainConfig).dump_python(self, mode="json", exclude={"weights"})
        return plain

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "TrainConfig":
        """Read a saved config. Raises TrainError when it is not one."""
        try:
            return TypeAdapter(TrainConfig).validate_python(value)
        except ValidationError as error:
            first = error.errors()[0]
            raise TrainError(
                f"saved training config is damaged ({'.'.join(map(str, first['loc']))}: {first['msg']}). Train again."
            ) from None


def with_steps(config: TrainConfig, steps: int) -> TrainConfig:
    """The same recipe in `steps` steps altogether: stages keep their shares, warm-up shrinks with them."""
    if steps < len(config.stages):
        raise TrainError(f"{steps} steps are too few for {len(config.stages)} stages. Ask for at least one per stage.")
    total = config.num_steps
    ends = [round(sum(s.steps for s in config.stages[: i + 1]) / total * steps) for i in range(len(config.stages))]
    counts = [max(1, end - start) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    counts[0] += steps - sum(counts)
    stages = tuple(
        replace(stage, steps=count, warmup_steps=round(stage.warmup_steps * count / max(1, stage.steps)))
        for stage, count in zip(config.stages, counts, strict=True)
    )
    return replace(config, stages=stages)


def nano() -> TrainConfig:
    """The whole architecture at toy size: minutes on two CPU cores, 48 tokens per 320x240 image."""
    return TrainConfig(
        name="nano",
        vlm=VlmSize(
            width=256,
            depth=3,
            heads=4,
            key_heads=2,
            mlp_width=256,
            vocabulary=1024,
            rope_theta=100.0,  # prompts are 200 tokens, not 32,000: far positions must not look alike
            rope_sections=(8, 12, 12),
            vision_width=128,
            vision_depth=2,
            vision_heads=4,
            vision_mlp_ratio=2,
            patch_size=20,
            frames_per_patch=1,
            init_std=0.05,
        ),
        moe=MoeSize(balance_weight=0.01),
        action_expert=ActionExpertSize(width=128, depth=4, heads=4, noise_draws=4),
        stages=(
            Stage(
                name="co-train",
                steps=150,
                train_vlm=True,
                image_text=True,
                learning_rate=1e-3,
                final_learning_rate=1e-4,
                warmup_steps=15,
            ),
            Stage(
                name="reasoning-following",
                steps=90,
                train_vlm=False,
                image_text=False,
                learning_rate=1e-3,
                final_learning_rate=1e-4,
                warmup_steps=10,
            ),
        ),
        batch_size=16,
        tokenizer="nano",
    )


def nano_dense() -> TrainConfig:
    """`nano` with one expert, which is the dense model: what routed experts are compared with."""
    moe = MoeSize(num_experts=1, top_k=1, noise=0.0)
    return replace(nano(), name="nano_dense", moe=moe)


def chatvla2_2b() -> TrainConfig:
    """ChatVLA-2 on Qwen2-VL-2B with a ScaleDP-H action expert; schedule from the paper's appendix B.1.

    The batch of 128 and the optimizer constants are the ChatVLA code's: the paper names none.
    """
    return TrainConfig(
        name="chatvla2_2b",
        vlm=VlmSize(
            width=1536,
            depth=28,
            heads=12,
            key_heads=2,
            mlp_width=8960,
            vocabulary=151936,
            rope_theta=1_000_000.0,
            rope_sections=(16, 24, 24),
            vision_width=1280,
            vision_depth=32,
            vision_heads=16,
            vision_mlp_ratio=4,
            patch_size=14,
        ),
        moe=MoeSize(),
        action_expert=ActionExpertSize(width=1280, depth=32, heads=16),
        stages=(
            Stage(
                name="co-train",
                steps=15_000,
                train_vlm=True,
                image_text=True,
                learning_rate=2e-5,
                final_learning_rate=2e-6,
                warmup_steps=3_000,
            ),
            Stage(
                name="reasoning-following",
                steps=50_000,
                train_vlm=False,
                image_text=False,
                learning_rate=2e-5,
                final_learning_rate=2e-6,
                warmup_steps=3_000,
            ),
        ),
        batch_size=128,
        tokenizer="weights",
        needs_weights=True,
        checkpoint_every=1000,
        precision="bfloat16",
        gradient_checkpointing=True,
    )


RECIPES: dict[str, Callable[[], TrainConfig]] = {"nano": nano, "nano_dense": nano_dense, "chatvla2_2b": chatvla2_2b}


def recipe(name: str, *, weights: Path | None = None) -> TrainConfig:
    """The recipe of this name, its VLM started from a local dense Qwen2-VL directory where one is named.

    A recipe that does not need one takes shape and tokenizer from the directory. Raises TrainError that names the
    nearest recipe, or says what is wrong with the directory.
    """
    make = RECIPES.get(name)
    if make is None:
        raise TrainError(f"no recipe '{name}'. {did_you_mean(name, RECIPES)}")
    config = make()
    if weights is not None and not config.needs_weights:
        from trainers.vlm_directory import read_size

        config = replace(config, vlm=read_size(weights), tokenizer="weights")
    return replace(config, weights=weights)
