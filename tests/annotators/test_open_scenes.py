"""The scene of any manipulation: what a model says is checked against a second look, pixels and what was noted."""

import base64
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import NUM_EPISODES, SIM, Oracle
from vlm_server import Reply, said, serving

import annotators.families as shipped
from annotators.annotate import annotate
from annotators.cascade import annotate_cascade
from annotators.evidence import Evidence
from annotators.families import load_family
from annotators.ledger import Ledger
from annotators.observe import Observation, Observer
from annotators.open_checks import open_answers, open_boxes, open_nouns, open_outcome, open_relation
from annotators.open_scenes import OpenScene, open_notes
from annotators.placement_checks import numbers, plan_order
from annotators.release import release
from annotators.vlm.backends import Endpoint, Perception
from apps.report.annotate_page import scene_words
from dataengine.episode_set import EpisodeSet
from dataengine.exports.chat import export_chat
from dataengine.workspace import Workspace
from schemas.errors import FamilyError
from schemas.refs import Ref
from schemas.scenes import Box, PictureRef, PlanStep, QuestionAnswer, SceneNotes, SceneObject

TASK = "Pick up the yellow bottle and put it in the blue crate."
BOTTLE, CRATE, CUP = (200, 150, 221, 190), (60, 100, 140, 160), (20, 200, 50, 230)
CRATED = (90, 110, 111, 150)
DONE = ("reach", "grasp", "carry", "release", "retreat")


def things(**boxes: Box) -> tuple[SceneObject, ...]:
    return tuple(SceneObject(noun=name.replace("_", " "), box_xyxy=box) for name, box in boxes.items())


def touching(box: Box) -> np.ndarray:
    mask = np.zeros((120, 160), bool)
    x0, y0, x1, y1 = (value // 2 for value in box)
    mask[y0 - 5 : y1 + 5, x0 - 5 : x1 + 5] = True
    return mask


PLAN = tuple(
    PlanStep(label=label, noun="yellow bottle", reference="blue crate" if label in ("carry", "release") else None)
    for label in DONE[:-1]
)
SEEN = OpenScene(
    picture=PictureRef(camera="head", frame=0, width=320, height=240),
    after_frame=200,
    touched=touching(BOTTLE),
    ended=touching(BOTTLE) | touching(CRATED),
    before=things(yellow_bottle=BOTTLE, blue_crate=CRATE, cup=CUP),
    after=things(yellow_bottle=CRATED, blue_crate=CRATE, cup=CUP),
    plan=(*PLAN, PlanStep(label="retreat")),
    endings=("success", "success"),
    handled=("yellow bottle",),
)
NOTES = open_notes(TASK, SEEN)


def seen_as(scene: OpenScene = SEEN, **more: Any) -> Evidence:
    return Evidence(rate_hz=50, task=TASK, scene=scene, placement=scene.placement, executed=DONE, **more)


def changed(**fields: Any) -> SceneNotes:
    return NOTES.model_copy(update=fields)


def test_what_two_looks_and_the_pixels_agree_on_passes() -> None:
    checks = (open_boxes, open_nouns, open_outcome, open_answers, open_relation, plan_order, numbers)
    found = [check(NOTES, seen_as()) for check in checks]
    assert [one.verdict for one in found] == ["pass"] * len(checks), found
    assert (NOTES.outcome, NOTES.picture) == ("success", SEEN.picture)
    assert NOTES.plan_text().startswith("1. Reach for the yellow bottle. 2. Grasp the yellow bottle. 3. Carry the yel")
    assert "4. Release the yellow bottle at the blue crate." in NOTES.plan_text()
    assert [one.question for one in NOTES.questions] == [
        *(f"Where is the {noun}?" for noun in ("yellow bottle", "blue crate", "cup")),
        *(f"What colour is the {noun}?" for noun in ("bottle", "crate")),
        "How does the yellow bottle lie to the blue crate, as it is seen in the picture?",
    ]


@pytest.mark.parametrize(
    ("box", "verdict", "told"),
    [
        ((300, 150, 330, 190), "fail", "leaves the picture"),
        ((200, 150, 200, 190), "fail", "is empty"),
        (CRATE, "fail", "in one place"),
        ((240, 20, 260, 60), "fail", "it lay elsewhere"),
        ((205, 152, 226, 192), "pass", "3 boxes"),
    ],
)
def test_a_wrong_box_of_what_is_taken_fails(box: Box, verdict: str, told: str) -> None:
    bottle, *rest = NOTES.objects
    found = open_boxes(changed(objects=(bottle.model_copy(update={"box_xyxy": box}), *rest)), seen_as())
    assert (found.verdict, told in found.evidence) == (verdict, True), found


def test_what_no_hand_took_lies_at_the_end_where_it_lay() -> None:
    *rest, cup = NOTES.objects
    moved = changed(objects=(*rest, cup.model_copy(update={"box_xyxy": (100, 10, 130, 40)})))
    found = open_boxes(moved, seen_as())
    assert (found.verdict, found.marks[0].image) == ("fail", "after")
    hidden = (60, 150, 140, 160)  # all that a bottle which lies on the crate leaves of it
    assert open_boxes(
        NOTES, seen_as(replace(SEEN, after=things(yellow_bottle=CRATED, blue_crate=hidden, cup=CUP)))
    ) == (
        "pass",
        "3 boxes, as a second look has them.",
        (),
    )
    still = replace(SEEN, touched=touching(CUP), ended=None)
    assert open_boxes(NOTES, seen_as(still)).evidence.endswith("it closed elsewhere.")
    for scene, told in (
        (replace(SEEN, after=SEEN.after[:2] if SEEN.after else None), "does not find cup"),
        (replace(SEEN, after=None), "nobody looked a second time"),
        (replace(SEEN, touched=np.ones((120, 160), bool)), "the camera moves"),
        (replace(SEEN, touched=None), "which box that is, or when, is not known"),
        (replace(SEEN, handled=()), "what the hand took is not said"),
    ):
        found = open_boxes(NOTES, seen_as(scene))
        assert (found.verdict, told in found.evidence) == ("unknown", True), found


def test_an_ending_is_known_where_two_looks_say_it_and_nothing_that_was_noted_contradicts() -> None:
    for endings in (("success", "failure"), ("success", None), ("success",), ("unknown", "unknown"), ()):
        scene = replace(SEEN, endings=endings)
        assert open_notes(TASK, scene).outcome == "unknown"
        assert open_outcome(open_notes(TASK, scene), seen_as(scene)).verdict == "unknown"
    assert open_outcome(changed(outcome="failure"), seen_as()).verdict == "fail"
    assert open_outcome(NOTES, seen_as(metadata={"success": "False"})).verdict == "fail"
    noted = open_outcome(NOTES, seen_as(metadata={"outcome": "Success"}))
    assert (noted.verdict, noted.evidence) == ("pass", "success, say 2 looks and what was noted.")


def test_one_noun_for_each_thing_in_inventory_plan_and_segments() -> None:
    crate = NOTES.objects[1].model_copy(update={"noun": "tub"})
    assert open_nouns(changed(objects=(NOTES.objects[0], crate)), seen_as()).verdict == "fail"
    assert open_nouns(NOTES, seen_as(replace(SEEN, handled=("red jug",)))).verdict == "unknown"
    assert open_nouns(NOTES, seen_as(replace(SEEN, handled=("bottle",)))).verdict == "pass"


def test_what_only_one_look_saw_is_asked_nothing_about_and_a_changed_answer_fails() -> None:
    alone = replace(SEEN, after=SEEN.after[:1] if SEEN.after else None)
    assert {one.question for one in open_notes(TASK, alone).questions} == {
        "Where is the yellow bottle?",
        "What colour is the bottle?",
    }
    wrong = QuestionAnswer(question="What colour is the bottle?", answer="Red.")
    assert open_answers(changed(questions=(wrong,)), seen_as()).verdict == "fail"
    strange = QuestionAnswer(question="Who was here?", answer="Nobody.")
    assert open_answers(changed(questions=(strange,)), seen_as()).verdict == "unknown"
    assert open_relation(changed(relations=()), seen_as()).verdict == "pass"
    side = NOTES.relations[0].model_copy(update={"relation": "left of"})
    assert open_relation(changed(relations=(side,)), seen_as()).verdict == "fail"


KEPT = ("Answer the question, then take the card with the correct answer.", "Grab the card with the answer to the sum.")
REFUSED = ("Pick the card with the wrong answer.", "Answer the question and pick <b>two</b> cards.")


class Sage:
    """Answers from what programs find in the pictures, looked up by their bytes; in a blank one it sees nothing."""

    def __init__(self, home: Path) -> None:
        opened = EpisodeSet.open(Workspace.at(home), SIM)
        leafing = Observer(opened, "cam_high", wants_crops=True, wants_sheets=True, wants_scene=True)
        reading = Observer(opened, "cam_high", wants_crops=False)
        self.shown: dict[bytes, tuple[str, Observation]] = {}
        for name in opened.ids():
            seen, read = leafing.observe(name), reading.observe(name)
            assert isinstance(seen, Observation)
            assert isinstance(read, Observation)
            self.shown |= {data: (look, read) for look, data in seen.crops.items()}

    def __call__(self, body: dict[str, Any], number: int) -> Reply:
        asked = body["response_format"]["json_schema"]["name"]
        parts = body["messages"][1]["content"]
        if asked == "wordings":
            assert [part["type"] for part in parts] == ["text"]
            return said(json.dumps({"wordings": [*KEPT, *REFUSED]}))
        pictures = [part["image_url"]["url"].partition(",")[2] for part in parts if part["type"] == "image_url"]
        looks = [found for data in pictures if (found := self.shown.get(base64.b64decode(data)))]
        read = looks[-1][1] if len(looks) == len(pictures) else None
        pick = read.evidence.pick if read else None
        taken = None if pick is None else ("left", "middle", "right")[pick.slots.index("empty")]
        if asked == "ending":
            return said(json.dumps({"outcome": "success" if taken else "unknown"}))
        if asked == "held":
            return said(json.dumps({"object": taken and f"{taken} card"}))
        if asked == "steps":
            numbered = [line for line in parts[0]["text"].splitlines() if line[:1].isdigit()]
            rows = [
                {"number": at, "object": taken and f"{taken} card", "place": None} for at in range(1, len(numbered) + 1)
            ]
            return said(json.dumps({"segments": rows}))
        return said(json.dumps(self.listed(asked, read, taken)))

    def listed(self, asked: str, read: Observation | None, taken: str | None) -> dict[str, Any]:
        if read is None or read.evidence.table is None or read.evidence.pick is None:
            return {"things": [], "plan": []} if asked == "setting" else {"things": []}
        table, landed = read.evidence.table, read.evidence.pick.landed
        boxes = dict(zip(("left card", "middle card", "right card"), table.cards, strict=True))
        if asked == "things_after":
            boxes |= {f"{taken} card": landed or boxes[f"{taken} card"]}
        rows = [{"noun": noun, "box": box} for noun, box in {"the Board": table.board, **boxes}.items()]
        if asked == "things_after":
            return {"things": rows}
        plan = [{"label": label, "object": f"{taken} card", "place": None} for label in DONE[:-1]]
        carried = {"label": "carry", "object": f"{taken} card", "place": "board"}
        return {
            "things": rows,
            "plan": [*plan[:2], carried, plan[3], {"label": "retreat", "object": None, "place": None}],
        }


@pytest.fixture(scope="module")
def sage(home: Path) -> Sage:
    return Sage(home)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.db") as opened:
        yield opened


def test_a_model_fills_the_scene_of_any_manipulation_and_every_field_is_checked(
    home: Path, sage: Sage, ledger: Ledger
) -> None:
    place = Workspace.at(home)
    with serving(sage) as server:
        backend = Endpoint(urls=(server.url,), model="sage")
        asked = {"episodes": SIM, "workspace": place, "family": "generic", "ledger": ledger, "workers": 0}
        planned = annotate(**asked, backend=backend, dry_run=True).planned
        report = annotate(**asked, backend=backend)
        assert planned is not None
        # Sheets, one grasp, two lists, two endings and wordings of each episode, of which both have the same task.
        assert planned.calls == 7 * NUM_EPISODES + 1
        assert report.calls.made == len(server.bodies) == 7 * NUM_EPISODES
        assert report.calls.blank == 1
        again = annotate(**asked, backend=backend)
        assert (again.run_id, len(server.bodies)) == (None, 7 * NUM_EPISODES)
    assert (report.fields, report.answers_invalid) == ({"segments": NUM_EPISODES, "scene": NUM_EPISODES}, 0)
    names = load_family("generic").file.verifiers
    assert {name: set(report.verifiers[name]) for name in names} == {name: {"pass"} for name in names}
    for stored in ledger.proposals(field="scene"):
        notes, told = stored.proposal.payload, stored.proposal.provenance
        assert isinstance(notes, SceneNotes)
        assert (notes.outcome, len(notes.objects), len(notes.plan)) == ("success", 4, 5)
        assert [one.noun for one in notes.objects][:2] == ["board", "left card"]
        assert notes.questions
        assert (told.backend, told.model, len(told.call_keys)) == ("endpoint", "sage", 5)
        assert (notes.paraphrases, notes.worded_by) == (KEPT, "model")
        assert [one.words for one in notes.refused] == list(REFUSED)
        assert "<b>" not in scene_words(notes)
        assert "2 wordings refused" in scene_words(notes)
    [segments, *_] = [stored.proposal.provenance for stored in ledger.proposals(field="segments")]
    assert len(segments.call_keys) == 2
    rows = report.to_json()["refused_wordings"]
    assert len(rows) == len(REFUSED) * NUM_EPISODES
    assert {row["reason"].partition(": ")[0] for row in rows} == {f"'{words}'" for words in REFUSED}
    assert all(" where the instruction says " in row["reason"] for row in rows)
    assert "wording refused: " in report.summary()


def test_without_a_model_the_scene_waits_for_one_and_then_gets_it(home: Path, sage: Sage, ledger: Ledger) -> None:
    asked = {"episodes": SIM, "workspace": Workspace.at(home), "family": "generic", "ledger": ledger, "workers": 0}
    report = annotate(**asked, backend=Perception())
    assert (report.num_proposed, report.fields) == (NUM_EPISODES, {"segments": NUM_EPISODES})
    assert annotate(**asked, backend=Perception()).run_id is None
    with serving(sage) as server:
        then = Endpoint(urls=(server.url,), model="sage")
        cascade = annotate_cascade(**asked, backend=Perception(), then=then)
    assert (cascade.first.run_id, cascade.num_doubted) == (None, NUM_EPISODES)
    assert cascade.then is not None
    assert cascade.then.fields == {"segments": NUM_EPISODES, "scene": NUM_EPISODES}


def test_any_family_may_ask_for_other_words_and_keeps_its_own_where_all_are_refused(
    home: Path, truth: dict[str, dict[str, Any]], ledger: Ledger, tmp_path: Path
) -> None:
    mine, oracle, place = tmp_path / "mine", Oracle(home, truth), Workspace.at(home)
    families = Path(shipped.__file__).parent
    shutil.copytree(families / "math-matching", mine)
    shutil.copy(families / "generic" / "wordings.md", mine)
    (mine / "retelling.md").write_text("Say it in other words.\n")
    (mine / "family.yaml").write_text(
        (mine / "family.yaml").read_text() + "  wordings: wordings.md\n  retelling: retelling.md\n"
    )
    spoken = list(KEPT)

    def answers(body: dict[str, Any], number: int) -> Reply:
        asked = body["response_format"]["json_schema"]["name"]
        if asked == "retelling":
            [part] = body["messages"][1]["content"]
            trace = part["text"].removeprefix("<data>\n").removesuffix("\n</data>")
            assert trace.startswith("The board reads")
            again = trace.replace("The board reads", "On the board I see").replace("I pick", "So I take the")
            return said(json.dumps({"wordings": [again, trace.replace("I pick", "I do not pick")]}))
        return said(json.dumps({"wordings": spoken})) if asked == "wordings" else oracle(body, number)

    asked = {"episodes": SIM, "workspace": place, "family": f"{mine}/", "ledger": ledger, "workers": 0}
    found: dict[str, SceneNotes] = {}
    with serving(answers) as server:
        planned = annotate(**asked, backend=Endpoint(urls=(server.url,), model="good"), dry_run=True).planned
        assert planned is not None
        assert planned.calls == 5 * NUM_EPISODES + 1
        for model in ("good", "bad"):
            report = annotate(**asked, backend=Endpoint(urls=(server.url,), model=model))
            assert report.verifiers["instruction"] == {"pass": NUM_EPISODES}
            for row in ledger.proposals(field="scene"):
                if row.proposal.provenance.model == model and isinstance(row.proposal.payload, SceneNotes):
                    found[model] = row.proposal.payload
                    assert len(row.proposal.provenance.call_keys) == 5
            spoken = list(REFUSED)
    traces = [row.proposal for row in ledger.proposals(field="trace")]
    assert {len(one.provenance.call_keys) for one in traces} == {3}
    for notes, who, num_refused in ((found["good"], "model", 1), (found["bad"], "templates", 1 + len(REFUSED))):
        assert (notes.worded_by, len(notes.refused)) == (who, num_refused)
        assert notes.refused[-1].reason == "it says 'do', which the trace does not"
        assert notes.retold is not None
        assert notes.retold.trace in {one.text for one in traces}
        assert [words.startswith("On the board I see") for words in notes.retold.words] == [True]
    assert found["good"].paraphrases == KEPT
    assert len(found["bad"].paraphrases) == 4

    released = Ref("sim-retold", "1")
    release(episodes=SIM, to=released, workspace=place, ledger=ledger, policy="verified")
    export_chat(annotations=released, out=tmp_path / "chat", workspace=place, fields=["trace"], cameras=["cam_high"])
    lines = [json.loads(line) for line in (tmp_path / "chat" / "chat.jsonl").read_text().splitlines()]
    begins = [line["messages"][1]["content"][0]["text"].partition(" 4")[0][:9] for line in lines]
    assert sorted(begins) == ["On the bo"] * NUM_EPISODES + ["The board"] * NUM_EPISODES


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("fields: [segments, scene]\nprompts: {steps: steps.md, held: held.md}", "or the prompt 'setting'"),
        ("fields: [scene]\nprompts: {setting: setting.md}\nthings: {}", "is for scenes without things or a trace"),
        ("fields: [segments]\nprompts: {ending: ending.md}", "'ending' goes with the prompt 'setting'"),
        ("fields: [segments]\nprompts: {steps: steps.md, held: held.md, wordings: wordings.md}", "with the field 'sce"),
    ],
)
def test_prompts_that_do_not_fit_each_other_are_named(tmp_path: Path, words: str, told: str) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(Path(shipped.__file__).parent / "generic", mine)
    (mine / "family.yaml").write_text(f"name: mine\nversion: 1\nabout: all\ncameras: [any]\n{words}\n")
    with pytest.raises(FamilyError, match=told):
        load_family(str(mine))
