"""Recipes: found by name, cut to a number of steps, saved and read back."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from schemas.errors import TrainError
from trainers.recipes import RECIPES, TrainConfig, nano, recipe, with_steps
from trainers.stages import learning_rate


def test_an_unknown_recipe_names_the_nearest_one() -> None:
    told = r"no recipe 'nanno'\. Did you mean 'nano'\? Known: chatvla2_2b, nano, nano_dense\."
    with pytest.raises(TrainError, match=told):
        recipe("nanno")


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_saved_recipe_reads_back_equal(name: str) -> None:
    assert TrainConfig.from_json(recipe(name).to_json()) == recipe(name)


def test_where_the_weights_lie_is_not_part_of_what_a_run_is() -> None:
    here, there = (recipe("chatvla2_2b", weights=Path(place)) for place in ("here", "there"))
    assert here.to_json() == there.to_json()
    with pytest.raises(TrainError, match=r"'here' holds no config of a Qwen2-VL .* Name a model directory"):
        recipe("nano", weights=Path("here"))


@pytest.mark.parametrize("steps", [2, 3, 20, 777])
def test_stages_share_the_steps_they_are_given(steps: int) -> None:
    config = with_steps(nano(), steps)
    assert config.num_steps == steps
    assert all(stage.steps >= 1 and stage.warmup_steps <= stage.steps for stage in config.stages)


def test_fewer_steps_than_stages_are_refused() -> None:
    with pytest.raises(TrainError, match="too few for 2 stages"):
        with_steps(nano(), 1)


def test_the_learning_rate_warms_up_and_then_falls_along_a_cosine() -> None:
    stage = replace(nano().stages[0], steps=110, warmup_steps=10, learning_rate=1.0, final_learning_rate=0.1)
    rates = [learning_rate(stage, step) for step in range(110)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == pytest.approx(1.0)
    assert rates[60] == pytest.approx(0.55)
    assert rates[-1] == pytest.approx(0.1, abs=1e-3)
    assert all(later <= earlier for earlier, later in pairwise(rates[10:]))


def test_an_image_costs_the_tokens_its_grid_merges_to() -> None:
    assert nano().image_tokens(320, 240) == 8 * 6
    assert recipe("chatvla2_2b").image_tokens(320, 240) == 11 * 9
