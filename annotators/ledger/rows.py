"""What the ledger gives back: frozen rows, and the rules that turn a history into the state of an item."""

from dataclasses import dataclass, replace
from typing import Literal, cast

from pydantic import JsonValue

from annotators.ledger.proposal_facts import cameras_of, speaker_of, substance, worst
from schemas.annotations import (
    NOBODY,
    Action,
    FieldName,
    Proposal,
    Verdict,
    VerifierResult,
)
from schemas.annotations import (
    AnyPayload as AnyPayload,
)
from schemas.content_hashes import ContentHashes
from schemas.errors import LedgerError
from schemas.records import sha256_of

ItemStatus = Literal["open", "accepted", "edited", "rejected", "skipped", "disputed"]
Track = Literal["review", "adjudication"]
On = Literal["look", "batch"]  # on what a decision rests: somebody looked, or a lead took many items at once
MOST_OVERLAP = 20
RANK_FAIL, RANK_DISAGREEMENT, RANK_UNKNOWN, RANK_RARE, RANK_REST = range(5)
RANK_WORDS = ("a verifier failed", "models disagree", "a verifier could not tell", "a rare kind of scene", "audit")


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
    track: Track = "review"
    saw_hash: str | None = None  # of what the verifiers had said; None when nobody noted it
    guideline: str | None = None  # version of the guideline that lay beside it; None when nobody noted it
    reason: str | None = None  # of a reject, from a short list
    ticked: str | None = None  # names of the fields that were accepted one by one, with spaces between
    basis: On = "look"

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
        if self.track != "review":
            fields["track"] = self.track
        for name in ("saw_hash", "guideline", "reason", "ticked"):
            if getattr(self, name) is not None:
                fields[name] = getattr(self, name)
        if self.basis != "look":
            fields["basis"] = self.basis
        return sha256_of(fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """How one item is reviewed."""

    overlap: int = 1  # how many people decide, each without seeing the others
    gold: str | None = None  # the decision that is the truth; everybody else is measured by it

    def __post_init__(self) -> None:
        if not 1 <= self.overlap <= MOST_OVERLAP:
            raise LedgerError(f"{self.overlap} people can not decide about one item. Use 1 to {MOST_OVERLAP}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemHistory:
    """Everything said about one item up to one seq, in order."""

    item_id: str
    episode_id: str
    stamp_ns: int
    field: FieldName
    proposals: tuple[StoredProposal, ...]
    decisions: tuple[StoredDecision, ...]
    assignment: Assignment = Assignment()

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
    def gold(self) -> StoredDecision | None:
        """The decision that is the truth, while it holds."""
        return next((row for row in self.live if row.decision_id == self.assignment.gold), None)

    @property
    def is_shared(self) -> bool:
        """True when several people decide about it, or everybody as a test: nobody sees what the others said."""
        return self.assignment.overlap > 1 or self.gold is not None

    @property
    def votes(self) -> dict[str, StoredDecision]:
        """The newest accept, edit or reject of each reviewer that counts, without those that settled a dispute."""
        return {row.reviewer: row for row in self.live if row.action != "skip" and row.track == "review"}

    @property
    def standing(self) -> StoredDecision | None:
        """The accept, edit or reject that holds now; None when nobody decided, or not enough people or not as one.

        The gold decision, else what an adjudicator said, else what all of enough people said, or the one who decides.
        """
        decided = [row for row in self.live if row.action != "skip"]
        rulings = [row for row in decided if row.track == "adjudication"]
        if self.gold is not None:
            return self.gold
        if self.assignment.overlap > 1 and not rulings and (self._differ or len(self.votes) < self.assignment.overlap):
            return None
        return next(reversed(rulings if self.assignment.overlap > 1 and rulings else decided), None)

    @property
    def _differ(self) -> bool:
        return len({self.said(row) for row in self.votes.values()}) > 1

    @property
    def disputed(self) -> bool:
        """True when enough people decided, not as one, and nobody settled it."""
        return self.standing is None and len(self.votes) >= self.assignment.overlap > 1

    def said(self, decision: StoredDecision) -> str:
        """What a decision amounts to, to compare it with another one."""
        if decision.action == "reject":
            return "reject"
        return substance(decision.payload or self.proposal(decision.base_proposal_id).proposal.payload)

    def facing(self, reviewer: str) -> tuple[StoredDecision, ...]:
        """The decisions that a reviewer's own must not pass over: of a shared item only their own and settlements."""
        if not self.is_shared:
            return self.decisions
        return tuple(row for row in self.decisions if row.reviewer == reviewer or row.track == "adjudication")

    def as_seen_by(self, reviewer: str) -> "ItemHistory":
        """What a reviewer may know: of an unsettled shared item, and of gold, only what they did themselves."""
        if not self.is_shared or (self.gold is None and self.standing is not None):
            return self
        own = tuple(row for row in self.decisions if row.reviewer == reviewer and row.track == "review")
        return replace(self, decisions=own, assignment=Assignment())

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
        if self.disputed:
            return "disputed"
        return "skipped" if self.live and not self.votes else "open"

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
        """Order of review: verifier fail > disagreement > unknown > rest, of which the ledger puts rare scenes first.

        Self-reported confidence plays no part.
        """
        if self.head.verdict == "fail":
            return RANK_FAIL
        spoken = [row.proposal for row in self.proposals if row.proposal.provenance != NOBODY]
        newest = {speaker_of(proposal): substance(proposal.payload) for proposal in spoken}
        if len(set(newest.values())) > 1 or self.conflict:
            return RANK_DISAGREEMENT
        return RANK_UNKNOWN if self.head.verdict == "unknown" else RANK_REST

    def waits(self, now: ContentHashes | None) -> Track | Literal["gold", ""]:
        """Whom the item waits for, in an episode that is like `now`; empty when it is settled."""
        if self.gold is not None:
            return "gold"
        if self.standing is None:
            return "adjudication" if self.disputed else "review"
        if not self.conflict and not self.stale(now):
            return ""
        return "adjudication" if self.is_shared else "review"


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
    votes: tuple[StoredDecision, ...] = ()  # what an adjudicator has to settle


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
