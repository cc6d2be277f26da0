"""A port for a page that can not be served on port 0."""

import socket

from apps.review.app import ReviewApp, serve
from schemas.errors import UsageError


def serve_somewhere(app: ReviewApp) -> int:
    """Serve the page on a port of this machine. Somebody else may take it between the look and the use: look again."""
    for _ in range(8):
        port = free_port()
        try:
            serve(app, host="127.0.0.1", port=port)
        except UsageError:
            continue
        return port
    raise AssertionError("eight free ports were taken before they could be used")


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
