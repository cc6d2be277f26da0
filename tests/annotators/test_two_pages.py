"""Several processes serve one team: any request may go to any of them."""

import asyncio
import json
from pathlib import Path

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
