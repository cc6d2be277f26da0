"""A chat-completions server in a process of its own that takes 200 ms per answer, and keeps count of what it sent.

It shares no code with the client. With faults, what goes wrong is a function of the question and of how often it came:
429 with Retry-After, 500, connections cut before or inside the answer, slow bytes, prose, cut-off JSON, refusals.
"""

import asyncio
import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.request import urlopen

LATENCY_S = 0.2
# Of a hundred calls. Together one in ten goes wrong.
FAULTS = {"429": 2, "500": 2, "cut": 1, "half": 1, "drip": 1, "prose": 1, "length": 1, "refusal": 1}
_ONLY_FIRST = ("prose", "length", "refusal")  # what the question is answered with, however often it comes
_HEAD = "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{more}\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What the server has seen."""

    num_requests: int
    busy_s: float  # how long requests were at the server, together
    answers: dict[str, int]  # question -> whole answers that were sent


class Server:
    """The counts, and how one connection is served."""

    def __init__(self, *, faulty: bool, latency_s: float) -> None:
        self.faulty = faulty
        self.latency_s = latency_s
        self.visits: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self.num_requests = 0
        self.busy_s = 0.0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request after the other until the other side hangs up, or a fault says to."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"GET"):
                    counts = {"num_requests": self.num_requests, "busy_s": self.busy_s, "answers": self.answers}
                    writer.write(_response(200, json.dumps(counts).encode()))
                    await writer.drain()
                    continue
                lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                body = await reader.readexactly(int(lengths[0].split(b":")[1]))
                start_s = time.perf_counter()
                self.num_requests += 1
                keeps = await self._answer(json.loads(body), writer)
                self.busy_s += time.perf_counter() - start_s
                if not keeps:
                    break
        except (OSError, asyncio.IncompleteReadError):
            pass  # it hung up
        finally:
            writer.close()

    async def _answer(self, body: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
        """Send one answer, or fail to; False: the connection is over."""
        turns = body["messages"]
        question = turns[0]["content"][0]["text"]
        name = f"{question}/{len(turns)}/{body['max_tokens']}"
        self.visits[name] += 1
        fault = self._fault(question, name)
        if len(turns) > 1 or body["max_tokens"] > 256:  # mended
            fault = "" if fault in _ONLY_FIRST else fault
        await asyncio.sleep(self.latency_s)
        if fault == "429":
            writer.write(_response(429, b'{"error": {"message": "slow down"}}', "Retry-After: 1\r\n"))
            return True
        if fault == "500":
            writer.write(_response(500, b'{"error": {"message": "out of order"}}'))
            return True
        if fault == "cut":
            return False
        payload = _completion(question, fault)
        if fault == "half":
            writer.write(_response(200, payload)[:-40])
            return False
        if fault == "drip":
            whole = _response(200, payload)
            for start in range(0, len(whole), 40):
                writer.write(whole[start : start + 40])
                await asyncio.sleep(0.05)
        else:
            writer.write(_response(200, payload))
        await writer.drain()
        self.answers[name] += 1
        return True

    def _fault(self, question: str, name: str) -> str:
        if not self.faulty:
            return ""
        kinds = [*FAULTS, ""]
        weights = [*FAULTS.values(), 100 - sum(FAULTS.values())]
        (first,) = random.Random(question).choices(kinds, weights)
        if first in _ONLY_FIRST:
            return first
        (fault,) = random.Random(f"{name} {self.visits[name]}").choices(kinds, weights)
        return "" if fault in _ONLY_FIRST else fault


def _response(status: int, payload: bytes, more: str = "") -> bytes:
    return _HEAD.format(status=status, length=len(payload), more=more).encode() + payload


def _completion(question: str, fault: str) -> bytes:
    text: str | None = json.dumps({"writing": question})
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if fault == "prose":
        message["content"] = f"The board says {question}."
    if fault == "length":
        message["content"] = str(text)[:-4]
    if fault == "refusal":
        message |= {"content": None, "refusal": "I can not help with that."}
    finish = "length" if fault == "length" else "stop"
    usage = {"prompt_tokens": 300, "completion_tokens": 12, "total_tokens": 312}
    choice = {"index": 0, "finish_reason": finish, "message": message}
    return json.dumps({"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage}).encode()


async def _main(faulty: bool, latency_s: float) -> None:
    serve = Server(faulty=faulty, latency_s=latency_s).serve
    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 22)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


@contextmanager
def serving(*, faulty: bool = False, latency_s: float = LATENCY_S) -> Iterator[str]:
    """The server's base URL, while it runs in its own process."""
    words = ["faulty" if faulty else "sound", str(latency_s)]
    command = [sys.executable, "-m", "benchmarks.calls_server", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.terminate()


def counts(url: str) -> Counts:
    """What the server at a URL has seen so far."""
    with urlopen(f"{url}/counts", timeout=30) as reply:
        return Counts(**json.load(reply))


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1] == "faulty", float(sys.argv[2])))
