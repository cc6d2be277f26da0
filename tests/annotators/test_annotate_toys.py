"""A placement from raw recording to released rows, reviewed and exported; the truth is read by this test alone."""

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import pyarrow.parquet as pq
import pytest
from vlm_server import Reply, said, serving

from annotators.annotate import annotate
from annotators.cascade import annotate_cascade
from annotators.families import load_family
from annotators.ledger import Ledger
from annotators.observe import Observation, Observer
from annotators.release import release
from annotators.vlm.backends import Endpoint, Perception
from apps.review.desk import Desk, Shown
from apps.review.markup import say
from apps.review.panels import words_panel
from apps.sim.simulate import simulate
from dataengine.annotation_set import AnnotationSet
from dataengine.convert import convert
from dataengine.edit import Changes, Relabel, edit
from dataengine.episode_set import EpisodeSet
from dataengine.exports.chat import export_chat
from dataengine.exports.dexvla import export_dexvla
from dataengine.exports.ecot import export_ecot
from dataengine.exports.lerobot import export_lerobot
from dataengine.mix.image_text import open_image_text, read_image_text
from dataengine.workspace import Workspace
from schemas.annotations import Proposal, payload_from_json, render_payload
from schemas.chat import Image, Text
from schemas.errors import FamilyError
from schemas.mixes import LlavaSource
from schemas.refs import Ref
from schemas.scenes import PlacementTrace, SceneNotes

type Boxes = dict[str, list[int] | None]
type Change = Callable[[Boxes], Boxes]
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


def test_questions_about_a_scene_come_back_into_a_mix_and_are_held_out_with_their_episode(
    home: Workspace, tmp_path: Path
) -> None:
    export_chat(annotations=RELEASE, out=tmp_path / "chat", workspace=home, cameras=["cam_high"], fields=["question"])
    lines = [json.loads(line) for line in (tmp_path / "chat" / "chat.jsonl").read_text().splitlines()]
    asked = {line["messages"][0]["content"][-1]["text"] for line in lines}
    assert {"How many things are on the table?", "What is furthest to the left?"} <= asked
    assert any(question.startswith("What colour is the ") for question in asked)
    assert any(question.endswith(", as the robot sees it?") for question in asked)
    source = LlavaSource(name="scenes", path="chat.jsonl", layout="messages", epochs=1)
    found = read_image_text(source, open_image_text(source, tmp_path / "chat"))
    assert (len(found.rows), found.rejected) == (len(lines), ())
    [episode_id] = EpisodeSet.open(home, TOYS).ids()
    assert {row.split_key for row in found.rows} == {episode_id}
    first = found.rows[0].messages
    assert first[0].parts == (Image("image1"), Text("How many things are on the table?"))
    assert (first[1].parts, first[1].supervised) == ((Text(lines[0]["messages"][1]["content"][0]["text"]),), True)
    rows = [
        lines[0],
        {**lines[0], "images": ["frames/none.jpg"]},
        {**lines[0], "messages": lines[0]["messages"][:1]},
        {**lines[0], "messages": [{"role": "user", "content": "words"}, lines[0]["messages"][1]]},
    ]
    (tmp_path / "chat" / "bad.jsonl").write_text("\n".join(map(json.dumps, rows)))
    wrong = source.model_copy(update={"path": "bad.jsonl"})
    refused = read_image_text(wrong, open_image_text(wrong, tmp_path / "chat"))
    assert (len(refused.rows), len(refused.rejected)) == (1, 3)


def taken(desk: Desk, field: str, reviewer: str = "ada") -> Shown:
    """The item of a field, leased."""
    [row] = [row for row in desk.queue(desk.wanted()) if row.field == field]
    shown = desk.take(reviewer=reviewer, wanted=desk.wanted(), item_id=row.item_id)
    assert shown is not None
    return shown


def test_a_reviewer_sees_a_placement_and_its_scene_and_accepts_them(desk: Desk) -> None:
    for name in ("trace", "scene"):
        shown = taken(desk, name)
        typed = desk.sheet(shown).typed()
        assert not desk.is_changed(shown, typed)
        assert say(render_payload(shown.newest)) in words_panel(shown, desk.read(shown, typed))
        decision = desk.decide("accept", token=shown.token, reviewer="ada", typed=typed)
        assert decision.action == "accept"


def test_a_corrected_box_and_corrected_notes_are_released_and_reach_every_export(desk: Desk, home: Workspace) -> None:
    shown = taken(desk, "trace")
    sheet = desk.sheet(shown)
    target, reference = sheet.things
    box = (3, 4, 33, 44)
    sheet = sheet.model_copy(update={"things": (target.model_copy(update={"box": box}), reference)})
    made = desk.decide("edit", token=shown.token, reviewer="ada", typed=sheet.typed())
    assert made.action == "edit"  # a box is what a placement says, not where it was found
    words = f"The {target.noun} is at [3, 4, 33, 44]."
    shown = taken(desk, "scene")
    sheet = desk.sheet(shown)
    said = {
        "outcome": "failure",
        "plan": (("grasp", target.noun, "", ""), *sheet.plan[-1:]),
        "wordings": ("Shift it over.",),
        "questions": ((sheet.questions[0][0], "Two."), *sheet.questions[1:]),
    }
    desk.decide("edit", token=shown.token, reviewer="ada", typed=sheet.model_copy(update=said).typed())
    desk.decide("accept", token=(cut := taken(desk, "segments")).token, reviewer="ada", typed=desk.sheet(cut).typed())

    corrected = Ref("toys-corrected", "1")
    release(episodes=TOYS, to=corrected, workspace=home, ledger=desk.ledger, policy="human")
    [episode_id] = desk.episodes.ids()
    rows = {row.field: row for row in AnnotationSet.open(home, corrected).rows(episode_id)}
    trace, notes = (payload_from_json(json.loads(rows[name].payload_json)) for name in ("trace", "scene"))
    assert isinstance(trace, PlacementTrace)
    assert isinstance(notes, SceneNotes)
    assert trace.target is not None
    assert (trace.target.box_xyxy, rows["trace"].reviewer) == (box, "ada")
    assert (notes.outcome, notes.worded_by, len(notes.plan)) == ("failure", None, 2)

    out = home.root / "corrected"
    export_chat(annotations=corrected, out=out / "chat", workspace=home, cameras=["cam_high"])
    lines = [json.loads(line)["messages"] for line in (out / "chat" / "chat.jsonl").read_text().splitlines()]
    answers = [messages[-1]["content"][0]["text"] for messages in lines]
    assert any(answer.startswith(words) for answer in answers)
    assert "Two." in answers
    export_ecot(annotations=corrected, out=out / "ecot", workspace=home)
    [file] = json.loads((out / "ecot" / "reasonings.json").read_text()).values()
    step = file[episode_id]["reasoning"]["0"]
    assert step["subtask_reason"].startswith(words)
    assert step["plan"] == f"1. Grasp the {target.noun}. 2. Retreat."
    export_dexvla(annotations=corrected, out=out / "dexvla", workspace=home)
    [recording] = (out / "dexvla").glob("**/*.hdf5")
    with h5py.File(recording) as recorded:
        assert {row.decode()[: len(words)] for row in recorded["substep_reasonings"]} == {words}
    export_lerobot(annotations=corrected, to=Ref("toys-corrected-lang", "1"), workspace=home)
    [data] = (home.path("episodes", Ref("toys-corrected-lang", "1")) / "data").glob("**/*.parquet")
    columns = pq.read_table(data, columns=["language_persistent", "language_events"]).to_pylist()
    told = [row for each in columns for rows in each.values() for row in rows or ()]
    found = {(row["style"], row["content"]) for row in told}
    assert {("task_aug", "Shift it over."), ("plan", step["plan"])} <= found
    assert any(style is None and content.startswith(words) for style, content in found if content)
    assert any(style == "vqa" and content.startswith("Two. ") for style, content in found if content)


@dataclass(slots=True, kw_only=True)
class Seer:
    """Answers from the simulator's own boxes, by looking the picture up; `change` is what it gets wrong."""

    workspace: Workspace
    change: Change = dict
    crops: dict[bytes, str] = field(default_factory=dict)

    def __call__(self, body: dict[str, Any], number: int) -> Reply:
        truth = json.loads((self.workspace.root / "raw.ground_truth" / "episode_0.json").read_text())
        if not self.crops:
            opened = EpisodeSet.open(self.workspace, TOYS)
            things = load_family("toy-placement").file.things
            seen = Observer(opened, "cam_high", wants_crops=True, things=things).observe(opened.ids()[0])
            assert isinstance(seen, Observation)
            self.crops = {data: look for look, data in seen.crops.items()}
        words, picture = body["messages"][1]["content"]
        assert truth["relation"] not in words["text"]  # neither what is moved nor where to is told
        look = self.crops.get(base64.b64decode(picture["image_url"]["url"].partition(",")[2]))
        boxes: Boxes = {}
        if look is not None:  # else it is blank
            boxes = {row["noun"]: box for row, box in zip(truth["objects"], truth[f"boxes_{look}"], strict=True)}
            boxes = self.change(boxes)
        return said(json.dumps({"things": [{"noun": noun, "box": box} for noun, box in boxes.items()]}))


def judged(home: Workspace, folder: Path, change: Change) -> tuple[dict[str, dict[str, str]], dict[str, Proposal]]:
    """Annotate through a server: the verdicts and the proposals of each field."""
    with serving(Seer(workspace=home, change=change)) as server, Ledger.open(f"sqlite:///{folder}/ledger.db") as ledger:
        backend = Endpoint(urls=(server.url,), model=change.__name__)
        report = annotate(
            episodes=TOYS, workspace=home, family="toy-placement", backend=backend, ledger=ledger, workers=0
        )
        assert (report.num_proposed, report.answers_invalid) == (1, 0)
        assert len(server.bodies) == report.calls.made == 2 + report.calls.blank
        rows = {row.proposal.field: row for row in ledger.proposals()}
    verdicts = {name: {one.verifier: one.verdict for one in row.results} for name, row in rows.items()}
    return verdicts, {name: row.proposal for name, row in rows.items()}


def test_a_model_is_asked_what_lies_there_before_and_after_and_the_rest_follows(
    home: Workspace, tmp_path: Path
) -> None:
    def sees(boxes: Boxes) -> Boxes:
        return boxes

    truth = json.loads((home.root / "raw.ground_truth" / "episode_0.json").read_text())
    verdicts, proposals = judged(home, tmp_path, sees)
    assert set(verdicts["trace"].values()) == set(verdicts["scene"].values()) == {"pass"}
    assert {"looking", "moved_thing", "no_future", "relation"} <= verdicts["trace"].keys()
    trace, notes = proposals["trace"].payload, proposals["scene"].payload
    assert isinstance(trace, PlacementTrace)
    assert isinstance(notes, SceneNotes)
    assert trace.relation == truth["relation"]
    assert trace.target is not None
    assert list(trace.target.box_xyxy or ()) in truth["boxes_before"]
    assert [list(one.box_xyxy or ()) for one in notes.objects] == truth["boxes_before"]
    assert notes.outcome == "success"
    told = proposals["trace"].provenance
    assert (told.backend, told.model, told.prompt_hash) == (
        "endpoint",
        "sees",
        load_family("toy-placement").prompt_hash,
    )
    assert len(told.call_keys) == 2
    assert proposals["segments"].provenance.backend == "kinematics"


def test_a_wrong_box_and_a_wrong_noun_of_a_model_are_caught(home: Workspace, tmp_path: Path) -> None:
    truth = json.loads((home.root / "raw.ground_truth" / "episode_0.json").read_text())
    target, reference = truth["target"], truth["reference"]

    def moved_box(boxes: Boxes) -> Boxes:
        return {**boxes, target: [2, 2, 24, 24]}

    def moved_reference(boxes: Boxes) -> Boxes:
        return {**boxes, reference: [280, 200, 310, 230]}

    def other_noun(boxes: Boxes) -> Boxes:
        return {"striped cube" if noun == target else noun: box for noun, box in boxes.items()}

    def swapped(boxes: Boxes) -> Boxes:
        return {**boxes, target: boxes[reference], reference: boxes[target]}

    found = {}
    for change in (moved_box, moved_reference, other_noun, swapped):
        (tmp_path / change.__name__).mkdir()
        found[change.__name__], _ = judged(home, tmp_path / change.__name__, change)
    assert found["moved_box"]["trace"]["boxes"] == "fail"
    assert found["moved_reference"]["trace"]["boxes"] == "fail"
    assert found["other_noun"]["scene"]["nouns"] == "fail"
    assert found["other_noun"]["trace"]["moved_thing"] == "fail"
    assert found["swapped"]["trace"]["moved_thing"] == "fail"
    assert found["swapped"]["trace"]["boxes"] == "fail"


def test_what_programs_doubt_about_toys_goes_to_the_dearer_model(home: Workspace, tmp_path: Path) -> None:
    def blurred(boxes: Boxes) -> Boxes:
        return dict.fromkeys(boxes)

    def sees(boxes: Boxes) -> Boxes:
        return boxes

    with (
        serving(Seer(workspace=home, change=blurred)) as cheap,
        serving(Seer(workspace=home, change=sees)) as dear,
        Ledger.open(f"sqlite:///{tmp_path}/ledger.db") as ledger,
    ):
        first = Endpoint(urls=(cheap.url,), model="cascade-cheap")
        then = Endpoint(urls=(dear.url,), model="cascade-dear")
        cascade = partial(annotate_cascade, episodes=TOYS, workspace=home, family="toy-placement", ledger=ledger)
        report = cascade(backend=first, then=then, workers=0)
        assert (report.num_doubted, report.then and report.then.num_proposed) == (1, 1)
        num_asked = len(cheap.bodies) + len(dear.bodies)
        again = cascade(backend=first, then=then, workers=0)
        assert len(cheap.bodies) + len(dear.bodies) == num_asked
        assert again.then is not None
        assert again.then.run_id is None
        planned = cascade(backend=Perception(), then=then, workers=0)
        assert planned.num_doubted == 0  # programs know these toys


def test_where_programs_know_no_such_toy_an_endpoint_is_asked_and_its_words_stand_beside_theirs(
    home: Workspace, tmp_path: Path
) -> None:
    """The recording's instruction has another noun than colour and outline give: perception is in doubt about it."""
    truth = json.loads((home.root / "raw.ground_truth" / "episode_0.json").read_text())
    target, fresh = truth["target"], "speckled crate"
    renamed = Ref("toys-renamed", "1")
    task = truth["instruction"].replace(target, fresh)
    if not home.path("episodes", renamed).is_dir():
        edit(refs=[TOYS], to=renamed, workspace=home, changes=Changes(relabels=(Relabel.parse(f"task={task}", None),)))

    def sees(boxes: Boxes) -> Boxes:
        return {fresh if noun == target else noun: box for noun, box in boxes.items()}

    with (
        serving(Seer(workspace=home, change=sees)) as server,
        Ledger.open(f"sqlite:///{tmp_path}/ledger.db") as ledger,
    ):
        asked = Endpoint(urls=(server.url,), model="dear")
        cascade = partial(annotate_cascade, episodes=renamed, workspace=home, family="toy-placement", ledger=ledger)
        report = cascade(backend=Perception(), then=asked, workers=0)
        assert (report.first.num_proposed, report.num_doubted) == (1, 1)
        assert report.then is not None
        assert (report.then.num_proposed, report.then.call_outcomes) == (1, {"success": 2})
        assert len(server.bodies) == report.then.calls.made == 2 + report.then.calls.blank
        told = server.bodies[0]["messages"][1]["content"][0]["text"]
        assert fresh in told
        num_asked = len(server.bodies)
        again = cascade(backend=Perception(), then=asked, workers=0)
        assert (again.first.run_id, again.num_doubted, len(server.bodies)) == (None, 1, num_asked)
        assert again.then is not None
        assert again.then.run_id is None
        rows = [row for row in ledger.proposals() if row.proposal.field in ("trace", "scene")]
        said_by = {(row.proposal.field, row.proposal.provenance.backend): row for row in rows}
        [trace_item] = [row.item_id for row in ledger.queue() if row.field == "trace"]
        head = ledger.item(trace_item).head.proposal
    assert said_by.keys() == {(name, who) for name in ("trace", "scene") for who in ("perception", "endpoint")}
    doubted = {one.verifier: one.verdict for one in said_by["trace", "perception"].results}
    assert (doubted["nouns"], doubted["moved_thing"]) == ("unknown", "fail")
    assert head.provenance.model == "dear"
    assert isinstance(head.payload, PlacementTrace)
    assert head.payload.target is not None
    assert (head.payload.target.noun, head.payload.relation) == (fresh, truth["relation"])
    judged_again = {one.verifier: one.verdict for one in said_by["trace", "endpoint"].results}
    assert judged_again.pop("looking") == "pass"
    assert set(judged_again.values()) == {"pass"}
    notes = said_by["scene", "endpoint"].proposal.payload
    assert isinstance(notes, SceneNotes)
    assert notes.outcome == "success"


def test_a_family_of_things_without_a_prompt_says_that_no_model_can_be_asked(home: Workspace, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    words = (load_family("toy-placement").folder / "family.yaml").read_text().partition("prompts:")[0]
    (mine / "family.yaml").write_text(words)
    backend = Endpoint(urls=("http://127.0.0.1:9/v1",), model="nobody")
    with (
        Ledger.open(f"sqlite:///{tmp_path}/ledger.db") as ledger,
        pytest.raises(FamilyError, match="has no prompt 'things', so no model can be asked"),
    ):
        annotate(episodes=TOYS, workspace=home, family=f"{mine}/", backend=backend, ledger=ledger, workers=0)
