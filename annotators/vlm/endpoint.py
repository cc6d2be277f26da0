"""Any OpenAI-compatible server: vLLM, SGLang, Ollama, a hosted one. Answers are held to a JSON schema where it can.

Only what may pass is tried again: timeouts, lost connections, 408, 409, 429 and 5xx, after what Retry-After says and a
jittered wait. An answer that is cut off, blocked or empty is an answer, and is not asked for again here.
"""

import asyncio
import itertools
import math
import os
import queue
import random
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from annotators.calls import RawAnswer
from annotators.vlm.costs import FREE, Prices, Purse, estimate_input_tokens
from annotators.vlm.limits import Lane, Meter
from annotators.vlm.protocol import Decode, Lot, Request, Speaker, taken
from annotators.vlm.server import Server
from schemas.errors import BackendError

_GIVE_UP_AFTER = 8  # calls in a row without any answer: the server is gone, stop paying in time
_FIRST_WAIT_S = 0.5  # at most; each further one at most twice as long
_LOOK_AGAIN_S = 0.1  # callers that a lane or the purse holds back


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where to ask and how. The API key is read from the environment when needed and stored nowhere."""

    urls: tuple[str, ...]  # base URLs ending in /v1; each takes what it has room for
    model: str
    revision: str = ""
    decode: Decode = field(default_factory=Decode)
    in_flight: int = 8  # calls at a time at each URL, at most
    timeout_s: float = 120.0  # for a whole answer, however slowly its bytes come
    max_attempts: int = 6
    patience_s: float = 30.0  # a server that only loses calls for so long is gone
    longest_wait_s: float = 120.0  # a server that says to come back later than this is not waited for
    api_key_env: str = "OPENAI_API_KEY"
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None  # of questions and answers together
    prices: Prices = FREE
    budget: float | None = None  # money this run may spend

    def __post_init__(self) -> None:
        if not self.urls or not all(url.startswith(("http://", "https://")) for url in self.urls):
            raise BackendError(
                f"an endpoint needs http(s) base URLs, got {list(self.urls)}. Use e.g. http://HOST:8000/v1."
            )
        for url in self.urls:
            parts = urlsplit(url)
            if "@" in parts.netloc or parts.query or parts.fragment:  # URLs are printed; a secret must not be
                raise BackendError(
                    f"the URL of {parts.hostname} holds a password or a query. Give the bare URL, and the key in the "
                    f"environment as {self.api_key_env}."
                )
        if not self.model or self.in_flight < 1 or self.max_attempts < 1:
            raise BackendError("an endpoint needs a model name, in_flight >= 1 and max_attempts >= 1.")
        limits = (self.requests_per_minute, self.tokens_per_minute, self.budget, self.timeout_s, self.patience_s)
        if any(limit is not None and not 0 < limit < math.inf for limit in limits):
            raise BackendError(f"limits, budget and times must be more than 0, got {limits}. Leave out what has none.")
        if self.budget is not None and self.prices == FREE:
            raise BackendError("a budget needs prices per million tokens. Give --price-in and --price-out too.")

    @property
    def speaker(self) -> Speaker:
        """Who answers here."""
        return Speaker(model=self.model, revision=self.revision, decode=self.decode)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Job:
    """One request that waits for its turn."""

    number: int
    request: Request
    attempt: int = 0


type _Ready = tuple[Request, RawAnswer, asyncio.Future[None]]  # the future: done when the answer is stored


@dataclass(slots=True, kw_only=True)
class _Round:
    """The requests of one `ask`, and what became of them. All but `ready` is the event loop's."""

    ready: queue.SimpleQueue[_Ready | None] = field(default_factory=queue.SimpleQueue)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    num_put: int = 0
    jobs: asyncio.PriorityQueue[tuple[bool, int, _Job]] = field(default_factory=asyncio.PriorityQueue)
    waiting: dict[_Job, asyncio.TimerHandle] = field(default_factory=dict)
    num_under_way: int = 0
    problem: BackendError | None = None

    def add(self, requests: Sequence[Request]) -> None:
        """More to ask."""
        for request in requests:
            self.put(_Job(number=self.num_put, request=request))
            self.num_put += 1

    def put(self, job: _Job) -> None:
        """In line; those that are asked again come first."""
        self.waiting.pop(job, None)
        self.jobs.put_nowait((not job.attempt, job.number, job))

    def hurry(self) -> None:
        """Nobody waits to be asked again."""
        for job, timer in list(self.waiting.items()):
            timer.cancel()
            self.put(job)

    def left(self) -> None:
        """One call is over. Nothing more can come when none can succeed."""
        self.num_under_way -= 1
        if self.problem and not self.num_under_way:
            self.over.set()


class EndpointClient:
    """Asks the servers of one Endpoint, from an event loop in a thread of its own.

    A call counts as under way until its answer is stored, so a killed run loses at most `in_flight` answers per server.
    `stopped` says why no more calls are made (the budget is used up, the server is gone); empty while they are.
    """

    def __init__(self, config: Endpoint) -> None:
        self.config = config
        self.speaker = config.speaker
        self.purse = Purse(config.budget)
        self.stopped = ""
        self.is_gone = False
        secret = os.environ.get(config.api_key_env, "")
        self._servers = [
            Server(url, secret=secret, timeout_s=config.timeout_s, in_flight=config.in_flight) for url in config.urls
        ]
        self._lanes = [Lane(config.in_flight) for _ in config.urls]
        self._requests = Meter(config.requests_per_minute)
        self._tokens = Meter(config.tokens_per_minute)
        self._underrated = 1.0  # how many times more input tokens the server counted than were estimated, at most
        self._unanswered = 0
        self._lost_since_s = math.inf  # since when calls are lost, with no answer in between
        self._loop = asyncio.new_event_loop()
        self._thread: threading.Thread | None = None

    def ask(self, requests: Sequence[Request], further: deque[Request] | None = None) -> Iterator[Lot]:
        """Answers as they come. Raises BackendError when no call can succeed (unknown model, refused key).

        It raises last: calls that were under way by then are paid for, and their answers are given first.
        """
        fresh, num_left, going = [*requests, *taken(further or deque())], 0, True
        if not fresh:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._loop.run_forever, name="vlm", daemon=True)
            self._thread.start()
        run = _Round()
        running = asyncio.run_coroutine_threadsafe(self._ask_all(run), self._loop)
        running.add_done_callback(lambda _: run.ready.put(None))
        try:
            while going and (fresh or num_left):
                if fresh:
                    self._loop.call_soon_threadsafe(run.add, fresh)
                num_left += len(fresh)
                come = [] if fresh and further is not None and run.ready.empty() else [run.ready.get()]
                while not run.ready.empty():
                    come.append(run.ready.get())
                lot = [one for one in come if one is not None]
                going = len(lot) == len(come)
                num_left -= len(lot)
                yield [(request, answer) for request, answer, _ in lot]
                if lot:
                    self._loop.call_soon_threadsafe(_release, [stored for _, _, stored in lot])
                fresh = taken(further) if further else []
            self._loop.call_soon_threadsafe(run.over.set)
            running.result()
        finally:
            running.cancel()

    @property
    def cost(self) -> float | None:
        """What was spent; None where no price was named."""
        return None if self.config.prices == FREE else self.purse.spent

    def close(self) -> None:
        """Let the connections go."""
        if self._thread is not None and self._thread.is_alive():
            for server in self._servers:
                asyncio.run_coroutine_threadsafe(server.close(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    async def _ask_all(self, run: _Round) -> None:
        async with asyncio.TaskGroup() as group:
            places = itertools.product(range(self.config.in_flight), range(len(self._lanes)))
            callers = [group.create_task(self._call(run, place, server)) for place, server in places]
            await run.over.wait()
            for caller in callers:
                caller.cancel()
        if run.problem:
            raise run.problem

    async def _call(self, run: _Round, place: int, server: int) -> None:
        """One caller: takes a request, asks one server, waits until the answer is stored, takes the next."""
        while True:
            *_, job = await run.jobs.get()
            if not self.stopped and not self._lanes[server].is_open(place, time.monotonic()):
                run.put(job)
                await asyncio.sleep(_LOOK_AGAIN_S)
                continue
            if run.problem:
                continue
            run.num_under_way += 1
            answer = await self._answer(run, job, server)
            if answer is None:
                run.left()
                continue
            self._unanswered = self._unanswered + 1 if answer.outcome == "error" else 0
            if self._unanswered >= _GIVE_UP_AFTER:
                self._give_up(run, f"{self._unanswered} calls in a row got no answer ({answer.text[:300]})")
            stored = self._loop.create_future()
            run.ready.put((job.request, answer, stored))
            run.left()
            await stored

    async def _answer(self, run: _Round, job: _Job, server: int) -> RawAnswer | None:
        """What one call brings; None where it brings nothing and the request is in line again."""
        config = self.config
        estimated = estimate_input_tokens(job.request)
        input_tokens = math.ceil(estimated * self._underrated)
        tokens = input_tokens + job.request.speaker.decode.max_tokens
        most = config.prices.of(input_tokens, job.request.speaker.decode.max_tokens)
        while not self.stopped and not self.purse.reserve(most):
            if self.purse.awaits_change:
                await asyncio.sleep(_LOOK_AGAIN_S)
            else:
                self.stopped = (
                    f"the budget of {config.budget:g} is used up: {self.purse.spent:.6g} is spent, and the next call "
                    f"may cost {most:.6g}"
                )
                run.hurry()
        if self.stopped:
            return RawAnswer(outcome="skipped", text=f"not asked: {self.stopped}.")
        now_s = time.monotonic()
        pause_s = max(self._requests.reserve(1, now_s), self._tokens.reserve(tokens, now_s))
        try:
            if pause_s:
                await asyncio.sleep(pause_s)
            if run.problem:  # meanwhile another call showed that none can succeed
                self.purse.settle(most, 0.0)
                return None
            reply = await self._servers[server].send(job.request)
        except asyncio.CancelledError:
            self.purse.settle(most, most)
            raise
        except BackendError as problem:
            self.purse.settle(most, 0.0)
            run.problem = run.problem or problem
            return None
        if isinstance(reply, RawAnswer):
            answered = reply.outcome != "error"
            used = reply.input_tokens + reply.output_tokens
            # A server that does not count its tokens is believed to have used what was set aside.
            cost = config.prices.of(reply.input_tokens, reply.output_tokens) if used else most
            self.purse.settle(most, cost if answered else 0.0)
            self._tokens.give_back(tokens - used if used or not answered else 0)
            self._lost_since_s = math.inf
            self._underrated = max(self._underrated, reply.input_tokens / estimated)
            self._lanes[server].answered()
            return reply
        self.purse.settle(most, most if reply.may_be_paid else 0.0)
        if not reply.may_be_paid:
            self._tokens.give_back(tokens)
        spread_s = min(config.longest_wait_s, _FIRST_WAIT_S * 2**job.attempt)
        if reply.is_there:  # where others are answered, few that come back are no crowd: the more wait, the longer
            spread_s *= min(1.0, (1 + len(run.waiting)) / config.in_flight)
        wait_s = reply.retry_after_s + random.uniform(0.0, spread_s)
        self._lanes[server].refused(time.monotonic(), min(wait_s, config.longest_wait_s))
        self._lost_since_s = math.inf if reply.says_when else min(self._lost_since_s, time.monotonic())
        if time.monotonic() - self._lost_since_s > config.patience_s:
            self._give_up(run, f"no call was answered for {config.patience_s:g} s ({reply.reason})")
        attempts = job.attempt + 1
        is_last = attempts >= config.max_attempts or reply.retry_after_s > config.longest_wait_s
        if is_last or run.problem or self.is_gone:
            return RawAnswer(outcome="error", text=f"no answer after {attempts} tries. {reply.reason}")
        again = replace(job, attempt=attempts)
        run.waiting[again] = self._loop.call_later(wait_s, run.put, again)
        return None

    def _give_up(self, run: _Round, why: str) -> None:
        """Nobody is there: what has not been asked is not asked."""
        if not self.stopped:
            self.is_gone, self.stopped = True, why
            run.hurry()


def _release(stored: Sequence[asyncio.Future[None]]) -> None:
    for one in stored:
        if not one.done():
            one.set_result(None)
