"""Several processes behind one port: Python runs one thread of a process at a time, and a team on a slow machine needs
more. All accept from one socket, so who is busy accepts less."""

import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from functools import partial
from multiprocessing import connection, parent_process
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from types import TracebackType

import uvicorn
from starlette.types import ASGIApp

from schemas.errors import UsageError

type Work = Callable[[socket.socket, Callable[[], None]], None]  # takes what says that it can answer now

_BACKLOG = 2048  # connections that wait to be accepted, as uvicorn has it
_LAST_ANSWERS_S = 2  # so long may answers take that are under way at the end
_PAUSE_S = 1.0  # before a process that ended is replaced
_log = logging.getLogger(__name__)


def listen(host: str, port: int) -> socket.socket:
    """The socket that all processes accept from. Raises UsageError when the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
    except OSError as error:
        found.close()
        raise UsageError(f"the page can not be served on {host}:{port} ({error}). Choose another --port.") from None
    found.listen(_BACKLOG)
    found.setblocking(False)
    return found


class Others:
    """So many more processes that do `work`, each replaced when it ends; all end with this one, however it ends."""

    def __init__(self, num: int, work: Work, shared: socket.socket) -> None:
        self._work, self._shared = work, shared
        self._started = [self._start() for _ in range(num)]
        self._is_over = threading.Event()

    def __enter__(self) -> "Others":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # as Ctrl+C: `__exit__` is reached
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._is_over.set()
        for process, _ in self._started:
            process.terminate()
        for process, _ in self._started:
            process.join()

    def wait(self) -> None:
        """Until all of them can answer; from then on they are replaced. Raises UsageError when one ended before."""
        for _, hears in self._started:
            try:
                hears.recv()
            except EOFError:
                raise UsageError(
                    "one of the page's processes ended while it started; what it said stands above. Try --processes 1."
                ) from None
        threading.Thread(target=self._replace, daemon=True).start()

    def _start(self) -> tuple[SpawnProcess, Connection]:
        context = multiprocessing.get_context("spawn")  # what a fork of a process with threads holds, nobody knows
        hears, told = context.Pipe(duplex=False)
        process = context.Process(target=_beside, args=(self._work, self._shared, told), daemon=True)
        process.start()
        told.close()  # so that a process that ends without a word is noticed
        return process, hears

    def _replace(self) -> None:
        while self._started:
            connection.wait([process.sentinel for process, _ in self._started])
            for place, (process, hears) in enumerate(self._started):
                if not process.is_alive() and not self._is_over.wait(_PAUSE_S):
                    _log.warning("one of the page's processes ended (%s) and is replaced", process.exitcode)
                    hears.close()
                    self._started[place] = self._start()
            if self._is_over.is_set():
                return


def _beside(work: Work, shared: socket.socket, told: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches all of a terminal; the first process ends the others
    threading.Thread(target=_end_with_parent, daemon=True).start()
    work(shared, partial(told.send, "ready"))


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(0)


def accept(app: ASGIApp, shared: socket.socket, *, idle_s: int) -> None:
    """Serve an app that has been started, from the shared socket, until the process is told to end."""
    config = uvicorn.Config(
        app, lifespan="off", log_level="warning", timeout_keep_alive=idle_s, timeout_graceful_shutdown=_LAST_ANSWERS_S
    )
    uvicorn.Server(config).run(sockets=[shared])
