"""What people did, decision by decision: how fast they are, and how each speaker's proposals held."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from annotators.ledger.kept import Deed, Kept, Speaker


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What one person did."""

    reviewer: str
    num_decisions: int  # accepts, edits and rejects that they looked at, and did not take back
    num_batch: int  # accepted without a look
    num_skipped: int
    num_undone: int
    seconds: tuple[float, ...]  # they looked at each item, in the order of the decisions


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
    """One edit: which fields of what was proposed somebody changed, of all there are."""

    field: str
    changed: Mapping[str, bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Acts:
    """Everything that people did about the items that are wanted, counted."""

    paces: tuple[Pace, ...]  # of everybody, by name
    hourly: tuple[tuple[str, int], ...]  # decisions in each hour (UTC, `2026-01-31T09`) that had any, oldest first
    verdicts: tuple[Verdicts, ...]  # most decisions first
    edits: tuple[Edit, ...]  # that stand for themselves


def acts(kept: Kept, deeds: Sequence[Deed], reviewer: str | None) -> Acts:
    """Count what people did; hours, verdicts and edits of one reviewer alone, when named."""
    taken_back = {deed.undoes for deed in deeds}
    kinds: Counter[tuple[str, str]] = Counter()  # reviewer, what else than a look at an item
    hours: Counter[str] = Counter()
    seconds: dict[str, list[float]] = {}
    judged: Counter[tuple[Speaker, str, str]] = Counter()  # speaker, field, action
    edits: list[Edit] = []
    for deed in deeds:
        is_theirs = reviewer in (None, deed.reviewer)
        hours[deed.hour] += deed.is_look and is_theirs
        if deed.decision_id in taken_back:
            continue
        times = seconds.setdefault(deed.reviewer, [])
        if not deed.is_look:
            kinds[deed.reviewer, deed.action if deed.action in ("skip", "undo") else "batch"] += 1
            continue
        times.append(deed.lead_time_ms / 1000)
        if is_theirs and deed.track == "review":
            speaker, field = kept.speakers[deed.proposal_id]
            judged[speaker, field, deed.action] += 1
            if deed.action == "edit":
                edits.append(Edit(field=field, changed=kept.edits[deed.decision_id]))
    paces = [
        Pace(
            reviewer=name,
            num_decisions=len(times),
            num_batch=kinds[name, "batch"],
            num_skipped=kinds[name, "skip"],
            num_undone=kinds[name, "undo"],
            seconds=tuple(times),
        )
        for name, times in sorted(seconds.items())
    ]
    return Acts(
        paces=tuple(paces),
        hourly=tuple(sorted((hour, count) for hour, count in hours.items() if count)),
        verdicts=_verdicts(judged),
        edits=tuple(edits),
    )


def _verdicts(judged: Counter[tuple[Speaker, str, str]]) -> tuple[Verdicts, ...]:
    found: dict[tuple[Speaker, str], Counter[str]] = {}
    for (speaker, field, action), count in judged.items():
        found.setdefault((speaker, field), Counter())[action] += count
    rows = [
        Verdicts(
            speaker=speaker,
            field=field,
            num_accepted=counts["accept"],
            num_edited=counts["edit"],
            num_rejected=counts["reject"],
        )
        for (speaker, field), counts in found.items()
    ]
    return tuple(sorted(rows, key=lambda row: (-row.num_accepted - row.num_edited - row.num_rejected, str(row))))
