"""What was drawn for one reviewer, kept for the next who sees the same: pictures and curves never change."""

import threading
from collections import OrderedDict
from collections.abc import Callable


class Shelf:
    """Texts by key, up to so many characters; what was not asked for the longest goes first."""

    def __init__(self, most: int) -> None:
        self._most, self._held = most, 0
        self._texts: OrderedDict[tuple[str, ...], str] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[str, ...], make: Callable[[], str]) -> str:
        """The text under a key, made when it is not there. What `make` raises is raised, and nothing is kept."""
        with self._lock:
            if (found := self._texts.get(key)) is not None:
                self._texts.move_to_end(key)
                return found
        made = make()  # outside the lock: others need not wait for it, and twice the same does no harm
        with self._lock:
            self._held += len(made) - len(self._texts.pop(key, ""))
            self._texts[key] = made
            while self._held > self._most:
                self._held -= len(self._texts.popitem(last=False)[1])
        return made
