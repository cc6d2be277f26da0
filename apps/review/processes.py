"""Several processes behind one port: Python runs one thread of a process at a time, and a team on a slow machine needs
more. All accept from one socket: a new connection goes to whoever is free first, and stays there."""

import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
_START_S = 600.0  # a process that can not answer by then never will
_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0  # before a process that ended is replaced; doubled while replacements fail
_log = logging.getLogger(__name__)


def listen(host: str, port: int) -> socket.socket:
    """The socket that all processes accept from. Raises UsageError when the port is taken."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind)
        try:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # as one process has it
            found.bind(address)
            found.listen(_BACKLOG)
        except OSError:
            found.close()
            raise
    except OSError as error:
        raise UsageError(f"the page can not be served on {host}:{port} ({error}). Choose another --port.") from None
    found.setblocking(False)
    return found


class Others:
    """So many more processes that do `work`, each replaced when it ends; all end with this one, however it ends."""

    def __init__(self, num: int, work: Work, shared: socket.socket) -> None:
        self._work, self._shared = work, shared
        self._is_over = threading.Event()
        self._changing = threading.Lock()  # held while one is started, and from when all are told to end
        self._started = [self._start() for _ in range(num)]

    def __enter__(self) -> "Others":
        signal.signal(signal.SIGTERM, _leave)  # so that `__exit__` is reached
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._is_over.set()
        with self._changing:
            for process, _ in self._started:
                process.terminate()
            for process, _ in self._started:
                process.join()

    def wait(self) -> None:
        """Until all of them can answer; from then on they are replaced. Raises UsageError when one can not."""
        for _, hears in self._started:
            if not _is_ready(hears):
                raise UsageError(
                    "one of the page's processes ended, or hung, while it started; what it said stands above. "
                    "Try --processes 1."
                )
        threading.Thread(target=self._replace, daemon=True).start()

    def _start(self) -> tuple[SpawnProcess, Connection]:
        context = multiprocessing.get_context("spawn")  # what a fork of a process with threads holds, nobody knows
        hears, told = context.Pipe(duplex=False)
        process = context.Process(target=_beside, args=(self._work, self._shared, told), daemon=True)
        process.start()
        told.close()  # so that a process that ends without a word is noticed
        return process, hears

    def _replace(self) -> None:
        pause_s = _PAUSE_S
        while True:
            connection.wait([process.sentinel for process, _ in self._started])
            for place, (process, hears) in enumerate(self._started):
                if process.is_alive():
                    continue
                if self._is_over.wait(pause_s):
                    return
                with self._changing:
                    if self._is_over.is_set():
                        return
                    _log.warning("one of the page's processes ended (%s) and is replaced", process.exitcode)
                    try:
                        self._started[place] = self._start()
                    except OSError as error:  # no memory, say: try again later
                        _log.warning("it could not be replaced (%s)", error)
                        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                        continue
                hears.close()
                is_ready = _is_ready(self._started[place][1])
                pause_s = _PAUSE_S if is_ready else min(2 * pause_s, _LONGEST_PAUSE_S)


def _is_ready(hears: Connection) -> bool:
    """Waits for a process to say that it can answer; False when it ended before, or took too long."""
    try:
        return hears.poll(_START_S) and hears.recv() is not None
    except (EOFError, OSError):
        return False


def _leave(number: int, frame: object) -> None:
    sys.exit(0)


def _beside(work: Work, shared: socket.socket, told: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches all of a terminal; the first process ends the others
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    work(shared, partial(told.send, "ready"))


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(0)


@contextmanager
def accepting(app: ASGIApp, shared: socket.socket, *, idle_s: int) -> Iterator[None]:
    """Serves an app that has been started, from the shared socket, by a thread: signals stay with their handlers."""
    config = uvicorn.Config(
        app, lifespan="off", log_level="warning", timeout_keep_alive=idle_s, timeout_graceful_shutdown=_LAST_ANSWERS_S
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [shared]}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(2 * _LAST_ANSWERS_S)
