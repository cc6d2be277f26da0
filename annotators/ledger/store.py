"""Rows in, rows out: the SQL under the ledger, on one open connection."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, insert, or_, select, update

from annotators.ledger.proposal_facts import annotator_of, stratum_of
from annotators.ledger.rows import (
    RANK_RARE,
    RANK_REST,
    Assignment,
    ItemHistory,
    StoredDecision,
    StoredProposal,
    item_id_of,
)
from annotators.ledger.statements import (
    ASSIGNMENTS_OF,
    CHANGE_ITEM,
    CLOCKS,
    DECISIONS_OF,
    DROP_VOTES,
    EPISODE_STATE_OF,
    LAST_NUMBER,
    PROPOSALS_OF,
    RESULTS_OF,
    SIGHTINGS_OF,
    TAKE_NUMBERS,
)
from annotators.ledger.strata import Key, audit_of, count_strata, rank_in, rare
from annotators.ledger.tables import (
    ASSIGNMENTS,
    DECISIONS,
    ITEMS,
    PROPOSALS,
    SIGHTINGS,
    VERIFIER_RESULTS,
    VOTES,
)
from schemas.annotations import Proposal, VerifierResult, payload_from_json
from schemas.content_hashes import ContentHashes
from schemas.errors import LedgerError
from schemas.records import canonical_json

_CHUNK = 500  # SQLite allows 32,766 bound values in one statement; PostgreSQL plans short lists faster
GENESIS = "0" * 64

_PLAIN = [name for name in DECISIONS.c.keys() if not name.endswith("_json")]  # noqa: SIM118 - no mapping


def now_ms(connection: Connection) -> int:
    """Milliseconds since 1970 on the database's clock, which all who ask share: their own clocks may be wrong."""
    return int(connection.execute(CLOCKS[connection.dialect.name]).scalar_one())


def now_iso(connection: Connection) -> str:
    """The time in UTC on the database's clock, to the millisecond."""
    return datetime.fromtimestamp(now_ms(connection) / 1000, UTC).isoformat(timespec="milliseconds")


def next_seq(connection: Connection, count: int = 1, counter: str = "seq") -> int:
    """Take `count` numbers and return the first. The counter's row stays locked until the transaction ends, so numbers
    become visible in their order."""
    return int(connection.execute(TAKE_NUMBERS, {"counter": counter, "count": count}).scalar_one()) - count + 1


def current(connection: Connection, counter: str = "seq") -> int:
    """The last number given."""
    return int(connection.execute(LAST_NUMBER, {"counter": counter}).scalar_one())


def insert_proposal(connection: Connection, run_id: str, proposal: Proposal, proposal_id: str) -> str:
    """Store one new proposal and make sure that its item exists; returns the item's id."""
    item_id = item_id_of(proposal.episode_id, proposal.stamp_ns, proposal.field)
    if connection.execute(select(ITEMS.c.item_id).where(ITEMS.c.item_id == item_id)).first() is None:
        fresh = {"rank": 0, "status": "open", "conflict": False, "skipped_by": "", "stale": "", "num_decisions": 0}
        connection.execute(
            insert(ITEMS).values(
                item_id=item_id,
                episode_id=proposal.episode_id,
                stamp_ns=proposal.stamp_ns,
                field=proposal.field,
                lease_until_ms=0,
                **fresh,
            )
        )
    connection.execute(
        insert(PROPOSALS).values(
            proposal_id=proposal_id,
            seq=next_seq(connection),
            run_id=run_id,
            item_id=item_id,
            episode_id=proposal.episode_id,
            field=proposal.field,
            body_json=canonical_json(proposal.model_dump(mode="json")),
            created=now_iso(connection),
        )
    )
    return item_id


def insert_results(connection: Connection, proposal_id: str, results: Sequence[VerifierResult]) -> int:
    """Store the results that say something new about a proposal; returns how many did."""
    known = latest_results(connection, [proposal_id])[proposal_id]
    fresh = [row for row in results if known.get(row.verifier) != row]
    if not fresh:
        return 0
    first = next_seq(connection, len(fresh))
    values = [
        {
            "seq": first + offset,
            "proposal_id": proposal_id,
            "verifier": row.verifier,
            "body_json": canonical_json(row.model_dump(mode="json")),
        }
        for offset, row in enumerate(fresh)
    ]
    connection.execute(insert(VERIFIER_RESULTS), values)
    return len(fresh)


def insert_sighting(connection: Connection, proposal_id: str, seen: ContentHashes) -> bool:
    """Note what its episode is like where a proposal is said; False when that is known."""
    if seen in sightings(connection, [proposal_id])[proposal_id]:
        return False
    values = {"seq": next_seq(connection), "proposal_id": proposal_id, "hashes_json": _json(seen)}
    connection.execute(insert(SIGHTINGS).values(**values))
    return True


def sightings(
    connection: Connection, proposal_ids: Sequence[str], seq: int | None = None
) -> dict[str, list[ContentHashes]]:
    """What the episode of each proposal was like, each time it was said."""
    found: dict[str, list[ContentHashes]] = {proposal_id: [] for proposal_id in proposal_ids}
    for chunk in _chunks(proposal_ids):
        query = SIGHTINGS_OF if seq is None else SIGHTINGS_OF.where(SIGHTINGS.c.seq <= seq)
        for row in connection.execute(query, {"ids": chunk}):
            found[row.proposal_id].append(ContentHashes.model_validate_json(row.hashes_json))
    return found


def _json(seen: ContentHashes) -> str:
    return canonical_json(seen.model_dump(mode="json"))


def latest_results(
    connection: Connection, proposal_ids: Sequence[str], seq: int | None = None
) -> dict[str, dict[str, VerifierResult]]:
    """For each proposal the newest result of each verifier, by its name."""
    found: dict[str, dict[str, VerifierResult]] = {proposal_id: {} for proposal_id in proposal_ids}
    for chunk in _chunks(proposal_ids):
        query = RESULTS_OF if seq is None else RESULTS_OF.where(VERIFIER_RESULTS.c.seq <= seq)
        for row in connection.execute(query, {"ids": chunk}):
            found[row.proposal_id][row.verifier] = VerifierResult.model_validate_json(row.body_json)
    return found


def load_proposals(
    connection: Connection,
    *conditions: ColumnElement[bool],
    seq: int | None = None,
) -> list[StoredProposal]:
    """Proposals in their order, each with its results."""
    query = select(PROPOSALS).where(*conditions).order_by(PROPOSALS.c.seq)
    return _proposals(
        connection, connection.execute(query if seq is None else query.where(PROPOSALS.c.seq <= seq)), seq
    )


def _proposals(connection: Connection, found: Iterable[Row[Any]], seq: int | None = None) -> list[StoredProposal]:
    rows = list(found)
    ids = [row.proposal_id for row in rows]
    results, seen = latest_results(connection, ids, seq), sightings(connection, ids, seq)
    return [_proposal(row, tuple(results[row.proposal_id].values()), tuple(seen[row.proposal_id])) for row in rows]


def load_decisions(
    connection: Connection,
    *conditions: ColumnElement[bool],
    seq: int | None = None,
) -> list[StoredDecision]:
    """Decisions in their order."""
    query = select(DECISIONS).where(*conditions).order_by(DECISIONS.c.seq)
    rows = connection.execute(query if seq is None else query.where(DECISIONS.c.seq <= seq))
    return [_decision(row) for row in rows]


def insert_decision(connection: Connection, row: StoredDecision) -> None:
    """Append one link."""
    values = {name: getattr(row, name) for name in _PLAIN}
    payload = None if row.payload is None else canonical_json(row.payload.model_dump(mode="json"))
    seen = None if row.seen is None else _json(row.seen)
    connection.execute(insert(DECISIONS), {"payload_json": payload, "seen_json": seen, **values})


def load_history(connection: Connection, item_id: str) -> ItemHistory | None:
    """Everything said about one item; None when there is no such item."""
    of_item = {"item": item_id}
    proposals = _proposals(connection, connection.execute(PROPOSALS_OF, of_item))
    if not proposals:
        return None
    decisions = [_decision(row) for row in connection.execute(DECISIONS_OF, of_item)]
    return _history(item_id, proposals, decisions, _rules(connection.execute(ASSIGNMENTS_OF, of_item)))


def load_histories(connection: Connection, seq: int) -> list[ItemHistory]:
    """Every item as it was right after number `seq`."""
    proposals: dict[str, list[StoredProposal]] = {}
    for row in load_proposals(connection, seq=seq):
        proposals.setdefault(row.item_id, []).append(row)
    decisions: dict[str, list[StoredDecision]] = {}
    for decision in load_decisions(connection, seq=seq):
        decisions.setdefault(decision.item_id, []).append(decision)
    rules = assignments(connection, ASSIGNMENTS.c.seq <= seq)
    return [_history(item_id, rows, decisions.get(item_id, []), rules) for item_id, rows in proposals.items()]


def assignments(connection: Connection, *conditions: ColumnElement[bool]) -> dict[str, Assignment]:
    """How items are reviewed, by item; those that nobody assigned are left out."""
    query = select(ASSIGNMENTS).where(*conditions).order_by(ASSIGNMENTS.c.seq)
    return _rules(connection.execute(query))


def _rules(rows: Iterable[Row[Any]]) -> dict[str, Assignment]:
    return {row.item_id: Assignment(overlap=row.overlap, gold=row.gold) for row in rows}


def _history(
    item_id: str, proposals: list[StoredProposal], decisions: list[StoredDecision], rules: Mapping[str, Assignment]
) -> ItemHistory:
    first = proposals[0].proposal
    return ItemHistory(
        item_id=item_id,
        episode_id=first.episode_id,
        stamp_ns=first.stamp_ns,
        field=first.field,
        proposals=tuple(proposals),
        decisions=tuple(decisions),
        assignment=rules.get(item_id, Assignment()),
    )


def check_projection(connection: Connection, histories: Sequence[ItemHistory]) -> None:
    """Raises LedgerError when a row of `items` does not say what its history says."""
    rows = {row.item_id: row for row in connection.execute(select(ITEMS))}
    votes = {(row.item_id, row.reviewer) for row in connection.execute(select(VOTES))}
    wanted = {(history.item_id, name) for history in histories for name in _voters(history)}
    if wrong := sorted(votes ^ wanted):
        raise LedgerError(
            f"the votes table is wrong about item {wrong[0][0]} and {wrong[0][1]}. "
            "Rebuild it with dataengine review audit --rebuild."
        )
    kinds: Counter[Key] = Counter((history.field, stratum_of(history.head.proposal)) for history in histories)
    few = rare(kinds)
    for history in histories:
        row = rows.pop(history.item_id, None)
        if row is None:
            raise LedgerError(f"item {history.item_id} is gone. Restore the ledger from a backup.")
        wanted_row = projection(history, _hashes(row.now_json))
        if wanted_row["rank"] == RANK_REST and (history.field, wanted_row["stratum"]) in few:
            wanted_row["rank"] = RANK_RARE
        for column, value in wanted_row.items():
            found = getattr(row, column)
            if found != value:
                raise LedgerError(
                    f"item {history.item_id} ({history.episode_id}) has {column} {found!r} where its history says "
                    f"{value!r}. Rebuild it with dataengine review audit --rebuild."
                )
    if rows:
        raise LedgerError(f"nobody proposed anything for item {next(iter(rows))}. Restore the ledger from a backup.")


def project(connection: Connection, item_id: str) -> None:
    """Write into `items` and `votes` what the history says."""
    history = load_history(connection, item_id)
    if history is not None:
        project_history(connection, history)


def project_history(connection: Connection, history: ItemHistory) -> None:
    """The same for a history that is at hand."""
    now = connection.execute(EPISODE_STATE_OF, {"item": history.item_id}).scalar()
    _write(connection, history, _hashes(now))


def project_all(connection: Connection) -> None:
    """Write `items` and `votes` again from every history."""
    states = {row.item_id: row.now_json for row in connection.execute(select(ITEMS.c.item_id, ITEMS.c.now_json))}
    connection.execute(delete(VOTES))
    for history in load_histories(connection, current(connection)):
        _write(connection, history, _hashes(states[history.item_id]))
    count_strata(connection)


def _write(connection: Connection, history: ItemHistory, now: ContentHashes | None) -> None:
    item_id = history.item_id
    connection.execute(CHANGE_ITEM, {"item": item_id, **_ranked(connection, history, now)})
    connection.execute(DROP_VOTES, {"item": item_id})
    if voters := _voters(history):
        connection.execute(insert(VOTES), [{"item_id": item_id, "reviewer": name} for name in voters])


def _voters(history: ItemHistory) -> list[str]:
    """Who must not get a shared item from the queue again."""
    if not history.is_shared:
        return []
    return sorted({*history.votes, *([history.gold.reviewer] if history.gold else [])})


def refit(connection: Connection, now: Mapping[str, ContentHashes]) -> int:
    """Note what episodes are like now; returns how many of their items are stale."""
    num_stale = 0
    for chunk in _chunks(list(now)):
        proposals: dict[str, list[StoredProposal]] = {}
        for row in load_proposals(connection, PROPOSALS.c.episode_id.in_(chunk)):
            proposals.setdefault(row.item_id, []).append(row)
        decisions: dict[str, list[StoredDecision]] = {}
        inside = select(ITEMS.c.item_id).where(ITEMS.c.episode_id.in_(chunk))
        rules = assignments(connection, ASSIGNMENTS.c.item_id.in_(inside))
        for decision in load_decisions(connection, DECISIONS.c.item_id.in_(inside)):
            decisions.setdefault(decision.item_id, []).append(decision)
        for item_id, rows in proposals.items():
            history = _history(item_id, rows, decisions.get(item_id, []), rules)
            hashes = now[history.episode_id]
            num_stale += history.stale(hashes) != ""
            told = and_(ITEMS.c.item_id == item_id, or_(ITEMS.c.now_json.is_(None), ITEMS.c.now_json != _json(hashes)))
            values = _ranked(connection, history, hashes)
            connection.execute(update(ITEMS).where(told).values(now_json=_json(hashes), **values))
    return num_stale


def _ranked(connection: Connection, history: ItemHistory, now: ContentHashes | None) -> dict[str, Any]:
    """The derived columns with the rank that the item has among all others."""
    values = projection(history, now)
    return {**values, "rank": rank_in(connection, history.field, values["stratum"], values["rank"])}


def projection(history: ItemHistory, now: ContentHashes | None) -> dict[str, Any]:
    """The derived columns of `items`, for an episode that is like `now`. A gold item looks as if nobody had decided.

    The rank is the item's own: `count_strata` moves rare scenes before the rest.
    """
    is_gold, head = history.gold is not None, history.head
    standing = None if is_gold else history.standing
    last = history.live[-1] if history.live else None
    doubts = sorted(row.verifier for row in head.results if row.verdict != "pass")
    return {
        "head_proposal_id": head.proposal_id,
        "rank": history.rank,
        "status": "open" if is_gold else history.status,
        "conflict": not is_gold and history.conflict,
        "decided_by": standing.reviewer if standing else None,
        "skipped_by": last.reviewer if last is not None and last.action == "skip" else "",
        "num_decisions": len(history.decisions),
        "stale": "" if is_gold else history.stale(now),
        "waits": history.waits(now),
        "family": head.proposal.family,
        "annotator": annotator_of(head.proposal),
        "stratum": stratum_of(head.proposal),
        "doubts": f"|{'|'.join(doubts)}|" if doubts else "",
        "audit": audit_of(history),
    }


def _proposal(row: Row[Any], results: tuple[VerifierResult, ...], seen: tuple[ContentHashes, ...]) -> StoredProposal:
    return StoredProposal(
        seq=row.seq,
        proposal_id=row.proposal_id,
        item_id=row.item_id,
        run_id=row.run_id,
        created=row.created,
        proposal=Proposal.model_validate_json(row.body_json),
        results=results,
        seen=seen,
    )


def _decision(row: Row[Any]) -> StoredDecision:
    values = {name: getattr(row, name) for name in _PLAIN}
    payload = None if row.payload_json is None else payload_from_json(json.loads(row.payload_json))
    return StoredDecision(payload=payload, seen=_hashes(row.seen_json), **values)


def _hashes(words: str | None) -> ContentHashes | None:
    return None if words is None else ContentHashes.model_validate_json(words)


def _chunks(values: Sequence[str]) -> list[Sequence[str]]:
    return [values[start : start + _CHUNK] for start in range(0, len(values), _CHUNK)]
