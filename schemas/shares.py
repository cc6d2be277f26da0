"""A share of a count, with the interval that says how far it can be trusted."""

from dataclasses import dataclass

from schemas.errors import UsageError
from schemas.intervals import wilson_interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """So many of so many, and Wilson's 95 % interval."""

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
        return wilson_interval(self.num, self.of)[0]

    @property
    def high(self) -> float:
        """The upper end of the interval."""
        return wilson_interval(self.num, self.of)[1]

    def to_json(self) -> dict[str, float | int | None]:
        """Plain values."""
        return {"num": self.num, "of": self.of, "share": self.value, "low": self.low, "high": self.high}
