"""A run that is killed loses at most the calls in flight, and the next one asks only for the rest."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from vlm_server import Reply, said, serving

from annotators.calls import CallStore
from annotators.vlm.endpoint import Endpoint, EndpointClient
from annotators.vlm.protocol import Request, Speaker, TextPart, Turn
from annotators.vlm.stored import StoredClient

pytestmark = pytest.mark.slow  # a process is started, killed and started again
IN_FLIGHT, COUNT = 4, 40


def ask(url: str, database: str) -> tuple[int, int, int]:
    """Ask everything; how many answers there are, how many calls were made, how many answers were there."""
    requests = [
        Request(
            speaker=Speaker(model="m"),
            turns=(Turn(role="user", parts=(TextPart(str(number)),)),),
            schema_name="board",
            schema={"type": "object"},
        )
        for number in range(COUNT)
    ]
    with CallStore.open(database) as store:
        client = StoredClient(EndpointClient(Endpoint(urls=(url,), model="m", in_flight=IN_FLIGHT)), store)
        answers = {request.key: answer for request, answer in client.ask(requests)}
    return len(answers), client.num_made, client.num_cached


def test_a_killed_run_loses_at_most_the_calls_in_flight_and_the_next_asks_for_the_rest(tmp_path: Path) -> None:
    half_done, is_killed = threading.Event(), threading.Event()

    def answer(body: dict[str, Any], number: int) -> Reply:
        time.sleep(0.01)
        if not is_killed.is_set() and number >= COUNT // 2:
            half_done.set()
            is_killed.wait(60)  # however late the kill comes, it finds these calls under way
        return said("{}")

    with serving(answer) as server:
        database = f"sqlite:///{tmp_path}/calls.db"
        words = f"from test_vlm_kill import ask; ask({server.url!r}, {database!r})"
        places = os.pathsep.join([str(Path(__file__).parents[2]), str(Path(__file__).parent)])
        with subprocess.Popen([sys.executable, "-c", words], env={**os.environ, "PYTHONPATH": places}) as process:
            assert half_done.wait(120)
            process.kill()
        is_killed.set()
        server.read_out()
        num_sent = len(server.bodies)
        num_answers, num_made, num_cached = ask(server.url, database)
    assert num_answers == COUNT
    assert num_sent - IN_FLIGHT <= num_cached <= num_sent < COUNT
    assert len(server.bodies) - num_sent == num_made == COUNT - num_cached
