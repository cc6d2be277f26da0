"""What people said about shared items, as numbers: counting agreement must not walk over the words of every vote again.

Axes: E entries (one field of one vote), V votes.
"""

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ballot:
    """Some votes, field by field. Equal words have equal numbers."""

    item_E: NDArray[np.int64]
    person_E: NDArray[np.int64]
    field_E: NDArray[np.int64]
    value_E: NDArray[np.int64]
    people: Sequence[str]  # by number
    fields: Sequence[str]


class Ballots:
    """All votes ever seen; they never change, so each is taken apart once."""

    def __init__(self) -> None:
        self._items: dict[str, int] = {}
        self._people: dict[str, int] = {}
        self._fields: dict[str, int] = {}
        self._values: dict[str, int] = {}
        self._item_V, self._person_V = array("q"), array("q")
        self._vote_E, self._field_E, self._value_E = array("q"), array("q"), array("q")

    def add(self, item_id: str, reviewer: str, said: Mapping[str, str]) -> int:
        """Take note of a vote; returns its number."""
        number = len(self._item_V)
        self._item_V.append(_number(self._items, item_id))
        self._person_V.append(_number(self._people, reviewer))
        for field, value in said.items():
            self._vote_E.append(number)
            self._field_E.append(_number(self._fields, field))
            self._value_E.append(_number(self._values, value))
        return number

    def chosen(self, numbers: Iterable[int]) -> Ballot:
        """Those of the votes."""
        is_chosen_V = np.zeros(len(self._item_V), dtype=bool)
        is_chosen_V[np.fromiter(numbers, dtype=np.int64)] = True
        vote_E = np.array(self._vote_E, dtype=np.int64)
        kept_E = np.flatnonzero(is_chosen_V[vote_E])
        vote_E = vote_E[kept_E]
        return Ballot(
            item_E=np.array(self._item_V, dtype=np.int64)[vote_E],
            person_E=np.array(self._person_V, dtype=np.int64)[vote_E],
            field_E=np.array(self._field_E, dtype=np.int64)[kept_E],
            value_E=np.array(self._value_E, dtype=np.int64)[kept_E],
            people=tuple(self._people),
            fields=tuple(self._fields),
        )


def _number(known: dict[str, int], word: str) -> int:
    return known.setdefault(word, len(known))
