"""Freezing the ledger: (seq, policy, filter) -> an immutable annotation set whose rows say on whose word they rest.

* human: a person looked at it, and accepted or edited it.
* verified: every hard verifier passed and at least one looked; people may not have. What a person edited is left out,
  because the proposal is then known to be wrong, and so are segments that were cut with another rig than the episodes'.
* either: a person's word where there is one, also for a batch that nobody looked at one by one, else verified.

What was said or decided about pictures or a clock that have changed since is stale and counts as not said; where a trim
cut an episode, what was said about the rest of it is released for the rest. A person's reject leaves the item out under
every policy, and a reject that calls the whole episode unusable leaves out everything about it. What is left out is a
row in `rejected`, with its reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from annotators.inputs import numbers_hash
from annotators.ledger import ItemHistory, Ledger, StoredDecision, StoredProposal
from annotators.ledger.proposal_facts import annotator_of, stratum_of
from annotators.ledger.rows import AnyPayload, Assignment
from dataengine.artifacts import Draft, begin
from dataengine.episode_set import EpisodeRow, EpisodeSet
from dataengine.workspace import Workspace
from schemas.annotations import (
    RELEASE_SCHEMA,
    UNUSABLE,
    Basis,
    ReasoningTrace,
    ReleasePolicy,
    SegmentList,
    release_schema,
)
from schemas.content_hashes import ContentHashes
from schemas.errors import UsageError
from schemas.records import InputRef, Record, RejectedRow, canonical_json, sha256_of
from schemas.refs import Ref
from schemas.scenes import PlacementTrace, SceneNotes
from schemas.spans import frame_ns

FILE = "annotations.parquet"
_NOT_IDENTITY = ("ledger_seq",)  # depends on the order in which workers finished, not on what was said


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """One item that goes out: what is true, and on whose word."""

    history: ItemHistory
    payload: AnyPayload
    proposal: StoredProposal
    basis: Basis
    decision: StoredDecision | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Withheld:
    """One item that stays back, and why."""

    history: ItemHistory
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseFilter:
    """Which items go in; None = all. Of several proposals the newest says what an item is."""

    field: str | None = None
    family: str | None = None
    annotator: str | None = None
    stratum: str | None = None

    def admits(self, history: ItemHistory) -> bool:
        """True for an item that is wanted."""
        newest = history.head.proposal
        said = {
            "field": history.field,
            "family": newest.family,
            "annotator": annotator_of(newest),
            "stratum": stratum_of(newest),
        }
        return all(said[name] == value for name, value in self.to_json().items())

    def to_json(self) -> dict[str, str]:
        """What is asked for, by name."""
        parts = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in parts.items() if value is not None}


EVERYTHING = ReleaseFilter()


class SpanError(ValueError):
    """A payload's times do not fit its episode; it becomes a row in `rejected`."""


def release(
    *,
    episodes: Ref,
    to: Ref,
    workspace: Workspace,
    ledger: Ledger,
    policy: ReleasePolicy,
    seq: int | None = None,
    wanted: ReleaseFilter = EVERYTHING,
) -> Record:
    """Freeze the ledger at `seq` (now, when None) under `policy` into `annotations/NAME@VERSION`.

    Only items of the episodes in `episodes` go in, and of these what is `wanted`. Returns the record; the existing one
    when nothing differs, whatever else the ledger holds by now: the state of these items is its identity, the seq a
    note. Raises UsageError for an unknown policy, LedgerError for a seq that is not reached, ArtifactError for a taken
    version.
    """
    if policy not in get_args(ReleasePolicy):
        raise UsageError(f"'{policy}' is no release policy. Use {', '.join(get_args(ReleasePolicy))}.")
    shown = EpisodeSet.open(workspace, episodes)
    frozen_seq, histories = ledger.snapshot(seq=seq)
    ours = _in_dataset_order(shown, histories)
    recipe: dict[str, Any] = {
        "episodes": str(episodes),
        "policy": policy,
        "state": sha256_of([_state(history) for history in ours]),
        "schema_version": RELEASE_SCHEMA,
    }
    if wanted != EVERYTHING:
        recipe["filter"] = wanted.to_json()
    inputs = [InputRef(kind="episodes", ref=str(episodes), fingerprint=shown.fingerprint)]
    draft = begin(workspace, "annotations", to, recipe=recipe, inputs=inputs)
    if isinstance(draft, Record):
        return draft
    with draft:
        return _write(draft, shown, ours, policy, frozen_seq, wanted)


def choose(
    history: ItemHistory, policy: ReleasePolicy, numbers: str, now: ContentHashes | None = None
) -> Released | Withheld:
    """What one item's history amounts to under a policy, for episodes whose rig has the hash `numbers`.

    `now` is what its episode is like; a decision about anything else does not count, except that a reject stays one.
    """
    decision = history.standing
    if decision is None and history.votes:
        people = ", ".join(sorted(history.votes))
        why = "disagree" if history.disputed else f"decided, {history.assignment.overlap} have to"
        return Withheld(history=history, reason=f"not settled: {people} {why}")
    stale = history.stale(now) if decision is not None else ""
    if decision is not None and decision.action == "reject":
        words = f": {decision.note}" if decision.note else ""
        since = f"; stale since: {stale}, decide again" if stale else ""
        return Withheld(history=history, reason=f"rejected by {decision.reviewer}{words}{since}")
    if decision is not None and stale:
        if policy == "human":
            reason = f"stale: {decision.reviewer} decided ({decision.action}), and {stale} since; decide again"
            return Withheld(history=history, reason=reason)
        decision = None
    if decision is not None and decision.basis == "batch" and policy == "human":
        reason = f"accepted in a batch by {decision.reviewer}, nobody looked at it (policy either releases it)"
        return Withheld(history=history, reason=reason)
    if decision is not None and policy != "verified":
        word: Basis = "batch" if decision.basis == "batch" else "human"
        base = history.proposal(decision.base_proposal_id)
        payload = decision.payload or base.proposal.payload
        return Released(history=history, payload=payload, proposal=base, basis=word, decision=decision)
    if policy == "human":
        return Withheld(history=history, reason="no decision")
    if decision is not None and decision.action == "edit":
        reason = f"edited by {decision.reviewer}, so the proposal is wrong (policy human or either releases the edit)"
        return Withheld(history=history, reason=reason)
    candidates = history.proposals if decision is None else (history.proposal(decision.base_proposal_id),)
    fitting = [row for row in candidates if _fits(row, numbers) and not row.misfit(now)]
    chosen = fitting[-1] if fitting else history.head
    doubt = _why_unverified(chosen) if fitting else _why_unfit(chosen, now)
    if doubt is not None:
        words = f"{'a stale' if stale else 'no'} decision, and {doubt}" if policy == "either" else doubt
        return Withheld(history=history, reason=words)
    payload = chosen.proposal.payload
    return Released(history=history, payload=payload, proposal=chosen, basis="verified", decision=decision)


def _fits(stored: StoredProposal, numbers: str) -> bool:
    """False for segments that were cut with another rig; what names no inputs was not computed here."""
    made_from = stored.proposal.provenance.inputs_hash
    return stored.proposal.field != "segments" or made_from in (None, numbers)


def _why_unfit(stored: StoredProposal, now: ContentHashes | None) -> str:
    stale = stored.misfit(now)
    what = f"stale: {stale} since it was proposed" if stale else "cut with another rig than these episodes have"
    return f"{what}; annotate again"


def _why_unverified(stored: StoredProposal) -> str | None:
    """Why a proposal is not verified; None when it is. Unknown is not pass."""
    hard = [row for row in stored.results if row.hard]
    for verdict, words in (("fail", "failed"), ("unknown", "unknown")):
        for row in hard:
            if row.verdict == verdict:
                return f"verifier {row.verifier} {words}: {row.evidence}"
    return None if hard else "no hard verifier looked at it"


def _state(history: ItemHistory) -> list[Any]:
    """What the item's part of the ledger says, free of the order in which items arrived."""
    said = [
        [row.proposal_id, sorted(canonical_json(result.model_dump(mode="json")) for result in row.results)]
        for row in history.proposals
    ]
    seen = sorted(canonical_json(one.model_dump(mode="json")) for row in history.proposals for one in row.seen)
    rule = history.assignment
    shared = [] if rule == Assignment() else [{"overlap": rule.overlap, "gold": rule.gold}]
    return [history.item_id, said, [row.decision_id for row in history.decisions], *([seen] if seen else []), *shared]


def _in_dataset_order(shown: EpisodeSet, histories: Sequence[ItemHistory]) -> list[ItemHistory]:
    place = {episode_id: index for index, episode_id in enumerate(shown.ids())}
    ours = [history for history in histories if history.episode_id in place]
    return sorted(ours, key=lambda history: (place[history.episode_id], history.field, history.stamp_ns))


def _write(
    draft: Draft,
    shown: EpisodeSet,
    histories: Sequence[ItemHistory],
    policy: ReleasePolicy,
    seq: int,
    wanted: ReleaseFilter,
) -> Record:
    rows: list[dict[str, Any]] = []
    rejected: list[RejectedRow] = []
    counts: dict[str, int | float] = dict.fromkeys(("rows", "items", "released", "human", "verified"), 0)
    silent = dict.fromkeys(shown.ids())
    numbers = numbers_hash(shown.rig)
    unusable = _unusable(histories)
    for index, history in enumerate(histories):
        silent.pop(history.episode_id, None)
        if not wanted.admits(history):
            continue
        counts["items"] += 1
        row = shown.row(history.episode_id)
        if said := unusable.get(history.episode_id):
            rejected.append(RejectedRow(episode=history.episode_id, reason=said))
            continue
        chosen = choose(history, policy, numbers, row.hashes)
        if isinstance(chosen, Released):
            following = histories[index + 1] if index + 1 < len(histories) else None
            try:
                made = _rows(chosen, _end_ns(shown, history, following), _Window.of(shown, row))
            except SpanError as error:
                chosen = Withheld(history=history, reason=str(error))
            else:
                rows += made
                counts["released"] += 1
                counts[chosen.basis] = counts.get(chosen.basis, 0) + 1
                continue
        rejected.append(RejectedRow(episode=history.episode_id, reason=f"{history.field}: {chosen.reason}"))
    rejected += [RejectedRow(episode=episode_id, reason="no proposal") for episode_id in silent]
    pq.write_table(pa.Table.from_pylist(rows, schema=release_schema()), draft.path / FILE)
    counts |= {"rows": len(rows), "episodes": len({row["episode_id"] for row in rows}), "rejected": len(rejected)}
    logical = [{key: value for key, value in row.items() if key not in _NOT_IDENTITY} for row in rows]
    fingerprint = sha256_of({"schema_version": RELEASE_SCHEMA, "rows": logical})
    return draft.publish(fingerprint=fingerprint, counts=counts, rejected=rejected, notes={"ledger_seq": seq})


def _unusable(histories: Sequence[ItemHistory]) -> dict[str, str]:
    """Episodes that somebody called unusable, with the sentence that `AnnotationSet.unusable` finds them by."""
    said = {}
    for history in histories:
        decision = history.standing
        if decision is not None and decision.reason == UNUSABLE:
            said[history.episode_id] = f"{UNUSABLE}, says {decision.reviewer}: {decision.note or 'no reason given'}"
    return said


def _end_ns(shown: EpisodeSet, history: ItemHistory, following: ItemHistory | None) -> int:
    """Where an item's span ends: at the next item of its field, else with the recording."""
    if following is not None and (following.episode_id, following.field) == (history.episode_id, history.field):
        return following.stamp_ns
    return frame_ns(shown.row(history.episode_id).source_frames, shown.rate_hz)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Window:
    """The stretch of a recording that a trim left, in source time."""

    start_ns: int
    end_ns: int

    @classmethod
    def of(cls, shown: EpisodeSet, row: EpisodeRow) -> "_Window":
        return cls(start_ns=row.start_ns, end_ns=shown.end_ns(row.episode_id))

    def cut(self, start_ns: int, end_ns: int) -> tuple[int, int] | None:
        """What of a span is left; None where nothing is."""
        start_ns, end_ns = max(start_ns, self.start_ns), min(end_ns, self.end_ns)
        return (start_ns, end_ns) if start_ns < end_ns else None


_TRIMMED = "it lies in what was trimmed off"


def _rows(released: Released, end_ns: int, window: _Window) -> list[dict[str, Any]]:
    """The rows of one item: one for a trace or a scene, one per segment. Raises SpanError when a time does not fit."""
    start_ns = released.history.stamp_ns
    match released.payload:
        case ReasoningTrace() | PlacementTrace() | SceneNotes() as whole:
            if start_ns >= end_ns:
                raise SpanError(f"it starts at {start_ns} ns, and the episode ends at {end_ns} ns")
            span = window.cut(start_ns, end_ns)
            if span is None:
                raise SpanError(_TRIMMED)
            field = "scene" if isinstance(whole, SceneNotes) else "trace"
            return [_row(released, field, *span, whole.render(), whole.model_dump(mode="json"))]
        case SegmentList() as listed:
            rows = []
            before = start_ns
            for number, part in enumerate(listed.segments, 1):
                if not before <= part.start_ns < part.end_ns <= end_ns:
                    raise SpanError(
                        f"segment {number} [{part.start_ns}, {part.end_ns}) ns is not between {before} and {end_ns}"
                    )
                before = part.end_ns
                span = window.cut(part.start_ns, part.end_ns)
                if span is not None:
                    left = part.model_copy(update={"start_ns": span[0], "end_ns": span[1]})
                    rows.append(_row(released, "segment", *span, left.render(), left.model_dump(mode="json")))
            if not rows:
                raise SpanError(_TRIMMED if listed.segments else "it holds no segment")
            return rows


def _row(
    released: Released,
    field: str,
    start_ns: int,
    end_ns: int,
    text: str,
    payload: dict[str, Any],
) -> dict[str, Any]:
    stored, decision = released.proposal, released.decision
    provenance = stored.proposal.provenance
    return {
        "episode_id": released.history.episode_id,
        "field": field,
        "start_ns": start_ns,
        "end_ns": end_ns,
        "text": text,
        "payload_json": canonical_json(payload),
        "basis": released.basis,
        "family": stored.proposal.family,
        "proposal_id": stored.proposal_id,
        "backend": provenance.backend,
        "model": provenance.model,
        "prompt_hash": provenance.prompt_hash,
        "call_keys": list(provenance.call_keys),
        # About the proposal that proposal_id names, also where a person edited it.
        "verifiers_json": canonical_json([row.model_dump(mode="json") for row in _by_name(stored)]),
        "decision_id": decision.decision_id if decision else None,
        "decision_action": decision.action if decision else None,
        "reviewer": decision.reviewer if decision else None,
        "decided_at": decision.created if decision else None,
        "ledger_seq": decision.seq if decision else stored.seq,
    }


def _by_name(stored: StoredProposal) -> list[Any]:
    return sorted(stored.results, key=lambda row: row.verifier)
