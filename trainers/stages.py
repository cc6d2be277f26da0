"""What a stage changes while it lasts: which weights learn, and how fast. Pure functions of the config and the step."""

import math
from collections.abc import Iterator

import torch
from torch import nn

from trainers.models.vla import Vla
from trainers.recipes import Stage, TrainConfig


def stage_bounds(config: TrainConfig) -> Iterator[tuple[Stage, int, int]]:
    """Each stage with its first step and the step after its last, over the whole run."""
    start = 0
    for stage in config.stages:
        yield stage, start, start + stage.steps
        start += stage.steps


def learning_rate(stage: Stage, step: int) -> float:
    """Linear warm-up, then half a cosine down to the final rate. `step` counts from the stage's start."""
    if step < stage.warmup_steps:
        return stage.learning_rate * (step + 1) / stage.warmup_steps
    way = (step - stage.warmup_steps) / max(1, stage.steps - stage.warmup_steps)
    low, high = stage.final_learning_rate, stage.learning_rate
    return low + (high - low) * (1 + math.cos(math.pi * min(1.0, way))) / 2


def begin_stage(vla: Vla, stage: Stage, config: TrainConfig) -> torch.optim.AdamW:
    """Freeze or free the VLM and make a fresh optimizer over what learns."""
    vla.vlm.requires_grad_(stage.train_vlm)
    vla.action_expert.requires_grad_(True)
    # The router's load is counted in both stages; only weights that learn leave evaluation mode's determinism behind.
    vla.train()
    return torch.optim.AdamW(
        learning(vla),
        lr=stage.learning_rate,
        betas=config.betas,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        fused=True,
    )


def learning(vla: nn.Module) -> list[nn.Parameter]:
    """The parameters that learn in the current stage, in a fixed order."""
    return [parameter for parameter in vla.parameters() if parameter.requires_grad]
