"""Asking through the call store: what was answered before costs nothing, what is answered now is durable first."""

from collections.abc import Iterator, Sequence

from annotators.calls import CallStore, RawAnswer
from annotators.vlm.protocol import Request, VlmClient


class StoredClient:
    """Any client behind a call store. Only the process that owns the store may use it."""

    def __init__(self, client: VlmClient, store: CallStore) -> None:
        self._client = client
        self._store = store
        self.num_made = 0
        self.num_cached = 0

    def ask(self, requests: Sequence[Request]) -> Iterator[tuple[Request, RawAnswer]]:
        """Stored answers first, then fresh ones; a fresh one is in the store before the caller sees it."""
        fresh: dict[str, Request] = {}
        twins: dict[str, list[Request]] = {}  # two crops may be the same bytes: one call answers both
        for request in requests:
            key = request.key
            stored = self._store.get(key)
            if stored is not None:
                self.num_cached += 1
                yield request, stored
            elif key in fresh:
                twins.setdefault(key, []).append(request)
            else:
                fresh[key] = request
        for request, answer in self._client.ask(list(fresh.values())):
            standing = self._store.put(request.key, request.to_json(), answer)
            self.num_made += answer.outcome != "skipped"
            yield request, standing
            for twin in twins.get(request.key, ()):
                yield twin, standing
