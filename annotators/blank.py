"""Items for episodes that nothing was proposed about, so that people annotate them from nothing with the same tools.

A blank is a proposal that says nothing: no field is read, no segment is cut. No verifier passes it, so it is never
released unless somebody decides about it, and it disagrees with nobody who speaks later.
"""

from collections.abc import Sequence

from annotators.families import Family
from annotators.ledger import Ledger
from dataengine.episode_set import EpisodeSet
from schemas.annotations import NOBODY, AnyPayload, FieldName, Proposal, ReasoningTrace, SegmentList
from schemas.content_hashes import ContentHashes
from schemas.scenes import PlacementTrace, SceneNotes


def add_blanks(
    episodes: EpisodeSet,
    ledger: Ledger,
    *,
    field: FieldName,
    family: Family,
    episode_ids: Sequence[str] | None = None,
) -> int:
    """Add a blank for each episode (of those named) that has no item of this field; returns how many were added."""
    ids = list(episodes.ids() if episode_ids is None else episode_ids)
    has_one = {row.proposal.episode_id for row in ledger.proposals(episode_ids=ids, field=field)}
    blanks = [
        Proposal(
            episode_id=episode_id,
            stamp_ns=0,
            field=field,
            family=family.label,
            payload=_nothing(field, family, episodes.row(episode_id).task),
            provenance=NOBODY,
        )
        for episode_id in ids
        if episode_id not in has_one
    ]
    if not blanks:
        return 0
    run_id = ledger.start_run(
        kind="blank", recipe={"field": field, "family": family.label, "episodes": str(episodes.ref)}
    )
    hashes = {episode_id: episodes.row(episode_id).hashes for episode_id in ids}
    seen: dict[str, ContentHashes] = {name: now for name, now in hashes.items() if now is not None}
    return ledger.add_proposals(run_id, [(blank, ()) for blank in blanks], seen=seen)


def _nothing(field: FieldName, family: Family, task: str) -> AnyPayload:
    things = family.file.things
    match field:
        case "segments":
            return SegmentList(segments=())
        case "scene":
            return SceneNotes(instruction=task)
        case "trace" if things is not None:
            side = things.frame_of_reference
            return PlacementTrace(target=None, relation="unknown", reference=None, frame_of_reference=side)
        case "trace":
            return ReasoningTrace(board=None, solution=None)
