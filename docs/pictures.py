"""Takes the pictures of docs/review.md and docs/review-lead.md again: simulated episodes, in a real Chromium.

Run it as `make docs`. Everything is made anew in a temporary folder, so the pictures show what the code does now.
"""

import io
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from PIL import Image  # noqa: E402
from playwright.sync_api import Browser, Page, sync_playwright  # noqa: E402

from annotators.annotate import annotate  # noqa: E402
from annotators.ledger import Ledger, QueueRow  # noqa: E402
from annotators.vlm.backends import Perception  # noqa: E402
from apps.review.app import build_app, serve  # noqa: E402
from apps.sim.simulate import simulate  # noqa: E402
from benchmarks.review_data import fill  # noqa: E402
from dataengine.convert import convert  # noqa: E402
from dataengine.episode_set import EpisodeSet  # noqa: E402
from dataengine.workspace import Workspace  # noqa: E402
from schemas.annotations import ReasoningTrace  # noqa: E402
from schemas.refs import Ref  # noqa: E402

EPISODES = Ref("sim", "1")
SIZE = {"width": 1440, "height": 900}
NUM_MADE_UP = 1_200  # decided items behind the picture of the dashboard
COLOURS = 240  # enough for the signs to keep their colours, at a third of the size


def main() -> int:
    """Makes episodes, proposals and decisions, and a picture of each screen."""
    chromium = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)
    if chromium is None:
        sys.stderr.write("error: there is no Chromium on this machine. Install one, e.g. apt-get install chromium.\n")
        return 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        workspace = Workspace.at(folder / "workspace")
        simulate(out=folder / "raw", num_episodes=4, split="in-domain", seed=0)
        convert(source_path=folder / "raw", to=EPISODES, workspace=workspace, rig="aloha_sim", workers=1)
        url = workspace.ledger_url
        with Ledger.open(url) as ledger:
            annotate(episodes=EPISODES, workspace=workspace, ledger=ledger, backend=Perception(), workers=0)
            _history(ledger)
        with _served(workspace, url) as address, sync_playwright() as playwright:
            flags = ["--no-sandbox", "--disable-gpu"]
            browser = playwright.chromium.launch(executable_path=chromium, args=flags)
            _pictures(browser, address)
            decided = f"sqlite:///{folder / 'decided.db'}"
            fill(decided, NUM_MADE_UP, episode_ids=EpisodeSet.open(workspace, EPISODES).ids(), is_decided=True)
            with _served(workspace, decided, "lea") as other:
                _dashboard(browser, other)
            browser.close()
    return 0


def _rows(ledger: Ledger, field: str) -> list[QueueRow]:
    return [row for row in ledger.queue() if row.field == field]


def _history(ledger: Ledger) -> None:
    """What the pictures show was decided before: one decision that was overturned, one dispute."""
    first, second, *_ = _rows(ledger, "trace")
    trace = ledger.item(first.item_id).head.proposal.payload
    assert isinstance(trace, ReasoningTrace)
    _decide(ledger, first, "alice", "accept")
    _decide(ledger, first, "bob", "edit", trace.model_copy(update={"solution": None}), "the sum is not on the board")
    _decide(ledger, _rows(ledger, "segments")[0], "alice", "accept")
    ledger.assign([second.item_id], overlap=2)
    _decide(ledger, second, "bob", "accept")
    _decide(ledger, second, "dan", "reject", note="the board is half hidden")


def _decide(
    ledger: Ledger, row: QueueRow, who: str, action: str, payload: ReasoningTrace | None = None, note: str = ""
) -> None:
    item = ledger.item(row.item_id)
    ledger.decide(
        item_id=row.item_id,
        base_proposal_id=item.head.proposal_id,
        action=action,
        reviewer=who,
        payload=payload,
        idem_key=f"{row.item_id} {who}",
        lead_time_ms=8_000,
        note=note,
    )


@contextmanager
def _served(workspace: Workspace, ledger_url: str, reviewer: str = "alice") -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    app = build_app(workspace=workspace, episodes=EPISODES, ledger_url=ledger_url, reviewer=reviewer)
    serve(app, host="127.0.0.1", port=port)
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        app.close()


def _pictures(browser: Browser, address: str) -> None:
    page = browser.new_page(viewport=SIZE)
    page.goto(address)
    _ready(page)
    page.locator(".queue-row", has_text="trace").first.click()
    page.locator("#board").wait_for()
    _ready(page)
    page.evaluate("window.reviewPage.stop(40)")
    page.keyboard.press("h")
    _save(page, "review-trace")
    page.keyboard.press("h")
    page.keyboard.press("?")
    _save(page, "review-keys", page.locator("dialog"))
    page.keyboard.press("Escape")
    page.locator(".queue-row", has_text="segments").first.click()
    page.locator("#segments").wait_for()
    _ready(page)
    page.keyboard.press("]")
    page.keyboard.press("k")
    _save(page, "review-segments")
    page.locator("#reset").click()
    page.locator("#words .changes").wait_for(state="detached")
    page.locator(".queue-row", has_text="scene").first.click()
    page.locator("#scene").wait_for()
    _ready(page)
    page.keyboard.press("v")
    _save(page, "review-scene")
    page.locator("#work input").click()
    page.get_by_role("option", name="my own decisions").click()
    page.locator(".own").wait_for()
    _save(page, "review-own", page.locator("#left"))
    page.locator("#work input").click()
    page.get_by_role("option", name="settle disagreements").click()
    page.locator(".votes").wait_for()
    _ready(page)
    _save(page, "review-settle", page.locator("#right"))
    page.close()


def _dashboard(browser: Browser, address: str) -> None:
    """The lead's page, over made-up decisions."""
    page = browser.new_page(viewport=SIZE)
    page.goto(f"{address}dashboard")
    page.locator("#figures svg").first.wait_for()
    _save(page, "review-dashboard")
    page.close()


def _ready(page: Page) -> None:
    page.wait_for_function(
        "window.reviewPage?.playing?.() && document.querySelector('#stage video')?.readyState >= 2"
        " && [...document.querySelectorAll('.crop img')].every(picture => picture.complete)"
    )


def _save(page: Page, name: str, part: object = None) -> None:
    """One picture, in few colours."""
    page.wait_for_timeout(700)  # a seek, a notice that fades
    shot = (part or page).screenshot()  # type: ignore[attr-defined]
    path = ROOT / "docs" / "images" / f"{name}.png"
    Image.open(io.BytesIO(shot)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    sys.stdout.write(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1024:.0f} KiB\n")


if __name__ == "__main__":
    sys.exit(main())
