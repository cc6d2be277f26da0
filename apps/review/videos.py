"""The episodes' videos, served from where they are.

Gradio's own way to serve files promises one byte too many of a range that ends behind its file, and then waits for it
for ever, at full load: one such request stopped the page for everybody.
"""

import os
import re
import stat
from collections import OrderedDict
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from anyio.to_thread import run_sync
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope, Send

VIDEOS = "/videos/"
_AT_ONCE = 1 << 20  # bytes of video read at once: each read waits for a thread, and browsers ask for 256 kB and more
_MOST_OPEN = 64  # files
_NO_WAIT: int | None = getattr(os, "RWF_NOWAIT", None)  # Linux can say at once that it would have to read the disk
_PLAIN = re.compile(r"bytes=(\d{1,15})-(\d{1,15})")
_ELSE = ("if-range", "if-none-match", "if-modified-since")  # what a request may ask beside a range


@dataclass(frozen=True, slots=True)
class _Open:
    file: FileIO
    size: int
    headers: tuple[tuple[bytes, bytes], ...]


class Videos:
    """The files under one folder; versions of a dataset share videos through links."""

    def __init__(self, folder: Path) -> None:
        self._files = _Files(directory=folder, check_dir=False, follow_symlink=True)
        self._open: OrderedDict[str, _Open] = OrderedDict()

    async def serve(self, name: str, request: Request, send: Send) -> None:
        """A file, or the part of it that is asked for."""
        part = await self._part(name, request)
        if part is not None:
            await send({"type": "http.response.start", "status": 206, "headers": part[0]})
            await send({"type": "http.response.body", "body": part[1]})
            return
        try:
            answer = await self._files.get_response(name, request.scope)
        except HTTPException as error:  # not there, or outside
            answer = JSONResponse({"error": "no such video"}, error.status_code)
        await answer(request.scope, request.receive, send)

    async def _part(self, name: str, request: Request) -> tuple[list[tuple[bytes, bytes]], bytes] | None:
        """Headers and bytes of one plain range that lies in memory already; None for everything else.

        Nearly all that browsers ask for is such a range, and it is there at once: no thread has to be waited for.
        """
        asked = _PLAIN.fullmatch(request.headers.get("range", ""))
        if (
            _NO_WAIT is None
            or asked is None
            or request.method != "GET"
            or any(header in request.headers for header in _ELSE)
        ):
            return None
        file = self._open.get(name) or await self._opened(name)
        if file is None:
            return None
        start, end = int(asked[1]), min(int(asked[2]) + 1, file.size)
        if not start < end <= start + _AT_ONCE:
            return None
        body = bytearray(end - start)
        try:
            if os.preadv(file.file.fileno(), [body], start, _NO_WAIT) != len(body):
                return None
        except OSError:  # not in memory, or a disk that can not tell
            return None
        headers = MutableHeaders(raw=list(file.headers))
        headers["content-range"] = f"bytes {start}-{end - 1}/{file.size}"
        headers["content-length"] = str(end - start)
        return headers.raw, bytes(body)

    async def _opened(self, name: str) -> _Open | None:
        """An open file; used, and closed when there are too many, without a pause in between."""
        try:
            made = await run_sync(self._files.open, name)
        except (OSError, ValueError):
            return None  # `get_response` says why
        if made is None or name in self._open:
            return made and self._open[name]
        self._open[name] = made
        if len(self._open) > _MOST_OPEN:
            self._open.popitem(last=False)[1].file.close()
        return made


class _Files(StaticFiles):
    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        answer = super().file_response(full_path, stat_result, scope, status_code)
        if isinstance(answer, FileResponse):  # else it says that the browser's copy is good
            answer.chunk_size = _AT_ONCE
        return answer

    def open(self, name: str) -> _Open | None:
        """A file with what is said about it; None for one that is not there, or outside."""
        path, found = self.lookup_path(name)
        if found is None or not stat.S_ISREG(found.st_mode):
            return None
        about = FileResponse(path, stat_result=found)
        return _Open(open(path, "rb", buffering=0), found.st_size, tuple(about.raw_headers))
