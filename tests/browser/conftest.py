"""A real Chromium at a served review page; each test has a ledger of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from free_ports import serve_somewhere
from playwright.sync_api import Browser, Page, expect, sync_playwright
from raw_files import write_aloha_episode
from review_desk import EPISODES, NUM_FRAMES, SLOW_MS, Desk, fill

from annotators.ledger import Ledger
from apps.review.app import build_app
from dataengine.convert import convert
from dataengine.episode_set import EpisodeSet
from dataengine.workspace import Workspace


@pytest.fixture(scope="session")
def workspace(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Three converted episodes, which share one video shard per camera; asks for Chromium before the work."""
    folder = tmp_path_factory.mktemp("review")
    for number in range(3):
        write_aloha_episode(folder / "raw" / f"episode_{number}.hdf5", num_frames=NUM_FRAMES, seed=number)
    made = Workspace.at(folder / "workspace")
    convert(source_path=folder / "raw", to=EPISODES, workspace=made, rig="aloha", sink="lerobot", workers=1)
    return made


@pytest.fixture(scope="module")  # an open Playwright holds the thread's event loop, which other tests may need
def browser(chromium: str, chromium_flags: list[str]) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=chromium_flags, timeout=2 * SLOW_MS)
        expect.set_options(timeout=SLOW_MS)
        yield opened
        opened.close()


@pytest.fixture
def desk(workspace: Workspace, tmp_path: Path) -> Iterator[Desk]:
    """The page, served over a fresh ledger."""
    ledger_url = f"sqlite:///{tmp_path / 'ledger.db'}"
    ids = EpisodeSet.open(workspace, EPISODES).ids()
    with Ledger.open(ledger_url) as ledger:
        fill(ledger, ids)
    app = build_app(workspace=workspace, episodes=EPISODES, ledger_url=ledger_url, reviewer="alice")
    port = serve_somewhere(app)
    yield Desk(url=f"http://127.0.0.1:{port}/", workspace=workspace, ledger_url=ledger_url, ids=ids)
    app.close()


@pytest.fixture
def page(desk: Desk, browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    opened = context.new_page()
    opened.set_default_timeout(SLOW_MS)
    opened.set_default_navigation_timeout(2 * SLOW_MS)
    opened.goto(desk.url)
    yield opened
    context.close()
