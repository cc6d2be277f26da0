"""Asking through the call store: what was answered before costs nothing, what is answered now is durable first."""

from collections import deque
from collections.abc import Iterator, Sequence

from annotators.calls import CallStore, RawAnswer
from annotators.vlm.protocol import Lot, Request, VlmClient

_LOOKED_UP_AT_ONCE = 64  # takes about as long as storing a few answers does


class StoredClient:
    """Any client behind a call store. Only the process that owns the store may use it."""

    def __init__(self, client: VlmClient, store: CallStore) -> None:
        self._client = client
        self._store = store
        self.num_made = 0
        self.num_cached = 0
        self.input_tokens = 0  # of the calls made
        self.output_tokens = 0

    @property
    def stopped(self) -> str:
        """Why nobody is asked any more; empty while they are."""
        return self._client.stopped

    def ask(
        self, requests: Sequence[Request], further: deque[Request] | None = None
    ) -> Iterator[tuple[Request, RawAnswer]]:
        """Answers as they come; a fresh one is in the store before the caller sees it.

        What is put in `further` meanwhile is asked as well. Nobody waits until all are looked up.
        """
        line = deque[Request]() if further is None else further
        line.extend(requests)
        under_way: dict[str, list[Request]] = {}  # two crops may be the same bytes: one call answers both
        fresh = deque[Request]()
        while line:
            yield from self._look_up(line, under_way, fresh)
            for lot in self._client.ask([], fresh) if fresh else ():
                yield from self._keep(lot, under_way)
                while line and not fresh:
                    yield from self._look_up(line, under_way, fresh)

    def _look_up(
        self, line: deque[Request], under_way: dict[str, list[Request]], fresh: deque[Request]
    ) -> Iterator[tuple[Request, RawAnswer]]:
        """The stored answers to the first in line; those without one are `fresh`."""
        asked: dict[str, list[Request]] = {}
        for request in [line.popleft() for _ in range(min(_LOOKED_UP_AT_ONCE, len(line)))]:
            same = under_way if request.key in under_way else asked
            same.setdefault(request.key, []).append(request)
        stored = self._store.get_all(list(asked))
        for key in asked.keys() - stored.keys():
            under_way[key] = asked[key]
        fresh.extend(same[0] for key, same in asked.items() if key not in stored)
        for key, answer in stored.items():
            self.num_cached += len(asked[key])
            yield from ((request, answer) for request in asked[key])

    def _keep(self, lot: Lot, under_way: dict[str, list[Request]]) -> Iterator[tuple[Request, RawAnswer]]:
        """Store what was answered, then give it to all who asked."""
        if not lot:
            return
        calls = [(request.key, request.to_json(), answer) for request, answer in lot]
        for (key, _, answer), standing in zip(calls, self._store.put_all(calls), strict=True):
            if answer.outcome != "skipped":
                self.num_made += 1
                self.input_tokens += answer.input_tokens
                self.output_tokens += answer.output_tokens
            yield from ((request, standing) for request in under_way.pop(key))
