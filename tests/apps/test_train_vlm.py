"""`train nano_vlm` from nothing to a model directory, its scores and a page; and its wrong turns."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from annotators.vlm.chat_model import fingerprint
from annotators.vlm.local import NANO_DIR
from apps.report.vlm_page import write_vlm_page
from apps.vlm_shipping import ship
from dataengine.rendered import SKILLS
from dataengine.workspace import Workspace
from schemas.errors import UsageError
from schemas.refs import Ref
from trainers.vlm_directory import load_vlm_directory

ROOT = Path(__file__).resolve().parents[2]
REF = Ref("vlm", "1")
WORDS = ("train", "nano_vlm", "--to", str(REF), "--steps", "3", "--frames", "8", "--exams", "1")


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "apps", *words], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("vlm")
    done = run(*WORDS, "--workspace", str(root))
    assert done.returncode == 0, done.stderr
    return root


@pytest.mark.slow
def test_one_command_makes_a_directory_that_loads_and_a_page(place: Path) -> None:
    folder = place / f"checkpoints/{REF}"
    loaded = load_vlm_directory(folder)
    assert 1_000_000 < sum(weight.numel() for weight in loaded.vlm.parameters()) < 8_000_000
    assert (folder / "model.safetensors").stat().st_size < 16_000_000
    scores = json.loads((folder / "scores.json").read_text())
    assert [row["skill"] for row in scores["rendered"]] == list(SKILLS)
    assert scores["simulated"]
    assert {row["skill"] for row in scores["cropped"]} <= {"board in JSON", "cards in JSON"}
    page = (place / f"{REF}.html").read_text()
    assert page.count("<img ") == 1 + 3 * len(SKILLS)  # the curves, and three samples a skill
    for sample in json.loads((folder / "samples.json").read_text()):
        assert sample["question"].replace("'", "&#x27;") in page


@pytest.mark.slow
def test_the_same_words_again_are_already_there(place: Path) -> None:
    before = (place / f"checkpoints/{REF}/record.json").read_bytes()
    assert run(*WORDS, "--workspace", str(place)).returncode == 0
    assert (place / f"checkpoints/{REF}/record.json").read_bytes() == before
    assert write_vlm_page(Workspace.at(place), REF).is_file()


@pytest.mark.slow
def test_what_is_shipped_says_where_it_comes_from(place: Path, tmp_path: Path) -> None:
    workspace = Workspace.at(place)
    folder = ship(workspace, REF, to=tmp_path / "nano", commit="0123abc")
    told = json.loads((folder / "training.json").read_text())
    record = workspace.record("checkpoints", REF)
    rows = [json.loads(line) for line in (place / f"checkpoints/{REF}/metrics.jsonl").read_text().splitlines()]
    assert (told["command"], told["commit"], told["fingerprint"]) == ("make nano-vlm", "0123abc", record.fingerprint)
    assert told["first_losses"] == [row["loss"] for row in rows[:10]]
    assert [name for name, _ in told["inputs"]] == ["frames", "held-out-frames", "crops", "held-out-crops"]
    assert load_vlm_directory(folder).size == load_vlm_directory(place / f"checkpoints/{REF}").size
    assert fingerprint(folder) == fingerprint(place / f"checkpoints/{REF}")


@pytest.mark.slow
def test_what_went_on_from_others_ships_with_the_origin_of_each(place: Path, tmp_path: Path) -> None:
    workspace, refs = Workspace.at(place), [Ref("vlm", str(number)) for number in (3, 2, 1)]
    for number, recipe in ((2, "nano_vlm_places"), (3, "nano_vlm_things")):
        words = (recipe, *("--weights", str(place / f"checkpoints/vlm@{number - 1}")), *("--to", f"vlm@{number}"))
        done = run("train", *words, "--steps", "3", "--frames", "0", "--exams", "1", "--workspace", str(place))
        assert done.returncode == 0, done.stderr
    told = json.loads(
        (ship(workspace, refs[0], to=tmp_path / "nano", commit="c", bases=refs[1:]) / "training.json").read_text()
    )
    chain = (told, told["base"], told["base"]["base"])
    assert [each["recipe"]["name"] for each in chain] == ["nano_vlm_things", "nano_vlm_places", "nano_vlm"]
    assert [each["fingerprint"] for each in chain] == [workspace.record("checkpoints", ref).fingerprint for ref in refs]
    for wrong, sentence in (
        (refs[1:2], r"vlm@2 went on from another checkpoint\. Name that too, behind vlm@2"),
        ([refs[2]], r"vlm@3 did not go on from vlm@1"),
    ):
        with pytest.raises(UsageError, match=sentence):
            ship(workspace, refs[0], to=tmp_path / "no", commit="c", bases=wrong)


@pytest.mark.slow
def test_what_went_on_from_the_one_that_ships_keeps_its_origin(tmp_path: Path) -> None:
    words = ("nano_vlm_reads", *("--weights", str(NANO_DIR)), *("--to", "vlm@1"))
    done = run("train", *words, "--steps", "2", "--frames", "0", "--exams", "1", "--workspace", str(tmp_path))
    assert done.returncode == 0, done.stderr
    folder = ship(Workspace.at(tmp_path), Ref("vlm", "1"), to=tmp_path / "nano", commit="c", bases=["nano"])
    told, known = (json.loads((each / "training.json").read_text()) for each in (folder, NANO_DIR))
    assert told["base"] == {name: value for name, value in known.items() if name != "command"}
    with pytest.raises(UsageError, match=r"vlm@1 went on from another checkpoint\. Name that too"):
        ship(Workspace.at(tmp_path), Ref("vlm", "1"), to=tmp_path / "no", commit="c")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("nano_vlm", "--mix", "a@1"), "renders its own lessons"),
        (("nano",), "learns from a mix. Name it: --mix NAME@VERSION."),
        (("nano_vml", "--mix", "a@1"), "nano_vlm"),
    ],
)
def test_wrong_words_are_one_sentence(words: tuple[str, ...], sentence: str, tmp_path: Path) -> None:
    done = run("train", *words, "--to", "x@1", "--workspace", str(tmp_path))
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
