"""The small VLM that ships: where it comes from is written beside it, and its first steps can be taken again."""

import json
from pathlib import Path

import pytest
import torch

from annotators.vlm.local import NANO_DIR
from apps.vlm_shipping import TRAINING_FILE, ship, skill_table
from dataengine.rendered import SKILLS, plans_hash
from dataengine.workspace import Workspace
from schemas.errors import RefError
from schemas.refs import Ref
from trainers.tokenizer import nano_tokenizer
from trainers.vlm.config import VlmConfig
from trainers.vlm.recipe import VLM_RECIPES, nano_vlm
from trainers.vlm.rendered_lessons import RenderedLessons
from trainers.vlm.run import METRICS_FILE, train_vlm
from trainers.vlm_directory import load_vlm_directory


def test_ten_steps_of_the_shipped_recipe_give_the_recorded_losses(tmp_path: Path) -> None:
    """Two percent: bfloat16 products round differently on another processor or thread count."""
    told = json.loads((NANO_DIR / TRAINING_FILE).read_bytes())
    for later in reversed(list(VLM_RECIPES)[1:]):  # they go on from weights that do not ship
        assert VlmConfig.from_json(told["recipe"]) == VLM_RECIPES[later]()
        told = told["base"]
    recipe = VlmConfig.from_json(told["recipe"])
    assert recipe == nano_vlm()
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    train_vlm(recipe, RenderedLessons(config=recipe), nano_tokenizer(), staging=tmp_path, stop_after=10)
    torch.set_num_threads(threads)
    rows = [json.loads(line) for line in (tmp_path / METRICS_FILE).read_text().splitlines()]
    assert [row["loss"] for row in rows] == pytest.approx(told["first_losses"], rel=0.02)


def test_the_questions_it_was_scored_on_are_the_frozen_ones() -> None:
    told = json.loads((NANO_DIR / TRAINING_FILE).read_bytes())
    assert plans_hash(SKILLS, told["exams"]["per_skill"]) == told["exams"]["plans"]


def test_its_page_shows_the_scores_it_got() -> None:
    page = Path(__file__).resolve().parents[2] / "docs/nano-vlm.md"
    assert skill_table(NANO_DIR) in page.read_text()


def test_it_is_small_and_loads() -> None:
    assert sum(path.stat().st_size for path in NANO_DIR.iterdir()) < 16_000_000
    directory = load_vlm_directory(NANO_DIR)
    assert sum(weight.numel() for weight in directory.vlm.parameters()) < 8_000_000
    assert directory.tokenizer.fingerprint == nano_tokenizer().fingerprint


def test_a_checkpoint_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RefError, match="vlm@1"):
        ship(Workspace.at(tmp_path), Ref("vlm", "1"), to=tmp_path / "nano", commit="c")
