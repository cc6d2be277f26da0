"""Toy placement: splits that share nothing, demonstrations that come true, a truth that lies beside the data."""

import itertools
import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from apps.sim.game import SPLITS
from apps.sim.scripted_operator import ToyOperator
from apps.sim.simulate import simulate
from apps.sim.toy_world import ToyWorld
from apps.sim.toys import RELATIONS, ToyScene, draw_toy_scene, layout_names
from schemas.errors import UsageError


def scenes(split: str, num: int, seed: int = 5) -> list[ToyScene]:
    return [
        draw_toy_scene(split="in-domain" if split == "in-domain" else "open-world", seed=seed, index=at)
        for at in range(num)
    ]


def test_the_splits_share_no_toy_no_instruction_and_no_layout() -> None:
    seen, unseen = (scenes(split, 60) for split in SPLITS)
    for of in (
        lambda scene: {toy.noun for toy in scene.toys},
        lambda scene: {scene.instruction},
        lambda scene: {scene.layout},
    ):
        assert not set().union(*map(of, seen)) & set().union(*map(of, unseen))
    assert not set(layout_names("in-domain")) & set(layout_names("open-world"))
    places = [
        {tuple(np.round(sorted((toy.x_m, toy.y_m) for toy in scene.toys), 3).ravel()) for scene in several}
        for several in (seen, unseen)
    ]
    assert not places[0] & places[1]


def test_relations_come_in_balanced_rounds_and_every_toy_has_its_own_noun() -> None:
    for split in SPLITS:
        drawn = scenes(split, 24)
        assert {relation: sum(s.relation == relation for s in drawn) for relation in RELATIONS} == dict.fromkeys(
            RELATIONS, 4
        )
        for scene in drawn:
            nouns = [toy.noun for toy in scene.toys]
            assert len(set(nouns)) == len(nouns) in (3, 4)
            assert scene.toys[scene.target].noun in scene.instruction
            assert scene.toys[scene.reference].noun in scene.instruction


def test_each_relation_is_played_and_comes_true() -> None:
    came_true = {}
    for scene in itertools.chain(scenes("in-domain", 6), scenes("open-world", 6)):
        world = ToyWorld(scene)
        for action in ToyOperator(world).actions():
            world.step(action)
        came_true[scene.split, scene.relation] = world.outcome().success
    assert sum(came_true.values()) >= 11, came_true


def test_nothing_is_placed_before_it_is_let_go() -> None:
    world = ToyWorld(scenes("in-domain", 1)[0])
    operator = ToyOperator(world)
    for action in operator.actions():
        world.step(action)
        if [phase.name for phase in operator.phases][-1:] == ["lift"]:
            break
    assert not world.outcome().at_rest
    assert not world.outcome().success


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("toys") / "raw"
    simulate(out=out, num_episodes=1, task="toy-placement", split="open-world", seed=4, image_size=(160, 120))
    return out


def test_the_truth_has_exact_boxes_and_subtasks_and_the_recording_only_the_instruction(raw: Path) -> None:
    scene = draw_toy_scene(split="open-world", seed=4, index=0)
    truth = json.loads((raw.with_name("raw.ground_truth") / "episode_0.json").read_text())
    with h5py.File(raw / "episode_0.hdf5") as file:
        assert file["language_raw"][0].decode() == scene.instruction
        assert len(file["action"]) == truth["num_frames"] == truth["subtasks"][-1]["stop"]
    assert (truth["target"], truth["relation"]) == (scene.toys[scene.target].noun, scene.relation)
    subtasks = truth["subtasks"]
    assert [part["start"] for part in subtasks[1:]] == [part["stop"] for part in subtasks[:-1]]
    assert [part["name"] for part in subtasks[:2]] == ["hold", "reach"]
    assert [part["name"] for part in subtasks[-3:]] == ["release", "retreat", "hold"]
    with ToyWorld(scene, image_size=(160, 120)) as world:
        for number, (x0, y0, x1, y1) in enumerate(truth["boxes_before"]):
            column, row = world.project("cam_high", world.centre_m(f"toy{number}"))
            assert x0 <= column < x1
            assert y0 <= row < y1
    assert scene.relation not in (raw / "metadata.csv").read_text().replace(scene.instruction, "")


def test_one_folder_holds_one_task(raw: Path) -> None:
    with pytest.raises(UsageError, match="task toy-placement, not math-matching"):
        simulate(out=raw, num_episodes=1, split="open-world", seed=4, image_size=(160, 120))
