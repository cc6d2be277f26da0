"""Checks of an episode among the others: frames missing, an odd length, recorded twice."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from dataengine.quality.facts import EpisodeFacts
from dataengine.quality.likeness import common_share
from dataengine.quality.limits import QualityLimits
from dataengine.quality.recordings import STATE
from dataengine.quality.rows import QualityRow
from dataengine.quality.usual import FEW, Usual

_COMMON = 8  # episodes remembered to hold a row
_LEAST_SHARE = 0.05  # of an episode's hashes: below, a share is not told from none
_TRIED = 4  # earlier episodes an episode is compared with, those with most rows in common
_BLOCK = 512  # episodes compared at once: a block of distances stays below 50 MB for 10,000 episodes


def dropped_rows(facts: EpisodeFacts, usual: Usual, limits: QualityLimits) -> Iterator[QualityRow]:
    """Recorded stamps have no gaps, and the alignment of streams left few messages unused."""
    for key, stamps in facts.stamps.items():
        gap = stamps.longest_s / stamps.usual_s if stamps.usual_s > 0 else 0.0
        share = stamps.num_lost / (stamps.num_taken + stamps.num_lost)
        bad = gap > limits.gap_frames or share > limits.lost_share
        yield QualityRow(
            episode_id=facts.episode_id,
            check="dropped_frames",
            stream=key,
            verdict="fail" if bad else "pass",
            value=gap,
            limit=limits.gap_frames,
            unit="frames between two stamps",
            detail=f"{stamps.num_lost} missing; the longest gap is {stamps.longest_s:.3f} s before row "
            f"{stamps.longest_at}"
            if bad
            else "",
            frame=stamps.longest_at if bad else None,
        )
    for key, skew in facts.skew.items():
        share = skew.num_repeated / max(1, facts.skew_frames)
        # a slower stream repeats by design; what is counted is repeats that its own number of messages does not explain
        expected = max(0.0, 1 - skew.num_messages / max(1, facts.skew_frames))
        bad = share - expected > limits.lost_share
        yield QualityRow(
            episode_id=facts.episode_id,
            check="dropped_frames",
            stream=key,
            verdict="fail" if bad else "pass",
            value=share - expected,
            limit=limits.lost_share,
            unit="of the rows took the message before",
            detail=f"{skew.num_repeated} rows repeat a message, at most {skew.max_s:.3f} s old" if bad else "",
        )
    if not facts.stamps and not facts.skew:
        yield QualityRow(
            episode_id=facts.episode_id,
            check="dropped_frames",
            stream="all",
            verdict="unknown",
            detail="no stamps were recorded",
        )


def length_rows(facts: EpisodeFacts, usual: Usual, limits: QualityLimits) -> Iterator[QualityRow]:
    """The episode is about as long as the others."""
    if usual.num_episodes < FEW:
        yield QualityRow(
            episode_id=facts.episode_id,
            check="length_outlier",
            stream="all",
            verdict="unknown",
            detail="too few episodes to say what is usual",
        )
        return
    ratio = max(facts.num_frames, 1) / usual.length
    spread = abs(np.log(ratio)) / usual.length_spread if usual.length_spread > 0 else np.inf
    far = max(ratio, 1 / ratio)
    bad = far > limits.length_ratio and spread > limits.length_spread
    words = f"{facts.num_frames} rows, the median has {usual.length:.0f}"
    yield QualityRow(
        episode_id=facts.episode_id,
        check="length_outlier",
        stream="all",
        verdict="fail" if bad else "pass",
        value=float(far),
        limit=limits.length_ratio,
        unit="times longer" if ratio > 1 else "times shorter",
        detail=words if bad else "",
        frame=0 if bad else None,
        num_frames=facts.num_frames,
    )


def duplicate_rows(facts: Sequence[EpisodeFacts], usual: Usual, limits: QualityLimits) -> Iterator[QualityRow]:
    """No episode holds what an earlier one holds: the same bytes, the same rows, or nearly the same way."""
    twins = _same_bytes(facts) | _same_rows(facts, limits)
    near = _nearest(facts, usual)
    for index, row in enumerate(facts):
        other, share = twins.get(index, (None, 0.0))
        distance, neighbour = near[index]
        if other is None and distance < limits.duplicate_distance and _moves(row, usual, limits):
            other = neighbour
        same = f"{share:.0%} of the rows are also in" if share else f"its way is {distance:.2%} away from that of"
        yield QualityRow(
            episode_id=row.episode_id,
            check="duplicate_episode",
            stream="all",
            verdict="pass" if other is None else "fail",
            value=share if share else distance if np.isfinite(distance) else None,
            limit=limits.duplicate_share if share else limits.duplicate_distance,
            unit="of the rows" if share else "rms distance of the ways",
            detail="" if other is None else f"{same} {facts[other].episode_id}",
            frame=0 if other is not None else None,
            other=None if other is None else facts[other].episode_id,
        )


def _same_bytes(facts: Sequence[EpisodeFacts]) -> dict[int, tuple[int, float]]:
    first: dict[str, int] = {}
    found = {}
    for index, row in enumerate(facts):
        other = first.setdefault(row.sketch.digest, index)
        if other != index:
            found[index] = (other, 1.0)
    return found


def _same_rows(facts: Sequence[EpisodeFacts], limits: QualityLimits) -> dict[int, tuple[int, float]]:
    """Later episodes that share rows with an earlier one, found through the hashes they have in common."""
    found: dict[int, tuple[int, float]] = {}
    for index, others in candidates([row.sketch.rows for row in facts]):
        for other in others:
            share = common_share(facts[index].sketch, facts[other].sketch)
            if share > max(limits.duplicate_share, found.get(index, (0, 0.0))[1]):
                found[index] = (other, share)
    return found


def candidates(hashes: Sequence[NDArray[np.uint64]]) -> Iterator[tuple[int, list[int]]]:
    """For each episode the few earlier ones that it has most row hashes in common with.

    Of the episodes that hold a row only the first `_COMMON` are remembered: a row that more hold (a start pose, a hand
    at rest) tells no pair from another, and to go through all of its holders took 24 s for 500 episodes.
    """
    holders: dict[int, list[int]] = {}
    for index, rows in enumerate(hashes):
        shared: Counter[int] = Counter()
        for value in rows.tolist():
            held = holders.setdefault(value, [])
            shared.update(held)
            if len(held) < _COMMON:
                held.append(index)
        yield index, [other for other, num in shared.most_common(_TRIED) if num >= _LEAST_SHARE * len(rows)]


def _nearest(facts: Sequence[EpisodeFacts], usual: Usual) -> list[tuple[float, int]]:
    """For each episode the nearest earlier one, and the rms distance of their outlines as a share of the ranges."""
    nowhere = [(float("inf"), 0)] * len(facts)
    if STATE not in usual.ranges or not usual.moving.any():
        return nowhere
    scale = np.where(usual.ranges[STATE] > 0, usual.ranges[STATE], 1.0)
    ways = np.stack([(row.sketch.outline / scale)[:, usual.moving].reshape(-1) for row in facts])
    squares = (ways**2).sum(axis=1)
    found: list[tuple[float, int]] = []
    for start in range(0, len(ways), _BLOCK):
        block = ways[start : start + _BLOCK]
        stop = start + len(block)
        apart = squares[start:stop, None] + squares[None, :stop] - 2 * block @ ways[:stop].T
        found += [_best(apart[at], start + at, ways.shape[1], ways) for at in range(len(block))]
    return found


def _best(apart: NDArray[np.float64], index: int, num: int, ways: NDArray[np.float64]) -> tuple[float, int]:
    if index == 0:
        return float("inf"), 0
    other = int(np.argmin(apart[:index]))
    # taken anew: the squares above lose what is small in rounding
    return float(np.sqrt(np.mean((ways[index] - ways[other]) ** 2))) if num else float("inf"), other


def _moves(facts: EpisodeFacts, usual: Usual, limits: QualityLimits) -> bool:
    """Episodes in which nothing moves are all alike; they are told of by their own check."""
    ranges = usual.episode_ranges[STATE]
    share = np.divide(facts.columns[STATE].range, ranges, out=np.zeros_like(ranges), where=usual.moving & (ranges > 0))
    return bool(share.max() >= limits.static_share)
