"""Several processes serve one team: any request may go to any of them."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from annotators.ledger import Ledger
from apps.review.app import First, build_app
from apps.review.sheet import Sheet
from benchmarks import review_data, review_http
from benchmarks.review_http import Person, Seen
from dataengine.episode_set import EpisodeSet
from dataengine.workspace import Workspace
from schemas.refs import Ref

EPISODES = Ref("tiny", "1")
ROUNDS = 4


@pytest.mark.slow
def test_two_pages_over_one_ledger_serve_one_team(tiny: Workspace, url: str, tmp_path: Path) -> None:
    Ledger.open(url).close()
    review_data.fill(url, 60, episode_ids=EpisodeSet.open(tiny, EPISODES).ids())
    names = review_http.add_people(url, 3)
    with (
        review_http.served(tiny, EPISODES, url, tmp_path / "first.log") as first,
        review_http.served(tiny, EPISODES, url, tmp_path / "second.log") as second,
    ):
        told = asyncio.run(_work((first.address, second.address), names))
    with Ledger.open(url) as ledger:
        assert sorted(told) == sorted(row.item_id for row in ledger.decisions())
        assert len(told) == len(set(told)) == ROUNDS * len(names)
        assert ledger.audit().problems == ()


@pytest.mark.slow
def test_two_processes_share_a_port_and_one_that_is_killed_under_use_is_replaced(
    tiny: Workspace, url: str, tmp_path: Path
) -> None:
    Ledger.open(url).close()
    review_data.fill(url, 2_000, episode_ids=EpisodeSet.open(tiny, EPISODES).ids())
    names = review_http.add_people(url, 8)
    with review_http.served(tiny, EPISODES, url, tmp_path / "page.log", processes=2) as page:
        told, second = asyncio.run(_killed(page, names))
        assert told, "who met the other process went on"
        end = time.monotonic() + 90
        while not (new := [one for one in _beside(page) if one != second]) and time.monotonic() < end:
            time.sleep(0.1)
        assert len(new) == 1, "it is replaced"
        while not (is_met := asyncio.run(_meets(new[0], page, names))) and time.monotonic() < end:
            pass
        assert is_met, "and what replaced it answers"
    with Ledger.open(url) as ledger:
        held = [row.item_id for row in ledger.decisions()]
        assert len(held) == len(set(held))
        assert set(told) <= set(held)
        assert ledger.audit().problems == ()
    assert "Traceback" not in (tmp_path / "page.log").read_text()


async def _killed(page: review_http.Server, names: list[str]) -> tuple[list[str], psutil.Process]:
    """Everybody decides until the second process was killed and for a while after; what they were told was kept."""
    seen = Seen()
    people = [Person(page.address, name, seen) for name in names]
    for person in people:
        await person.log_in()
    [second] = _beside(page)
    end = time.monotonic() + 60
    working = [asyncio.create_task(person.review(end, 0.05)) for person in people]
    while not _serves(second, page) and time.monotonic() < end:
        await asyncio.sleep(0.1)
    assert _serves(second, page), "both accept"
    second.kill()
    num_before = len(seen.acknowledged)
    while len(seen.acknowledged) < num_before + 10 and time.monotonic() < end:
        await asyncio.sleep(0.1)
    for task in working:
        task.cancel()
    await asyncio.gather(*working, return_exceptions=True)
    for person in people:
        await person.client.aclose()
    assert len(seen.acknowledged) >= num_before + 10, seen.errors
    return seen.acknowledged, second


async def _meets(process: psutil.Process, page: review_http.Server, names: list[str]) -> bool:
    """Some people log in; whether one of them was answered by that process."""
    people = [Person(page.address, name, Seen()) for name in names]
    await asyncio.gather(*(person.log_in() for person in people))
    found = _serves(process, page)
    for person in people:
        await person.client.aclose()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("reaches", ["the first", "all, as from a terminal"])
def test_all_processes_of_a_page_end_with_the_first(
    tiny: Workspace, tmp_path: Path, end: signal.Signals, reaches: str
) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    Ledger.open(url).close()
    with review_http.served(tiny, EPISODES, url, tmp_path / "page.log", processes=3) as page:
        others = _beside(page)
        assert len(others) == 2
        if reaches == "the first":
            page.process.send_signal(end)
        else:
            for process in (page.process, *others):
                process.send_signal(end)
        page.process.wait(20)
        assert psutil.wait_procs(others, timeout=20)[1] == []
    assert "Traceback" not in (tmp_path / "page.log").read_text()


@pytest.mark.slow
def test_a_port_that_is_taken_is_one_sentence_however_many_share_it(tiny: Workspace, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        words = ["review", "open", str(EPISODES), "--workspace", str(tiny.root), "--port", port, "--processes", "2"]
        words += ["--db", f"sqlite:///{tmp_path / 'ledger.db'}"]
        done = subprocess.run([sys.executable, "-m", "apps", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"can not be served on 127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr


def _beside(page: review_http.Server) -> list[psutil.Process]:
    """The page's other processes."""
    children = psutil.Process(page.process.pid).children()
    return [
        one
        for one in children
        if one.status() != psutil.STATUS_ZOMBIE and "--multiprocessing-fork" in " ".join(one.cmdline())
    ]


def _serves(process: psutil.Process, page: review_http.Server) -> bool:
    """Somebody is connected to the page through it."""
    port = int(page.address.rpartition(":")[2])
    found = [one for one in process.net_connections("tcp4") if one.status == psutil.CONN_ESTABLISHED]
    return any(one.laddr.port == port for one in found)


async def _work(addresses: tuple[str, str], names: list[str]) -> list[str]:
    """Everybody logs in at the first page, and goes on at the other one with every press; gives what they decided."""
    seen, told = Seen(), []
    people = [Person(addresses[0], name, seen) for name in names]
    for person in people:
        await person.log_in()
        assert await person.call("on_load", seen.opens_ms), seen.errors
    for number in range(ROUNDS):
        assert len({person.item_id() for person in people}) == len(people)  # nobody's item is another's
        for person in people:
            person.client.base_url = addresses[(number + 1) % 2]
            told.append(person.item_id())
            assert await person.call("on_accept", seen.accepts_ms), seen.errors
    for person in people:
        sheet = json.loads(person.values[person.sheet])
        person.values[person.sheet] = json.dumps({**sheet, "note": f"half said by {person.name}", "sequence": 1})
        assert await person.call("on_typing", seen.ticks_ms), seen.errors
        person.client.base_url = addresses[1]
        person.values[person.sheet] = Sheet().model_dump_json()  # as after a reload
        assert await person.call("on_load", seen.opens_ms), seen.errors
        found = Sheet.read(person.values[person.sheet])
        assert (found.note, found.token is not None) == (f"half said by {person.name}", True)
        await person.client.aclose()
    return told


def test_a_further_process_asks_for_a_login_as_the_first_does(tiny: Workspace, tmp_path: Path) -> None:
    """Accounts that are gone for a moment must not make it a page where anybody decides in anybody's name."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    first = First(has_login=True, app_id=7)
    app = build_app(workspace=tiny, episodes=EPISODES, ledger_url=url, first=first)
    assert (app.gate.has_login, app.blocks.app_id) == (True, 7)
    app.desk.close()
    alone = build_app(workspace=tiny, episodes=EPISODES, ledger_url=url)
    assert not alone.gate.has_login
    alone.desk.close()
