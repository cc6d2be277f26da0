"""A placement from raw recording to released rows, reviewed and exported; the truth is read by this test alone."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from annotators.annotate import annotate
from annotators.ledger import Ledger
from annotators.release import release
from annotators.review import TraceForm
from annotators.vlm.backends import Endpoint, Perception
from apps.review.desk import Desk, Typed
from apps.review.markup import say
from apps.review.panels import words_panel
from apps.sim.simulate import simulate
from dataengine.annotation_set import AnnotationSet
from dataengine.convert import convert
from dataengine.episode_set import EpisodeSet
from dataengine.exports.chat import export_chat
from dataengine.exports.lerobot import export_lerobot
from dataengine.workspace import Workspace
from schemas.annotations import payload_from_json, render_payload
from schemas.errors import FamilyError
from schemas.refs import Ref
from schemas.scenes import PlacementTrace, SceneNotes

TOYS, RELEASE = Ref("toys", "1"), Ref("toys-verified", "1")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with one converted demonstration that is annotated and released as the programs verified it."""
    home = tmp_path_factory.mktemp("toys")
    simulate(out=home / "raw", num_episodes=1, task="toy-placement", split="in-domain", seed=3)
    workspace = Workspace.at(home)
    convert(source_path=home / "raw", to=TOYS, workspace=workspace, rig="aloha_sim", sink="both", workers=1)
    with Ledger.open(workspace.ledger_url) as ledger:
        report = annotate(
            episodes=TOYS, workspace=workspace, family="toy-placement", backend=Perception(), ledger=ledger, workers=0
        )
        assert (report.num_proposed, report.fields) == (1, {"trace": 1, "segments": 1, "scene": 1})
        release(episodes=TOYS, to=RELEASE, workspace=workspace, ledger=ledger, policy="verified")
    return workspace


@pytest.fixture
def desk(home: Workspace) -> Iterator[Desk]:
    opened = Desk(workspace=home, episodes=TOYS, ledger_url=home.ledger_url)
    yield opened
    opened.close()


def test_what_is_released_is_what_the_simulator_knows(home: Workspace) -> None:
    truth = json.loads((home.root / "raw.ground_truth" / "episode_0.json").read_text())
    said = AnnotationSet.open(home, RELEASE)
    assert said.fields()["scene"] == said.fields()["trace"] == 1
    [episode_id] = EpisodeSet.open(home, TOYS).ids()
    rows = {row.field: row for row in said.rows(episode_id)}
    trace, notes = (payload_from_json(json.loads(rows[name].payload_json)) for name in ("trace", "scene"))
    assert isinstance(trace, PlacementTrace)
    assert isinstance(notes, SceneNotes)
    assert trace.target
    assert trace.reference
    assert (trace.target.noun, trace.relation, trace.reference.noun) == (
        truth["target"],
        truth["relation"],
        truth["reference"],
    )
    assert sorted(one.noun for one in notes.objects) == sorted(row["noun"] for row in truth["objects"])
    assert notes.outcome == "success"
    assert [one.relation for one in notes.relations if one.when == "after"] == [truth["relation"]]


def test_questions_plan_and_other_wordings_reach_the_exports(home: Workspace, tmp_path: Path) -> None:
    report = export_chat(annotations=RELEASE, out=tmp_path / "chat", workspace=home, cameras=["cam_high"])
    lines = [json.loads(line) for line in (tmp_path / "chat" / "chat.jsonl").read_text().splitlines()]
    asked = [line["messages"][0]["content"][-1]["text"] for line in lines if line["field"] == "question"]
    assert asked[0] == "How many things are on the table?"
    assert not report.left_out
    made = export_lerobot(annotations=RELEASE, to=Ref("toys-lang", "1"), workspace=home)
    assert made.counts["plan"] == 1
    assert made.counts["vqa"] == 2
    assert made.counts["task_aug"] >= 3


def test_a_reviewer_sees_a_placement_read_only_and_accepts_it(desk: Desk) -> None:
    waiting = {row.field: row.item_id for row in desk.queue(desk.wanted())}
    for field in ("trace", "scene"):
        shown = desk.take(reviewer="ada", wanted=desk.wanted(), item_id=waiting[field])
        assert shown is not None
        typed = Typed(trace=TraceForm(), segments=(), note="")
        assert not desk.is_changed(shown, typed)
        assert say(render_payload(shown.newest)) in words_panel(shown, desk.read(shown, typed))
        decision = desk.decide("accept", token=shown.token, reviewer="ada", typed=typed)
        assert decision.action == "accept"


def test_no_model_is_asked_about_things(home: Workspace, tmp_path: Path) -> None:
    backend = Endpoint(urls=("http://127.0.0.1:9/v1",), model="nobody")
    with (
        Ledger.open(f"sqlite:///{tmp_path}/ledger.db") as ledger,
        pytest.raises(FamilyError, match="no model is asked about them yet"),
    ):
        annotate(episodes=TOYS, workspace=home, family="toy-placement", backend=backend, ledger=ledger, workers=0)
