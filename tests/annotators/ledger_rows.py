"""Proposals for tests of the ledger, and databases to keep them in."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from annotators.ledger import Ledger, ReviewItem, StoredDecision
from schemas.annotations import (
    Action,
    Card,
    GripperEvent,
    Position,
    Proposal,
    Provenance,
    ReasoningTrace,
    Segment,
    SegmentList,
    Verdict,
    VerifierResult,
)
from schemas.content_hashes import ContentHashes


def trace(board: str = "4+1", solution: str = "4+1=5", pick: str = "5", where: Position = "middle") -> ReasoningTrace:
    """A reasoning trace with three cards."""
    cards = (Card(text="3", position="left"), Card(text="5", position="middle"), Card(text="7", position="right"))
    return ReasoningTrace(board=board, solution=solution, cards=cards, pick_text=pick, pick_position=where)


def proposal(episode_id: str, payload: ReasoningTrace | SegmentList | None = None, model: str = "reader 1") -> Proposal:
    """What one model says about one episode."""
    payload = payload or trace()
    return Proposal(
        episode_id=episode_id,
        stamp_ns=0,
        field="segments" if isinstance(payload, SegmentList) else "trace",
        family="math-matching@1",
        payload=payload,
        provenance=Provenance(backend="perception", model=model, prompt_hash="p" * 64, call_keys=("c" * 64,)),
    )


def segments(end_ns: int = 2_000_000_000) -> SegmentList:
    """Three segments without gaps, and the two events between them."""
    cuts = (0, end_ns // 4, end_ns // 2, end_ns)
    labels = ("reach", "carry", "retreat")
    rows = tuple(
        Segment(start_ns=start, end_ns=end, label=label, end_effector="right gripper")
        for start, end, label in zip(cuts[:-1], cuts[1:], labels, strict=True)
    )
    return SegmentList(
        segments=rows,
        events=(
            GripperEvent(stamp_ns=cuts[1], end_effector="right gripper", event="close"),
            GripperEvent(stamp_ns=cuts[2], end_effector="right gripper", event="open"),
        ),
    )


def result(verdict: Verdict, verifier: str = "arithmetic", *, hard: bool = True, version: int = 1) -> VerifierResult:
    """What one verifier found."""
    return VerifierResult(
        verifier=verifier, version=version, verdict=verdict, hard=hard, evidence=f"{verifier} says {verdict}"
    )


def hashes(clock: str = "clock", columns: str = "columns", **pixels: str) -> ContentHashes:
    """What an episode is like; cameras by name, `cam_high` where none is named."""
    return ContentHashes(clock=clock, pixels=pixels or {"cam_high": "pixels"}, columns=columns)


def fill(ledger: Ledger, num_episodes: int = 3) -> str:
    run_id = ledger.start_run(kind="annotate", recipe={"family": "math-matching"})
    rows = [(proposal(f"episode_{number}"), [result("pass")]) for number in range(num_episodes)]
    seen = {f"episode_{number}": hashes() for number in range(num_episodes)}
    assert ledger.add_proposals(run_id, rows, seen=seen) == num_episodes
    return run_id


def decide(
    ledger: Ledger, item: ReviewItem, action: Action, key: str, reviewer: str = "alice", **more: object
) -> StoredDecision:
    payload = more.pop("payload", None)
    return ledger.decide(
        item_id=item.item_id,
        base_proposal_id=item.head.proposal_id,
        action=action,
        reviewer=reviewer,
        payload=payload,
        idem_key=key,
        lead_time_ms=1200,
        **more,
    )


def claimed(ledger: Ledger, reviewer: str = "alice", **more: object) -> ReviewItem:
    item = ledger.claim(reviewer=reviewer, **more)
    assert item is not None
    return item


def postgres_bin() -> Path | None:
    """The folder of PostgreSQL's server programs; None where there is none."""
    found = shutil.which("initdb")
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if found:
        folders.insert(0, Path(found).parent)
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


@contextmanager
def postgres_server(programs: Path) -> Iterator[str]:
    """A server of its own on a socket in a temporary folder, gone afterwards; gives the URL of its first database."""
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    user = pwd.getpwuid(os.getuid()).pw_name
    switch: dict[str, str] = {}
    if os.getuid() == 0:  # the server refuses to run as root
        user = "postgres" if any(row.pw_name == "postgres" for row in pwd.getpwall()) else "nobody"
        shutil.chown(folder, user)
        switch = {"user": user}
    data = folder / "data"

    def call(*words: str) -> None:
        log = (folder.parent / f"{folder.name}.log").open("ab")
        with log:  # a file, not a pipe: the server inherits it and would keep a pipe open
            subprocess.run(words, check=True, stdout=log, stderr=log, cwd=folder, timeout=120, **switch)

    try:
        call(str(programs / "initdb"), "-D", str(data), "-A", "trust", "-U", "tester", "--no-sync")
        options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
        call(str(programs / "pg_ctl"), "-D", str(data), "-w", "-o", options, "-l", str(folder / "log"), "start")
        try:
            yield f"postgresql://tester@/postgres?host={folder}"
        finally:
            call(str(programs / "pg_ctl"), "-D", str(data), "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        (folder.parent / f"{folder.name}.log").unlink(missing_ok=True)
