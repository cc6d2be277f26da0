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
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from annotators.calls import RawAnswer
from annotators.vlm.completions import read_response, request_body
from annotators.vlm.costs import FREE, Prices, Purse, estimate_input_tokens
from annotators.vlm.limits import Lane, Meter
from annotators.vlm.protocol import Decode, Request, Speaker
from schemas.errors import BackendError

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_PASSING = frozenset({408, 409, 429})
_HOPELESS = frozenset({401, 403, 404})  # no call of this run can succeed
_GIVE_UP_AFTER = 8  # calls in a row without any answer: the server is gone, stop paying in time
_FIRST_WAIT_S = 0.5  # at most; each further one at most twice as long
_LOOK_AGAIN_S = 0.1  # callers that a lane or the purse holds back
_SHORTEST_SECRET = 8  # shorter words are placeholders, and hiding them would garble answers


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
    """The requests of one `ask`, and what became of them."""

    ready: queue.SimpleQueue[_Ready | None]
    finished: asyncio.Future[None]
    num_left: int
    jobs: asyncio.PriorityQueue[tuple[bool, int, _Job]] = field(default_factory=asyncio.PriorityQueue)
    waiting: dict[_Job, asyncio.TimerHandle] = field(default_factory=dict)
    num_under_way: int = 0
    problem: BackendError | None = None

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
        """One call is over. Nothing more can come when all are answered, or when none can succeed."""
        self.num_under_way -= 1
        if (not self.num_left or (self.problem and not self.num_under_way)) and not self.finished.done():
            self.finished.set_result(None)


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
        self._secret = os.environ.get(config.api_key_env, "")
        self._tls = ssl.create_default_context()
        self._clients: dict[tuple[int, int], AsyncOpenAI] = {}
        self._lanes = [Lane(config.in_flight) for _ in config.urls]
        self._requests = Meter(config.requests_per_minute)
        self._tokens = Meter(config.tokens_per_minute)
        self._underrated = 1.0  # how many times more input tokens the server counted than were estimated, at most
        self._unanswered = 0
        self._lost_since_s = math.inf  # since when calls are lost, with no answer in between
        self._loop = asyncio.new_event_loop()
        self._thread: threading.Thread | None = None

    def ask(self, requests: Sequence[Request]) -> Iterator[Sequence[tuple[Request, RawAnswer]]]:
        """Answers as they come. Raises BackendError when no call can succeed (unknown model, refused key).

        It raises last: calls that were under way by then are paid for, and their answers are given first.
        """
        if not requests:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._loop.run_forever, name="vlm", daemon=True)
            self._thread.start()
        ready: queue.SimpleQueue[_Ready | None] = queue.SimpleQueue()
        running = asyncio.run_coroutine_threadsafe(self._ask_all(requests, ready), self._loop)
        running.add_done_callback(lambda _: ready.put(None))
        try:
            going = True
            while going:
                taken = [ready.get()]
                while not ready.empty():
                    taken.append(ready.get())
                lot = [one for one in taken if one is not None]
                going = len(lot) == len(taken)
                if lot:
                    yield [(request, answer) for request, answer, _ in lot]
                    self._loop.call_soon_threadsafe(_release, [stored for _, _, stored in lot])
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
            for client in self._clients.values():
                asyncio.run_coroutine_threadsafe(client.close(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    async def _ask_all(self, requests: Sequence[Request], ready: "queue.SimpleQueue[_Ready | None]") -> None:
        run = _Round(ready=ready, finished=self._loop.create_future(), num_left=len(requests))
        for number, request in enumerate(requests):
            run.put(_Job(number=number, request=request))
        async with asyncio.TaskGroup() as group:
            places = itertools.product(range(min(self.config.in_flight, len(requests))), range(len(self._lanes)))
            callers = [group.create_task(self._call(run, place, server)) for place, server in places]
            await run.finished
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
            answer = await self._answer(run, job, place, server)
            if answer is None:
                run.left()
                continue
            self._unanswered = self._unanswered + 1 if answer.outcome == "error" else 0
            if self._unanswered >= _GIVE_UP_AFTER:
                self._give_up(run, f"{self._unanswered} calls in a row got no answer ({answer.text[:300]})")
            run.num_left -= 1
            stored = self._loop.create_future()
            run.ready.put((job.request, self._without_secret(answer), stored))
            run.left()
            await stored

    async def _answer(self, run: _Round, job: _Job, place: int, server: int) -> RawAnswer | None:
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
            await asyncio.sleep(pause_s)
            if run.problem:  # meanwhile another call showed that none can succeed
                self.purse.settle(most, 0.0)
                return None
            reply = await self._send(job.request, self._client(place, server))
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
        wait_s = reply.retry_after_s + random.uniform(0.0, min(config.longest_wait_s, _FIRST_WAIT_S * 2**job.attempt))
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

    def _client(self, place: int, server: int) -> "AsyncOpenAI":
        """Each caller has a connection of its own: a shared pool looks at all of its connections for every call."""
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient

        if (place, server) not in self._clients:
            self._clients[place, server] = AsyncOpenAI(
                base_url=self.config.urls[server],
                api_key=self._secret or "none",  # local servers want some word
                max_retries=0,  # lanes and limits must see every refusal
                timeout=self.config.timeout_s,
                http_client=DefaultAsyncHttpxClient(verify=self._tls),
            )
        return self._clients[place, server]

    async def _send(self, request: Request, server: "AsyncOpenAI") -> "RawAnswer | _NoAnswer":
        """Ask once. Raises BackendError for what no call of this run can get past."""
        from openai import APIConnectionError, APIStatusError

        try:
            async with asyncio.timeout(self.config.timeout_s):
                return read_response(await server.post("/chat/completions", cast_to=str, body=request_body(request)))
        except APIStatusError as error:
            status, text = error.status_code, error.response.text
            reason = f"HTTP {status}: {self._hidden(error.message)[:300]}"
            if status in _HOPELESS:
                raise BackendError(
                    f"{server.base_url} refuses model '{request.speaker.model}' ({reason}). Check URL and key."
                ) from None
            if status not in _PASSING and status < 500:
                return RawAnswer(outcome="error", text=reason, raw_json=text)
            retry_after_s = _seconds(error.response.headers.get("retry-after"))
            return _NoAnswer(reason=reason, retry_after_s=retry_after_s, says_when=status == 429 or retry_after_s > 0)
        except TimeoutError:
            return _NoAnswer(reason=f"{server.base_url}: no answer in {self.config.timeout_s:g} s", may_be_paid=True)
        except APIConnectionError as error:  # a timeout of the library's is one of them
            reason = self._hidden(f"{server.base_url}: {error.__cause__ or error}")
            never_there = type(error.__cause__).__name__ in ("ConnectError", "ConnectTimeout")
            return _NoAnswer(reason=reason, may_be_paid=not never_there)

    def _without_secret(self, answer: RawAnswer) -> RawAnswer:
        """Some servers repeat the key in what they say; it is stored nowhere."""
        return replace(answer, text=self._hidden(answer.text), raw_json=self._hidden(answer.raw_json))

    def _hidden(self, text: str) -> str:
        return text.replace(self._secret, "***") if len(self._secret) >= _SHORTEST_SECRET else text


@dataclass(frozen=True, slots=True, kw_only=True)
class _NoAnswer:
    """A call that brought nothing, and may bring something another time."""

    reason: str
    retry_after_s: float = 0.0
    says_when: bool = False  # somebody is there, who has too much to do
    may_be_paid: bool = False  # the server may have worked on it; money counts as spent then


def _release(stored: Sequence[asyncio.Future[None]]) -> None:
    for one in stored:
        if not one.done():
            one.set_result(None)


def _seconds(header: str | None) -> float:
    """What Retry-After says, in seconds or as a date; 0 where it says nothing."""
    try:
        seconds = float(header or 0)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header or "").timestamp() - time.time()
        except (ValueError, TypeError):
            return 0.0
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0
