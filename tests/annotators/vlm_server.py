"""A real HTTP server that speaks the chat-completions protocol, scripted by a test; it shares no code with us."""

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

Headers = dict[str, str]


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server sends: a status, a body (a dict becomes JSON), headers. Cut: half the body, then it hangs up."""

    body: Any
    status: int = 200
    headers: Headers = field(default_factory=dict)
    is_cut: bool = False
    drip_s: float = 0.0  # between one piece of the body and the next
    drip_bytes: int = 1  # how long a piece is


def said(text: str | None, finish: str = "stop", **message: Any) -> Reply:
    """A chat completion whose assistant says `text`."""
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text, **message}}
    usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
    return Reply(
        {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
    )


@dataclass(slots=True, kw_only=True)
class Server:
    """Where it listens, and every request body and header it got."""

    url: str
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[Headers] = field(default_factory=list)
    connections: "_Connections"

    def read_out(self) -> None:
        """Wait until all that callers who have gone had sent was read, and nobody is connected."""
        last = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=60)
        last.request("GET", "/")  # connections are taken in order, so by the answer those before it were
        last.getresponse().read()
        last.close()
        with self.connections.changed:
            assert self.connections.changed.wait_for(lambda: not self.connections.num_open, timeout=60)


class _Connections(ThreadingHTTPServer):
    """Counts those that were taken and are not over."""

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        self.num_open, self.changed = 0, threading.Condition()
        super().__init__(("127.0.0.1", 0), handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self.changed:
            self.num_open += 1
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self.changed:
                self.num_open -= 1
                self.changed.notify_all()


@contextmanager
def serving(answer: Callable[[dict[str, Any], int], Reply]) -> Iterator[Server]:
    """Serve on a free port; `answer(request body, how many came before it)` decides each reply."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(server.bodies)
                server.bodies.append({"path": self.path, **body})
                server.headers.append({name.lower(): value for name, value in self.headers.items()})
            reply = answer(body, number)
            payload = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            if reply.is_cut:
                self.wfile.write(payload[: len(payload) // 2])
                self.close_connection = True
                return
            if not reply.drip_s:
                self.wfile.write(payload)
                return
            for start in range(0, len(payload), reply.drip_bytes):
                try:
                    self.wfile.write(payload[start : start + reply.drip_bytes])
                except OSError:  # the caller has gone
                    self.close_connection = True
                    return
                time.sleep(reply.drip_s)

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    connections = _Connections(Handler)
    server = Server(url=f"http://127.0.0.1:{connections.server_address[1]}/v1", connections=connections)
    thread = threading.Thread(target=connections.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        connections.shutdown()
        connections.server_close()
        thread.join()
