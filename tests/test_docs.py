"""What can rot in the docs is run: every documented command is parsed, the real-data ones are executed."""

import json
import math
import os
import re
import shlex
import subprocess
from collections import Counter
from pathlib import Path

import click
import pytest
from typer.main import get_command

from apps.cli.main import app
from benchmarks.tables import with_tables
from dataengine.mix import Mix
from dataengine.quality import QualityLimits
from dataengine.rig_files import shipped_rigs
from dataengine.workspace import Workspace
from schemas.refs import Ref
from schemas.rigs import Arm, Camera, Clock, EndEffector, Feature, Kinematics, MetadataRule, Position, Rig

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```bash\n(.*?)^```", page.read_text(), re.S | re.M)


def commands(page: Path) -> list[str]:
    lines = [line for block in blocks(page) for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`(dataengine [^`]+)`", "\n".join(re.findall(r"^\|.*\|$", page.read_text(), re.M)))
    return [re.split(r"#|\|\|", line)[0].strip() for line in lines if line.startswith("dataengine ")]


EVERY = [(page.name, line) for page in PAGES for line in commands(page)]


@pytest.mark.parametrize(("page", "line"), EVERY, ids=[f"{page}: {line[:60]}" for page, line in EVERY])
def test_every_documented_command_has_words_that_exist(page: str, line: str) -> None:
    group = get_command(app)
    words = shlex.split(line)[1:]
    name, command, rest = group.resolve_command(click.Context(group), words)  # type: ignore[attr-defined]
    context = click.Context(command, info_name=name)
    if hasattr(command, "commands"):  # `mix` has verbs of its own
        name, command, rest = command.resolve_command(context, rest)
        context = click.Context(command, info_name=name)
    assert command is not None
    command.parse_args(context, list(rest))


@pytest.mark.parametrize(("page", "line"), EVERY, ids=[f"{page}: {line[:60]}" for page, line in EVERY])
def test_every_documented_rig_ships_or_is_a_file_of_the_users_own(page: str, line: str) -> None:
    for rig in re.findall(r"--rig (\S+)", line):
        assert rig in shipped_rigs() or rig.endswith(".yaml"), f"{page}: {rig}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_of_figures_say_what_was_measured_last(page: Path) -> None:
    assert page.read_text() == with_tables(page.read_text()), "Run: python -m benchmarks.tables"


def test_the_convert_page_explains_every_field_of_a_rig_and_every_limit() -> None:
    text = (ROOT / "docs/convert.md").read_text()
    nouns = (Rig, Feature, Camera, Clock, EndEffector, Arm, Position, Kinematics, MetadataRule)
    fields = {name for noun in nouns for name in noun.model_fields} | set(QualityLimits().to_json())
    assert [name for name in sorted(fields) if not re.search(rf"\b{name}\b", text)] == []


def test_the_readme_and_the_convert_page_name_the_same_formats() -> None:
    tables = [
        re.findall(r"^\| .*dataengine convert .*$", (ROOT / page).read_text(), re.M)
        for page in ("README.md", "docs/convert.md")
    ]
    assert len(tables[0]) >= 14
    assert tables[0] == tables[1]


def test_the_readme_names_the_two_commands_a_fresh_machine_needs() -> None:
    text = (ROOT / "README.md").read_text()
    assert "make demo" in text
    assert "make test" in text


@pytest.mark.timeout(1800)
@pytest.mark.slow
def test_the_readme_real_data_commands_run_as_printed(samples: Path, tmp_path: Path) -> None:
    block = next(block for block in blocks(ROOT / "README.md") if "g1_inspire_v21" in block)
    script = tmp_path / "readme.sh"
    script.write_text(block)
    env = {
        **os.environ,
        "SAMPLES": str(samples),
        "DATAENGINE_WORKSPACE": str(tmp_path / "workspace"),
        "PATH": f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}",
    }
    done = subprocess.run(
        ["bash", "-eu", str(script)], cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=1700
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert "Exit code 2: 94 of 100 lack their video." in done.stdout
    assert "94 of 100 episodes were rejected (94: video is missing" in done.stderr
    assert "made: episodes g1@1, frames g1@1: 6 episodes, 1,583 frames" in done.stdout
    workspace = Workspace.at(tmp_path / "workspace")
    record = workspace.record("episodes", Ref("g1", "1"))
    assert (record.counts["episodes"], len(record.rejected)) == (6, 94)
    trained = workspace.find("checkpoints", Ref("g1-nano", "1"))
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 20
    assert all(math.isfinite(row["loss"]) and math.isfinite(row["action_loss"]) for row in rows)
    notes = workspace.record("checkpoints", Ref("g1-nano", "1")).notes
    used = Counter(notes["draws"]) + Counter(notes["passed_over"])
    schedule = Mix.open(workspace, Ref("g1-mathv", "1"))
    assert used == Counter(schedule.draw(position).source for position in range(notes["mix_position"]))
