"""What follows from a proposal, a payload or verifier results alone."""

from collections.abc import Sequence

from schemas.annotations import AnyPayload, Proposal, SegmentList, Verdict, VerifierResult, render_payload
from schemas.chat import chat_marker
from schemas.records import canonical_json, sha256_of
from schemas.scenes import PlacementTrace, SceneNotes


def cameras_of(proposal: Proposal) -> tuple[str, ...] | None:
    """The cameras whose pictures a proposal rests on: () = none, None = it does not say, so all of them."""
    if proposal.field == "segments" and not proposal.images:
        return ()  # cut from numbers: no colour changes when an arm moves
    named = {
        str(image["camera"]) for image in proposal.images.values() if isinstance(image, dict) and "camera" in image
    }
    return tuple(sorted(named)) or None


def stratum_of(proposal: Proposal) -> str:
    """What kind of scene a proposal is about, in a word or two: the sign of the sum, or the number of segments."""
    payload = proposal.payload
    if isinstance(payload, SegmentList):
        return f"{len(payload.segments)} segments"
    if isinstance(payload, PlacementTrace):
        return payload.relation
    if isinstance(payload, SceneNotes):
        return f"scene: {payload.outcome}"
    signs = [letter for letter in payload.board or "" if not letter.isalnum() and letter not in " .,()?="]
    return f"sum with {signs[0]}" if signs else "no sum"


def annotator_of(proposal: Proposal) -> str:
    """Who made a proposal, as a queue shows it."""
    return f"{proposal.provenance.backend} {proposal.provenance.model}"[:255]


def saw_hash(results: Sequence[VerifierResult]) -> str:
    """Hash of what the verifiers said, in any order."""
    return sha256_of(sorted(canonical_json(row.model_dump(mode="json")) for row in results))


def worst(results: Sequence[VerifierResult]) -> Verdict:
    """fail over unknown over pass; unknown where there is no result."""
    verdicts = {row.verdict for row in results}
    if "fail" in verdicts:
        return "fail"
    return "pass" if verdicts == {"pass"} else "unknown"


def substance(payload: AnyPayload) -> str:
    """Hash of what a payload claims, without where it was seen: two readings of the same card agree."""
    fields = payload.model_dump(mode="json")
    for card in fields.get("cards", ()):
        card.pop("box_xyxy")
    for thing in (fields.get("target"), fields.get("reference"), *fields.get("objects", ())):
        if thing is not None:
            thing.pop("box_xyxy")
    for name in ("picture", "board_box_xyxy", "boxed_in"):
        fields.pop(name, None)
    return sha256_of(fields)


def payload_marker(payload: AnyPayload) -> str | None:
    """The first chat marker in a payload, which a tokenizer would not read as words; None when there is none."""
    return chat_marker(canonical_json(payload.model_dump(mode="json"))) or chat_marker(render_payload(payload))


def speaker_of(proposal: Proposal) -> tuple[str, str, str | None]:
    """Backend, model and prompts: who spoke."""
    return proposal.provenance.backend, proposal.provenance.model, proposal.provenance.prompt_hash
