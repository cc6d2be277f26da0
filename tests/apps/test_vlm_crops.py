"""What the small VLM is taught about annotating is what `annotate` asks it, and what its answers must look like."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from annotators.calls import RawAnswer
from annotators.families import load_family
from annotators.vlm.answers import BoardAnswer, CardsAnswer, parse
from apps.sim.questions import write_questions
from apps.vlm_crops import write_crops
from schemas.errors import TrainError, UsageError
from trainers.vlm.rendered_lessons import Crops, Frames


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    home = tmp_path_factory.mktemp("crops")
    write_questions(home / "frames", split="train", num_frames=8, seed=2)
    write_crops(home / "crops", frames=home / "frames", split="train", num_rendered=16, seed=2, tells_cards=True)
    return home / "frames", home / "crops"


def _rows(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((folder / "conversations.json").read_bytes())
    return rows


def test_every_lesson_asks_with_the_familys_prompt_and_is_answered_in_its_schema(folders: tuple[Path, Path]) -> None:
    family = load_family("math-matching")
    rows = _rows(folders[1])
    assert {row["skill"] for row in rows} == {"board in JSON", "cards in JSON"}
    for row in rows:
        system, human, answer = (turn["value"] for turn in row["conversations"])
        question = row["skill"].removesuffix(" in JSON")
        assert (system, human) == (family.prompts[question], "<image>")
        form = BoardAnswer if question == "board" else CardsAnswer
        said = parse(RawAnswer(outcome="success", text=answer), form)
        assert said is not None
        assert json.dumps(said.model_dump(mode="json")) == answer  # the one spelling there is


def test_a_frames_crops_say_what_the_frame_says(folders: tuple[Path, Path]) -> None:
    """The simulator's board ends in =?, which a transcription copies and `The board reads 4+1.` leaves out."""
    frames, crops = folders
    said = {
        (row["image"], row["skill"]): row["conversations"][1]["value"]
        for row in _rows(frames)
        if row["skill"] in ("transcribe", "cards")
    }
    cut = [row for row in _rows(crops) if row["id"].startswith("train-")]
    assert {row["skill"] for row in cut} == {"board in JSON", "cards in JSON"}
    for row in cut:
        image = f"images/{row['id'].rsplit('-', 1)[0]}.jpg"
        answer = json.loads(row["conversations"][2]["value"])
        if row["skill"] == "board in JSON":
            assert said[image, "transcribe"] == f"The board reads {answer['writing'].removesuffix('=?')}."
        else:
            listed = ", ".join(f"{card['text']} ({card['position']})" for card in answer["cards"])
            assert said[image, "cards"] == f"Cards: {listed}."


def test_lessons_of_one_step_have_one_prompt_and_one_size(folders: tuple[Path, Path]) -> None:
    import numpy as np

    crops = Crops.of(Frames.open(folders[1]), cell_px=40)
    assert sum(len(places) for _, places in crops.groups) == len(_rows(folders[1]))
    for seed in range(6):
        lessons = crops.step(4, np.random.default_rng(seed))
        assert len({(lesson.picture.shape, lesson.asked[0].instructions) for lesson in lessons}) == 1
        assert all(side % 40 == 0 for side in lessons[0].picture.shape[:2])


def test_crops_to_learn_from_tell_where_each_card_lies(folders: tuple[Path, Path]) -> None:
    frames, crops = folders
    told = [row for row in _rows(crops) if "cards_px" in row]
    assert {row["skill"] for row in told} == {"cards in JSON"}
    assert len(told) == sum(row["skill"] == "cards in JSON" for row in _rows(crops))
    for row in told:
        answer = json.loads(row["conversations"][2]["value"])
        assert [str(number) for number, _, _ in row["cards_px"]] == [card["text"] for card in answer["cards"]]
        assert [x for _, x, _ in row["cards_px"]] == sorted(x for _, x, _ in row["cards_px"])
        picture = cv2.imread(str(crops / row["image"]))
        for _, x_px, y_px in row["cards_px"]:
            part = picture[round(y_px) - 12 : round(y_px) + 13, round(x_px) - 12 : round(x_px) + 13]
            assert np.mean(part.min(axis=-1) > 150) > 0.3  # paper
    write_crops(folders[1].parent / "kept", frames=frames, split="train", num_rendered=4, seed=2)
    assert not any("cards_px" in row for row in _rows(folders[1].parent / "kept"))
    with pytest.raises(UsageError, match=r"to 1; got 0\.5 of held-out"):
        write_crops(folders[1].parent / "no", frames=frames, split="held-out", num_rendered=4, seed=2, hands=0.5)


def test_a_row_that_tells_of_other_cards_than_its_answer_lists_is_named(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    row = next(row for row in _rows(folders[1]) if len(row.get("cards_px", ())) > 1)
    row["cards_px"].pop()
    (tmp_path / "conversations.json").write_text(json.dumps([row]))
    with pytest.raises(TrainError, match=f"row {row['id']} tells of {len(row['cards_px'])} cards"):
        Frames.open(tmp_path)


def test_what_is_known_of_a_crop_is_turned_to_its_size_in_the_batch(folders: tuple[Path, Path]) -> None:
    found = Frames.open(folders[1])
    crops = Crops.of(found, cell_px=40)
    steps = [crops.step(4, np.random.default_rng(seed), evenly=True) for seed in range(20)]
    told = [lesson for lessons in steps for lesson in lessons if lesson.cards]
    assert told
    shares = set()
    for lesson in told:
        height, width = lesson.picture.shape[:2]
        assert (height % 40, width % 40) == (0, 0)
        [asked] = lesson.asked
        assert lesson.are_all_cards
        assert [look.place_px for look in asked.looks] == [(x_px, y_px) for _, x_px, y_px in lesson.cards]
        for row in _rows(folders[1]):
            if row["conversations"][2]["value"] == asked.answer and "cards_px" in row:
                file_height, file_width = cv2.imread(str(folders[1] / row["image"])).shape[:2]
                want = [(n, x * width / file_width, y * height / file_height) for n, x, y in row["cards_px"]]
                if np.allclose(np.array(lesson.cards, float), np.array(want)):
                    shares.add((width / file_width, height / file_height))
                    break
        else:
            raise AssertionError(f"no row's cards lie where those of {asked.answer} do")
    assert any(across != down for across, down in shares)
