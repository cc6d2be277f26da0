"""Verifier quality by mutation: how many faults in right annotations are found, and how often right ones are doubted.

Annotations come from the built-in perception on the frozen episodes of `annotation_scenes`, both task families and both
splits; only those that say what the simulator knows to be true are used. The scenes of `generic`, which only a model
can see, are what the simulator knows about the placements, judged by the recordings' own pixels and joints. Simulator
figures: real footage is harder.
DATAENGINE_BENCHMARK_RAW and DATAENGINE_BENCHMARK_EPISODES are those of `benchmarks.annotate`.
"""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from pydantic import JsonValue

from annotators.card_scenes import card_scene
from annotators.evidence import Evidence
from annotators.families import load_family
from annotators.observe import Observation, Observer
from annotators.open_scenes import OpenScene, open_images, open_notes
from annotators.placements import placement_trace, scene_notes
from annotators.traces import build_trace
from annotators.verifiers import VERIFIERS, VerifierName, verify
from benchmarks.annotation_faults import FAULTS, Fault
from benchmarks.annotation_scenes import EACH, frozen_series
from benchmarks.card_scene_faults import CARD_SCENE_FAULTS
from benchmarks.figures import Figure, report
from benchmarks.placement_faults import PLACEMENT_FAULTS
from dataengine.episode_set import EpisodeSet
from schemas.annotations import AnyPayload, FieldName, Proposal, Provenance, ReasoningTrace, SegmentList, Verdict
from schemas.intervals import wilson_interval
from schemas.scenes import PlanStep, SceneNotes, SceneObject

type TaskName = Literal["math-matching", "toy-placement", "generic"]
_EACH = int(os.environ.get(EACH, "50"))  # episodes of each split
_REPEATS = 4  # of each fault in each episode, differently drawn


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Right:
    """An episode's right annotations and the evidence they are judged by."""

    payloads: tuple[AnyPayload, ...]
    images: dict[str, JsonValue]  # what the trace was read from
    evidence: Evidence


@dataclass(slots=True, kw_only=True)
class Tally:
    """Verdicts of one verifier."""

    right: Counter[Verdict] = field(default_factory=Counter)  # on annotations without a fault
    faulty: dict[str, Counter[Verdict]] = field(default_factory=dict)  # by fault


def right_annotations(num: int, family: TaskName) -> list[Right]:
    """`num` episodes of each split, looked at, and compared with the truth; of `generic` those with toys."""
    found = []
    task = load_family(family)
    with frozen_series(num, ["toy-placement" if family == "generic" else family]) as (workspace, several):
        for series in several:
            opened = EpisodeSet.open(workspace, series.episodes)
            observer = Observer(
                opened, "cam_high", wants_crops=False, wants_scene=task.is_open, things=task.file.things
            )
            for episode_id in opened.ids():
                truth = series.truth(episode_id)
                seen = observer.observe(episode_id) if truth else None
                if truth and isinstance(seen, Observation) and (one := _right(seen, truth)):
                    found.append(one)
            opened.close()
    return found


def _right(seen: Observation, truth: dict[str, Any]) -> Right | None:
    if seen.evidence.scene is not None:
        return _right_scene(seen, seen.evidence.scene, truth)
    if seen.evidence.placement is not None:
        return _right_placement(seen, truth)
    readings = seen.evidence.readings
    trace = build_trace((readings.first or readings.second) if readings else None, seen.cards)
    cards = [str(card["number"]) for card in truth["cards"]]
    if trace.board != truth["equation"] or [card.text for card in trace.cards] != cards:
        return None
    # Beside what was recorded: a sum noted at collection as the simulator knows it, and the card named twice.
    noted = {**(seen.evidence.metadata or {}), "scene": f"board: {truth['equation']}"}
    named = tuple(
        one.model_copy(update={"label": f"{one.label} card"}) if one.phase == "grasp" else one
        for one in seen.segments.segments
    )
    held = tuple((one.start_ns, "number card") for one in named if one.phase == "grasp")
    notes = card_scene(
        seen.evidence.task,
        readings=readings,
        cards=seen.cards,
        table=seen.evidence.table,
        pick=seen.evidence.pick,
        segments=seen.segments,
    )
    if notes.outcome == "failure":  # the simulator keeps no demonstration that failed; "unknown" is not wrong
        return None
    return Right(
        payloads=(trace, seen.segments.model_copy(update={"segments": named}), notes),
        images=seen.images,
        evidence=replace(seen.evidence, metadata=noted, held=held),
    )


def _right_placement(seen: Observation, truth: dict[str, Any]) -> Right | None:
    placement = seen.evidence.placement
    assert placement is not None
    trace = placement_trace(seen.evidence.task, placement)
    notes = scene_notes(seen.evidence.task, placement, seen.segments)
    after = [claim.relation for claim in notes.relations if claim.when == "after"]
    nouns = sorted(one.noun for one in notes.objects)
    if nouns != sorted(row["noun"] for row in truth["objects"]) or after != [truth["relation"]]:
        return None
    return Right(payloads=(trace, notes, seen.segments), images=seen.images, evidence=seen.evidence)


def _right_scene(seen: Observation, scene: OpenScene, truth: dict[str, Any]) -> Right:
    """What a model would say that sees all that the simulator knows; pixels and joints are the recording's own."""
    target, reference = truth["target"], truth["reference"]
    done = seen.evidence.executed or ()
    plan = tuple(
        PlanStep(
            label=label,
            noun=None if label in ("retreat", "move") else target,
            reference=reference if label in ("carry", "release") else None,
        )
        for label in done
    )
    told = replace(
        scene,
        before=_known(truth, "before"),
        after=_known(truth, "after"),
        plan=plan,
        endings=("success", "success"),  # the simulator keeps no demonstration that failed
        handled=(target,) * done.count("grasp"),
    )
    notes = open_notes(seen.evidence.task, told)
    worded = scene_notes(seen.evidence.task, told.placement, seen.segments).paraphrases
    return Right(
        payloads=(notes.model_copy(update={"paraphrases": worded, "worded_by": "templates"}),),
        images=open_images(told),
        evidence=replace(seen.evidence, scene=told, placement=told.placement),
    )


def _known(truth: dict[str, Any], when: str) -> tuple[SceneObject, ...]:
    rows = zip(truth["objects"], truth[f"boxes_{when}"], strict=True)
    return tuple(SceneObject(noun=row["noun"], box_xyxy=box and tuple(box)) for row, box in rows)


def tally(
    rights: list[Right], *, family: TaskName, faults: tuple[Fault, ...], repeats: int, seed: int
) -> dict[VerifierName, Tally]:
    """Judge what is right, then the same with one fault."""
    names: tuple[VerifierName, ...] = tuple(load_family(family).file.verifiers)
    if family == "math-matching":  # a model's names for what is held: judged here, where the cards are known
        names = (*names, "held_object")
    counts = {name: Tally() for name in names}
    for place, one in enumerate(rights):
        for payload in one.payloads:
            for result in verify(_proposal(payload, one.images), one.evidence, names):
                counts[_name(result.verifier)].right[result.verdict] += 1
        for fault in faults:
            for repeat in range(repeats):
                rng = np.random.default_rng([seed, place, repeat])
                for proposal in _faulty(fault, one, rng):
                    (result,) = verify(proposal, one.evidence, [fault.verifier])
                    counts[fault.verifier].faulty.setdefault(fault.name, Counter())[result.verdict] += 1
    return counts


def _faulty(fault: Fault, one: Right, rng: np.random.Generator) -> Iterator[Proposal]:
    for payload in one.payloads:
        if fault.proposal is not None:
            faulty = None
            if isinstance(payload, ReasoningTrace):
                faulty = fault.proposal(_proposal(payload, one.images), one.evidence, rng)
        else:
            changed = fault.put_into(payload, rng)
            faulty = None if changed is None or changed == payload else _proposal(changed, one.images)
        if faulty is not None:
            yield faulty


def _name(word: str) -> VerifierName:
    return next(name for name in VERIFIERS if name == word)


def _proposal(payload: AnyPayload, images: dict[str, JsonValue]) -> Proposal:
    field: FieldName = "trace"
    match payload:
        case SegmentList():
            field = "segments"
        case SceneNotes():
            field = "scene"
        case _:
            pass
    return Proposal(
        episode_id="episode",
        stamp_ns=0,
        field=field,
        family="mutated@1",
        payload=payload,
        provenance=Provenance(backend="perception", model="mutated"),
        images={} if isinstance(payload, SegmentList) else images,
    )


def _measure(quick: bool, family: TaskName, faults: tuple[Fault, ...], about: str) -> list[Figure]:
    """Recall and false alarms of every verifier of a family."""
    rights = right_annotations(3 if quick else _EACH, family)
    figures = []
    rows = tally(rights, family=family, faults=faults, repeats=2 if quick else _REPEATS, seed=3)
    for name, row in rows.items():
        found = Counter[Verdict]()
        for verdicts in row.faulty.values():
            found.update(verdicts)
        if found:
            figures.append(_figure(f"recall: {name}{about}", found["fail"], found.total(), ">= 95 %", _parts(row)))
        if not found and not row.right:  # it speaks about other fields than these
            continue
        judged = row.right["pass"] + row.right["fail"]
        note = f"{row.right['unknown']} unknown beside them"
        figures.append(_figure(f"false alarms: {name}{about}", row.right["fail"], judged, "<= 2 %", note))
    return figures


def _cards(quick: bool) -> list[Figure]:
    return _measure(quick, "math-matching", (*FAULTS, *CARD_SCENE_FAULTS), "")


def _toys(quick: bool) -> list[Figure]:
    of_segments = tuple(fault for fault in FAULTS if fault.segments is not None)
    return _measure(quick, "toy-placement", (*PLACEMENT_FAULTS, *of_segments), " (toys)")


def _any(quick: bool) -> list[Figure]:
    of_scenes = tuple(fault for fault in PLACEMENT_FAULTS if fault.scene is not None and fault.verifier != "boxes")
    of_boxes = tuple(fault for fault in CARD_SCENE_FAULTS if fault.verifier == "boxes")
    return _measure(quick, "generic", (*of_scenes, *of_boxes), " (any scene, of toys)")


def _parts(row: Tally) -> str:
    return "; ".join(f"{name} {verdicts['fail']} of {verdicts.total()}" for name, verdicts in row.faulty.items())


def _figure(name: str, hits: int, num: int, reach: str, note: str) -> Figure:
    low, high = wilson_interval(hits, num)
    return Figure(
        figure=name,
        ours=100 * hits / num if num else float("nan"),
        peer=None,
        peer_name="none",
        unit="%",
        repeats=num,
        reach=reach,
        note=f"{hits} of {num}, 95 % interval {100 * low:.1f}..{100 * high:.1f} %; {note}",
    )


if __name__ == "__main__":
    report("verifiers", {"math-matching": _cards, "toy-placement": _toys, "generic": _any}, __doc__)
