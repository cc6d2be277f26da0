"""`train`: from a locked mix to `checkpoints/NAME@V`, run by Ray Train so that a cluster can place it.

Ray decides where the run happens, never in which order samples come. The worker does all the work; the driver holds the
draft's lock, follows the worker's metrics for progress, and publishes. What they tell each other are files in the
draft's staging, so a refusal keeps its own words instead of arriving inside Ray's traceback.
"""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataengine.artifacts import Draft, begin, write_atomic
from dataengine.mix.mix import Mix
from dataengine.ray_session import init_ray
from dataengine.workspace import Workspace
from schemas.errors import EngineError, TrainError
from schemas.records import InputRef, Record, sha256_of
from schemas.refs import Ref
from trainers.recipes import TrainConfig, with_steps

if TYPE_CHECKING:
    from trainers.run import TrainResult

_RESULT_FILE, _REFUSAL_FILE, _METRICS_FILE = "result.json", "refusal.txt", "metrics.jsonl"
_POLL_S = 0.5
# What our own training leaves beside the weights.
_NOT_WEIGHTS = ("record.json", "recipe.json", "scores.json", "samples.json", "training.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What the worker is told."""

    config: TrainConfig
    mix: Ref
    workspace: Workspace
    folder: Path
    staging: Path
    num_threads: int


def train(
    *,
    mix: Ref,
    to: Ref,
    workspace: Workspace,
    recipe: TrainConfig,
    steps: int | None = None,
    ray_address: str | None = None,
    in_process: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Record:
    """Train a recipe on a mix; the same call goes on after a kill, and returns the record when it is already done.

    `in_process` does without Ray, for runs that are shorter than a worker's start.
    `on_progress` gets (steps done, steps in all). Raises TrainError, MixError or ArtifactError.
    """
    config = recipe if steps is None else with_steps(recipe, steps)
    from trainers.run import check_mix, run_training

    opened = Mix.open(workspace, mix)
    check_mix(config, opened)
    inputs = [InputRef(kind="mixes", ref=str(mix), fingerprint=opened.fingerprint)]
    if config.weights is not None:
        inputs.append(InputRef(kind="raw", ref=config.weights.name, fingerprint=directory_fingerprint(config.weights)))
    draft = begin(workspace, "checkpoints", to, recipe={"train": config.to_json()}, inputs=inputs)
    if isinstance(draft, Record):
        return draft
    with draft:
        if in_process:
            with _followed(draft.staging / _METRICS_FILE, config.num_steps, on_progress):
                result = run_training(config, opened, folder=draft.path, staging=draft.staging)
        else:
            result = _fit(draft, config, mix, workspace, ray_address, on_progress)
        return draft.publish(
            fingerprint=result.fingerprint,
            counts={
                "num_steps": result.num_steps,
                "num_parameters": result.num_parameters,
                "final_loss": result.final_loss,
                "final_text_loss": result.final_text_loss,
                "final_action_loss": result.final_action_loss,
            },
            notes={
                "draws": result.draws,
                "passed_over": result.passed_over,
                "mix_position": result.position,
                "samples_per_s": result.samples_per_s,
            },
        )


def _fit(
    draft: Draft,
    config: TrainConfig,
    mix: Ref,
    workspace: Workspace,
    ray_address: str | None,
    on_progress: Callable[[int, int], None] | None,
) -> "TrainResult":
    """Place one worker, wait for it, and read what it left."""
    ray = init_ray(ray_address)
    from ray.train import ControllerError, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from trainers.run import TrainResult

    claim = worker_claim(ray.nodes())
    job = Job(
        config=config,
        mix=mix,
        workspace=workspace,
        folder=draft.path,
        staging=draft.staging,
        num_threads=int(claim["CPU"]),
    )
    for name in (_RESULT_FILE, _REFUSAL_FILE):
        (draft.staging / name).unlink(missing_ok=True)
    trainer = TorchTrainer(
        work,
        train_loop_config={"job": job},
        scaling_config=ScalingConfig(num_workers=1, use_gpu="GPU" in claim, resources_per_worker=claim),
        run_config=RunConfig(
            name="run",
            storage_path=str(draft.staging / "ray"),
            failure_config=FailureConfig(max_failures=0),
            # Threads that wait by spinning cost 4 to 6 times the step when anything else wants the cores: on a loaded
            # 2-core machine a nano step took 6.1 s spinning and 1.4 s sleeping.
            worker_runtime_env={"env_vars": {"OMP_WAIT_POLICY": "PASSIVE"}},
        ),
    )
    with _followed(draft.staging / _METRICS_FILE, config.num_steps, on_progress):
        try:
            trainer.fit()
        except Exception as error:  # Ray wraps whatever the worker raised; our own refusals lie beside it as words
            refusal = draft.staging / _REFUSAL_FILE
            if refusal.exists():
                raise TrainError(refusal.read_text(encoding="utf-8")) from None
            if isinstance(error, ControllerError):
                raise too_busy(error) from error
            raise error
    return TrainResult(**json.loads((draft.staging / _RESULT_FILE).read_text()))


def too_busy(error: Exception) -> TrainError:
    """Ray's controller gave up, not what runs in it: most often a machine too busy to answer in time."""
    told = " ".join(str(error).split()).removeprefix("Training failed due to controller error: ")
    return TrainError(
        f"Ray can not run the training here ({told[:200].rstrip('.')}). Free cores and memory, then run the same "
        "command again: it goes on from its last checkpoint."
    )


def worker_claim(nodes: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What the one worker asks Ray for: all cores of the largest living node, of those with a GPU when there are any.

    All cores, because Ray sets OMP_NUM_THREADS to what a worker claims; of one node, because no node could place more.
    """
    living: list[Mapping[str, float]] = [node["Resources"] for node in nodes if node["Alive"]]
    with_gpu = [resources for resources in living if resources.get("GPU", 0) >= 1]
    cpus = max([1.0, *(float(int(resources.get("CPU", 0))) for resources in with_gpu or living)])
    return {"CPU": cpus, "GPU": 1} if with_gpu else {"CPU": cpus}


def work(told: dict[str, Job]) -> None:
    """The worker: open the mix here, train, leave the result as a file."""
    from trainers.run import run_training

    job = told["job"]
    try:
        source = Mix.open(job.workspace, job.mix)
        result = run_training(job.config, source, folder=job.folder, staging=job.staging, num_threads=job.num_threads)
    except EngineError as error:
        write_atomic(job.staging / _REFUSAL_FILE, str(error).encode())
        raise
    write_atomic(job.staging / _RESULT_FILE, json.dumps(asdict(result)).encode())


@contextmanager
def _followed(metrics: Path, total: int, on_progress: Callable[[int, int], None] | None) -> Iterator[None]:
    """Report the worker's steps while it works; they are read from its metrics, which it flushes step by step."""
    if on_progress is None:
        yield
        return
    done = threading.Event()

    def follow() -> None:
        last = -1
        while True:
            ended = done.wait(_POLL_S)
            count = metrics.read_bytes().count(b"\n") if metrics.exists() else 0
            if count != last:
                last = count
                on_progress(count, total)
            if ended:
                return

    thread = threading.Thread(target=follow, name="train-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def directory_fingerprint(folder: Path) -> str:
    """Content of a local model directory: the sha256 of each file that weights, config and tokenizer are read from."""
    if not folder.is_dir():
        raise TrainError(f"'{folder.name}' is no directory. Name the folder of a local Qwen2-VL (--weights DIR).")
    rows = []
    for path in sorted(folder.iterdir()):
        if path.suffix in (".safetensors", ".json") and path.name not in _NOT_WEIGHTS:
            with path.open("rb") as file:
                rows.append([path.name, hashlib.file_digest(file, "sha256").hexdigest()])
    return sha256_of(rows)
