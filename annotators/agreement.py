"""How far people agree: one number per field for all, one per pair of people, and one for the places of boundaries.

* Krippendorff's alpha, nominal: K. Krippendorff, Computing Krippendorff's Alpha-Reliability, 2011, sections B and C.
* Cohen's kappa: J. Cohen, A coefficient of agreement for nominal scales, 1960.
* Boundary F1: twice the boundaries that both set, within a tolerance, over the boundaries of both.

Payloads are read as plain JSON, so that every kind of payload has its fields without code of its own.

Axes: E entries of a ballot, U units (items), P pairs of entries that are compared.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotators.ballots import Ballot
from schemas.records import canonical_json
from schemas.spans import NS_PER_S

KEEP = "keep"  # the field that says whether the item is usable at all; a reject says nothing about the others
TOLERANCES_S = (0.25, 0.5)
# Events come from the recording, people do not set them; where something was seen is no part of what is said.
_NO_FIELD = ("kind", "events", "board_box_xyxy", "boxed_in", "picture")


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """What one person said about one item without seeing what others said."""

    item_id: str
    reviewer: str
    field: str
    words: Mapping[str, Any] | None  # the payload they confirmed; None for a reject
    said: Mapping[str, str] = dataclass_field(init=False)  # field -> value; of a reject only that it is not kept

    def __post_init__(self) -> None:
        object.__setattr__(self, "said", _said(self.field, self.words))  # once: it is compared with many others


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldAgreement:
    """How far everybody agrees about one field."""

    field: str
    num_items: int  # with two votes or more
    alpha: float | None  # None where nobody ever said two different things: then there is nothing to measure


@dataclass(frozen=True, slots=True, kw_only=True)
class PairAgreement:
    """How far two people agree about one field."""

    first: str
    second: str
    field: str
    num_items: int
    num_same: int
    kappa: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundaryAgreement:
    """How far people put the boundaries between segments at the same places, over all pairs of votes."""

    tolerance_s: float
    num_pairs: int
    num_boundaries: int  # of both sides
    f1: float | None


def fields_of(words: Mapping[str, Any]) -> dict[str, str]:
    """What a payload claims, field by field, to compare; without boxes, and of segments only what happens."""
    found = {}
    for name, value in words.items():
        if name == "segments":
            found["labels"] = canonical_json(_labels(words))
        elif name not in _NO_FIELD:
            found[name] = value if isinstance(value, str) else canonical_json(_without_boxes(value))
    return found


def _without_boxes(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, dict):  # as JSON has it; asking for any Mapping is three times as slow
        return {name: _without_boxes(part) for name, part in value.items() if name != "box_xyxy"}
    return [_without_boxes(part) for part in value] if isinstance(value, list) else value


def _said(field: str, words: Mapping[str, Any] | None) -> dict[str, str]:
    if words is None:
        return {f"{field}.{KEEP}": "no"}
    return {f"{field}.{KEEP}": "yes", **{f"{field}.{name}": value for name, value in fields_of(words).items()}}


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, bool]:
    """Which fields an edit changed, of all that either side has; boundaries of segments are a field of their own."""
    found = {}
    for name in dict.fromkeys([*before, *after]):
        old, new = before.get(name), after.get(name)
        if name == "segments":
            found["labels"] = _labels(before) != _labels(after)
            found["boundaries"] = boundaries_ns(before) != boundaries_ns(after)
        elif name not in _NO_FIELD:
            found[name] = old != new and _without_boxes(old) != _without_boxes(new)
    return found


def _labels(words: Mapping[str, Any]) -> list[list[str]]:
    return [[part["label"], part["end_effector"]] for part in words.get("segments", [])]


def agrees(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> bool:
    """True when two people said the same: every field, and each boundary within the tighter tolerance."""
    if one is None or other is None:
        return one is other
    if fields_of(one) != fields_of(other):
        return False
    ours, theirs = boundaries_ns(one), boundaries_ns(other)
    return len(ours) == len(theirs) == _num_near(ours, theirs, TOLERANCES_S[0])


def field_agreement(ballot: Ballot) -> tuple[FieldAgreement, ...]:
    """Alpha of every field that anybody spoke about, by name."""
    found = []
    for number in np.unique(ballot.field_E):
        is_it_E = ballot.field_E == number
        item_E, value_E = ballot.item_E[is_it_E], ballot.value_E[is_it_E]
        num_items = int((np.unique(item_E, return_counts=True)[1] > 1).sum())
        alpha = krippendorff_alpha(item_E, value_E)
        found.append(FieldAgreement(field=ballot.fields[number], num_items=num_items, alpha=alpha))
    return tuple(sorted(found, key=lambda row: row.field))


def krippendorff_alpha(unit_E: NDArray[np.int64], value_E: NDArray[np.int64]) -> float | None:
    """Nominal alpha of values that people gave to units, both as numbers from 0; None where it is not defined."""
    _, unit_E, size_U = np.unique(unit_E, return_inverse=True, return_counts=True)
    is_paired_E = size_U[unit_E] > 1
    unit_E, value_E = unit_E[is_paired_E], value_E[is_paired_E]
    if not len(value_E):
        return None
    together = np.unique(value_E, return_counts=True)[1]
    total = int(together.sum())
    expected = int((together * (total - together)).sum())
    alike, num_alike = np.unique(unit_E * (value_E.max() + 1) + value_E, return_counts=True)
    unit = alike // (value_E.max() + 1)
    # Ordered pairs of different values, each unit's weighted by 1 / (its values - 1).
    num_apart = float((num_alike * (size_U[unit] - num_alike) / (size_U[unit] - 1)).sum())
    return None if expected == 0 else 1 - (total - 1) * num_apart / expected


def pair_agreement(ballot: Ballot) -> tuple[PairAgreement, ...]:
    """Kappa of every two people who voted about the same items, field by field; most items first."""
    names = sorted(ballot.people)
    place_of = np.array([names.index(name) for name in ballot.people], dtype=np.int64)
    person_E = place_of[ballot.person_E]
    order_E = np.lexsort((person_E, ballot.item_E, ballot.field_E))
    person_E, value_E = person_E[order_E], ballot.value_E[order_E]
    field_E, item_E = ballot.field_E[order_E], ballot.item_E[order_E]
    pairs = Comparisons(num_values=int(value_E.max()) + 1 if len(value_E) else 1)
    for apart in range(1, len(field_E)):  # entries to compare stand 1, 2, ... places apart
        is_pair = (field_E[apart:] == field_E[:-apart]) & (item_E[apart:] == item_E[:-apart])
        first_P = np.flatnonzero(is_pair)
        if not len(first_P):
            break
        key_P = (person_E[first_P] * len(names) + person_E[first_P + apart]) * len(ballot.fields) + field_E[first_P]
        pairs.add(key_P, value_E[first_P], value_E[first_P + apart])
    rows = []
    for key, num_items, num_same, kappa in pairs.kappas():
        people, field = divmod(key, len(ballot.fields))
        one, other = divmod(people, len(names))
        rows.append(
            PairAgreement(
                first=names[one],
                second=names[other],
                field=ballot.fields[field],
                num_items=num_items,
                num_same=num_same,
                kappa=kappa,
            )
        )
    return tuple(sorted(rows, key=lambda row: (-row.num_items, row.first, row.second, row.field)))


class Comparisons:
    """What two said about the same things, under any number of keys, counted as it comes: where everybody votes about
    gold there are millions of them."""

    def __init__(self, *, num_values: int) -> None:
        self._num_values = num_values  # both say a number below it
        self._all, self._same, self._said, self._heard = Sums(), Sums(), Sums(), Sums()

    def add(self, key_P: NDArray[np.int64], one_P: NDArray[np.int64], other_P: NDArray[np.int64]) -> None:
        """What the one and the other said, each time under a key."""
        self._all.add(key_P)
        self._same.add(key_P[one_P == other_P])
        self._said.add(key_P * self._num_values + one_P)
        self._heard.add(key_P * self._num_values + other_P)

    def kappas(self) -> Iterator[tuple[int, int, int, float | None]]:
        """Each key, how much was compared, how much of it is the same, and Cohen's kappa; None where both always say
        one same thing."""
        same = dict(zip(self._same.keys.tolist(), self._same.counts.tolist(), strict=True))
        both, at_said, at_heard = np.intersect1d(
            self._said.keys, self._heard.keys, assume_unique=True, return_indices=True
        )
        chances = np.zeros(len(self._all.keys), dtype=np.int64)
        place = np.searchsorted(self._all.keys, both // self._num_values)
        np.add.at(chances, place, self._said.counts[at_said] * self._heard.counts[at_heard])
        listed = (self._all.keys.tolist(), self._all.counts.tolist(), chances.tolist())
        for key, total, chance in zip(*listed, strict=True):
            at_random = chance / total**2
            observed = same.get(key, 0) / total
            yield (
                key,
                total,
                same.get(key, 0),
                None if chance == total**2 else (observed - at_random) / (1 - at_random),
            )


class Sums:
    """How often each number was met; `keys` in their order."""

    def __init__(self) -> None:
        self.keys, self.counts = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)

    def add(self, numbers: NDArray[np.int64]) -> None:
        """Count some more."""
        keys, counts = np.unique(numbers, return_counts=True)
        self.keys, place = np.unique(np.concatenate([self.keys, keys]), return_inverse=True)
        summed = np.zeros(len(self.keys), dtype=np.int64)
        np.add.at(summed, place, np.concatenate([self.counts, counts]))
        self.counts = summed


def boundary_agreement(votes: Iterable[Vote]) -> tuple[BoundaryAgreement, ...]:
    """Boundary F1 over all pairs of people who kept the same segments item, at each tolerance."""
    by_item: dict[str, list[list[int]]] = {}
    for vote in votes:
        if vote.words is not None and "segments" in vote.words:
            by_item.setdefault(vote.item_id, []).append(boundaries_ns(vote.words))
    pairs = [pair for places in by_item.values() for pair in combinations(places, 2)]
    total = sum(len(ours) + len(theirs) for ours, theirs in pairs)
    found = []
    for tolerance_s in TOLERANCES_S:
        near = sum(_num_near(ours, theirs, tolerance_s) for ours, theirs in pairs)
        f1 = 2 * near / total if total else None
        row = BoundaryAgreement(tolerance_s=tolerance_s, num_pairs=len(pairs), num_boundaries=total, f1=f1)
        found.append(row)
    return tuple(found)


def boundaries_ns(words: Mapping[str, Any]) -> list[int]:
    """Where segments meet, in order; where the first begins and the last ends is no choice of anybody."""
    return sorted(part["start_ns"] for part in words.get("segments", [])[1:])


def _num_near(ours: Sequence[int], theirs: Sequence[int], tolerance_s: float) -> int:
    """How many of two sorted lists can be paired one to one within a tolerance."""
    near = first = second = 0
    while first < len(ours) and second < len(theirs):
        apart = ours[first] - theirs[second]
        if abs(apart) <= tolerance_s * NS_PER_S:
            near, first, second = near + 1, first + 1, second + 1
        elif apart < 0:
            first += 1
        else:
            second += 1
    return near
