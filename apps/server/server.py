"""The socket: who may connect, how much they may send, and how the server comes and goes."""

import asyncio
import hmac
import http
import ipaddress
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websocket
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from apps.server.codec import MAX_MESSAGE_BYTES, encode
from apps.server.gate import ActionGate
from apps.server.session import PolicyDesk, ServerCounts, Session
from schemas.control import Policy
from schemas.errors import UsageError
from schemas.wire import ServerMetadata

log = logging.getLogger(__name__)
DEFAULT_PORT = 8000
_MAX_CONNECTIONS = 16
_START_TIMEOUT_S = 30.0


class PolicyServer:
    """Serves one policy over openpi's websocket protocol, and `/healthz` over HTTP on the same port.

    Loopback by default. Another host needs a `token` of at least 16 characters, which clients send as
    `Authorization: Api-Key TOKEN` (openpi's way) or `Bearer TOKEN`. Requests with an `Origin` are refused, so a web
    page in somebody's browser cannot drive the robot.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        gate: ActionGate,
        metadata: ServerMetadata,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        token: str | None = None,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
    ) -> None:
        check_exposure(host, token)
        if gate.action_dim != metadata.action_dim:
            raise UsageError(f"the gate checks {gate.action_dim} dimensions, the policy answers {metadata.action_dim}.")
        gate.check_state(metadata.state_dim)
        self.counts = ServerCounts()
        self._policy = policy
        self._gate = gate
        self._metadata = metadata
        self._host = host
        self._port = port
        self._token = token
        self._max_bytes = max_message_bytes
        self._open = 0

    async def run(self, *, stop: asyncio.Event, on_ready: Callable[[int], None]) -> None:
        """Serve until `stop`; `on_ready` gets the port. Raises UsageError when the port is taken."""
        self._desk = PolicyDesk(self._policy)
        try:
            server = await serve_websocket(
                self._converse,
                self._host,
                self._port,
                process_request=self._admit,
                origins=[None],
                compression=None,  # camera frames do not shrink, and an inflated bomb would pass the size cap
                max_size=self._max_bytes,
                max_queue=2,
                server_header=None,
            )
        except OSError as error:
            self._desk.close()
            raise UsageError(
                f"cannot listen on {self._host}:{self._port} ({error.strerror}). Choose another --port."
            ) from None
        async with server:
            on_ready(next(iter(server.sockets)).getsockname()[1])
            await stop.wait()
        self._desk.close()

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.path == "/healthz":
            return connection.respond(http.HTTPStatus.OK, "OK\n")
        if self._token is not None and not token_matches(self._token, request.headers.get("Authorization", "")):
            return connection.respond(
                http.HTTPStatus.UNAUTHORIZED, "Send the token as 'Authorization: Api-Key TOKEN'.\n"
            )
        if self._open >= _MAX_CONNECTIONS:
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "Too many robots are connected.\n")
        return None

    async def _converse(self, connection: ServerConnection) -> None:
        self._open += 1
        self.counts.connections += 1
        session = Session(
            self._desk, gate=self._gate, metadata=self._metadata, counts=self.counts, max_bytes=self._max_bytes
        )
        try:
            await connection.send(encode(self._metadata.model_dump()))
            async for frame in connection:
                await connection.send(await session.answer(frame))
        except ConnectionClosed as closed:
            log.info("robot left: %s", closed)
        finally:
            self._open -= 1


def serve(
    policy: Policy,
    *,
    gate: ActionGate,
    metadata: ServerMetadata,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    token: str | None = None,
    max_message_bytes: int = MAX_MESSAGE_BYTES,
    on_ready: Callable[[int], None] = lambda port: None,
) -> ServerCounts:
    """Serve until SIGINT or SIGTERM, let the inference under way finish, and say what was done."""
    server = PolicyServer(
        policy, gate=gate, metadata=metadata, host=host, port=port, token=token, max_message_bytes=max_message_bytes
    )

    async def until_signalled() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await server.run(stop=stop, on_ready=on_ready)

    asyncio.run(until_signalled())
    return server.counts


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningServer:
    """A server in a thread of this process."""

    port: int
    counts: ServerCounts

    @property
    def url(self) -> str:
        """Where a client connects."""
        return f"ws://127.0.0.1:{self.port}"


@contextmanager
def running_server(
    policy: Policy,
    *,
    gate: ActionGate,
    metadata: ServerMetadata,
    token: str | None = None,
    max_message_bytes: int = MAX_MESSAGE_BYTES,
) -> Iterator[RunningServer]:
    """The same server on a free loopback port, in a thread, for as long as the block lasts."""
    server = PolicyServer(
        policy, gate=gate, metadata=metadata, port=0, token=token, max_message_bytes=max_message_bytes
    )
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    ready = threading.Event()
    ports: list[int] = []

    def note(port: int) -> None:
        ports.append(port)
        ready.set()

    def work() -> None:
        try:
            loop.run_until_complete(server.run(stop=stop, on_ready=note))
        finally:
            loop.close()
            ready.set()

    thread = threading.Thread(target=work, name="policy-server", daemon=True)
    thread.start()
    if not ready.wait(_START_TIMEOUT_S) or not ports:
        raise UsageError("the policy server did not start on loopback. See the log.")
    try:
        yield RunningServer(port=ports[0], counts=server.counts)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


def check_exposure(host: str, token: str | None, *, harm: str = "move the robot") -> None:
    """Raises UsageError for a host that others can reach without a token, and for a token that can be guessed."""
    if token is not None and len(token) < 16:
        raise UsageError(f"the token has {len(token)} characters. Give at least 16, e.g. from `openssl rand -hex 16`.")
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback and token is None:
        raise UsageError(
            f"host '{host}' can be reached from other machines and would let anyone {harm}. "
            "Give a --token, or stay on 127.0.0.1."
        )


def token_matches(token: str, header: str) -> bool:
    """Whether an Authorization header carries the token, compared in constant time."""
    scheme, _, given = header.partition(" ")
    known = scheme.lower() in ("api-key", "bearer")
    return hmac.compare_digest(token.encode(), given.strip().encode("utf-8", "surrogateescape")) and known
