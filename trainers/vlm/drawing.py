"""Lessons drawn ahead of the model that learns from them: by a thread, or beside a GPU by processes.

A batch is a pure function of its step, so who draws it changes nothing.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Protocol

import torch
from torch.utils.data import DataLoader, Dataset

from trainers.vlm.config import VlmConfig
from trainers.vlm.lessons import Lesson, LessonBatch, LessonCollator
from trainers.vlm.phase import Phase


class Lessons(Protocol):
    """Where pictures with questions come from; a pure function of the step."""

    @property
    def fingerprint(self) -> str: ...
    def step(self, phase: Phase, phase_step: int, step: int) -> list[Lesson]: ...


@dataclass(frozen=True, kw_only=True)
class LessonSteps(Dataset[LessonBatch]):
    """The batches of steps `start` to `end`, of which each can be drawn alone."""

    config: VlmConfig
    lessons: Lessons
    collate: LessonCollator
    start: int
    end: int

    def __len__(self) -> int:
        return max(0, self.end - self.start)

    def __getitem__(self, number: int) -> LessonBatch:
        step = self.start + number
        phase, phase_step = self.config.phase_at(step)
        return self.collate(self.lessons.step(phase, phase_step, step))


def batches(steps: LessonSteps, device: torch.device) -> Iterator[tuple[int, LessonBatch]]:
    """Beside a GPU, which learns faster than one core draws, every other core draws lessons."""
    if device.type == "cuda":
        return drawn_by_processes(steps, num_workers=max(1, len(os.sched_getaffinity(0)) - 1))
    return drawn_by_a_thread(steps)


def drawn_by_a_thread(steps: LessonSteps) -> Iterator[tuple[int, LessonBatch]]:
    """One ahead: two cores have no third to draw on."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="lessons") as pool:
        ahead = pool.submit(steps.__getitem__, 0) if len(steps) else None
        for number in range(len(steps)):
            assert ahead is not None
            batch = ahead.result()
            ahead = pool.submit(steps.__getitem__, number + 1) if number + 1 < len(steps) else None
            yield steps.start + number, batch


def drawn_by_processes(steps: LessonSteps, *, num_workers: int) -> Iterator[tuple[int, LessonBatch]]:
    server = get_context("forkserver")
    server.set_forkserver_preload([__name__, "trainers.vlm.rendered_lessons"])  # once, not in each worker
    loader = DataLoader(
        steps,
        batch_size=None,  # an element is a batch
        num_workers=num_workers,
        prefetch_factor=4,
        worker_init_fn=_alone,
        # A fork of a process whose OpenMP threads have run waits for them for ever; this server has run none.
        multiprocessing_context=server,
    )
    yield from enumerate(loader, steps.start)


def _alone(worker: int) -> None:
    """OpenCV starts as many threads as there are cores, in each worker."""
    import cv2

    cv2.setNumThreads(1)
