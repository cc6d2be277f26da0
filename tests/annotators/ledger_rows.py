"""Proposals for tests of the ledger."""

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
