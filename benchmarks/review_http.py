"""A hundred reviewers at the running page, as their browsers would be: logged in, each holding the page's values,
calling its handlers and pulling the video in ranges."""

import asyncio
import html
import json
import random
import re
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from annotators.ledger import Ledger
from benchmarks.convert_data import aloha
from dataengine.convert import convert
from dataengine.episode_set import EpisodeSet
from dataengine.workspace import Workspace
from schemas.refs import Ref

EPISODES = Ref("load", "1")
PASSWORD = "correct horse battery"
_RANGE = 262_144  # bytes that a browser asks for at once
_TICK_S = 20.0  # how often the page asks what others did
_START_S = 120.0
_TRIES = 8  # ports
_TAKEN = "can not be served"
_VIDEO = re.compile(r"/videos/[^\"&]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLoad:
    """How hard the page is worked."""

    num_people: int
    think_s: float
    seconds: float
    num_episodes: int
    num_frames: int
    num_items: int
    processes: int = 1


FULL = HttpLoad(
    num_people=100, think_s=10.0, seconds=300.0, num_episodes=12, num_frames=250, num_items=6_000, processes=2
)
QUICK = HttpLoad(num_people=4, think_s=1.0, seconds=10.0, num_episodes=2, num_frames=50, num_items=200, processes=2)


@dataclass(slots=True, kw_only=True)
class Seen:
    """What all reviewers were told, and how long it took."""

    opens_ms: list[float] = field(default_factory=list)
    accepts_ms: list[float] = field(default_factory=list)
    ticks_ms: list[float] = field(default_factory=list)
    ranges_ms: list[float] = field(default_factory=list)
    video_bytes: int = 0
    acknowledged: list[str] = field(default_factory=list)  # items
    errors: list[str] = field(default_factory=list)


def episodes(folder: Path, load: HttpLoad) -> tuple[Workspace, list[str]]:
    """A converted dataset with two cameras."""
    workspace = Workspace.at(folder / "workspace")
    raw = aloha(folder / "raw", num_episodes=load.num_episodes, num_frames=load.num_frames)
    convert(source_path=raw, to=EPISODES, workspace=workspace, rig="aloha", sink="lerobot", workers=1)
    return workspace, list(EpisodeSet.open(workspace, EPISODES).ids())


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """The page in a process of its own."""

    address: str
    process: subprocess.Popen[bytes]


@contextmanager
def served(workspace: Workspace, ref: Ref, url: str, log: Path, processes: int = 1) -> Iterator[Server]:
    """The page, started as a user starts it."""
    server = _start(workspace, ref, url, log, processes)
    try:
        yield server
    finally:
        server.process.terminate()
        server.process.wait(30)


def _start(workspace: Workspace, ref: Ref, url: str, log: Path, processes: int) -> Server:
    """On a port of this machine. Somebody else may take it between the look and the use: then look again."""
    for _ in range(_TRIES):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        words = ["review", "open", str(ref), "--workspace", str(workspace.root), "--db", url, "--port", str(port)]
        words += ["--processes", str(processes)]
        with log.open("w") as out:
            process = subprocess.Popen([sys.executable, "-m", "apps", *words], stdout=out, stderr=subprocess.STDOUT)
        server = Server(address=f"http://127.0.0.1:{port}", process=process)
        end = time.monotonic() + _START_S
        while process.poll() is None and time.monotonic() < end:
            if server.address in log.read_text():  # the page's own words: what answers there could be another program
                return server
            time.sleep(0.1)
        process.kill()
        process.wait()
        if _TAKEN not in log.read_text():
            break
    raise RuntimeError(f"the page did not start: {log.read_text()[-2000:]}")


def add_people(url: str, num: int) -> list[str]:
    """Accounts of so many reviewers."""
    names = [f"person {number}" for number in range(num)]
    with Ledger.open(url) as ledger:
        for name in names:
            ledger.accounts.add(name, "reviewer", PASSWORD)
    return names


def work(address: str, names: list[str], load: HttpLoad) -> Seen:
    """Everybody at once, until the time is over."""
    seen = Seen()
    asyncio.run(_work(address, names, load, seen))
    return seen


async def _work(address: str, names: list[str], load: HttpLoad, seen: Seen) -> None:
    people = [Person(address, name, seen) for name in names]
    try:
        for person in people:
            await person.log_in()
        end = time.monotonic() + load.seconds
        await asyncio.gather(*(person.review(end, load.think_s) for person in people))
    finally:
        for person in people:
            await person.client.aclose()


class Person:
    """One browser: it knows the page's controls and their values, and nothing else."""

    def __init__(self, address: str, name: str, seen: Seen) -> None:
        self.client = httpx.AsyncClient(base_url=address, timeout=60)
        self.name, self.seen, self.session = name, seen, uuid.uuid4().hex
        self.values: dict[int, Any] = {}
        self.handlers: dict[str, dict[str, Any]] = {}
        self.by_name: dict[str, int] = {}
        self.clips: list[str] = []

    async def log_in(self) -> None:
        """Log in and read the page's layout."""
        answer = await self.client.post("/login", data={"name": self.name, "password": PASSWORD})
        assert answer.status_code == 303, answer.text
        config = (await self.client.get("/config")).json()
        for part in config["components"]:
            self.values[part["id"]] = part["props"].get("value")
            if name := part["props"].get("elem_id"):
                self.by_name[name] = part["id"]
        self.handlers = {row["api_name"]: row for row in config["dependencies"]}
        self.sheet = self.handlers["on_load"]["outputs"][0]

    async def review(self, end: float, think_s: float) -> None:
        """Open the page, then watch, accept, and get the next item, over and over."""
        await asyncio.sleep(random.uniform(0, think_s))  # people do not begin in the same second
        await self.call("on_load", self.seen.opens_ms)
        next_tick = time.monotonic() + _TICK_S
        while time.monotonic() < end and (item_id := self.item_id()):
            pause_end = time.monotonic() + think_s * random.uniform(0.5, 1.5)
            await self._watch()
            if time.monotonic() > next_tick:
                await self.call("on_tick", self.seen.ticks_ms)
                next_tick = time.monotonic() + _TICK_S
            await asyncio.sleep(max(0.0, pause_end - time.monotonic()))
            if await self.call("on_accept", self.seen.accepts_ms):
                if self.item_id() == item_id:
                    self.seen.errors.append("an accept was refused")
                else:
                    self.seen.acknowledged.append(item_id)

    def item_id(self) -> str:
        """The item that is shown; empty for none."""
        token = json.loads(self.values[self.sheet])["token"]
        return str(token["item_id"]) if token else ""

    async def _watch(self) -> None:
        """Pull two ranges of each camera's video."""
        shown = html.unescape(str(self.values[self.by_name["stage"]]))
        for clip in sorted(set(_VIDEO.findall(shown))):
            for _ in range(2):
                first = random.randrange(0, 4) * _RANGE
                start = time.perf_counter()
                wanted = {"range": f"bytes={first}-{first + _RANGE - 1}"}
                try:
                    answer = await self.client.get(clip, headers=wanted)
                except httpx.HTTPError as error:
                    self.seen.errors.append(f"video: {type(error).__name__}: {error}")
                    continue
                self.seen.ranges_ms.append((time.perf_counter() - start) * 1000)
                self.seen.video_bytes += len(answer.content)
                if answer.status_code not in (206, 416):  # 416: the file is shorter
                    self.seen.errors.append(f"video: {answer.status_code}")

    async def call(self, name: str, times_ms: list[float]) -> bool:
        """Call a handler with the values it takes, and take over what it gives back; False when that failed."""
        handler = self.handlers[name]
        body = {
            "data": [self.values[number] for number in handler["inputs"]],
            "fn_index": handler["id"],
            "session_hash": self.session,
            "event_data": None,
        }
        start = time.perf_counter()
        try:
            given = await self._answer(body)
        except (httpx.HTTPError, AssertionError) as error:
            self.seen.errors.append(f"{name}: {type(error).__name__}: {error}"[:300])
            return False
        times_ms.append((time.perf_counter() - start) * 1000)
        for number, value in zip(handler["outputs"], given, strict=True):
            if not isinstance(value, dict) or value.get("__type__") != "update":
                self.values[number] = value
            elif "value" in value:
                self.values[number] = value["value"]
        return True

    async def _answer(self, body: dict[str, Any]) -> list[Any]:
        answer = await self.client.post("/gradio_api/run/predict", json=body)
        assert answer.status_code == 200, f"{answer.status_code} {answer.text[:200]}"
        return list(answer.json()["data"])
