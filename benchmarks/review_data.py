"""Ledgers to measure on: items that wait, or that people worked on, written in bulk as the ledger itself writes them.

The audit after each measurement shows that every row is what the ledger's own methods would have written.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import insert, update

from annotators.ledger import Ledger, StoredDecision, item_id_of
from annotators.ledger.engine import open_engine, writing
from annotators.ledger.proposal_facts import saw_hash
from annotators.ledger.rows import Assignment, ItemHistory, StoredProposal
from annotators.ledger.store import GENESIS, projection
from annotators.ledger.strata import count_strata
from annotators.ledger.tables import ASSIGNMENTS, COUNTERS, DECISIONS, ITEMS, PROPOSALS, VERIFIER_RESULTS, VOTES
from schemas.annotations import Action, Card, Proposal, Provenance, ReasoningTrace, VerifierResult
from schemas.records import canonical_json, sha256_of
from schemas.refs import Ref

_VERDICTS = ("pass",) * 8 + ("unknown", "fail")  # of ten proposals, as people meet them
_NUM_PEOPLE = 20
_BEGAN = datetime(2026, 1, 5, 8, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One decision before it is a link of the chain."""

    number: int  # of the item
    person: int
    action: Action
    payload: ReasoningTrace | None = None


def fill(url: str, num_items: int, *, episode_ids: Sequence[str] = (), is_decided: bool = False) -> list[str]:
    """Items that wait, or of which nine in ten were decided, one in ten by two people.

    One per episode, or many moments of the episodes that are named. Returns the episodes.
    """
    with Ledger.open(url) as ledger:
        run_id = ledger.start_run(kind="annotate", recipe={})
    histories = [_history(number, run_id, episode_ids) for number in range(num_items)]
    shared = [number for number in range(num_items) if is_decided and number % 10 == 8]
    first = 2 * num_items + 1
    rules = [(first + place, number) for place, number in enumerate(shared)]
    for _, number in rules:
        histories[number] = replace(histories[number], assignment=Assignment(overlap=2))
    links = list(_chain(histories, first + len(rules))) if is_decided else []
    made: dict[str, list[StoredDecision]] = {}
    for link in links:
        made.setdefault(link.item_id, []).append(link)
    histories = [replace(row, decisions=tuple(made.get(row.item_id, ()))) for row in histories]
    engine = open_engine(url)
    with writing(engine) as connection:
        connection.execute(insert(ITEMS), [_item(history) for history in histories])
        connection.execute(insert(PROPOSALS), [_proposal(history.head) for history in histories])
        connection.execute(insert(VERIFIER_RESULTS), [_result(history.head) for history in histories])
        if links:
            fixed = {"overlap": 2, "gold": None, "created": _BEGAN.isoformat()}
            rows = [{"seq": seq, "item_id": histories[number].item_id, **fixed} for seq, number in rules]
            connection.execute(insert(ASSIGNMENTS), rows)
            connection.execute(insert(DECISIONS), [_decision(link) for link in links])
            pairs = [(name, histories[number].item_id) for number in shared for name in histories[number].votes]
            connection.execute(insert(VOTES), [{"reviewer": name, "item_id": item_id} for name, item_id in pairs])
        for name, value in (("seq", first + len(rules) + len(links) - 1), ("decisions", len(links))):
            connection.execute(update(COUNTERS).where(COUNTERS.c.name == name).values(value=value))
        count_strata(connection)
    engine.dispose()
    return [history.episode_id for history in histories]


def _said(number: int) -> Iterator[Said]:
    """What people did with one item."""
    one, other = number % _NUM_PEOPLE, (number // 10 + 7) % _NUM_PEOPLE
    edited = _trace(number, wrong=1)
    match number % 10:
        case 9:
            return
        case 8:
            yield Said(number=number, person=one, action="accept")
            if one != other:
                is_same = number % 40 != 8
                yield Said(
                    number=number,
                    person=other,
                    action="accept" if is_same else "edit",
                    payload=None if is_same else edited,
                )
        case 0 | 5:
            yield Said(number=number, person=one, action="edit", payload=edited)
        case 1 if number % 50 == 1:
            yield Said(number=number, person=one, action="reject")
        case _:
            yield Said(number=number, person=one, action="accept")


def _chain(histories: Sequence[ItemHistory], seq: int) -> Iterator[StoredDecision]:
    previous = GENESIS
    for number, history in enumerate(histories):
        for said in _said(number):
            key = f"{said.person} {number}"
            link = StoredDecision(
                seq=seq,
                decision_id=sha256_of(key)[:24],
                item_id=history.item_id,
                base_proposal_id=history.head.proposal_id,
                action=said.action,
                payload=said.payload,
                undoes=None,
                reviewer=f"person {said.person}",
                note="",
                lead_time_ms=4_000 + number * 37 % 20_000,
                idem_key=key,
                created=(_BEGAN + timedelta(seconds=2 * number)).isoformat(timespec="milliseconds"),
                prev_hash=previous,
                hash="",
                saw_hash=saw_hash(history.head.results),
            )
            link = replace(link, hash=link.link_hash())
            previous, seq = link.hash, seq + 1
            yield link


def _trace(number: int, *, wrong: int = 0) -> ReasoningTrace:
    left, right = number % 9 + 1, number // 9 % 9 + 1 + wrong
    sign = ("+", "-", "\u00d7")[number // 81 % 3]
    answer = {"+": left + right, "-": left - right, "\u00d7": left * right}[sign]
    return ReasoningTrace(
        board=f"{left}{sign}{right}",
        solution=f"{left}{sign}{right}={answer}",
        cards=(Card(text="3", position="left"), Card(text=str(answer), position="right")),
        pick_text=str(answer),
        pick_position="right",
    )


def _history(number: int, run_id: str, episode_ids: Sequence[str]) -> ItemHistory:
    episode_id, stamp_ns = f"episode_{number:06}-{number:08x}", 0
    images: dict[str, Any] = {}
    if episode_ids:
        episode_id, stamp_ns = episode_ids[number % len(episode_ids)], number // len(episode_ids)
        boxes = {"board": (40, 40, 300, 160), "card_left": (60, 300, 160, 420), "card_right": (400, 300, 500, 420)}
        images = {name: {"camera": "cam_high", "frame": 0, "box_xyxy": list(box)} for name, box in boxes.items()}
    proposal = Proposal(
        episode_id=episode_id,
        stamp_ns=stamp_ns,
        field="trace",
        family=str(Ref("math-matching", "1")),
        payload=_trace(number),
        provenance=Provenance(backend="perception", model="bench", prompt_hash="p" * 64, call_keys=()),
        images=images,
    )
    verdict = _VERDICTS[number * 7 % len(_VERDICTS)]
    found = VerifierResult.model_validate(
        {"verifier": "arithmetic", "version": 1, "verdict": verdict, "hard": True, "evidence": "made up"}
    )
    item_id = item_id_of(episode_id, stamp_ns, "trace")
    stored = StoredProposal(
        seq=2 * number + 1,
        proposal_id=proposal.proposal_id,
        item_id=item_id,
        run_id=run_id,
        created=_BEGAN.isoformat(timespec="milliseconds"),
        proposal=proposal,
        results=(found,),
    )
    return ItemHistory(
        item_id=item_id,
        episode_id=episode_id,
        stamp_ns=stamp_ns,
        field="trace",
        proposals=(stored,),
        decisions=(),
    )


def _item(history: ItemHistory) -> dict[str, object]:
    key = {name: getattr(history, name) for name in ("item_id", "episode_id", "stamp_ns", "field")}
    return {**key, "lease_until_ms": 0, **projection(history, None)}


def _proposal(row: StoredProposal) -> dict[str, object]:
    key = {name: getattr(row, name) for name in ("proposal_id", "seq", "run_id", "item_id", "created")}
    words = canonical_json(row.proposal.model_dump(mode="json"))
    return {**key, "episode_id": row.proposal.episode_id, "field": row.proposal.field, "body_json": words}


def _result(row: StoredProposal) -> dict[str, object]:
    [found] = row.results
    words = canonical_json(found.model_dump(mode="json"))
    return {"seq": row.seq + 1, "proposal_id": row.proposal_id, "verifier": found.verifier, "body_json": words}


def _decision(link: StoredDecision) -> dict[str, object]:
    plain = {name: getattr(link, name) for name in link.__slots__ if name not in ("payload", "seen")}
    words = None if link.payload is None else canonical_json(link.payload.model_dump(mode="json"))
    return {**plain, "payload_json": words, "seen_json": None}
