"""`dataengine simulate`: a folder of raw teleoperation episodes, as a lab's recording station leaves it.

`<out>/episode_N.hdf5` and `<out>/metadata.csv` are what a lab has. What only a simulator can know goes to
`<out>.ground_truth/episode_N.json`, beside the raw folder and not in it: scoring reads it, nothing else may.
"""

import csv
import json
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Literal, get_args

from apps.sim.game import SPLITS, TASK, Split, draw_scene
from apps.sim.toys import draw_toy_scene
from schemas.errors import EpisodeError, UsageError, did_you_mean

CSV_COLUMNS = ("file", "task", "operator", "session", "station", "scene", "outcome", "licence")
TaskName = Literal["math-matching", "toy-placement"]
TASKS: tuple[TaskName, ...] = get_args(TaskName)
_MIN_SIDE_PX, _MAX_SIDE_PX = 64, 1920


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulateReport:
    """What a run left on disk: all episodes of the folder, also those of earlier runs."""

    out: Path
    ground_truth: Path
    num_episodes: int
    num_already_there: int
    num_discarded: int  # failed demonstrations that were played again
    skipped: tuple[int, ...]  # episodes whose scene the scripted operator could not play
    num_frames: int
    num_bytes: int
    wall_s: float

    def to_json(self) -> dict[str, object]:
        """Plain values for `--json`."""
        return {**asdict(self), "out": str(self.out), "ground_truth": str(self.ground_truth)}

    def summary(self) -> str:
        """One line for people."""
        again = f", {self.num_already_there} of them already there" if self.num_already_there else ""
        names = ", ".join(f"episode_{index}" for index in self.skipped)
        skipped = f"; left out, because the scripted operator failed every time: {names}" if names else ""
        discarded = f"; {self.num_discarded} failed demonstrations played again" if self.num_discarded else ""
        return (
            f"{self.num_episodes} episodes ({self.num_frames} frames, {self.num_bytes / 1e6:.0f} MB) in {self.out}"
            f"{again}{discarded}{skipped}; {self.wall_s:.0f} s"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """One episode to record."""

    path: Path
    truth_path: Path
    task: TaskName
    split: Split
    seed: int
    index: int
    image_size: tuple[int, int]


def simulate(
    *,
    out: Path,
    num_episodes: int,
    split: Split,
    seed: int,
    task: TaskName = "math-matching",
    image_size: tuple[int, int] = (320, 240),
    workers: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> SimulateReport:
    """Records successful demonstrations 0 to `num_episodes` - 1; what the folder holds already, more too, stays.

    Episode N depends on (task, split, seed, N) alone. Raises UsageError for senseless arguments and for a folder that
    holds episodes of another recipe, EpisodeError where no scene at all could be played.
    """
    started_s = time.monotonic()
    _check(out, num_episodes=num_episodes, split=split, seed=seed, image_size=image_size, workers=workers)
    if task not in TASKS:
        raise UsageError(f"There is no task '{task}'. {did_you_mean(task, TASKS)}")
    truth = out.with_name(f"{out.name}.ground_truth")
    recipe: dict[str, object] = {"split": split, "seed": seed, "image_size": list(image_size)}
    if task != TASKS[0]:  # folders from before there was a second task hold the first
        recipe["task"] = task
    _claim(out, truth, recipe=recipe)
    jobs = [
        _Job(
            path=out / f"episode_{index}.hdf5",
            truth_path=truth / f"episode_{index}.json",
            task=task,
            split=split,
            seed=seed,
            index=index,
            image_size=image_size,
        )
        for index in range(num_episodes)
    ]
    missing = [job for job in jobs if not (job.path.exists() and job.truth_path.exists())]
    done = num_episodes - len(missing)
    if on_progress:
        on_progress(done, num_episodes)
    failures: dict[int, str] = {}
    for index, failure in _run(missing, workers=workers):
        if failure:
            failures[index] = failure
        done += 1
        if on_progress:
            on_progress(done, num_episodes)
    truths = _present(out, truth)
    if not truths:
        raise EpisodeError(failures[min(failures)])
    _write_metadata(out / "metadata.csv", truths.values())
    return SimulateReport(
        out=out,
        ground_truth=truth,
        num_episodes=len(truths),
        num_already_there=len(truths) - len(missing) + len(failures),
        num_discarded=sum(int(row["attempt"]) for row in truths.values()),
        skipped=tuple(sorted(failures)),
        num_frames=sum(int(row["num_frames"]) for row in truths.values()),
        num_bytes=sum((out / f"episode_{index}.hdf5").stat().st_size for index in truths),
        wall_s=time.monotonic() - started_s,
    )


def _present(out: Path, truth: Path) -> dict[int, dict[str, Any]]:
    """The ground truth of every episode the folder holds, by number."""
    rows = (json.loads(path.read_text()) for path in truth.glob("episode_*.json"))
    by_number = {int(row["index"]): row for row in rows}
    return {index: by_number[index] for index in sorted(by_number) if (out / f"episode_{index}.hdf5").exists()}


def _check(out: Path, *, num_episodes: int, split: str, seed: int, image_size: tuple[int, int], workers: int) -> None:
    if split not in SPLITS:
        raise UsageError(f"There is no split '{split}'. {did_you_mean(split, SPLITS)}")
    for name, value, least in (("episodes", num_episodes, 1), ("workers", workers, 1), ("seed", seed, 0)):
        if value < least:
            raise UsageError(f"--{name} is at least {least}, got {value}.")
    if not all(_MIN_SIDE_PX <= side <= _MAX_SIDE_PX for side in image_size):
        raise UsageError(
            f"--image-size lies between {_MIN_SIDE_PX} and {_MAX_SIDE_PX} pixels a side,"
            f" got {image_size[0]}x{image_size[1]}. Try 320x240."
        )
    if not out.name:
        raise UsageError(f"--out {out} has no name of its own. Name a new folder.")
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file. Name a new folder.")


def _claim(out: Path, truth: Path, *, recipe: dict[str, object]) -> None:
    """Makes the folders, or checks that what lies there came from the same recipe."""
    recipe_path = truth / "recipe.json"
    if recipe_path.exists():
        found = json.loads(recipe_path.read_text())
        if found != recipe:
            was, wanted = ({"task": TASKS[0], **each} for each in (found, recipe))
            differs = ", ".join(
                f"{key} {was.get(key)}, not {wanted[key]}" for key in wanted if was.get(key) != wanted[key]
            )
            raise UsageError(f"{out} holds episodes of another recipe ({differs}). Name another --out.")
    elif out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} holds files that simulate did not write. Name another --out.")
    out.mkdir(parents=True, exist_ok=True)
    truth.mkdir(parents=True, exist_ok=True)
    for leftover in out.glob(".episode_*.part"):
        leftover.unlink()
    _write_text(recipe_path, json.dumps(recipe))


def _run(jobs: list[_Job], *, workers: int) -> Iterator[tuple[int, str | None]]:
    """Record every job; yields its number, and why there is no episode where its scene could not be played."""
    if min(workers, len(jobs)) <= 1:
        for job in jobs:
            yield job.index, _record(job)
        return
    # Spawned, not forked: a graphics context does not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context, initializer=start_worker) as pool:
        futures = {pool.submit(_record, job): job for job in jobs}
        try:
            for future in as_completed(futures):
                yield futures[future].index, future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _record(job: _Job) -> str | None:
    """Record one episode; the reason where its scene could not be played: the others are recorded all the same."""
    # Imported here: the command line checks arguments before it loads MuJoCo.
    from apps.sim.recording import record, write_episode

    draw = draw_toy_scene if job.task == "toy-placement" else draw_scene
    try:
        recording = record(draw(split=job.split, seed=job.seed, index=job.index), image_size=job.image_size)
    except EpisodeError as error:
        return str(error)
    # The truth first: an episode file under its own name means that both are there.
    _write_text(job.truth_path, json.dumps(recording.ground_truth(), indent=1))
    write_episode(recording, job.path)
    return None


def start_worker() -> None:
    """Draws on one thread, and ends with its parent: a worker whose parent was killed would wait for ever."""
    # Mesa's software renderer would start a thread per core in every worker, which costs more than it gains.
    os.environ.setdefault("LP_NUM_THREADS", "0")
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _write_metadata(path: Path, truths: Iterable[dict[str, Any]]) -> None:
    """What a lab writes down about its episodes; nothing that gives the answer away."""
    unfinished = path.with_name(f".{path.name}.part")
    with unfinished.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(CSV_COLUMNS)
        for row in truths:
            rows.writerow(
                (
                    f"episode_{row['index']}.hdf5",
                    row.get("instruction", TASK),
                    row["operator"],
                    f"{row['split']}-{row['seed']}",
                    "sim-tabletop",
                    row["layout"],
                    "success",
                    "CC0-1.0",
                )
            )
    unfinished.replace(path)


def _write_text(path: Path, text: str) -> None:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    unfinished.write_text(text)
    unfinished.replace(path)
