"""One correction end to end, here and in Label Studio, in one Chromium: a digit of the board is mended, the boundary
between two segments is moved by twelve frames, and both are accepted.

Each tool shows what a model proposed about one episode, beside the same video, and each is used as it means to be:
ours by its keys, or with the boundary dragged; Label Studio by the mouse, with the hotkeys it has. Nobody thinks in
between: the seconds are the tool's own, from when the item can be worked on until the server has answered that what was
decided is stored. What was stored is then compared with what was wanted. Here trace and segments are two items, so the
change from one to the other is inside; in Label Studio they are one task.
"""

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Browser, FloatRect, Locator, Page, Response, ViewportSize, sync_playwright

from annotators.ledger import Ledger
from annotators.review import LABELS
from benchmarks import label_studio
from benchmarks.convert_data import RATE_HZ
from benchmarks.figures import Figure
from benchmarks.label_studio import Labelled, Studio
from benchmarks.review_http import EPISODES, PASSWORD, HttpLoad, add_people, episodes, served
from dataengine.episode_set import EpisodeSet
from dataengine.sinks.packets import Clip, join_clips, scan_video
from dataengine.workspace import Workspace
from schemas.annotations import Card, Proposal, Provenance, ReasoningTrace, Segment, SegmentList, VerifierResult
from schemas.spans import frame_ns

_CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
_CAMERA, _NUM_FRAMES, _BY = "cam_high", 250, 12
_CUTS, _NAMES = (0, 50, 120, _NUM_FRAMES), ("reach", "carry", "retreat")
_PEER_FRAME_PX = 16  # of its timeline, at the zoom in which it opens
_PATIENCE_MS = 120_000
_SIZE = ViewportSize(width=1440, height=900)

_READY = """kind => {
  const page = window.reviewPage, video = document.querySelector('#stage video');
  if (!page || !page.sheet().token || page.sheet().kind !== kind || !page.playing()) return false;
  if (page.stage().dataset.key !== page.sheet().token.key || !video || video.readyState < 2) return false;
  return kind === 'trace' || document.querySelectorAll('#stage .lane.segments .band[data-index]').length === 3;
}"""
_PEER_READY = """() => {
  const video = document.querySelector('video');
  return video && video.readyState >= 2 && document.querySelectorAll('.lsf-minimap__region').length === 3
    && document.querySelectorAll('[data-testid=htx-textbox-content]').length === 2;
}"""
_PEER_SHOWS = """([point, left, right]) => {
  const found = [...document.querySelectorAll(point)].pop()?.getBoundingClientRect();
  return found && found.left > left && found.right < right;
}"""


@dataclass(slots=True, kw_only=True)
class Hands:
    """What somebody does at one page, counted; a chord such as Ctrl+Enter is one press."""

    page: Page
    num_keys: int = 0
    num_clicks: int = 0
    num_drags: int = 0

    @property
    def num(self) -> int:
        """Everything that hands did."""
        return self.num_keys + self.num_clicks + self.num_drags

    def __str__(self) -> str:
        return f"{self.num_keys} keys, {self.num_clicks} clicks, {self.num_drags} drags"

    def press(self, *keys: str) -> None:
        """One key after the other."""
        for key in keys:
            self.page.keyboard.press(key)
        self.num_keys += len(keys)

    def click(self, where: Locator, at: float = 0.5) -> None:
        """Once, at a share of its width."""
        box = _box(where)
        self.page.mouse.click(box["x"] + at * box["width"], box["y"] + box["height"] / 2)
        self.num_clicks += 1

    def drag(self, what: Locator, to_x: float) -> None:
        """Along its line, to a place on the screen."""
        x, y = _middle(what)
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.page.mouse.move(to_x, y, steps=4)
        self.page.mouse.up()
        self.num_drags += 1


@dataclass(slots=True, kw_only=True)
class Done:
    """What all repeats of one way to work took."""

    hands: Hands  # of the first repeat; every other one did the same
    seconds: list[float] = field(default_factory=list)

    @property
    def range(self) -> str:
        """The quickest and the slowest."""
        return f"{min(self.seconds):.2f} to {max(self.seconds):.2f} s"


def correction(quick: bool) -> list[Figure]:
    """Both tools in turn; ours alone, with the reason, where there is no Label Studio."""
    chromium = next((path for name in _CHROMIUM if (path := shutil.which(name))), None)
    if chromium is None:
        print("no correction is measured: there is no Chromium on this machine, e.g. apt-get install chromium")
        return []
    repeats = 2 if quick else 10
    ways: dict[str, Done] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        load = HttpLoad(
            num_people=1, think_s=0, seconds=0, num_episodes=3 * (repeats + 1), num_frames=_NUM_FRAMES, num_items=0
        )
        workspace, ids = episodes(folder, load)
        url = f"sqlite:///{folder / 'ledger.db'}"
        [name] = add_people(url, 1)
        server = stack.enter_context(served(workspace, EPISODES, url, folder / "page.log"))
        ledger = stack.enter_context(Ledger.open(url))
        run_id = ledger.start_run(kind="annotate", recipe={})
        browser = stack.enter_context(sync_playwright()).chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        page = _ours_opened(browser, server.address, name)
        studio, other = None, None
        if command := label_studio.installed():
            (folder / "peer").mkdir()
            studio = stack.enter_context(label_studio.running(command, folder / "peer", LABELS, RATE_HZ))
            other = _peer_opened(browser, studio)
        else:
            print(label_studio.ABSENT)
        todo = iter(ids)
        for number in range(repeats + 1):  # the first fills caches and is not counted
            for way, does in (("keys", _by_keys), ("mouse", _by_mouse)):
                episode_id = next(todo)
                ledger.add_proposals(run_id, _proposals(episode_id))
                page.goto(server.address)
                _count(ways, way, number, page, does)
                _check_ours(ledger, episode_id)
            if studio and other:
                episode_id = next(todo)
                video = _video(workspace, episode_id, folder)
                studio.add(video, "Put the card on the ledge.", _labelled(wrong=True))
                other.goto(studio.stream)
                _count(ways, "peer", number, other, _in_label_studio)
                _check_peer(studio, number + 1)
        browser.close()
    return _figures(ways, repeats)


def _count(ways: dict[str, Done], way: str, number: int, page: Page, does: Callable[[Hands], float]) -> None:
    hands = Hands(page=page)
    took_s = does(hands)
    done = ways.setdefault(way, Done(hands=hands))
    if number:
        done.seconds.append(took_s)
    if hands.num != done.hands.num:
        raise RuntimeError(f"a repeat took {hands}, another {done.hands}")


def _by_keys(hands: Hands) -> float:
    return _ours(hands, lambda: hands.press("Shift+K", "k", "k"))


def _by_mouse(hands: Hands) -> float:
    def drag() -> None:
        lane = _box(hands.page.locator(".lane.segments .lane-plot"))
        to_x = lane["x"] + lane["width"] * (_CUTS[1] + _BY) / _NUM_FRAMES
        hands.drag(hands.page.locator(".band[data-index='0'] .edge.end"), to_x)

    return _ours(hands, drag)


def _ours(hands: Hands, move: Callable[[], None]) -> float:
    page = hands.page
    page.wait_for_function(_READY, arg="trace")
    start = time.perf_counter()
    hands.press("e", "End", "Backspace", "1", "Control+Enter")
    page.wait_for_function(_READY, arg="segments")
    move()
    hands.press("Control+Enter")
    page.locator("#stage .idle").wait_for()  # it comes with the answer that the decision is stored
    return time.perf_counter() - start


def _in_label_studio(hands: Hands) -> float:
    page = hands.page
    page.wait_for_function(_PEER_READY)
    start = time.perf_counter()
    hands.click(page.get_by_test_id("htx-textbox-edit-button").first)  # the cursor stands behind the last digit
    hands.press("Backspace", "1", "Enter")
    area = _box(page.locator(".lsf-timeline__view"))
    hands.click(page.locator(".lsf-minimap"), (_CUTS[1] - 0.5) / _NUM_FRAMES)
    for point in (".lsf-keypoints__point_last", ".lsf-keypoints__point:not(.lsf-keypoints__point_last)"):
        seen = [point, area["x"], area["x"] + area["width"]]
        page.wait_for_function(_PEER_SHOWS, arg=seen)  # segments do not hold together: two edges
        edge = page.locator(point).last
        hands.drag(edge, _middle(edge)[0] + _BY * _PEER_FRAME_PX)
    with page.expect_response(_is_stored) as answer:
        hands.press("Control+Enter")
    took_s = time.perf_counter() - start
    if answer.value.status != 201:
        raise RuntimeError(f"{label_studio.NAME} refused an annotation: {answer.value.status}")
    return took_s


def _is_stored(answer: Response) -> bool:
    return answer.request.method == "POST" and "/annotations" in answer.url


def _ours_opened(browser: Browser, address: str, name: str) -> Page:
    page = browser.new_page(viewport=_SIZE)
    page.set_default_timeout(_PATIENCE_MS)
    page.goto(f"{address}/login")
    page.locator("[name=name]").fill(name)
    page.locator("[name=password]").fill(PASSWORD)
    page.locator("[name=password]").press("Enter")
    page.locator("#stage .idle").wait_for()
    return page


def _peer_opened(browser: Browser, studio: Studio) -> Page:
    page = browser.new_page(viewport=_SIZE)
    page.set_default_timeout(_PATIENCE_MS)
    page.goto(f"{studio.address}/user/login")
    page.locator("[name=email]").fill(label_studio.EMAIL)
    page.locator("[name=password]").fill(label_studio.PASSWORD)
    page.locator("[name=password]").press("Enter")
    page.wait_for_url(lambda url: "/login" not in url)
    return page


def _box(where: Locator) -> FloatRect:
    found = where.bounding_box()
    assert found is not None, where
    return found


def _middle(where: Locator) -> tuple[float, float]:
    box = _box(where)
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def _video(workspace: Workspace, episode_id: str, folder: Path) -> Path:
    """The packets of one episode's video in a file of their own."""
    found = EpisodeSet.open(workspace, EPISODES)
    path, start_s, _ = found.video_clip(episode_id, _CAMERA)
    first = round(start_s * RATE_HZ)
    found.close()
    scan = scan_video(path, rate_hz=RATE_HZ, first=first, num_frames=_NUM_FRAMES)
    to = folder / f"{episode_id}.mp4"
    clip = Clip(path=path, num_frames=_NUM_FRAMES, content=scan.content, first=first)
    join_clips([clip], to, rate_hz=RATE_HZ, delay=scan.delay)
    return to


def _labelled(*, wrong: bool) -> Labelled:
    """What the model says, and what is right."""
    cuts = (0, _CUTS[1] + (0 if wrong else _BY), *_CUTS[2:])
    spans = tuple(zip(cuts, cuts[1:], _NAMES, strict=False))
    return Labelled(board="4+7" if wrong else "4+1", solution="4+1=5", segments=spans)


def _payloads(said: Labelled) -> tuple[ReasoningTrace, SegmentList]:
    """The same in our words."""
    cards = (Card(text="3", position="left"), Card(text="5", position="middle"), Card(text="7", position="right"))
    trace = ReasoningTrace(board=said.board, solution=said.solution, cards=cards, pick_text="5", pick_position="middle")
    parts = tuple(
        Segment(
            start_ns=frame_ns(first, RATE_HZ), end_ns=frame_ns(end, RATE_HZ), label=label, end_effector="right gripper"
        )
        for first, end, label in said.segments
    )
    return trace, SegmentList(segments=parts)


def _proposals(episode_id: str) -> list[tuple[Proposal, Sequence[VerifierResult]]]:
    """Both items of one episode; the trace comes first, because the board does not fit the sum."""
    trace, cut = _payloads(_labelled(wrong=True))
    about = {"episode_id": episode_id, "stamp_ns": 0, "family": "math-matching@1"}
    by = Provenance(backend="perception", model="reader 1", prompt_hash="p" * 64, call_keys=())
    found = {"version": 1, "hard": True, "evidence": "made up"}
    return [
        (
            Proposal.model_validate({**about, "field": "trace", "payload": trace, "provenance": by}),
            [VerifierResult.model_validate({**found, "verifier": "arithmetic", "verdict": "fail"})],
        ),
        (
            Proposal.model_validate({**about, "field": "segments", "payload": cut, "provenance": by}),
            [VerifierResult.model_validate({**found, "verifier": "coverage", "verdict": "pass"})],
        ),
    ]


def _check_ours(ledger: Ledger, episode_id: str) -> None:
    rows = [row for row in ledger.queue(limit=10_000) if row.episode_id == episode_id]
    held = {row.field: ledger.item(row.item_id).confirmed for row in rows}
    trace, cut = _payloads(_labelled(wrong=False))
    if held != {"trace": trace, "segments": cut}:
        raise RuntimeError(f"the ledger holds other words than were decided: {held}")


def _check_peer(studio: Studio, num_done: int) -> None:
    made = studio.annotated()
    if made != [_labelled(wrong=False)] * num_done:
        raise RuntimeError(f"{label_studio.NAME} holds other words than were decided: {made[-1:]}")


def _figures(ways: dict[str, Done], repeats: int) -> list[Figure]:
    peer = ways.get("peer")
    found = []
    for way, words in (("keys", "by keys"), ("mouse", "with its boundary dragged")):
        ours = ways[way]
        found += [
            Figure(
                figure=f"one correction {words}: item shown to decision stored, median",
                ours=statistics.median(ours.seconds),
                peer=statistics.median(peer.seconds) if peer else None,
                unit="s",
                note=f"{ours.range}; {label_studio.NAME}: {peer.range}" if peer else label_studio.ABSENT,
                peer_name=label_studio.NAME,
                repeats=repeats,
            ),
            Figure(
                figure=f"one correction {words}: presses, clicks and drags",
                ours=ours.hands.num,
                peer=peer.hands.num if peer else None,
                unit="actions",
                note=f"{ours.hands}; {label_studio.NAME}: {peer.hands}" if peer else label_studio.ABSENT,
                peer_name=label_studio.NAME,
                repeats=repeats,
            ),
        ]
    return found
