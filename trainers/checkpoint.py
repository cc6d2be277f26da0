"""What survives a kill, and what a finished run leaves: files of weights with the numbers that give them meaning.

A step checkpoint is a folder that appears by one rename: weights, optimizer, and where in the mix the next step starts.
No random state is kept, because every draw of noise is keyed by (seed, step).
"""

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from dataengine.artifacts import write_atomic
from schemas.errors import ArtifactError, MixError, TrainError
from schemas.records import canonical_json
from trainers.data import Embodiment
from trainers.models.action_expert import ActionShape
from trainers.models.vla import Vla, build_vla
from trainers.recipes import TrainConfig
from trainers.tokenizer import LocalTokenizer

MODEL_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
NORMALIZERS_FILE = "normalizers.json"
METRICS_FILE = "metrics.jsonl"
OPTIMIZER_FILE = "optimizer.pt"
_TIED = "vlm.lm_head.weight"  # the same numbers as the token embeddings; stored once
_CONFIG_SCHEMA = 1


@dataclass(slots=True, kw_only=True)
class Progress:
    """Where a run stands: the next step, and the next position of the mix."""

    mix_fingerprint: str
    step: int = 0
    position: int = 0
    taken: dict[str, int] = field(default_factory=dict)  # draws learned from, per source
    passed_over: dict[str, int] = field(default_factory=dict)  # draws a stage had no use for, per source


def model_tensors(vla: Vla) -> dict[str, torch.Tensor]:
    """All weights by name, on the CPU, the tied output layer left out."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in vla.state_dict().items() if name != _TIED}


def load_tensors(vla: Vla, path: Path) -> None:
    """Give a model of the same shape its weights, in float32 and memory of their own.

    Raises ArtifactError when the file is damaged, or a weight is missing, unknown or of another shape.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name).to(torch.float32, copy=True) for name in file.keys()}  # noqa: SIM118
        report = vla.load_state_dict(tensors, strict=False, assign=True)
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{path.name} is damaged ({error}). Train it again, or copy it again.") from None
    except RuntimeError as error:
        raise ArtifactError(f"{path.name} does not fit this model ({str(error).splitlines()[-1].strip()}).") from None
    wrong = [*report.unexpected_keys, *(name for name in report.missing_keys if name != _TIED)]
    if wrong:
        raise ArtifactError(f"{path.name} does not fit this model: {len(wrong)} names differ, first {wrong[0]}.")
    vla.vlm.tie_weights()


def weights_fingerprint(tensors: dict[str, torch.Tensor]) -> str:
    """sha256 over names, types, shapes and bytes of all weights."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_step(staging: Path, vla: Vla, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    """Keep everything the next step needs; the checkpoint before it goes once this one is whole."""
    final, beside = staging / f"step_{progress.step:08d}", staging / ".step.tmp"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    save_file(model_tensors(vla), beside / MODEL_FILE)
    torch.save(optimizer.state_dict(), beside / OPTIMIZER_FILE)
    (beside / "progress.json").write_text(json.dumps(asdict(progress)))
    for path in (*beside.iterdir(), staging / METRICS_FILE):  # the rows of the steps that are now not done again
        if path.exists():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    if final.exists():
        shutil.rmtree(final)
    os.rename(beside, final)
    for old in staging.glob("step_*"):
        if old != final:
            shutil.rmtree(old)


def latest_step(staging: Path, mix_fingerprint: str) -> tuple[Path, Progress] | None:
    """The newest whole checkpoint.

    Raises TrainError when it was made from another mix, ArtifactError when it cannot be read.
    """
    folders = sorted(staging.glob("step_*"))
    if not folders:
        return None
    try:
        progress = Progress(**json.loads((folders[-1] / "progress.json").read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise _damaged_step(folders[-1], "progress.json", error) from None
    if progress.mix_fingerprint != mix_fingerprint:
        raise TrainError(
            f"the checkpoint at step {progress.step} was trained on mix {progress.mix_fingerprint[:12]}, this is mix "
            f"{mix_fingerprint[:12]}. Train into a new NAME@VERSION, or bring the first mix back."
        )
    return folders[-1], progress


def load_optimizer(optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Bring back what `save_step` kept of the optimizer. Raises ArtifactError when it is damaged or does not fit."""
    try:
        optimizer.load_state_dict(torch.load(folder / OPTIMIZER_FILE, weights_only=True))
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, UnpicklingError) as error:
        raise _damaged_step(folder, OPTIMIZER_FILE, error) from None


def _damaged_step(folder: Path, name: str, error: Exception) -> ArtifactError:
    first = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
    return ArtifactError(
        f"the checkpoint to go on from is damaged: {folder.name}/{name} ({first}). Delete that folder from the draft's "
        "staging to train from the start."
    )


def trim_metrics(path: Path, step: int) -> None:
    """Forget rows of steps that will be done again, and what a crash left of a row."""
    if path.exists():
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        write_atomic(path, "".join(f"{line}\n" for line in lines if _step_of(line, step) < step).encode())


def _step_of(line: str, otherwise: int) -> int:
    """The step that a row of metrics tells of; `otherwise` when it is no whole row."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return otherwise


@contextmanager
def only_trainer(staging: Path, *, patience_s: float = 60) -> Iterator[None]:
    """Hold the run's lock. A worker whose driver was killed may live some seconds longer: wait for it, then refuse."""
    lock = os.open(staging / "train.lock", os.O_CREAT | os.O_RDWR, 0o644)
    deadline = time.monotonic() + patience_s
    try:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TrainError("another process still trains into this draft. Stop it first.") from None
                time.sleep(0.2)
        yield
    finally:
        os.close(lock)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trained:
    """A model with all it needs to act: what `save_trained` writes and `load_trained` reads."""

    vla: Vla
    config: TrainConfig
    shape: ActionShape
    embodiments: tuple[Embodiment, ...]
    tokenizer: LocalTokenizer


def save_trained(folder: Path, trained: Trained) -> str:
    """Write the finished model's files. Returns the fingerprint of weights, config and normalisation."""
    tensors = model_tensors(trained.vla)
    config: dict[str, Any] = {
        "schema_version": _CONFIG_SCHEMA,
        "recipe": trained.config.to_json(),
        "shape": asdict(trained.shape),
        "embodiments": [robot.to_json() for robot in trained.embodiments],
        "tokenizer_fingerprint": trained.tokenizer.fingerprint,
    }
    save_file(tensors, folder / MODEL_FILE)
    trained.tokenizer.save(folder)
    normalizers = {robot.name: robot.normalizer.to_json() for robot in trained.embodiments}
    write_atomic(folder / NORMALIZERS_FILE, json.dumps(normalizers, indent=1).encode())
    write_atomic(folder / CONFIG_FILE, json.dumps(config, indent=1).encode())
    return hashlib.sha256((weights_fingerprint(tensors) + canonical_json(config)).encode()).hexdigest()


def load_trained(folder: Path) -> Trained:
    """Read a finished model, in evaluation mode. Raises ArtifactError when a file is missing or does not fit."""
    if not (folder / CONFIG_FILE).is_file() or not (folder / MODEL_FILE).is_file():
        raise ArtifactError(
            f"'{folder.name}' is no checkpoint: it lacks {CONFIG_FILE} or {MODEL_FILE}. Train one first."
        )
    try:
        parts = _read_parts(folder)
    except (ValueError, KeyError, TypeError, AttributeError, MixError) as error:  # what a wrong field of JSON leads to
        raise ArtifactError(
            f"'{folder.name}' is damaged: {CONFIG_FILE} cannot be read ({type(error).__name__}: {error}). "
            "Train it again, or copy it again."
        ) from None
    config, shape, embodiments, tokenizer = parts
    vla = build_vla(config, shape, tokenizer, empty=True)
    load_tensors(vla, folder / MODEL_FILE)
    return Trained(vla=vla.eval(), config=config, shape=shape, embodiments=embodiments, tokenizer=tokenizer)


def _read_parts(folder: Path) -> tuple[TrainConfig, ActionShape, tuple[Embodiment, ...], LocalTokenizer]:
    """All but the weights."""
    saved = json.loads((folder / CONFIG_FILE).read_bytes())
    if saved.get("schema_version") != _CONFIG_SCHEMA:
        raise ArtifactError(f"'{folder.name}' has checkpoint schema {saved.get('schema_version')}. Train it again.")
    config = TrainConfig.from_json(saved["recipe"])
    shape = ActionShape(**saved["shape"])
    tokenizer = LocalTokenizer.load(folder)
    if tokenizer.fingerprint != saved["tokenizer_fingerprint"]:
        raise ArtifactError(f"'{folder.name}' was trained with another tokenizer than lies beside it. Restore it.")
    return config, shape, tuple(Embodiment.from_json(row) for row in saved["embodiments"]), tokenizer
