"""Decisions without their words, as columns of numbers: a hundred thousand of them are counted at once.

Axes: D decisions.
"""

from array import array
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

KINDS = ("accept", "edit", "reject", "batch", "skip", "undo")  # the first three after a look
ACCEPT, EDIT, REJECT, BATCH, SKIP, UNDO = range(len(KINDS))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Columns:
    """Some decisions, oldest first; what is no number is one in a list of words."""

    item_D: NDArray[np.int64]
    person_D: NDArray[np.int64]
    kind_D: NDArray[np.int64]
    hour_D: NDArray[np.int64]
    claim_D: NDArray[np.int64]  # whose proposal it was about, and which field
    edit_D: NDArray[np.int64]  # which fields an edit changed; -1: no edit
    lead_time_ms_D: NDArray[np.int64]
    is_review_D: NDArray[np.bool_]  # not an adjudication
    is_taken_back_D: NDArray[np.bool_]

    def at(self, places: NDArray[np.int64]) -> "Columns":
        """Those of the decisions."""
        return Columns(**{part.name: getattr(self, part.name)[places] for part in fields(self)})


class GrowingColumns:
    """Where decisions are added."""

    def __init__(self) -> None:
        self._columns = {part.name: array("q") for part in fields(Columns)}

    def add(self, **values: int) -> None:
        """One decision, every column of it."""
        for name, column in self._columns.items():
            column.append(values[name])

    def take_back(self, place: int) -> None:
        """Mark a decision that another one undoes."""
        self._columns["is_taken_back_D"][place] = True

    def now(self) -> Columns:
        """All decisions so far."""
        found: dict[str, NDArray[Any]] = {
            name: np.array(column, dtype=bool if name.startswith("is_") else np.int64)
            for name, column in self._columns.items()
        }
        return Columns(**found)
