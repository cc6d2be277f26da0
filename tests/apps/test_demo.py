"""The whole path at its smallest: every stage really runs, and the report shows what it left."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from apps.rollout.report import RolloutReport
from dataengine.workspace import Workspace
from schemas.refs import KINDS, Ref

ROOT = Path(__file__).resolve().parents[2]
WORDS = ("--episodes", "4", "--steps", "8", "--exams", "1", "--trials", "2")

pytestmark = pytest.mark.timeout(900)


def demo(place: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "apps", "demo", "--workspace", str(place), *WORDS]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, str]:
    place = tmp_path_factory.mktemp("demo") / "a workspace"  # a blank in the path is nothing special
    run = demo(place)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-3000:]
    return Workspace.at(place), run.stdout


def test_every_kind_of_artifact_is_made_and_the_next_commands_are_printed(done: tuple[Workspace, str]) -> None:
    workspace, said = done
    assert {record.kind for record in workspace.all_records()} == set(KINDS)
    assert "Nobody looked in this demo" in said
    assert "dataengine inspect PATH" in said


def test_recorded_chunks_succeed_and_random_ones_do_not(done: tuple[Workspace, str]) -> None:
    workspace, _ = done
    report = RolloutReport.read(workspace.find("evaluations", Ref("demo-trials", "1")))
    successes = {row.policy: (row.successes, row.trials) for row in report.summaries()}
    assert successes["recorded"] == (2, 2)
    assert successes["random"] == (0, 2)
    trained = [row for row in report.rows if row.policy == "nano@1"]
    assert trained
    assert all(text for row in trained for text in row.reasoning)  # also where the gate refused the chunk


@pytest.mark.slow
def test_a_second_demo_finds_everything_there_even_when_the_ledger_went_on(done: tuple[Workspace, str]) -> None:
    from annotators.ledger import Ledger

    workspace, _ = done
    before = {(row.kind, row.name): row.fingerprint for row in workspace.all_records()}
    with Ledger.open(workspace.ledger_url) as ledger:
        ledger.start_run(kind="someone else's", recipe={})
    run = demo(workspace.root)
    assert run.returncode == 0, run.stderr[-3000:]
    assert {(row.kind, row.name): row.fingerprint for row in workspace.all_records()} == before


@pytest.mark.browser
def test_the_report_opens_in_chromium_with_every_picture_present(
    done: tuple[Workspace, str], chromium: str, chromium_flags: list[str]
) -> None:
    workspace, _ = done
    path = workspace.root / "report.html"
    asked: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=chromium_flags, timeout=120_000)
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri(), timeout=120_000)
        widths = page.evaluate("[...document.images].map(image => image.complete && image.naturalWidth)")
        headings = page.locator("h2").all_inner_texts()
        retention = page.locator("section").filter(has=page.get_by_role("heading", name="Retention: what"))
        compared = retention.locator("th").all_inner_texts()
        browser.close()
    assert len(widths) >= 3 + 2 + 1 + 1 + 2  # filmstrips of both families, loss curves, retention, trials
    assert all(width and width > 100 for width in widths)
    assert len(headings) == 9
    kinds = [f"{experts}, {mix}" for experts in ("dense", "8 experts") for mix in ("robot only", "robot + image-text")]
    assert compared == ["skill", "before", *kinds, "nano@1 (the demo's policy)"]
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


def test_more_trials_than_recordings_are_refused_before_any_work(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "apps", "demo", "--workspace", str(tmp_path / "w"), "--episodes", "5"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert run.returncode == 2
    assert "Ask for --trials 5 or fewer" in run.stderr
    assert not (tmp_path / "w").exists()
