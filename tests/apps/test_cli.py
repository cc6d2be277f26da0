"""The command line: every verb explains itself, and every wrong turn ends in one sentence and exit code 2."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from apps.cli.conversion import parse_share
from apps.cli.data import parse_size
from apps.cli.main import app
from apps.cli.transfer import parse_options
from apps.cli.vlm import weights_folder
from dataengine.artifacts import Draft, begin
from dataengine.workspace import Workspace
from schemas.errors import RefError, UsageError
from schemas.refs import Kind, Ref

ROOT = Path(__file__).resolve().parent.parent.parent


def verbs() -> list[tuple[str, ...]]:
    group = get_command(app)
    found: list[tuple[str, ...]] = []
    for name, command in group.commands.items():  # type: ignore[attr-defined]  # a group, by construction
        inner = getattr(command, "commands", None)
        found += [(name, below) for below in inner] if inner else [(name,)]
    return found


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "apps", *words], cwd=ROOT, capture_output=True, text=True, check=False)


def publish(workspace: Workspace, kind: Kind, name: str) -> None:
    draft = begin(workspace, kind, Ref(name, "1"), recipe={})
    assert isinstance(draft, Draft)
    with draft:
        draft.publish(fingerprint="0" * 64, counts={"episodes": 3})


@pytest.mark.parametrize("verb", verbs(), ids=" ".join)
def test_every_verb_explains_itself_with_an_example(verb: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*verb, "--help"])
    assert result.exit_code == 0
    assert f"Example: dataengine {' '.join(verb)}" in " ".join(result.output.split())


@pytest.mark.parametrize("verb", verbs(), ids=" ".join)
def test_every_verb_is_shown_in_the_readme_or_the_docs(verb: tuple[str, ...]) -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    assert any(f"dataengine {' '.join(verb)}" in page.read_text() for page in pages)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("show", "nothing@1"), "RefError: no artifact 'nothing@1'"),
        (("show", "nothing"), "RefError: 'nothing' has no version"),
        (("convert", "nowhere", "--to", "a@1"), "nowhere"),
        (("train", "nanno", "--mix", "a@1", "--to", "b@1"), "Did you mean 'nano'"),
        (("convert", ".", "--to", "a@1", "--max-rejected", "lots"), "'lots' is no share"),
        (("annotate", "nothing@1"), "RefError: no episodes 'nothing@1'"),
        (("annotate", "sim@1", "--budget", "5"), "--budget and --api-key-env are for --backend endpoint alone"),
        (
            ("annotate", "sim@1", "--backend", "endpoint", "--url", "http://h/v1", "--model", "m", "--budget", "5"),
            "Give --price-in and --price-out too",
        ),
        (("simulate", "--image-size", "big"), "'big' is no size"),
        (("render", "--skill", "solv"), "there is no skill 'solv'. Did you mean 'solve'"),
        (("verify", "sim@1", "raw/my data"), "the path comes first: dataengine verify 'raw/my data' sim@1"),
        (("verify", "raw/sim"), "'raw/sim' names no dataset"),
        (("verify", "sim@1", "--no-quality"), "leaves nothing to do"),
        (("verify", "a@1", "--html", "nowhere/page.html"), "Make it first"),
        (("convert", ".", "--adopt", "--codec", "libx264", "--to", "a@1"), "--adopt takes a dataset as it is"),
        (("edit", "sim@1", "--where", "operator=ada", "--to", "sim@2"), "Give --set FIELD=VALUE too"),
        (("export", "said@1", "--as", "lerobot", "--out", "folder"), "Give --to NAME@VERSION, and no --out"),
        (("export", "said@1", "--as", "chat", "--to", "a@1"), "--as chat makes a folder of files. Give --out DIR"),
        (("pull", "ftp//nowhere"), "ftp//nowhere"),
    ],
)
def test_a_wrong_turn_is_one_sentence_and_exit_code_2(words: tuple[str, ...], sentence: str, tmp_path: Path) -> None:
    extra = () if words[0] in ("simulate", "render") else ("--workspace", str(tmp_path))
    result = run(*words, *extra)
    assert result.returncode == 2
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_list_and_show_name_what_is_there(workspace: Workspace) -> None:
    publish(workspace, "episodes", "sim")
    result = CliRunner().invoke(app, ["list", "--workspace", str(workspace.root), "--json"])
    assert [row["name"] for row in json.loads(result.output)] == ["sim"]
    result = CliRunner().invoke(app, ["show", "sim@1", "--workspace", str(workspace.root)])
    assert "episodes sim@1" in result.output
    assert "episodes: 3" in result.output


def test_a_name_that_two_kinds_share_must_say_which(workspace: Workspace) -> None:
    publish(workspace, "episodes", "sim")
    publish(workspace, "frames", "sim")
    result = CliRunner().invoke(app, ["show", "sim@1", "--workspace", str(workspace.root)])
    assert isinstance(result.exception, UsageError)
    assert "episodes/sim@1 or frames/sim@1" in str(result.exception)
    result = CliRunner().invoke(app, ["show", "frames/sim@1", "--workspace", str(workspace.root)])
    assert result.exit_code == 0


def test_an_empty_workspace_says_how_to_start(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["list", "--workspace", str(tmp_path / "none")])
    assert "dataengine inspect PATH" in result.output


def test_shares_and_sizes_are_read_or_refused() -> None:
    assert parse_share("10%") == pytest.approx(0.1)
    assert parse_share("1") == 1.0
    assert parse_size("320x240") == (320, 240)
    for text in ("110%", "-1", "x"):
        with pytest.raises(UsageError):
            parse_share(text)
    for text in ("320", "0x10", "axb"):
        with pytest.raises(UsageError):
            parse_size(text)


def test_keys_of_digits_and_of_json_stay_text_and_switches_do_not() -> None:
    pairs = ["key=123456", "secret=1e5", "token=null", "password={}", "username=true", "endpoint_url=http://minio:9000"]
    assert parse_options(pairs) == dict(pair.split("=") for pair in pairs)
    typed = parse_options(["anon=true", "private=false", "port=22", 'client_kwargs={"verify": false}', "secret=a=b"])
    assert typed == {
        "anon": True,
        "private": False,
        "port": 22,
        "client_kwargs": {"verify": False},
        "secret": "a=b",
    }
    with pytest.raises(UsageError, match="option anon is no text"):
        parse_options(["anon=False"])
    with pytest.raises(UsageError, match="is no option"):
        parse_options(["hello"])


def test_weights_are_a_checkpoint_of_the_workspace_by_name_or_any_folder(workspace: Workspace, tmp_path: Path) -> None:
    publish(workspace, "checkpoints", "vlm")
    assert weights_folder("vlm@1", workspace.root) == workspace.find("checkpoints", Ref("vlm", "1"))
    folder = tmp_path / "odd@name"
    folder.mkdir()
    assert weights_folder(str(folder), workspace.root) == folder
    assert weights_folder(None, workspace.root) is None
    with pytest.raises(RefError, match="gone@1"):
        weights_folder("gone@1", workspace.root)
