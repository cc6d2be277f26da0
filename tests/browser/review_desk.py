"""What tests of the review page share: a page on three tiny episodes, and the words for what a reviewer does."""

from dataclasses import dataclass

from ledger_rows import proposal, result, segments, trace
from playwright.sync_api import Page, expect

from annotators.ledger import Ledger
from dataengine.workspace import Workspace
from schemas.annotations import Card, Mark, Proposal, ReasoningTrace
from schemas.refs import Ref

EPISODES = Ref("tiny", "1")
NUM_FRAMES = 30
RATE_HZ = 50
SLOW_MS = 60_000  # the machines that run this have two cores and much to do
EVIL = '<img src=x onerror="window.evil=1">${window.evil=2}{{evil}}'


MARKS = (
    Mark(title="read here", start_ns=3 * 1_000_000_000 // RATE_HZ, image="board", number="4+2"),
    Mark(title="grasped", start_ns=200_000_000, end_ns=400_000_000, number="0.12 s off"),
)

AT_REST = """() => document.getAnimations().every(
  one => one.playState !== 'running' || one.effect.getComputedTiming().endTime === Infinity
)"""

WATCH_HEIGHTS = """() => {
  window.looks = 0;
  window.tooHigh = [];
  const look = () => {
    window.looks += 1;
    for (const name of ['html', '#left', '#middle', '#facts']) {
      const box = document.querySelector(name);
      if (box.scrollHeight > box.clientHeight + 1) window.tooHigh.push([name, box.scrollHeight, box.clientHeight]);
    }
    requestAnimationFrame(look);
  };
  look();
}"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """A served review page and what lies behind it."""

    url: str
    workspace: Workspace
    ledger_url: str
    ids: tuple[str, ...]


def _proposal(episode_id: str, payload: ReasoningTrace) -> Proposal:
    box = {"camera": "cam_high", "frame": 3, "box_xyxy": [4, 4, 44, 24]}
    images = {"board": box, "card_left": {**box, "camera": "cam_low"}, "after": {**box, "box_xyxy": None}}
    return proposal(episode_id, payload).model_copy(update={"images": images})


def fill(ledger: Ledger, ids: tuple[str, ...]) -> None:
    """Episode 0's arithmetic fails, so it comes first; 1 is unknown; 2 holds hostile writing; each has segments."""
    hostile = (Card(text=EVIL, position="left"),)
    evil = (Mark(title=EVIL, start_ns=0, image=EVIL, number=EVIL),)
    payloads = (
        (trace(board="4+2"), [result("fail").model_copy(update={"marks": MARKS}), result("pass", "board_read_twice")]),
        (trace(), [result("unknown", "picked_card")]),
        (ReasoningTrace(board=EVIL, solution=None, cards=hostile), [result("pass").model_copy(update={"marks": evil})]),
    )
    run_id = ledger.start_run(kind="annotate", recipe={})
    for episode_id, (payload, results) in zip(ids, payloads, strict=True):
        cut = proposal(episode_id, segments(NUM_FRAMES * 1_000_000_000 // RATE_HZ))
        rows = [(_proposal(episode_id, payload), results), (cut, [result("pass", "coverage")])]
        ledger.add_proposals(run_id, rows)


def shown(page: Page, episode_id: str) -> None:
    expect(page.locator(".stage-head h2")).to_have_text(episode_id)


def at_frame(page: Page, number: int) -> None:
    expect(page.locator(f'.stage[data-frame="{number}"]')).to_have_count(1)


def press(page: Page, key: str) -> None:
    """Press a key that decides, and wait until another item is shown."""
    before = page.locator(".stage").get_attribute("data-key")
    page.keyboard.press(key)
    expect(page.locator(f'.stage:not([data-key="{before}"])')).to_have_count(1)
