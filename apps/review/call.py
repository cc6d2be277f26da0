"""What came with one event of the page: who sent it, what the page shows, what was typed."""

from typing import Any

from annotators.ledger import Account, QueueFilter, Track
from annotators.review import TraceForm
from annotators.traces import MOST_CARDS
from apps.review.desk import Desk, Token, Typed, typed_cells


class Call:
    """The values that came with one event, by name, and who sent them."""

    def __init__(self, account: Account | None, values: tuple[Any, ...]) -> None:
        token, _, self._status, self._rank, self._search, self._facet, work, note, *fields = values
        board, solution, pick_text, pick_position, segments, *cards = fields
        self.token = Token.read(token)
        self.track: Track = "adjudication" if work == "adjudication" else "review"
        self.reviewer = account.name if account else ""
        self.decides = account is not None and account.may("reviewer")
        pairs = zip(cards[:MOST_CARDS], cards[MOST_CARDS:], strict=True)
        self.typed = Typed(
            trace=TraceForm(
                board=board or "",
                solution=solution or "",
                cards=_without_empty_tail([(text or "", where or "unknown") for text, where in pairs]),
                pick_text=pick_text or "",
                pick_position=pick_position or "unknown",
            ),
            segments=typed_cells(segments),
            note=note or "",
        )

    def wanted(self, desk: Desk) -> QueueFilter:
        """The queue's filter."""
        rank = None if self._rank in (None, -1) else int(self._rank)
        return desk.wanted(status=self._status, rank=rank, search=self._search or "", facet=self._facet or "")


def _without_empty_tail(cards: list[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """The cards as the form starts them: at least three rows, no empty ones after."""
    while len(cards) > 3 and cards[-1] == ("", "unknown"):
        cards = cards[:-1]
    return tuple(cards)
