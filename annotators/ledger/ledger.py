"""The ledger: what was proposed, what the verifiers said, what people decided. Nothing in it is ever edited.

Every proposal, verifier result and decision takes its `seq` from one counter under one lock, so "up to seq N" is a
state that can be frozen. Decisions form a hash chain. A new proposal never touches what a person confirmed: it is
added, and where it differs the item is marked as a conflict and comes back to the queue.
"""

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from pydantic import JsonValue
from sqlalchemy import ColumnElement, Engine, insert, select

from annotators.ledger import decisions, drafts, own, progress, queue, remarks, store
from annotators.ledger.accounts import Accounts
from annotators.ledger.audit import Audit, audit
from annotators.ledger.backup import backup
from annotators.ledger.batch import BATCH_BOUND, Batch, accept_batch
from annotators.ledger.drafts import Draft
from annotators.ledger.engine import migrate, open_engine, reading, writing
from annotators.ledger.kept import Kept
from annotators.ledger.own import OwnDecision
from annotators.ledger.progress import Group, Progress, Tally
from annotators.ledger.queue import QueueFilter
from annotators.ledger.remarks import Remark
from annotators.ledger.rows import AnyPayload, ItemHistory, QueueRow, ReviewItem, StoredDecision, StoredProposal, Track
from annotators.ledger.statistics import Statistics, statistics
from annotators.ledger.strata import count_strata
from annotators.ledger.tables import DECISIONS, PROPOSALS, RUNS
from schemas.annotations import Action, FieldName, Proposal, VerifierResult
from schemas.content_hashes import ContentHashes
from schemas.errors import LedgerError
from schemas.records import canonical_json

MIGRATIONS = Path(__file__).parent / "migrations"
LEASE_S = 600.0
ALL = QueueFilter()


class Ledger:
    """One ledger; safe to share between threads of one process, and between processes on one database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._kept = Kept()
        self.accounts = Accounts(engine)

    @classmethod
    def open(cls, url: str) -> "Ledger":
        """Open, create or migrate the ledger at a SQLAlchemy URL. Raises LedgerError when it can not be reached."""
        engine = open_engine(url)
        migrate(engine, MIGRATIONS, fill=store.project_all)
        return cls(engine)

    def close(self) -> None:
        """Let go of every connection."""
        self._engine.dispose()

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # What programs say

    def start_run(self, *, kind: str, recipe: dict[str, JsonValue]) -> str:
        """Note that a program starts to propose, with every argument that matters; returns its run's id."""
        run_id = uuid.uuid4().hex
        with writing(self._engine) as connection:
            values = {"run_id": run_id, "kind": kind, "created": store.now_iso(connection)}
            connection.execute(insert(RUNS).values(recipe_json=canonical_json(recipe), **values))
        return run_id

    def add_proposals(
        self,
        run_id: str,
        rows: Sequence[tuple[Proposal, Sequence[VerifierResult]]],
        *,
        seen: Mapping[str, ContentHashes] | None = None,
    ) -> int:
        """Add proposals with their results, all or none; returns how many proposals were new.

        A proposal that is already there stays as it is; results that say something new about it are added. `seen` says
        what the episodes were like. Raises LedgerError for words that hold a chat marker.
        """
        seen = seen or {}
        num_new = 0
        for proposal, _ in rows:
            decisions.check_words(proposal.payload)
        with writing(self._engine) as connection:
            store.next_seq(connection, 0)  # take the lock first: writers of all kinds queue here, in one order
            if connection.execute(select(RUNS.c.run_id).where(RUNS.c.run_id == run_id)).first() is None:
                raise LedgerError(f"no run '{run_id}' in the ledger. Call start_run first.")
            for proposal, results in rows:
                proposal_id = proposal.proposal_id
                query = select(PROPOSALS.c.item_id).where(PROPOSALS.c.proposal_id == proposal_id)
                item_id = connection.execute(query).scalar()
                is_new = item_id is None
                if item_id is None:
                    item_id = store.insert_proposal(connection, run_id, proposal, proposal_id)
                    num_new += 1
                hashes = seen.get(proposal.episode_id)
                is_seen = hashes is not None and store.insert_sighting(connection, proposal_id, hashes)
                if store.insert_results(connection, proposal_id, results) or is_new or is_seen:
                    store.project(connection, item_id)
            store.refit(connection, {name: seen[name] for name in {row.episode_id for row, _ in rows} & seen.keys()})
            if num_new:
                count_strata(connection)
        return num_new

    def refit(self, now: Mapping[str, ContentHashes]) -> int:
        """Tell what episodes are like now: what was said about others than these is stale, and waits for review again.

        Nothing is deleted; a decision fits again when the episodes do. Returns how many items of them are stale.
        """
        with writing(self._engine) as connection:
            store.next_seq(connection, 0)
            return store.refit(connection, now)

    def proposals(
        self, *, episode_ids: Sequence[str] | None = None, field: FieldName | None = None
    ) -> list[StoredProposal]:
        """Proposals in their order, of some episodes or of all, each with its newest results."""
        conditions: list[ColumnElement[bool]] = [] if field is None else [PROPOSALS.c.field == field]
        if episode_ids is not None:
            conditions.append(PROPOSALS.c.episode_id.in_(episode_ids))
        with reading(self._engine) as connection:
            return store.load_proposals(connection, *conditions)

    def snapshot(self, *, seq: int | None = None) -> tuple[int, list[ItemHistory]]:
        """The number `seq` (the newest, when None) and every item as it was right after it.

        Raises LedgerError for a number that was not given yet.
        """
        with reading(self._engine) as connection:
            newest = store.current(connection)
            upto = newest if seq is None else seq
            if not 0 <= upto <= newest:
                raise LedgerError(f"the ledger is at {newest}, so there is no state at {upto}. Use 0 to {newest}.")
            return upto, store.load_histories(connection, upto)

    # What people do

    def claim(
        self,
        *,
        reviewer: str,
        lease_s: float = LEASE_S,
        item_id: str | None = None,
        wanted: QueueFilter = ALL,
        track: Track = "review",
        gold_every: int = queue.GOLD_EVERY,
    ) -> ReviewItem | None:
        """Lease the next item (or the named one) to a reviewer, who then holds no other; None when nothing waits.

        Order: what they hold already, then verifier fail > disagreement > unknown > rare scene > rest, each in random
        order (by hash), with one gold item in `gold_every` mixed in. What they skipped comes back only by name or with
        the filter `skipped`; of items that several people decide, one they decided does not come back, and shows
        nothing of what others decided. The track `adjudication` hands out what people disagree about, to somebody who
        is none of them. LedgerError when the named item is held by someone else.
        """
        decisions.check_reviewer(reviewer)
        with writing(self._engine) as connection:
            return queue.claim(
                connection,
                reviewer=reviewer,
                lease_s=lease_s,
                item_id=item_id,
                wanted=wanted,
                track=track,
                gold_every=gold_every,
            )

    def renew(self, *, reviewer: str, item_id: str, lease_s: float = LEASE_S) -> bool:
        """Prolong a lease of someone who is still at work; False when the item is no longer theirs.

        A lease that ran out counts as theirs until somebody else claims the item.
        """
        with writing(self._engine) as connection:
            return queue.renew(connection, reviewer=reviewer, item_id=item_id, lease_s=lease_s)

    def item(self, item_id: str, *, reviewer: str | None = None, track: Track = "review") -> ReviewItem:
        """One item as it is now, or what a reviewer may know of it, without leasing it. LedgerError for no item."""
        with reading(self._engine) as connection:
            return queue.review_item(connection, item_id, reviewer=reviewer, track=track)

    def assign(self, item_ids: Sequence[str], *, overlap: int | None = None, gold: bool | None = None) -> int:
        """Say how items are reviewed from now on; returns for how many of them that is new.

        `overlap` people decide about each, without seeing one another. `gold` makes what stands now the truth that
        everybody else is measured by. None leaves either as it is. Raises LedgerError for an item that is not there,
        and for gold that nobody decided about.
        """
        with writing(self._engine) as connection:
            store.next_seq(connection, 0)
            return sum(decisions.assign(connection, item_id, overlap=overlap, gold=gold) for item_id in item_ids)

    def scope(self, episode_ids: Sequence[str]) -> str:
        """Note a set of episodes, of any size, for the filter `scope`; returns its name, the same for the same set."""
        with writing(self._engine) as connection:
            store.next_seq(connection, 0)
            return queue.scope(connection, episode_ids)

    def decide(
        self,
        *,
        item_id: str,
        base_proposal_id: str,
        action: Action,
        reviewer: str,
        payload: AnyPayload | None,
        idem_key: str,
        lead_time_ms: int,
        note: str = "",
        base_revision: int | None = None,
        seen: ContentHashes | None = None,
        track: Track = "review",
        guideline: str | None = None,
        reason: str | None = None,
        ticked: str | None = None,
    ) -> StoredDecision:
        """Append one decision and give the item free.

        `base_proposal_id` (and `base_revision`, from ReviewItem) say what the reviewer saw: LedgerError when the item
        changed meanwhile, or when someone else holds it. The same `idem_key` again returns the same decision. `seen`
        says what the episode was like. An accept, edit or reject ends the reviewer's draft about the item.
        """
        wish = decisions.Wish(
            item_id=item_id,
            base_proposal_id=base_proposal_id,
            action=action,
            reviewer=reviewer,
            payload=payload,
            idem_key=idem_key,
            lead_time_ms=lead_time_ms,
            note=note,
            seen=seen,
            track=track,
            guideline=guideline,
            reason=reason,
            ticked=ticked,
        )
        with writing(self._engine) as connection:
            made = decisions.decide(connection, wish, base_revision)
            if action != "skip":
                drafts.drop(connection, reviewer=reviewer, item_id=item_id)
            return made

    def accept_batch(self, *, reviewer: str, wanted: QueueFilter, bound: float = BATCH_BOUND) -> Batch:
        """Accept in somebody's name, without a look, what waits and no program doubts; each item by its own decision.

        Raises LedgerError, and accepts nothing, unless the audited error of every stratum concerned is below the bound
        with 95 % confidence. What several people decide about, what somebody holds or set aside, is left to people.
        """
        return accept_batch(self._engine, reviewer=reviewer, wanted=wanted, bound=bound)

    def undo(self, *, reviewer: str, idem_key: str) -> StoredDecision | None:
        """Take back the reviewer's newest decision that stands, by a new decision; None when there is none.

        Raises LedgerError when someone decided about that item since.
        """
        decisions.check_reviewer(reviewer)
        with writing(self._engine) as connection:
            return decisions.undo(connection, reviewer=reviewer, idem_key=idem_key)

    def keep_draft(self, draft: Draft, *, lease_s: float = LEASE_S) -> bool:
        """Keep what somebody typed so far, and the item theirs; it decides nothing. False when a later draft is there.

        A draft stays when the lease is lost: its writer finds it again, beside what others decided meanwhile.
        """
        decisions.check_reviewer(draft.reviewer)
        with writing(self._engine) as connection:
            queue.renew(connection, reviewer=draft.reviewer, item_id=draft.item_id, lease_s=lease_s)
            return drafts.keep(connection, draft)

    def draft(self, *, reviewer: str, item_id: str) -> Draft | None:
        """What a reviewer typed about an item and did not decide; None when there is nothing."""
        with reading(self._engine) as connection:
            return drafts.find(connection, reviewer=reviewer, item_id=item_id)

    def remark(self, remark: Remark) -> bool:
        """Note a flag or a comment; False when it is there already."""
        decisions.check_reviewer(remark.reviewer)
        with writing(self._engine) as connection:
            return remarks.add(connection, remark)

    # What can be asked

    def remarks(self, item_id: str, *, reviewer: str | None = None) -> list[Remark]:
        """Remarks about an item, oldest first; those that `reviewer` may see: of an unsettled shared item their own."""
        with reading(self._engine) as connection:
            return remarks.shown_to(connection, item_id, reviewer)

    def beside(self, item_id: str, *, reviewer: str, track: Track) -> tuple[Draft | None, list[Remark]]:
        """What stands beside an item's decisions: a reviewer's draft, and the remarks that they may see."""
        with reading(self._engine) as connection:
            draft = drafts.find(connection, reviewer=reviewer, item_id=item_id)
            return draft, remarks.shown_to(connection, item_id, None if track == "adjudication" else reviewer)

    def own(self, reviewer: str, *, limit: int = 50) -> list[OwnDecision]:
        """A reviewer's decisions, newest first, and what became of each, as far as that reviewer may know."""
        with reading(self._engine) as connection:
            return own.own_decisions(connection, reviewer, limit)

    def history(self, item_id: str) -> list[StoredDecision]:
        """All decisions about one item, in order, undone ones and undos included."""
        with reading(self._engine) as connection:
            return store.load_decisions(connection, DECISIONS.c.item_id == item_id)

    def decisions(self) -> list[StoredDecision]:
        """The whole chain, in order."""
        with reading(self._engine) as connection:
            return store.load_decisions(connection)

    def queue(
        self, wanted: QueueFilter = ALL, *, limit: int = 200, reviewer: str | None = None, track: Track = "review"
    ) -> list[QueueRow]:
        """The items in order of review, what waits on the track first.

        Shared items that a reviewer is done with are left out on the track `review`.
        """
        with reading(self._engine) as connection:
            return queue.queue_rows(connection, wanted, limit, reviewer, track)

    def listed(
        self, item_ids: Sequence[str], wanted: QueueFilter = ALL, *, reviewer: str, track: Track = "review"
    ) -> list[QueueRow]:
        """Those of some items that `queue` lists somewhere."""
        with reading(self._engine) as connection:
            return queue.listed(connection, item_ids, wanted, reviewer, track)

    def facets(self, wanted: QueueFilter = ALL) -> dict[str, list[str]]:
        """What these items can be filtered by: family, annotator, stratum, verifier."""
        with reading(self._engine) as connection:
            return queue.facets(connection, wanted)

    def progress(self, wanted: QueueFilter = ALL) -> Progress:
        """How far the review is."""
        return self.tally(wanted).progress()

    def tally(self, wanted: QueueFilter = ALL) -> Tally:
        """The items counted by group, at one moment."""
        with reading(self._engine) as connection:
            return progress.tally(connection, wanted)

    def group(self, item_id: str, wanted: QueueFilter = ALL) -> Group | None:
        """The group of `tally` that one item is counted in; None where it is not counted."""
        with reading(self._engine) as connection:
            return progress.group(connection, item_id, wanted)

    def statistics(self, wanted: QueueFilter = ALL, *, reviewer: str | None = None) -> Statistics:
        """How good, how fast and how far the review is; about one reviewer alone, when named.

        The first count reads every decision, later ones what is new.
        """
        with self._kept.lock, reading(self._engine) as connection:
            return statistics(connection, self._kept, wanted, reviewer)

    def seq(self) -> int:
        """The last number given: what a release freezes when nothing else is asked."""
        with reading(self._engine) as connection:
            return store.current(connection)

    def audit(self) -> Audit:
        """Replay everything from the first row and compare; what does not fit is in `Audit.problems`."""
        with reading(self._engine) as connection:
            return audit(connection)

    def rebuild(self) -> None:
        """Write the items table again from what was proposed and decided; leases stay."""
        with writing(self._engine) as connection:
            store.next_seq(connection, 0)
            store.project_all(connection)

    def backup(self, path: Path) -> None:
        """Copy the ledger, as it is at one moment, into a new file while others go on working.

        Raises LedgerError when the file exists, and for a database that is no SQLite file.
        """
        backup(self._engine, path)

    def check_chain(self) -> None:
        """Walk the chain of decisions. Raises LedgerError that names the first link that was changed or is gone."""
        with reading(self._engine) as connection:
            decisions.check_chain(store.load_decisions(connection), store.current(connection, "decisions"))

    def check_items(self) -> None:
        """Compare the items table with what the histories say. Raises LedgerError for the first that differs."""
        with reading(self._engine) as connection:
            store.check_projection(connection, store.load_histories(connection, store.current(connection)))
