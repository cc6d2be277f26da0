"""The robot's end of the conversation: sends what it sees, gets a chunk or a reason why not."""

from types import TracebackType
from typing import Self

from pydantic import ValidationError
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.sync.client import ClientConnection, connect

from apps.server.codec import MAX_MESSAGE_BYTES, decode, encode
from schemas.control import Observation
from schemas.errors import WireError
from schemas.wire import (
    ChunkReply,
    ErrorCode,
    ErrorReply,
    InferRequest,
    Request,
    ResetRequest,
    ServerMetadata,
    reply_from_wire,
    request_to_wire,
)


class RefusedError(WireError):
    """The server answered with an error; `code` says which, the connection is still good."""

    def __init__(self, reply: ErrorReply) -> None:
        super().__init__(f"{reply.code}: {reply.message}")
        self.code: ErrorCode = reply.code
        self.reason = reply.message
        self.reasoning = reply.reasoning
        self.infer_ms = reply.infer_ms


class RobotClient:
    """A connection to a policy server; use it in a `with`. Not for two threads at once.

    `timeout_s` bounds connecting and every answer. After a timeout the connection is closed: a late answer would
    otherwise be taken for the next one.
    """

    def __init__(self, url: str, *, token: str | None = None, timeout_s: float = 60.0) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._socket = self._connect(token)
        self.metadata = ServerMetadata.from_wire(self._receive())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def infer(self, observation: Observation) -> ChunkReply:
        """The next chunk. Raises RefusedError when the server refuses, WireError when the connection fails."""
        return reply_from_wire(self._ask(InferRequest(observation=observation)), self.metadata)

    def reset(self) -> None:
        """Tell the server that a new trial starts."""
        self._ask(ResetRequest())

    def close(self) -> None:
        """Say goodbye."""
        self._socket.close()

    def _connect(self, token: str | None) -> ClientConnection:
        headers = {"Authorization": f"Api-Key {token}"} if token is not None else None
        try:
            return connect(
                self._url,
                compression=None,
                max_size=MAX_MESSAGE_BYTES,
                additional_headers=headers,
                open_timeout=self._timeout_s,
                proxy=None,  # the robot's network is not the web; a proxy variable must not reroute it
            )
        except InvalidStatus as error:
            status = error.response.status_code
            hint = "Give the server's token." if status == 401 else "Is this a policy server?"
            raise WireError(f"{self._url} refused the connection with HTTP {status}. {hint}") from None
        except InvalidURI:
            raise WireError(f"'{self._url}' is no address. Write it as ws://HOST:PORT.") from None
        except (OSError, InvalidHandshake, TimeoutError) as error:
            raise WireError(
                f"no policy server answers at {self._url} ({error}). Start one with `dataengine serve`."
            ) from None

    def _ask(self, request: Request) -> object:
        try:
            self._socket.send(encode(request_to_wire(request)))
        except ConnectionClosed as closed:
            raise self._lost(closed) from None
        return self._receive()

    def _receive(self) -> object:
        try:
            frame = self._socket.recv(timeout=self._timeout_s)
        except TimeoutError:
            self._socket.close()
            raise WireError(f"{self._url} gave no answer within {self._timeout_s:g} s. Hold the robot.") from None
        except ConnectionClosed as closed:
            raise self._lost(closed) from None
        if isinstance(frame, bytes):
            return decode(frame)
        try:
            refusal = ErrorReply.model_validate_json(frame)
        except ValidationError:
            raise WireError(f"{self._url} sent text that is no error of ours: {frame[:120]!r}.") from None
        raise RefusedError(refusal)

    def _lost(self, closed: ConnectionClosed) -> WireError:
        return WireError(f"the connection to {self._url} ended ({closed}). Hold the robot and connect again.")
