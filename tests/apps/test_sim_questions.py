"""Questions about the simulator's own frames, and how like them the painted tables are."""

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from apps.sim import game
from apps.sim.questions import ask, write_questions
from apps.sim.scripted_operator import ScriptedOperator
from apps.sim.tabletop import CARD_HALF_M
from apps.sim.world import World
from dataengine.mix.image_text import JsonImageText, read_image_text
from dataengine.rendered.arms import SIDES, home
from dataengine.rendered.camera import table_camera
from dataengine.rendered.equations import SPLITS, Split
from dataengine.rendered.keyed import keyed_rng
from dataengine.rendered.table import draw_table
from dataengine.rendered.views import Board, NumberCard, TableView
from schemas.errors import UsageError
from schemas.mixes import LlavaSource
from trainers.vlm.rendered_lessons import Frames


def painted(scene: game.Scene) -> np.ndarray:
    """A scene as the renderer paints it, from the tabletop's own camera."""
    cards = tuple(NumberCard(number=c.number, place=(float(c.x_m), float(c.y_m), c.yaw_rad)) for c in scene.cards)
    view = TableView(
        style=scene.style,
        board=Board(text=f"{scene.equation.text}=?"),
        cards=cards,
        things=(),
        arms=tuple(home(side) for side in SIDES),
    )
    rng = keyed_rng("painted")
    return draw_table(view, table_camera(freedom=0, rng=rng), light=(0.0, 0.12), rng=rng).picture


def test_the_painters_camera_is_the_simulators() -> None:
    scene = game.draw_scene(split="in-domain", seed=0, index=0)
    camera = table_camera(freedom=0, rng=keyed_rng("any"))
    with World(scene) as world:
        for point_m in np.random.default_rng(0).uniform([-0.2, -0.1, 0.0], [0.2, 0.3, 0.2], (20, 3)):
            assert camera.project(point_m[None])[0] == pytest.approx(world.project("cam_high", point_m), abs=0.3)


@pytest.mark.parametrize("index", [0, 3])
def test_a_painted_table_is_like_the_simulators_frame_of_the_same_scene(index: int) -> None:
    scene = game.draw_scene(split="in-domain", seed=2, index=index)
    with World(scene) as world:
        frame = world.render("cam_high").astype(int)
    apart = np.abs(painted(scene).astype(int) - frame)
    assert np.median(apart) <= 6
    assert apart.mean() <= 14
    other = painted(game.draw_scene(split="in-domain", seed=2, index=index + 1))
    assert np.abs(other.astype(int) - frame)[:80].mean() > 1.1 * apart[:80].mean()


@pytest.mark.parametrize("split", SPLITS)
def test_written_questions_read_back_and_stay_on_their_side_of_the_split(tmp_path: Path, split: Split) -> None:
    listing = write_questions(tmp_path, split=split, num_frames=20, seed=3, workers=1)
    source = LlavaSource(name="frames", path=listing.name, weight=1.0)
    read = read_image_text(source, JsonImageText(source, tmp_path))
    assert not read.rejected
    rows = json.loads(listing.read_text())
    assert len({row["image"] for row in rows}) == 20
    assert {"transcribe", "solve", "cards", "choice", "trace", "count", "point", "gripper", "refusal"} == {
        row["skill"] for row in rows
    }
    mine = {e.text for e in game.equations({"train": "in-domain", "held-out": "open-world"}[split])}  # type: ignore[arg-type]
    for row in rows:
        answer = row["conversations"][1]["value"]
        if row["skill"] == "transcribe":
            assert re.fullmatch(r"The board reads (\S+)\.", answer)[1] in mine  # type: ignore[index]
        if row["skill"] == "point":
            picture = cv2.imread(str(tmp_path / row["image"]))
            column, line = (round(place) for place in row["point_px"])
            assert answer == f"({column}, {line})"
            assert np.mean(picture[line - 7 : line + 8, column - 9 : column + 10].min(axis=-1) > 225) > 0.5


def test_frames_to_learn_from_tell_where_all_cards_lie_and_frames_to_be_asked_about_do_not(tmp_path: Path) -> None:
    rows = json.loads(
        write_questions(tmp_path / "learn", split="train", num_frames=12, seed=4, tells_cards=True).read_text()
    )
    for row in rows:
        cards = {number: (x_px, y_px) for number, x_px, y_px in row["cards_px"]}
        assert len(row["cards_px"]) == 3
        if row["skill"] == "point":
            [number] = map(int, re.findall(r"\d+", row["conversations"][0]["value"]))
            assert cards[number] == pytest.approx(row["point_px"])
        if row["skill"] == "cards":
            assert list(map(str, cards)) == re.findall(r"\d+", row["conversations"][1]["value"])
    asked = json.loads(write_questions(tmp_path / "ask", split="held-out", num_frames=2, seed=4).read_text())
    assert not any("cards_px" in row for row in asked)  # nor do those of recipes that ask for none
    learned, exams = (Frames.open(tmp_path / name) for name in ("learn", "ask"))
    skills = frozenset(row["skill"] for row in rows)
    lessons = [learned.lesson(number, skills, 9, np.random.default_rng(number)) for number in range(12)]
    assert all(lesson is not None and lesson.are_all_cards and len(lesson.cards) == 3 for lesson in lessons)
    looks = [each for lesson in lessons if lesson for each in lesson.asked if each.looks]
    assert {"There", "Cards:"} <= {each.answer.split()[0] for each in looks}
    assert {exam.skill for exam in exams.exams(9) if exam.asked.looks} == {"point"}


def test_fewer_frames_a_scene_are_more_scenes_and_hands_are_drawn_for_training_alone(tmp_path: Path) -> None:
    def scenes(**arguments: Any) -> set[str]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        rows = json.loads(write_questions(folder, split="train", num_frames=8, seed=4, **arguments).read_text())
        return {row["image"].split("-")[2] for row in rows}

    assert scenes() == {"0"}
    assert scenes(frames_per_scene=2, hands=1.0) == {"0", "1", "2", "3"}
    plain, drawn = (cv2.imread(str(tmp_path / name / "images/train-4-0-0.jpg")).astype(int) for name in ("0", "1"))
    assert np.abs(plain - drawn)[:110].mean() > 1  # the board is written by another hand
    for split, hands in (("held-out", 0.1), ("train", 1.5), ("train", -0.5)):
        with pytest.raises(UsageError, match=f"hands is a share of training's scenes, 0 to 1; got {hands} of {split}"):
            write_questions(tmp_path / "no", split=split, num_frames=1, seed=4, hands=hands)  # type: ignore[arg-type]
    assert not (tmp_path / "no").exists()
    with pytest.raises(UsageError, match="frames a scene is at least 1, got 0"):
        scenes(frames_per_scene=0)


def test_the_same_arguments_give_the_same_frames_and_rows_whatever_the_workers(tmp_path: Path) -> None:
    one = write_questions(tmp_path / "one", split="train", num_frames=36, seed=5, workers=1)
    two = write_questions(tmp_path / "two", split="train", num_frames=36, seed=5, workers=2)
    assert one.read_bytes() == two.read_bytes()
    for path in sorted((tmp_path / "one" / "images").iterdir()):
        assert path.read_bytes() == (tmp_path / "two" / "images" / path.name).read_bytes()


def test_answers_follow_the_play_from_the_start_to_the_card_in_the_gripper_to_the_ledge() -> None:
    scene = game.draw_scene(split="open-world", seed=6, index=2)
    rng = np.random.default_rng(0)
    said = {}
    with World(scene) as world:
        operator = ScriptedOperator(world)
        start = {asked.skill: asked for asked in ask(world, rng)}
        for action in operator.actions():
            world.step(action)
            for asked in ask(world, rng) if world.num_steps % 5 == 0 else ():
                if asked.skill == "gripper":
                    said[asked.answer] = world.card_centre_m(scene.correct_slot)[2]
        end = {asked.skill: asked for asked in ask(world, rng)}
    numbers = [card.number for card in scene.cards]
    assert start["cards"].answer == "Cards: {} (left), {} (middle), {} (right).".format(*numbers)
    assert start["gripper"].answer == "No gripper holds anything."
    assert f"I pick {scene.equation.answer}" in start["trace"].answer
    holding = [answer for answer in said if answer.startswith(f"The {operator.side} gripper holds")]
    assert holding
    assert all(said[answer] > CARD_HALF_M[2] + 0.02 for answer in holding)
    assert end["gripper"].answer == "No gripper holds anything."
    assert "cards" not in end  # a card has left its place
    assert "trace" not in end


@pytest.mark.parametrize(("wrong", "said"), [({"split": "test"}, "split"), ({"num_frames": 0}, "frames")])
def test_senseless_arguments_are_refused(tmp_path: Path, wrong: dict[str, object], said: str) -> None:
    arguments: dict[str, object] = {"split": "train", "num_frames": 4, "seed": 0, "workers": 1, **wrong}
    with pytest.raises(UsageError, match=said):
        write_questions(tmp_path, **arguments)  # type: ignore[arg-type]
