"""One OpenAI-compatible server, over connections that are kept: a request goes out, what came back is sorted.

aiohttp, because its parser is C: with all that is hashed, read and stored, a call takes 1.2 ms of a core here where it
took 2.8 through the openai client (docs/design/0005).
"""

import asyncio
import json
import math
import ssl
import time
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from annotators.calls import RawAnswer
from annotators.vlm.completions import read_response, request_body
from annotators.vlm.protocol import Request
from schemas.errors import BackendError

if TYPE_CHECKING:
    from aiohttp import BasicAuth, ClientSession
    from yarl import URL

_PASSING = frozenset({408, 409, 429})
_HOPELESS = frozenset({401, 403, 404})  # no call of this run can succeed
_SHORTEST_SECRET = 8  # shorter words are placeholders, and hiding them would garble answers
_LONGEST_REASON = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class NoAnswer:
    """A call that brought nothing, and may bring something another time."""

    reason: str
    retry_after_s: float = 0.0
    is_there: bool = False  # it took the call, whatever became of it
    says_when: bool = False  # it has too much to do
    may_be_paid: bool = False  # the server may have worked on it; money counts as spent then


class Server:
    """Asks one base URL. For one event loop; the key is sent, and hidden wherever the server repeats it."""

    def __init__(self, url: str, *, secret: str, timeout_s: float, in_flight: int) -> None:
        self._url = url.rstrip("/")
        self._secret = secret
        self._timeout_s = timeout_s
        self._in_flight = in_flight
        self._session: ClientSession | None = None
        self._endpoint = f"{self._url}/chat/completions"
        self._proxy: URL | None = None
        self._proxy_auth: BasicAuth | None = None

    def _open(self) -> "ClientSession":
        """The session, opened in the event loop that asks."""
        from aiohttp import ClientSession, ClientTimeout, TCPConnector

        if self._session is None:
            self._proxy, self._proxy_auth = _proxy_of(self._url)
            self._session = ClientSession(
                connector=TCPConnector(limit=self._in_flight, ssl=ssl.create_default_context()),
                timeout=ClientTimeout(total=None, sock_connect=self._timeout_s),  # the whole call has its own
                headers={
                    "Authorization": f"Bearer {self._secret or 'none'}",  # local servers want some word
                    "Content-Type": "application/json",
                },
            )
        return self._session

    async def send(self, request: Request) -> RawAnswer | NoAnswer:
        """Ask once. Raises BackendError for what no call of this run can get past."""
        from aiohttp import ClientConnectorError, ClientError, ServerTimeoutError

        session = self._open()
        body = json.dumps(request_body(request), separators=(",", ":")).encode()
        try:
            async with asyncio.timeout(self._timeout_s):
                async with session.post(
                    self._endpoint, data=body, proxy=self._proxy, proxy_auth=self._proxy_auth
                ) as reply:
                    text = await reply.text(errors="replace")
                    status, later = reply.status, reply.headers.get("retry-after")
        except (TimeoutError, ServerTimeoutError):
            return NoAnswer(reason=f"{self._url}: no answer in {self._timeout_s:g} s", may_be_paid=True)
        except (ClientError, OSError) as error:
            reason = self._hidden(f"{self._url}: {type(error).__name__} {error}")
            was_taken = not isinstance(error, ClientConnectorError)
            return NoAnswer(reason=reason, is_there=was_taken, may_be_paid=was_taken)
        if status < 400:
            return self._without_secret(read_response(text))
        reason = f"HTTP {status}: {self._hidden(_message(text))[:_LONGEST_REASON]}"
        if status in _HOPELESS:
            raise BackendError(f"{self._url} refuses model '{request.speaker.model}' ({reason}). Check URL and key.")
        if status not in _PASSING and status < 500:
            return self._without_secret(RawAnswer(outcome="error", text=reason, raw_json=text))
        retry_after_s = _seconds(later)
        says_when = status == 429 or retry_after_s > 0
        return NoAnswer(reason=reason, retry_after_s=retry_after_s, is_there=True, says_when=says_when)

    async def close(self) -> None:
        """Let the connections go."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _without_secret(self, answer: RawAnswer) -> RawAnswer:
        """Some servers repeat the key in what they say; it is stored nowhere."""
        if len(self._secret) < _SHORTEST_SECRET:
            return answer
        return replace(answer, text=self._hidden(answer.text), raw_json=self._hidden(answer.raw_json))

    def _hidden(self, text: str) -> str:
        return text.replace(self._secret, "***") if len(self._secret) >= _SHORTEST_SECRET else text


def _proxy_of(url: str) -> "tuple[URL | None, BasicAuth | None]":
    """The proxy that the environment names for a URL, if any, and who we are there. Raises BackendError for one of a
    kind that is not spoken here.

    Looked up once: aiohttp's own trust_env does it for each call, in another thread.
    """
    from aiohttp import BasicAuth
    from yarl import URL

    parts = urlsplit(url)
    named = getproxies()
    proxy = named.get(parts.scheme) or named.get("all")
    if not proxy or not parts.hostname or proxy_bypass(parts.hostname):
        return None, None
    where = URL(proxy if "://" in proxy else f"http://{proxy}")
    if where.scheme not in ("http", "https"):
        raise BackendError(
            f"the environment names a {where.scheme} proxy for {url}; only http and https proxies are used. Set "
            f"NO_PROXY={parts.hostname}, or name another proxy."
        )
    auth = BasicAuth(where.user, where.password or "") if where.user else None
    return where.with_user(None), auth


def _message(text: str) -> str:
    """What an error body says, in the form most servers use, else as it is."""
    try:
        said = json.loads(text)
    except ValueError:
        return " ".join(text.split())
    inner = said.get("error", said) if isinstance(said, dict) else said
    told = inner.get("message", inner) if isinstance(inner, dict) else inner
    return told if isinstance(told, str) else json.dumps(told)


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
