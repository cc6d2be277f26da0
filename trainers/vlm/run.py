"""One run of the small VLM: a plain function from a recipe to weights, resumable to the bit on one processor with one
thread count (gradients on a GPU are added up in any order).

Everything random is keyed by (seed, step); the next batch is drawn while the current one is learned from.
"""

import json
import math
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dataengine.artifacts import write_atomic
from schemas.errors import TrainError
from trainers.tokenizer import LocalTokenizer
from trainers.vlm.config import VlmConfig
from trainers.vlm.drawing import Lessons, LessonSteps, batches
from trainers.vlm.lessons import LessonBatch, LessonCollator
from trainers.vlm.model import LearningVlm

METRICS_FILE = "metrics.jsonl"
_MODEL, _OPTIMIZER, _STATE = "model.safetensors", "optimizer.pt", "state.json"
_BLOCK = re.compile(r"\.visual\.blocks\.(\d+)\.")


@dataclass(frozen=True, slots=True, kw_only=True)
class VlmStep:
    """One line of `metrics.jsonl`."""

    step: int
    phase: str
    loss: float
    text_loss: float
    glyph_loss: float
    token_loss: float
    thing_loss: float
    card_loss: float
    gaze_loss: float
    text_right: float  # share of answer tokens
    glyphs_right: float  # share of characters in the pictures
    learning_rate: float
    questions_per_s: float


def learning_rate(config: VlmConfig, step: int) -> float:
    """Linear warm-up, then half a cosine down to the final rate."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    way = (step - config.warmup_steps) / max(1, config.num_steps - config.warmup_steps)
    low, high = config.final_learning_rate, config.learning_rate
    return low + (high - low) * (1 + math.cos(math.pi * min(1.0, way))) / 2


def train_vlm(
    config: VlmConfig,
    lessons: Lessons,
    tokenizer: LocalTokenizer,
    *,
    staging: Path,
    stop_after: int | None = None,
    on_step: Callable[[VlmStep], None] | None = None,
    start: Mapping[str, Tensor] | None = None,
) -> LearningVlm:
    """Train to the end of the curriculum (or to step `stop_after`); goes on from what `staging` holds, or from the
    weights of another model of the same shape or with fewer blocks in its vision tower, or from the seed.

    Raises TrainError when a loss is not finite, or `staging` belongs to another recipe or other lessons.
    """
    staging.mkdir(parents=True, exist_ok=True)
    identity = {"recipe": config.fingerprint, "lessons": lessons.fingerprint, "tokenizer": tokenizer.fingerprint}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    depth = None
    if start is not None:
        depth = _vision_depth(start) if config.heads_drawn_beside is None else config.heads_drawn_beside
    model = LearningVlm(config.vlm, tokenizer, config.seed, drawn_depth=depth).to(device).train()
    if start is not None:
        _go_on(start, model.vlm)
    optimizer = _optimizer(model, config)
    done = _resume(staging, identity, model, optimizer)
    _trim(staging / METRICS_FILE, done)
    end = config.last_step if stop_after is None else min(stop_after, config.last_step)
    with (staging / METRICS_FILE).open("a", encoding="utf-8") as metrics:
        steps = LessonSteps(
            config=config, lessons=lessons, collate=LessonCollator(config.vlm, tokenizer), start=done, end=end
        )
        for step, batch in batches(steps, device):
            row = _learn(config, model, optimizer, step, batch, device)
            metrics.write(json.dumps(asdict(row)) + "\n")
            if on_step is not None:
                on_step(row)
            if (step + 1) % config.checkpoint_every == 0 or step + 1 == end:
                metrics.flush()
                _keep(staging, identity, model, optimizer, step + 1)
    return model.eval()


def has_bfloat16(device: torch.device) -> bool:
    """Whether its matrix products in bfloat16 are fast: a processor without such instructions imitates them, and takes
    thirty to fifty times as long as for float32."""
    if device.type != "cpu":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return any(bool(has) for name, has in torch.cpu.get_capabilities().items() if "bf16" in name)


def _optimizer(model: LearningVlm, config: VlmConfig) -> torch.optim.AdamW:
    """Norms and biases are not decayed."""
    matrices = [weight for weight in model.parameters() if weight.ndim > 1]
    others = [weight for weight in model.parameters() if weight.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)


def _learn(
    config: VlmConfig,
    model: LearningVlm,
    optimizer: torch.optim.AdamW,
    step: int,
    batch: LessonBatch,
    device: torch.device,
) -> VlmStep:
    start = time.perf_counter()
    phase, _ = config.phase_at(step)
    rate = learning_rate(config, step)
    for group in optimizer.param_groups:
        group["lr"] = rate
    with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bfloat16" and has_bfloat16(device)):
        losses = model(
            batch.to(device),
            text_weight=phase.text_weight,
            glyph_weight=phase.glyph_weight,
            token_weight=phase.token_weight,
            thing_weight=phase.thing_weight,
            card_weight=phase.card_weight,
            gaze_weight=phase.gaze_weight,
        )
    if not bool(torch.isfinite(losses.total)):
        raise TrainError(f"the loss of step {step} is not finite. Lower the learning rate and train again.")
    optimizer.zero_grad(set_to_none=True)
    losses.total.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
    optimizer.step()
    return VlmStep(
        step=step,
        phase=phase.name,
        loss=float(losses.total.detach()),
        text_loss=float(losses.text.detach()),
        glyph_loss=float(losses.glyphs.detach()),
        token_loss=float(losses.tokens.detach()),
        thing_loss=float(losses.things.detach()),
        card_loss=float(losses.cards.detach()),
        gaze_loss=float(losses.gaze.detach()),
        text_right=losses.text_right,
        glyphs_right=losses.glyphs_right,
        learning_rate=rate,
        questions_per_s=batch.num_questions / (time.perf_counter() - start),
    )


def _keep(staging: Path, identity: dict[str, str], model: LearningVlm, optimizer: torch.optim.AdamW, step: int) -> None:
    """The state after `step` steps, in a folder of its own; the newest one that is whole counts."""
    folder = staging / f"step_{step:06d}"
    folder.mkdir(exist_ok=True)
    tensors = {name: weight.detach().cpu().contiguous() for name, weight in model.named_parameters()}
    save_file(tensors, folder / _MODEL)
    torch.save(optimizer.state_dict(), folder / _OPTIMIZER)
    for name in (_MODEL, _OPTIMIZER):  # on disk before the mark that they are whole
        with (folder / name).open("rb") as file:
            os.fsync(file.fileno())
    write_atomic(folder / _STATE, json.dumps({**identity, "step": step}).encode())
    for old in sorted(staging.glob("step_*"))[:-2]:
        (old / _STATE).unlink(missing_ok=True)  # the mark that it is whole goes first
        shutil.rmtree(old)  # with what a killed process left half written


def _resume(staging: Path, identity: dict[str, str], model: LearningVlm, optimizer: torch.optim.AdamW) -> int:
    kept = [folder for folder in sorted(staging.glob("step_*")) if (folder / _STATE).is_file()]
    if not kept:
        return 0
    state = json.loads((kept[-1] / _STATE).read_text())
    for name, value in identity.items():
        if state[name] != value:
            raise TrainError(
                f"the unfinished training in '{staging.name}' has another {name} ({state[name][:12]}, now "
                f"{value[:12]}). Finish it as it was begun, or delete it."
            )
    _copy(load_file(kept[-1] / _MODEL), model)
    optimizer.load_state_dict(torch.load(kept[-1] / _OPTIMIZER, weights_only=True))
    return int(state["step"])


def _copy(tensors: Mapping[str, Tensor], model: nn.Module) -> None:
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(tensors[name])


def _go_on(start: Mapping[str, Tensor], model: nn.Module) -> None:
    """Copy the weights of another model; blocks that only a deeper vision tower has stay as they are."""
    named, depth = dict(model.named_parameters()), _vision_depth(start)
    missing = {name for name in named.keys() - start.keys() if _block(name) < depth}
    if missing or start.keys() - named.keys():
        some = sorted(missing or start.keys() - named.keys())[0]
        raise TrainError(f"the weights to go on from are of another model ('{some}'). Start from one of its shape.")
    _copy({**{name: weight.detach() for name, weight in named.items()}, **start}, model)


def _vision_depth(tensors: Mapping[str, Tensor]) -> int:
    """Blocks of the vision tower that these weights are of."""
    return 1 + max(map(_block, tensors), default=-1)


def _block(name: str) -> int:
    """The block of the vision tower that a weight belongs to; -1 where it belongs to none."""
    found = _BLOCK.search(name)
    return int(found[1]) if found else -1


def _trim(path: Path, step: int) -> None:
    """Forget rows of steps that will be done again."""
    if path.exists():
        lines = [
            line for line in path.read_text().splitlines() if line.endswith("}") and json.loads(line)["step"] < step
        ]
        write_atomic(path, "".join(f"{line}\n" for line in lines).encode())
