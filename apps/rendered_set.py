"""`render`: pictures of whiteboards and tables with questions and answers, as a LLaVA-style folder."""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from apps.sim.simulate import start_worker
from dataengine.rendered import SKILLS, Skill, Split, render_item
from dataengine.rendered.llava import IMAGES, LISTING, write_item, write_listing
from schemas.errors import UsageError, did_you_mean

_TOGETHER = 16  # rows that a worker draws before it says so


def write_rendered_set(
    out: Path,
    *,
    skills: Sequence[str],
    rows_per_skill: int,
    split: Split,
    seed: int,
    workers: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write a picture with a question for each row of each skill (none named: all); returns how many.

    The content depends on the arguments alone, not on `workers`; the listing is written last, so a folder that has one
    is whole. Raises UsageError for a skill that does not exist and for a folder that holds a set already.
    """
    if (out / LISTING).exists():
        raise UsageError(
            f"'{out.name}' holds a set of questions already. Delete it, or name another folder: --out DIR."
        )
    jobs = [(_skill(name), row) for name in dict.fromkeys(skills or SKILLS) for row in range(rows_per_skill)]
    (out / IMAGES).mkdir(parents=True, exist_ok=True)
    draw = partial(_draw, out, split, seed)
    rows: list[dict[str, object]] = []
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=start_worker) as pool:
        for row in pool.map(draw, jobs, chunksize=_TOGETHER):
            rows.append(row)
            if on_progress:
                on_progress(len(rows), len(jobs))
    write_listing(out, rows)
    return len(rows)


def _skill(name: str) -> Skill:
    for skill in SKILLS:
        if skill == name:
            return skill
    raise UsageError(f"there is no skill '{name}'. {did_you_mean(name, SKILLS)}")


def _draw(out: Path, split: Split, seed: int, job: tuple[Skill, int]) -> dict[str, object]:
    skill, row = job
    return write_item(out, render_item(split=split, seed=seed, row=row, skill=skill))
