"""A reviewer at the real page in a real Chromium: watches, steps, edits, accepts; and the edited words are released."""

import json
import os
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from free_ports import serve_somewhere
from playwright.sync_api import Browser, Page, expect
from review_desk import (
    EPISODES,
    EVIL,
    NUM_FRAMES,
    RATE_HZ,
    SLOW_MS,
    Desk,
    at_frame,
    fill,
    press,
    shown,
)
from typer.testing import CliRunner

from annotators.ledger import Ledger
from annotators.release import release
from apps.cli.main import app as cli
from apps.review.app import build_app
from dataengine.episode_set import EpisodeSet
from dataengine.mix import Mix, first_draw_of
from dataengine.workspace import Workspace
from schemas.annotations import BoxedIn, ReasoningTrace, payload_from_json
from schemas.chat import Text
from schemas.refs import Ref

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


def test_the_video_plays_seeks_and_steps_inside_its_episode(page: Page, desk: Desk) -> None:
    shown(page, desk.ids[0])
    page.wait_for_function("document.querySelector('#stage video').readyState >= 2")
    assert page.evaluate("document.querySelector('#stage video').videoWidth") == 64
    at_frame(page, 0)
    page.keyboard.press("ArrowRight")
    at_frame(page, 1)
    page.keyboard.press("Shift+ArrowRight")
    at_frame(page, 11)
    page.keyboard.press("ArrowLeft")
    at_frame(page, 10)
    page.locator("figure.crop", has_text="board").click()
    at_frame(page, 3)
    lane = page.locator(".lane.gripper .lane-plot").first.bounding_box()
    assert lane is not None
    page.mouse.click(lane["x"] + lane["width"] * 20.5 / NUM_FRAMES, lane["y"] + 5)
    at_frame(page, 20)
    page.keyboard.press("Space")
    at_frame(page, NUM_FRAMES - 1)  # plays to the end of the episode and stays there
    place = page.evaluate("document.querySelector('#stage video').currentTime")
    assert place < NUM_FRAMES / RATE_HZ  # the shard goes on with the next episode
    assert page.locator(".timeline .band").all_inner_texts() == ["reach", "carry", "retreat"]


def test_a_later_episode_of_a_shard_shows_its_own_frames(page: Page, desk: Desk) -> None:
    shown(page, desk.ids[0])
    page.locator(".queue-row", has_text="episode_1").filter(has_text="trace").click()
    shown(page, desk.ids[1])
    page.wait_for_function("document.querySelector('#stage video').readyState >= 2")
    at_frame(page, 0)
    place = page.evaluate("document.querySelector('#stage video').currentTime")
    assert NUM_FRAMES / RATE_HZ < place < (NUM_FRAMES + 1) / RATE_HZ


def test_what_was_cut_out_of_the_video_is_shown_at_full_resolution(page: Page, desk: Desk) -> None:
    shown(page, desk.ids[0])
    pictures = page.locator("#stage .crop img")
    expect(pictures).to_have_count(3)
    page.wait_for_function("[...document.querySelectorAll('#stage .crop img')].every(img => img.complete)")
    sizes = pictures.evaluate_all("all => all.map(img => [img.naturalWidth, img.naturalHeight])")
    assert sizes == [[40, 20], [40, 20], [64, 48]]


def test_what_a_verifier_points_at_is_a_mark_that_seeks_by_mouse_and_by_key(page: Page, desk: Desk) -> None:
    shown(page, desk.ids[0])
    page.wait_for_function("window.reviewPage.playing() && document.querySelector('#stage video').readyState >= 2")
    marks = page.locator(".timeline .mark.fail")
    expect(marks).to_have_count(2)
    page.keyboard.press("w")
    at_frame(page, 3)
    page.keyboard.press("w")
    at_frame(page, 10)
    marks.first.click()
    at_frame(page, 3)
    marks.last.focus()
    page.keyboard.press("Enter")
    at_frame(page, 10)
    board, grasp = page.locator(".verdicts .place").all()
    expect(grasp).to_contain_text("0.20 to 0.40 s, 0.12 s off")
    expect(board).to_contain_text("4+2")
    expect(board.locator("img")).to_have_attribute("src", page.locator(".crop img").first.get_attribute("src") or "")
    board.click()
    at_frame(page, 3)
    expect(page.locator(".crop.pointed")).to_contain_text("board")


def test_boxes_that_the_proposal_cut_out_are_nudged_drawn_deleted_and_released(page: Page, desk: Desk) -> None:
    shown(page, desk.ids[0])
    page.wait_for_function("window.reviewPage.playing() && document.querySelector('#stage video').readyState >= 2")
    page.keyboard.press("v")  # the board, which was cut out of another camera's picture
    expect(page.locator(".cameras [aria-pressed=true]")).to_have_text("cam_low")
    expect(page.locator('.box[data-box="0"]')).to_be_visible()
    page.keyboard.press("v")
    expect(page.locator('.box[data-box="0"][data-selected]')).to_be_visible()
    page.keyboard.press("l")
    page.keyboard.press("K")
    assert page.evaluate("window.reviewPage.sheet().cards[0].box") == [5, 14, 45, 34]
    page.locator('[data-draw="board"]').click()
    place = page.locator(".boxes.drawing").bounding_box()
    assert place is not None
    scale = place["width"] / 64
    page.mouse.move(place["x"] + 20 * scale, place["y"] + 2 * scale)
    page.mouse.down()
    page.mouse.move(place["x"] + 40 * scale, place["y"] + 12 * scale, steps=3)
    page.mouse.up()
    expect(page.locator('.box[data-box="board"][data-selected]')).to_be_visible()
    page.keyboard.press("v")
    page.keyboard.press("Delete")
    expect(page.locator('.box[data-box="0"]')).to_have_count(0)
    page.keyboard.press("Control+Enter")
    expect(page.locator("#progress")).to_contain_text("1 done")
    with Ledger.open(desk.ledger_url) as ledger:
        [made] = ledger.decisions()
        to = Ref(f"boxed-{os.getpid()}", "1")
        release(episodes=EPISODES, to=to, workspace=desk.workspace, ledger=ledger, policy="human")
    assert isinstance(made.payload, ReasoningTrace)
    assert made.payload.boxed_in == BoxedIn(camera="cam_low", frame=3)
    assert (made.payload.board_box_xyxy, made.payload.cards[0].box_xyxy) == ((20, 2, 40, 12), None)
    [row] = pq.read_table(desk.workspace.path("annotations", to) / "annotations.parquet").to_pylist()
    assert payload_from_json(json.loads(row["payload_json"])) == made.payload


def test_the_keyboard_accepts_and_moves_on_and_undo_comes_back(page: Page, desk: Desk) -> None:
    shown(page, desk.ids[0])
    press(page, "a")
    shown(page, desk.ids[1])
    expect(page.locator("#progress")).to_contain_text("1 done")
    with Ledger.open(desk.ledger_url) as ledger:
        [made] = ledger.decisions()
        [current] = [row.item_id for row in ledger.queue() if row.lease_owner == "alice"]
    expect(page.locator(f'#queue [data-item="{made.item_id}"]')).to_have_attribute("title", re.compile("accepted"))
    expect(page.locator("#queue [aria-current]")).to_have_attribute("data-item", current)
    press(page, "s")
    press(page, "u")
    shown(page, desk.ids[1])
    press(page, "u")
    shown(page, desk.ids[0])
    expect(page.locator("#progress")).to_contain_text("0 done")
    with Ledger.open(desk.ledger_url) as ledger:
        made = ledger.decisions()
        assert [row.action for row in made] == ["accept", "skip", "undo", "undo"]
        assert {row.reviewer for row in made} == {"alice"}
        assert made[0].lead_time_ms > 0
        ledger.check_chain()


def test_letters_typed_into_a_field_decide_nothing(page: Page, desk: Desk) -> None:
    shown(page, desk.ids[0])
    page.keyboard.press("e")
    expect(page.locator("#board input")).to_be_focused()
    page.keyboard.type("ras")
    expect(page.locator("#words")).to_contain_text("The board reads ras.")
    page.keyboard.press("Escape")
    page.keyboard.press("a")
    expect(page.locator("#said")).to_contain_text("You changed fields")
    expect(page.locator("#board input")).to_have_value("ras")
    page.locator("#card-2 input").fill("")
    expect(page.locator("#words [role=alert]")).to_contain_text("The card at the middle has no number")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#said")).to_contain_text("Not saved yet")
    expect(page.locator("#board input")).to_have_value("ras")
    with Ledger.open(desk.ledger_url) as ledger:
        assert ledger.decisions() == []


def test_an_edit_reaches_the_ledger_and_the_release(page: Page, desk: Desk) -> None:
    shown(page, desk.ids[0])
    expect(page.locator("#verdicts")).to_contain_text("arithmetic says fail")
    page.locator("#solution input").fill("4+2=6")
    page.locator("#card-2 input").fill("6")
    page.locator("#pick input").fill("6")
    words = "The board reads 4+2. 4+2=6. Cards: 3 (left), 6 (middle), 7 (right). I pick 6 from the middle."
    expect(page.locator("#trace-words")).to_have_text(words)
    page.locator("#note input").fill("the sum was wrong")
    page.locator("#save").click()
    shown(page, desk.ids[1])
    page.keyboard.press("a")
    expect(page.locator("#progress")).to_contain_text("2 done")
    with Ledger.open(desk.ledger_url) as ledger:
        edit, accept = ledger.decisions()
        assert (edit.action, edit.reviewer, edit.note) == ("edit", "alice", "the sum was wrong")
        assert accept.action == "accept"
        for policy in ("human", "either"):
            to = Ref(f"{policy}-{os.getpid()}", "1")
            record = release(episodes=EPISODES, to=to, workspace=desk.workspace, ledger=ledger, policy=policy)
            table = pq.read_table(desk.workspace.path("annotations", to) / "annotations.parquet").to_pylist()
            row = next(row for row in table if row["episode_id"] == desk.ids[0] and row["field"] == "trace")
            assert (row["text"], row["reviewer"], row["basis"]) == (words, "alice", "human")
            assert (row["decision_id"], row["decision_action"]) == (edit.decision_id, "edit")
            assert record.counts["human"] == 2
    assert words in _words_of_a_draw(desk, Ref(f"either-{os.getpid()}", "1"))


def _words_of_a_draw(desk: Desk, annotations: Ref) -> str:
    """What `mix lineage` says about a training draw of the edited episode; the draw itself must hold the same words."""
    spec = desk.workspace.root / "reviewed.yaml"
    spec.write_text(
        "validation: 0\nsources:\n"
        f"  - {{kind: robot, name: desk, episodes: {EPISODES}, annotations: {annotations}, "
        "cameras: [cam_high], epochs: 1}\n"
    )
    to, place = Ref(f"reviewed-{os.getpid()}", "1"), str(desk.workspace.root)
    assert CliRunner().invoke(cli, ["mix", "build", str(spec), "--to", str(to), "--workspace", place]).exit_code == 0
    mix = Mix.open(desk.workspace, to)
    position = first_draw_of(mix, desk.ids[0])
    said = [part for message in mix.sample(position).messages if message.supervised for part in message.parts]
    line = CliRunner().invoke(cli, ["mix", "lineage", str(to), "--position", str(position), "--workspace", place])
    assert isinstance(said[0], Text)
    assert said[0].text in line.output
    assert "alice" in line.output
    return said[0].text


def test_segments_can_be_opened_and_accepted(page: Page, desk: Desk) -> None:
    shown(page, desk.ids[0])
    page.locator(".queue-row", has_text="episode_2").filter(has_text="segments").click()
    expect(page.locator("#words")).to_contain_text("right gripper: reach.")
    expect(page.locator("#segments")).to_contain_text("0.150")
    page.keyboard.press("a")
    expect(page.locator("#progress")).to_contain_text("1 done")
    with Ledger.open(desk.ledger_url) as ledger:
        [made] = ledger.decisions()
        assert ledger.item(made.item_id).field == "segments"


def test_writing_in_the_scene_is_shown_and_never_run(page: Page, desk: Desk) -> None:
    shown(page, desk.ids[0])
    page.locator(".queue-row", has_text="episode_2").filter(has_text="trace").click()
    shown(page, desk.ids[2])
    expect(page.locator("#trace-words")).to_contain_text(EVIL)
    expect(page.locator("#board input")).to_have_value(EVIL)
    expect(page.locator(".verdicts .place")).to_contain_text(EVIL)
    expect(page.locator(".timeline .mark")).to_have_attribute("title", re.compile(re.escape(EVIL)))
    assert page.evaluate("window.evil") is None
    assert page.locator("#words img").count() == 0


def test_people_log_in_where_there_are_accounts(workspace: Workspace, browser: Browser, tmp_path: Path) -> None:
    ledger_url = f"sqlite:///{tmp_path / 'ledger.db'}"
    ids = EpisodeSet.open(workspace, EPISODES).ids()
    with Ledger.open(ledger_url) as ledger:
        fill(ledger, ids)
        ledger.accounts.add("carol", "reviewer", "correct horse")
    app = build_app(workspace=workspace, episodes=EPISODES, ledger_url=ledger_url)
    port = serve_somewhere(app)
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    try:
        page = context.new_page()
        page.set_default_timeout(SLOW_MS)
        page.goto(f"http://127.0.0.1:{port}/")
        page.get_by_label("Name").fill("carol")
        page.get_by_label("Password").fill("guess guess")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("wrong name or password")
        page.get_by_label("Name").fill("carol")
        page.get_by_label("Password").fill("correct horse")
        page.keyboard.press("Enter")
        shown(page, ids[0])
        expect(page.locator("#reviewer input")).to_have_value("carol")
        press(page, "a")
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_label("Password")).to_be_visible()
    finally:
        context.close()
        app.close()
    with Ledger.open(ledger_url) as ledger:
        assert [row.reviewer for row in ledger.decisions()] == ["carol"]


def test_a_second_reviewer_gets_another_item(page: Page, desk: Desk, browser: Browser) -> None:
    shown(page, desk.ids[0])
    context = browser.new_context()
    other = context.new_page()
    other.set_default_timeout(SLOW_MS)
    other.goto(desk.url)
    shown(other, desk.ids[0])  # opened under the name the server was started with
    other.locator("#reviewer input").fill("bob")
    other.keyboard.press("Enter")
    shown(other, desk.ids[1])
    context.close()
