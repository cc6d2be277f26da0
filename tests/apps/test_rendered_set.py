"""`render`: a LLaVA-style folder that a mix reads, the same whoever draws it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from apps.cli.main import app
from apps.rendered_set import write_rendered_set
from dataengine.mix.image_text import JsonImageText, read_image_text
from dataengine.rendered import SKILLS
from schemas.errors import UsageError
from schemas.mixes import LlavaSource


def contents(folder: Path) -> dict[str, bytes]:
    """Every file by its name in the folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_drawn_hangs_on_the_words_alone_and_reads_back_through_a_mix(tmp_path: Path) -> None:
    out = tmp_path / "questions"
    words = ["--skill", "transcribe", "--skill", "point", "--rows-per-skill", "3", "--split", "held-out", "--seed", "4"]
    result = CliRunner().invoke(app, ["render", "--out", str(out), *words, "--workers", "2", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {"out": str(out), "pictures": 6}
    alone = tmp_path / "alone"
    told: list[tuple[int, int]] = []
    write_rendered_set(
        alone,
        skills=("transcribe", "point"),
        rows_per_skill=3,
        split="held-out",
        seed=4,
        workers=1,
        on_progress=lambda done, total: told.append((done, total)),
    )
    assert contents(alone) == contents(out)
    assert told == [(done, 6) for done in range(1, 7)]
    source = LlavaSource(name="questions", path="conversations.json", weight=1.0)
    read = read_image_text(source, JsonImageText(source, out))
    assert not read.rejected
    assert [row.row_id for row in read.rows] == [
        f"held-out-{skill}-4-{row}" for skill in ("transcribe", "point") for row in range(3)
    ]


def test_without_a_skill_all_are_drawn_and_a_whole_folder_is_left_alone(tmp_path: Path) -> None:
    num = write_rendered_set(tmp_path, skills=(), rows_per_skill=1, split="train", seed=0, workers=2)
    assert num == len(SKILLS)
    before = contents(tmp_path)
    assert {row["skill"] for row in json.loads(before["conversations.json"])} == set(SKILLS)
    with pytest.raises(UsageError, match=f"'{tmp_path.name}' holds a set of questions already"):
        write_rendered_set(tmp_path, skills=(), rows_per_skill=2, split="train", seed=0, workers=1)
    assert contents(tmp_path) == before
