"""What can rot in the docs is run: every documented command is parsed, the real-data ones are executed."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import click
import pytest
from typer.main import get_command

from apps.cli.main import app

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```bash\n(.*?)^```", page.read_text(), re.S | re.M)


def commands(page: Path) -> list[str]:
    lines = [line for block in blocks(page) for line in block.replace("\\\n", " ").splitlines()]
    return [line.split("#")[0].strip() for line in lines if line.startswith("dataengine ")]


EVERY = [(page.name, line) for page in PAGES for line in commands(page)]


@pytest.mark.parametrize(("page", "line"), EVERY, ids=[f"{page}: {line[:60]}" for page, line in EVERY])
def test_every_documented_command_has_words_that_exist(page: str, line: str) -> None:
    group = get_command(app)
    words = shlex.split(line)[1:]
    name, command, rest = group.resolve_command(click.Context(group), words)  # type: ignore[attr-defined]
    context = click.Context(command, info_name=name)
    if isinstance(command, click.Group):
        name, command, rest = command.resolve_command(context, rest)
        context = click.Context(command, info_name=name)
    assert command is not None
    command.parse_args(context, list(rest))


def test_the_readme_names_the_two_commands_a_fresh_machine_needs() -> None:
    text = (ROOT / "README.md").read_text()
    assert "make demo" in text
    assert "make test" in text


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
        ["bash", "-eu", str(script)], cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert "6 episodes" in done.stdout
