"""A reviewer at the real page in a real Chromium: watches, steps, edits, accepts; and the edited words are released."""

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from ledger_rows import proposal, result, segments, trace
from playwright.sync_api import Browser, Page, expect, sync_playwright
from raw_files import write_aloha_episode
from typer.testing import CliRunner

from annotators.ledger import Ledger
from annotators.release import release
from apps.cli.main import app as cli
from apps.review.app import build_app, serve
from dataengine.convert import convert
from dataengine.episode_set import EpisodeSet
from dataengine.mix import Mix, first_draw_of
from dataengine.workspace import Workspace
from schemas.annotations import Card, Proposal, ReasoningTrace
from schemas.chat import Text
from schemas.refs import Ref

pytestmark = [pytest.mark.browser, pytest.mark.timeout(280)]
EPISODES = Ref("tiny", "1")
NUM_FRAMES = 30
RATE_HZ = 50
SLOW_MS = 30_000  # the machines that run this have two cores and much to do
EVIL = '<img src=x onerror="window.evil=1">${window.evil=2}{{evil}}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """A served review page and what lies behind it."""

    url: str
    workspace: Workspace
    ledger_url: str
    ids: tuple[str, ...]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _proposal(episode_id: str, payload: ReasoningTrace) -> Proposal:
    box = {"camera": "cam_high", "frame": 3, "box_xyxy": [4, 4, 44, 24]}
    images = {"board": box, "card_left": {**box, "camera": "cam_low"}, "after": {**box, "box_xyxy": None}}
    return proposal(episode_id, payload).model_copy(update={"images": images})


def _fill(ledger: Ledger, ids: tuple[str, ...]) -> None:
    """Episode 0's arithmetic fails, so it comes first; 1 is unknown; 2 holds hostile writing; each has segments."""
    hostile = (Card(text=EVIL, position="left"),)
    payloads = (
        (trace(board="4+2"), [result("fail"), result("pass", "board_read_twice")]),
        (trace(), [result("unknown", "picked_card")]),
        (ReasoningTrace(board=EVIL, solution=None, cards=hostile), [result("pass")]),
    )
    run_id = ledger.start_run(kind="annotate", recipe={})
    for episode_id, (payload, results) in zip(ids, payloads, strict=True):
        cut = proposal(episode_id, segments(NUM_FRAMES * 1_000_000_000 // RATE_HZ))
        rows = [(_proposal(episode_id, payload), results), (cut, [result("pass", "coverage")])]
        ledger.add_proposals(run_id, rows)


@pytest.fixture(scope="module")
def workspace(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Three converted episodes, which share one video shard per camera; asks for Chromium before the work."""
    folder = tmp_path_factory.mktemp("review")
    for number in range(3):
        write_aloha_episode(folder / "raw" / f"episode_{number}.hdf5", num_frames=NUM_FRAMES, seed=number)
    made = Workspace.at(folder / "workspace")
    convert(source_path=folder / "raw", to=EPISODES, workspace=made, rig="aloha", sink="lerobot", workers=1)
    return made


@pytest.fixture(scope="module")
def browser(chromium: str, chromium_flags: list[str]) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=chromium_flags)
        yield opened
        opened.close()


@pytest.fixture
def desk(workspace: Workspace, tmp_path: Path) -> Iterator[Desk]:
    """The page, served over a fresh ledger."""
    ledger_url = f"sqlite:///{tmp_path / 'ledger.db'}"
    ids = EpisodeSet.open(workspace, EPISODES).ids()
    with Ledger.open(ledger_url) as ledger:
        _fill(ledger, ids)
    port = _free_port()
    app = build_app(workspace=workspace, episodes=EPISODES, ledger_url=ledger_url, reviewer="alice")
    serve(app, host="127.0.0.1", port=port)
    yield Desk(url=f"http://127.0.0.1:{port}/", workspace=workspace, ledger_url=ledger_url, ids=ids)
    app.close()


@pytest.fixture
def page(desk: Desk, browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    opened = context.new_page()
    opened.set_default_timeout(SLOW_MS)
    expect.set_options(timeout=SLOW_MS)
    opened.goto(desk.url)
    yield opened
    context.close()


def _shown(page: Page, episode_id: str) -> None:
    expect(page.locator(".stage-head h2")).to_have_text(episode_id)


def _at_frame(page: Page, number: int) -> None:
    expect(page.locator(f'.stage[data-frame="{number}"]')).to_have_count(1)


def test_the_video_plays_seeks_and_steps_inside_its_episode(page: Page, desk: Desk) -> None:
    _shown(page, desk.ids[0])
    page.wait_for_function("document.querySelector('#stage video').readyState >= 2")
    assert page.evaluate("document.querySelector('#stage video').videoWidth") == 64
    _at_frame(page, 0)
    page.keyboard.press("ArrowRight")
    _at_frame(page, 1)
    page.keyboard.press("Shift+ArrowRight")
    _at_frame(page, 11)
    page.keyboard.press("ArrowLeft")
    _at_frame(page, 10)
    page.locator("figure.crop", has_text="board").click()
    _at_frame(page, 3)
    lane = page.locator(".lane.gripper .lane-plot").first.bounding_box()
    assert lane is not None
    page.mouse.click(lane["x"] + lane["width"] * 20.5 / NUM_FRAMES, lane["y"] + 5)
    _at_frame(page, 20)
    page.keyboard.press("Space")
    _at_frame(page, NUM_FRAMES - 1)  # plays to the end of the episode and stays there
    place = page.evaluate("document.querySelector('#stage video').currentTime")
    assert place < NUM_FRAMES / RATE_HZ  # the shard goes on with the next episode
    assert page.locator(".timeline .band").all_inner_texts() == ["reach", "carry", "retreat"]


def test_a_later_episode_of_a_shard_shows_its_own_frames(page: Page, desk: Desk) -> None:
    _shown(page, desk.ids[0])
    page.locator(".queue-row", has_text="episode_1").filter(has_text="trace").click()
    _shown(page, desk.ids[1])
    page.wait_for_function("document.querySelector('#stage video').readyState >= 2")
    _at_frame(page, 0)
    place = page.evaluate("document.querySelector('#stage video').currentTime")
    assert NUM_FRAMES / RATE_HZ < place < (NUM_FRAMES + 1) / RATE_HZ


def test_what_was_cut_out_of_the_video_is_shown_at_full_resolution(page: Page, desk: Desk) -> None:
    _shown(page, desk.ids[0])
    pictures = page.locator("#stage .crop img")
    expect(pictures).to_have_count(3)
    page.wait_for_function("[...document.querySelectorAll('#stage .crop img')].every(img => img.complete)")
    sizes = pictures.evaluate_all("all => all.map(img => [img.naturalWidth, img.naturalHeight])")
    assert sizes == [[40, 20], [40, 20], [64, 48]]


def _press(page: Page, key: str) -> None:
    """Press a key that decides, and wait until another item is shown."""
    before = page.locator(".stage").get_attribute("data-key")
    page.keyboard.press(key)
    expect(page.locator(f'.stage:not([data-key="{before}"])')).to_have_count(1)


def test_the_keyboard_accepts_and_moves_on_and_undo_comes_back(page: Page, desk: Desk) -> None:
    _shown(page, desk.ids[0])
    _press(page, "a")
    _shown(page, desk.ids[1])
    expect(page.locator("#progress")).to_contain_text("1 done")
    _press(page, "s")
    _press(page, "u")
    _shown(page, desk.ids[1])
    _press(page, "u")
    _shown(page, desk.ids[0])
    expect(page.locator("#progress")).to_contain_text("0 done")
    with Ledger.open(desk.ledger_url) as ledger:
        made = ledger.decisions()
        assert [row.action for row in made] == ["accept", "skip", "undo", "undo"]
        assert {row.reviewer for row in made} == {"alice"}
        assert made[0].lead_time_ms > 0
        ledger.check_chain()


def test_letters_typed_into_a_field_decide_nothing(page: Page, desk: Desk) -> None:
    _shown(page, desk.ids[0])
    page.keyboard.press("e")
    expect(page.locator("#board input")).to_be_focused()
    page.keyboard.type("ras")
    expect(page.locator("#words")).to_contain_text("The board reads ras.")
    page.keyboard.press("Escape")
    page.keyboard.press("a")
    expect(page.locator(".toast-wrap")).to_contain_text("You changed fields")
    expect(page.locator("#board input")).to_have_value("ras")
    page.locator("#card-2 input").fill("")
    expect(page.locator("#words [role=alert]")).to_contain_text("The card at the middle has no number")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".toast-wrap")).to_contain_text("Not saved yet")
    expect(page.locator("#board input")).to_have_value("ras")
    with Ledger.open(desk.ledger_url) as ledger:
        assert ledger.decisions() == []


def test_an_edit_reaches_the_ledger_and_the_release(page: Page, desk: Desk) -> None:
    _shown(page, desk.ids[0])
    expect(page.locator("#verdicts")).to_contain_text("arithmetic says fail")
    page.locator("#solution input").fill("4+2=6")
    page.locator("#card-2 input").fill("6")
    page.locator("#pick input").fill("6")
    words = "The board reads 4+2. 4+2=6. Cards: 3 (left), 6 (middle), 7 (right). I pick 6 from the middle."
    expect(page.locator("#trace-words")).to_have_text(words)
    page.locator("#note input").fill("the sum was wrong")
    page.locator("#save").click()
    _shown(page, desk.ids[1])
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
    _shown(page, desk.ids[0])
    page.locator(".queue-row", has_text="episode_2").filter(has_text="segments").click()
    expect(page.locator("#words")).to_contain_text("right gripper: reach.")
    expect(page.locator("#segments")).to_contain_text("0.150")
    page.keyboard.press("a")
    expect(page.locator("#progress")).to_contain_text("1 done")
    with Ledger.open(desk.ledger_url) as ledger:
        [made] = ledger.decisions()
        assert ledger.item(made.item_id).field == "segments"


def test_writing_in_the_scene_is_shown_and_never_run(page: Page, desk: Desk) -> None:
    _shown(page, desk.ids[0])
    page.locator(".queue-row", has_text="episode_2").filter(has_text="trace").click()
    _shown(page, desk.ids[2])
    expect(page.locator("#trace-words")).to_contain_text(EVIL)
    expect(page.locator("#board input")).to_have_value(EVIL)
    assert page.evaluate("window.evil") is None
    assert page.locator("#words img").count() == 0


def test_people_log_in_where_there_are_accounts(workspace: Workspace, browser: Browser, tmp_path: Path) -> None:
    ledger_url, port = f"sqlite:///{tmp_path / 'ledger.db'}", _free_port()
    ids = EpisodeSet.open(workspace, EPISODES).ids()
    with Ledger.open(ledger_url) as ledger:
        _fill(ledger, ids)
        ledger.accounts.add("carol", "reviewer", "correct horse")
    app = build_app(workspace=workspace, episodes=EPISODES, ledger_url=ledger_url)
    serve(app, host="127.0.0.1", port=port)
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
        _shown(page, ids[0])
        expect(page.locator("#reviewer input")).to_have_value("carol")
        _press(page, "a")
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_label("Password")).to_be_visible()
    finally:
        context.close()
        app.close()
    with Ledger.open(ledger_url) as ledger:
        assert [row.reviewer for row in ledger.decisions()] == ["carol"]


def test_a_second_reviewer_gets_another_item(page: Page, desk: Desk, browser: Browser) -> None:
    _shown(page, desk.ids[0])
    context = browser.new_context()
    other = context.new_page()
    other.set_default_timeout(SLOW_MS)
    other.goto(desk.url)
    _shown(other, desk.ids[0])  # opened under the name the server was started with
    other.locator("#reviewer input").fill("bob")
    other.keyboard.press("Enter")
    _shown(other, desk.ids[1])
    context.close()
