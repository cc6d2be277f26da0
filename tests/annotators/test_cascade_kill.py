"""A cascade that is killed again and again comes to the same proposals, and pays for no answer twice."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from oracle import SIM, Oracle
from vlm_server import Reply, serving

from annotators.cascade import annotate_cascade
from annotators.ledger import Ledger
from annotators.vlm.backends import Endpoint
from dataengine.episode_set import EpisodeSet
from dataengine.workspace import Workspace

pytestmark = pytest.mark.slow  # a process for each kill
KILLS = (1, 3, 4, 6, 8)  # requests that have arrived when the process is killed


def go(place: str, cheap: str, dear: str) -> None:
    """The whole cascade, one call at a time, as `annotate --backend --then` runs it."""
    with Ledger.open(f"sqlite:///{place}/ledger.db") as ledger:
        annotate_cascade(
            episodes=SIM,
            workspace=Workspace.at(Path(place)),
            backend=Endpoint(urls=(cheap,), model="cheap", in_flight=1),
            then=Endpoint(urls=(dear,), model="dear", in_flight=1),
            ledger=ledger,
            workers=0,
        )


def started(place: Path, cheap: str, dear: str) -> subprocess.Popen[bytes]:
    words = f"from test_cascade_kill import go; go({str(place)!r}, {cheap!r}, {dear!r})"
    paths = os.pathsep.join([str(Path(__file__).parents[2]), str(Path(__file__).parent)])
    return subprocess.Popen([sys.executable, "-c", words], env={**os.environ, "PYTHONPATH": paths})


def sharing(home: Path, place: Path) -> Path:
    """A workspace with the same episodes, and ledger and calls of its own."""
    place.mkdir()
    for kind in ("episodes", "frames"):
        if (home / kind).exists():
            (place / kind).symlink_to(home / kind)
    return place


def said_in(place: Path) -> set[tuple[Any, ...]]:
    with Ledger.open(f"sqlite:///{place}/ledger.db") as ledger:
        assert ledger.audit().problems == ()
        return {
            (row.proposal.proposal_id, *sorted((one.verifier, one.verdict) for one in row.results))
            for row in ledger.proposals()
        }


class Counted:
    """Answers as another one does, after a while, and tells how often it was asked."""

    def __init__(self, answer: Callable[[dict[str, Any], int], Reply], arrived: threading.Semaphore) -> None:
        self.answer, self.arrived = answer, arrived

    def __call__(self, body: dict[str, Any], number: int) -> Reply:
        self.arrived.release()
        time.sleep(0.1)  # so that the kill finds the call under way
        return self.answer(body, number)


def test_a_cascade_killed_at_five_points_says_the_same_and_asks_again_only_what_was_under_way(
    home: Path, truth: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    first, _ = EpisodeSet.open(Workspace.at(home), SIM).ids()
    arrived = threading.Semaphore(0)
    misreads = Counted(Oracle(home, truth, wrong="board_second", wrong_about=first), arrived)
    knows = Counted(Oracle(home, truth), arrived)
    with serving(misreads) as cheap, serving(knows) as dear:
        whole = sharing(home, tmp_path / "whole")
        go(str(whole), cheap.url, dear.url)
        num_needed = len(cheap.bodies) + len(dear.bodies)
        assert num_needed > KILLS[-1]

        broken = sharing(home, tmp_path / "broken")
        cheap.bodies.clear()
        dear.bodies.clear()
        while arrived.acquire(blocking=False):
            pass
        num_seen = 0
        for point in KILLS:
            with started(broken, cheap.url, dear.url) as process:
                while num_seen < point:
                    assert arrived.acquire(timeout=120)
                    num_seen += 1
                process.kill()
        go(str(broken), cheap.url, dear.url)
        num_asked = len(cheap.bodies) + len(dear.bodies)
    assert num_needed < num_asked <= num_needed + len(KILLS)  # one call was under way at each
    assert said_in(broken) == said_in(whole)
