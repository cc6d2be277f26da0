"""How far people agree: one number per field for all, one per pair of people, and one for the places of boundaries.

* Krippendorff's alpha, nominal: K. Krippendorff, Computing Krippendorff's Alpha-Reliability, 2011, sections B and C.
* Cohen's kappa: J. Cohen, A coefficient of agreement for nominal scales, 1960.
* Boundary F1: twice the boundaries that both set, within a tolerance, over the boundaries of both.

Payloads are read as plain JSON, so that every kind of payload has its fields without code of its own.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from itertools import combinations
from typing import Any

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


def field_agreement(votes: Iterable[Vote]) -> tuple[FieldAgreement, ...]:
    """Alpha of every field, by name."""
    units: dict[str, dict[str, list[str]]] = {}
    for vote in votes:
        for name, value in vote.said.items():
            units.setdefault(name, {}).setdefault(vote.item_id, []).append(value)
    return tuple(
        FieldAgreement(
            field=name,
            num_items=sum(len(values) > 1 for values in by_item.values()),
            alpha=krippendorff_alpha(by_item.values()),
        )
        for name, by_item in sorted(units.items())
    )


def krippendorff_alpha(units: Iterable[Sequence[str]]) -> float | None:
    """Nominal alpha over units, each with the values that so many people gave; None where it is not defined."""
    together: Counter[str] = Counter()  # how often a value was given in a unit of two or more
    num_apart = 0.0  # ordered pairs of different values, each unit's weighted by 1 / (its values - 1)
    for values in units:
        if len(values) < 2:
            continue
        if all(value == values[0] for value in values):  # most units: a Counter for each is what takes the time
            together[values[0]] += len(values)
            continue
        counts = Counter(values)
        together.update(counts)
        num_apart += sum(count * (len(values) - count) for count in counts.values()) / (len(values) - 1)
    total = together.total()
    expected = sum(count * (total - count) for count in together.values())
    return None if expected == 0 else 1 - (total - 1) * num_apart / expected


def pair_agreement(votes: Iterable[Vote]) -> tuple[PairAgreement, ...]:
    """Kappa of every two people who voted about the same items, field by field; most items first."""
    by_item: dict[str, list[Vote]] = {}
    for vote in votes:
        by_item.setdefault(vote.item_id, []).append(vote)
    tables: dict[tuple[str, str, str], Counter[tuple[str, str]]] = {}
    for together in by_item.values():
        fields = {vote.reviewer: vote.said for vote in together}
        for first, second in combinations(sorted(fields), 2):
            for name in fields[first].keys() & fields[second].keys():
                table = tables.setdefault((first, second, name), Counter())
                table[fields[first][name], fields[second][name]] += 1
    rows = [
        PairAgreement(
            first=first,
            second=second,
            field=name,
            num_items=table.total(),
            num_same=sum(count for (one, other), count in table.items() if one == other),
            kappa=cohen_kappa(table),
        )
        for (first, second, name), table in tables.items()
    ]
    return tuple(sorted(rows, key=lambda row: (-row.num_items, row.first, row.second, row.field)))


def cohen_kappa(table: Mapping[tuple[str, str], int]) -> float | None:
    """Kappa of a table (what one said, what the other said) -> items; None where both always say one same thing."""
    total = sum(table.values())
    rows: Counter[str] = Counter()
    columns: Counter[str] = Counter()
    for (one, other), count in table.items():
        rows[one] += count
        columns[other] += count
    same = sum(count for (one, other), count in table.items() if one == other) / total
    chance = sum(count * columns[value] for value, count in rows.items()) / total**2
    return None if chance == 1 else (same - chance) / (1 - chance)


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
