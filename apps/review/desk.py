"""A reviewer's desk, without a page: which item is shown, what was typed, and how that becomes a decision.

All truth is in the ledger. What a browser holds between two clicks is a `Token`: it names what was shown, and the
ledger checks every part of it again, so a second tab, a reload or a forged token can spoil nothing.
"""

import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast, get_args

from annotators.guidelines import Guideline, guideline
from annotators.ledger import (
    Draft,
    ItemStatus,
    Ledger,
    Progress,
    QueueFilter,
    QueueRow,
    Remark,
    ReviewItem,
    StoredDecision,
    Track,
)
from annotators.ledger.batch import Batch
from annotators.ledger.proposal_facts import substance
from annotators.ledger.rows import AnyPayload
from annotators.ledger.statistics import Statistics
from annotators.review import Reading, TraceForm, read_segments, read_trace, segment_rows
from annotators.scene_forms import PlacementForm, SceneForm, read_placement, read_scene
from apps.review.counts import Counts
from apps.review.sheet import Remarked, Sheet, Token, Typed, typed_cells
from apps.review.shelf import Shelf
from dataengine.episode_set import EpisodeSet
from dataengine.sinks.lerobot_v3 import IMAGES
from dataengine.workspace import Workspace
from schemas.annotations import NOBODY, Action, BoxedIn, ReasoningTrace, SegmentList
from schemas.errors import LedgerError
from schemas.records import sha256_of
from schemas.refs import Ref
from schemas.scenes import PictureRef, PlacementTrace, SceneNotes
from schemas.spans import frame_ns

__all__ = ["UNSAVED", "Choice", "Desk", "Shown", "Token", "Typed", "shown", "typed_cells"]
_MOST_DRAWN = 64_000_000  # characters of pictures and curves that are kept
Choice = Literal["accept", "edit", "reject", "skip"]
UNSAVED = "You changed fields. Save the edit (Ctrl+Enter), or reset the fields first."


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """An item with the token that its page holds, and what its fields start with."""

    item: ReviewItem
    token: Token
    reviewer: str  # to whom: of a shared item that is not settled nobody sees what others said
    draft: Draft | None = None  # what they typed about it before and did not decide
    remarks: tuple[Remark, ...] = ()

    @property
    def guideline(self) -> Guideline | None:
        """What reviewers of its family are told."""
        return guideline(self.item.head.proposal.family)

    @property
    def start(self) -> AnyPayload:
        """What the fields start with: what a person confirmed, else the newest proposal."""
        return self.item.confirmed or self.newest

    @property
    def newest(self) -> AnyPayload:
        """What the newest proposal says."""
        return self.item.head.proposal.payload


class Desk:
    """One set of episodes, one ledger, any number of reviewers.

    `refits`: tell the ledger what the episodes are like now. It is locked meanwhile, so of several desks over the same
    episodes one does it.
    """

    def __init__(self, *, workspace: Workspace, episodes: Ref, ledger_url: str, refits: bool = True) -> None:
        self.episodes = EpisodeSet.open(workspace, episodes)
        self.ledger = Ledger.open(ledger_url)
        self.looking = threading.Lock()  # an EpisodeSet's decoders are not for several threads at once
        self.drawn = Shelf(_MOST_DRAWN)
        ids = self.episodes.ids()
        self._scope = self.ledger.scope(ids)
        self._counts = Counts(self.ledger, self.wanted())
        if refits:
            hashes = {name: self.episodes.row(name).hashes for name in ids}
            self.ledger.refit({name: now for name, now in hashes.items() if now is not None})

    @property
    def videos(self) -> Path:
        """The folder of the episodes' videos: served from where they are, never copied."""
        return self.episodes.path / "videos"

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
        wanted = replace(stratum, scope=self._scope)
        done = self.ledger.accept_batch(reviewer=reviewer, wanted=wanted, bound=bound)
        self._counts.include(self.ledger.seq())
        return done

    def facets(self) -> list[tuple[str, str]]:
        """What the queue can be filtered by: words for people, and how `wanted` takes them."""
        found = self.ledger.facets(self.wanted())
        return [(f"{name}: {value}", f"{name}={value}") for name, values in found.items() for value in values]

    def take(
        self, *, reviewer: str, wanted: QueueFilter, item_id: str | None = None, track: Track = "review"
    ) -> Shown | None:
        """Lease the next item, or the named one; None when nothing waits."""
        item = self.ledger.claim(reviewer=reviewer, item_id=item_id, wanted=wanted, track=track)
        return None if item is None else self._with_words(shown(item, reviewer, track))

    def look(self, item_id: str, *, reviewer: str) -> Shown:
        """An item as somebody may see it, without leasing it."""
        return self._with_words(shown(self.ledger.item(item_id, reviewer=reviewer), reviewer))

    def again(self, token: Token, reviewer: str) -> Shown:
        """The item a token names, as the ledger has it now."""
        return self._with_words(self.bare(token, reviewer))

    def bare(self, token: Token, reviewer: str) -> Shown:
        """The same without what was said beside decisions."""
        item = self.ledger.item(token.item_id, reviewer=reviewer, track=token.track)
        return Shown(item=item, token=token, reviewer=reviewer)

    def _with_words(self, found: Shown) -> Shown:
        """The same with what was said about the item beside decisions."""
        draft, remarks = self.ledger.beside(found.item.item_id, reviewer=found.reviewer, track=found.token.track)
        return replace(found, draft=draft, remarks=tuple(remarks))

    def keep(self, sheet: Sheet, reviewer: str) -> bool:
        """Keep what was typed as a draft, and the item theirs; False when a later draft is there, or a decision."""
        token = sheet.token
        if token is None or not reviewer:
            return False
        draft = Draft(
            item_id=token.item_id,
            reviewer=reviewer,
            key=token.key,
            base_proposal_id=token.base_proposal_id,
            revision=token.revision,
            shown_ms=token.shown_ms,
            sequence=sheet.sequence,
            body_json=sheet.body(),
        )
        return self.ledger.keep_draft(draft)

    def sheet(self, shown: Shown) -> Sheet:
        """What the fields say when the item is shown: the reviewer's draft, else what it starts with."""
        sheet = Sheet.of(shown.start, shown.token)
        if shown.draft is None:
            return sheet
        filled = sheet.filled(shown.draft.body_json, shown.draft.saved)
        said = filled.typed()
        return filled if self.is_changed(shown, said) or not said.is_empty_beside else sheet

    def remark(self, said: Remarked, *, token: Token, reviewer: str) -> bool:
        """Note a flag or a comment about the item; False when it is there already."""
        remark_id = sha256_of([token.key, reviewer, said.kind, said.words])
        return self.ledger.remark(
            Remark(remark_id=remark_id, item_id=token.item_id, reviewer=reviewer, kind=said.kind, words=said.words)
        )

    def queue(self, wanted: QueueFilter, *, reviewer: str | None = None, track: Track = "review") -> list[QueueRow]:
        """The queue, in order."""
        return self.ledger.queue(wanted, reviewer=reviewer, track=track)

    def listed(
        self, item_ids: Sequence[str], wanted: QueueFilter, *, reviewer: str, track: Track = "review"
    ) -> list[QueueRow]:
        """Those of some items that the queue lists somewhere."""
        return self.ledger.listed(item_ids, wanted, reviewer=reviewer, track=track)

    def progress(self) -> Progress:
        """How far these episodes are."""
        return self._counts.progress()

    def read(self, shown: Shown, typed: Typed) -> Reading:
        """What the fields amount to now. Fields that say what the newest proposal says stand for all of it."""
        start = shown.start
        if _differs(start, typed) and not _differs(shown.newest, typed):
            return Reading(payload=shown.newest)
        match start:
            case ReasoningTrace():
                return self._about(shown, read_trace(typed.trace, start), typed.trace.boxed_in)
            case SegmentList():
                end_ns = self.end_ns(shown.item.episode_id)
                return read_segments(typed.segments, start, end_ns=end_ns, rate_hz=self.episodes.rate_hz)
            case PlacementTrace():
                return self._about(shown, read_placement(typed.placement, start), _chosen(typed.placement, start))
            case SceneNotes():
                return self._about(shown, read_scene(typed.scene, start), _chosen(typed.scene, start))

    def _about(self, shown: Shown, reading: Reading, where: BoxedIn | PictureRef | None) -> Reading:
        """The same, unless boxes lie in a picture that the episode does not have."""
        if where is None or self._has_frame(shown.item.episode_id, where):
            return reading
        words = f"There is no frame {where.frame} of '{where.camera}' for the boxes to be in. Draw them again."
        return Reading(payload=None, problems=(*reading.problems, words))

    def _has_frame(self, episode_id: str, where: BoxedIn | PictureRef) -> bool:
        """A page draws only on what it shows, but anybody can send anything."""
        episodes = self.episodes
        if where.camera not in episodes.cameras or where.frame >= episodes.row(episode_id).source_frames:
            return False
        height, width = episodes.info["features"][IMAGES + where.camera]["shape"][:2]
        return isinstance(where, BoxedIn) or (where.width, where.height) == (width, height)

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
        before = self.bare(token, reviewer)
        payload: AnyPayload | None = None
        action: Action = choice
        if choice == "edit":
            payload = self._edited(before, typed)
        elif self.is_changed(before, typed) and before.item.revision == token.revision:
            raise LedgerError(UNSAVED)
        elif choice == "accept":
            payload = before.start
        if payload is not None:
            same = _is_same(payload, before.newest) and not typed.trace.drawn
            action, payload = ("accept", None) if same else ("edit", payload)
        if action == "accept" and _is_blank(before):
            raise LedgerError("Nothing is proposed here, so there is nothing to accept. Fill it in, or reject.")
        lies_beside, counted = before.guideline, self._counts.group(token.item_id)
        made = self.ledger.decide(
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
            guideline=lies_beside.version if lies_beside else None,
            reason=(typed.reason or None) if choice == "reject" else None,
            ticked=" ".join(typed.ticked) or None,
        )
        self._counts.add(made, counted)
        return made

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
        self._counts.include(taken.seq)
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


def _chosen(form: PlacementForm | SceneForm, start: PlacementTrace | SceneNotes) -> PictureRef | None:
    """The picture that a person chose for the boxes; None where it is still the proposed one."""
    return None if form.picture == start.picture else form.picture


def _is_same(payload: AnyPayload, newest: AnyPayload) -> bool:
    """True when confirming a payload is the same as accepting the proposal.

    Of a scene its boxes are claims; of a trace they are once a person saw to them, and stay with what is decided.
    """
    if isinstance(payload, PlacementTrace | SceneNotes):
        return payload == newest
    if isinstance(payload, ReasoningTrace) and payload.boxed_in is not None:
        return False
    return substance(payload) == substance(newest)


def _is_blank(shown: Shown) -> bool:
    """True when the newest proposal says nothing that somebody could agree to."""
    if isinstance(shown.newest, SegmentList) and not shown.newest.segments:
        return True
    return shown.item.head.proposal.provenance == NOBODY


def _differs(payload: AnyPayload, typed: Typed) -> bool:
    """True when the fields do not say what a payload says."""
    match payload:
        case PlacementTrace():
            return typed.placement != PlacementForm.of(payload)
        case SceneNotes():
            return typed.scene.said != SceneForm.of(payload).said
        case ReasoningTrace():
            return typed.trace != TraceForm.of(payload)
        case SegmentList():
            rows = [list(row) for row in typed.segments if any(cell.strip() for cell in row)]
            return rows != segment_rows(payload)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
