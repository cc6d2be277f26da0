"""A share of a count, with the interval that says how far it can be trusted."""

import math
from dataclasses import dataclass

from schemas.errors import UsageError

_Z_95 = 1.959964


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """So many of so many, and Wilson's 95 % interval: honest at none and at all of few."""

    num: int
    of: int

    def __post_init__(self) -> None:
        if not 0 <= self.num <= self.of:
            raise UsageError(f"a share is 0 to all of a count, got {self.num} of {self.of}.")

    @property
    def value(self) -> float | None:
        """The share itself; None of nothing."""
        return self.num / self.of if self.of else None

    @property
    def low(self) -> float:
        """The lower end of the interval."""
        return 0.0 if self.num == 0 else self._centre - self._half

    @property
    def high(self) -> float:
        """The upper end of the interval."""
        return 1.0 if self.num == self.of else self._centre + self._half

    @property
    def _centre(self) -> float:
        return (self.num / self.of + _Z_95**2 / (2 * self.of)) / (1 + _Z_95**2 / self.of)

    @property
    def _half(self) -> float:
        rate = self.num / self.of
        return _Z_95 / (1 + _Z_95**2 / self.of) * math.sqrt(rate * (1 - rate) / self.of + (_Z_95 / self.of) ** 2 / 4)

    def to_json(self) -> dict[str, float | int | None]:
        """Plain values."""
        return {"num": self.num, "of": self.of, "share": self.value, "low": self.low, "high": self.high}
