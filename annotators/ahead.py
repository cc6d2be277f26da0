"""Taking things before they are asked for: while a model answers about some episodes, the next ones are looked at."""

import queue
import threading
from collections.abc import Generator
from dataclasses import dataclass

_LOOK_AGAIN_S = 0.1  # whether anybody still wants what is ready


@dataclass(frozen=True, slots=True)
class _Ready[Item]:
    item: Item


@dataclass(frozen=True, slots=True)
class _Over:
    problem: BaseException | None


def ahead[Item](items: Generator[Item], most: int) -> Generator[Item]:
    """The same items in the same order, taken in a thread of its own, at most so many before they are asked for.

    What `items` raises is raised here in its place. Closing this closes `items`, and waits until that is done.
    """
    ready: queue.Queue[_Ready[Item] | _Over] = queue.Queue(maxsize=most)
    unwanted = threading.Event()

    def give(what: "_Ready[Item] | _Over") -> None:
        while not unwanted.is_set():
            try:
                ready.put(what, timeout=_LOOK_AGAIN_S)
                return
            except queue.Full:
                continue

    def take() -> None:
        try:
            for item in items:
                give(_Ready(item))
                if unwanted.is_set():
                    break
            items.close()
        except BaseException as problem:  # the boundary between two threads: it is raised on the other side
            give(_Over(problem))
        else:
            give(_Over(None))

    thread = threading.Thread(target=take, name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            match ready.get():
                case _Ready(item=item):
                    yield item
                case _Over(problem=problem):
                    if problem is not None:
                        raise problem
                    return
    finally:
        unwanted.set()
        thread.join()
