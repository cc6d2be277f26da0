"""Rendered image-text: pure, readable, right, and never the same on both sides of the split."""

import ast
import hashlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dataengine.mix.image_text import JsonImageText, read_image_text
from dataengine.rendered import (
    EASY,
    FULL,
    SKILLS,
    SPLITS,
    Difficulty,
    Item,
    Skill,
    held_out,
    plans_hash,
    render_item,
    write_llava,
)
from dataengine.rendered.items import PICTURE_SIZE
from schemas.chat import Text
from schemas.errors import UsageError
from schemas.mixes import LlavaSource

CLEAR = Difficulty(styles=1, equations=1, geometry=1, weather=0)
EQUATION = re.compile(r"[0-9x+()-]+")


def items(skill: Skill, num: int, *, difficulty: Difficulty = FULL, split: str = "train", seed: int = 4) -> list[Item]:
    return [
        render_item(split=split, seed=seed, row=row, skill=skill, difficulty=difficulty)  # type: ignore[arg-type]
        for row in range(num)
    ]


def value_of(equation: str) -> int:
    """Evaluated by Python's own grammar, which shares nothing with the renderer."""
    assert EQUATION.fullmatch(equation), equation
    return int(eval(compile(ast.parse(equation.replace("x", "*"), mode="eval"), "board", "eval")))


def digest(item: Item) -> str:
    parts = (item.picture.tobytes(), item.question, item.answer, item.glyphs, item.point_px)
    return hashlib.sha256(repr(parts).encode()).hexdigest()


@pytest.mark.parametrize("skill", SKILLS)
@pytest.mark.parametrize("difficulty", [EASY, FULL], ids=["easy", "full"])
def test_every_skill_renders_in_both_splits(skill: Skill, difficulty: Difficulty) -> None:
    width, height = PICTURE_SIZE
    for split in SPLITS:
        for item in items(skill, 6, difficulty=difficulty, split=split):
            assert item.picture.shape == (height, width, 3)
            assert item.picture.std() > 2
            assert item.question.strip()
            assert item.answer.endswith((".", ")"))
            assert (item.point_px is not None) == (skill == "point")


def test_an_item_is_the_same_twice_and_in_another_process() -> None:
    keys = [(split, skill, row) for split in SPLITS for skill in SKILLS for row in range(2)]
    code = (
        "from dataengine.rendered import render_item, SKILLS, SPLITS\n"
        "import hashlib\n"
        "for split in SPLITS:\n"
        " for skill in SKILLS:\n"
        "  for row in (1, 0):\n"
        "   item = render_item(split=split, seed=9, row=row, skill=skill)\n"
        "   parts = (item.picture.tobytes(), item.question, item.answer, item.glyphs, item.point_px)\n"
        "   print(split, skill, row, hashlib.sha256(repr(parts).encode()).hexdigest())\n"
    )
    root = Path(__file__).parents[2]
    there = subprocess.run([sys.executable, "-c", code], cwd=root, check=True, capture_output=True, text=True).stdout
    here = {
        f"{split} {skill} {row} {digest(render_item(split=split, seed=9, row=row, skill=skill))}"
        for split, skill, row in keys
    }
    assert set(there.splitlines()) == here


def test_other_rows_seeds_and_splits_give_other_pictures() -> None:
    found = {
        digest(render_item(split=split, seed=seed, row=row, skill="trace"))
        for split in SPLITS
        for seed in range(3)
        for row in range(4)
    }
    assert len(found) == 24


@pytest.mark.parametrize("split", SPLITS)
def test_solutions_choices_and_traces_are_arithmetically_right(split: str) -> None:
    for item in items("solve", 60, split=split):
        counted = re.fullmatch(r"(?:\S+: [\d, ]+\. )?(\S+): [\d, ]*?(\d+),0\. So (\d+)\.", item.answer)
        assert counted is not None, item.answer
        assert value_of(counted[1]) == int(counted[2]) == int(counted[3])
    for item in items("trace", 60, split=split):
        found = re.fullmatch(
            r"The board reads (\S+)\. ((?:\S+: [\d, ]+,0\. )?)(\S+): [\d, ]*?(\d+),0\. "
            r"Cards: (\d+) \(left\), (\d+) \(middle\), (\d+) \(right\)\. "
            r"I pick (\d+) from the (left|middle|right)\.",
            item.answer,
        )
        assert found is not None, item.answer
        board, inner_step, last_step, answer, *cards, picked, place = found.groups()
        bracketed = re.search(r"\((.+)\)", board)
        assert inner_step.partition(": ")[0] == (bracketed[1] if bracketed else "")
        assert last_step == (board.replace(bracketed[0], str(value_of(bracketed[1]))) if bracketed else board)
        assert value_of(board) == value_of(last_step) == int(answer) == int(picked)
        assert cards[("left", "middle", "right").index(place)] == picked
        assert cards.count(picked) == 1


def test_the_drawn_characters_are_those_of_the_answer() -> None:
    for item in items("transcribe", 60, difficulty=CLEAR):
        said = re.fullmatch(r"The board reads (\S+)\.", item.answer)
        assert said is not None
        assert "".join(glyph.char for glyph in item.glyphs).startswith(said.group(1))
    for item in items("cards", 40, difficulty=CLEAR):
        drawn = "".join(glyph.char for glyph in item.glyphs)
        assert drawn.endswith("".join(re.findall(r"\d", item.answer)))


@pytest.mark.parametrize("skill", ["transcribe", "trace"])
def test_the_centre_of_every_character_lies_on_its_ink(skill: Skill) -> None:
    width, height = PICTURE_SIZE
    num_glyphs = 0
    for item in items(skill, 60, difficulty=CLEAR):
        for glyph in item.glyphs:
            # A zero has no ink in its very middle: as far as its rim, and no further. Cards lie in the lower half.
            reach = 15 if skill == "transcribe" or glyph.y_px < 100 else 5
            column, row = round(glyph.x_px), round(glyph.y_px)
            assert 0 <= column < width
            assert 0 <= row < height
            around = item.picture[max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1]
            lightness = around.max(axis=-1).astype(int)
            assert lightness.max() - lightness.min() > 70, (item.row_id, glyph)
            assert lightness.max() > 220, (item.row_id, glyph)
            num_glyphs += 1
    assert num_glyphs > 200


def test_a_point_lies_on_the_card_that_was_asked_for_and_is_what_the_answer_says() -> None:
    for item in items("point", 80, difficulty=CLEAR):
        assert item.point_px is not None
        column, row = round(item.point_px[0]), round(item.point_px[1])
        assert item.answer == f"({column}, {row})"
        around = item.picture[row - 7 : row + 8, column - 9 : column + 10].astype(int)
        assert np.mean(around.min(axis=-1) > 235) > 0.3, item.row_id
        assert np.mean(around[..., 0] - around[..., 2] > 30) < 0.03, f"{item.row_id}: wood is red"
        asked = re.findall(r"\d+", item.question)
        assert len(asked) == 1
        near = [g for g in item.glyphs if np.hypot(g.x_px - item.point_px[0], g.y_px - item.point_px[1]) < 12]
        assert "".join(glyph.char for glyph in near) == asked[0]


def test_counted_cards_are_white_patches_on_the_wood() -> None:
    import cv2

    plain = Difficulty(styles=1, equations=1, geometry=0, weather=0)
    seen = set()
    for item in items("count", 40, difficulty=plain):
        white = (item.picture[130:].min(axis=-1) > 240).astype(np.uint8)
        patches = cv2.connectedComponentsWithStats(white)[2][1:, cv2.CC_STAT_AREA]
        num_cards = int(np.sum(patches > 150))
        said = {0: "There are no cards.", 1: "There is 1 card."}.get(num_cards, f"There are {num_cards} cards.")
        assert item.answer == said
        seen.add(num_cards)
    assert seen == {0, 1, 2, 3, 4, 5}


def test_colours_are_in_the_picture_and_relations_follow_from_where_things_are_drawn() -> None:
    from dataengine.rendered.keyed import keyed_rng
    from dataengine.rendered.scenes import Painter
    from dataengine.rendered.views import TableView

    hues = {
        "red": (200, 40, 40),
        "green": (50, 150, 60),
        "blue": (40, 85, 200),
        "yellow": (235, 205, 50),
        "purple": (135, 60, 160),
        "black": (34, 33, 36),
    }
    calm = Difficulty(styles=1, equations=1, geometry=0, weather=0)
    said = set()
    for row, item in enumerate(items("relation", 40, difficulty=calm)):
        found = re.fullmatch(r"The (\w+) is (left of|right of|above|below) the (\w+)\.", item.answer)
        assert found is not None
        view = Painter(split="train", difficulty=calm, rng=keyed_rng("rendered", "train", 4, row, "relation"))
        drawn = view.plan("relation").view
        assert isinstance(drawn, TableView)
        middles = {}
        for thing in drawn.things:
            away = np.abs(item.picture[112:].astype(int) - hues[thing.colour]).max(axis=-1)
            rows, columns = np.nonzero((away < 14)[:, 60:260])
            assert len(rows) > 30, (item.row_id, thing)
            middles[thing.kind] = np.array([columns.mean(), rows.mean()])
        dx_px, dy_px = middles[found.group(1)] - middles[found.group(3)]
        sideways = "left of" if dx_px < 0 else "right of"
        assert found.group(2) == (sideways if abs(dx_px) > abs(dy_px) else "above" if dy_px < 0 else "below")
        said.add(found.group(2))
    assert len(said) == 4


def test_refusals_say_each_thing_that_is_not_there() -> None:
    answers = {re.sub(r"\d+", "N", item.answer) for item in items("refusal", 150)}
    assert {
        "There is no board.",
        "The board is empty.",
        "The board shows no equation.",
        "There is no card N.",
        "There are no cards.",
        "There is no cube.",
    } <= answers
    blank = [item for item in items("refusal", 150, difficulty=CLEAR) if item.answer == "The board is empty."]
    assert blank
    assert not any(glyph.y_px < 90 for item in blank for glyph in item.glyphs)


def test_a_gripper_is_said_to_hold_a_number_only_where_the_number_shows() -> None:
    answers = {"nothing": 0, "card": 0, "number": 0}
    for item in items("gripper", 120):
        number = re.fullmatch(r"The (?:left|right) gripper holds card (\d+)\.", item.answer)
        if number:
            answers["number"] += 1
            assert number.group(1) in "".join(glyph.char for glyph in item.glyphs)
        else:
            answers["nothing" if item.answer == "No gripper holds anything." else "card"] += 1
    assert min(answers.values()) >= 10, answers


def test_every_phrasing_is_asked_and_the_canonical_one_most() -> None:
    questions = [item.question for item in items("solve", 60)]
    assert questions.count("Solve what is written on the whiteboard.") > 20
    assert len(set(questions)) == 3


def test_a_written_set_reads_back_through_the_mix(tmp_path: Path) -> None:
    written = [item for skill in SKILLS for item in items(skill, 2)]
    listing = write_llava(tmp_path, written)
    source = LlavaSource(name="rendered", path=listing.name, weight=1.0)
    raw = JsonImageText(source, tmp_path)
    read = read_image_text(source, raw)
    assert not read.rejected
    assert [row.row_id for row in read.rows] == [item.row_id for item in written]
    for row, item in zip(read.rows, written, strict=True):
        asked, answered = row.messages
        assert [part.text for part in asked.parts if isinstance(part, Text)] == [item.question]
        assert answered.parts == (Text(item.answer),)
        import cv2

        pixels = cv2.imdecode(np.frombuffer(raw.picture(row.pictures[0]), dtype=np.uint8), cv2.IMREAD_COLOR_RGB)
        assert np.array_equal(pixels, item.picture)


def test_the_hash_of_the_held_out_set_covers_its_seed_its_skills_and_its_size() -> None:
    assert plans_hash(("solve", "point"), 2, 0) == plans_hash(("solve", "point"), 2, 0)
    others = {
        plans_hash(("solve", "point"), 2, 0),
        plans_hash(("solve", "point"), 2, 1),
        plans_hash(("solve", "point"), 3, 0),
        plans_hash(("solve",), 2, 0),
    }
    assert len(others) == 4
    assert all(item.row_id.startswith("held-out-solve-") for item in held_out("solve", 3))


def test_difficulty_zero_asks_sums_of_digits_in_one_hand() -> None:
    for item in items("solve", 40, difficulty=EASY):
        assert re.fullmatch(r"\d\+\d: [\d, ]+\. So \d+\.", item.answer)
    harder = [item.answer for item in items("solve", 80)]
    for kind in (r"^\d-\d: ", r"^\dx\d: ", r": .+: ", r"^1\d[-+]"):
        assert any(re.search(kind, answer) for answer in harder), kind


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"split": "test"}, "no split 'test'"),
        ({"skill": "transcrib"}, "Did you mean 'transcribe'"),
        ({"row": -1}, "row -1"),
    ],
)
def test_what_does_not_exist_is_refused_in_one_sentence(wrong: dict[str, object], said: str) -> None:
    arguments: dict[str, object] = {"split": "train", "seed": 0, "row": 0, "skill": "solve", **wrong}
    with pytest.raises(UsageError, match=said):
        render_item(**arguments)  # type: ignore[arg-type]


def test_a_difficulty_outside_of_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match="geometry"):
        Difficulty(styles=0, equations=0, geometry=1.5, weather=0)
