"""Looking while a model answers: the same things in the same order, a few of them before they are asked for."""

import threading
from collections.abc import Generator

import pytest

from annotators.ahead import ahead


class Source:
    """Counts up, notes how far it got and whether it was closed; fails at a number."""

    def __init__(self, num: int, fails_at: int | None = None) -> None:
        self.num, self.fails_at = num, fails_at
        self.num_made, self.is_closed = 0, False
        self.made = threading.Condition()

    def items(self) -> Generator[int]:
        try:
            for number in range(self.num):
                if number == self.fails_at:
                    raise ValueError("no picture")
                with self.made:
                    self.num_made += 1
                    self.made.notify_all()
                yield number
        finally:
            self.is_closed = True


def test_everything_comes_in_order_and_the_source_is_closed() -> None:
    source = Source(50)
    assert list(ahead(source.items(), 4)) == list(range(50))
    assert source.is_closed


def test_the_next_ones_are_made_while_one_is_in_use_and_no_more_than_allowed() -> None:
    source = Source(50)
    items = ahead(source.items(), 3)
    assert next(items) == 0
    with source.made:
        # One in use, three waiting, one that found no room.
        assert source.made.wait_for(lambda: source.num_made == 5, timeout=10)
        assert not source.made.wait_for(lambda: source.num_made > 5, timeout=0.3)
    items.close()
    assert source.is_closed
    assert source.num_made <= 6


def test_what_goes_wrong_is_raised_in_its_place() -> None:
    source = Source(50, fails_at=2)
    items = ahead(source.items(), 8)
    assert [next(items), next(items)] == [0, 1]
    with pytest.raises(ValueError, match="no picture"):
        next(items)
    assert source.is_closed
