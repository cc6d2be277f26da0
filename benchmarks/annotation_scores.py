"""Scoring what was annotated against what the simulator knows; nothing but scoring reads the truth."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from annotators.arithmetic import worked_line
from schemas.annotations import ReasoningTrace, SegmentList
from schemas.scenes import Box, PlacementTrace, SceneNotes
from schemas.spans import NS_PER_S

SAME_IOU = 0.5
TOLERANCES_S = (0.25, 0.5)
_RESAMPLES = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Matches:
    """How many of what was said match how many of what is true."""

    hits: int
    said: int
    true: int


@dataclass(slots=True, kw_only=True)
class Scored:
    """One episode: None where the question does not arise."""

    verified: dict[str, bool] = field(default_factory=dict)  # field -> every verifier passed
    right: dict[str, bool] = field(default_factory=dict)  # question -> answered right; unknown is not right
    ious: list[float] = field(default_factory=list)  # of each true box
    boundaries: dict[float, Matches] = field(default_factory=dict)
    subtasks: Matches | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A labelled stretch of an episode, in seconds."""

    label: str
    end_effector: str
    start_s: float
    stop_s: float


def said_parts(segments: SegmentList) -> list[Part]:
    """The segments that were proposed."""
    return [
        Part(
            label=one.label,
            end_effector=one.end_effector,
            start_s=one.start_ns / NS_PER_S,
            stop_s=one.end_ns / NS_PER_S,
        )
        for one in segments.segments
    ]


def true_parts(truth: dict[str, Any], rate_hz: int) -> list[Part]:
    """What the operator did, in the same words."""
    return [
        Part(
            label=part["name"],
            end_effector=f"{truth['arm']} gripper",
            start_s=part["start"] / rate_hz,
            stop_s=part["stop"] / rate_hz,
        )
        for part in truth["subtasks"]
        if part["start"] < part["stop"]
    ]


def match_boundaries(said: Sequence[Part], true: Sequence[Part], tolerance_s: float) -> Matches:
    """Boundaries within a tolerance, one to one; the ends of the episode are none."""
    ours, theirs = [part.start_s for part in said[1:]], [part.start_s for part in true[1:]]
    pairs = sorted((abs(a - b), i, j) for i, a in enumerate(ours) for j, b in enumerate(theirs))
    return _one_to_one(pairs, lambda gap: gap <= tolerance_s + 1e-9, len(ours), len(theirs))


def match_parts(said: Sequence[Part], true: Sequence[Part]) -> Matches:
    """Stretches with the same label and hand that overlap by half of their union or more, one to one."""
    pairs = sorted(
        (-_overlap_s(one, other), i, j)
        for i, one in enumerate(said)
        for j, other in enumerate(true)
        if (one.label, one.end_effector) == (other.label, other.end_effector)
    )
    return _one_to_one(pairs, lambda negative: -negative >= SAME_IOU, len(said), len(true))


def _one_to_one(
    pairs: Sequence[tuple[float, int, int]], counts: Callable[[float], bool], said: int, true: int
) -> Matches:
    taken_said: set[int] = set()
    taken_true: set[int] = set()
    for cost, i, j in pairs:
        if counts(cost) and i not in taken_said and j not in taken_true:
            taken_said.add(i)
            taken_true.add(j)
    return Matches(hits=len(taken_said), said=said, true=true)


def _overlap_s(one: Part, other: Part) -> float:
    """Intersection over union in time."""
    both = min(one.stop_s, other.stop_s) - max(one.start_s, other.start_s)
    return max(0.0, both) / (max(one.stop_s, other.stop_s) - min(one.start_s, other.start_s))


def box_iou(one: Box | None, other: Box) -> float:
    """Intersection over union of two boxes; 0 where none was said."""
    if one is None:
        return 0.0
    wide, high = (min(one[at + 2], other[at + 2]) - max(one[at], other[at]) for at in (0, 1))
    both = max(0, wide) * max(0, high)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return both / (sum(areas) - both)


def score_segments(scored: Scored, segments: SegmentList, truth: dict[str, Any], rate_hz: int) -> None:
    """Boundaries and labelled stretches."""
    said, true = said_parts(segments), true_parts(truth, rate_hz)
    scored.boundaries = {tolerance: match_boundaries(said, true, tolerance) for tolerance in TOLERANCES_S}
    scored.subtasks = match_parts(said, true)


def score_equation(scored: Scored, trace: ReasoningTrace, truth: dict[str, Any]) -> None:
    """The board, what follows from it, and the card."""
    scored.right["transcription"] = trace.board == truth["equation"]
    scored.right["solution"] = trace.solution == worked_line(truth["equation"])
    picked = (trace.pick_text, trace.pick_position)
    scored.right["choice"] = picked == (str(truth["answer"]), truth["chosen_position"])


def score_placement(scored: Scored, trace: PlacementTrace, truth: dict[str, Any]) -> None:
    """Whether the boxes of target and reference are on the true target and reference."""
    true = dict(zip((row["noun"] for row in truth["objects"]), truth["boxes_before"], strict=True))
    on = [
        one is not None and one.noun == truth[part] and box_iou(one.box_xyxy, tuple(true[truth[part]])) >= SAME_IOU
        for part, one in (("target", trace.target), ("reference", trace.reference))
    ]
    scored.right["choice"] = all(on) and trace.relation == truth["relation"]


def score_scene(scored: Scored, notes: SceneNotes, truth: dict[str, Any]) -> None:
    """The relation that came true as boxes have it, the inventory, and the box of every thing whose box is known.

    Of a board and cards the simulator knows no boxes; the card that it picks ends on the ledge in front of the board.
    """
    is_of_cards = "equation" in truth
    came_true = (truth.get("target"), truth.get("relation"), truth.get("reference"))
    if is_of_cards:
        came_true = (f"{truth['chosen_position']} card", "in front of", "board")
    after = [one for one in notes.relations if one.when == "after"]
    scored.right["relation"] = [(one.subject, one.relation, one.reference) for one in after] == [came_true]
    scored.right["outcome"] = notes.outcome == "success"  # only successful demonstrations are recorded
    said = {one.noun: one.box_xyxy for one in notes.objects}
    if is_of_cards:
        scored.right["inventory"] = sorted(said) == sorted(
            ["board", *(f"{row['position']} card" for row in truth["cards"])]
        )
        return
    for row, box in zip(truth["objects"], truth["boxes_before"], strict=True):
        if box is not None:
            scored.ious.append(box_iou(said.get(row["noun"]), tuple(box)))
    scored.right["inventory"] = sorted(said) == sorted(row["noun"] for row in truth["objects"])


def f1(parts: Sequence[Matches]) -> float:
    """F1 over all episodes together."""
    hits, said, true = (sum(getattr(one, name) for one in parts) for name in ("hits", "said", "true"))
    return 2 * hits / (said + true) if said + true else float("nan")


def f1_interval(parts: Sequence[Matches]) -> tuple[float, float]:
    """95 % by resampling episodes."""
    table = np.array([(one.hits, one.said, one.true) for one in parts])
    picks = np.random.default_rng(0).integers(len(table), size=(_RESAMPLES, len(table)))
    hits, said, true = np.moveaxis(table[picks].sum(axis=1), -1, 0)
    low, high = np.quantile(2 * hits / (said + true), (0.025, 0.975))
    return float(low), float(high)


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % of a mean, by resampling."""
    table = np.array(values)
    picks = np.random.default_rng(0).integers(len(table), size=(_RESAMPLES, len(table)))
    low, high = np.quantile(table[picks].mean(axis=1), (0.025, 0.975))
    return float(low), float(high)
