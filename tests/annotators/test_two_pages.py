"""Several processes serve one team: any request may go to any of them."""

import asyncio
import json
import signal
import time
from pathlib import Path

import psutil
import pytest

from annotators.ledger import Ledger
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
def test_two_processes_share_a_port_and_one_that_is_killed_takes_nothing_with_it(
    tiny: Workspace, url: str, tmp_path: Path
) -> None:
    Ledger.open(url).close()
    review_data.fill(url, 60, episode_ids=EpisodeSet.open(tiny, EPISODES).ids())
    names = review_http.add_people(url, 3)
    with review_http.served(tiny, EPISODES, url, tmp_path / "page.log", processes=2) as page:
        told = asyncio.run(_work((page.address, page.address), names))
        [second] = _beside(page)
        second.kill()
        told += asyncio.run(_work((page.address, page.address), names))
        end = time.monotonic() + 60
        while _beside(page) in ([], [second]) and time.monotonic() < end:
            time.sleep(0.2)
        assert len(_beside(page)) == 1, "it is replaced"
    with Ledger.open(url) as ledger:
        assert sorted(told) == sorted(row.item_id for row in ledger.decisions())
        assert len(told) == len(set(told)) == 2 * ROUNDS * len(names)
        assert ledger.audit().problems == ()


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_all_processes_of_a_page_end_with_the_first(tiny: Workspace, tmp_path: Path, end: signal.Signals) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    Ledger.open(url).close()
    with review_http.served(tiny, EPISODES, url, tmp_path / "page.log", processes=3) as page:
        others = _beside(page)
        assert len(others) == 2
        page.process.send_signal(end)
        page.process.wait(20)
        assert psutil.wait_procs(others, timeout=20)[1] == []
    assert "Traceback" not in (tmp_path / "page.log").read_text()


def _beside(page: review_http.Server) -> list[psutil.Process]:
    """The page's other processes."""
    children = psutil.Process(page.process.pid).children()
    return [
        one for one in children if one.status() != psutil.STATUS_ZOMBIE and "--multiprocessing-fork" in one.cmdline()
    ]


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
