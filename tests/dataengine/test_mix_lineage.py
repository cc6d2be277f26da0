"""The way back from a draw, and the page that shows it: the words of a reviewer, seen where the model learns them."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from mix_material import (
    EPISODES,
    REVIEWED,
    ByteTokenizer,
    build,
    converted_workspace,
    image_tokens,
    reviewed_episode,
    spec_yaml,
    write_llava,
)
from PIL import Image as PilImage

from dataengine.episode_set import EpisodeSet
from dataengine.mix import Mix, first_draw_of, lineage, sample_html
from dataengine.workspace import Workspace
from schemas.chat import render_chat
from schemas.errors import MixError


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return converted_workspace(tmp_path_factory.getbasetemp() / "toy-mix")


@pytest.fixture(scope="session")
def mix(toy: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Mix:
    folder = tmp_path_factory.mktemp("lineage")
    write_llava(folder)
    return build(toy, folder, spec_yaml(), "lineage")


def test_words_a_reviewer_edited_are_what_the_model_learns_and_lineage_names_the_reviewer(
    mix: Mix, toy: Workspace
) -> None:
    episode_id = reviewed_episode(toy)
    position = first_draw_of(mix, episode_id)
    sample = mix.sample(position)
    chat = render_chat(sample.messages, ByteTokenizer(), [1, 1])
    assert [text for text, said in chat.pieces if said] == [REVIEWED + "<|im_end|>"]
    line = lineage(mix, position)
    decision, proposal = line.find("decision"), line.find("proposal")
    assert decision is not None
    assert proposal is not None
    assert decision.name == "decision-7"
    assert dict(decision.facts) == {"action": "edit", "reviewer": "ada", "decided at": "2026-11-01T10:00:00+00:00"}
    assert dict(proposal.facts)["model"] == "qwen2-vl@abc"
    assert dict(proposal.facts)["prompt hash"] == "prompt-hash-1"
    assert [call.name for call in proposal.came_from] == ["call-key-1", "call-key-2"]
    for words in (REVIEWED, "reviewer: ada", "action: edit", "call-key-2"):
        assert words in line.render()


def test_the_way_back_ends_at_the_raw_file_and_the_frames_time(mix: Mix, toy: Workspace) -> None:
    position = first_draw_of(mix, reviewed_episode(toy))
    line = lineage(mix, position).to_json()
    episode_id, frame = mix.sample(position).item_key.split("#")
    found = line["came_from"][0]
    assert found["kind"] == "frame"
    assert found["facts"]["stamp_ns"] == str(int(frame) * 20_000_000)
    episode = found["came_from"][0]
    assert episode["name"] == f"{episode_id} of toy@1"
    row = EpisodeSet.open(toy, EPISODES).row(episode_id)
    assert episode["came_from"][0]["name"] == row.metadata["raw_name"]
    json.dumps(line)


def test_where_nobody_looked_lineage_says_so(mix: Mix, toy: Workspace) -> None:
    others = [name for name in mix.lock.sources[0].train_episodes if name != reviewed_episode(toy)]
    decision = lineage(mix, first_draw_of(mix, others[0])).find("decision")
    assert decision is not None
    assert decision.name == "none: nobody looked"


def test_an_image_text_draw_leads_back_to_its_row_and_picture(mix: Mix) -> None:
    position = next(position for position in range(20) if mix.draw(position).source == "questions")
    line = lineage(mix, position)
    row, picture = line.find("row"), line.find("picture")
    assert row is not None
    assert picture is not None
    assert row.name == f"{mix.sample(position).item_key.split('#')[1]} of llava.json"
    assert re.fullmatch("[0-9a-f]{64}", dict(picture.facts)["sha256 of its file"])


def test_an_episode_that_training_never_draws_is_explained(mix: Mix) -> None:
    held = mix.lock.sources[0].validation_episodes[0]
    with pytest.raises(MixError, match="is held out for validation"):
        first_draw_of(mix, held)
    known = mix.lock.sources[0].train_episodes[0]
    with pytest.raises(MixError, match=f"has no episode '{known}x'. Did you mean '{known}'"):
        first_draw_of(mix, known + "x")


class _Page(HTMLParser):
    """Collects what a page shows, and anything it would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.images: list[str] = []
        self.fetched: list[str] = []
        self.said = ""
        self.open: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        source = values.get("src") or values.get("href") or ""
        if tag == "img":
            self.images.append(source)
        if source and not source.startswith("data:"):
            self.fetched.append(source)
        if tag == "span":
            self.open.append((tag, values.get("class") or ""))

    def handle_endtag(self, tag: str) -> None:
        if tag == "span":
            self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1][1] == "said":
            self.said += data


def test_the_page_shows_the_pixels_the_words_and_the_numbers_and_fetches_nothing(mix: Mix, toy: Workspace) -> None:
    position = first_draw_of(mix, reviewed_episode(toy))
    sample = mix.sample(position)
    text = sample_html(mix, position, ByteTokenizer(), image_tokens)
    page = _Page(text)
    assert not page.fetched
    assert page.said == REVIEWED + "<|im_end|>"
    for shown, pixels in zip(page.images, sample.images, strict=True):
        content = base64.b64decode(shown.removeprefix("data:image/png;base64,"))
        np.testing.assert_array_equal(np.asarray(PilImage.open(io.BytesIO(content))), pixels)
    assert text.count("<polyline class=real") == 14
    assert f"{int(sample.action_is_pad.sum()) if sample.action_is_pad is not None else 0} padded" in text
    assert "right_gripper" in text
    assert "ada" in text


def test_words_on_the_page_can_not_become_markup(toy: Workspace, tmp_path: Path) -> None:
    file = write_llava(tmp_path, num_rows=4)
    file.write_text(file.read_text().replace("How many dots", "<script>alert(1)</script>"))
    mix = build(toy, tmp_path, spec_yaml(), "markup")
    position = next(position for position in range(20) if mix.draw(position).source == "questions")
    text = sample_html(mix, position, ByteTokenizer(), image_tokens)
    assert "<script>" not in text


def test_a_page_with_another_tokenizer_is_refused(mix: Mix) -> None:
    with pytest.raises(MixError, match="was counted with tokenizer bytes, not other"):
        sample_html(mix, 0, ByteTokenizer("other"), image_tokens)
