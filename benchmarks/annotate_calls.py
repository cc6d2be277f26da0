"""The plumbing of `annotate --backend endpoint`, against a server in its own process that takes 200 ms per answer.

Throughput at 64 in flight beside the ideal (64 answers every 200 ms) and beside two bare HTTP clients; then a server of
which one call in ten goes wrong, beside what 64 callers could do that never wait; whether each of 10,000 questions has
its one answer, what a second run asks, and what SIGKILL loses. Everything passes through the call store on disk.
"""

import asyncio
import io
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from annotators.calls import CallStore
from annotators.vlm.answers import schema_of
from annotators.vlm.completions import request_body
from annotators.vlm.endpoint import Endpoint, EndpointClient
from annotators.vlm.mending import MendingClient, Settled
from annotators.vlm.protocol import ImagePart, Request, Speaker, TextPart, Turn
from annotators.vlm.stored import StoredClient
from benchmarks.calls_server import FAULTS, LATENCY_S, counts, serving
from benchmarks.figures import Figure, report

IN_FLIGHT = 64
IDEAL = IN_FLIGHT / LATENCY_S
_SLOW_S = 2.0
_NUM_KILLS = 10


def questions(count: int, label: str) -> list[Request]:
    """Questions of a crop's size: 11 kB of PNG each, and words of their own."""
    file = io.BytesIO()
    Image.frombytes("RGB", (60, 60), random.Random(0).randbytes(60 * 60 * 3)).save(file, "PNG")
    picture = ImagePart(file.getvalue())
    return [
        Request(
            speaker=Speaker(model="m"),
            turns=(Turn(role="user", parts=(TextPart(f"{label} {number}"), picture)),),
            schema_name="board",
            schema=schema_of("board"),
        )
        for number in range(count)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What asking brought, and took: the seconds leave out opening the store, imports and the first connections."""

    settled: list[Settled]
    num_made: int
    seconds: float
    cpu_s: float  # of this process


def ask(url: str, store: CallStore, requests: Sequence[Request]) -> Run:
    """Ask as `annotate` does."""
    inner = EndpointClient(Endpoint(urls=(url,), model="m", in_flight=IN_FLIGHT))
    stored = StoredClient(inner, store)
    client = MendingClient(stored)
    list(client.ask(questions(IN_FLIGHT, "warm-up")))
    num_before, cpu_s, start = stored.num_made, _cpu_s(), time.perf_counter()
    settled = list(client.ask(requests))
    seconds, cpu_s = time.perf_counter() - start, _cpu_s() - cpu_s
    inner.close()
    return Run(settled=settled, num_made=stored.num_made - num_before, seconds=seconds, cpu_s=cpu_s)


async def _ask_openai(url: str, requests: Sequence[Request]) -> float:
    """The same questions by the openai client: no keys, no store, nothing read. Seconds."""
    from openai import AsyncOpenAI

    async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:

        async def send(request: Request) -> None:
            await client.post("/chat/completions", cast_to=str, body=request_body(request))

        return await _seconds(send, requests)


async def _ask_aiohttp(url: str, requests: Sequence[Request]) -> float:
    """The same by the HTTP client that ours is made with. Seconds."""
    from aiohttp import ClientSession

    async with ClientSession() as session:

        async def send(request: Request) -> None:
            async with session.post(f"{url}/chat/completions", json=request_body(request)) as reply:
                await reply.read()

        return await _seconds(send, requests)


async def _seconds(send: Callable[[Request], Awaitable[None]], requests: Sequence[Request]) -> float:
    """What 64 callers take that each send one request after the other."""

    async def caller(mine: Sequence[Request]) -> None:
        for request in mine:
            await send(request)

    async def all_of(some: Sequence[Request]) -> None:
        await asyncio.gather(*(caller(some[place::IN_FLIGHT]) for place in range(IN_FLIGHT)))

    await all_of(questions(IN_FLIGHT, "warm-up"))
    start = time.perf_counter()
    await all_of(requests)
    return time.perf_counter() - start


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def throughput(quick: bool) -> list[Figure]:
    """Interleaved medians at 200 ms."""
    repeats = 1 if quick else 5
    num_calls = IN_FLIGHT * (16 if quick else 64)  # whole rounds: 4,000 are 62.5, which nobody can do in less than 63
    ours, openai, aiohttp, cpu_ms = [], [], [], []
    with tempfile.TemporaryDirectory() as folder, serving() as url:
        for repeat in range(repeats):
            requests = questions(num_calls, f"round {repeat}")
            with CallStore.open(f"sqlite:///{folder}/{repeat}.db") as store:
                run = ask(url, store, requests)
            ours.append(num_calls / run.seconds)
            cpu_ms.append(1e3 * run.cpu_s / num_calls)
            openai.append(num_calls / asyncio.run(_ask_openai(url, requests)))
            aiohttp.append(num_calls / asyncio.run(_ask_aiohttp(url, requests)))
    rate = statistics.median(ours)
    load = f"1-minute load {os.getloadavg()[0]:.1f} when it ended"
    note = f"{num_calls:,} calls; runs from {min(ours):.0f} to {max(ours):.0f}; {load}"
    return [
        Figure(
            figure="calls at 64 in flight, 200 ms each",
            ours=rate,
            peer=IDEAL,
            peer_name="ideal, 64 answers every 200 ms",
            unit="calls/s",
            repeats=repeats,
            reach="0.95",
            note=note,
        ),
        Figure(
            figure="calls at 64 in flight beside the openai client",
            ours=rate,
            peer=statistics.median(openai),
            peer_name="openai client alone, nothing hashed or stored",
            unit="calls/s",
            repeats=repeats,
            note="interleaved, same server",
        ),
        Figure(
            figure="calls at 64 in flight beside the bare HTTP client",
            ours=rate,
            peer=statistics.median(aiohttp),
            peer_name="aiohttp alone, nothing hashed or stored",
            unit="calls/s",
            repeats=repeats,
            note="interleaved, same server",
        ),
        Figure(
            figure="processor time per call",
            ours=statistics.median(cpu_ms),
            peer=1e3 / IDEAL,
            peer_name="what one core has at the ideal rate",
            unit="ms",
            repeats=repeats,
            note="hashing, HTTP, reading, SQLite; the server's own not counted",
        ),
    ]


def patience(quick: bool) -> list[Figure]:
    """The same at two seconds per answer, as a model of several billion weights takes."""
    num_calls = IN_FLIGHT * (4 if quick else 20)
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(latency_s=_SLOW_S) as url,
        CallStore.open(f"sqlite:///{folder}/slow.db") as store,
    ):
        run = ask(url, store, questions(num_calls, "slow"))
    return [
        Figure(
            figure="calls at 64 in flight, 2 s each",
            ours=num_calls / run.seconds,
            peer=IN_FLIGHT / _SLOW_S,
            peer_name="ideal, 64 answers every 2 s",
            unit="calls/s",
            repeats=1,
            note=f"{num_calls:,} calls; 1-minute load {os.getloadavg()[0]:.1f} when it ended",
        )
    ]


def faults(quick: bool) -> list[Figure]:
    """A server of which one call in ten goes wrong; then everything is asked once more. The medians of three times."""
    num_calls, repeats = (1_000, 1) if quick else (10_000, 3)
    runs = [_faults(num_calls, f"faulty {repeat}") for repeat in range(repeats)]
    ours = [run.rate for run in runs]
    kinds = ", ".join(f"{share} % {name}" for name, share in FAULTS.items())
    return [
        Figure(
            figure="calls at 64 in flight, one in ten goes wrong",
            ours=statistics.median(ours),
            peer=statistics.median(run.ideal for run in runs),
            peer_name="64 callers that never wait, same faults",
            unit="answers/s",
            repeats=repeats,
            reach="0.95",
            note=f"{num_calls:,} questions, {runs[-1].num_requests:,} requests; {kinds}; "
            f"runs from {min(ours):.0f} to {max(ours):.0f}",
        ),
        Figure(
            figure="answers lost, doubled or of another question",
            ours=sum(run.num_wrong for run in runs),
            peer=None,
            peer_name="none",
            unit="answers",
            repeats=repeats,
            reach="0",
            note=f"over {repeats} times {num_calls:,} questions to the faulty server",
        ),
        Figure(
            figure="calls that a second run makes",
            ours=sum(run.num_again for run in runs),
            peer=None,
            peer_name="none",
            unit="calls",
            repeats=repeats,
            reach="0",
        ),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Faulty:
    """What came of asking a faulty server everything, twice."""

    rate: float  # answers a second
    ideal: float  # of 64 callers that never wait
    num_requests: int
    num_wrong: int
    num_again: int  # calls that the second time made


def _faults(num_calls: int, label: str) -> _Faulty:
    requests = questions(num_calls, label)
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(faulty=True) as url,
        CallStore.open(f"sqlite:///{folder}/faults.db") as store,
    ):
        run = ask(url, store, requests)
        seen = counts(url)
        ideal_s = seen.busy_s / IN_FLIGHT - LATENCY_S  # less the warm-up
        wrong = _wrong(requests, run.settled, seen.answers, store)
        again = ask(url, store, requests)
        asked_again = counts(url).num_requests - seen.num_requests
        assert {one.request.key: one for one in again.settled} == {one.request.key: one for one in run.settled}
    return _Faulty(
        rate=num_calls / run.seconds,
        ideal=num_calls / ideal_s,
        num_requests=seen.num_requests,
        num_wrong=wrong,
        num_again=asked_again + again.num_made,
    )


def _wrong(requests: Sequence[Request], settled: Sequence[Settled], answers: dict[str, int], store: CallStore) -> int:
    """Questions without their one answer: settled once, stored, saying what was asked, sent by the server once."""
    told = {one.request.key: one for one in settled}
    wrong = len(settled) - len(told) + sum(times != 1 for times in answers.values())
    stored = store.get_all([request.key for request in requests])
    for request in requests:
        one = told.get(request.key)
        (words, _) = request.turns[0].parts
        assert isinstance(words, TextPart)
        right = one is not None and (
            one.answer.outcome == "blocked" or json.loads(one.answer.text) == {"writing": words.text}
        )
        wrong += not (right and request.key in stored)
    return wrong


def kills(quick: bool) -> list[Figure]:
    """SIGKILL when the server has had a random number of requests; then the run is made again, to its end."""
    with tempfile.TemporaryDirectory() as name:
        return _kills(Path(name), 300 if quick else 2_000)


def _kills(folder: Path, num_calls: int) -> list[Figure]:
    lost, twice = [], []
    points = random.Random(7)
    for number in range(_NUM_KILLS):
        database = f"sqlite:///{folder}/kill{number}.db"
        requests = questions(num_calls, f"kill {number}")
        with serving() as url:
            words = f"from benchmarks.annotate_calls import child; child({url!r}, {database!r}, {num_calls}, {number})"
            with subprocess.Popen([sys.executable, "-c", words]) as process:
                point = points.randrange(IN_FLIGHT, num_calls)
                while counts(url).num_requests - IN_FLIGHT < point:
                    time.sleep(0.005)
                process.kill()
            time.sleep(2 * LATENCY_S)  # what was under way ends
            sent = sum(times for name, times in counts(url).answers.items() if name.startswith("kill"))
            with CallStore.open(database) as store:
                lost.append(sent - len(store.get_all([request.key for request in requests])))
                assert len(ask(url, store, requests).settled) == num_calls
            total = sum(times for name, times in counts(url).answers.items() if name.startswith("kill"))
            twice.append(total - num_calls)
    return [
        Figure(
            figure="answers lost by SIGKILL, the worst of 10 random points",
            ours=max(lost),
            peer=IN_FLIGHT,
            peer_name="calls in flight",
            unit="answers",
            repeats=_NUM_KILLS,
            reach="at most 64",
            note=f"each: {', '.join(map(str, lost))}; asked twice after all: {max(twice)} at most",
        )
    ]


def child(url: str, database: str, num_calls: int, number: int) -> None:
    """What is killed."""
    with CallStore.open(database) as store:
        ask(url, store, questions(num_calls, f"kill {number}"))


if __name__ == "__main__":
    groups = {"throughput": throughput, "patience": patience, "faults": faults, "kills": kills}
    report("annotate_calls", groups, __doc__)
