"""What came with one event of the page: who sent it, what the page shows, what was typed."""

from typing import Any

from annotators.ledger import Account, QueueFilter, Track
from annotators.ledger.rows import RANK_WORDS
from apps.review.desk import Desk
from apps.review.sheet import Sheet

OWN = "own"  # the choice of work that lists what somebody decided
# How the page calls its handlers: by one request each, with the values as the browser holds them. Gradio's queue would
# take two requests and hold its sessions in the memory of one process; preparing each value takes a thread a time.
DIRECTLY: dict[str, Any] = {
    "show_progress": "hidden",
    "api_visibility": "private",
    "queue": False,
    "preprocess": False,
    "postprocess": False,
}


class Call:
    """The values that came with one event, by name, and who sent them."""

    def __init__(self, account: Account | None, values: tuple[Any, ...]) -> None:
        sheet, _, status, rank, search, facet, work = values  # anybody can send anything
        self._status, self._search, self._facet, self._work = (_word(value) for value in (status, search, facet, work))
        self._rank = rank if isinstance(rank, int) and 0 <= rank < len(RANK_WORDS) else None
        self.sheet = Sheet.read(sheet)
        self.token = self.sheet.token
        self.typed = self.sheet.typed()
        self.track: Track = "adjudication" if self._work == "adjudication" else "review"
        self.wants_own = self._work == OWN
        self.reviewer = account.name if account else ""
        self.decides = account is not None and account.may("reviewer")

    def wanted(self, desk: Desk) -> QueueFilter:
        """The queue's filter."""
        return desk.wanted(status=self._status, rank=self._rank, search=self._search, facet=self._facet)


def _word(value: object) -> str:
    return value if isinstance(value, str) else ""
