"""A reviewer's desk, without a page: which item is shown, what was typed, and how that becomes a decision.

All truth is in the ledger. What a browser holds between two clicks is a `Token`: it names what was shown, and the
ledger checks every part of it again, so a second tab, a reload or a forged token can spoil nothing.
"""

import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from annotators.ledger import ItemStatus, Ledger, Progress, QueueFilter, QueueRow, ReviewItem, StoredDecision, Track
from annotators.ledger.batch import Batch
from annotators.ledger.rows import AnyPayload, substance
from annotators.ledger.statistics import Statistics
from annotators.review import Reading, TraceForm, read_segments, read_trace, segment_rows
from dataengine.episode_set import EpisodeSet
from dataengine.workspace import Workspace
from schemas.annotations import Action, ReasoningTrace, SegmentList
from schemas.errors import LedgerError
from schemas.refs import Ref
from schemas.scenes import PlacementTrace, SceneNotes
from schemas.spans import frame_ns

Choice = Literal["accept", "edit", "reject", "skip"]
UNSAVED = "You changed fields. Save the edit (Ctrl+Enter), or reset the fields first."


class Token(BaseModel):
    """What a browser remembers of the item it shows."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    item_id: str
    base_proposal_id: str
    revision: int
    key: str  # fresh each time an item is shown: sending a decision twice counts once
    shown_ms: int
    track: Track = "review"

    @classmethod
    def read(cls, text: str | None) -> "Token | None":
        """The token in a text; None when nothing is shown."""
        try:
            return cls.model_validate_json(text or "")
        except ValidationError:
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Typed:
    """The fields of the page, as they are now."""

    trace: TraceForm
    segments: tuple[tuple[str, ...], ...]
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """An item with the token that its page holds, and what its fields start with."""

    item: ReviewItem
    token: Token
    reviewer: str  # to whom: of a shared item that is not settled nobody sees what others said

    @property
    def start(self) -> AnyPayload:
        """What the fields start with: what a person confirmed, else the newest proposal."""
        return self.item.confirmed or self.newest

    @property
    def newest(self) -> AnyPayload:
        """What the newest proposal says."""
        return self.item.head.proposal.payload


class Desk:
    """One set of episodes, one ledger, any number of reviewers."""

    def __init__(self, *, workspace: Workspace, episodes: Ref, ledger_url: str) -> None:
        self.episodes = EpisodeSet.open(workspace, episodes)
        self.ledger = Ledger.open(ledger_url)
        self.looking = threading.Lock()  # an EpisodeSet's decoders are not for several threads at once
        ids = self.episodes.ids()
        self._scope = self.ledger.scope(ids)
        hashes = {name: self.episodes.row(name).hashes for name in ids}
        self.num_stale = self.ledger.refit({name: now for name, now in hashes.items() if now is not None})

    def wanted(
        self, *, status: str | None = None, rank: int | None = None, search: str = "", facet: str = ""
    ) -> QueueFilter:
        """A filter over the items of these episodes; `facet` as `facets` spells it, e.g. `verifier=arithmetic`."""
        chosen = cast(ItemStatus, status) if status in get_args(ItemStatus) else None
        stale = True if status == "stale" else None
        name, _, value = facet.partition("=")
        found = {name: value}
        return QueueFilter(
            status=chosen,
            stale=stale,
            rank=rank,
            search=search.strip(),
            scope=self._scope,
            family=found.get("family"),
            annotator=found.get("annotator"),
            stratum=found.get("stratum"),
            verifier=found.get("verifier"),
        )

    def statistics(self, *, reviewer: str | None) -> Statistics:
        """How good, how fast and how far the review of these episodes is; of one reviewer alone, when named."""
        return self.ledger.statistics(self.wanted(), reviewer=reviewer)

    def accept_batch(self, *, reviewer: str, stratum: QueueFilter, bound: float) -> Batch:
        """Accept at once what waits in one stratum of these episodes; LedgerError where audits do not allow it."""
        return self.ledger.accept_batch(reviewer=reviewer, wanted=replace(stratum, scope=self._scope), bound=bound)

    def facets(self) -> list[tuple[str, str]]:
        """What the queue can be filtered by: words for people, and how `wanted` takes them."""
        found = self.ledger.facets(self.wanted())
        return [(f"{name}: {value}", f"{name}={value}") for name, values in found.items() for value in values]

    def take(
        self, *, reviewer: str, wanted: QueueFilter, item_id: str | None = None, track: Track = "review"
    ) -> Shown | None:
        """Lease the next item, or the named one; None when nothing waits."""
        item = self.ledger.claim(reviewer=reviewer, item_id=item_id, wanted=wanted, track=track)
        return None if item is None else shown(item, reviewer, track)

    def look(self, item_id: str, *, reviewer: str) -> Shown:
        """An item as somebody may see it, without leasing it."""
        return shown(self.ledger.item(item_id, reviewer=reviewer), reviewer)

    def renew(self, *, token: Token, reviewer: str) -> None:
        """Keep the lease of someone who is at work; whose it is now is checked when they decide."""
        if reviewer:
            self.ledger.renew(reviewer=reviewer, item_id=token.item_id)

    def again(self, token: Token, reviewer: str) -> Shown:
        """The item a token names, as the ledger has it now."""
        item = self.ledger.item(token.item_id, reviewer=reviewer, track=token.track)
        return Shown(item=item, token=token, reviewer=reviewer)

    def queue(self, wanted: QueueFilter, *, reviewer: str | None = None, track: Track = "review") -> list[QueueRow]:
        """The queue, in order."""
        return self.ledger.queue(wanted, reviewer=reviewer, track=track)

    def progress(self) -> Progress:
        """How far these episodes are."""
        return self.ledger.progress(self.wanted())

    def read(self, shown: Shown, typed: Typed) -> Reading:
        """What the fields amount to now. Fields that say what the newest proposal says stand for all of it."""
        start = shown.start
        if _differs(start, typed) and not _differs(shown.newest, typed):
            return Reading(payload=shown.newest)
        match start:
            case ReasoningTrace():
                return read_trace(typed.trace, start)
            case SegmentList():
                return read_segments(typed.segments, start, end_ns=self.end_ns(shown.item.episode_id))
            case PlacementTrace() | SceneNotes():  # no form holds them: they are accepted or rejected as they are
                return Reading(payload=start)

    def is_changed(self, shown: Shown, typed: Typed) -> bool:
        """True when the fields no longer say what they started with."""
        return _differs(shown.start, typed)

    def end_ns(self, episode_id: str) -> int:
        """Where an episode's recording ends; a trim does not move it."""
        return frame_ns(self.episodes.row(episode_id).source_frames, self.episodes.rate_hz)

    def segments(self, shown: Shown) -> SegmentList | None:
        """The segments to draw under the video: the item's own, else what is known about the same episode."""
        if isinstance(shown.start, SegmentList):
            return shown.start
        found = self.ledger.proposals(episode_ids=[shown.item.episode_id], field="segments")
        if not found:
            return None
        item = self.ledger.item(found[-1].item_id, reviewer=shown.reviewer, track=shown.token.track)
        payload = item.confirmed or item.head.proposal.payload
        return payload if isinstance(payload, SegmentList) else None

    def decide(self, choice: Choice, *, token: Token, reviewer: str, typed: Typed) -> StoredDecision:
        """Write one decision. Raises LedgerError, in words for the reviewer, when it can not be saved as it stands.

        What is confirmed is what is shown: an accept of fields that say something else than the proposal is written as
        an edit, and an edit back to the words of the proposal as an accept.
        """
        before = self.again(token, reviewer)
        payload: AnyPayload | None = None
        action: Action = choice
        if choice == "edit":
            payload = self._edited(before, typed)
        elif self.is_changed(before, typed) and before.item.revision == token.revision:
            raise LedgerError(UNSAVED)
        elif choice == "accept":
            payload = before.start
        if payload is not None:
            same = substance(payload) == substance(before.newest)
            action, payload = ("accept", None) if same else ("edit", payload)
        return self.ledger.decide(
            item_id=token.item_id,
            base_proposal_id=token.base_proposal_id,
            action=action,
            reviewer=reviewer,
            payload=payload,
            idem_key=f"{token.key}:{choice}",
            lead_time_ms=max(0, _now_ms() - token.shown_ms),
            note=typed.note.strip(),
            base_revision=token.revision,
            seen=self.episodes.row(before.item.episode_id).hashes,
            track=token.track,
        )

    def _edited(self, before: Shown, typed: Typed) -> AnyPayload:
        reading = self.read(before, typed)
        if reading.payload is None:
            raise LedgerError(f"Not saved yet. {' '.join(reading.problems)}")
        if reading.payload == before.newest == before.start:
            raise LedgerError("The fields say what the proposal says. Press Accept, or change a field.")
        return reading.payload

    def undo(self, *, reviewer: str, token: Token | None) -> Shown | None:
        """Take back the reviewer's last decision and show its item again; None when there is nothing to take back."""
        key = token.key if token is not None else uuid.uuid4().hex
        taken = self.ledger.undo(reviewer=reviewer, idem_key=f"{key}:undo")
        if taken is None:
            return None
        return self.take(reviewer=reviewer, wanted=self.wanted(), item_id=taken.item_id, track=taken.track)

    def close(self) -> None:
        """Close the ledger and the videos."""
        self.ledger.close()
        self.episodes.close()


def shown(item: ReviewItem, reviewer: str, track: Track = "review") -> Shown:
    """An item with a fresh token."""
    token = Token(
        item_id=item.item_id,
        base_proposal_id=item.head.proposal_id,
        revision=item.revision,
        key=uuid.uuid4().hex,
        shown_ms=_now_ms(),
        track=track,
    )
    return Shown(item=item, token=token, reviewer=reviewer)


def _differs(payload: AnyPayload, typed: Typed) -> bool:
    """True when the fields do not say what a payload says."""
    if isinstance(payload, PlacementTrace | SceneNotes):
        return False
    if isinstance(payload, ReasoningTrace):
        return typed.trace != TraceForm.of(payload)
    rows = [list(row) for row in typed.segments if any(cell.strip() for cell in row)]
    return rows != segment_rows(payload)


def typed_cells(table: Sequence[Sequence[object]] | None) -> tuple[tuple[str, ...], ...]:
    """A table's cells as they were typed; rows cut or filled to four cells."""
    rows = [[("" if cell is None else str(cell)) for cell in row] for row in (table or ())]
    return tuple(tuple((row + [""] * 4)[:4]) for row in rows)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
