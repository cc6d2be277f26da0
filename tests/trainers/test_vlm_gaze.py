"""A head that is told where to look: the right token of the right word, and Hugging Face's own attention."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_runs import TINY_VLM
from torch import Tensor

from dataengine.rendered import EASY, FULL
from schemas.chat import IGNORE
from schemas.errors import TrainError
from trainers.tokenizer import LocalTokenizer, nano_tokenizer
from trainers.vlm.config import VlmConfig
from trainers.vlm.lessons import Lesson, LessonBatch, LessonCollator
from trainers.vlm.model import LearningVlm
from trainers.vlm.packing import pack
from trainers.vlm.phase import Phase
from trainers.vlm.reading import GAZE_HEADS, GAZE_LAYER
from trainers.vlm.recipe import nano_vlm_looks
from trainers.vlm.rendered_lessons import RenderedLessons
from trainers.vlm.run import METRICS_FILE, train_vlm

SIZE = replace(TINY_VLM, depth=3)  # one more than tokens are told behind
LOOKING = Phase(
    name="looking",
    steps=50,
    skills=(("point", 1.0), ("relation", 1.0), ("cards", 1.0)),
    start=EASY,
    end=EASY,
    text_weight=0.1,
    glyph_weight=0.0,
    gaze_weight=1.0,
    card_weight=0.1,
)
COLUMNS, CELL_PX = 8, 40


def tiny(**parts: object) -> VlmConfig:
    base = replace(
        nano_vlm_looks(), vlm=SIZE, phases=(LOOKING,), pictures_per_step=4, questions_per_picture=3, warmup_steps=2
    )
    return replace(base, **parts)  # type: ignore[arg-type]  # the fields of VlmConfig


@pytest.fixture(scope="module")
def tokenizer() -> LocalTokenizer:
    return nano_tokenizer()


@pytest.fixture(scope="module")
def lessons() -> list[Lesson]:
    made = RenderedLessons(config=tiny())
    return [lesson for step in range(4) for lesson in made.step(replace(LOOKING, end=FULL), 49, step)]


def told(batch: LessonBatch, row: int, tokenizer: LocalTokenizer) -> list[tuple[str, int, int]]:
    """The word that each look is about (the one after it), which head looks, and at which token of the picture."""
    ids = batch.ids_BT[row].tolist()
    first = ids.index(tokenizer.id_of("<|image_pad|>"))
    return [
        (tokenizer.decode([ids[place + 1]]), head, int(batch.gaze_BT2[row, place, head]) - first)
        for place, head in (batch.gaze_BT2[row] != IGNORE).nonzero().tolist()
    ]


def test_every_word_with_a_place_is_told_the_token_there(lessons: list[Lesson], tokenizer: LocalTokenizer) -> None:
    collate = LessonCollator(SIZE, tokenizer)
    seen: dict[str, int] = {}
    for lesson in lessons:
        for asked in lesson.asked:
            batch = collate([replace(lesson, asked=(asked,))])
            found = told(batch, 0, tokenizer)
            assert ("".join(word for word, head, _ in found if not head) == "") == (
                not any(not look.other for look in asked.looks)
            )
            for look in asked.looks:
                words = [(word, token) for word, head, token in found if head == int(look.other)]
                spoken = asked.answer[look.start : look.end]
                target = -1  # the mark before the picture: it is not there
                if look.place_px is not None:
                    target = int(look.place_px[1] // CELL_PX) * COLUMNS + int(look.place_px[0] // CELL_PX)
                assert spoken.replace(" ", "") in "".join(
                    word if token == target else "|" for word, token in words
                ).replace(" ", "")
                seen[re.sub(r"\d+", "#", spoken)] = 1
    assert {"(#, #)", "left of", "# (left),"} <= set(seen)


def test_a_question_keeps_its_looks_in_company(lessons: list[Lesson], tokenizer: LocalTokenizer) -> None:
    collate = LessonCollator(SIZE, tokenizer)
    lesson = next(lesson for lesson in lessons if sum(bool(asked.looks) for asked in lesson.asked) >= 2)
    together = collate(lessons)
    row = lessons.index(lesson)
    alone = [each for asked in lesson.asked for each in told(collate([replace(lesson, asked=(asked,))]), 0, tokenizer)]
    assert told(together, row, tokenizer) == alone


def test_the_loss_is_of_hugging_faces_own_attention(lessons: list[Lesson], tokenizer: LocalTokenizer) -> None:
    model = LearningVlm(SIZE, tokenizer, seed=0).eval()
    collate = LessonCollator(SIZE, tokenizer)
    model.vlm.set_attn_implementation("eager")
    every: list[Tensor] = []
    for lesson in lessons[:4]:
        for asked in lesson.asked:
            alone = collate([replace(lesson, asked=(asked,))])
            with torch.no_grad():
                attention = model.vlm(
                    input_ids=alone.ids_BT,
                    pixel_values=model.normalised(alone),
                    image_grid_thw=alone.grids,
                    mm_token_type_ids=(alone.ids_BT == model.vlm.config.image_token_id).int(),
                    output_attentions=True,
                ).attentions[GAZE_LAYER][0]
            for place, which in (alone.gaze_BT2[0] != IGNORE).nonzero().tolist():
                every.append(-attention[GAZE_HEADS[which], place, alone.gaze_BT2[0, place, which]].log())
    assert len(every) > 20
    with torch.no_grad():
        losses = model(collate(lessons[:4]), text_weight=1.0, glyph_weight=0.0, gaze_weight=1.0)
    assert float(losses.gaze) == pytest.approx(float(torch.stack(every).mean()), rel=1e-4)


def test_bfloat16_products_change_no_more_than_the_products(lessons: list[Lesson], tokenizer: LocalTokenizer) -> None:
    """What a GPU computes in; scores of the gaze stay float32, so that near ties are told apart."""
    model, batch = LearningVlm(SIZE, tokenizer, seed=0).eval(), LessonCollator(SIZE, tokenizer)(lessons[:3])
    weights = {"text_weight": 1.0, "glyph_weight": 0.0, "card_weight": 1.0, "gaze_weight": 1.0}
    with torch.no_grad():
        exact = model(batch, **weights)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model(batch, **weights)
    for name in ("text", "cards", "gaze"):
        assert float(getattr(rounded, name)) == pytest.approx(float(getattr(exact, name)), rel=0.02), name
    assert rounded.gaze.dtype == torch.float32


def test_losses_and_gradients_are_those_of_questions_asked_alone(
    lessons: list[Lesson], tokenizer: LocalTokenizer
) -> None:
    """Hugging Face's forward of each plain chat; the mean over all learned words, through all weights."""
    model, collate = LearningVlm(SIZE, tokenizer, seed=0), LessonCollator(SIZE, tokenizer)
    losses = model(collate(lessons[:3]), text_weight=1.0, glyph_weight=0.0)
    losses.total.backward()
    ours = {name: weight.grad for name, weight in model.vlm.named_parameters()}
    model.zero_grad()
    total, num = torch.zeros(()), 0
    for lesson in lessons[:3]:
        for asked in lesson.asked:
            alone = collate([replace(lesson, asked=(asked,))])
            score = model.vlm(
                input_ids=alone.ids_BT,
                pixel_values=model.normalised(alone),
                image_grid_thw=alone.grids,
                mm_token_type_ids=(alone.ids_BT == model.vlm.config.image_token_id).int(),
            ).logits
            want = alone.labels_BT[0, 1:]
            total = total + torch.nn.functional.cross_entropy(score[0, :-1], want, ignore_index=IGNORE, reduction="sum")
            num += int((want != IGNORE).sum())
    (total / num).backward()
    assert float(losses.text.detach()) == pytest.approx(float(total.detach()) / num, rel=1e-5)
    for name, weight in model.vlm.named_parameters():
        assert torch.allclose(ours[name], weight.grad, atol=1e-5, rtol=1e-3), name  # type: ignore[arg-type]  # all have one


def test_only_real_tokens_are_packed_each_once_and_questions_stay_whole() -> None:
    branches = [(0, 4, 3), (0, 7, 9), (1, 4, 2), (1, 6, 2), (1, 8, 30)]
    packing = pack(branches, num_prefix=4, num_pictures=2, length=40)
    want = {picture * 40 + place for picture in (0, 1) for place in range(4)}
    want |= {picture * 40 + first + step for picture, first, num in branches for step in range(num)}
    assert sorted(packing.place_N.tolist()) == sorted(want)
    rows = []
    for group in packing.groups:
        for tokens, real, picture in zip(group.token_GL, group.is_real_GL, group.picture_G.tolist(), strict=True):
            places = packing.place_N[tokens[real]].tolist()
            assert places == list(range(places[0], places[0] + len(places)))
            rows.append((picture, places[0] % 40, len(places)))
            assert all(token == tokens[real][-1] for token in tokens[~real])
        assert torch.equal(group.real_R, group.is_real_GL.flatten().nonzero().flatten())
    assert sorted(rows) == sorted(branches)
    assert torch.cat([group.token_GL[group.is_real_GL] for group in packing.groups]).tolist() == list(
        range(8, 8 + sum(num for *_, num in branches))
    )


def test_the_token_under_a_card_is_told_its_tens_and_units(lessons: list[Lesson], tokenizer: LocalTokenizer) -> None:
    beside = ((5, -20.0, 10.0), (6, 330.0, 10.0))
    cards = ((7, 30.0, 10.0), (30, 250.0, 170.0), (None, 130.0, 90.0), (100, 170.0, 90.0), *beside)
    lesson = replace(lessons[0], cards=cards, are_all_cards=True)
    known, unknown = LessonCollator(SIZE, tokenizer)([lesson, replace(lesson, are_all_cards=False)]).cards_B2N
    assert known.shape == (2, 48)
    assert known[:, 0].tolist() == [1, 9]  # no tens, a seven
    assert known[:, 4 * COLUMNS + 6].tolist() == [5, 2]  # a three, a zero
    assert known[:, 2 * COLUMNS + 3 : 2 * COLUMNS + 5].tolist() == [[IGNORE, IGNORE], [IGNORE, IGNORE]]
    assert int((known == 0).sum()) == 2 * 44
    assert int((unknown != IGNORE).sum()) == 4


def test_points_are_learned_in_the_steps_that_a_phase_asks_for() -> None:
    """The picture and what is asked stay; the place to look at is not rounded."""
    made, points = RenderedLessons(config=tiny()), 0
    for step in range(6):
        fine, coarse = made.step(LOOKING, 0, step), made.step(replace(LOOKING, point_step_px=5), 0, step)
        for one, other in zip(fine, coarse, strict=True):
            for exact, rounded in zip(one.asked, other.asked, strict=True):
                assert exact.question == rounded.question
                assert [look.place_px for look in exact.looks] == [look.place_px for look in rounded.looks]
                if not re.fullmatch(r"\(\d+, \d+\)", exact.answer):  # a problem may begin with a bracket, too
                    assert exact == rounded
                    continue
                before, after = (list(map(int, re.findall(r"\d+", each.answer))) for each in (exact, rounded))
                assert all(place % 5 == 0 for place in after)
                assert all(abs(x - y) <= 2 for x, y in zip(before, after, strict=True))
                assert [(look.start, look.end) for look in rounded.looks] == [(0, len(rounded.answer))]
                points += 1
    assert points > 5
    with pytest.raises(TrainError, match="point_step_px is 0"):
        replace(LOOKING, point_step_px=0)


def test_a_model_too_shallow_to_be_told_anything_says_so(lessons: list[Lesson], tokenizer: LocalTokenizer) -> None:
    size = replace(SIZE, depth=2)
    model, batch = LearningVlm(size, tokenizer, seed=0), LessonCollator(size, tokenizer)(lessons[:1])
    for weight in ("token_weight", "thing_weight", "card_weight", "gaze_weight"):
        with pytest.raises(TrainError, match="the model has 2"):
            model(batch, text_weight=1.0, glyph_weight=0.0, **{weight: 1.0})
    size = replace(SIZE, heads=2, key_heads=1, rope_sections=(4, 6, 6))
    model, batch = LearningVlm(size, tokenizer, seed=0), LessonCollator(size, tokenizer)(lessons[:1])
    with pytest.raises(TrainError, match="heads 1 and 3 are told where to look, but the model has 2"):
        model(batch, text_weight=1.0, glyph_weight=0.0, gaze_weight=1.0)


@pytest.mark.slow
def test_heads_learn_to_look_where_they_are_told(tmp_path: Path) -> None:
    """Looking everywhere alike costs 4; knowing only that cards and objects lie in the lower half about 3."""
    config = tiny(sums_per_picture=0, learning_rate=5e-3)
    train_vlm(config, RenderedLessons(config=config), nano_tokenizer(), staging=tmp_path)
    losses = [json.loads(line)["gaze_loss"] for line in (tmp_path / METRICS_FILE).read_text().splitlines()]
    assert min(losses[:3]) > 3.5
    assert sum(losses[-5:]) / 5 < 2.5
