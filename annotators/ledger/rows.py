"""What the ledger gives back: frozen rows, and the rules that turn a history into the state of an item."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from pydantic import JsonValue

from schemas.annotations import (
    Action,
    FieldName,
    Proposal,
    ReasoningTrace,
    SegmentList,
    Verdict,
    VerifierResult,
    render_payload,
)
from schemas.chat import chat_marker
from schemas.content_hashes import ContentHashes
from schemas.records import canonical_json, sha256_of

type AnyPayload = ReasoningTrace | SegmentList
ItemStatus = Literal["open", "accepted", "edited", "rejected", "skipped"]
RANK_FAIL, RANK_DISAGREEMENT, RANK_UNKNOWN, RANK_REST = range(4)
RANK_WORDS = ("a verifier failed", "models disagree", "a verifier could not tell", "audit")


def item_id_of(episode_id: str, stamp_ns: int, field: FieldName) -> str:
    """The id of the one thing a reviewer decides about."""
    return sha256_of([episode_id, stamp_ns, field])


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredProposal:
    """A proposal as the ledger holds it, with what the verifiers last said about it."""

    seq: int
    proposal_id: str
    item_id: str
    run_id: str
    created: str  # ISO 8601, UTC
    proposal: Proposal
    results: tuple[VerifierResult, ...]
    seen: tuple[ContentHashes, ...] = ()  # what its episode was like each time it was said; () when nobody noted it

    def misfit(self, now: ContentHashes | None) -> str:
        """Why it no longer fits an episode that is like `now`; empty when it does, or when nobody can tell."""
        if now is None or not self.seen:
            return ""
        reasons = [seen.difference(now, cameras=cameras_of(self.proposal)) for seen in self.seen]
        return "" if None in reasons else str(reasons[-1])

    @property
    def verdict(self) -> Verdict:
        """The worst of all results; unknown where nobody looked."""
        return worst(self.results)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDecision:
    """One link of the chain of decisions."""

    seq: int
    decision_id: str
    item_id: str
    base_proposal_id: str
    action: Action
    payload: AnyPayload | None  # only for edits
    undoes: str | None  # only for undo: the decision it takes back
    reviewer: str
    note: str
    lead_time_ms: int
    idem_key: str
    created: str  # ISO 8601, UTC
    prev_hash: str
    hash: str
    seen: ContentHashes | None = None  # what the episode was like; None when nobody noted it

    def link_hash(self) -> str:
        """What `hash` must be: it covers every other field and the hash before it."""
        fields: dict[str, JsonValue] = {
            "seq": self.seq,
            "decision_id": self.decision_id,
            "item_id": self.item_id,
            "base_proposal_id": self.base_proposal_id,
            "action": self.action,
            "payload": None if self.payload is None else self.payload.model_dump(mode="json"),
            "undoes": self.undoes,
            "reviewer": self.reviewer,
            "note": self.note,
            "lead_time_ms": self.lead_time_ms,
            "idem_key": self.idem_key,
            "created": self.created,
            "prev_hash": self.prev_hash,
        }
        if self.seen is not None:  # a decision from before this field keeps its hash
            fields["seen"] = self.seen.model_dump(mode="json")
        return sha256_of(fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemHistory:
    """Everything said about one item up to one seq, in order."""

    item_id: str
    episode_id: str
    stamp_ns: int
    field: FieldName
    proposals: tuple[StoredProposal, ...]
    decisions: tuple[StoredDecision, ...]

    @property
    def head(self) -> StoredProposal:
        """The newest proposal."""
        return self.proposals[-1]

    @property
    def live(self) -> tuple[StoredDecision, ...]:
        """The decisions that were not undone, without the undos."""
        undone = {row.undoes for row in self.decisions if row.action == "undo"}
        return tuple(row for row in self.decisions if row.action != "undo" and row.decision_id not in undone)

    @property
    def standing(self) -> StoredDecision | None:
        """The accept, edit or reject that holds now; None when nobody decided."""
        return next((row for row in reversed(self.live) if row.action != "skip"), None)

    def proposal(self, proposal_id: str) -> StoredProposal:
        """One of this item's proposals."""
        return next(row for row in self.proposals if row.proposal_id == proposal_id)

    @property
    def last_word(self) -> StoredDecision | None:
        """What a reviewer should know was done: the standing decision, else a skip."""
        return self.standing or (self.live[-1] if self.live else None)

    @property
    def confirmed(self) -> AnyPayload | None:
        """What a person said is true; None when nobody did, or when the item is rejected."""
        decision = self.standing
        if decision is None or decision.action == "reject":
            return None
        return decision.payload or self.proposal(decision.base_proposal_id).proposal.payload

    @property
    def status(self) -> ItemStatus:
        """Where the item stands."""
        if self.standing is not None:
            return cast(
                ItemStatus, {"accept": "accepted", "edit": "edited", "reject": "rejected"}[self.standing.action]
            )
        return "skipped" if self.live else "open"

    @property
    def conflict(self) -> bool:
        """True when a proposal newer than the standing decision says something else than the person did."""
        decision = self.standing
        if decision is None:
            return False
        newer = [row for row in self.proposals if row.seq > decision.seq]
        said = self.confirmed or self.proposal(decision.base_proposal_id).proposal.payload
        return any(substance(row.proposal.payload) != substance(said) for row in newer)

    def stale(self, now: ContentHashes | None) -> str:
        """Why what stands, a decision or else the newest proposal, no longer fits an episode that is like `now`.

        Empty when it fits, or when nobody can tell.
        """
        decision = self.standing
        if decision is None:
            return self.head.misfit(now)
        if now is None or decision.seen is None:
            return ""
        cameras = cameras_of(self.proposal(decision.base_proposal_id).proposal)
        return decision.seen.difference(now, cameras=cameras) or ""

    @property
    def rank(self) -> int:
        """Order of review: verifier fail > disagreement > unknown > rest. Self-reported confidence plays no part."""
        if self.head.verdict == "fail":
            return RANK_FAIL
        newest = {_speaker(row.proposal): substance(row.proposal.payload) for row in self.proposals}
        if len(set(newest.values())) > 1 or self.conflict:
            return RANK_DISAGREEMENT
        return RANK_UNKNOWN if self.head.verdict == "unknown" else RANK_REST


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewItem:
    """An item as a reviewer gets it."""

    item_id: str
    episode_id: str
    stamp_ns: int
    field: FieldName
    status: ItemStatus
    conflict: bool
    rank: int
    revision: int  # number of decisions when it was read: hand it back to `decide`
    head: StoredProposal
    proposals: tuple[StoredProposal, ...]
    history: tuple[StoredDecision, ...]
    confirmed: AnyPayload | None
    last_word: StoredDecision | None  # the decision that stands, or a skip; None when the item is open
    lease_owner: str | None  # who works on it now; None when nobody does
    lease_until_ms: int
    stale: str = ""  # why what stands no longer fits its episode; empty when it does


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueRow:
    """One line of the queue."""

    item_id: str
    episode_id: str
    stamp_ns: int
    field: FieldName
    status: ItemStatus
    conflict: bool
    rank: int
    decided_by: str | None
    lease_owner: str | None
    stale: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far the review is."""

    num_items: int
    by_status: dict[str, int]  # decided items that are stale under "stale"
    by_reviewer: dict[str, int]  # items whose standing decision is theirs
    by_rank: dict[int, int]  # of the items that wait
    num_conflicts: int
    num_decisions: int  # in the whole chain, skips and undos included

    @property
    def num_done(self) -> int:
        """Items that are accepted, edited or rejected."""
        return sum(self.by_status.get(status, 0) for status in ("accepted", "edited", "rejected"))

    @property
    def num_left(self) -> int:
        """Items that nobody decided about."""
        return self.num_items - self.num_done


def cameras_of(proposal: Proposal) -> tuple[str, ...] | None:
    """The cameras whose pictures a proposal rests on: () = none, None = it does not say, so all of them."""
    if proposal.field == "segments":
        return ()  # cut from numbers: no colour changes when an arm moves
    named = {
        str(image["camera"]) for image in proposal.images.values() if isinstance(image, dict) and "camera" in image
    }
    return tuple(sorted(named)) or None


def worst(results: Sequence[VerifierResult]) -> Verdict:
    """fail over unknown over pass; unknown where there is no result."""
    verdicts = {row.verdict for row in results}
    if "fail" in verdicts:
        return "fail"
    return "pass" if verdicts == {"pass"} else "unknown"


def substance(payload: AnyPayload) -> str:
    """Hash of what a payload claims, without where it was seen: two readings of the same card agree."""
    fields = payload.model_dump(mode="json")
    for card in fields.get("cards", ()):
        card.pop("box_xyxy")
    return sha256_of(fields)


def payload_marker(payload: AnyPayload) -> str | None:
    """The first chat marker in a payload, which a tokenizer would not read as words; None when there is none."""
    return chat_marker(canonical_json(payload.model_dump(mode="json"))) or chat_marker(render_payload(payload))


def _speaker(proposal: Proposal) -> tuple[str, str, str | None]:
    return proposal.provenance.backend, proposal.provenance.model, proposal.provenance.prompt_hash
