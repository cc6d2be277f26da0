"""`dataengine export`: from the ledger through a release to every form, and the words that do not fit one."""

import json
from pathlib import Path

import pytest
from export_material import EPISODES, LENGTHS, spoken_workspace
from ledger_rows import proposal, result, segments
from typer.testing import CliRunner

from annotators.ledger import Ledger
from annotators.release import release
from apps.cli.main import app
from dataengine.episode_set import EpisodeSet
from dataengine.workspace import Workspace
from schemas.errors import RefError, UsageError
from schemas.refs import Ref


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """tiny@1, and verified@1 as our own release makes it: a trace and segments of episode 0, a trace of episode 1."""
    workspace = spoken_workspace(tmp_path_factory.getbasetemp() / "spoken")
    ids = EpisodeSet.open(workspace, EPISODES).ids()
    with Ledger.open(f"sqlite:///{tmp_path_factory.mktemp('ledger') / 'ledger.db'}") as ledger:
        spoken = [
            (proposal(ids[0]), [result("pass")]),
            (proposal(ids[0], segments(LENGTHS[0] * 20_000_000)), [result("pass", "coverage")]),
            (proposal(ids[1]), [result("pass")]),
            (proposal(ids[2]), [result("fail")]),
        ]
        ledger.add_proposals(ledger.start_run(kind="annotate", recipe={}), spoken)
        release(episodes=EPISODES, to=Ref("verified", "1"), workspace=workspace, ledger=ledger, policy="verified")
    return workspace


def export(made: Workspace, *words: str) -> str:
    result = CliRunner().invoke(app, ["export", "verified@1", *words, "--workspace", str(made.root)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_each_form_of_a_real_release_says_what_it_holds_and_who_is_missing(made: Workspace, tmp_path: Path) -> None:
    ids = EpisodeSet.open(made, EPISODES).ids()
    silent = f"2 episodes have nothing released, not in it: {ids[2]}, {ids[3]}"
    said = export(made, "--as", "lerobot", "--to", "lang@1")
    assert "lerobot lang@1: 4 episodes, 3 subtask, 0 motion, 2 assistant, 0 open ended" in said
    assert silent.replace("not in it", "in it without words") in said
    assert "lang@1 was already there" in export(made, "--as", "lerobot", "--to", "lang@1")
    said = export(made, "--as", "dexvla", "--out", str(tmp_path / "dexvla"))
    assert ": 2 episodes, 50 frames, 0 frames without words" in said
    assert silent in said
    said = export(made, "--as", "chat", "--out", str(tmp_path / "chat"), "--camera", "cam_low")
    assert ": 2 episodes, 5 samples, 5 pictures" in said
    facts = json.loads(export(made, "--as", "ecot", "--out", str(tmp_path / "ecot"), "--json"))
    assert facts["counts"] == {"episodes": 2, "steps": 50, "steps_without_words": 0}
    assert facts["without_words"] == [ids[2], ids[3]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chat", "dexvla", "ecot"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--as", "lerobot"), "Give --to NAME@VERSION"),
        (("--as", "lerobot", "--to", "a@1", "--reasoning", "trace"), "takes traces and segments both"),
        (("--as", "dexvla", "--out", "x", "--to", "a@1"), "Give --out DIR, and no --to"),
        (("--as", "ecot", "--out", "x", "--camera", "cam_low"), "takes every camera"),
        (("--as", "chat", "--out", "x", "--camera", "cam_lo"), "Did you mean 'cam_low'"),
    ],
)
def test_words_that_a_form_does_not_take_are_refused(made: Workspace, words: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        export(made, *words)


def test_a_release_that_is_not_there_is_named(made: Workspace) -> None:
    words = ["export", "verifid@1", "--as", "ecot", "--out", "x", "--workspace", str(made.root)]
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, RefError)
    assert "Did you mean 'verified@1'" in str(result.exception)
