"""What came with one event of the page: who sent it, what the page shows, what was typed."""

from typing import Any

from annotators.ledger import Account, QueueFilter, Track
from apps.review.desk import Desk
from apps.review.sheet import Sheet

OWN = "own"  # the choice of work that lists what somebody decided


class Call:
    """The values that came with one event, by name, and who sent them."""

    def __init__(self, account: Account | None, values: tuple[Any, ...]) -> None:
        sheet, _, self._status, self._rank, self._search, self._facet, self._work = values
        self.sheet = Sheet.read(sheet)
        self.token = self.sheet.token
        self.typed = self.sheet.typed()
        self.track: Track = "adjudication" if self._work == "adjudication" else "review"
        self.wants_own = self._work == OWN
        self.reviewer = account.name if account else ""
        self.decides = account is not None and account.may("reviewer")

    def wanted(self, desk: Desk) -> QueueFilter:
        """The queue's filter."""
        rank = None if self._rank in (None, -1) else int(self._rank)
        return desk.wanted(status=self._status, rank=rank, search=self._search or "", facet=self._facet or "")
