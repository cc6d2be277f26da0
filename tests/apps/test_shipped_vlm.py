"""The small VLM that ships: where it comes from is written beside it, and its first steps can be taken again."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import openai
import pytest
import torch
from PIL import Image

from annotators.vlm.chat_model import ChatModel, fingerprint
from annotators.vlm.local import NANO_DIR
from apps.server.vlm_server import running_vlm_server
from apps.vlm_shipping import TRAINING_FILE, ship, skill_table
from dataengine.rendered import EASY, SKILLS, Item, Skill, plans_hash, render_item
from dataengine.workspace import Workspace
from schemas.errors import RefError
from schemas.refs import Ref
from trainers.models.action_expert import ActionShape
from trainers.models.vla import build_vla
from trainers.recipes import recipe
from trainers.tokenizer import nano_tokenizer, tokenizer_of
from trainers.vlm.config import VlmConfig
from trainers.vlm.lessons import LessonCollator
from trainers.vlm.model import PackedVlm
from trainers.vlm.recipe import VLM_RECIPES, nano_vlm
from trainers.vlm.rendered_lessons import RenderedLessons, rendered_exams
from trainers.vlm.run import METRICS_FILE, train_vlm
from trainers.vlm.score import by_skill, examine
from trainers.vlm_directory import load_vlm_directory


def test_ten_steps_of_the_shipped_recipe_give_the_recorded_losses(tmp_path: Path) -> None:
    """Two percent: bfloat16 products round differently on another processor or thread count."""
    told = json.loads((NANO_DIR / TRAINING_FILE).read_bytes())
    for later in reversed(list(VLM_RECIPES)[1:]):  # they go on from weights that do not ship
        assert VlmConfig.from_json(told["recipe"]) == VLM_RECIPES[later]()
        told = told["base"]
    first = VlmConfig.from_json(told["recipe"])
    assert first == nano_vlm()
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    train_vlm(first, RenderedLessons(config=first), nano_tokenizer(), staging=tmp_path, stop_after=10)
    torch.set_num_threads(threads)
    rows = [json.loads(line) for line in (tmp_path / METRICS_FILE).read_text().splitlines()]
    assert [row["loss"] for row in rows] == pytest.approx(told["first_losses"], rel=0.02)


def test_the_questions_it_was_scored_on_are_the_frozen_ones() -> None:
    told = json.loads((NANO_DIR / TRAINING_FILE).read_bytes())
    assert plans_hash(SKILLS, told["exams"]["per_skill"]) == told["exams"]["plans"]


@pytest.mark.parametrize("skill", ["transcribe", "relation"])
def test_the_scores_beside_the_weights_are_theirs(skill: Skill) -> None:
    """Asked again; four of two hundred may fall to the other side, as other processors round otherwise."""
    rows = json.loads((NANO_DIR / "scores.json").read_bytes())["rendered"]
    told = next(row for row in rows if row["skill"] == skill)
    directory = load_vlm_directory(NANO_DIR)
    model = PackedVlm(directory.vlm, directory.size)
    (found,) = by_skill(examine(model, directory.tokenizer, rendered_exams(skill, told["num"])))
    assert abs(found.num_right - told["num_right"]) <= 4


def test_it_answers_over_http_what_it_was_taught() -> None:
    """Held-out boards and tables at their easiest, asked as any client would."""
    asked = [
        render_item(split="held-out", seed=5, row=row, skill=skill, difficulty=EASY)
        for skill in ("transcribe", "solve", "count")
        for row in range(4)
    ]
    with running_vlm_server(ChatModel(NANO_DIR, "cpu"), revision=fingerprint(NANO_DIR)) as server:
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="none", max_retries=0)
        said = [_said(client, item) for item in asked]
    wrong = [(item.answer, words) for item, words in zip(asked, said, strict=True) if item.answer != words]
    assert len(wrong) <= 1, wrong


def _said(client: openai.OpenAI, item: Item) -> str:
    file = io.BytesIO()
    Image.fromarray(item.picture).save(file, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    parts: Any = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": item.question}]
    answer = client.chat.completions.create(
        model=client.models.list().data[0].id,
        messages=[{"role": "user", "content": parts}],
        max_tokens=96,
        temperature=0,
    )
    return str(answer.choices[0].message.content)


def test_upcycled_to_eight_experts_it_says_at_first_what_it_said_dense() -> None:
    directory, started = load_vlm_directory(NANO_DIR), recipe("nano", weights=NANO_DIR)
    vla = build_vla(started, ActionShape(steps=2, action_width=2, state_width=2), tokenizer_of(started)).eval()
    assert len(vla.moe_layers) == directory.size.depth
    lessons = [exam.lesson for skill in ("trace", "point") for exam in rendered_exams(skill, 4)]
    batch = LessonCollator(directory.size, directory.tokenizer)(lessons)
    with torch.inference_mode():
        before, after = (PackedVlm(vlm, directory.size).scores(batch) for vlm in (directory.vlm, vla.vlm))
    assert (before - after).norm() < 0.01 * before.norm()


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
