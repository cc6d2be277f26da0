"""The simulated robot: physics that repeats itself, scores that tell reasoning from control."""

import numpy as np
import pytest

from apps.sim.game import Scene, draw_scene
from apps.sim.robot import SimRobot
from apps.sim.scripted_operator import ScriptedOperator
from apps.sim.world import World, home_action


def play(world: World, slot: int | None = None) -> list[np.ndarray]:
    operator = ScriptedOperator(world, slot=slot)
    actions = []
    for action in operator.actions():
        actions.append(action)
        world.step(action)
    return actions


@pytest.fixture(scope="module")
def scene() -> Scene:
    return draw_scene(split="in-domain", seed=2, index=0)


def test_nineteen_of_twenty_demonstrations_succeed_and_their_replays_survive_rounding() -> None:
    played = replayed = 0
    for index in range(20):
        world = World(draw_scene(split="open-world" if index % 2 else "in-domain", seed=9, index=index))
        actions = play(world)
        played += world.outcome().success
        world.reset()
        noise = np.random.default_rng(index)
        for action in actions:
            world.step(action + noise.normal(0.0, 1e-5, 14))
        replayed += world.outcome().success
    assert played >= 19
    assert replayed >= 19


def test_the_robot_repeats_a_demonstration_to_the_last_bit(scene: Scene) -> None:
    world = World(scene)
    actions = play(world)
    robot = SimRobot()
    robot.reset(split=scene.split, seed=scene.seed, index=scene.index)
    for action in actions:
        robot.apply(action)
    outcome = robot.outcome()
    observation = robot.observe()
    robot.close()
    assert outcome.success
    assert outcome == world.outcome()
    assert observation.qpos.dtype == np.float32
    np.testing.assert_array_equal(observation.qpos, world.qpos)


def test_a_wrong_card_on_the_ledge_is_a_failure_of_reasoning_not_of_control(scene: Scene) -> None:
    wrong = (scene.correct_slot + 1) % 3
    world = World(scene)
    play(world, slot=wrong)
    outcome = world.outcome()
    assert (outcome.success, outcome.placed, outcome.on_ledge) == (False, True, True)
    assert outcome.picked_number == scene.cards[wrong].number


def test_idle_arms_pick_nothing_and_a_card_in_the_air_is_not_placed(scene: Scene) -> None:
    world = World(scene)
    for _ in range(25):
        world.step(home_action())
    assert world.outcome().picked_position is None
    operator = ScriptedOperator(World(scene))
    for action in operator.actions():
        operator.world.step(action)
        if [phase.name for phase in operator.phases][-1:] == ["lift"]:
            break
    outcome = operator.world.outcome()
    assert outcome.picked_number == scene.equation.answer
    assert (outcome.success, outcome.placed, outcome.on_ledge) == (False, False, False)


def test_the_grasp_is_held_by_friction_alone(scene: Scene) -> None:
    world = World(scene)
    world.model.geom_friction[:] = 1e-4
    world.model.geom_condim[:] = 1
    play(world)
    assert world.model.neq == 0
    assert not world.outcome().success


def test_images_are_upright_rgb_of_the_asked_size(scene: Scene) -> None:
    robot = SimRobot(image_size=(160, 120))
    robot.reset(split=scene.split, seed=scene.seed, index=scene.index)
    images = robot.observe().images
    robot.close()
    assert sorted(images) == ["cam_high", "cam_low"]
    assert {image.shape for image in images.values()} == {(120, 160, 3)}
    # The left arm is blue, the right one orange; the board is the bright part of the upper half.
    left, right = (images["cam_low"][:, half].reshape(-1, 3).astype(int) for half in (slice(0, 40), slice(120, 160)))
    assert (left[:, 2] - left[:, 0]).max() > 60
    assert (right[:, 0] - right[:, 2]).max() > 120
    assert images["cam_high"][:40].mean() > images["cam_high"][80:].mean()


def test_impossible_actions_are_refused(scene: Scene) -> None:
    robot = SimRobot()
    with pytest.raises(RuntimeError, match="reset first"):
        robot.apply(home_action())
    robot.reset(split=scene.split, seed=scene.seed, index=scene.index)
    for action in (np.zeros(7), np.full(14, np.nan)):
        with pytest.raises(ValueError, match="14 finite numbers"):
            robot.apply(action)
    low, high = robot.limits
    assert np.all(low < home_action())
    assert np.all(home_action() < high)
