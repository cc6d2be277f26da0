"""Any OpenAI-compatible server: vLLM, SGLang, Ollama, a hosted one. Answers are held to a JSON schema where it can.

Only what may pass is tried again: timeouts, lost connections, 408, 409, 429 and 5xx, with full jitter, honouring
Retry-After. An answer that is cut off, blocked or empty is an answer, and is not asked for again here.
"""

import itertools
import json
import os
import random
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

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

    def ask(self, requests: Sequence[Request]) -> Iterator[tuple[Request, RawAnswer]]:
        """Answers as they come. Raises BackendError when no call can succeed (unknown model, refused key)."""
        pool = ThreadPoolExecutor(max_workers=self.config.in_flight, thread_name_prefix="vlm")
        try:
            waiting = {pool.submit(self._answer, request): request for request in requests}
            for done in as_completed(waiting):
                yield waiting[done], done.result()
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
            if attempt + 1 < self.config.max_attempts:
                time.sleep(self._wait_s(attempt, retry_after_s))
        return RawAnswer(outcome="error", text=f"no answer after {self.config.max_attempts} tries. {problem}")

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
        "seed": request.speaker.decode.seed,
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


def read_response(body: str) -> RawAnswer:
    """Sort a chat-completions response body into an outcome; the body itself is kept whole."""
    try:
        response = json.loads(body)
        choice = response["choices"][0]
        message = choice["message"]
    except (ValueError, KeyError, IndexError, TypeError):
        return RawAnswer(outcome="invalid", text="", raw_json=body)
    finish = choice.get("finish_reason")
    # Some servers put an answer that is held to a schema where they put reasoning, and leave the content empty.
    words = message.get("content") or message.get("reasoning_content") or message.get("reasoning") or ""
    usage = response.get("usage") or {}
    outcome: CallOutcome = "success"
    if finish == "length":
        outcome = "truncated"
    elif finish == "content_filter" or message.get("refusal"):
        outcome = "blocked"
    elif not isinstance(words, str) or not words.strip():
        outcome = "invalid"
    return RawAnswer(
        outcome=outcome,
        text=words if isinstance(words, str) else "",
        raw_json=body,
        finish_reason=finish,
        input_tokens=int(usage.get("prompt_tokens") or 0),
        output_tokens=int(usage.get("completion_tokens") or 0),
    )
