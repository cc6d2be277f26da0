"""Finding cards: picture tokens learn to say where they lie, and the recipe goes on from another model's weights."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dataengine.rendered import EASY
from dataengine.workspace import Workspace
from schemas.errors import TrainError
from schemas.refs import Ref
from trainers.recipes import VlmSize
from trainers.tokenizer import nano_tokenizer
from trainers.vlm.model import LearningVlm
from trainers.vlm.recipe import Phase, VlmConfig, nano_vlm, nano_vlm_places, vlm_recipe
from trainers.vlm.rendered_lessons import RenderedLessons
from trainers.vlm.run import METRICS_FILE, train_vlm
from trainers.vlm.train import train_small_vlm
from trainers.vlm_directory import save_vlm_directory

SIZE = VlmSize(
    width=64,
    depth=2,
    heads=4,
    key_heads=2,
    mlp_width=128,
    vocabulary=1024,
    rope_theta=100.0,
    rope_sections=(2, 3, 3),
    vision_width=32,
    vision_depth=2,
    vision_heads=2,
    vision_mlp_ratio=2,
    patch_size=20,
    frames_per_patch=1,
    init_std=0.05,
)
PLACES = Phase(
    name="places",
    steps=40,
    skills=(("cards", 1.0), ("point", 1.0)),
    start=EASY,
    end=EASY,
    text_weight=1.0,
    glyph_weight=0.0,
    token_weight=1.0,
    most_cards=1,
    asks_places=True,
)


def tiny(**parts: object) -> VlmConfig:
    base = replace(
        nano_vlm_places(), vlm=SIZE, phases=(PLACES,), pictures_per_step=4, questions_per_picture=3, warmup_steps=2
    )
    return replace(base, **parts)  # type: ignore[arg-type]  # the fields of VlmConfig


@pytest.mark.slow
def test_picture_tokens_learn_to_say_where_they_lie(tmp_path: Path) -> None:
    """Guessing among eight rows and eight columns costs 4.2, and characters among eighteen classes another 2.9."""
    config = tiny(sums_per_picture=0, learning_rate=5e-3)
    train_vlm(config, RenderedLessons(config=config), nano_tokenizer(), staging=tmp_path)
    told = [json.loads(line)["token_loss"] for line in (tmp_path / METRICS_FILE).read_text().splitlines()]
    assert min(told[:3]) > 5
    assert max(told[-3:]) < 3


def test_training_goes_on_from_the_weights_it_is_given(tmp_path: Path) -> None:
    config, given = tiny(), LearningVlm(SIZE, nano_tokenizer(), seed=7).vlm
    start = {name: weight.detach().clone() for name, weight in given.named_parameters()}
    lessons = RenderedLessons(config=config)
    model = train_vlm(config, lessons, nano_tokenizer(), staging=tmp_path, stop_after=0, start=start)
    for name, weight in model.vlm.named_parameters():
        assert torch.equal(weight, start[name]), name


def test_what_it_can_not_start_from_is_said_in_a_sentence(tmp_path: Path) -> None:
    place, to = Workspace.at(tmp_path), Ref("vlm", "1")
    with pytest.raises(
        TrainError, match=r"goes on from a model that `train nano_vlm` made\. Name its folder: --weights"
    ):
        train_small_vlm(config=tiny(), to=to, workspace=place)
    with pytest.raises(TrainError, match=r"recipe nano_vlm starts from nothing\. Leave --weights out"):
        train_small_vlm(config=nano_vlm(), to=to, workspace=place, start=tmp_path)
    save_vlm_directory(tmp_path / "other", LearningVlm(SIZE, nano_tokenizer(), seed=0).vlm, nano_tokenizer(), SIZE)
    with pytest.raises(TrainError, match="'other' holds another model than recipe nano_vlm_places trains"):
        train_small_vlm(config=nano_vlm_places(), to=to, workspace=place, start=tmp_path / "other")


def test_the_recipe_survives_json_and_goes_on_from_the_first_one() -> None:
    recipe = vlm_recipe("nano_vlm_places")
    assert VlmConfig.from_json(recipe.to_json()) == recipe
    assert (recipe.vlm, recipe.goes_on_from) == (nano_vlm().vlm, "nano_vlm")
