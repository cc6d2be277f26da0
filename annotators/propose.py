"""What is proposed about one episode, from what programs saw in it and what a model answered about it."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from pydantic import JsonValue

from annotators.annotate_report import Tally
from annotators.calls import RawAnswer
from annotators.card_scenes import card_scene
from annotators.evidence import Evidence
from annotators.observe import Observation
from annotators.open_scenes import open_images, open_notes
from annotators.perception import BoardReadings
from annotators.placements import PlacementSeen, placement_images, placement_trace, scene_notes
from annotators.traces import build_trace
from annotators.vlm.answers import in_form
from annotators.vlm.inventory import inventoried
from annotators.vlm.mending import Settled
from annotators.vlm.open_scene import heard
from annotators.vlm.questions import CROPS, understand
from annotators.vlm.rewording import LOOK as WORDINGS
from annotators.vlm.rewording import RETELLING, retold, reworded
from annotators.vlm.steps import held, named_segments
from annotators.voice import Voice
from schemas.annotations import AnyPayload, Card, FieldName, Proposal, ReasoningTrace
from schemas.records import RejectedRow
from schemas.scenes import SceneNotes

type Asked = dict[str, Settled]  # by what was looked at


def proposals_about(
    seen: Observation, voice: Voice, asked: Asked | None, tally: Tally
) -> Iterator[tuple[Proposal, Evidence]]:
    """What is proposed about one episode, each with the evidence it is judged by.

    An episode with a question nobody answered gets nothing of what a model is asked for: it becomes a failure row, and
    the next run asks again.
    """
    silent = [one.answer for one in asked.values() if one.answer.outcome in ("error", "skipped")] if asked else []
    if silent and not (tally.stopped and silent[0].outcome == "skipped"):  # nothing is wrong with those not asked
        reason = f"a call got no answer: {silent[0].text}"
        tally.failures.append(RejectedRow(episode=seen.episode_id, reason=reason))
    answers = {look: one.answer for look, one in asked.items()} if asked and not silent else {}
    placement, readings, cards, num_invalid = _understood(seen, answers)
    tally.invalid += num_invalid
    for name in voice.fields:
        keys: tuple[str, ...] = ()
        if voice.asks_about(name) and asked is not None:
            if silent:
                continue
            keys = voice.calls(name, asked)
        if name == "segments":
            yield _segments(seen, voice, answers, keys, tally)
            continue
        if placement is not None:
            proposal, evidence = _whole(seen, voice, name, placement, keys)
        elif voice.family.is_open:
            proposal, evidence = _open(seen, voice, answers, keys, tally)
        else:
            proposal, evidence = _read(seen, voice, name, readings, cards, keys)
        yield _reworded(proposal, trace_told(seen, answers), answers, tally), evidence


def _understood(
    seen: Observation, answers: Mapping[str, RawAnswer]
) -> tuple[PlacementSeen | None, BoardReadings | None, tuple[Card, ...], int]:
    """A placement, readings and cards as a model answered about them, else as programs saw them; and bad answers."""
    placement, num_invalid = seen.evidence.placement, 0
    if placement is not None and answers:
        placement, num_invalid = inventoried(placement, answers)
    if not any(look in CROPS for look in answers):
        return placement, seen.evidence.readings, seen.cards, num_invalid
    said = understand(answers, seen.cards)
    return placement, said.readings, said.cards, num_invalid + said.num_invalid


def trace_told(seen: Observation, answers: Mapping[str, RawAnswer]) -> str | None:
    """The words of the trace that follows from these answers; None where there is none that says what to do."""
    placement, readings, cards, _ = _understood(seen, answers)
    if placement is not None:
        told = placement_trace(seen.evidence.task, placement)
        return told.render() if told.relation != "unknown" else None
    trace = _trace(readings, cards)
    return trace.render() if trace.pick_text is not None else None


def _trace(readings: BoardReadings | None, cards: tuple[Card, ...]) -> ReasoningTrace:
    return build_trace((readings.first or readings.second) if readings else None, cards)


def _reworded(proposal: Proposal, trace: str | None, answers: Mapping[str, RawAnswer], tally: Tally) -> Proposal:
    """Notes about a scene with a model's other words for instruction and trace, where it was asked for them."""
    notes = proposal.payload
    if not isinstance(notes, SceneNotes):
        return proposal
    if WORDINGS in answers:
        notes, is_in_form = reworded(notes, answers[WORDINGS])
        tally.invalid += not is_in_form
    if RETELLING in answers and trace is not None:
        notes, is_in_form = retold(notes, trace, answers[RETELLING])
        tally.invalid += not is_in_form
    tally.refused += [
        RejectedRow(episode=proposal.episode_id, reason=f"'{one.words}': {one.reason}") for one in notes.refused
    ]
    return proposal.model_copy(update={"payload": notes})


def _open(
    seen: Observation, voice: Voice, answers: Mapping[str, RawAnswer], keys: tuple[str, ...], tally: Tally
) -> tuple[Proposal, Evidence]:
    """What follows from a scene of which nothing was known before a model saw it."""
    assert seen.evidence.scene is not None  # a voice that is asked about it has looked at it
    segments = named_segments(seen.segments, answers["steps"])[0] if "steps" in answers else seen.segments
    scene, num_invalid = heard(seen.evidence.scene, answers, segments)
    tally.invalid += num_invalid
    notes = open_notes(seen.evidence.task, scene)
    return _proposal(seen, voice, "scene", notes, open_images(scene), keys), replace(
        seen.evidence, scene=scene, placement=scene.placement
    )


def _whole(
    seen: Observation, voice: Voice, name: FieldName, placement: PlacementSeen, keys: tuple[str, ...]
) -> tuple[Proposal, Evidence]:
    """What follows from a placement that programs or a model saw, about all of an episode."""
    task = seen.evidence.task
    payload = placement_trace(task, placement) if name == "trace" else scene_notes(task, placement, seen.segments)
    proposal = _proposal(seen, voice, name, payload, placement_images(task, placement), keys)
    return proposal, replace(seen.evidence, placement=placement)


def _segments(
    seen: Observation, voice: Voice, answers: Mapping[str, RawAnswer], keys: tuple[str, ...], tally: Tally
) -> tuple[Proposal, Evidence]:
    segments, evidence = seen.segments, seen.evidence
    if voice.asks_about("segments") and "steps" in answers:
        looks = {name: answers[name] for name in seen.grasps if name in answers}
        segments, is_in_form = named_segments(segments, answers["steps"])
        evidence = replace(evidence, held=held(looks, seen.grasps))
        tally.invalid += (not is_in_form) + sum(not in_form("held", answer) for answer in looks.values())
    images = seen.images if voice.asks_about("segments") else {}
    return _proposal(seen, voice, "segments", segments, images, keys), evidence


def _read(
    seen: Observation,
    voice: Voice,
    name: FieldName,
    readings: BoardReadings | None,
    cards: tuple[Card, ...],
    keys: tuple[str, ...],
) -> tuple[Proposal, Evidence]:
    """What follows from a board and cards that programs or a model read, about all of an episode."""
    seen_as = replace(seen.evidence, readings=readings, cards_read=tuple(card.text for card in cards))
    payload: ReasoningTrace | SceneNotes = _trace(readings, cards)
    if name == "scene":
        payload = card_scene(
            seen_as.task,
            readings=readings,
            cards=cards,
            table=seen_as.table,
            pick=seen_as.pick,
            segments=seen.segments,
        )
    return _proposal(seen, voice, name, payload, seen.images, keys), seen_as


def _proposal(
    seen: Observation,
    voice: Voice,
    name: FieldName,
    payload: AnyPayload,
    images: dict[str, JsonValue],
    keys: tuple[str, ...],
) -> Proposal:
    """What this voice says about a whole episode, from these calls and pictures."""
    return Proposal(
        episode_id=seen.episode_id,
        stamp_ns=0,
        field=name,
        family=voice.family.label,
        payload=payload,
        provenance=voice.provenance(name, keys),
        images=images,
    )
