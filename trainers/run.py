"""One training run in one process, with no word about Ray: a plain function from a mix to a folder of weights.

Exact resume: everything random is keyed by (seed, step), the learning rate is a function of the step, and the order of
samples is the mix's. A run that was killed and goes on ends in the same bits, on one machine with one thread count.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from schemas.errors import TrainError
from trainers.checkpoint import (
    METRICS_FILE,
    MODEL_FILE,
    Progress,
    Trained,
    latest_step,
    load_optimizer,
    load_tensors,
    only_trainer,
    save_step,
    save_trained,
    trim_metrics,
)
from trainers.data import Collator, Plan, SampleSource, batches, robot_sources, survey
from trainers.models.moe import load_entropy, reset_load
from trainers.models.vla import Batch, Losses, Vla, build_vla, seed_of
from trainers.recipes import Stage, TrainConfig
from trainers.stages import begin_stage, learning, learning_rate, stage_bounds
from trainers.tokenizer import LocalTokenizer, tokenizer_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRow:
    """One line of `metrics.jsonl`. Losses are means over the batch; draws count from the start of the run."""

    step: int
    stage: str
    loss: float
    text_loss: float
    robot_text_loss: float
    image_text_loss: float
    action_loss: float
    balance_loss: float
    learning_rate: float
    grad_norm: float
    expert_load_entropy: float  # 1 = experts share the work evenly
    supervised_tokens: int
    action_elements: int
    position: int  # of the mix, after this step
    draws: dict[str, int]
    passed_over: dict[str, int]
    samples_per_s: float
    wait_s: float  # for the batch; near zero when reading keeps up


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """What a finished run reports; numbers only, so that it crosses a process border as JSON."""

    fingerprint: str
    num_steps: int
    num_parameters: int
    position: int
    draws: dict[str, int]
    passed_over: dict[str, int]
    final_loss: float
    final_action_loss: float
    final_text_loss: float
    samples_per_s: float


def check_mix(config: TrainConfig, source: SampleSource) -> LocalTokenizer:
    """Refuse a mix that this recipe can not train on, before anything is built. Returns the recipe's tokenizer."""
    tokenizer = tokenizer_of(config)
    if tokenizer.fingerprint != source.lock.tokenizer_fingerprint:
        raise TrainError(
            f"the mix was counted with tokenizer {source.lock.tokenizer_fingerprint[:12]}, recipe {config.name} uses "
            f"{tokenizer.fingerprint[:12]}. Build the mix with this recipe's tokenizer."
        )
    for stage in config.stages:
        if not stage.image_text and not robot_sources(source.lock):
            raise TrainError(
                f"stage '{stage.name}' learns actions only, and the mix holds no robot source. Add one to the mix."
            )
    return tokenizer


def run_training(
    config: TrainConfig,
    source: SampleSource,
    *,
    folder: Path,
    staging: Path,
    num_threads: int | None = None,
    on_step: Callable[[StepRow], None] | None = None,
) -> TrainResult:
    """Train from `source` into `folder`; what a kill must not lose is kept in `staging`, and used on the next call.

    Raises TrainError when the mix does not fit the recipe or the checkpoint, or a loss is not finite.
    """
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    with only_trainer(staging):
        run = _Run.begin(config, source, staging)
        rows: list[StepRow] = []
        for row in run.steps():
            rows.append(row)
            if on_step is not None:
                on_step(row)
        fingerprint = save_trained(folder, run.trained)
        metrics = staging / METRICS_FILE
        (folder / METRICS_FILE).write_bytes(metrics.read_bytes())
    last = json.loads(metrics.read_text().splitlines()[-1])
    speeds = sorted(row.samples_per_s for row in rows)
    return TrainResult(
        fingerprint=fingerprint,
        num_steps=run.progress.step,
        num_parameters=sum(parameter.numel() for parameter in run.trained.vla.parameters()),
        position=run.progress.position,
        draws=run.progress.taken,
        passed_over=run.progress.passed_over,
        final_loss=last["loss"],
        final_action_loss=last["action_loss"],
        final_text_loss=last["text_loss"],
        samples_per_s=speeds[len(speeds) // 2] if speeds else 0.0,
    )


@dataclass(slots=True, kw_only=True)
class _Run:
    """The moving parts of one run."""

    config: TrainConfig
    source: SampleSource
    staging: Path
    trained: Trained
    progress: Progress
    device: torch.device
    resume_from: Path | None

    @classmethod
    def begin(cls, config: TrainConfig, source: SampleSource, staging: Path) -> "_Run":
        """Build the model, then go on from the newest checkpoint of this draft if there is one."""
        tokenizer = check_mix(config, source)
        kept = latest_step(staging, source.fingerprint)
        shape, embodiments = survey(source)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        vla = build_vla(config, shape, tokenizer, empty=kept is not None)
        trained = Trained(vla=vla, config=config, shape=shape, embodiments=embodiments, tokenizer=tokenizer)
        progress = Progress(mix_fingerprint=source.fingerprint)
        if kept is not None:
            load_tensors(vla, kept[0] / MODEL_FILE)
            progress = kept[1]
            log.info("going on at step %d, position %d of the mix", progress.step, progress.position)
        trim_metrics(staging / METRICS_FILE, progress.step)
        vla.to(device)
        return cls(
            config=config,
            source=source,
            staging=staging,
            trained=trained,
            progress=progress,
            device=device,
            resume_from=None if kept is None else kept[0],
        )

    def steps(self) -> Iterator[StepRow]:
        """Every step that is left, stage by stage."""
        collate = Collator(config=self.config, tokenizer=self.trained.tokenizer, shape=self.trained.shape)
        with (self.staging / METRICS_FILE).open("a", encoding="utf-8") as metrics:
            for stage, first, end in stage_bounds(self.config):
                if self.progress.step >= end:
                    continue
                optimizer = begin_stage(self.trained.vla, stage, self.config)
                if self.resume_from is not None and self.progress.step > first:
                    load_optimizer(optimizer, self.resume_from)
                stream = batches(
                    self.source,
                    collate,
                    start=self.progress.position,
                    steps=end - self.progress.step,
                    batch_size=self.config.batch_size,
                    image_text=stage.image_text,
                )
                before = time.perf_counter()
                for plan, batch in stream:
                    waited = time.perf_counter() - before
                    row = self._step(stage, first, optimizer, plan, batch, before, waited)
                    metrics.write(json.dumps(asdict(row)) + "\n")
                    metrics.flush()
                    if self.progress.step % self.config.checkpoint_every == 0 or self.progress.step == end:
                        save_step(self.staging, self.trained.vla, optimizer, self.progress)
                    yield row
                    before = time.perf_counter()

    def _step(
        self,
        stage: Stage,
        first: int,
        optimizer: torch.optim.Optimizer,
        plan: Plan,
        batch: Batch,
        before: float,
        waited: float,
    ) -> StepRow:
        """Learn from one batch and count it."""
        vla, progress = self.trained.vla, self.progress
        rate = learning_rate(stage, progress.step - first)
        for group in optimizer.param_groups:
            group["lr"] = rate
        losses, grad_norm = learn(vla, stage, optimizer, batch.to(self.device), self.config, progress.step)
        entropy = load_entropy(vla.moe_layers)
        reset_load(vla.moe_layers)
        progress.step += 1
        progress.position = plan.next_position
        _add(progress.taken, plan.taken)
        _add(progress.passed_over, plan.passed_over)
        return StepRow(
            step=progress.step - 1,
            stage=stage.name,
            loss=losses.total.item(),
            text_loss=losses.text.item(),
            robot_text_loss=losses.robot_text.item(),
            image_text_loss=losses.image_text.item(),
            action_loss=losses.action.item(),
            balance_loss=losses.balance.item(),
            learning_rate=rate,
            grad_norm=grad_norm,
            expert_load_entropy=entropy,
            supervised_tokens=losses.num_text,
            action_elements=losses.num_action,
            position=progress.position,
            draws=dict(progress.taken),
            passed_over=dict(progress.passed_over),
            samples_per_s=len(plan.positions) / (time.perf_counter() - before),
            wait_s=waited,
        )


def learn(
    vla: Vla, stage: Stage, optimizer: torch.optim.Optimizer, batch: Batch, config: TrainConfig, step: int
) -> tuple[Losses, float]:
    """One optimizer step. Returns the losses before it and the gradient's norm before clipping."""
    torch.manual_seed(seed_of(config.seed, "step", step))  # for whatever draws from the global stream
    noise = torch.Generator().manual_seed(seed_of(config.seed, "diffusion", step))
    losses = vla(
        batch, noise, text_weight=stage.text_weight, action_weight=stage.action_weight, frozen=not stage.train_vlm
    )
    if not math.isfinite(losses.total.item()):
        raise TrainError(
            f"the loss at step {step} is {losses.total.item()} (text {losses.text.item():.3g}, action "
            f"{losses.action.item():.3g}). Lower the learning rate, or look at the draws of this step."
        )
    optimizer.zero_grad(set_to_none=True)
    losses.total.backward()
    norm = torch.nn.utils.clip_grad_norm_(learning(vla), config.max_grad_norm)
    optimizer.step()
    return losses, float(norm)


def _add(total: dict[str, int], more: dict[str, int]) -> None:
    for name, count in more.items():
        total[name] = total.get(name, 0) + count
