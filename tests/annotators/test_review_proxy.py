"""A proxy that logs people in: it is believed when it proves itself, and nobody else is."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from free_ports import serve_somewhere
from ledger_rows import proposal, result
from test_review_access import EPISODES, PASSWORD, Served, addresses, call, endpoints
from typer.testing import CliRunner

from annotators.ledger import Ledger
from apps.cli.main import app as cli
from apps.review.app import build_app
from apps.review.proxy import SECRET_HEADER, Proxy
from dataengine.episode_set import EpisodeSet
from dataengine.workspace import Workspace
from schemas.errors import UsageError

SECRET = "s" * 32
NAME = "X-Forwarded-User"
BOB = {NAME: "bob", SECRET_HEADER: SECRET}


@pytest.fixture(scope="module")
def served(tiny: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    url = f"sqlite:///{tmp_path_factory.mktemp('proxy') / 'ledger.db'}"
    with Ledger.open(url) as ledger:
        [episode_id] = EpisodeSet.open(tiny, EPISODES).ids()
        run_id = ledger.start_run(kind="annotate", recipe={})
        ledger.add_proposals(run_id, [(proposal(episode_id), [result("pass")])])
        ledger.accounts.add("bob", "reviewer", PASSWORD)
        proxy = Proxy(header=NAME, secret=SECRET)
        app = build_app(workspace=tiny, episodes=EPISODES, ledger_url=url, proxy=proxy)
        port = serve_somewhere(app)
        yield Served(app=app, url=f"http://127.0.0.1:{port}", ledger=ledger, video=Path())
        app.close()


def test_who_the_proxy_names_decides_under_that_name(served: Served) -> None:
    with httpx.Client(base_url=served.url, headers=BOB, timeout=60) as client:
        assert client.get("/config").json()["username"] == "bob"
        assert call(served, client, endpoints(served)["on_accept"])["success"]
    assert [row.reviewer for row in served.ledger.decisions()] == ["bob"]


@pytest.mark.parametrize(
    "headers",
    [
        [(NAME, "bob")],
        [(NAME, "bob"), (SECRET_HEADER, "")],
        [(NAME, "bob"), (SECRET_HEADER, "guess" * 7)],
        [(NAME, "bob"), (SECRET_HEADER, SECRET), (SECRET_HEADER, "guess")],
        [(NAME, "mallory"), (SECRET_HEADER, SECRET)],
        [(NAME, ""), (SECRET_HEADER, SECRET)],
        [(SECRET_HEADER, SECRET)],
        [(NAME, "bob"), (NAME, "bob"), (SECRET_HEADER, SECRET)],
        [("X-Forwarded-For", "127.0.0.1"), (NAME, "bob")],
    ],
)
def test_nobody_else_is_believed_at_any_address(served: Served, headers: list[tuple[str, str]]) -> None:
    paths = {route.path for route in addresses(served.app.blocks.app.routes)}
    paths -= {"/gradio_api/startup-events", "/favicon.ico"}  # they say nothing about anybody
    with httpx.Client(base_url=served.url, timeout=60) as client:
        for path in ("/login", *paths):
            for method in ("GET", "POST"):
                assert client.request(method, path, headers=headers, json={}).status_code in (401, 404), path


def test_nobody_logs_in_or_out_past_the_proxy(served: Served) -> None:
    with httpx.Client(base_url=served.url, timeout=60) as client:
        assert client.post("/login", data={"name": "bob", "password": PASSWORD}).status_code == 401
        client.cookies.set("review_session", served.ledger.accounts.log_in("bob", PASSWORD))
        assert client.get("/config").status_code == 401
        assert client.post("/login", data={"name": "bob", "password": PASSWORD}, headers=BOB).status_code == 404
        assert client.post("/logout", headers=BOB).status_code == 404


def test_another_web_page_can_not_speak_through_somebodys_browser(served: Served) -> None:
    with httpx.Client(base_url=served.url, headers=BOB, timeout=60) as client:
        cross = {"sec-fetch-site": "cross-site"}
        assert client.post("/gradio_api/run/predict", json={}, headers=cross).status_code == 401
        assert (
            client.post("/gradio_api/run/predict", json={}, headers={"sec-fetch-site": "same-origin"}).status_code
            != 401
        )


def test_a_header_alone_is_refused_and_a_secret_that_is_none(tiny: Workspace, tmp_path: Path) -> None:
    def run(*words: str) -> str:
        done = CliRunner().invoke(cli, ["review", "open", str(EPISODES), "--workspace", str(tiny.root), *words])
        assert done.exit_code != 0
        return str(done.exception)

    weak = tmp_path / "weak"
    weak.write_text("short\n")
    assert "anybody can send it" in run("--proxy-header", NAME)
    assert "anybody can send it" in run("--proxy-secret-file", str(weak))
    assert "needs 16 plain characters" in run("--proxy-header", NAME, "--proxy-secret-file", str(weak))
    assert "can not be read" in run("--proxy-header", NAME, "--proxy-secret-file", str(tmp_path / "none"))
    for name in ("", "a b", SECRET_HEADER.lower()):
        with pytest.raises(UsageError):
            Proxy(header=name, secret=SECRET)
    assert SECRET not in repr(Proxy(header=NAME, secret=SECRET))


def test_an_account_for_the_proxy_alone_has_no_password_that_anybody_knows(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    done = CliRunner().invoke(cli, ["review", "user", "add", "eve", "--role", "viewer", "--no-password", "--db", url])
    assert done.exit_code == 0, done.output
    with Ledger.open(url) as ledger:
        assert [row.name for row in ledger.accounts.all()] == ["eve"]
