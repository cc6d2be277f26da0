"""Verifier quality by mutation: how many faults in right annotations are found, and how often right ones are doubted.

Annotations come from the built-in perception on simulated episodes, in-domain and open-world; only those that say what
the simulator knows to be true are used. Simulator figures: real footage is harder.
"""

import json
import tempfile
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import JsonValue

from annotators.evidence import Evidence
from annotators.observe import Observation, Observer
from annotators.traces import build_trace
from annotators.verifiers import VERIFIERS, VerifierName, verify
from benchmarks.annotation_faults import FAULTS, Fault
from benchmarks.figures import Figure, report
from benchmarks.quality import wilson
from dataengine.convert import convert
from dataengine.episode_set import EpisodeSet
from dataengine.workspace import Workspace
from schemas.annotations import Proposal, Provenance, ReasoningTrace, SegmentList, Verdict
from schemas.refs import Ref

_REPEATS = 4  # of each fault in each episode, differently drawn


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Right:
    """An episode's right annotations and the evidence they are judged by."""

    trace: ReasoningTrace
    images: dict[str, JsonValue]  # what the trace was read from
    segments: SegmentList
    evidence: Evidence


@dataclass(slots=True, kw_only=True)
class Tally:
    """Verdicts of one verifier."""

    right: Counter[Verdict] = field(default_factory=Counter)  # on annotations without a fault
    faulty: dict[str, Counter[Verdict]] = field(default_factory=dict)  # by fault


def right_annotations(folder: Path, num: int) -> list[Right]:
    """`num` episodes of each split, recorded, converted, looked at, and compared with the truth."""
    from apps.sim.game import SPLITS
    from apps.sim.simulate import simulate

    workspace, found = Workspace.at(folder / "workspace"), []
    for split in SPLITS:
        raw = folder / split
        simulate(out=raw, num_episodes=num, split=split, seed=11, workers=2)
        truths = _truths(raw.with_name(f"{raw.name}.ground_truth"))
        ref = Ref(split, "1")
        convert(source_path=raw, to=ref, workspace=workspace, rig="aloha_sim", sink="both")
        opened = EpisodeSet.open(workspace, ref)
        observer = Observer(opened, "cam_high", wants_crops=False)
        for episode_id in opened.ids():
            seen = observer.observe(episode_id)
            name = episode_id.rpartition("-")[0]
            if isinstance(seen, Observation) and (one := _right(seen, truths[name])):
                found.append(one)
    return found


def _truths(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_bytes()) for path in sorted(folder.glob("*.json"))}


def _right(seen: Observation, truth: dict[str, Any]) -> Right | None:
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
    return Right(
        trace=trace,
        images=seen.images,
        segments=seen.segments.model_copy(update={"segments": named}),
        evidence=replace(seen.evidence, metadata=noted, held=held),
    )


def tally(rights: list[Right], *, repeats: int, seed: int) -> dict[VerifierName, Tally]:
    """Judge what is right, then the same with one fault."""
    counts = {name: Tally() for name in VERIFIERS}
    for place, one in enumerate(rights):
        for payload in (one.trace, one.segments):
            for result in verify(_proposal(payload, one.images), one.evidence, VERIFIERS):
                counts[_name(result.verifier)].right[result.verdict] += 1
        for fault in FAULTS:
            for repeat in range(repeats):
                faulty = _faulty(fault, one, np.random.default_rng([seed, place, repeat]))
                if faulty is None:
                    continue
                (result,) = verify(faulty, one.evidence, [fault.verifier])
                counts[fault.verifier].faulty.setdefault(fault.name, Counter())[result.verdict] += 1
    return counts


def _faulty(fault: Fault, one: Right, rng: np.random.Generator) -> Proposal | None:
    if fault.proposal is not None:
        return fault.proposal(_proposal(one.trace, one.images), one.evidence, rng)
    payload: ReasoningTrace | SegmentList | None = None
    if fault.trace is not None:
        payload = fault.trace(one.trace, rng)
    elif fault.segments is not None:
        payload = fault.segments(one.segments, rng)
    return None if payload is None else _proposal(payload, one.images)


def _name(word: str) -> VerifierName:
    return next(name for name in VERIFIERS if name == word)


def _proposal(payload: ReasoningTrace | SegmentList, images: dict[str, JsonValue]) -> Proposal:
    return Proposal(
        episode_id="episode",
        stamp_ns=0,
        field="trace" if isinstance(payload, ReasoningTrace) else "segments",
        family="math-matching@1",
        payload=payload,
        provenance=Provenance(backend="perception", model="mutated"),
        images=images if isinstance(payload, ReasoningTrace) else {},
    )


def measure(quick: bool) -> list[Figure]:
    """Recall and false alarms of every verifier."""
    with tempfile.TemporaryDirectory() as folder:
        rights = right_annotations(Path(folder), 3 if quick else 50)
    figures = []
    for name, row in tally(rights, repeats=2 if quick else _REPEATS, seed=3).items():
        faults = Counter[Verdict]()
        for verdicts in row.faulty.values():
            faults.update(verdicts)
        figures.append(_figure(f"recall: {name}", faults["fail"], faults.total(), ">= 95 %", _parts(row)))
        judged = row.right["pass"] + row.right["fail"]
        note = f"{row.right['unknown']} unknown beside them"
        figures.append(_figure(f"false alarms: {name}", row.right["fail"], judged, "<= 2 %", note))
    return figures


def _parts(row: Tally) -> str:
    return "; ".join(f"{name} {verdicts['fail']} of {verdicts.total()}" for name, verdicts in row.faulty.items())


def _figure(name: str, hits: int, num: int, reach: str, note: str) -> Figure:
    low, high = wilson(hits, num)
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
    report("verifiers", measure, __doc__)
