"""Placements and scenes are corrected field by field, and written from nothing, in a real Chromium."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from free_ports import serve_somewhere
from ledger_rows import result
from playwright.sync_api import Page, expect
from review_desk import AT_REST, EPISODES, Desk, at_frame, press, shown

from annotators.blank import add_blanks
from annotators.families import load_family
from annotators.ledger import Ledger, ReviewItem
from apps.review.app import build_app
from dataengine.episode_set import EpisodeSet
from dataengine.workspace import Workspace
from schemas.annotations import Proposal, Provenance
from schemas.scenes import (
    PictureRef,
    PlacementTrace,
    PlanStep,
    QuestionAnswer,
    SceneNotes,
    SceneObject,
    SpatialRelation,
)

pytestmark = [pytest.mark.slow, pytest.mark.browser, pytest.mark.timeout(600)]
PICTURE = PictureRef(camera="cam_low", frame=3, width=64, height=48)
RED, BLUE = (
    SceneObject(noun="red box", box_xyxy=(10, 12, 20, 22)),
    SceneObject(noun="blue bar", box_xyxy=(40, 20, 60, 28)),
)
PLACED = PlacementTrace(target=RED, relation="left of", reference=BLUE, frame_of_reference="robot", picture=PICTURE)
NOTES = SceneNotes(
    instruction="Put the red box to the left of the blue bar.",
    paraphrases=("Move the red box to the left of the blue bar.",),
    worded_by="templates",
    outcome="success",
    objects=(RED, BLUE),
    picture=PICTURE,
    relations=tuple(
        SpatialRelation(subject="red box", relation=lies, reference="blue bar", frame_of_reference="robot", when=when)
        for when, lies in (("before", "right of"), ("after", "left of"))
    ),
    plan=(
        PlanStep(label="grasp", noun="red box"),
        PlanStep(label="carry", noun="red box", relation="left of", reference="blue bar"),
        PlanStep(label="retreat"),
    ),
    questions=(
        QuestionAnswer(question="Where is the red box?", answer="At [10, 12, 20, 22]."),
        QuestionAnswer(question="What is furthest to the left?", answer="The red box."),
    ),
)

TOO_LARGE = """() => ['html', '#left', '#middle', '#facts'].map(name => document.querySelector(name))
  .filter(box => box.scrollHeight > box.clientHeight + 1 || box.scrollWidth > box.clientWidth + 1)
  .map(box => box.id || 'page')"""


@pytest.fixture
def desk(workspace: Workspace, tmp_path: Path) -> Iterator[Desk]:
    """The page over one placement and one scene of the first episode, and blanks of the second."""
    ledger_url = f"sqlite:///{tmp_path / 'ledger.db'}"
    episodes = EpisodeSet.open(workspace, EPISODES)
    ids = episodes.ids()
    family = load_family("toy-placement")
    with Ledger.open(ledger_url) as ledger:
        proposals = [
            Proposal(
                episode_id=ids[0],
                stamp_ns=0,
                field=field,
                family=family.label,
                payload=payload,
                provenance=Provenance(backend="perception", model="things@1"),
            )
            for field, payload in (("trace", PLACED), ("scene", NOTES))
        ]
        ledger.add_proposals(
            ledger.start_run(kind="annotate", recipe={}), [(one, [result("pass")]) for one in proposals]
        )
        for field in ("trace", "scene"):
            add_blanks(episodes, ledger, field=field, family=family, episode_ids=[ids[1]])
    app = build_app(workspace=workspace, episodes=EPISODES, ledger_url=ledger_url, reviewer="alice")
    port = serve_somewhere(app)
    yield Desk(url=f"http://127.0.0.1:{port}/", workspace=workspace, ledger_url=ledger_url, ids=ids)
    app.close()


def open_item(page: Page, desk: Desk, number: int, field: str) -> None:
    """Open an item, and wait until all of it is there: it may be the one that is shown already."""
    before = page.locator(".stage").get_attribute("data-key")
    page.locator(".queue-row", has_text=f"episode_{number}").filter(has_text=field).click()
    expect(page.locator(f'.stage:not([data-key="{before}"])')).to_have_count(1)
    shown(page, desk.ids[number])
    page.wait_for_function(
        "window.reviewPage.sheet().token?.key === document.querySelector('#stage .stage').dataset.key"
    )
    expect(page.locator("#scene" if field == "scene" else "#placement")).to_be_visible()
    page.wait_for_function("window.reviewPage.playing() && document.querySelector('#stage video').readyState >= 2")


def item_of(ledger: Ledger, episode_id: str, field: str) -> ReviewItem:
    [row] = [row for row in ledger.queue() if (row.episode_id, row.field) == (episode_id, field)]
    return ledger.item(row.item_id)


def drag(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Drag over the picture, in its pixels."""
    place = page.locator(".boxes").bounding_box()
    assert place is not None
    scale = place["width"] / PICTURE.width
    page.mouse.move(place["x"] + start[0] * scale, place["y"] + start[1] * scale)
    page.mouse.down()
    page.mouse.move(place["x"] + end[0] * scale, place["y"] + end[1] * scale, steps=3)
    page.mouse.up()


def cell(page: Page, words: str, text: str) -> None:
    page.get_by_role("textbox", name=words, exact=True).fill(text)


def test_a_placement_is_corrected_by_keys_and_by_dragging_its_box(page: Page, desk: Desk) -> None:
    open_item(page, desk, 0, "trace")
    page.keyboard.press("e")
    page.keyboard.type("pink box")
    page.keyboard.press("Escape")
    page.keyboard.press(
        "v"
    )  # chooses the next box, and shows the picture it lies in: the target was chosen by its field
    page.keyboard.press("v")
    at_frame(page, 3)
    expect(page.locator(".cameras [aria-pressed=true]")).to_have_text("cam_low")
    drag(page, (15, 17), (17, 18))
    page.keyboard.press("L")
    page.locator("#relation select").select_option("behind")
    expect(page.locator("#trace-words")).to_contain_text("The pink box is at [22, 13, 32, 23].")
    expect(page.locator("#words .changes")).to_contain_text("red box [10, 12, 20, 22]")
    expect(page.locator("#words .changes")).to_contain_text("behind")  # the last change, too, has come there
    expect(page.locator("#words .saved")).to_contain_text("draft saved")
    page.reload()
    shown(page, desk.ids[0])
    expect(page.locator("#words .draft")).to_contain_text("Your draft of")
    expect(page.locator("#target input")).to_have_value("pink box")
    page.keyboard.press("a")  # decides nothing: fields differ from the proposal
    expect(page.locator("#said")).to_contain_text("You changed fields")
    press(page, "Control+Enter")
    with Ledger.open(desk.ledger_url) as ledger:
        [made] = ledger.decisions()
    target = SceneObject(noun="pink box", box_xyxy=(22, 13, 32, 23))
    assert (made.action, made.reviewer) == ("edit", "alice")
    assert made.payload == PLACED.model_copy(update={"target": target, "relation": "behind"})


def test_a_scene_is_corrected_part_by_part_and_what_follows_from_it_follows(page: Page, desk: Desk) -> None:
    open_item(page, desk, 0, "scene")
    cell(page, "noun 1", "pink box")
    page.keyboard.press("Escape")
    page.keyboard.press("J")  # the box of the thing whose noun was typed
    page.keyboard.press("2")
    expect(page.locator("#relations-1-1 select")).to_have_value("pink box")
    page.locator("#relations-2-2 select").select_option("behind")
    page.keyboard.press("3")
    page.locator("#scene tr[data-row='2'] td").first.click()
    page.keyboard.press("x")
    expect(page.locator("#scene tr[data-row]")).to_have_count(2)
    page.keyboard.press("4")
    page.keyboard.press("n")
    page.keyboard.type("Shift it over.")
    page.keyboard.press("Escape")
    page.keyboard.press("5")
    expect(page.locator("#scene tr[data-row='0']")).to_contain_text("At [0, 12, 10, 22].")
    cell(page, "answer 2", "")
    expect(page.locator("#words [role=alert]")).to_contain_text("Question 2 lacks its answer")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#said")).to_contain_text("Not saved yet. Question 2 lacks its answer")
    cell(page, "answer 2", "The pink box.")
    page.locator("#outcome select").select_option("failure")
    page.keyboard.press("Escape")
    for _ in range(3):
        page.keyboard.press("f")  # the instruction, how it ended, the things
    expect(page.locator("#part-relations")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#words .changes")).to_contain_text("step 3")
    press(page, "Control+Enter")
    with Ledger.open(desk.ledger_url) as ledger:
        [made] = ledger.decisions()
    assert (made.action, made.ticked) == ("edit", "instruction outcome things")
    pink = {"subject": "pink box"}
    assert made.payload == SceneNotes(
        instruction=NOTES.instruction,
        paraphrases=(*NOTES.paraphrases, "Shift it over."),
        outcome="failure",
        objects=(SceneObject(noun="pink box", box_xyxy=(0, 12, 10, 22)), BLUE),
        picture=PICTURE,
        relations=(
            NOTES.relations[0].model_copy(update=pink),
            NOTES.relations[1].model_copy(update={**pink, "relation": "behind"}),
        ),
        plan=tuple(step.model_copy(update={"noun": "pink box"}) for step in NOTES.plan[:2]),
        questions=(
            QuestionAnswer(question="Where is the pink box?", answer="At [0, 12, 10, 22]."),
            QuestionAnswer(question="What is furthest to the left?", answer="The pink box."),
        ),
    )


def test_a_placement_and_a_scene_are_written_from_nothing(page: Page, desk: Desk) -> None:
    open_item(page, desk, 1, "trace")
    page.keyboard.press("a")
    expect(page.locator("#said")).to_contain_text("nothing to accept")
    page.evaluate("window.reviewPage.stop(5)")
    at_frame(page, 5)
    page.locator("#target input").fill("red box")
    page.locator("#reference input").fill("blue bar")
    page.keyboard.press("Escape")
    page.keyboard.press("v")  # the target
    page.keyboard.press("d")
    expect(page.locator(".boxes.drawing")).to_be_visible()
    drag(page, (5, 6), (15, 16))
    page.locator("#relation select").select_option("on top of")
    expect(page.locator("#trace-words")).to_contain_text("I put the red box on top of the blue bar.")
    press(page, "Control+Enter")
    open_item(page, desk, 1, "scene")
    for noun in ("red box", "blue bar"):
        page.keyboard.press("n")
        page.keyboard.type(noun)
        page.keyboard.press("Escape")
    page.keyboard.press("3")
    page.keyboard.press("n")
    page.locator("#plan-1-0 select").select_option("grasp")
    page.locator("#plan-1-1 select").select_option("red box")
    page.keyboard.press("5")
    page.keyboard.press("n")
    page.keyboard.type("How many things are there?")
    page.keyboard.press("Tab")
    page.keyboard.type("Two.")
    page.keyboard.press("Escape")
    expect(page.locator("#words [role=alert]")).to_contain_text("Go to its frame and press p")
    page.keyboard.press("c")  # another camera
    expect(page.locator(".cameras [aria-pressed=true]")).to_have_text("cam_low")
    page.wait_for_function("document.querySelector('#stage video').readyState >= 2")
    page.keyboard.press("p")
    expect(page.locator("#words .changes")).to_contain_text("frame 0 of cam_low")
    press(page, "Control+Enter")
    with Ledger.open(desk.ledger_url) as ledger:
        placed, noted = (made.payload for made in ledger.decisions())
    assert placed == PlacementTrace(
        target=SceneObject(noun="red box", box_xyxy=(5, 6, 15, 16)),
        relation="on top of",
        reference=SceneObject(noun="blue bar"),
        frame_of_reference="robot",
        picture=PictureRef(camera="cam_high", frame=5, width=64, height=48),
    )
    assert isinstance(noted, SceneNotes)
    assert [one.noun for one in noted.objects] == ["red box", "blue bar"]
    assert noted.plan == (PlanStep(label="grasp", noun="red box"),)
    assert noted.questions == (QuestionAnswer(question="How many things are there?", answer="Two."),)
    assert noted.picture == PictureRef(camera="cam_low", frame=0, width=64, height=48)


def test_a_late_save_of_a_scene_shows_the_other_decision_and_keeps_what_was_typed(page: Page, desk: Desk) -> None:
    open_item(page, desk, 0, "scene")
    with Ledger.open(desk.ledger_url) as ledger:
        item = item_of(ledger, desk.ids[0], "scene")
        ledger.renew(reviewer="alice", item_id=item.item_id, lease_s=0)
        ledger.decide(
            item_id=item.item_id,
            base_proposal_id=item.head.proposal_id,
            action="edit",
            reviewer="bob",
            payload=NOTES.model_copy(update={"outcome": "failure"}),
            idem_key="bobs",
            lead_time_ms=1,
            note="it fell",
        )
    cell(page, "noun 2", "blue tray")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#said")).to_contain_text("bob (edit) decided about this item meanwhile")
    expect(page.locator("#words .standing")).to_contain_text("it fell")
    expect(page.get_by_role("textbox", name="noun 2", exact=True)).to_have_text("blue tray")
    with Ledger.open(desk.ledger_url) as ledger:
        assert [row.reviewer for row in ledger.decisions()] == ["bob"]


def test_people_who_disagree_about_a_scene_are_shown_by_what_differs(page: Page, desk: Desk) -> None:
    with Ledger.open(desk.ledger_url) as ledger:
        item = item_of(ledger, desk.ids[0], "scene")
        ledger.assign([item.item_id], overlap=2)
        for reviewer, payload in (("bob", None), ("dan", NOTES.model_copy(update={"outcome": "failure"}))):
            ledger.decide(
                item_id=item.item_id,
                base_proposal_id=item.head.proposal_id,
                action="edit" if payload else "accept",
                reviewer=reviewer,
                payload=payload,
                idem_key=reviewer,
                lead_time_ms=1,
            )
    expect(page.locator(".stage")).to_be_visible()
    page.locator("#work input").click()
    page.get_by_role("option", name="settle disagreements").click()
    votes = page.locator(".votes > li")
    expect(votes).to_have_count(2)
    bob, dan = votes.nth(0), votes.nth(1)
    expect(bob).to_contain_text("as it is proposed")
    expect(dan.locator("del")).to_have_text("success")
    expect(dan.locator("ins")).to_have_text("failure")
    page.locator("#outcome select").select_option("unknown")
    expect(page.locator("#words .changes")).to_contain_text("unknown")
    assert page.evaluate(TOO_LARGE) == []
    page.keyboard.press("Control+Enter")
    expect(page.locator("#stage .idle")).to_be_visible()
    with Ledger.open(desk.ledger_url) as ledger:
        last = ledger.decisions()[-1]
        assert (last.track, ledger.item(item.item_id).confirmed) == (
            "adjudication",
            NOTES.model_copy(update={"outcome": "unknown"}),
        )


def test_forms_of_scenes_fit_the_screen_and_are_no_barrier(page: Page, desk: Desk) -> None:
    try:
        from axe_playwright_python.sync_playwright import Axe
    except ModuleNotFoundError:
        if os.environ.get("CI_REQUIRE_BROWSER") == "1":
            pytest.fail("axe-playwright-python is not installed")
        pytest.skip("axe-playwright-python is not installed")
    found = []
    for number, field, name in ((0, "trace", "placement"), (0, "scene", "scene"), (1, "scene", "blank")):
        open_item(page, desk, number, field)
        for part in range(5 if name == "scene" else 1):
            page.keyboard.press(str(part + 1))
            page.wait_for_function(AT_REST)
            high = page.evaluate(TOO_LARGE)
            rows = Axe().run(page).response["violations"]
            found += [(name, part, "too large", box) for box in high]
            found += [
                (name, part, row["id"], node["html"][:120])
                for row in rows
                if row["impact"] in ("serious", "critical")
                for node in row["nodes"]
            ]
    assert found == []
