"""The dashboard's figures counted once more, slowly, from the raw rows of a SQLite ledger.

Nothing here is taken from annotators: each rule is written down again, as the pages tell it, for numbers small enough
to try every pair.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations, permutations
from pathlib import Path
from statistics import median
from typing import Any

from plain_items import SETTLED, Item, claims, inner_ns

LEASE_S = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Book:
    """A whole ledger, or what of it somebody asks about."""

    items: list[Item]
    kinds: Counter[tuple[str, str]]  # field and stratum, over the whole ledger

    @classmethod
    def read(cls, path: Path) -> "Book":
        with sqlite3.connect(path) as connection:
            connection.row_factory = sqlite3.Row
            tables = {
                name: [dict(row) for row in connection.execute(f"SELECT * FROM {name} ORDER BY seq")]
                for name in ("proposals", "verifier_results", "decisions", "assignments")
            }
            named = connection.execute("SELECT item_id, episode_id, field FROM items ORDER BY item_id").fetchall()
        connection.close()
        found: dict[str, dict[str, str]] = {}
        for row in tables["verifier_results"]:
            body = json.loads(row["body_json"])
            found.setdefault(row["proposal_id"], {})[row["verifier"]] = body["verdict"]
        for row in tables["proposals"]:
            row["body"] = json.loads(row["body_json"])
            row["speaker"] = tuple(row["body"]["provenance"][name] for name in ("backend", "model", "prompt_hash"))
            row["verdicts"] = set(found.get(row["proposal_id"], {}).values())
        for row in tables["decisions"]:
            row["payload"] = None if row["payload_json"] is None else json.loads(row["payload_json"])
        rules = {row["item_id"]: (row["overlap"], row["gold"]) for row in tables["assignments"]}  # the last one holds
        items = [
            Item(
                item_id=row["item_id"],
                episode_id=row["episode_id"],
                field=row["field"],
                proposals=[one for one in tables["proposals"] if one["item_id"] == row["item_id"]],
                decisions=[one for one in tables["decisions"] if one["item_id"] == row["item_id"]],
                overlap=rules.get(row["item_id"], (1, None))[0],
                truth=rules.get(row["item_id"], (1, None))[1],
            )
            for row in named
        ]
        return cls(items=items, kinds=Counter((item.field, item.stratum) for item in items))

    def only(self, episode_ids: Collection[str]) -> "Book":
        return Book(items=[item for item in self.items if item.episode_id in episode_ids], kinds=self.kinds)

    def figures(self, reviewer: str | None = None) -> dict[str, Any]:
        """Everything on the dashboard; of one reviewer, what they may know."""
        mine = [row for row in self.looks() if reviewer in (None, row[1]["reviewer"])]
        found = {
            "items": sum(item.waits != "gold" for item in self.items),
            "done": sum(item.waits != "gold" and item.standing is not None for item in self.items),
            "waiting": self.waiting(),
            "left": self.left(),
            "hours": self.hours(),
            "hourly": self.hourly(reviewer),
            "people": {name: row for name, row in self.people().items() if reviewer in (None, name)},
            "edit rates": edit_rates(mine),
            "speakers": speakers(mine),
        }
        if reviewer is None:
            found |= {"agreement": self.agreement(), "pairs": self.pairs(), "boundaries": self.boundaries()}
            found["strata"] = self.strata()
        return found

    def looks(self, track: str = "review") -> list[tuple[Item, dict[str, Any]]]:
        """What people saw and decided, and did not take back."""
        return [
            (item, row)
            for item in self.items
            for row in item.live
            if row["action"] in SETTLED and row["basis"] == "look" and row["track"] == track
        ]

    def waiting(self) -> dict[str, int]:
        found: Counter[str] = Counter()
        for item in self.items:
            if item.waits not in ("review", "adjudication"):
                continue
            if item.is_disputed:
                found["reviewers disagree"] += 1
            elif item.is_conflict:
                found["differs from what a person said"] += 1
            else:
                kind = (item.field, item.stratum)
                num_alike = sum(count for (field, _), count in self.kinds.items() if field == item.field)
                is_rare = Fraction(self.kinds[kind], num_alike) < Fraction(1, 20)
                found[item.doubt or ("a rare kind of scene" if is_rare else "audit")] += 1
        return dict(found)

    def left(self) -> int:
        missing = {"review": lambda item: max(1, item.overlap - len(item.votes)), "adjudication": lambda item: 1}
        return sum(missing[item.waits](item) for item in self.items if item.waits in missing)

    def hours(self) -> float | None:
        took = [min(row["lead_time_ms"] / 1000, LEASE_S) for _, row in self.all_looks()]
        return self.left() * sum(took) / len(took) / 3600 if took else None

    def all_looks(self) -> list[tuple[Item, dict[str, Any]]]:
        return self.looks() + self.looks("adjudication")

    def hourly(self, reviewer: str | None) -> dict[str, int]:
        rows = [row for item in self.items for row in item.decisions if reviewer in (None, row["reviewer"])]
        seen = [row for row in rows if row["action"] in SETTLED and row["basis"] == "look"]
        return dict(Counter(row["created"][:13] for row in seen))

    def people(self) -> dict[str, tuple[Any, ...]]:
        made = [row for item in self.items for row in item.decisions]
        gone = {row["undoes"] for row in made}
        found = {}
        for name in {row["reviewer"] for row in made if row["decision_id"] not in gone}:
            own = [row for row in made if row["reviewer"] == name and row["decision_id"] not in gone]
            seconds = [row["lead_time_ms"] / 1000 for _, row in self.all_looks() if row["reviewer"] == name]
            tested = [
                same(item.said(vote), item.said(item.gold))
                for item in self.items
                if item.gold
                for voter, vote in self.blind(item)
                if voter == name
            ]
            found[name] = (
                len(seconds),
                sum(row["basis"] == "batch" for row in own),
                sum(row["action"] == "skip" for row in own),
                sum(row["action"] == "undo" for row in own),
                median(seconds) if seconds else None,
                (sum(tested), len(tested)),
            )
        return found

    def blind(self, item: Item) -> list[tuple[str, dict[str, Any]]]:
        """Each person's newest decision about a shared item; who said the truth about gold is not tested by it."""
        if item.overlap == 1 and item.truth is None:
            return []
        rows = [row for one, row in self.looks() if one is item and row["decision_id"] != item.truth]
        return list({row["reviewer"]: row for row in rows}.items())

    def answers(self) -> Iterator[tuple[str, str, str, str]]:
        """Item, person, field, value."""
        for item in self.items:
            for name, row in self.blind(item):
                said = item.said(row)
                yield item.item_id, name, f"{item.field}.keep", "no" if said is None else "yes"
                for key, value in ({} if said is None else claims(said)).items():
                    yield item.item_id, name, f"{item.field}.{key}", json.dumps(value, sort_keys=True)

    def agreement(self) -> dict[str, tuple[int, float | None]]:
        units: dict[str, dict[str, list[str]]] = {}
        for item_id, _, field, value in self.answers():
            units.setdefault(field, {}).setdefault(item_id, []).append(value)
        return {
            field: (sum(len(values) > 1 for values in by_item.values()), alpha(list(by_item.values())))
            for field, by_item in units.items()
        }

    def pairs(self) -> dict[tuple[str, str, str], tuple[int, int, float | None]]:
        said = {(item_id, name, field): value for item_id, name, field, value in self.answers()}
        people = sorted({name for _, name, _ in said})
        fields = {field for _, _, field in said}
        found = {}
        for one, other in combinations(people, 2):
            for field in fields:
                both = [
                    (value, said[item_id, other, field])
                    for (item_id, name, about), value in said.items()
                    if (name, about) == (one, field) and (item_id, other, field) in said
                ]
                if both:
                    found[one, other, field] = len(both), sum(a == b for a, b in both), kappa(both)
        return found

    def boundaries(self) -> dict[float, tuple[int, int, float | None]]:
        places = [
            [inner_ns(said) for _, row in self.blind(item) if (said := item.said(row)) is not None]
            for item in self.items
            if item.field == "segments"
        ]
        both = [pair for rows in places for pair in combinations(rows, 2)]
        total = sum(len(ours) + len(theirs) for ours, theirs in both)
        return {
            tolerance_s: (
                len(both),
                total,
                2 * sum(most_pairs(*pair, tolerance_s) for pair in both) / total if total else None,
            )
            for tolerance_s in (0.25, 0.5)
        }

    def strata(self) -> dict[tuple[str, ...], tuple[int, ...]]:
        """Items that no program doubts, in the order of their ids; audited are those before the first not looked at."""
        kinds: dict[tuple[str, ...], list[Item]] = {}
        for item in self.items:
            if not item.doubt:
                by = item.head["speaker"]
                key = (item.head["body"]["family"], item.field, f"{by[0]} {by[1]}", item.stratum)
                kinds.setdefault(key, []).append(item)
        found = {}
        for key, rows in kinds.items():
            audits = [item.audit for item in rows]
            run = audits[: audits.index("")] if "" in audits else audits
            num_waiting = sum(item.audit == "" and item.waits == "review" for item in rows)
            wrong = run.count("wrong")
            found[key] = len(rows), run.count("right") + wrong, wrong, num_waiting, audits.count("batch")
        return found


def edit_rates(looks: list[tuple[Item, dict[str, Any]]]) -> dict[str, tuple[int, int]]:
    """Of the accepts and edits, how many changed a field; fields that nobody ever had a chance to change by an edit are
    not named."""
    found: dict[str, tuple[int, int]] = {}
    for field in {item.field for item, _ in looks}:
        kept = [(item, row) for item, row in looks if item.field == field and row["action"] != "reject"]
        edits = [(item.base(row), row["payload"]) for item, row in kept if row["action"] == "edit"]
        tests: dict[str, Callable[[dict[str, Any], dict[str, Any]], bool]] = {"any field": lambda old, new: True}
        for before, after in edits:
            for name in {*claims(before), *claims(after)}:
                tests[name] = lambda old, new, name=name: claims(old).get(name) != claims(new).get(name)
            if field == "segments":
                tests["boundaries"] = lambda old, new: inner_ns(old) != inner_ns(new)
        if kept:
            found |= {f"{field}: {name}": (sum(test(*one) for one in edits), len(kept)) for name, test in tests.items()}
    return found


def speakers(looks: list[tuple[Item, dict[str, Any]]]) -> dict[tuple[Any, ...], tuple[int, int, int]]:
    found: dict[tuple[Any, ...], list[str]] = {}
    for item, row in looks:
        [base] = [one for one in item.proposals if one["proposal_id"] == row["base_proposal_id"]]
        found.setdefault((*base["speaker"], item.field), []).append(row["action"])
    return {key: (rows.count("edit"), rows.count("reject"), len(rows)) for key, rows in found.items()}


def same(one: dict[str, Any] | None, other: dict[str, Any] | None) -> bool:
    """The same words, and every boundary within a quarter of a second of its counterpart."""
    if one is None or other is None:
        return one is other
    ours, theirs = inner_ns(one), inner_ns(other)
    near = len(ours) == len(theirs) and all(abs(a - b) <= 250_000_000 for a, b in zip(ours, theirs, strict=True))
    return near and claims(one) == claims(other)


def alpha(units: list[list[str]]) -> float | None:
    """1 - observed / expected disagreement: over every ordered pair within a unit, and over every pair of all."""
    units = [unit for unit in units if len(unit) > 1]
    values = [value for unit in units for value in unit]
    apart = sum(a != b for a, b in permutations(values, 2))
    if not apart:
        return None
    observed = sum(Fraction(sum(a != b for a, b in permutations(unit, 2)), len(unit) - 1) for unit in units)
    return float(1 - observed / len(values) / Fraction(apart, len(values) * (len(values) - 1)))


def kappa(both: list[tuple[str, str]]) -> float | None:
    """(observed - expected) / (1 - expected): expected as if each drew from what they say."""
    expected = Fraction(sum(a == b for a, _ in both for _, b in both), len(both) ** 2)
    observed = Fraction(sum(a == b for a, b in both), len(both))
    return None if expected == 1 else float((observed - expected) / (1 - expected))


def most_pairs(ours: list[int], theirs: list[int], tolerance_s: float) -> int:
    """The most pairs that can be made, each boundary in one: every choice is tried."""
    if not ours:
        return 0
    first, rest = ours[0], ours[1:]
    best = most_pairs(rest, theirs, tolerance_s)
    for place, other in enumerate(theirs):
        if abs(first - other) <= tolerance_s * 1e9:
            best = max(best, 1 + most_pairs(rest, theirs[:place] + theirs[place + 1 :], tolerance_s))
    return best
