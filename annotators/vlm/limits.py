"""How fast a server may be asked: calls at a time, requests and tokens per minute. Time is an argument, in seconds."""

_TOLERATED = 0.25  # of a round: a server that refuses less is not full, only imperfect; at 0.1 chance alone halves it
_REFUSED_IN_A_ROW = 8  # then it refuses everybody, and all calls wait as long as the last one was told to


class Lane:
    """How many calls one server takes at a time: one more after each good round, half as many after a bad one.

    A round is as many calls as the limit allows at a time.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.limit = most
        self._rests_until_s = 0.0
        self._seen = self._refused = self._in_a_row = 0

    def is_open(self, place: int, now_s: float) -> bool:
        """Whether the caller with this place in line (0 is the first) may call."""
        return place < self.limit and now_s >= self._rests_until_s

    def answered(self) -> None:
        """A call was answered."""
        self._in_a_row = 0
        self._count(refused=False)

    def refused(self, now_s: float, wait_s: float) -> None:
        """A call got no answer and is to wait so long."""
        self._in_a_row += 1
        if self._in_a_row >= _REFUSED_IN_A_ROW:
            self._rests_until_s = max(self._rests_until_s, now_s + wait_s)
        self._count(refused=True)

    def _count(self, *, refused: bool) -> None:
        self._seen += 1
        self._refused += refused
        if self._seen < self.limit:
            return
        if self._refused > _TOLERATED * self._seen:
            self.limit = max(1, self.limit // 2)
        else:
            self.limit = min(self.most, self.limit + 1)
        self._seen = self._refused = 0


class Meter:
    """Spreads units (requests, or tokens) evenly over each minute; None: as many as one likes."""

    def __init__(self, per_minute: float | None) -> None:
        self._unit_s = 60.0 / per_minute if per_minute else 0.0
        self._free_at_s = 0.0

    def reserve(self, units: float, now_s: float) -> float:
        """Take so many units; returns how long to wait before they may be used."""
        start_s = max(now_s, self._free_at_s)
        self._free_at_s = start_s + units * self._unit_s
        return start_s - now_s

    def give_back(self, units: float) -> None:
        """So many of the reserved units were not used; fewer than none: more were."""
        self._free_at_s -= units * self._unit_s
