"""What the figures need of rows that never change, kept between two counts.

Decisions and proposals are append-only and numbered in the order of their commits, so what is new has a higher number
than everything that was read before. Whole columns are read in the order in which they lie in the file, and joined
here: ids are hashes, so a join in the database jumps once for every row, and took twice as long over 100,000 decisions.
"""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import batched
from typing import Any, NamedTuple

from pydantic_core import from_json
from sqlalchemy import JSON, ColumnElement, Connection, Text, and_, cast, func, not_, select

from annotators.agreement import Vote, changes
from annotators.ledger import store
from annotators.ledger.queue import QueueFilter
from annotators.ledger.tables import DECISIONS, ITEMS, PROPOSALS

_AT_ONCE = 500  # ids in one question


class Deed(NamedTuple):
    """One decision without its words. A plain tuple: there are a hundred thousand of them."""

    decision_id: str
    seq: int
    undoes: str | None
    proposal_id: str
    item_id: str
    reviewer: str
    action: str
    basis: str
    track: str
    lead_time_ms: int
    hour: str  # UTC, `2026-01-31T09`

    @property
    def is_look(self) -> bool:
        """Somebody looked at an item and said something about it."""
        return self.basis == "look" and self.action not in ("skip", "undo")


@dataclass(frozen=True, slots=True, kw_only=True)
class Speaker:
    """Who proposed: a model with a prompt, or a program."""

    backend: str
    model: str
    prompt_hash: str | None


_SPEAKER = ("backend", "model", "prompt_hash")


class Kept:
    """Grows with the ledger; hold `lock` from before a ledger's moment is chosen until its figures are counted."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        self.deeds: list[Deed] = []
        self.speakers: dict[str, tuple[Speaker, str]] = {}  # of a proposal, with its field
        self.edits: dict[str, Mapping[str, bool]] = {}  # of a decision: which fields it changed, of all there are
        self._votes: dict[str, Vote] = {}
        self._known: dict[str, Speaker] = {}
        self._seq, self._last_hash = 0, ""

    def read(self, connection: Connection) -> None:
        """Read what is new, and everything where this is another ledger than before: one that was restored, say."""
        newest = store.current(connection)
        last = self.deeds[-1].seq if self.deeds else 0
        if newest < self._seq or (last and self._last_hash != self._hash(connection, last)):
            self._forget()
        if newest == self._seq:
            return
        self._read_speakers(connection)
        before = len(self.deeds)
        table = DECISIONS.c
        what = (table.decision_id, table.seq, table.undoes, table.base_proposal_id, table.item_id)
        how = (table.reviewer, table.action, table.basis, table.track, table.lead_time_ms)
        hour = func.substr(table.created, 1, 13)
        query = select(*what, *how, hour).where(table.seq > self._seq).order_by(table.seq)
        self.deeds += map(Deed._make, connection.execute(query))
        if len(self.deeds) > before:
            self._read_edits(connection)
            self._last_hash = self._hash(connection, self.deeds[-1].seq)
        self._seq = newest

    def among(self, connection: Connection, wanted: QueueFilter) -> list[Deed]:
        """The decisions about the items that are wanted, oldest first."""
        if not (conditions := wanted.conditions()):
            return self.deeds
        # A page's scope holds nearly every item, so those outside are few.
        outside = set(connection.execute(select(ITEMS.c.item_id).where(not_(and_(*conditions)))).scalars())
        return [deed for deed in self.deeds if deed.item_id not in outside] if outside else self.deeds

    def votes(self, connection: Connection, deeds: Iterable[tuple[Deed, str]]) -> list[Vote]:
        """What was said by each of the decisions, which come with the field of their item."""
        asked = list(deeds)
        missing = {deed.decision_id: (deed, field) for deed, field in asked if deed.decision_id not in self._votes}
        spoken = (key for key, (deed, _) in missing.items() if deed.action in ("accept", "edit"))
        said: dict[str, Mapping[str, Any]] = {}
        columns = (DECISIONS.c.decision_id, DECISIONS.c.payload_json, PROPOSALS.c.body_json)
        for some in batched(spoken, _AT_ONCE):
            query = select(*columns).join(PROPOSALS, PROPOSALS.c.proposal_id == DECISIONS.c.base_proposal_id)
            for key, payload, body in connection.execute(query.where(DECISIONS.c.decision_id.in_(some))):
                said[key] = from_json(body)["payload"] if payload is None else from_json(payload)
        for key, (deed, field) in missing.items():
            vote = Vote(item_id=deed.item_id, reviewer=deed.reviewer, field=field, words=said.get(key))
            self._votes[key] = vote
        return [self._votes[deed.decision_id] for deed, _ in asked]

    def _hash(self, connection: Connection, seq: int) -> str:
        return str(connection.execute(select(DECISIONS.c.hash).where(DECISIONS.c.seq == seq)).scalar())

    def _read_speakers(self, connection: Connection) -> None:
        body = PROPOSALS.c.body_json
        if connection.dialect.name == "sqlite":
            said: ColumnElement[Any] = func.json_extract(body, *(f"$.provenance.{name}" for name in _SPEAKER))
        else:
            inside = cast(body, JSON)["provenance"]
            said = func.json_build_array(*(inside[name] for name in _SPEAKER))
        query = select(PROPOSALS.c.proposal_id, cast(said, Text), PROPOSALS.c.field).where(PROPOSALS.c.seq > self._seq)
        for proposal_id, words, field in connection.execute(query):
            speaker = self._known.get(words)
            if speaker is None:
                speaker = self._known[words] = Speaker(**dict(zip(_SPEAKER, from_json(words), strict=True)))
            self.speakers[proposal_id] = speaker, field

    def _read_edits(self, connection: Connection) -> None:
        columns = (DECISIONS.c.decision_id, PROPOSALS.c.body_json, DECISIONS.c.payload_json)
        query = select(*columns).join(PROPOSALS, PROPOSALS.c.proposal_id == DECISIONS.c.base_proposal_id)
        query = query.where(DECISIONS.c.seq > self._seq, DECISIONS.c.action == "edit")
        for key, body, payload in connection.execute(query):
            self.edits[key] = changes(from_json(body)["payload"], from_json(payload))
