"""`dataengine serve-vlm`: a model directory behind an OpenAI-compatible HTTP endpoint.

One thread owns the model. Questions that wait while it speaks are answered together as its next batch.
"""

import asyncio
import logging
import queue
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from annotators.vlm.chat_model import Answer, ChatModel, Device, NoAnswer, Prompt, check_folder, fingerprint
from apps.server.chat_wire import WrongRequest, completion, error_body, read_request
from apps.server.server import check_exposure, token_matches
from schemas.errors import UsageError

log = logging.getLogger(__name__)
DEFAULT_PORT = 8001  # beside the policy server's 8000
MAX_BODY_BYTES = 32 * 1024 * 1024  # a dozen camera frames as PNG
_MOST_WAITING = 64  # questions; more are told to come back
_MOST_CONNECTIONS = 256
_LAST_WORDS_S = 20  # for answers under way, once the server is told to stop


@dataclass(slots=True)
class VlmCounts:
    """What was done, for the line at the end."""

    answered: int = 0
    refused: int = 0
    failed: int = 0
    batches: int = 0


class Desk:
    """The thread that owns the model, and the questions that wait for it."""

    def __init__(self, model: ChatModel, *, batch_size: int, counts: VlmCounts) -> None:
        self._model = model
        self._batch_size = batch_size
        self._counts = counts
        self._waiting: queue.Queue[tuple[Prompt, Future[Answer | NoAnswer]] | None] = queue.Queue(_MOST_WAITING)
        self._thread = threading.Thread(target=self._work, name="vlm", daemon=True)
        self._thread.start()

    def ask(self, prompt: Prompt) -> "Future[Answer | NoAnswer]":
        """Put a question in line. Raises queue.Full when the line is too long."""
        future: Future[Answer | NoAnswer] = Future()
        self._waiting.put_nowait((prompt, future))
        return future

    def close(self) -> None:
        """Answer what waits, then stop."""
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        going = True
        while going:
            taken = [self._waiting.get()]
            while len(taken) < self._batch_size and not self._waiting.empty():
                taken.append(self._waiting.get())
            batch = [one for one in taken if one is not None and one[1].set_running_or_notify_cancel()]
            going = None not in taken
            if not batch:
                continue
            self._counts.batches += 1
            for (_, future), answer in zip(batch, self._answers([prompt for prompt, _ in batch]), strict=True):
                future.set_result(answer)

    def _answers(self, prompts: list[Prompt]) -> list[Answer | NoAnswer]:
        try:
            return self._model.answer(prompts)
        except BaseException as error:  # a panic inside a library is no Exception; nobody may wait for ever
            log.exception("the model failed")
            return [NoAnswer(reason=f"the model failed ({type(error).__name__})", asked_wrongly=False)] * len(prompts)


class VlmServer:
    """Serves one model: POST /v1/chat/completions and GET /v1/models.

    Loopback by default. Another host needs a `token` of at least 16 characters, sent as `Authorization: Bearer TOKEN`.
    Requests with an `Origin` are refused, so that no web page in somebody's browser uses the model.
    """

    def __init__(
        self,
        model: ChatModel,
        *,
        revision: str,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        token: str | None = None,
        batch_size: int = 8,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        _check_exposure(host, token)
        self.counts = VlmCounts()
        self._model = model
        self._revision = revision
        self._token = token
        self._batch_size = batch_size
        self._max_bytes = max_body_bytes
        try:
            self._socket = socket.create_server((host, port))
        except (OSError, OverflowError) as error:
            told = error.strerror if isinstance(error, OSError) else "ports go up to 65535"
            raise UsageError(f"cannot listen on {host}:{port} ({told}). Choose another --port.") from None
        self.port: int = self._socket.getsockname()[1]
        app = Starlette(
            routes=[
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
                Route("/v1/models", self._models, methods=["GET"]),
            ],
            exception_handlers={WrongRequest: self._wrong, HTTPException: self._no_such, Exception: self._broken},
        )
        config = uvicorn.Config(
            app,
            log_level="warning",
            lifespan="off",
            limit_concurrency=_MOST_CONNECTIONS,
            timeout_graceful_shutdown=_LAST_WORDS_S,
        )
        self._server = _Server(config)

    async def run(self) -> None:
        """Serve until `stop`; what was asked by then is answered."""
        self._desk = Desk(self._model, batch_size=self._batch_size, counts=self.counts)
        try:
            await self._server.serve(sockets=[self._socket])
        finally:
            await asyncio.to_thread(self._desk.close)

    def stop(self) -> None:
        """Take no more questions."""
        self._server.should_exit = True

    async def _chat(self, request: Request) -> Response:
        self._admit(request)
        asked = read_request(await self._body(request))
        if asked.model != self._model.name:
            raise WrongRequest(
                f"the model '{asked.model}' is not served here. Ask for '{self._model.name}'.",
                status=404,
                code="model_not_found",
                param="model",
            )
        try:
            future = self._desk.ask(asked.prompt())
        except queue.Full:
            raise WrongRequest("too many questions wait. Ask again in a moment.", status=429) from None
        match await asyncio.wrap_future(future):
            case Answer() as answer:
                self.counts.answered += 1
                return JSONResponse(completion(self._model.name, self._revision, answer))
            case NoAnswer(reason=reason, asked_wrongly=True):
                raise WrongRequest(reason)
            case NoAnswer(reason=reason):
                self.counts.failed += 1
                return JSONResponse(error_body(reason, status=500), status_code=500)

    async def _models(self, request: Request) -> Response:
        self._admit(request)
        row = {"id": self._model.name, "object": "model", "created": 0, "owned_by": "local"}
        return JSONResponse({"object": "list", "data": [row]})

    def _admit(self, request: Request) -> None:
        if "origin" in request.headers:
            raise WrongRequest("requests from web pages are refused.", status=403)
        if self._token is not None and not token_matches(self._token, request.headers.get("authorization", "")):
            raise WrongRequest("send the token as 'Authorization: Bearer TOKEN'.", status=401, code="invalid_api_key")

    async def _body(self, request: Request) -> bytes:
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > self._max_bytes:
                raise WrongRequest(
                    f"the request is longer than {self._max_bytes} bytes. Send fewer or smaller pictures.", status=413
                )
        return bytes(body)

    async def _wrong(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, WrongRequest)
        self.counts.refused += 1
        body = error_body(str(error), status=error.status, code=error.code, param=error.param)
        return JSONResponse(body, status_code=error.status, headers={"Retry-After": "1"} if error.status == 429 else {})

    async def _no_such(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        self.counts.refused += 1
        told = f"{request.method} {request.url.path} is not offered. Use POST /v1/chat/completions or GET /v1/models."
        return JSONResponse(error_body(told, status=error.status_code), status_code=error.status_code)

    async def _broken(self, request: Request, error: Exception) -> Response:
        self.counts.failed += 1
        if not isinstance(error, ClientDisconnect):
            log.error("a request failed", exc_info=error)
        return JSONResponse(error_body("the server failed; see its log.", status=500), status_code=500)


class _Server(uvicorn.Server):
    """uvicorn, with the signals left to us: its own handling ends the process with the signal, without a last word."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve_vlm(
    folder: Path,
    *,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    token: str | None = None,
    device: Device = "auto",
    batch_size: int = 8,
    on_ready: Callable[[str, int], None] = lambda name, port: None,
) -> VlmCounts:
    """Serve a model directory until SIGINT or SIGTERM; `on_ready` gets the model's name and the port.

    Raises BackendError for a directory that holds no model, UsageError for a host or port.
    """
    _check_exposure(host, token)  # told before the weights are loaded
    check_folder(folder)
    model = ChatModel(folder, device)
    server = VlmServer(model, revision=fingerprint(folder), host=host, port=port, token=token, batch_size=batch_size)

    async def until_signalled() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, server.stop)
        on_ready(model.name, server.port)
        await server.run()

    asyncio.run(until_signalled())
    return server.counts


@contextmanager
def running_vlm_server(
    model: ChatModel,
    *,
    revision: str = "",
    token: str | None = None,
    batch_size: int = 8,
    max_body_bytes: int = MAX_BODY_BYTES,
) -> Iterator[VlmServer]:
    """The same server on a free loopback port, in a thread, for as long as the block lasts."""
    server = VlmServer(
        model, revision=revision, port=0, token=token, batch_size=batch_size, max_body_bytes=max_body_bytes
    )
    thread = threading.Thread(target=lambda: asyncio.run(server.run()), name="vlm-server", daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()


def _check_exposure(host: str, token: str | None) -> None:
    check_exposure(host, token, harm="use the model")
