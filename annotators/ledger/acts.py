"""What people did, decision by decision: how fast they are, and how each speaker's proposals held."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from annotators.ledger.deeds import ACCEPT, BATCH, EDIT, KINDS, REJECT, SKIP, UNDO, Columns
from annotators.ledger.kept import Kept, Speaker


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pace:
    """What one person did."""

    reviewer: str
    num_decisions: int  # accepts, edits and rejects that they looked at, and did not take back
    num_batch: int  # accepted without a look
    num_skipped: int
    num_undone: int
    seconds: NDArray[np.float64]  # they looked at each item, in the order of the decisions


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdicts:
    """What people who looked did with the proposals of one speaker about one field."""

    speaker: Speaker
    field: str
    num_accepted: int
    num_edited: int
    num_rejected: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """Edits that changed the same fields of what was proposed, of all there are."""

    field: str
    changed: Mapping[str, bool]
    num: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Acts:
    """Everything that people did about the items that are wanted, counted."""

    paces: tuple[Pace, ...]  # of everybody, by name
    hourly: tuple[tuple[str, int], ...]  # decisions in each hour (UTC, `2026-01-31T09`) that had any, oldest first
    verdicts: tuple[Verdicts, ...]  # most decisions first
    edits: tuple[Edit, ...]  # that stand for themselves


def acts(kept: Kept, deeds: Columns, reviewer: str | None) -> Acts:
    """Count what people did; hours, verdicts and edits of one reviewer alone, when named."""
    people, hours, claims, edits = tuple(kept.people), tuple(kept.hours), tuple(kept.claims), tuple(kept.edits)
    is_look_D = deeds.kind_D <= REJECT
    is_theirs_D = np.ones(len(deeds.kind_D), dtype=bool)
    if reviewer is not None:
        is_theirs_D = deeds.person_D == (people.index(reviewer) if reviewer in people else -1)
    stands_D = ~deeds.is_taken_back_D
    num_in_hour = np.bincount(deeds.hour_D[is_look_D & is_theirs_D], minlength=len(hours)).tolist()
    judged_D = is_look_D & is_theirs_D & stands_D & deeds.is_review_D
    num_judged = _table(deeds.claim_D[judged_D], deeds.kind_D[judged_D], len(claims))
    alike, num_alike = np.unique(
        np.stack([deeds.claim_D, deeds.edit_D])[:, judged_D & (deeds.kind_D == EDIT)], axis=1, return_counts=True
    )
    return Acts(
        paces=tuple(_paces(deeds, people, stands_D, is_look_D)),
        hourly=tuple(sorted((hour, count) for hour, count in zip(hours, num_in_hour, strict=True) if count)),
        verdicts=_verdicts(claims, num_judged),
        edits=tuple(
            Edit(field=claims[claim][1], changed=dict(edits[edit]), num=num)
            for claim, edit, num in zip(*alike.tolist(), num_alike.tolist(), strict=True)
        ),
    )


def _table(row_D: NDArray[np.int64], kind_D: NDArray[np.int64], num_rows: int) -> list[list[int]]:
    """How many of each kind there are in each row."""
    counts = np.bincount(row_D * len(KINDS) + kind_D, minlength=num_rows * len(KINDS))
    table: list[list[int]] = counts.reshape(num_rows, len(KINDS)).tolist()
    return table


def _paces(
    deeds: Columns, people: tuple[str, ...], stands_D: NDArray[np.bool_], is_look_D: NDArray[np.bool_]
) -> list[Pace]:
    counts = _table(deeds.person_D[stands_D], deeds.kind_D[stands_D], len(people))
    looked_D = np.flatnonzero(stands_D & is_look_D)
    looked_D = looked_D[np.argsort(deeds.person_D[looked_D], kind="stable")]
    ends = list(accumulate(sum(row[: REJECT + 1]) for row in counts))
    seconds = np.split(deeds.lead_time_ms_D[looked_D] / 1000, ends)[: len(people)]
    return [
        Pace(
            reviewer=name,
            num_decisions=len(times),
            num_batch=row[BATCH],
            num_skipped=row[SKIP],
            num_undone=row[UNDO],
            seconds=times,
        )
        for name, row, times in sorted(zip(people, counts, seconds, strict=True), key=lambda one: one[0])
        if sum(row)
    ]


def _verdicts(claims: tuple[tuple[Speaker, str], ...], num_judged: list[list[int]]) -> tuple[Verdicts, ...]:
    rows = [
        Verdicts(speaker=speaker, field=field, num_accepted=row[ACCEPT], num_edited=row[EDIT], num_rejected=row[REJECT])
        for (speaker, field), row in zip(claims, num_judged, strict=True)
        if sum(row)
    ]
    return tuple(sorted(rows, key=lambda row: (-row.num_accepted - row.num_edited - row.num_rejected, str(row))))
