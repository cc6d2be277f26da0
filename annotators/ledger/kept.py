"""What the figures need of rows that never change, kept between two counts.

Decisions and proposals are append-only and numbered in the order of their commits, so what is new has a higher number
than everything that was read before. Whole columns are read in the order in which they lie in the file,
and joined here: ids are hashes, so a join in the database jumps once for every row, and took twice as long over 100,000
decisions.
"""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import batched
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json
from sqlalchemy import JSON, ColumnElement, Connection, Text, cast, func, select

from annotators.agreement import Vote, changes
from annotators.ballots import Ballot, Ballots
from annotators.ledger import store
from annotators.ledger.deeds import BATCH, EDIT, KINDS, REJECT, Columns, GrowingColumns
from annotators.ledger.tables import ASSIGNMENTS, DECISIONS, PROPOSALS

_AT_ONCE = 500  # ids in one question


class Deed(NamedTuple):
    """Which decision it is, of whom, about what. A plain tuple: there are a hundred thousand of them."""

    decision_id: str
    item_id: str
    reviewer: str
    field: str
    is_spoken: bool  # accepted or edited: there are words


class Assigned(NamedTuple):
    """How an item is reviewed."""

    overlap: int
    gold: str | None  # the decision that is the truth

    @property
    def is_shared(self) -> bool:
        """What people say about it is compared."""
        return self.overlap > 1 or self.gold is not None


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
        # What a number in a column of `columns` means.
        self.items: dict[str, int] = {}
        self.people: dict[str, int] = {}
        self.hours: dict[str, int] = {}  # UTC, `2026-01-31T09`
        self.claims: dict[tuple[Speaker, str], int] = {}  # with the field that is proposed
        self.edits: dict[tuple[tuple[str, bool], ...], int] = {}  # which fields were changed, of all there are
        self.deeds: list[Deed] = []
        self._columns = GrowingColumns()
        self._assigned: dict[str, Assigned] = {}
        self._places: dict[str, int] = {}  # of decisions, by id
        self._claim_of: dict[str, tuple[int, str]] = {}  # of a proposal, with its field
        self._claims_said: dict[tuple[str, str], int] = {}
        self._ballots = Ballots()
        self._votes: dict[str, tuple[Vote, int]] = {}  # by decision, with its number among the ballots
        self._seq, self._last_seq, self._last_hash = 0, 0, ""

    def read(self, connection: Connection) -> None:
        """Read what is new, and everything where this is another ledger than before: one that was restored, say."""
        newest = store.current(connection)
        if newest < self._seq or (self._last_seq and self._last_hash != self._hash(connection, self._last_seq)):
            self._forget()
        self._read_assigned(connection)
        if newest == self._seq:
            return
        self._read_claims(connection)
        self._read_deeds(connection)
        self._seq = newest

    @property
    def columns(self) -> Columns:
        """All decisions."""
        return self._columns.now()

    def assigned(self) -> Iterable[tuple[str, Assigned]]:
        """Items that are shared, with the rule that holds now."""
        return ((item_id, found) for item_id, found in self._assigned.items() if found.is_shared)

    def votes(self, connection: Connection, places: NDArray[np.int64]) -> tuple[list[Vote], Ballot]:
        """What each person said last about each shared item, of the decisions at some places; not the truth of gold."""
        newest = {}
        for place in places.tolist():
            deed = self.deeds[place]
            if deed.decision_id != self._assigned[deed.item_id].gold:
                newest[deed.item_id, deed.reviewer] = deed
        self._read_votes(connection, [deed for deed in newest.values() if deed.decision_id not in self._votes])
        found = [self._votes[deed.decision_id] for deed in newest.values()]
        return [vote for vote, _ in found], self._ballots.chosen(number for _, number in found)

    def _read_votes(self, connection: Connection, deeds: list[Deed]) -> None:
        said: dict[str, Mapping[str, Any]] = {}
        columns = (DECISIONS.c.decision_id, DECISIONS.c.payload_json, PROPOSALS.c.body_json)
        for some in batched((deed.decision_id for deed in deeds if deed.is_spoken), _AT_ONCE):
            query = select(*columns).join(PROPOSALS, PROPOSALS.c.proposal_id == DECISIONS.c.base_proposal_id)
            for key, payload, body in connection.execute(query.where(DECISIONS.c.decision_id.in_(some))):
                said[key] = from_json(body)["payload"] if payload is None else from_json(payload)
        for deed in deeds:
            words = said.get(deed.decision_id)
            vote = Vote(item_id=deed.item_id, reviewer=deed.reviewer, field=deed.field, words=words)
            self._votes[deed.decision_id] = vote, self._ballots.add(vote.item_id, vote.reviewer, vote.said)

    def _hash(self, connection: Connection, seq: int) -> str:
        return str(connection.execute(select(DECISIONS.c.hash).where(DECISIONS.c.seq == seq)).scalar())

    def _read_claims(self, connection: Connection) -> None:
        body = PROPOSALS.c.body_json
        if connection.dialect.name == "sqlite":
            said: ColumnElement[Any] = func.json_extract(body, *(f"$.provenance.{name}" for name in _SPEAKER))
        else:
            inside = cast(body, JSON)["provenance"]
            said = func.json_build_array(*(inside[name] for name in _SPEAKER))
        query = select(PROPOSALS.c.proposal_id, cast(said, Text), PROPOSALS.c.field).where(PROPOSALS.c.seq > self._seq)
        for proposal_id, words, field in connection.execute(query):
            number = self._claims_said.get((words, field))
            if number is None:
                speaker = Speaker(**dict(zip(_SPEAKER, from_json(words), strict=True)))
                number = self._claims_said[words, field] = _number(self.claims, (speaker, field))
            self._claim_of[proposal_id] = number, field

    def _read_assigned(self, connection: Connection) -> None:
        table = ASSIGNMENTS.c
        query = select(table.item_id, table.overlap, table.gold).order_by(table.seq)  # few, and the last one holds
        self._assigned = {item_id: Assigned(overlap, gold) for item_id, overlap, gold in connection.execute(query)}

    def _read_deeds(self, connection: Connection) -> None:
        edits = self._edits(connection)
        table = DECISIONS.c
        what = (table.decision_id, table.seq, table.undoes, table.base_proposal_id, table.item_id)
        how = (table.reviewer, table.action, table.basis, table.track, table.lead_time_ms)
        hour = func.substr(table.created, 1, 13)
        query = select(*what, *how, hour).where(table.seq > self._seq).order_by(table.seq)
        seq = 0
        for row in connection.execute(query):
            key, seq, undoes, proposal_id, item_id, reviewer, action, basis, track, lead_time_ms, when = row
            claim, field = self._claim_of[proposal_id]
            kind = KINDS.index(action)
            self._places[key] = len(self.deeds)
            self.deeds.append(Deed(key, item_id, reviewer, field, action in ("accept", "edit")))
            self._columns.add(
                item_D=_number(self.items, item_id),
                person_D=_number(self.people, reviewer),
                kind_D=BATCH if kind <= REJECT and basis != "look" else kind,
                hour_D=_number(self.hours, when),
                claim_D=claim,
                edit_D=_number(self.edits, edits[key]) if kind == EDIT else -1,
                lead_time_ms_D=lead_time_ms,
                is_review_D=track == "review",
                is_taken_back_D=False,
            )
            if undoes is not None:
                self._columns.take_back(self._places[undoes])
        if seq:
            self._last_seq, self._last_hash = seq, self._hash(connection, seq)

    def _edits(self, connection: Connection) -> dict[str, tuple[tuple[str, bool], ...]]:
        """Which fields each new edit changed."""
        columns = (DECISIONS.c.decision_id, PROPOSALS.c.body_json, DECISIONS.c.payload_json)
        query = select(*columns).join(PROPOSALS, PROPOSALS.c.proposal_id == DECISIONS.c.base_proposal_id)
        query = query.where(DECISIONS.c.seq > self._seq, DECISIONS.c.action == "edit")
        return {
            key: tuple(changes(from_json(body)["payload"], from_json(payload)).items())
            for key, body, payload in connection.execute(query)
        }


def _number[Word](known: dict[Word, int], word: Word) -> int:
    return known.setdefault(word, len(known))
