"""The robot's state under the video: segments as bands, grippers and joints as curves, all on one time axis."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from annotators.kinematics import openness
from apps.review.markup import VERDICTS, say, when
from dataengine.episode_set import EpisodeSet
from schemas.annotations import Mark, SegmentList, VerifierResult
from schemas.errors import EpisodeError
from schemas.spans import NS_PER_S, frame_of_ns

_WIDTH = 1000  # units of the drawing; it is stretched to the page
_MOST_POINTS = 300  # of a curve that is a few hundred pixels wide
_LOUDER = ("pass", "unknown", "fail")
_LABELS = ("reach", "grasp", "carry", "release", "retreat", "move", "hold")  # each has its colour in review.css


def timeline(
    episodes: EpisodeSet,
    episode_id: str,
    drawn: str,
    segments: SegmentList | None,
    results: Sequence[VerifierResult] = (),
) -> str:
    """All rows of one episode; the page draws a playhead over them and seeks where they are clicked.

    `drawn` are its `curves`, `results` what verifiers found: the times they name are marks that seek there.
    """
    start_ns, end_ns = episodes.row(episode_id).start_ns, episodes.end_ns(episode_id)
    rows = [_bands(segments, start_ns, end_ns, episodes.rate_hz)] if segments is not None else []
    if marks := _marks(results, start_ns, end_ns, episodes.rate_hz):
        rows.append(marks)
    ticks = _seconds(start_ns / NS_PER_S, (end_ns - start_ns) / NS_PER_S)
    return f'<div class="timeline" data-timeline>{"".join(rows)}{drawn}{ticks}</div>'


def curves(episodes: EpisodeSet, episode_id: str) -> str:
    """The rows of one episode that no proposal changes: grippers and joints."""
    columns = episodes.columns(episode_id)
    rows = []
    taken: dict[str, set[int]] = {}
    for end in episodes.rig.end_effectors:
        taken.setdefault(end.feature, set()).update(end.indices)
        try:
            rows.append(_gripper(end.name, openness(columns, end)))
        except EpisodeError as error:  # the rig and these episodes misfit: the reviewer should know, and can go on
            rows.append(_row(end.name, f'<p class="hint">{say(error)}</p>', "note"))
    parts = [(arm.name, arm.feature, list(arm.indices)) for arm in episodes.rig.arms]
    if not parts and "observation.state" in columns:
        rest = range(columns["observation.state"].shape[1])
        left = [index for index in rest if index not in taken.get("observation.state", set())]
        parts = [("state", "observation.state", left)] if left else []
    for name, feature, indices in parts:
        column = columns.get(feature)
        if column is not None and max(indices) < column.shape[1]:
            rows.append(_joints(name, column[:, indices]))
    return "".join(rows)


def _row(label: str, body: str, kind: str) -> str:
    return (
        f'<div class="lane {kind}"><div class="lane-name" title="{say(label)}">{say(label)}</div>'
        f'<div class="lane-plot">{body}<i class="playhead" aria-hidden="true"></i></div></div>'
    )


def _bands(segments: SegmentList, first_ns: int, last_ns: int, rate_hz: int) -> str:
    """Segments and events between two times; what a trim cut off is not drawn."""
    bands = []
    whole_ns = last_ns - first_ns
    for part in segments.segments:
        start_ns, end_ns = max(part.start_ns, first_ns), min(part.end_ns, last_ns)
        if start_ns >= end_ns:
            continue
        left, width = 100 * (start_ns - first_ns) / whole_ns, 100 * (end_ns - start_ns) / whole_ns
        colour = part.phase if part.phase in _LABELS else "other"
        title = f"{part.render()}, {part.start_ns / NS_PER_S:.2f} to {part.end_ns / NS_PER_S:.2f} s"
        first, stop = (frame_of_ns(at_ns - first_ns, rate_hz) for at_ns in (start_ns, end_ns))
        bands.append(
            f'<span class="band {colour}" style="left:{left:.3f}%;width:{width:.3f}%" title="{say(title)}" '
            f'data-from="{first}" data-to="{stop}">'
            f"{say(part.label)}</span>"
        )
    for event in segments.events:
        if not first_ns <= event.stamp_ns < last_ns:
            continue
        sign = "\u25bc" if event.event == "close" else "\u25b3"
        title = f"{event.end_effector} {event.event}s at {event.stamp_ns / NS_PER_S:.2f} s"
        bands.append(
            f'<i class="event" style="left:{100 * (event.stamp_ns - first_ns) / whole_ns:.3f}%" '
            f'title="{say(title)}">{sign}</i>'
        )
    return _row("segments", "".join(bands), "segments")


def _marks(results: Sequence[VerifierResult], first_ns: int, last_ns: int, rate_hz: int) -> str:
    """Where verifiers found what they say; those that doubt are drawn last, so that they lie on top."""
    found = []
    for result in sorted(results, key=lambda row: (_LOUDER.index(row.verdict), row.verifier)):
        for mark, start_ns, end_ns in _inside(result.marks, first_ns, last_ns):
            left = 100 * (start_ns - first_ns) / (last_ns - first_ns)
            width = f"width:{100 * (end_ns - start_ns) / (last_ns - first_ns):.3f}%;" if end_ns > start_ns else ""
            sign, word = VERDICTS[result.verdict]
            shape = "stretch" if width else "moment"
            title = f"{result.verifier.replace('_', ' ')}: {word}: {mark.title} ({when(mark)})"
            found.append(
                f'<button type="button" class="mark {result.verdict} {shape}" style="left:{left:.3f}%;{width}" '
                f'data-seek="{frame_of_ns(start_ns - first_ns, rate_hz)}" title="{say(title)}" '
                f'aria-label="{say(title)}"><b aria-hidden="true">{sign}</b></button>'
            )
    return _row("verifiers", "".join(found), "marks") if found else ""


def _inside(marks: Sequence[Mark], first_ns: int, last_ns: int) -> Iterable[tuple[Mark, int, int]]:
    """Marks of these times, cut to them; a trim may have left some outside."""
    for mark in marks:
        if mark.start_ns is None or not first_ns <= max(mark.start_ns, first_ns) < last_ns:
            continue
        end_ns = min(mark.end_ns or mark.start_ns, last_ns)
        if end_ns >= first_ns:
            yield mark, max(mark.start_ns, first_ns), end_ns


def _gripper(name: str, values: NDArray[np.float64]) -> str:
    points = _points(values, 0.0, 1.0, 30)
    fill = f"0,30 {points} {_WIDTH},30"
    body = (
        f'<svg viewBox="0 0 {_WIDTH} 30" preserveAspectRatio="none" aria-hidden="true">'
        f'<polygon class="fill" points="{fill}"/><polyline class="curve" points="{points}"/></svg>'
        '<small class="high">open</small><small class="low">closed</small>'
    )
    return _row(name, body, "gripper")


def _joints(name: str, values: NDArray[np.generic]) -> str:
    numbers = np.asarray(values, dtype=np.float64)
    low, high = float(numbers.min()), float(numbers.max())
    lines = "".join(
        f'<polyline class="curve joint j{index % 6}" points="{_points(numbers[:, index], low, high, 40)}"/>'
        for index in range(numbers.shape[1])
    )
    body = (
        f'<svg viewBox="0 0 {_WIDTH} 40" preserveAspectRatio="none" aria-hidden="true">{lines}</svg>'
        f'<small class="high">{high:.2f}</small><small class="low">{low:.2f}</small>'
    )
    return _row(name, body, "joints")


def _points(values: NDArray[np.float64], low: float, high: float, height: int) -> str:
    """Polyline points; long episodes are thinned, first and last row kept."""
    picked = np.unique(np.linspace(0, len(values) - 1, min(len(values), _MOST_POINTS)).round().astype(int))
    x = (picked + 0.5) / len(values) * _WIDTH
    y = height - 1 - (values[picked] - low) / max(high - low, 1e-9) * (height - 2)
    both = np.stack([x, y], axis=1).ravel().tolist()
    return ("%.0f,%.1f " * len(picked) % tuple(both)).rstrip()  # one call takes a fraction of a call for each point


def _seconds(start_s: float, duration_s: float) -> str:
    step = next((step for step in _STEPS if duration_s / step <= 8), _STEPS[-1])
    count = int(duration_s / step + 1e-9)
    marks: Sequence[float] = [index * step for index in range(count + 1)]
    ticks = "".join(f'<span style="left:{100 * mark / duration_s:.2f}%">{start_s + mark:g}</span>' for mark in marks)
    return f'<div class="lane axis"><div class="lane-name">seconds</div><div class="lane-plot">{ticks}</div></div>'


_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 600)
