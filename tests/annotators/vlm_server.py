"""A real HTTP server that speaks the chat-completions protocol, scripted by a test; it shares no code with us."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Headers = dict[str, str]


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server sends: a status, a body (a dict becomes JSON), headers. Cut: half the body, then it hangs up."""

    body: Any
    status: int = 200
    headers: Headers = field(default_factory=dict)
    is_cut: bool = False
    drip_s: float = 0.0  # between one byte of the body and the next


def said(text: str | None, finish: str = "stop", **message: Any) -> Reply:
    """A chat completion whose assistant says `text`."""
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text, **message}}
    usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
    return Reply(
        {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
    )


@dataclass(slots=True)
class Server:
    """Where it listens, and every request body and header it got."""

    url: str
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[Headers] = field(default_factory=list)


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
            for byte in payload:
                try:
                    self.wfile.write(bytes([byte]))
                except OSError:  # the caller has gone
                    self.close_connection = True
                    return
                time.sleep(reply.drip_s)

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = Server(url=f"http://127.0.0.1:{http.server_address[1]}/v1")
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
