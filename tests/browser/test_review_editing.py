"""A reviewer corrects what was proposed in a real Chromium: boxes, boundaries, drafts, reasons; and who may not be
overruled in silence."""

import os
from pathlib import Path

import pytest
from free_ports import serve_somewhere
from playwright.sync_api import Browser, Page, expect
from review_desk import AT_REST, EPISODES, NUM_FRAMES, RATE_HZ, SLOW_MS, WATCH_HEIGHTS, Desk, at_frame, press, shown

from annotators.ledger import Ledger, ReviewItem
from annotators.release import release
from apps.review.app import build_app
from dataengine.workspace import Workspace
from schemas.annotations import UNUSABLE, ReasoningTrace, SegmentList
from schemas.refs import Ref

pytestmark = [pytest.mark.slow, pytest.mark.browser, pytest.mark.timeout(600)]
FRAME_NS = 1_000_000_000 // RATE_HZ
# What was on its way when it is asked for may still come on the screen first; what stays there for 20 s is the answer.
FRAME_ON_SCREEN = """index => new Promise(resolve => {
  const screen = document.querySelector('#stage video'), player = window.reviewPage.playing();
  let last = null;
  const look = (now, shown) => {
    last = Math.round((shown.mediaTime - player.start) * player.fps);
    if (last === index) resolve(last);
    else screen.requestVideoFrameCallback(look);
  };
  screen.requestVideoFrameCallback(look);
  setTimeout(() => resolve(last), 20000);
  window.reviewPage.stop(index);
})"""


def open_item(page: Page, desk: Desk, number: int, field: str) -> None:
    shown(page, desk.ids[0])
    page.locator(".queue-row", has_text=f"episode_{number}").filter(has_text=field).click()
    shown(page, desk.ids[number])
    expect(page.locator("#segments" if field == "segments" else "#board")).to_be_visible()
    page.wait_for_function("window.reviewPage.playing() && document.querySelector('#stage video').readyState >= 2")


def item_of(ledger: Ledger, episode_id: str, field: str) -> ReviewItem:
    [row] = [row for row in ledger.queue() if (row.episode_id, row.field) == (episode_id, field)]
    return ledger.item(row.item_id)


def bands(page: Page) -> list[list[str]]:
    return page.evaluate("window.reviewPage.sheet().rows.map(row => row.slice(0, 3))")


def test_a_frame_that_is_asked_for_is_the_frame_on_the_screen(page: Page, desk: Desk) -> None:
    open_item(page, desk, 1, "trace")  # in the middle of the shard
    for index in (17, 0, 29, 16):
        assert page.evaluate(FRAME_ON_SCREEN, index) == index
        at_frame(page, index)


def test_segments_are_split_nudged_dragged_and_relabelled_and_saved_to_the_frame(page: Page, desk: Desk) -> None:
    open_item(page, desk, 2, "segments")
    expect(page.locator(".timeline .band[data-index]")).to_have_count(3)
    page.keyboard.press("]")  # the second: frames 7.5 to 15, cut from numbers, between two frames
    page.keyboard.press("]")
    page.keyboard.press("[")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    at_frame(page, 11)
    page.keyboard.press("x")
    assert bands(page)[1:3] == [["0.150", "0.220", "carry"], ["0.220", "0.300", "carry"]]
    page.keyboard.press("7")
    page.keyboard.press("t")  # its start, which is the end of the one before
    page.keyboard.press("k")
    at_frame(page, 12)
    page.keyboard.press("K")
    assert bands(page)[1:3] == [["0.150", "0.280", "carry"], ["0.280", "0.300", "hold"]]  # as far as a frame is left
    page.keyboard.press("J")
    edge = page.locator(".band[data-index='2'] .edge.end").bounding_box()
    lane = page.locator(".lane.segments .lane-plot").bounding_box()
    assert edge is not None
    assert lane is not None
    page.mouse.move(edge["x"] + 3, edge["y"] + 5)
    page.mouse.down()
    page.mouse.move(lane["x"] + lane["width"] * 20 / NUM_FRAMES, edge["y"] + 5, steps=4)
    page.mouse.up()
    page.keyboard.press("m")  # with the last
    assert bands(page) == [["0.000", "0.150", "reach"], ["0.150", "0.180", "carry"], ["0.180", "0.600", "hold"]]
    expect(page.locator("#words .changes")).to_contain_text("segment 3")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#progress")).to_contain_text("1 done")
    with Ledger.open(desk.ledger_url) as ledger:
        [made] = ledger.decisions()
        assert isinstance(made.payload, SegmentList)
        ends = [part.end_ns for part in made.payload.segments]
        assert ends == [150_000_000, 9 * FRAME_NS, NUM_FRAMES * FRAME_NS]


def test_segments_are_walked_and_looped_beside_a_trace_too(page: Page, desk: Desk) -> None:
    open_item(page, desk, 1, "trace")
    page.keyboard.press("]")  # cut at 0.15 s, between two frames, and at 0.3 s
    at_frame(page, 8)
    page.keyboard.press("]")
    at_frame(page, 15)
    page.keyboard.press("[")
    at_frame(page, 8)
    page.keyboard.press("l")
    expect(page.locator(".speed")).to_have_text("1\u00d7 loop")
    page.keyboard.press("l")
    expect(page.locator(".speed")).to_have_text("1\u00d7")


def test_the_box_of_a_card_is_drawn_moved_and_resized_in_pixels_of_the_picture(page: Page, desk: Desk) -> None:
    open_item(page, desk, 1, "trace")
    page.locator("#cards .draw").nth(0).click()
    at_frame(page, 3)  # the picture that the card was read from
    expect(page.locator(".cameras [aria-pressed=true]")).to_have_text("cam_low")
    layer = page.locator(".boxes.drawing")
    expect(layer).to_be_visible()
    place = layer.bounding_box()
    assert place is not None
    scale = place["width"] / 64

    def drag(start: tuple[float, float], end: tuple[float, float]) -> None:
        page.mouse.move(place["x"] + start[0] * scale, place["y"] + start[1] * scale)
        page.mouse.down()
        page.mouse.move(place["x"] + end[0] * scale, place["y"] + end[1] * scale, steps=3)
        page.mouse.up()

    drag((10, 12), (30, 24))
    box = "window.reviewPage.sheet().cards[0].box"
    assert page.evaluate(box) == [10, 12, 30, 24]
    drag((20, 18), (25, 16))
    assert page.evaluate(box) == [15, 10, 35, 22]
    drag((35, 22), (40, 30))  # the corner
    assert page.evaluate(box) == [15, 10, 40, 30]
    page.keyboard.press("Control+Enter")
    expect(page.locator("#progress")).to_contain_text("1 done")
    with Ledger.open(desk.ledger_url) as ledger:
        [made] = ledger.decisions()
        assert made.action == "edit"
        assert isinstance(made.payload, ReasoningTrace)
        assert made.payload.cards[0].box_xyxy == (15, 10, 40, 30)


def test_a_draft_survives_a_reload_and_decides_nothing(page: Page, desk: Desk) -> None:
    open_item(page, desk, 1, "trace")
    page.locator("#board input").fill("4+8")
    page.locator("#note input").fill("half done")
    page.keyboard.press("Escape")
    page.keyboard.press("f")  # the first field is accepted
    expect(page.locator("#words .saved")).to_contain_text("draft saved")
    expect(page.locator('#words [data-sequence="3"]')).to_have_count(1)
    page.reload()
    shown(page, desk.ids[1])
    expect(page.locator("#words .draft")).to_contain_text("Your draft of")
    expect(page.locator("#board input")).to_have_value("4+8")
    expect(page.locator("#note input")).to_have_value("half done")
    expect(page.locator("#board")).to_have_class("field ticked")
    with Ledger.open(desk.ledger_url) as ledger:
        assert ledger.decisions() == []
    page.get_by_role("button", name="Drop the draft").click()
    expect(page.locator("#board input")).to_have_value("4+1")
    page.reload()
    shown(page, desk.ids[1])
    expect(page.locator("#board input")).to_have_value("4+1")


def test_fields_that_arrive_late_or_out_of_order_never_mix(page: Page, desk: Desk) -> None:
    shown(page, desk.ids[0])
    slow = page.context.new_cdp_session(page)
    slow.send("Emulation.setCPUThrottlingRate", {"rate": 12})
    page.locator("#board input").press_sequentially("1234567")
    page.locator("#card-2 input").fill("")
    expect(page.locator("#words [role=alert]")).to_contain_text("The card at the middle has no number")
    page.locator("#card-2 input").fill("5")
    expect(page.locator("#trace-words")).to_contain_text("The board reads 12345674+2.")
    with Ledger.open(desk.ledger_url) as ledger:
        item = item_of(ledger, desk.ids[0], "trace")
        draft = ledger.draft(reviewer="alice", item_id=item.item_id)
        assert draft is not None
        assert draft.sequence == 9
        assert "12345674+2" in draft.body_json


def test_a_late_save_shows_the_other_decision_and_keeps_what_was_typed(page: Page, desk: Desk) -> None:
    open_item(page, desk, 1, "trace")
    with Ledger.open(desk.ledger_url) as ledger:
        item = item_of(ledger, desk.ids[1], "trace")
        ledger.renew(reviewer="alice", item_id=item.item_id, lease_s=0)
        ledger.decide(
            item_id=item.item_id,
            base_proposal_id=item.head.proposal_id,
            action="edit",
            reviewer="bob",
            payload=item.head.proposal.payload.model_copy(update={"board": "4 + 1"}),
            idem_key="bobs",
            lead_time_ms=1,
            note="as it is written",
        )
    page.locator("#board input").fill("4+9")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#said")).to_contain_text("bob (edit) decided about this item meanwhile")
    expect(page.locator("#words .standing")).to_contain_text("Edited by bob")
    expect(page.locator("#words .standing")).to_contain_text("as it is written")
    expect(page.locator("#board input")).to_have_value("4+9")
    with Ledger.open(desk.ledger_url) as ledger:
        assert [row.reviewer for row in ledger.decisions()] == ["bob"]


def test_a_third_person_settles_what_two_people_disagree_about(desk: Desk, browser: Browser, page: Page) -> None:
    with Ledger.open(desk.ledger_url) as ledger:
        item = item_of(ledger, desk.ids[2], "segments")
        ledger.assign([item.item_id], overlap=2)
        for reviewer, action in (("bob", "accept"), ("dan", "reject")):
            ledger.decide(
                item_id=item.item_id,
                base_proposal_id=item.head.proposal_id,
                action=action,
                reviewer=reviewer,
                payload=None,
                idem_key=reviewer,
                lead_time_ms=1,
                note=f"{reviewer} says so",
            )
    shown(page, desk.ids[0])
    page.locator("#work input").click()
    page.get_by_role("option", name="settle disagreements").click()
    shown(page, desk.ids[2])
    expect(page.locator(".votes")).to_contain_text("bob says so")
    expect(page.locator(".votes")).to_contain_text("dan says so")
    page.keyboard.press("a")
    expect(page.locator("#stage .idle")).to_be_visible()
    with Ledger.open(desk.ledger_url) as ledger:
        assert (ledger.decisions()[-1].track, ledger.item(item.item_id).status) == ("adjudication", "accepted")


def test_a_reject_has_a_reason_and_an_unusable_episode_is_released_nowhere(page: Page, desk: Desk) -> None:
    shown(page, desk.ids[0])
    page.keyboard.press("r")
    expect(page.get_by_role("dialog")).to_contain_text("Why is it rejected?")
    press(page, "3")
    shown(page, desk.ids[1])
    page.keyboard.press("b")
    page.get_by_role("dialog").locator("input").fill("the camera was off")
    press(page, "Enter")
    expect(page.locator("#progress")).to_contain_text("2 done")
    with Ledger.open(desk.ledger_url) as ledger:
        reject, unusable = ledger.decisions()
        assert (reject.reason, reject.note) == ("not visible", "")
        assert (unusable.reason, unusable.note) == (UNUSABLE, "the camera was off")
        assert reject.guideline is not None
        assert reject.guideline.startswith("math-matching guideline 2 (")
        to = Ref(f"unusable-{os.getpid()}", "1")
        record = release(episodes=EPISODES, to=to, workspace=desk.workspace, ledger=ledger, policy="either")
    said = [row.reason for row in record.rejected if row.episode == desk.ids[1]]
    assert said == [f"{UNUSABLE}, says alice: the camera was off"] * 2  # its segments passed every verifier


def test_a_held_key_and_a_question_decide_nothing(page: Page, desk: Desk) -> None:
    shown(page, desk.ids[0])
    page.evaluate("document.dispatchEvent(new KeyboardEvent('keydown', {key: 'a', repeat: true, bubbles: true}))")
    page.keyboard.press("?")
    keys = page.get_by_role("dialog")
    expect(keys).to_contain_text("nudge the edge 10 frames back")
    page.keyboard.press("a")
    page.keyboard.press("s")
    page.keyboard.press("Escape")
    expect(keys).to_have_count(0)
    page.keyboard.press("g")
    page.get_by_role("dialog").locator("input").fill("ras <b>look</b>")
    page.keyboard.press("Enter")
    page.locator("#tab-remarks").click()
    expect(page.locator("#pane-remarks")).to_contain_text("ras <b>look</b>")
    expect(page.locator("#tab-remarks")).to_contain_text("1, flagged")
    shown(page, desk.ids[0])
    with Ledger.open(desk.ledger_url) as ledger:
        assert ledger.decisions() == []


def test_a_reviewer_sees_what_was_overturned_and_why(page: Page, desk: Desk) -> None:
    shown(page, desk.ids[0])
    press(page, "a")
    with Ledger.open(desk.ledger_url) as ledger:
        item = item_of(ledger, desk.ids[0], "trace")
        ledger.decide(
            item_id=item.item_id,
            base_proposal_id=item.head.proposal_id,
            action="reject",
            reviewer="bob",
            payload=None,
            idem_key="bobs",
            lead_time_ms=1,
            note="the sum is wrong",
            reason="wrong reading",
        )
    page.locator("#work input").click()
    page.get_by_role("option", name="my own decisions").click()
    row = page.locator("#queue .own .queue-row")
    expect(row).to_contain_text("overturned by bob (reject, wrong reading)")
    expect(row).to_contain_text("the sum is wrong")
    row.click()
    shown(page, desk.ids[0])
    expect(page.locator("#words .standing")).to_contain_text("Rejected by bob")


def test_everything_fits_one_screen_at_every_moment_of_a_change_of_item(page: Page, desk: Desk) -> None:
    open_item(page, desk, 1, "trace")
    page.evaluate(WATCH_HEIGHTS)
    page.context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": 4})
    for field in ("segments", "trace", "segments"):
        page.locator(".queue-row", has_text="episode_1").filter(has_text=field).click()
        expect(page.locator("#segments" if field == "segments" else "#board")).to_be_visible()
        expect(page.locator(".stage-head .task")).to_be_visible()
    page.wait_for_function("window.looks > 10")
    assert page.evaluate("window.tooHigh") == []


def test_no_serious_barrier_for_people_who_can_not_see_or_use_a_mouse(page: Page, desk: Desk) -> None:
    try:
        from axe_playwright_python.sync_playwright import Axe
    except ModuleNotFoundError:
        if os.environ.get("CI_REQUIRE_BROWSER") == "1":
            pytest.fail("axe-playwright-python is not installed")
        pytest.skip("axe-playwright-python is not installed")
    open_item(page, desk, 1, "trace")
    found = []
    for step in ("trace", "segments", "keys", "reject"):
        if step == "segments":
            page.locator(".queue-row", has_text="episode_1").filter(has_text="segments").click()
            expect(page.locator("#segments")).to_be_visible()
        elif step != "trace":
            page.keyboard.press({"keys": "?", "reject": "r"}[step])
            expect(page.get_by_role("dialog")).to_be_visible()
        page.wait_for_function(AT_REST)  # a colour on its way to another one is none of the page's
        rows = Axe().run(page).response["violations"]
        found += [
            (step, row["id"], node["html"][:120])
            for row in rows
            if row["impact"] in ("serious", "critical")
            for node in row["nodes"]
        ]
        page.keyboard.press("Escape")
    assert found == []


def test_another_server_on_the_same_ledger_goes_on_with_the_draft(workspace: Workspace, desk: Desk, page: Page) -> None:
    shown(page, desk.ids[0])
    page.locator("#board input").fill("4+3")
    expect(page.locator("#words .saved")).to_contain_text("draft saved")
    app = build_app(workspace=workspace, episodes=EPISODES, ledger_url=desk.ledger_url, reviewer="alice")
    port = serve_somewhere(app)
    try:
        page.goto(f"http://127.0.0.1:{port}/")
        expect(page.locator("#words .draft")).to_contain_text("Your draft of")
        expect(page.locator("#board input")).to_have_value("4+3")
    finally:
        app.close()


def test_an_episode_without_a_proposal_is_annotated_from_nothing(
    workspace: Workspace, browser: Browser, tmp_path: Path
) -> None:
    from annotators.blank import add_blanks
    from annotators.families import load_family
    from dataengine.episode_set import EpisodeSet

    ledger_url = f"sqlite:///{tmp_path / 'ledger.db'}"
    with Ledger.open(ledger_url) as ledger:
        shown_set = EpisodeSet.open(workspace, EPISODES)
        assert add_blanks(shown_set, ledger, field="segments", family=load_family("generic")) == 3
        assert add_blanks(shown_set, ledger, field="segments", family=load_family("generic")) == 0
    app = build_app(workspace=workspace, episodes=EPISODES, ledger_url=ledger_url, reviewer="alice")
    port = serve_somewhere(app)
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    try:
        page = context.new_page()
        page.set_default_timeout(SLOW_MS)
        page.goto(f"http://127.0.0.1:{port}/")
        expect(page.locator("#segments")).to_be_visible()
        page.wait_for_function("window.reviewPage.playing() && document.querySelector('#stage video').readyState >= 2")
        page.keyboard.press("a")
        expect(page.locator("#said")).to_contain_text("nothing to accept")
        page.keyboard.press("n")
        page.keyboard.press("1")
        page.evaluate("window.reviewPage.stop(9)")
        at_frame(page, 9)
        page.keyboard.press("x")
        page.keyboard.press("2")
        page.keyboard.press("Control+Enter")
        expect(page.locator("#progress")).to_contain_text("1 done")
    finally:
        context.close()
        app.close()
    with Ledger.open(ledger_url) as ledger:
        [made] = ledger.decisions()
        assert isinstance(made.payload, SegmentList)
        assert [(part.label, part.start_ns // FRAME_NS, part.end_ns // FRAME_NS) for part in made.payload.segments] == [
            ("reach", 0, 9),
            ("grasp", 9, NUM_FRAMES),
        ]
