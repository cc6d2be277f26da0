"""How a decision becomes a link of the chain, and when it is refused."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args

from sqlalchemy import Connection, insert

from annotators.ledger import store
from annotators.ledger.proposal_facts import payload_marker, saw_hash
from annotators.ledger.rows import AnyPayload, Assignment, ItemHistory, On, StoredDecision, Track
from annotators.ledger.statements import CHANGE_ITEM, LAST_HASH, LOCKED_ITEM
from annotators.ledger.tables import ASSIGNMENTS, DECISIONS
from schemas.annotations import UNUSABLE, Action, render_payload
from schemas.content_hashes import ContentHashes
from schemas.errors import LedgerError
from schemas.records import sha256_of

_MOST_NOTE, _MOST_PAYLOAD = 2_000, 1_000_000
REASONS = ("wrong reading", "wrong boundaries", "not visible", "robot failed", "wrong task", "other", UNUSABLE)
_MOST_WORDS = 300  # of another decision, in the sentence that refuses a late one


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a reviewer wants to write down."""

    item_id: str
    base_proposal_id: str
    action: Action
    reviewer: str
    payload: AnyPayload | None
    idem_key: str
    lead_time_ms: int
    note: str = ""
    undoes: str | None = None
    seen: ContentHashes | None = None  # what the episode was like
    track: Track = "review"
    guideline: str | None = None  # version of the guideline that lay beside it
    reason: str | None = None  # of a reject, one of REASONS
    ticked: str | None = None  # names of the fields that were accepted one by one
    basis: On = "look"

    def __post_init__(self) -> None:
        check_reviewer(self.reviewer)
        if self.payload is not None:
            check_words(self.payload)
        if self.track not in get_args(Track):
            raise LedgerError(f"'{self.track}' is no track. Use {', '.join(get_args(Track))}.")
        if self.action not in get_args(Action):
            raise LedgerError(f"'{self.action}' is no decision. Use {', '.join(get_args(Action))}.")
        if (self.action == "edit") != (self.payload is not None):
            needs = "needs the edited payload" if self.action == "edit" else "takes no payload"
            raise LedgerError(f"the decision '{self.action}' {needs}.")
        if (self.action == "undo") != (self.undoes is not None):
            raise LedgerError("an undo is made by Ledger.undo, and nothing else names what it takes back.")
        if self.reason is not None and (self.action != "reject" or self.reason not in REASONS):
            raise LedgerError(f"'{self.reason}' is no reason for a {self.action}. Reject for {', '.join(REASONS)}.")
        if not self.idem_key or len(self.idem_key) > 255:
            raise LedgerError("a decision needs a key of 1 to 255 characters, so that sending it twice counts once.")
        if "\0" in self.note:
            raise LedgerError("the note holds a NUL character. Remove it.")
        if len(self.note) > _MOST_NOTE:
            raise LedgerError(f"the note has {len(self.note):,} characters. Say it in {_MOST_NOTE:,}.")
        if self.payload is not None and len(self.payload.model_dump_json()) > _MOST_PAYLOAD:
            raise LedgerError(f"the words have more than {_MOST_PAYLOAD:,} characters. Shorten them.")


def check_reviewer(reviewer: str) -> None:
    """Raises LedgerError for a name that nobody could be held to."""
    if not reviewer.strip() or len(reviewer) > 255 or "\0" in reviewer:
        raise LedgerError(f"a decision needs its reviewer's name, got {reviewer[:40]!r}. Give one, e.g. alice.")


def check_words(payload: AnyPayload) -> None:
    """Raises LedgerError for words that a tokenizer would not read as words: they would end the turn they stand in."""
    if marker := payload_marker(payload):
        raise LedgerError(f"the words hold the chat marker {marker}, which a model reads as a command. Take it out.")


def decide(connection: Connection, wish: Wish, base_revision: int | None) -> StoredDecision:
    """Append what was wished for, or return what was stored under its key before."""
    store.next_seq(connection, 0)  # take the lock first: writers of all kinds queue here, in one order
    before = _by_key(connection, wish.idem_key)
    if before is not None:
        same = (before.item_id, before.action, before.reviewer, before.payload)
        if same != (wish.item_id, wish.action, wish.reviewer, wish.payload):
            raise LedgerError(
                f"the key '{wish.idem_key}' belongs to another decision ({before.action} by {before.reviewer}). "
                "Use a new key."
            )
        return before
    history = _decidable(connection, wish, base_revision)
    kind = type(history.head.proposal.payload)
    if wish.payload is not None and not isinstance(wish.payload, kind):
        raise LedgerError(
            f"this item is about {history.field}, the edit about {wish.payload.kind}. Send the same kind."
        )
    if wish.action == "accept":
        check_words(history.head.proposal.payload)
    if wish.track == "adjudication" and wish.reviewer in history.votes:
        raise LedgerError("you decided about this item yourself, so somebody else settles it. Take another one.")
    return _append(connection, wish, history)


def _decidable(connection: Connection, wish: Wish, base_revision: int | None) -> ItemHistory:
    row = connection.execute(LOCKED_ITEM, {"item": wish.item_id}).one_or_none()
    history = store.load_history(connection, wish.item_id)
    if row is None or history is None:
        raise LedgerError(f"no item '{wish.item_id}' in the ledger. Take one from the queue.")
    if row.lease_owner not in (None, wish.reviewer) and row.lease_until_ms > store.now_ms(connection):
        raise LedgerError(f"{row.lease_owner} works on this item now, so nothing was saved. Take another one.")
    if history.head.proposal_id != wish.base_proposal_id:
        raise LedgerError(
            "a newer proposal for this item arrived while you were looking, so nothing was saved. "
            "Look at the new one and decide again."
        )
    facing = history.decisions if wish.track == "adjudication" else history.facing(wish.reviewer)
    if base_revision is not None and base_revision != len(facing):
        raise LedgerError(f"{_meanwhile(facing)}, so nothing was saved. Look at it again.")
    return history


def _meanwhile(facing: Sequence[StoredDecision]) -> str:
    """What was decided since somebody looked: who, what, in which words."""
    if not facing:
        return "this item is not the one you saw"
    last = facing[-1]
    words = render_payload(last.payload) if last.payload is not None else last.note
    said = f": \u201c{words[:_MOST_WORDS]}\u201d" if words else ""
    return f"{last.reviewer} ({last.action}) decided about this item meanwhile{said}"


def undo(connection: Connection, *, reviewer: str, idem_key: str) -> StoredDecision | None:
    """Take back the newest decision of a reviewer that still counts."""
    store.next_seq(connection, 0)
    before = _by_key(connection, idem_key)
    if before is not None:
        if (before.action, before.reviewer) != ("undo", reviewer):
            raise LedgerError(f"the key '{idem_key}' belongs to another decision by {before.reviewer}. Use a new key.")
        return before
    last = _last_live(store.load_decisions(connection, DECISIONS.c.reviewer == reviewer))
    if last is None:
        return None
    history = store.load_history(connection, last.item_id)
    assert history is not None  # it has a decision
    newest = _last_live(history.facing(reviewer))
    if newest is not None and newest.decision_id != last.decision_id:
        raise LedgerError(
            f"{newest.reviewer} decided about that item after you, so your decision can not be undone. "
            "Open the item and decide again."
        )
    wish = Wish(
        item_id=last.item_id,
        base_proposal_id=last.base_proposal_id,
        action="undo",
        reviewer=reviewer,
        payload=None,
        idem_key=idem_key,
        lead_time_ms=0,
        undoes=last.decision_id,
        track=last.track,
    )
    return _append(connection, wish, history)


def assign(connection: Connection, item_id: str, *, overlap: int | None, gold: bool | None) -> bool:
    """Write how an item is reviewed from now on, if that is new; see Ledger.assign."""
    history = store.load_history(connection, item_id)
    if history is None:
        raise LedgerError(f"no item '{item_id}' in the ledger. Take one from the queue.")
    before = history.assignment
    gold_id = before.gold if gold is None else None
    if gold:
        truth = history.gold or history.standing
        if truth is None:
            what = f"{history.episode_id} ({history.field})"
            raise LedgerError(f"nobody decided about {what}, so there is no truth. Decide, then make it gold.")
        gold_id = truth.decision_id
    rule = Assignment(overlap=before.overlap if overlap is None else overlap, gold=gold_id)
    if rule == before:
        return False
    values = {"seq": store.next_seq(connection), "item_id": item_id, "created": store.now_iso(connection)}
    connection.execute(insert(ASSIGNMENTS).values(overlap=rule.overlap, gold=rule.gold, **values))
    store.project(connection, item_id)
    return True


def _last_live(rows: Sequence[StoredDecision]) -> StoredDecision | None:
    undone = {row.undoes for row in rows if row.action == "undo"}
    return next((row for row in reversed(rows) if row.action != "undo" and row.decision_id not in undone), None)


def _by_key(connection: Connection, idem_key: str) -> StoredDecision | None:
    found = store.load_decisions(connection, DECISIONS.c.idem_key == idem_key)
    return found[0] if found else None


def _append(connection: Connection, wish: Wish, history: ItemHistory) -> StoredDecision:
    """Add one link and update its item. The caller holds the counter's lock, so the chain can not fork."""
    last = connection.execute(LAST_HASH).scalar()
    values = {name: getattr(wish, name) for name in Wish.__slots__}
    values |= {
        "seq": store.next_seq(connection),
        "decision_id": sha256_of(wish.idem_key)[:24],
        "created": store.now_iso(connection),
        "prev_hash": last or store.GENESIS,
        "saw_hash": saw_hash(history.proposal(wish.base_proposal_id).results),
    }
    decision = StoredDecision(hash=StoredDecision(hash="", **values).link_hash(), **values)
    store.insert_decision(connection, decision)
    store.next_seq(connection, counter="decisions")
    store.project_history(connection, replace(history, decisions=(*history.decisions, decision)))
    connection.execute(CHANGE_ITEM, {"item": wish.item_id, "lease_owner": None, "lease_until_ms": 0})
    return decision


def check_chain(rows: Sequence[StoredDecision], expected: int) -> None:
    """Walk the chain. Raises LedgerError that names the first link that was changed, or says that some are gone."""
    previous = store.GENESIS
    for row in rows:
        if row.prev_hash != previous or row.link_hash() != row.hash:
            raise LedgerError(
                f"decision {row.decision_id} (seq {row.seq}, {row.action} by {row.reviewer}) was changed after it was "
                "made, or the one before it is gone. Restore the ledger from a backup."
            )
        previous = row.hash
    if len(rows) != expected:
        raise LedgerError(f"the ledger counted {expected} decisions but holds {len(rows)}. Restore it from a backup.")
