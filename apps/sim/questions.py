"""Questions about real frames of the simulator, answered from what the simulator knows.

Each scene is played once without a picture; then moments of the play are set up again and rendered. A question is asked
only where its answer can be seen: a ray from the camera must reach the writing that it is about.
"""

import copy
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import mujoco
import numpy as np
from numpy.typing import NDArray

from apps.sim import game
from apps.sim.recording import encode_rgb
from apps.sim.scripted_operator import ScriptedOperator
from apps.sim.simulate import start_worker
from apps.sim.tabletop import ARMS, CARD_HALF_M, LEDGE_TOP_M
from apps.sim.world import World
from dataengine.rendered import questions
from dataengine.rendered.equations import GAME_MAX_ANSWER, SPLITS, Split
from dataengine.rendered.items import PICTURE_SIZE, Skill
from dataengine.rendered.keyed import keyed_rng
from dataengine.rendered.llava import llava_row, with_cards, write_listing
from dataengine.rendered.styles import draw_style
from dataengine.rendered.table import BOARD_HALF_M, on_board
from dataengine.rendered.views import THINGS
from schemas.errors import UsageError, did_you_mean

CAMERA = "cam_high"
FRAMES_PER_SCENE = 16
_GAME_SPLITS: dict[Split, game.Split] = {"train": "in-domain", "held-out": "open-world"}
_NEAR_HIT_M = 0.003  # a ray that ends this close to a point has reached it: paint lies half a millimetre above its card
_MOVED_M = 0.004  # a card further from its start than this was touched
_LIFTED_M = LEDGE_TOP_M + 0.01  # clear of the table and of the ledge
_TOWARDS_BOARD = [(x, y) for x in np.linspace(-0.85, 0.85, 9) for y in (-0.55, 0.0, 0.55)]  # shares of its half size
_TOWARDS_RIM = [(x, y) for x in (-0.95, 0.0, 0.95) for y in (-0.95, 0.0, 0.95) if x or y]
_TOWARDS_NUMBER = [(0.0, 0.0), (-0.6, -0.6), (-0.6, 0.6), (0.6, -0.6), (0.6, 0.6)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question about one frame."""

    skill: Skill
    question: str
    answer: str
    point_px: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """One scene and how many of its frames are wanted."""

    out: Path
    split: Split
    seed: int
    index: int
    num_frames: int
    hands: float
    tells_cards: bool


def write_questions(
    out: Path,
    *,
    split: Split,
    num_frames: int,
    seed: int,
    frames_per_scene: int = FRAMES_PER_SCENE,
    hands: float = 0.0,
    tells_cards: bool = False,
    workers: int = 1,
) -> Path:
    """Write `num_frames` frames and every question that applies to each, in LLaVA's layout; returns the listing.

    `train` shows in-domain scenes, `held-out` open-world ones. `hands` is the share of scenes written in a hand drawn
    for training; the other scenes then come in all of training's styles instead of the game's few. `tells_cards`: rows
    also say where all cards lie. The content depends on the arguments alone, not on `workers`.
    Raises UsageError for senseless arguments.
    """
    if split not in SPLITS:
        raise UsageError(f"There is no split '{split}'. {did_you_mean(split, SPLITS)}")
    for name, value, least in (
        ("frames", num_frames, 1),
        ("frames a scene", frames_per_scene, 1),
        ("workers", workers, 1),
        ("seed", seed, 0),
    ):
        if value < least:
            raise UsageError(f"{name} is at least {least}, got {value}.")
    if not 0 <= hands <= (1 if split == "train" else 0):
        raise UsageError(f"hands is a share of training's scenes, 0 to 1; got {hands} of {split}.")
    (out / "images").mkdir(parents=True, exist_ok=True)
    jobs = [
        _Job(
            out=out,
            split=split,
            seed=seed,
            index=index,
            num_frames=min(frames_per_scene, num_frames - done),
            hands=hands,
            tells_cards=tells_cards,
        )
        for index, done in enumerate(range(0, num_frames, frames_per_scene))
    ]
    return write_listing(out, [row for rows in _run(jobs, workers=workers) for row in rows])


def _run(jobs: list[_Job], *, workers: int) -> Iterator[list[dict[str, object]]]:
    if min(workers, len(jobs)) <= 1:
        yield from _ask_about(jobs)
        return
    # Spawned, not forked: a graphics context does not survive a fork. Neighbouring scenes share one.
    context = multiprocessing.get_context("spawn")
    pieces = [jobs[start::workers] for start in range(workers)]
    with ProcessPoolExecutor(workers, mp_context=context, initializer=start_worker) as pool:
        done = list(pool.map(_list_about, pieces))
    for number in range(len(jobs)):
        yield done[number % workers][number // workers]


def _list_about(jobs: list[_Job]) -> list[list[dict[str, object]]]:
    return list(_ask_about(jobs))


def _ask_about(jobs: list[_Job]) -> Iterator[list[dict[str, object]]]:
    """The rows of each scene; its frames are written."""
    stage: _Stage | None = None
    try:
        for job in jobs:
            scene = game.draw_scene(split=_GAME_SPLITS[job.split], seed=job.seed, index=job.index)
            if job.hands:
                rng = keyed_rng("hand", job.split, job.seed, job.index)
                scene = replace(scene, style=draw_style(job.split, share=1.0, hands=job.hands, rng=rng))
            with World(scene, image_size=PICTURE_SIZE) as world:
                stage = stage or _Stage(world)
                stage.dress(world)
                yield list(_rows(job, world, stage))
    finally:
        if stage is not None:
            stage.close()


def _rows(job: _Job, world: World, stage: "_Stage") -> Iterator[dict[str, object]]:
    rng = keyed_rng("questions", job.split, job.seed, job.index)
    states = _play(world, slot=int(rng.integers(3)))
    for number, moment in enumerate(_moments(len(states), job.num_frames, rng)):
        world.data.qpos[:] = states[moment]
        mujoco.mj_forward(world.model, world.data)
        name = f"{job.split}-{job.seed}-{job.index}-{number}"
        image = f"images/{name}.jpg"
        (job.out / image).write_bytes(encode_rgb(stage.render(world)))
        found = ask(world, rng)
        cards = list(_cards(world)) if job.tells_cards else []
        for asked in found:
            row = llava_row(
                f"{name}-{asked.skill}",
                image=image,
                skill=asked.skill,
                question=asked.question,
                answer=asked.answer,
                point_px=asked.point_px,
            )
            yield with_cards(row, cards) if job.tells_cards else row


def _cards(world: World) -> Iterator[tuple[int | None, float, float]]:
    """What each card shows, as far as it can be read, and where the middle of its label is in the picture."""
    sight = _Sight(world)
    for slot, card in enumerate(world.scene.cards):
        yield card.number if sight.card(slot) else None, *_label_px(world, slot)


def _label_px(world: World, slot: int) -> tuple[float, float]:
    return world.project(CAMERA, world.card_centre_m(slot) + np.array([0.0, 0.0, CARD_HALF_M[2]]))


def _play(world: World, *, slot: int) -> list[NDArray[np.float64]]:
    """The state before every step of one scripted play; the card picked need not be the right one."""
    states = []
    for action in ScriptedOperator(world, slot=slot).actions():
        states.append(world.data.qpos.copy())
        world.step(action)
    states.append(world.data.qpos.copy())
    return states


def _moments(num_states: int, num_frames: int, rng: np.random.Generator) -> list[int]:
    """The start, then random moments: half of them early, where cards lie as they were laid."""
    early = max(2, num_states // 4)
    most = min(num_frames, num_states) - 1
    num_early = min(most // 2, early - 1)
    moments = [*rng.choice(np.arange(1, early), num_early, replace=False)]
    moments += [*rng.choice(np.arange(early, num_states), min(most - num_early, num_states - early), replace=False)]
    return [0, *sorted(int(moment) for moment in moments)]


def ask(world: World, rng: np.random.Generator) -> list[Asked]:
    """Every question that the present moment of a world answers."""
    scene = world.scene
    numbers = [card.number for card in scene.cards]
    sight = _Sight(world)
    seen = [sight.card(slot) for slot in range(3)]
    board = sight.board()
    untouched = all(
        np.hypot(*(world.card_centre_m(slot)[:2] - (card.x_m, card.y_m))) < _MOVED_M
        and abs(world.card_centre_m(slot)[2] - CARD_HALF_M[2]) < _MOVED_M
        for slot, card in enumerate(scene.cards)
    )
    cards = untouched and all(seen)
    found: list[Asked] = []

    def add(skill: Skill, answer: str, **words: object) -> None:
        found.append(Asked(skill=skill, question=questions.phrase(skill, rng, **words), answer=answer))

    if board:
        add("transcribe", questions.transcribed(scene.equation))
        add("solve", questions.solved(scene.equation))
    if cards:
        add("cards", questions.listed(numbers))
        add("count", questions.counted(3))
    if board and cards:
        add("choice", questions.chosen(scene.equation, numbers))
        add("trace", questions.traced(scene.equation, numbers))
    if any(seen):
        slot = int(rng.choice(np.flatnonzero(seen)))
        point_px = _label_px(world, slot)
        question = questions.phrase("point", rng, number=numbers[slot])
        found.append(Asked(skill="point", question=question, answer=questions.pointed(point_px), point_px=point_px))
    held = _held(world)
    if held is not None and sight.part_of_card(held[1]):
        side, slot = held
        add("gripper", questions.held(side, numbers[slot] if seen[slot] else None))
    elif held is None and all(seen):
        # A hand that hides a card may or may not hold it.
        add("gripper", questions.held(None, None))
    question, answer = _absent(numbers if all(seen) else None, rng)
    found.append(Asked(skill="refusal", question=question, answer=answer))
    return found


def _absent(numbers: list[int] | None, rng: np.random.Generator) -> tuple[str, str]:
    """A question about a card or a thing that is not there; about a thing where some card's number is hidden."""
    if rng.random() < 0.5 and numbers is not None:
        missing = [number for number in range(GAME_MAX_ANSWER + 1) if number not in numbers]
        number = int(rng.choice(missing))
        return questions.phrase("point", rng, number=number), f"There is no card {number}."
    thing = THINGS[int(rng.integers(len(THINGS)))]
    return questions.phrase("colour", rng, thing=thing), f"There is no {thing}."


def _held(world: World) -> tuple[str, int] | None:
    """Which arm has lifted which card: both its fingers touch it, and it is clear of what it lay on."""
    model = world.model
    touching = [{model.body(model.geom_bodyid[geom]).name for geom in pair} for pair in world.data.contact.geom]
    for slot in range(3):
        lifted_m = world.card_centre_m(slot)[2] - CARD_HALF_M[2]
        for side in ARMS:
            if lifted_m > _LIFTED_M and all({f"card{slot}", f"{side}_finger_{f}"} in touching for f in "ab"):
                return side, slot
    return None


class _Sight:
    """What the camera sees of a moment, by rays."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._eye_m = np.array(world.data.cam_xpos[world.model.camera(CAMERA).id])
        self._met = np.zeros(1, dtype=np.int32)

    def board(self) -> bool:
        """Nothing lies before the writing on the board."""
        half_x, half_y = BOARD_HALF_M
        points = [np.array(on_board(x * half_x, half_y * (1 + y) + 0.008)) for x, y in _TOWARDS_BOARD]
        return all(self._reaches(point) for point in points)

    def card(self, slot: int) -> bool:
        """Nothing lies before a card's number."""
        return all(self._reaches(point_m) for point_m in self._on_card(slot, _TOWARDS_NUMBER))

    def part_of_card(self, slot: int) -> bool:
        """Two of a card's corners and sides peek out."""
        return sum(self._reaches(point_m) for point_m in self._on_card(slot, _TOWARDS_RIM)) >= 2

    def _on_card(self, slot: int, shares: list[tuple[float, float]]) -> NDArray[np.float64]:
        """Points of a card's upper face, (N, 3)."""
        yaw_rad = self._world.card_yaw_rad(slot)
        turn = np.array([[np.cos(yaw_rad), np.sin(yaw_rad)], [-np.sin(yaw_rad), np.cos(yaw_rad)]])
        flat = np.array(shares) * CARD_HALF_M[:2] @ turn
        raised = np.column_stack([flat, np.full(len(flat), CARD_HALF_M[2])])
        return np.asarray(raised + self._world.card_centre_m(slot), dtype=np.float64)

    def _reaches(self, point_m: NDArray[np.float64]) -> bool:
        way_m = point_m - self._eye_m
        world = self._world
        share = mujoco.mj_ray(world.model, world.data, self._eye_m, way_m, None, 1, -1, self._met)
        return bool(share < 0 or (1 - share) * np.linalg.norm(way_m) < _NEAR_HIT_M)


class _Stage:
    """One graphics context for many scenes: all have the same parts, so only paint and light are exchanged."""

    def __init__(self, world: World) -> None:
        width, height = world.image_size
        self._model = copy.deepcopy(world.model)
        self._gl = mujoco.GLContext(width, height)
        self._gl.make_current()
        self._scene = mujoco.MjvScene(self._model, 1000)
        self._context = mujoco.MjrContext(self._model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._camera.fixedcamid = self._model.camera(CAMERA).id
        self._area = mujoco.MjrRect(0, 0, width, height)
        self._pixels = np.empty((height, width, 3), dtype=np.uint8)

    def dress(self, world: World) -> None:
        """Make the stage look like a world's scene."""
        self._model.tex_data[:] = world.model.tex_data
        self._model.light_dir[:] = world.model.light_dir
        self._model.light_diffuse[:] = world.model.light_diffuse
        for texture in range(self._model.ntex):
            mujoco.mjr_uploadTexture(self._model, self._context, texture)

    def render(self, world: World) -> NDArray[np.uint8]:
        """What the upper camera sees of a world now, (height, width, 3) RGB."""
        everything, option = mujoco.mjtCatBit.mjCAT_ALL, mujoco.MjvOption()
        mujoco.mjv_updateScene(self._model, world.data, option, None, self._camera, everything, self._scene)
        mujoco.mjr_render(self._area, self._scene, self._context)
        mujoco.mjr_readPixels(self._pixels, None, self._area, self._context)
        return self._pixels[::-1].copy()

    def close(self) -> None:
        """Frees the graphics context."""
        self._context.free()
        self._gl.free()
