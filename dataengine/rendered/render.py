"""Rendering one item, the held-out set, and the hash that freezes it."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from dataengine.rendered import questions
from dataengine.rendered.arms import SIDES, home
from dataengine.rendered.camera import table_camera
from dataengine.rendered.closeup import draw_close_up, intrude
from dataengine.rendered.equations import SPLITS, Split
from dataengine.rendered.items import FULL, SKILLS, Difficulty, Glyph, Item, Skill
from dataengine.rendered.keyed import keyed_rng
from dataengine.rendered.scenes import Painter, Plan
from dataengine.rendered.table import DrawnTable, any_hidden, draw_table
from dataengine.rendered.views import CloseUp, TableView
from dataengine.rendered.weather import weathered
from schemas.errors import UsageError, did_you_mean


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drawn:
    """An item, what was planned, and where things came to lie; `table` is None for a close-up."""

    item: Item
    plan: Plan
    table: DrawnTable | None


def render_item(*, split: Split, seed: int, row: int, skill: Skill, difficulty: Difficulty = FULL) -> Item:
    """One picture with its question and answer: a pure function of its arguments.

    Raises UsageError for a split or a skill that does not exist, and for a negative seed or row.
    """
    return draw_item(split=split, seed=seed, row=row, skill=skill, difficulty=difficulty).item


def draw_item(
    *, split: Split, seed: int, row: int, skill: Skill, difficulty: Difficulty, most_cards: int | None = None
) -> Drawn:
    """What `render_item` gives, with all that is known about the picture; `most_cards` as in `Painter`."""
    plan, rng = _planned(split=split, seed=seed, row=row, skill=skill, difficulty=difficulty, most_cards=most_cards)
    answer, point_px, table = plan.answer, None, None
    glyphs: tuple[Glyph, ...]
    match plan.view:
        case CloseUp():
            picture, written = draw_close_up(
                plan.view, geometry=difficulty.geometry, colours=difficulty.styles, rng=rng
            )
            if rng.random() < 0.3 * difficulty.weather:
                intrude(picture, written, rng)
            glyphs = tuple(written)
        case TableView():
            table = drawn = _in_plain_sight(plan, plan.view, difficulty, key=(split, seed, row, skill))
            picture, glyphs = drawn.picture, drawn.glyphs
            if plan.point_card is not None:
                point_px = drawn.card_px[plan.point_card]
                answer = questions.pointed(point_px)
            if plan.if_hidden is not None and not _held_is_seen(plan.view, drawn):
                answer = plan.if_hidden
    item = Item(
        row_id=f"{split}-{skill}-{seed}-{row}",
        skill=skill,
        picture=weathered(picture, strength=difficulty.weather, rng=rng),
        question=plan.question,
        answer=answer,
        glyphs=glyphs,
        point_px=point_px,
    )
    return Drawn(item=item, plan=plan, table=table)


def held_out(skill: Skill, num: int, seed: int = 0) -> Iterator[Item]:
    """The frozen set that a model is asked about and never trained on."""
    for row in range(num):
        yield render_item(split="held-out", seed=seed, row=row, skill=skill)


def plans_hash(skills: Sequence[Skill], num_per_skill: int, seed: int = 0) -> str:
    """sha256 over what a held-out set asks, shows and where: record it before training.

    Not over pixels: the same libraries round them otherwise on another processor.
    """
    digest = hashlib.sha256()
    for skill in skills:
        for row in range(num_per_skill):
            plan, _ = _planned(split="held-out", seed=seed, row=row, skill=skill, difficulty=FULL)
            part = json.dumps([skill, seed, row, _rounded(asdict(plan))], sort_keys=True).encode()
            digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def _rounded(value: Any) -> Any:  # noqa: ANN401 - what JSON holds
    """The same with six digits of each number, which every processor agrees on."""
    match value:
        case dict():
            return {key: _rounded(part) for key, part in value.items()}
        case list() | tuple():
            return [_rounded(part) for part in value]
        case float():
            return f"{value:.6g}"
        case _:
            return value


def _planned(
    *, split: Split, seed: int, row: int, skill: Skill, difficulty: Difficulty, most_cards: int | None = None
) -> tuple[Plan, np.random.Generator]:
    """The plan of an item, and the randomness that is left for drawing it."""
    _check(split=split, seed=seed, row=row, skill=skill)
    rng = keyed_rng("rendered", split, seed, row, skill)
    return Painter(split=split, difficulty=difficulty, rng=rng, most_cards=most_cards).plan(skill), rng


def _in_plain_sight(
    plan: Plan, view: TableView, difficulty: Difficulty, *, key: tuple[str, int, int, str]
) -> DrawnTable:
    """Draw the table; where an arm or the picture's edge hides what is asked, arms go home, then the camera too."""
    at_home = tuple(home(side) for side in SIDES)
    tries: tuple[tuple[TableView, float], ...] = (
        (view, difficulty.geometry),
        (replace(view, arms=at_home), 0.5 * difficulty.geometry),
        (replace(view, arms=at_home), 0.0),
    )
    for attempt, (seen, freedom) in enumerate(tries):
        rng = keyed_rng("drawn", *key, attempt)
        camera = table_camera(freedom=freedom, rng=rng)
        light = (0.10 * float(rng.uniform(-1, 1)), 0.12 + 0.05 * float(rng.uniform(-1, 1)))
        last = attempt == len(tries) - 1
        # Laying an arm's outline over a few places is quick, so most of what is hidden is found before it is drawn.
        if not last and any_hidden(seen, camera, cards=plan.needs_cards, board=plan.needs_board):
            continue
        drawn = draw_table(seen, camera, light=light, rng=rng)
        if _shows(plan, drawn):
            return drawn
    raise AssertionError(f"{key}: the tabletop's own camera and arms at home hide what is asked")


def _shows(plan: Plan, drawn: DrawnTable) -> bool:
    if plan.needs_board and not drawn.board_seen:
        return False
    if plan.needs_things and not drawn.things_seen:
        return False
    return all(drawn.card_seen[number] for number in plan.needs_cards)


def _held_is_seen(view: TableView, drawn: DrawnTable) -> bool:
    return all(drawn.card_seen[pose.holds] for pose in view.arms if pose.holds is not None)


def _check(*, split: str, seed: int, row: int, skill: str) -> None:
    if split not in SPLITS:
        raise UsageError(f"There is no split '{split}'. {did_you_mean(split, SPLITS)}")
    if skill not in SKILLS:
        raise UsageError(f"There is no skill '{skill}'. {did_you_mean(skill, SKILLS)}")
    if seed < 0 or row < 0:
        raise UsageError(f"Seeds and rows count from 0, got seed {seed} and row {row}.")
