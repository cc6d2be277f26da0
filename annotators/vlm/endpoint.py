"""Any OpenAI-compatible server: vLLM, SGLang, Ollama, a hosted one. Answers are held to a JSON schema where it can.

Only what may pass is tried again: timeouts, lost connections, 408, 409, 429 and 5xx, with full jitter, honouring
Retry-After. An answer that is cut off, blocked or empty is an answer, and is not asked for again here.
"""

import itertools
import os
import random
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from annotators.calls import CallOutcome, RawAnswer
from annotators.vlm.protocol import Decode, ImagePart, Request, RequestPart, Speaker, TextPart
from schemas.errors import BackendError

if TYPE_CHECKING:
    from openai import OpenAI

_PASSING = frozenset({408, 409, 429})
_HOPELESS = frozenset({401, 403, 404})  # no call of this run can succeed
_GIVE_UP_AFTER = 8  # calls in a row without any answer: the server is gone, stop paying in time


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where to ask and how. The API key is read from the environment when needed and stored nowhere."""

    urls: tuple[str, ...]  # base URLs ending in /v1; several are asked in turn
    model: str
    revision: str = ""
    decode: Decode = field(default_factory=Decode)
    in_flight: int = 8
    timeout_s: float = 120.0
    max_attempts: int = 5
    longest_wait_s: float = 30.0
    api_key_env: str = "OPENAI_API_KEY"

    def __post_init__(self) -> None:
        if not self.urls or not all(url.startswith(("http://", "https://")) for url in self.urls):
            raise BackendError(
                f"an endpoint needs http(s) base URLs, got {list(self.urls)}. Use e.g. http://HOST:8000/v1."
            )
        if not self.model or self.in_flight < 1 or self.max_attempts < 1:
            raise BackendError("an endpoint needs a model name, in_flight >= 1 and max_attempts >= 1.")

    @property
    def speaker(self) -> Speaker:
        """Who answers here."""
        return Speaker(model=self.model, revision=self.revision, decode=self.decode)


class EndpointClient:
    """Asks the servers of one Endpoint, `in_flight` requests at a time."""

    def __init__(self, config: Endpoint) -> None:
        from openai import OpenAI

        self.config = config
        self.speaker = config.speaker
        key = os.environ.get(config.api_key_env) or "none"  # local servers want some word
        self._servers = [
            OpenAI(base_url=url, api_key=key, max_retries=0, timeout=config.timeout_s) for url in config.urls
        ]
        self._turn = itertools.count()
        self._lock = threading.Lock()
        self._unanswered = 0
        self._hopeless = threading.Event()

    def ask(self, requests: Sequence[Request]) -> Iterator[tuple[Request, RawAnswer]]:
        """Answers as they come. Raises BackendError when no call can succeed (unknown model, refused key).

        It raises last: calls that were under way by then are paid for, and their answers are given first.
        """
        pool = ThreadPoolExecutor(max_workers=self.config.in_flight, thread_name_prefix="vlm")
        try:
            waiting = {pool.submit(self._answer, request): request for request in requests}
            problem: BaseException | None = None
            for done in as_completed(waiting):
                if done.cancelled():
                    continue
                error = done.exception()
                if error is None:
                    yield waiting[done], done.result()
                    continue
                problem = problem or error
                self._hopeless.set()
                for other in waiting:
                    other.cancel()
            if problem is not None:
                raise problem
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _answer(self, request: Request) -> RawAnswer:
        if self._unanswered >= _GIVE_UP_AFTER:
            return RawAnswer(outcome="skipped", text=f"not asked: {self._unanswered} calls in a row got no answer.")
        answer = self._try(request)
        with self._lock:
            self._unanswered = self._unanswered + 1 if answer.outcome == "error" else 0
        return answer

    def _try(self, request: Request) -> RawAnswer:
        from openai import APIConnectionError, APIStatusError

        problem = "never asked"
        for attempt in range(self.config.max_attempts):
            retry_after_s: float | None = None
            server = self._servers[next(self._turn) % len(self._servers)]
            try:
                return read_response(_send(server, request))
            except APIStatusError as error:
                problem = f"HTTP {error.status_code}: {error.message[:300]}"
                if error.status_code in _HOPELESS:
                    raise BackendError(
                        f"{server.base_url} refuses model '{request.speaker.model}' ({problem}). Check URL and key."
                    ) from None
                if error.status_code not in _PASSING and error.status_code < 500:
                    return RawAnswer(outcome="error", text=problem, raw_json=error.response.text)
                retry_after_s = _seconds(error.response.headers.get("retry-after"))
            except APIConnectionError as error:  # a timeout is one of them
                problem = f"{server.base_url}: {error.__cause__ or error}"
            if self._hopeless.is_set():  # another call showed that none can succeed
                break
            if attempt + 1 < self.config.max_attempts:
                time.sleep(self._wait_s(attempt, retry_after_s))
        return RawAnswer(outcome="error", text=f"no answer after {attempt + 1} tries. {problem}")

    def _wait_s(self, attempt: int, retry_after_s: float | None) -> float:
        if retry_after_s is not None:
            return min(retry_after_s, self.config.longest_wait_s)
        return random.uniform(0.0, min(self.config.longest_wait_s, 0.5 * 2**attempt))


def _send(server: "OpenAI", request: Request) -> str:
    """The response body, as received."""
    body: dict[str, Any] = {
        "model": request.speaker.model,
        "messages": [{"role": turn.role, "content": [_part(part) for part in turn.parts]} for turn in request.turns],
        "temperature": request.speaker.decode.temperature,
        "max_tokens": request.speaker.decode.max_tokens,
        "seed": request.speaker.decode.seed + request.rollout,  # asked again on purpose: another draw
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": request.schema_name, "schema": request.schema, "strict": True},
        },
    }
    return server.chat.completions.with_raw_response.create(**body).text


def _part(part: RequestPart) -> dict[str, Any]:
    match part:
        case TextPart(text):
            return {"type": "text", "text": text}
        case ImagePart():
            return {"type": "image_url", "image_url": {"url": part.url}}


def _seconds(header: str | None) -> float | None:
    try:
        return max(0.0, float(header)) if header is not None else None
    except ValueError:  # an HTTP date: our own wait will do
        return None


class _Message(BaseModel):
    """What the assistant said; servers add what they like."""

    content: str | None = None
    refusal: JsonValue = None
    reasoning_content: JsonValue = None
    reasoning: JsonValue = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = Field(default=None, max_length=64)


class _Usage(BaseModel):
    prompt_tokens: int | None = Field(default=None, ge=0, lt=2**31)
    completion_tokens: int | None = Field(default=None, ge=0, lt=2**31)


class _Completion(BaseModel):
    """The parts of a chat completion that are read; anything else in it is left alone."""

    model_config = ConfigDict(frozen=True)
    choices: tuple[_Choice, ...] = Field(min_length=1)
    usage: _Usage | None = None


def read_response(body: str) -> RawAnswer:
    """Sort a chat-completions response body into an outcome; the body itself is kept whole."""
    try:
        response = _Completion.model_validate_json(body)
    except ValidationError:
        return RawAnswer(outcome="invalid", text="", raw_json=body)
    choice, usage = response.choices[0], response.usage or _Usage()
    message = choice.message
    # Some servers put an answer that is held to a schema where they put reasoning, and leave the content empty.
    words = message.content or message.reasoning_content or message.reasoning or ""
    outcome: CallOutcome = "success"
    if choice.finish_reason == "length":
        outcome = "truncated"
    elif choice.finish_reason == "content_filter" or message.refusal:
        outcome = "blocked"
    elif not isinstance(words, str) or not words.strip():
        outcome = "invalid"
    return RawAnswer(
        outcome=outcome,
        text=words if isinstance(words, str) else "",
        raw_json=body,
        finish_reason=choice.finish_reason,
        input_tokens=usage.prompt_tokens or 0,
        output_tokens=usage.completion_tokens or 0,
    )
