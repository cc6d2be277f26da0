"""Finding cards: picture tokens learn to say where they lie, and the recipe goes on from another model's weights."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import TINY_VLM

from dataengine.rendered import EASY, FULL
from dataengine.rendered.views import COLOURS, THINGS
from dataengine.workspace import Workspace
from schemas.chat import IGNORE
from schemas.errors import TrainError
from schemas.refs import Ref
from trainers.tokenizer import nano_tokenizer
from trainers.vlm.config import VlmConfig
from trainers.vlm.lessons import LessonCollator
from trainers.vlm.model import LearningVlm
from trainers.vlm.phase import Phase
from trainers.vlm.recipe import nano_vlm, nano_vlm_places, vlm_recipe
from trainers.vlm.rendered_lessons import Crops, Frames, RenderedLessons
from trainers.vlm.run import METRICS_FILE, train_vlm
from trainers.vlm.train import _start, train_small_vlm
from trainers.vlm_directory import save_vlm_directory

SIZE = replace(TINY_VLM, depth=3)  # one more than tokens are told behind
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


@pytest.mark.slow
def test_picture_tokens_learn_to_say_which_object_of_which_colour_they_hold(tmp_path: Path) -> None:
    """Guessing among five kinds and seven colours costs 3.6, saying everywhere that nothing lies there 2.3."""
    things = replace(PLACES, skills=(("colour", 1.0),), token_weight=0.0, thing_weight=1.0, most_cards=None, steps=60)
    config = tiny(phases=(things,), sums_per_picture=0, learning_rate=5e-3)
    train_vlm(config, RenderedLessons(config=config), nano_tokenizer(), staging=tmp_path)
    told = [json.loads(line)["thing_loss"] for line in (tmp_path / METRICS_FILE).read_text().splitlines()]
    assert told[0] > 3
    assert sum(told[-10:]) / 10 < 1.7


def test_the_token_under_an_object_is_told_its_kind_and_colour_and_the_others_nothing() -> None:
    lessons, collate = RenderedLessons(config=tiny()), LessonCollator(SIZE, nano_tokenizer())
    phase = replace(PLACES, skills=(("colour", 1.0),), start=FULL, end=FULL)
    found = [lesson for step in range(4) for lesson in lessons.step(phase, 0, step)]
    classes_B2N = collate(found).things_B2N
    for lesson, classes_2N in zip(found, classes_B2N, strict=True):
        assert lesson.things is not None
        height, width = lesson.picture.shape[:2]
        want = torch.zeros(2, 6, 8, dtype=torch.long)  # tokens are 40 pixels wide and high
        for kind, colour, x_px, y_px in lesson.things:
            want[:, int(y_px * 6 / height), int(x_px * 8 / width)] = torch.tensor(
                [THINGS.index(kind) + 1, COLOURS.index(colour) + 1]
            )
        assert torch.equal(classes_2N, want.reshape(2, -1))
    assert (classes_B2N > 0).sum() > 10
    unknown = collate([replace(found[0], things=None)]).things_B2N
    assert (unknown == IGNORE).all()


def test_training_goes_on_from_the_weights_it_is_given(tmp_path: Path) -> None:
    config, given = tiny(), LearningVlm(SIZE, nano_tokenizer(), seed=7).vlm
    start = {name: weight.detach().clone() for name, weight in given.named_parameters()}
    lessons = RenderedLessons(config=config)
    model = train_vlm(config, lessons, nano_tokenizer(), staging=tmp_path, stop_after=0, start=start)
    for name, weight in model.vlm.named_parameters():
        assert torch.equal(weight, start[name]), name


def test_heads_are_those_that_the_weights_have_grown_used_to(tmp_path: Path) -> None:
    """A tower deepened by an earlier recipe: heads are drawn as that one drew them, beside the shallower tower."""
    deep = replace(SIZE, vision_depth=SIZE.vision_depth + 2)
    config = tiny(vlm=deep, heads_drawn_beside=SIZE.vision_depth)
    given = LearningVlm(deep, nano_tokenizer(), seed=7).vlm
    start = {name: weight.detach().clone() for name, weight in given.named_parameters()}
    lessons = RenderedLessons(config=config)
    model = train_vlm(config, lessons, nano_tokenizer(), staging=tmp_path, stop_after=0, start=start)
    for name, weight in model.vlm.named_parameters():
        assert torch.equal(weight, start[name]), name
    met, not_met = (LearningVlm(size, nano_tokenizer(), seed=config.seed) for size in (SIZE, deep))
    for head in ("glyph_head", "token_head", "thing_head", "card_head"):
        assert torch.equal(getattr(model, head).weight, getattr(met, head).weight)
        assert not torch.equal(getattr(model, head).weight, getattr(not_met, head).weight)
    for depth in (0, deep.vision_depth + 1):
        with pytest.raises(TrainError, match=rf"heads_drawn_beside is {depth}, and the vision tower has 1 to"):
            tiny(vlm=deep, heads_drawn_beside=depth)


def test_a_deeper_vision_tower_goes_on_from_a_shallower_one_and_begins_by_seeing_the_same(tmp_path: Path) -> None:
    save_vlm_directory(tmp_path / "base", LearningVlm(SIZE, nano_tokenizer(), seed=7).vlm, nano_tokenizer(), SIZE)
    config = tiny(vlm=replace(SIZE, vision_depth=SIZE.vision_depth + 2))
    weights = _start(tmp_path / "base", config)
    assert weights is not None
    lessons, collate = RenderedLessons(config=config), LessonCollator(SIZE, nano_tokenizer())
    model = train_vlm(config, lessons, nano_tokenizer(), staging=tmp_path / "none", stop_after=0, start=weights)
    base, same_heads = (LearningVlm(SIZE, nano_tokenizer(), seed=seed) for seed in (7, config.seed))
    for head in ("glyph_head", "token_head", "thing_head", "card_head"):
        assert torch.equal(getattr(model, head).weight, getattr(same_heads, head).weight)
    batch = collate(lessons.step(PLACES, 0, 0))
    with torch.inference_mode():
        assert torch.allclose(model.scores(batch), base.eval().scores(batch), atol=1e-6)
    taught = train_vlm(config, lessons, nano_tokenizer(), staging=tmp_path / "some", stop_after=3, start=weights)
    new = {name: weight for name, weight in taught.vlm.named_parameters() if f"blocks.{SIZE.vision_depth + 1}." in name}
    assert all(bool(weight.any()) for name, weight in new.items() if name.endswith("weight"))
    train_vlm(config, lessons, nano_tokenizer(), staging=tmp_path / "cut", stop_after=1, start=weights)
    again = train_vlm(config, lessons, nano_tokenizer(), staging=tmp_path / "cut", stop_after=3, start=weights)
    for (name, weight), (_, other) in zip(taught.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(weight, other), name
    shallower = tiny(vlm=replace(SIZE, vision_depth=1))
    with pytest.raises(TrainError, match="holds another model"):
        _start(tmp_path / "base", shallower)
    with pytest.raises(TrainError, match="weights to go on from are of another model"):
        train_vlm(shallower, lessons, nano_tokenizer(), staging=tmp_path / "no", stop_after=1, start=weights)
    part = {name: weight for name, weight in weights.items() if "lm_head" not in name and "embed_tokens" not in name}
    with pytest.raises(TrainError, match="weights to go on from are of another model"):
        train_vlm(config, lessons, nano_tokenizer(), staging=tmp_path / "part", stop_after=1, start=part)


def test_a_state_half_written_at_a_kill_does_not_stop_a_later_checkpoint(tmp_path: Path) -> None:
    config = replace(tiny(), checkpoint_every=1, goes_on_from=None)
    lessons = RenderedLessons(config=config)
    train_vlm(config, lessons, nano_tokenizer(), staging=tmp_path, stop_after=1)
    (tmp_path / "step_000001" / ".state.json.7.tmp").write_bytes(b"{")
    train_vlm(config, lessons, nano_tokenizer(), staging=tmp_path, stop_after=3)
    assert sorted(folder.name for folder in tmp_path.glob("step_*")) == ["step_000002", "step_000003"]


def test_what_it_can_not_start_from_is_said_in_a_sentence(tmp_path: Path) -> None:
    place, to = Workspace.at(tmp_path), Ref("vlm", "1")
    with pytest.raises(TrainError, match=r"goes on from a model that `train nano_vlm` made\. Name it: --weights"):
        train_small_vlm(config=tiny(), to=to, workspace=place)
    with pytest.raises(TrainError, match=r"recipe nano_vlm starts from nothing\. Leave --weights out"):
        train_small_vlm(config=nano_vlm(), to=to, workspace=place, start=tmp_path)
    save_vlm_directory(tmp_path / "other", LearningVlm(SIZE, nano_tokenizer(), seed=0).vlm, nano_tokenizer(), SIZE)
    with pytest.raises(TrainError, match="'other' holds another model than recipe nano_vlm_places trains"):
        train_small_vlm(config=nano_vlm_places(), to=to, workspace=place, start=tmp_path / "other")


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("nano_vlm_places", "nano_vlm"),
        ("nano_vlm_things", "nano_vlm_places"),
        ("nano_vlm_more", "nano_vlm_things"),
        ("nano_vlm_reasons", "nano_vlm_more"),
        ("nano_vlm_looks", "nano_vlm_reasons"),
        ("nano_vlm_hands", "nano_vlm_looks"),
        ("nano_vlm_counts", "nano_vlm_hands"),
        ("nano_vlm_reads", "nano_vlm_counts"),
    ],
)
def test_a_recipe_survives_json_and_goes_on_from_the_one_before(name: str, base: str) -> None:
    recipe = vlm_recipe(name)
    assert VlmConfig.from_json(recipe.to_json()) == recipe
    assert recipe.goes_on_from == base
    assert recipe.vlm in [replace(nano_vlm().vlm, vision_depth=depth) for depth in (3, 5, 8)]


def test_cut_out_cards_come_as_often_as_boards_where_a_phase_asks_for_it(tmp_path: Path) -> None:
    """Nine boards of three sizes for each card; both skills share what is left of a size."""
    rows = []
    for number in range(30):
        skill = "cards in JSON" if number % 10 == 0 else "board in JSON"
        picture = Image.new("RGB", (80 if number % 2 else 120, 40))
        picture.save(tmp_path / f"{number}.png")
        turns = [
            {"from": "system", "value": skill},
            {"from": "human", "value": "<image>"},
            {"from": "gpt", "value": "x"},
        ]
        rows.append({"id": str(number), "image": f"{number}.png", "skill": skill, "conversations": turns})
    (tmp_path / "conversations.json").write_text(json.dumps(rows))
    crops, rng = Crops.of(Frames.open(tmp_path), cell_px=40), np.random.default_rng(0)
    share = {
        evenly: np.mean(
            [crops.step(2, rng, evenly=evenly)[0].asked[0].instructions == "cards in JSON" for _ in range(400)]
        )
        for evenly in (False, True)
    }
    assert 0.05 < share[False] < 0.15
    assert 0.42 < share[True] < 0.58
