"""No prompt ships without a score on its golden questions, and none that is worse than the last one."""

import base64
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner
from vlm_server import Reply, said, serving

import annotators.families as shipped
from annotators.families import Family, families, load_family
from annotators.golden import SCORES, SET, GoldenScore, answers_right, fits, keep, read_scores, unscored
from apps.cli.main import app
from schemas.errors import FamilyError

HOME = Path(shipped.__file__).parent
NUM = 12


@pytest.fixture
def mine(tmp_path: Path) -> Family:
    """A family of one prompt with twelve golden questions and no score."""
    folder = tmp_path / "mine"
    (folder / "golden").mkdir(parents=True)
    shutil.copy(HOME / "math-matching" / "board.md", folder)
    words = "name: mine\nversion: 1\nabout: boards\nfields: [trace]\ncameras: [any]\nprompts: {board: board.md}\n"
    (folder / "family.yaml").write_text(words)
    pictures = [row["pictures"][0] for row in lines(HOME / "math-matching" / SET) if row["question"] == "board"][:NUM]
    for number, name in enumerate(pictures):
        shutil.copy(HOME / "math-matching" / name, folder / f"golden/{number}.jpg")
    rows = [
        {"question": "board", "pictures": [f"golden/{at}.jpg"], "answer": {"writing": f"{at}+1"}} for at in range(NUM)
    ]
    (folder / SET).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_family(str(folder))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def ask(family: Family, workspace: Path, num_right: int) -> Any:
    """The command, against a server that is right so often."""

    places = {(family.folder / f"golden/{at}.jpg").read_bytes(): at for at in range(NUM)}

    def answer(body: dict[str, Any], number: int) -> Reply:
        url = body["messages"][1]["content"][0]["image_url"]["url"]
        at = places[base64.b64decode(url.partition(",")[2])]
        return said(json.dumps({"writing": f"{at} + 1 = ?" if at < num_right else "0+0"}))

    with serving(answer) as server:
        words = ["evaluate", "golden", str(family.folder), "--url", server.url, "--model", "m"]
        # One workspace per model's state: the same question to the same model is not asked twice.
        return CliRunner().invoke(app, [*words, "--workspace", str(workspace / str(num_right))])


def test_every_shipped_prompt_has_a_golden_score() -> None:
    assert [problem for name in families() for problem in unscored(load_family(name))] == []


def test_a_changed_prompt_a_changed_set_and_no_set_are_named(mine: Family, tmp_path: Path) -> None:
    (problem,) = unscored(mine)
    assert "prompt 'board' has no golden score as it is now" in problem
    assert ask(mine, tmp_path, NUM).exit_code == 0
    assert unscored(mine) == []
    (mine.folder / "board.md").write_text("Copy the writing.\n")
    assert len(unscored(load_family(str(mine.folder)))) == 1
    shutil.copy(HOME / "math-matching" / "board.md", mine.folder)
    assert unscored(load_family(str(mine.folder))) == []
    (mine.folder / "golden/0.jpg").write_bytes(b"another picture")
    assert len(unscored(mine)) == 1
    (mine.folder / SET).unlink()
    with pytest.raises(FamilyError, match=r"has no golden\.jsonl"):
        unscored(mine)


def test_a_score_below_the_last_ones_interval_is_refused(mine: Family, tmp_path: Path) -> None:
    done = ask(mine, tmp_path, NUM)
    assert f"board: {NUM} of {NUM} right (100.0%" in done.stdout
    kept = (mine.folder / SCORES).read_bytes()
    worse = ask(mine, tmp_path, 6)
    assert worse.exit_code != 0
    assert isinstance(worse.exception, FamilyError)
    assert "6 of 12 right" in str(worse.exception)
    assert (mine.folder / SCORES).read_bytes() == kept
    assert ask(mine, tmp_path, NUM - 1).exit_code == 0  # within the interval


def test_scores_of_other_models_and_of_other_prompts_stay(mine: Family) -> None:
    def scored(model: str, prompt: str, num_right: int) -> GoldenScore:
        return GoldenScore(
            question="board",
            prompt_hash=prompt,
            set_hash="s",
            model=model,
            num=10,
            num_right=num_right,
            low=num_right / 20,
            high=1.0,
            date="2026-11-27",
        )

    for score in (scored("a", "p", 9), scored("b", "p", 1), scored("a", "q", 8), scored("a", "q", 7)):
        keep(mine, [score])
    assert [(one.model, one.prompt_hash, one.num_right) for one in read_scores(mine)] == [
        ("a", "p", 9),
        ("b", "p", 1),
        ("a", "q", 7),
    ]


def test_other_words_are_right_where_there_are_any_and_none_changes_a_fact() -> None:
    keeps: dict[str, Any] = {"keeps": "Put the red box behind the blue bar."}
    for question, words, is_right in (
        ("wordings", ["Place the red box behind the blue bar."], True),
        ("wordings", ["Place the red box behind the blue bar.", "Place the red box."], False),
        ("wordings", ["Put the red box behind the blue bar."], False),
        ("wordings", [], False),
        ("retelling", ["So I will take the red box behind the blue bar."], False),
        ("retelling", ["So put the red box behind the blue bar."], True),
    ):
        assert answers_right(question, keeps, {"wordings": words}) is is_right  # type: ignore[arg-type]  # a list is JSON


def test_an_answer_fits_where_it_says_what_it_must() -> None:
    assert fits({"writing": "4+1=?"}, {"writing": " 4 + 1 = "})
    assert not fits({"writing": "4+1"}, {"writing": "4+2"})
    assert not fits({"writing": None}, {"writing": "4+2"})
    assert fits({"object": "card"}, {"object": "white number card"})
    assert not fits({"object": "card"}, {"object": "bottle"})
    cards = {"cards": [{"text": "3", "position": "left"}]}
    assert fits(cards, cards)
    assert not fits(cards, {"cards": [*cards["cards"], {"text": "5", "position": "middle"}]})
    rows = {"segments": [{"number": 2, "object": "card"}]}
    assert fits(rows, {"segments": [{"number": 1, "object": None}, {"number": 2, "object": "card", "place": None}]})
    assert not fits(rows, {"segments": [{"number": 1, "object": "card"}]})
