"""The `local` backend: a model directory on this machine or cluster, asked in batches inside Ray actors.

Actors get questions and give answers back; only the driver opens a database.
"""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import batched
from pathlib import Path
from types import TracebackType
from typing import Any

from annotators.calls import RawAnswer
from annotators.vlm.chat_model import Answer, ChatModel, Device, NoAnswer, Prompt, check_folder, fingerprint
from annotators.vlm.protocol import Decode, Lot, Request, Speaker, taken
from dataengine.ray_session import init_ray
from schemas.errors import BackendError
from schemas.records import canonical_json

NANO_DIR = Path(__file__).resolve().parent.parent / "nano"


def nano_model_dir() -> Path:
    """Where the small model lies that ships with this package. Raises BackendError where it does not."""
    if not (NANO_DIR / "config.json").is_file():
        raise BackendError(
            "this installation holds no nano model. Install a release that ships it, or use --vlm local:PATH with a "
            "model directory of your own."
        )
    return NANO_DIR


@dataclass(frozen=True, slots=True, kw_only=True)
class Local:
    """Which model directory answers, and how."""

    path: Path
    decode: Decode = field(default_factory=Decode)
    batch_size: int = 8  # questions answered together; memory grows with it
    device: Device = "auto"  # auto: a GPU where there is one

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise BackendError(f"batch_size is {self.batch_size}. Use 1 or more.")
        check_folder(self.path)

    def speaker(self) -> Speaker:
        """Who answers: the directory's name, and as its revision the hash of everything the answers depend on."""
        return Speaker(model=self.path.resolve().name, revision=fingerprint(self.path), decode=self.decode)


class LocalClient:
    """Asks the model of one Local, in actors that stay until `close`, or in this process when `workers` is 0.

    One actor per GPU; without a GPU one actor that computes with all cores.
    """

    def __init__(self, config: Local, *, workers: int | None = None, ray_address: str | None = None) -> None:
        self.config = config
        self.speaker = config.speaker()
        self.stopped = ""
        self._in_process = workers == 0
        self._ray_address = ray_address
        self._actors: list[Any] = []

    def ask(self, requests: Sequence[Request], further: deque[Request] | None = None) -> Iterator[Lot]:
        """Answers as batches get done. Raises BackendError when the model can not be loaded, or every actor died."""
        asked = list(requests)
        while asked or further:
            while further:  # all that can be had, so that those that are alike share batches
                asked += taken(further)
                yield []
            yield from self._answers(asked)
            asked = []

    def _answers(self, requests: Sequence[Request]) -> Iterator[Lot]:
        # The same question about several episodes: prompts and answers of one length, little padding.
        alike = sorted(requests, key=lambda request: request.schema_name)
        batches = [list(batch) for batch in batched(alike, self.config.batch_size)]
        if self._in_process:
            for batch in batches:
                yield list(zip(batch, self._here.answer(batch), strict=True))
        elif batches:
            yield from self._ask_actors(deque(batches))

    @cached_property
    def _here(self) -> "Worker":
        return Worker(self.config)

    def _ask_actors(self, waiting: deque[list[Request]]) -> Iterator[Lot]:
        ray = init_ray(self._ray_address)
        if not self._actors:
            self._actors = self._start(ray)
        idle, running = list(self._actors), dict[Any, tuple[Any, list[Request]]]()
        while waiting or running:
            while waiting and idle:
                actor, batch = idle.pop(), waiting.popleft()
                running[actor.answer.remote(batch)] = (actor, batch)
            (done,), _ = ray.wait(list(running), num_returns=1)
            actor, batch = running.pop(done)
            try:
                answers = ray.get(done)
                idle.append(actor)
            except ray.exceptions.RayActorError as error:  # died again and again: most often of too little memory
                self._actors.remove(actor)
                told = " ".join(str(error).split())[:200]
                answers = [RawAnswer(outcome="error", text=f"the worker died ({told})")] * len(batch)
            yield list(zip(batch, answers, strict=True))
            if not self._actors:
                raise BackendError(
                    f"every worker with '{self.speaker.model}' died, most often of too little memory. Use a smaller "
                    "--batch-size or a smaller model."
                )

    def _start(self, ray: Any) -> list[Any]:  # noqa: ANN401 - the ray module
        num_gpus = 0 if self.config.device == "cpu" else int(ray.cluster_resources().get("GPU", 0))
        # No CPU is asked for: the workers that look at episodes hold them all while they wait for these answers. A
        # worker that dies (out of memory) is started again and asked again.
        remote = ray.remote(num_cpus=0, num_gpus=min(1, num_gpus), max_restarts=2, max_task_retries=2)(Worker)
        actors = [remote.remote(self.config, num_threads=os.cpu_count()) for _ in range(max(1, num_gpus))]
        try:
            problems = [problem for problem in ray.get([actor.load.remote() for actor in actors]) if problem]
        except ray.exceptions.RayActorError as error:
            problems = [
                f"a worker died while it loaded '{self.speaker.model}' ({' '.join(str(error).split())[:200]}). Use a "
                "smaller model, or free memory."
            ]
        if problems:
            for actor in actors:
                ray.kill(actor)
            raise BackendError(problems[0])
        return actors

    def close(self) -> None:
        """Let the actors go, and their memory."""
        if self._actors:
            ray = init_ray(self._ray_address)
            for actor in self._actors:
                ray.kill(actor)
            self._actors = []

    def __enter__(self) -> "LocalClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Worker:
    """Holds the model, in an actor or in this process."""

    def __init__(self, config: Local, num_threads: int | None = None) -> None:
        self._config = config
        self._num_threads = num_threads  # None: as the process has it

    @cached_property
    def _model(self) -> ChatModel:
        if self._num_threads is not None:
            import torch

            torch.set_num_threads(self._num_threads)  # Ray allows one to an actor that asks for no CPU
        return ChatModel(self._config.path, self._config.device)

    def load(self) -> str:
        """Load the model; what is wrong with it, or nothing."""
        try:
            self._model  # noqa: B018 - loading is what is asked
        except BackendError as error:
            return str(error)
        return ""

    def answer(self, requests: Sequence[Request]) -> list[RawAnswer]:
        """One answer per request, in their order."""
        return [raw_answer(answer) for answer in self._model.answer([Prompt.of(request) for request in requests])]


def raw_answer(answer: Answer | NoAnswer) -> RawAnswer:
    """The answer as the call store keeps it."""
    match answer:
        case NoAnswer(reason=reason):
            return RawAnswer(outcome="error", text=reason)
        case Answer():
            return RawAnswer(
                outcome="truncated" if answer.finish == "length" else "success" if answer.text.strip() else "invalid",
                text=answer.text,
                raw_json=canonical_json(asdict(answer)),
                finish_reason=answer.finish,
                input_tokens=answer.prompt_tokens,
                output_tokens=len(answer.tokens),
            )
