"""Items for episodes that nothing was proposed about, so that people annotate them from nothing with the same tools.

A blank is a proposal that says nothing: no field is read, no segment is cut. No verifier passes it, so it is never
released unless somebody decides about it.
"""

from annotators.ledger import Ledger
from dataengine.episode_set import EpisodeSet
from schemas.annotations import FieldName, Proposal, Provenance, ReasoningTrace, SegmentList
from schemas.content_hashes import ContentHashes

_NOBODY = Provenance(backend="imported", model="nothing proposed")


def add_blanks(episodes: EpisodeSet, ledger: Ledger, *, field: FieldName, family: str) -> int:
    """Add a blank for each episode that has no item of this field; returns how many were added."""
    ids = episodes.ids()
    has_one = {row.proposal.episode_id for row in ledger.proposals(episode_ids=ids, field=field)}
    payload = SegmentList(segments=()) if field == "segments" else ReasoningTrace(board=None, solution=None)
    blanks = [
        Proposal(episode_id=episode_id, stamp_ns=0, field=field, family=family, payload=payload, provenance=_NOBODY)
        for episode_id in ids
        if episode_id not in has_one
    ]
    if not blanks:
        return 0
    run_id = ledger.start_run(kind="blank", recipe={"field": field, "family": family, "episodes": str(episodes.ref)})
    hashes = {episode_id: episodes.row(episode_id).hashes for episode_id in ids}
    seen: dict[str, ContentHashes] = {name: now for name, now in hashes.items() if now is not None}
    return ledger.add_proposals(run_id, [(blank, ()) for blank in blanks], seen=seen)
