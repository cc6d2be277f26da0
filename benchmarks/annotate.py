"""How right annotation is, on 200 simulated episodes: both task families, in-domain and open-world, 50 of each.

Simulator figures: real footage is harder. Scenes, fonts, noise and the operator were frozen before any annotator was
tuned, see `annotation_scenes`. Unknown is not right. Intervals are 95 %: Wilson's for shares, resampling for F1.
Set DATAENGINE_BENCHMARK_RAW to a folder that keeps the episodes, DATAENGINE_BENCHMARK_EPISODES to fewer than 50 of
each where the machine is small; every figure says how many it rests on.
"""

import os
import tempfile
from collections.abc import Callable, Sequence

from annotators.annotate import annotate
from annotators.annotate_report import worst
from annotators.ledger import Ledger
from annotators.vlm.backends import BackendConfig, Local, Perception
from benchmarks.annotation_scenes import EACH, FAMILIES, Series, frozen, frozen_series
from benchmarks.annotation_scores import (
    TOLERANCES_S,
    Matches,
    Scored,
    f1,
    f1_interval,
    mean_interval,
    score_equation,
    score_placement,
    score_scene,
    score_segments,
)
from benchmarks.figures import Figure, report
from dataengine.episode_set import EpisodeSet
from dataengine.workspace import Workspace
from schemas.annotations import ReasoningTrace, SegmentList
from schemas.intervals import wilson_interval
from schemas.scenes import PlacementTrace, SceneNotes

_EACH, _QUICK = int(os.environ.get(EACH, "50")), 2
_REACH = {"transcription": ">= 97 %", "choice": ">= 97 %"}
_RIGHT = {"trace": "choice", "scene": "relation"}  # what decides whether a verified field is right


def scored_series(workspace: Workspace, series: Series, backend: BackendConfig) -> list[Scored]:
    """Annotate one series as a user would, and score what is in the ledger."""
    opened = EpisodeSet.open(workspace, series.episodes)
    wanted = [episode_id for episode_id in opened.ids() if series.truth(episode_id)]
    with tempfile.TemporaryDirectory() as folder, Ledger.open(f"sqlite:///{folder}/ledger.db") as ledger:
        annotate(
            episodes=series.episodes,
            workspace=workspace,
            family=series.family,
            backend=backend,
            ledger=ledger,
            workers=0,
            episode_ids=wanted,
        )
        found = {episode_id: Scored() for episode_id in wanted}
        for stored in ledger.proposals():
            proposal = stored.proposal
            scored, truth = found[proposal.episode_id], series.truth(proposal.episode_id)
            assert truth is not None
            scored.verified[proposal.field] = worst(stored.results) == "pass"
            match proposal.payload:
                case SegmentList() as segments:
                    score_segments(scored, segments, truth, opened.rate_hz)
                case ReasoningTrace() as trace:
                    score_equation(scored, trace, truth)
                case PlacementTrace() as trace:
                    score_placement(scored, trace, truth)
                case SceneNotes() as notes:
                    score_scene(scored, notes, truth)
    opened.close()
    return list(found.values())


def _perception(quick: bool) -> list[Figure]:
    """Everything, read by the programs that ship."""
    kept = frozen()
    with frozen_series(_QUICK if quick else _EACH) as (workspace, several):
        found = {(one.family, one.split): scored_series(workspace, one, Perception()) for one in several}
    note = f"perception, simulator figures; frozen {kept['frozen']}, sources {kept['source_hash'][:12]}"
    figures = []
    for (family, split), scored in found.items():
        figures += _figures(f"{family}, {split}", scored, note)
    for family in FAMILIES:
        both = [one for (name, _), scored in found.items() if name == family for one in scored]
        figures += _figures(f"{family}, both splits", both, note)
    return figures + _segment_figures("all", [one for scored in found.values() for one in scored], note, True)


def _nano(quick: bool) -> list[Figure]:
    """The small model that ships, on the boards: it reads no cards yet, so it chooses none."""
    from annotators.vlm.local import nano_model_dir

    kept = frozen()
    note = f"nano, simulator figures; frozen {kept['frozen']}, sources {kept['source_hash'][:12]}"
    backend = Local(path=nano_model_dir())
    figures = []
    with frozen_series(_QUICK if quick else _EACH) as (workspace, several):
        for one in several:
            if one.family == "math-matching":
                scored = scored_series(workspace, one, backend)
                figures += _shares(f"nano: {one.family}, {one.split}", scored, note)
    return figures


def _figures(name: str, scored: Sequence[Scored], note: str) -> list[Figure]:
    figures = _shares(name, scored, note)
    ious = [iou for one in scored for iou in one.ious]
    if ious:
        low, high = mean_interval(ious)
        words = f"mean over {len(ious)} boxes, 95 % interval {low:.3f}..{high:.3f}; {note}"
        figures.append(_figure(f"box IoU: {name}", sum(ious) / len(ious), "IoU", len(ious), "", words))
    return [*figures, *_segment_figures(name, scored, note, False)]


def _shares(name: str, scored: Sequence[Scored], note: str) -> list[Figure]:
    figures = []
    for question in dict.fromkeys(question for one in scored for question in one.right):
        answered = [one.right.get(question, False) for one in scored]
        figures.append(_share(f"{question}: {name}", sum(answered), len(answered), _REACH.get(question, ""), note))
    for field, question in _RIGHT.items():
        verified = [one for one in scored if one.verified.get(field)]
        if any(field in one.verified for one in scored):
            figures.append(_share(f"{field} verified: {name}", len(verified), len(scored), "", note))
            wrong = sum(not one.right.get(question, False) for one in verified)
            figures.append(_share(f"{field} verified and wrong: {name}", wrong, len(verified), "", note))
    return figures


def _segment_figures(name: str, scored: Sequence[Scored], note: str, is_total: bool) -> list[Figure]:
    """Boundary and subtask F1; asked for over all episodes together."""
    listed: list[tuple[str, list[Matches], str]] = [
        (f"boundary F1@{tolerance:g} s", [one.boundaries[tolerance] for one in scored if one.boundaries], reach)
        for tolerance, reach in zip(TOLERANCES_S, ("", ">= 0.90"), strict=True)
    ]
    listed.append(("subtask F1", [one.subtasks for one in scored if one.subtasks is not None], ">= 0.80"))
    figures = []
    for words, parts, reach in listed:
        low, high = f1_interval(parts)
        detail = f"{len(parts)} episodes, 95 % interval {low:.3f}..{high:.3f}; {note}"
        figures.append(_figure(f"{words}: {name}", f1(parts), "F1", len(parts), reach if is_total else "", detail))
    return figures


def _share(name: str, hits: int, num: int, reach: str, note: str) -> Figure:
    low, high = wilson_interval(hits, num)
    words = f"{hits} of {num}, 95 % interval {100 * low:.1f}..{100 * high:.1f} %; {note}"
    return _figure(name, 100 * hits / num if num else float("nan"), "%", num, reach, words)


def _figure(name: str, ours: float, unit: str, repeats: int, reach: str, note: str) -> Figure:
    return Figure(
        figure=name, ours=ours, peer=None, peer_name="none", unit=unit, repeats=repeats, reach=reach, note=note
    )


GROUPS: dict[str, Callable[[bool], list[Figure]]] = {"perception": _perception, "nano": _nano}


if __name__ == "__main__":
    report("annotate", GROUPS, __doc__)
