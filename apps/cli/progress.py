"""Progress: a bar on a terminal, a plain line every few seconds in a log."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

LOG_EVERY_S = 10.0


class OnProgress(Protocol):
    """Told how many of how many are done."""

    def __call__(self, done: int, total: int, /) -> None: ...


@contextmanager
def progress(what: str, unit: str = "episodes") -> Iterator[OnProgress]:
    """Show the progress of one stage on stderr, so that stdout stays for results."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (
            TextColumn("{task.description:<10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
        return
    start = last = time.monotonic()

    def line(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if done >= total or now - last >= LOG_EVERY_S:
            last = now
            sys.stderr.write(f"{what}: {done}/{total} {unit}, {now - start:.0f} s\n")

    yield line
