"""Who is let in to a served review page, and what each role may make it do, whatever the page shows them."""

import http.client
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from free_ports import serve_somewhere
from ledger_rows import proposal, result
from starlette.routing import Route
from typer.testing import CliRunner

from annotators.ledger import Ledger, Role
from apps.cli.main import app as cli
from apps.review.access import check_host
from apps.review.app import ReviewApp, build_app
from apps.review.sheet import Sheet, Token
from dataengine.episode_set import EpisodeSet
from dataengine.workspace import Workspace
from schemas.errors import UsageError
from schemas.refs import Ref

EPISODES = Ref("tiny", "1")
PASSWORD = "correct horse"
DECIDING = {"on_accept", "on_save", "on_reject", "on_skip", "on_undo", "on_remark"}
LEADING = {"on_batch"}
ROLES: tuple[Role, ...] = ("viewer", "reviewer", "adjudicator", "lead")


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A running page with accounts, and the ledger behind it."""

    app: ReviewApp
    url: str
    ledger: Ledger
    video: Path

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60)

    @contextmanager
    def session(self, name: str) -> Iterator[httpx.Client]:
        with self.client() as client:
            assert client.post("/login", data={"name": name, "password": PASSWORD}).headers["location"] == "/"
            yield client


@pytest.fixture(scope="module")
def served(tiny: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    url = f"sqlite:///{tmp_path_factory.mktemp('access') / 'ledger.db'}"
    with Ledger.open(url) as ledger:
        [episode_id] = EpisodeSet.open(tiny, EPISODES).ids()
        run_id = ledger.start_run(kind="annotate", recipe={})
        ledger.add_proposals(run_id, [(proposal(episode_id), [result("pass")])])
        for role in ROLES:
            ledger.accounts.add(role, role, PASSWORD)
        app = build_app(workspace=tiny, episodes=EPISODES, ledger_url=url)
        port = serve_somewhere(app)
        video = next(app.desk.episodes.path.rglob("*.mp4"))
        yield Served(app=app, url=f"http://127.0.0.1:{port}", ledger=ledger, video=video)
        app.close()


def video_url(served: Served) -> str:
    return "/videos/" + quote(str(served.video.relative_to(served.app.desk.videos)))


def endpoints(served: Served) -> dict[str, int]:
    """Every handler of the running page by name, with the number that a POST calls it by."""
    return {str(found.api_name): number for number, found in served.app.blocks.fns.items()}


def addresses(routes: Iterable[Any]) -> Iterator[Route]:
    """Every address the server knows, Gradio's own included."""
    for route in routes:
        if isinstance(route, Route):
            yield route
        else:
            yield from addresses(getattr(route, "original_router", route).routes)


def sent(served: Served, number: int, track: str = "review") -> list[Any]:
    """As many values as the handler takes, naming alice and the first item."""
    [row] = served.ledger.queue()
    item = served.ledger.item(row.item_id)
    token = {"item_id": row.item_id, "base_proposal_id": item.head.proposal_id, "revision": item.revision}
    shown = Token(**token, key=uuid.uuid4().hex, shown_ms=0, track=track)
    sheet = Sheet.of(item.head.proposal.payload, shown)
    values: list[Any] = [sheet.model_dump_json(), "alice", "", -1, "", "", "review"]
    return values[: len(served.app.blocks.fns[number].inputs)]


def call(served: Served, client: httpx.Client, number: int, track: str = "review") -> dict[str, Any]:
    """What a handler answers to a plain POST, past the page."""
    [row] = served.ledger.queue()
    body = {"data": sent(served, number, track), "fn_index": number, "session_hash": f"s{number}"}
    return answered(client.post("/gradio_api/run/predict", json={**body, "event_data": {"item": row.item_id}}))


def answered(answer: httpx.Response) -> dict[str, Any]:
    """What a handler gave, or the error in its place."""
    assert answer.status_code in (200, 500), answer.text
    return {"success": answer.status_code == 200, "output": answer.json()}


def test_nothing_is_served_to_somebody_who_is_not_logged_in(served: Served) -> None:
    routes = list(addresses(served.app.blocks.app.routes))
    assert {"/config", "/gradio_api/queue/join", "/gradio_api/upload"} <= {route.path for route in routes}
    with served.client() as client:
        for route in routes:
            path = route.path.replace("{path_or_url:path}", quote(str(served.video))).replace(":path}", "}")
            for method in route.methods or ():
                answer = client.request(method, path, json={} if method == "POST" else None)
                if path in ("/login", "/favicon.ico", "/gradio_api/startup-events"):
                    continue
                assert (answer.status_code, path) in {(401, path), (404, path), (303, path)}
                assert path in ("/", "/dashboard", "/dashboard/") or answer.status_code != 303


def test_no_handler_answers_somebody_who_is_not_logged_in(served: Served) -> None:
    with served.client() as client:
        client.cookies.set("review_session", "guessed")
        for name, number in endpoints(served).items():
            body = {"data": sent(served, number), "fn_index": number, "session_hash": "s"}
            paths = ("run/predict", "queue/join", f"run/{name}", f"call/{name}")
            for path in (f"/gradio_api/{path}" for path in paths):
                assert client.post(path, json=body).status_code in (401, 404)
    assert served.ledger.decisions() == []
    assert served.ledger.queue()[0].lease_owner is None


def test_a_viewer_sees_everything_and_changes_nothing(served: Served) -> None:
    found = endpoints(served)
    assert found.keys() >= DECIDING | LEADING
    with served.session("viewer") as client:
        for name, number in found.items():
            answer = call(served, client, number)
            if name in DECIDING | LEADING:
                assert not answer["success"], name
                needed = "lead" if name in LEADING else "reviewer"
                assert f"the role viewer may not do that; it takes {needed}" in answer["output"]["error"]
            else:
                assert answer["success"], (name, answer)
    assert served.ledger.decisions() == []
    assert served.ledger.queue()[0].lease_owner is None


def test_only_an_adjudicator_settles(served: Served) -> None:
    with served.session("reviewer") as client:
        for name, number in endpoints(served).items():
            if len(served.app.blocks.fns[number].inputs) > 1:  # some are sent nothing but a name
                answer = call(served, client, number, "adjudication")
                assert "the role reviewer may not do that; it takes adjudicator" in answer["output"]["error"], name
    assert served.ledger.decisions() == []
    with served.session("adjudicator") as client:
        assert call(served, client, endpoints(served)["on_reject"], "adjudication")["success"]
        [made] = served.ledger.decisions()
        assert (made.reviewer, made.track) == ("adjudicator", "adjudication")
        assert call(served, client, endpoints(served)["on_undo"])["success"]
        served.ledger.renew(reviewer="adjudicator", item_id=made.item_id, lease_s=0)  # undo showed the item again


def test_a_reviewer_decides_under_the_name_of_the_login(served: Served) -> None:
    with served.session("reviewer") as client:
        answer = call(served, client, endpoints(served)["on_accept"])
        assert answer["success"], answer
        made = served.ledger.decisions()[-1]
        assert (made.reviewer, made.action) == ("reviewer", "accept")
        assert call(served, client, endpoints(served)["on_undo"])["success"]


def test_files_outside_the_videos_are_refused(served: Served) -> None:
    episodes = served.app.desk.episodes.path
    with served.session("reviewer") as client:
        part = client.get(video_url(served), headers={"range": "bytes=0-99"})
        assert (part.status_code, part.content) == (206, served.video.read_bytes()[:100])
        outside = (
            "/etc/passwd",
            str(episodes / "record.json"),
            "../record.json",
            "..%2Frecord.json",
            "%2Fetc%2Fpasswd",
        )
        for name in outside:
            for path in (f"/videos/{name}", f"/gradio_api/file={name}"):
                assert client.get(path).status_code in (403, 404), path
        assert client.get(f"/gradio_api/file={served.video}").status_code == 404  # nobody's way in but ours
        assert client.post("/gradio_api/upload", files={"files": b"x"}).status_code == 404
    with served.client() as client:
        assert client.get(video_url(served)).status_code == 401


def test_a_range_that_ends_behind_the_file_gets_what_there_is(served: Served) -> None:
    size = served.video.stat().st_size
    with served.session("reviewer") as client:
        for asked in (f"{size - 10}-{size + 90}", f"{size - 10}-{size}", f"{size - 10}-", "-10"):
            part = client.get(video_url(served), headers={"range": f"bytes={asked}"})
            assert (part.status_code, part.content) == (206, served.video.read_bytes()[-10:]), asked
        behind = client.get(video_url(served), headers={"range": f"bytes={size}-{size + 9}"})
        assert behind.status_code == 416


def test_a_range_says_of_its_file_what_the_whole_file_says(served: Served) -> None:
    with served.session("reviewer") as client:
        whole = client.get(video_url(served))
        assert whole.content == served.video.read_bytes()
        ranged = {"range": "bytes=10-99"}
        for headers in (ranged, ranged | {"if-range": whole.headers["etag"]}):
            part = client.get(video_url(served), headers=headers)
            assert (part.status_code, part.content) == (206, whole.content[10:100])
            assert part.headers["content-range"] == f"bytes 10-99/{len(whole.content)}"
            for name in ("etag", "last-modified", "content-type", "accept-ranges"):
                assert part.headers[name] == whole.headers[name]
        changed = client.get(video_url(served), headers=ranged | {"if-range": '"another"'})
        assert (changed.status_code, changed.content) == (200, whole.content)


def test_who_is_removed_decides_nothing_more_and_soon_watches_nothing_more(served: Served) -> None:
    served.ledger.accounts.add("guest", "reviewer", PASSWORD)
    watched = {"range": "bytes=0-9"}
    with served.session("guest") as client:
        assert client.get(video_url(served), headers=watched).status_code == 206
        served.ledger.accounts.remove("guest")
        number = endpoints(served)["on_accept"]
        body = {"data": sent(served, number), "fn_index": number, "session_hash": "s"}
        assert client.post("/gradio_api/run/predict", json=body).status_code == 401
        while client.get(video_url(served), headers=watched).status_code == 206:
            time.sleep(0.1)
        assert client.get(video_url(served), headers=watched).status_code == 401


def test_who_logs_out_watches_nothing_more(served: Served) -> None:
    with served.session("viewer") as client:
        secret = client.cookies["review_session"]
        assert client.get(video_url(served), headers={"range": "bytes=0-9"}).status_code == 206
        client.post("/logout")
        client.cookies.set("review_session", secret)
        assert client.get(video_url(served), headers={"range": "bytes=0-9"}).status_code == 401


def test_a_body_that_is_too_large_is_refused(served: Served) -> None:
    with served.session("reviewer") as client:
        assert client.post("/gradio_api/run/predict", content=b" " * 3_000_000).status_code == 413
    with served.client() as client:
        assert client.post("/login", content=b"name=" + b"a" * 3_000_000).status_code == 413
        assert client.post("/login", content="&".join(f"a{n}=1" for n in range(50))).status_code == 400


def test_a_login_ends_with_its_session_and_shows_no_secret_to_scripts(served: Served) -> None:
    with served.session("lead") as client:
        assert client.get("/").status_code == 200
        assert client.get("/config").json()["username"] == "lead"
        assert client.get("/logout").status_code == 405
        assert client.post("/logout").headers["location"] == "/login"
        assert client.get("/config").status_code == 401
    with served.client() as client:
        cookie = client.post("/login", data={"name": "lead", "password": PASSWORD}).headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "samesite=strict" in cookie.lower()
        answer = client.post("/login", data={"name": "<script>", "password": "guess guess"})
        assert answer.status_code == 401
        assert "wrong name or password" in answer.text


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "robot.lab", ""])
def test_other_machines_are_let_in_where_people_log_in(host: str) -> None:
    with pytest.raises(UsageError, match="review user add"):
        check_host(host, has_login=False)
    check_host(host, has_login=True)
    for here in ("127.0.0.1", "localhost", "::1"):
        check_host(here, has_login=False)


def test_without_accounts_a_page_of_another_name_is_refused(tiny: Workspace, tmp_path: Path) -> None:
    app = build_app(workspace=tiny, episodes=EPISODES, ledger_url=f"sqlite:///{tmp_path / 'ledger.db'}")
    port = serve_somewhere(app)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            assert client.get("/config").status_code == 200
            assert client.get("/config", headers={"host": f"localhost:{port}"}).status_code == 200
            for name in ("evil.example", "evil.example:7860", "127.0.0.1.evil.example"):
                assert client.get("/config", headers={"host": name}).status_code == 403, name
    finally:
        app.close()


def test_a_lead_says_from_the_command_line_how_items_are_reviewed(tiny: Workspace, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    [episode_id] = EpisodeSet.open(tiny, EPISODES).ids()

    def run(*words: str) -> str:
        place = ["--workspace", str(tiny.root), "--db", url]
        done = CliRunner().invoke(cli, ["review", "assign", str(EPISODES), *words, *place])
        return done.output + str(done.exception or "")

    with Ledger.open(url) as ledger:
        run_id = ledger.start_run(kind="annotate", recipe={})
        ledger.add_proposals(run_id, [(proposal(episode_id), [result("pass")])])
        assert "1 of 1 items chosen; assigned anew: 1" in run("--overlap", "2")
        assert "assigned anew: 0" in run("--overlap", "2", "--episode", episode_id)
        assert "0 of 0 items chosen" in run("--gold")  # nobody decided yet
        assert "Give --overlap N, --gold or both" in run()
        assert "has no episode 'nothing'" in run("--overlap", "2", "--episode", "nothing")


@pytest.mark.slow
def test_a_connection_is_open_for_as_long_as_people_think(served: Served) -> None:
    """uvicorn would close it after five seconds, at times while the next decision is on its way."""
    address = httpx.URL(served.url)
    connection = http.client.HTTPConnection(address.host, address.port, timeout=60)
    connection.connect()
    socket = connection.sock
    for pause_s in (0.0, 7.0):
        time.sleep(pause_s)
        connection.request("GET", "/login")
        assert connection.getresponse().read()
        assert connection.sock is socket  # http.client opens another one only where this one was closed
    connection.close()
