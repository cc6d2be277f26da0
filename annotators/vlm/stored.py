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
        self.input_tokens = 0  # of the calls made
        self.output_tokens = 0

    @property
    def stopped(self) -> str:
        """Why nobody is asked any more; empty while they are."""
        return self._client.stopped

    def ask(self, requests: Sequence[Request]) -> Iterator[tuple[Request, RawAnswer]]:
        """Stored answers first, then fresh ones; a fresh one is in the store before the caller sees it."""
        asked: dict[str, list[Request]] = {}  # two crops may be the same bytes: one call answers both
        for request in requests:
            asked.setdefault(request.key, []).append(request)
        stored = self._store.get_all(list(asked))
        for key, answer in stored.items():
            self.num_cached += len(asked[key])
            yield from ((request, answer) for request in asked[key])
        fresh = [same[0] for key, same in asked.items() if key not in stored]
        for lot in self._client.ask(fresh):
            calls = [(request.key, request.to_json(), answer) for request, answer in lot]
            for (key, _, answer), standing in zip(calls, self._store.put_all(calls), strict=True):
                if answer.outcome != "skipped":
                    self.num_made += 1
                    self.input_tokens += answer.input_tokens
                    self.output_tokens += answer.output_tokens
                yield from ((request, standing) for request in asked[key])
