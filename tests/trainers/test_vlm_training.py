"""The small VLM's training: shared pictures change nothing, a killed run ends in the same bits, lessons are learned."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import TINY_VLM

from dataengine.rendered import EASY, FULL
from schemas.chat import render_chat
from schemas.errors import TrainError
from trainers.models.action_expert import ActionShape
from trainers.models.vla import build_vla
from trainers.pixels import patchify
from trainers.recipes import recipe
from trainers.tokenizer import LocalTokenizer, nano_tokenizer, tokenizer_of
from trainers.vlm.config import VlmConfig, shortened
from trainers.vlm.drawing import LessonSteps, drawn_by_a_thread, drawn_by_processes
from trainers.vlm.lessons import Lesson, LessonCollator, messages_of
from trainers.vlm.model import LearningVlm, PackedVlm
from trainers.vlm.phase import Phase
from trainers.vlm.recipe import nano_vlm, vlm_recipe
from trainers.vlm.rendered_lessons import RenderedLessons, rendered_exams
from trainers.vlm.retention import retention
from trainers.vlm.run import train_vlm
from trainers.vlm.score import Exam, SkillScore, answers, by_skill, examine, is_right
from trainers.vlm.sight import look
from trainers.vlm_directory import save_vlm_directory

SIZE = TINY_VLM
PHASE = Phase(
    name="read",
    steps=6,
    skills=(("trace", 1.0), ("cards", 1.0), ("count", 1.0)),
    start=EASY,
    end=FULL,
    text_weight=1.0,
    glyph_weight=0.5,
)


def config(**parts: object) -> VlmConfig:
    tiny = replace(nano_vlm(), vlm=SIZE, phases=(PHASE,), pictures_per_step=4, questions_per_picture=3, warmup_steps=2)
    return replace(tiny, **parts)  # type: ignore[arg-type]  # the fields of VlmConfig


@pytest.fixture(scope="module")
def tokenizer() -> LocalTokenizer:
    return nano_tokenizer()


@pytest.fixture(scope="module")
def lessons() -> list[Lesson]:
    return RenderedLessons(config=config()).step(PHASE, 3, 3)


def test_a_question_in_company_is_scored_as_it_is_alone(lessons: list[Lesson], tokenizer: LocalTokenizer) -> None:
    """And as Hugging Face's own forward scores the plain chat, which is how everybody else will run the model."""
    model = LearningVlm(SIZE, tokenizer, seed=0).eval()
    collate = LessonCollator(SIZE, tokenizer)
    lesson = next(lesson for lesson in lessons if len(lesson.asked) >= 2)
    with torch.no_grad():
        together = collate([lesson])
        shared = model.scores(together)[0]
        for number, asked in enumerate(lesson.asked, 1):
            alone = collate([Lesson(picture=lesson.picture, asked=(asked,), glyphs=None)])
            chat = render_chat(messages_of(asked), tokenizer, [48])
            assert alone.ids_BT[0].tolist() == chat.ids
            plain = model.vlm(
                input_ids=alone.ids_BT,
                pixel_values=model.normalised(alone),
                image_grid_thw=alone.grids,
                mm_token_type_ids=(alone.ids_BT == model.vlm.config.image_token_id).int(),
            ).logits[0]
            branch = shared[together.branch_BT[0] == number]
            assert torch.allclose(branch, plain[alone.num_prefix :], atol=2e-4)
            assert torch.allclose(model.scores(alone)[0], plain, atol=2e-4)


def test_pictures_looked_at_together_are_seen_as_hugging_face_sees_them_one_by_one(
    lessons: list[Lesson], tokenizer: LocalTokenizer
) -> None:
    model = LearningVlm(SIZE, tokenizer, seed=0).eval()
    batch = LessonCollator(SIZE, tokenizer)(lessons)
    tower = model.vlm.model.visual
    with torch.no_grad():
        theirs = tower(model.normalised(batch), grid_thw=batch.grids)
        last, given = look(tower, model.normalised(batch), batch.grids)
    assert len(lessons) > 1
    assert torch.allclose(last, theirs.last_hidden_state, atol=1e-5)
    assert torch.allclose(given, theirs.pooler_output, atol=1e-5)


def test_patches_are_normalised_as_they_are_for_everybody_else(
    lessons: list[Lesson], tokenizer: LocalTokenizer
) -> None:
    batch = LessonCollator(SIZE, tokenizer)(lessons)
    pictures = [lesson.picture for lesson in lessons]
    want, grids = patchify(pictures, patch_size=20, merge_size=2, frames_per_patch=1)
    assert torch.equal(LearningVlm(SIZE, tokenizer, seed=0).normalised(batch), torch.from_numpy(want))
    assert torch.equal(batch.grids, torch.from_numpy(grids))


@pytest.mark.slow
def test_other_processes_draw_the_lessons_that_a_thread_draws(tokenizer: LocalTokenizer) -> None:
    """What happens beside a GPU: in order, and the same to the byte."""
    run = config()
    steps = LessonSteps(
        config=run,
        lessons=RenderedLessons(config=run),
        collate=LessonCollator(SIZE, tokenizer),
        start=1,
        end=5,
    )
    drawn = list(drawn_by_processes(steps, num_workers=2))
    assert [step for step, _ in drawn] == [1, 2, 3, 4]
    for (_, one), (_, other) in zip(drawn, drawn_by_a_thread(steps), strict=True):
        for name in ("ids_BT", "labels_BT", "patches_PCX", "glyphs_BG", "things_B2N", "cards_B2N", "gaze_BT2"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name
        assert torch.equal(one.packing.place_N, other.packing.place_N)
        for mine, theirs in zip(one.packing.groups, other.packing.groups, strict=True):
            for name in ("token_GL", "is_real_GL", "real_R", "picture_G"):
                assert torch.equal(getattr(mine, name), getattr(theirs, name)), name


def test_every_glyph_is_a_class_in_the_patch_where_it_stands(lessons: list[Lesson], tokenizer: LocalTokenizer) -> None:
    """Found again from the patches' own order: marking the picture where a glyph stands lights up its patch alone."""
    collate = LessonCollator(SIZE, tokenizer)
    lesson = next(lesson for lesson in lessons if lesson.glyphs)
    char, x_px, y_px = lesson.glyphs[0]  # type: ignore[index]  # of a rendered picture
    cells = collate([replace(lesson, glyphs=((char, x_px, y_px),))]).glyphs_BG[0].reshape(-1, 4)
    [patch] = (cells > 0).any(dim=1).nonzero().flatten().tolist()
    black, dot = np.zeros_like(lesson.picture), np.zeros_like(lesson.picture)
    dot[int(y_px), int(x_px)] = 255
    before, after = (collate([replace(lesson, picture=picture)]).patches_PCX.flatten(1) for picture in (black, dot))
    assert (before != after).any(dim=1).nonzero().flatten().tolist() == [patch]


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path, tokenizer: LocalTokenizer) -> None:
    run = config(checkpoint_every=2)
    lessons = RenderedLessons(config=run)
    torch.set_num_threads(1)
    whole = train_vlm(run, lessons, tokenizer, staging=tmp_path / "whole")
    train_vlm(run, lessons, tokenizer, staging=tmp_path / "cut", stop_after=4)
    metrics = tmp_path / "cut/metrics.jsonl"
    metrics.write_text(metrics.read_text() + '{"step": 4, "los')  # what a kill leaves of a row
    again = train_vlm(run, lessons, tokenizer, staging=tmp_path / "cut")
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name
    rows = [
        [line.split('"questions_per_s"')[0] for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("whole", "cut")
    ]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 6


def test_another_recipe_does_not_go_on_from_a_draft(tmp_path: Path, tokenizer: LocalTokenizer) -> None:
    run = config()
    train_vlm(run, RenderedLessons(config=run), tokenizer, staging=tmp_path, stop_after=1)
    other = config(learning_rate=1.0)
    with pytest.raises(TrainError, match=r"has another recipe .* Finish it as it was begun, or delete it"):
        train_vlm(other, RenderedLessons(config=other), tokenizer, staging=tmp_path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Same:
    """One step's lessons for ever."""

    lessons: tuple[Lesson, ...]
    fingerprint: str = "same"

    def step(self, phase: Phase, phase_step: int, step: int) -> list[Lesson]:
        return list(self.lessons)


@pytest.fixture(scope="module")
def taught() -> tuple[Lesson, ...]:
    return tuple(
        Lesson(picture=exam.lesson.picture, asked=exam.lesson.asked, glyphs=None) for exam in rendered_exams("point", 2)
    )


@pytest.fixture(scope="module")
def model(
    taught: tuple[Lesson, ...], tokenizer: LocalTokenizer, tmp_path_factory: pytest.TempPathFactory
) -> LearningVlm:
    """It knows two answers by heart."""
    run = config(phases=(replace(PHASE, steps=120),), learning_rate=3e-3, checkpoint_every=500)
    return train_vlm(run, Same(lessons=taught), tokenizer, staging=tmp_path_factory.mktemp("taught"))


def test_what_is_taught_is_said_and_scored_as_right(
    model: LearningVlm, taught: tuple[Lesson, ...], tokenizer: LocalTokenizer
) -> None:
    """The exam's verdict is what speaking word by word gives."""
    assert answers(model, tokenizer, taught, max_tokens=16) == [lesson.asked[0].answer for lesson in taught]
    exams = [
        Exam(skill="point", lesson=taught[0], point_px=(0.0, 0.0)),  # right word for word, wherever the point is
        Exam(
            skill="point",
            lesson=replace(taught[0], asked=(replace(taught[0].asked[0], answer="(1, 2)"),)),
            point_px=_point(taught[0], 5),
        ),
        Exam(
            skill="point",
            lesson=replace(taught[0], asked=(replace(taught[0].asked[0], answer="(1, 2)"),)),
            point_px=_point(taught[0], 9),
        ),
    ]
    assert [right for _, right in examine(model, tokenizer, exams)] == [True, True, False]
    [score] = by_skill(examine(model, tokenizer, exams))
    assert (score.num, score.num_right) == (3, 2)


def test_an_answer_that_holds_the_picture_placeholder_is_words_like_any_other(tokenizer: LocalTokenizer) -> None:
    """What a model that has learned little may say: scoring it must not end the run."""
    model = LearningVlm(SIZE, tokenizer, seed=0).eval()
    placeholder = torch.tensor([tokenizer.id_of("<|image_pad|>")])
    model.vlm.lm_head.register_forward_hook(lambda module, given, score: score.index_fill(-1, placeholder, 1e3))
    lesson = rendered_exams("count", 1)[0].lesson
    assert answers(model, tokenizer, [lesson], max_tokens=3) == [""]


def _point(lesson: Lesson, off_px: float) -> tuple[float, float]:
    x, y = lesson.asked[0].answer.strip("()").split(", ")
    return int(x) + off_px, float(y)


def test_the_interval_is_wilsons() -> None:
    low, high = SkillScore(skill="any", num=100, num_right=97).interval
    assert (round(low, 4), round(high, 4)) == (0.9155, 0.9897)  # Agresti and Coull 1998, formula 2
    assert SkillScore(skill="any", num=20, num_right=20).interval[1] == 1.0


def test_difficulty_rises_over_a_phase_and_recipes_survive_json() -> None:
    recipe = vlm_recipe("nano_vlm")
    assert VlmConfig.from_json(recipe.to_json()) == recipe
    phase = recipe.phases[0]
    assert (phase.difficulty(0), phase.difficulty(phase.steps - 1)) == (phase.start, phase.end)
    short = shortened(recipe, 30)
    assert 28 <= short.num_steps <= 32
    assert [part.name for part in short.phases] == [part.name for part in recipe.phases]
    with pytest.raises(TrainError, match="nano_vlm"):
        vlm_recipe("nano_vml")


def test_the_vla_starts_from_the_vlm_as_it_is_and_keeps_its_tokenizer(
    tmp_path: Path, lessons: list[Lesson], tokenizer: LocalTokenizer
) -> None:
    """Upcycled to eight experts it says at step 0 what the dense model says, to one percent of its scores."""
    dense = LearningVlm(SIZE, tokenizer, seed=0).eval()
    save_vlm_directory(tmp_path, dense.vlm, tokenizer, SIZE)
    started = recipe("nano", weights=tmp_path)
    assert started.vlm == SIZE
    assert tokenizer_of(started).fingerprint == tokenizer.fingerprint
    vla = build_vla(started, ActionShape(steps=2, action_width=2, state_width=2), tokenizer).eval()
    assert len(vla.moe_layers) == SIZE.depth
    batch = LessonCollator(SIZE, tokenizer)(lessons)
    with torch.no_grad():
        before, after = dense.scores(batch), PackedVlm(vla.vlm, SIZE).scores(batch)
    assert (before - after).norm() < 0.01 * before.norm()
    assert not torch.equal(before, after)  # equal experts would give the router nothing to learn from
    alone = LessonCollator(SIZE, tokenizer)([replace(lessons[0], asked=lessons[0].asked[:1])])
    packed = PackedVlm(vla.vlm, SIZE)
    with torch.no_grad():
        plain = vla.vlm(
            input_ids=alone.ids_BT,
            pixel_values=packed.normalised(alone),
            image_grid_thw=alone.grids,
            mm_token_type_ids=(alone.ids_BT == vla.vlm.config.image_token_id).int(),
        ).logits
        assert torch.allclose(packed.scores(alone), plain, atol=2e-4)  # routed as in Hugging Face's own forward


def test_retention_tells_what_was_forgotten_pair_by_pair(
    model: LearningVlm, taught: tuple[Lesson, ...], tokenizer: LocalTokenizer
) -> None:
    """Beside itself it forgot nothing; a model that never learned them forgot all that was known, half of the other."""
    fresh = LearningVlm(SIZE, tokenizer, seed=1).eval()
    wrong = [replace(lesson, asked=(replace(lesson.asked[0], answer="(1, 2)"),)) for lesson in taught]
    exams = [Exam(skill="known", lesson=lesson) for lesson in taught]
    exams += [Exam(skill="half", lesson=lesson) for lesson in (taught[0], wrong[0], taught[1], wrong[1])]
    assert {(row.change, row.low, row.high) for row in retention(model, model, tokenizer, exams)} == {(0.0, 0.0, 0.0)}
    together, known, half = retention(model, fresh, tokenizer, exams)
    assert (together.skill, together.num, together.base_right, together.right) == ("all", 6, 4, 0)
    assert (known.num, known.base_right, known.right) == (2, 2, 0)
    assert (known.change, known.low, known.high) == (-1.0, -1.0, -1.0)
    assert (half.num, half.base_right, half.right, half.change) == (4, 2, 0, -0.5)
    assert half.low < -0.5 < half.high
    with pytest.raises(TrainError, match="no questions"):
        retention(model, fresh, tokenizer, [])


def test_what_was_said_is_right_word_for_word_or_within_eight_pixels() -> None:
    assert is_right("There are 3 cards.", "There are 3 cards.")
    assert not is_right("There are 2 cards.", "There are 3 cards.")
    assert is_right("(130, 85)", "(132, 84)", (132.0, 84.0))
    assert not is_right("(141, 85)", "(132, 84)", (132.0, 84.0))
    assert not is_right("(130, 85)", "(132, 84)")
