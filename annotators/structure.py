"""Verifiers that need no opinion about the scene: spans without gaps, words that exist, boxes that are possible.

Pure functions like those of `annotators.verifiers`, which runs them.
"""

import re
from collections.abc import Callable
from itertools import combinations, pairwise
from typing import NamedTuple

import numpy as np

from annotators.evidence import Evidence
from annotators.papers import POSITIONS, Box
from schemas.annotations import Card, Mark, ReasoningTrace, Segment, SegmentList, Verdict
from schemas.scenes import SceneNotes
from schemas.spans import NS_PER_S

LABELS = ("hold", "reach", "grasp", "carry", "release", "retreat", "move", "unknown")
_ABOUT = re.compile(r"[^\W_]+(?:[ '-][^\W_]+){0,9}")  # plain words: letters and digits, no signs, no marks
_MOST_OVERLAP = 0.25  # of the smaller box: two cards may touch, one card is not two


class Finding(NamedTuple):
    """What one check says, and why."""

    verdict: Verdict
    evidence: str
    marks: tuple[Mark, ...] = ()


type Check = Callable[[SceneNotes, Evidence], Finding]


def counted(number: int, noun: str, plural: str = "") -> str:
    """`1 box`, `2 boxes`: a number with its noun; `plural` where it does not end in s."""
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"


def span_mark(segment: Segment, title: str | None = None, number: str | None = None) -> Mark:
    """The stretch of a segment; the moment it starts where it has no length."""
    end_ns = segment.end_ns if segment.end_ns > segment.start_ns else None
    return Mark(title=title or segment.label, start_ns=segment.start_ns, end_ns=end_ns, number=number)


def coverage(segments: SegmentList, evidence: Evidence) -> Finding:
    """Segments begin with the episode, end with it, leave no gap, and are cut at rows that exist."""
    stamps_ns = evidence.stamps_ns
    if stamps_ns is None or not len(stamps_ns):
        return Finding("unknown", "the stamps of the episode's rows are not known.")
    if not segments.segments:
        return Finding("fail", "there is no segment.")
    edges = [*stamps_ns.tolist(), int(stamps_ns[-1]) + NS_PER_S // evidence.rate_hz]
    for one in segments.segments:
        if one.start_ns >= one.end_ns:
            words = f"{one.label} ends at {_s(one.end_ns)}, before it begins at {_s(one.start_ns)}."
            return Finding("fail", words, (span_mark(one),))
    for before, after in pairwise(segments.segments):
        if before.end_ns != after.start_ns:
            what = "leave a gap" if before.end_ns < after.start_ns else "overlap"
            words = f"{before.label} and {after.label} {what} at {_s(before.end_ns)}."
            edges_ns = sorted((before.end_ns, after.start_ns))
            apart = Mark(title=f"the two {what}", start_ns=edges_ns[0], end_ns=edges_ns[1])
            return Finding("fail", words, (apart,))
    first, last = segments.segments[0], segments.segments[-1]
    if first.start_ns != edges[0]:
        words = f"the episode begins at {_s(edges[0])}, its first segment at {_s(first.start_ns)}."
        return Finding("fail", words, (Mark(title="the first segment begins", start_ns=first.start_ns),))
    if last.end_ns != edges[-1]:
        words = f"the episode ends at {_s(edges[-1])}, its last segment at {_s(last.end_ns)}."
        return Finding("fail", words, (Mark(title="the last segment ends", start_ns=last.end_ns),))
    known = set(edges)
    odd = [one.start_ns for one in segments.segments if one.start_ns not in known]
    if odd:
        marks = tuple(Mark(title="begins where no row is", start_ns=at_ns) for at_ns in odd)
        return Finding("fail", f"a segment begins at {odd[0]} ns, where no row is.", marks)
    return Finding("pass", f"{len(segments.segments)} segments cover {len(stamps_ns)} rows without a gap.")


def vocabulary(segments: SegmentList, evidence: Evidence) -> Finding:
    """Every label begins with a word of ours and goes on in plain words, and every end effector is one of the rig's."""
    for one in segments.segments:
        if one.phase not in LABELS:
            words = f"'{one.label}' at {_s(one.start_ns)} is no label; they are {', '.join(LABELS)}."
            return Finding("fail", words, (span_mark(one),))
        if one.about and not _ABOUT.fullmatch(one.about):
            words = f"'{one.label}' at {_s(one.start_ns)} names no object in plain words."
            return Finding("fail", words, (span_mark(one),))
    if evidence.end_effectors is None:
        return Finding("unknown", "the rig's end effectors are not known.")
    ours = {*evidence.end_effectors, "unknown"}
    named = [*(one.end_effector for one in segments.segments), *(event.end_effector for event in segments.events)]
    if strange := next((name for name in named if name not in ours), None):
        return Finding("fail", f"'{strange}' is no end effector of the rig ({', '.join(sorted(ours))}).")
    return Finding("pass", f"{len({one.label for one in segments.segments})} labels, all known.")


def moves(segments: SegmentList, evidence: Evidence) -> Finding:
    """The moves that a segment names are those the arms make over its own span, computed again."""
    said = [(one, move) for one in segments.segments for move in one.moves if move != "unknown"]
    if not said:
        return Finding("pass", "no move is claimed.")
    if evidence.moves_over is None:
        return Finding("unknown", "the rig declares no arm to compute moves from.")
    for one, move in said:
        done = evidence.moves_over(one.start_ns, one.end_ns, one.end_effector)
        if move not in done:
            told = ", ".join(done) or "nothing"
            words = f"{one.label} at {_s(one.start_ns)} says {move}; the joints say {told}."
            return Finding("fail", words, (span_mark(one, title=f"says {move}", number=told),))
    return Finding("pass", f"{len(said)} moves, all made.")


def card_places(trace: ReasoningTrace, evidence: Evidence) -> Finding:
    """Cards lie inside the picture, each in a place of its own, and left, middle and right are their order in it."""
    if not trace.cards:
        return Finding("unknown", "the trace names no card.")
    named = [card.position for card in trace.cards if card.position != "unknown"]
    if doubled := next((place for place in named if named.count(place) > 1), None):
        return Finding("fail", f"two cards are said to be {doubled}.")
    if named and tuple(named) != POSITIONS:
        return Finding("fail", f"cards from left to right are said to be {', '.join(named)}.")
    boxed = [(card, card.box_xyxy) for card in trace.cards if card.box_xyxy is not None]
    for card, box in boxed:
        if problem := impossible(box, evidence.frame_size):
            words = f"the box of card {card.text} {problem}: {box_words(box)}."
            return Finding("fail", words, _card_marks(card))
    for (one, box), (other, other_box) in combinations(boxed, 2):
        if overlap(box, other_box) > _MOST_OVERLAP:
            words = f"cards {one.text} and {other.text} are said to lie in one place: {box_words(box)}."
            return Finding("fail", words, _card_marks(one, other))
    if wrong := _out_of_order([(card, box) for card, box in boxed if card.position != "unknown"]):
        return Finding("fail", wrong, _card_marks(*(card for card, _ in boxed)))
    if len(boxed) < len(trace.cards):
        return Finding("unknown", f"{len(trace.cards) - len(boxed)} of {len(trace.cards)} cards have no box.")
    return Finding("pass", f"{len(boxed)} cards in places of their own, left to right.")


def card_mark(position: str, number: str, title: str = "") -> Mark:
    """The picture of the card at a place; `number` is what is read on it."""
    return Mark(title=title or f"{position} card", image=f"card_{position}", number=number)


def _card_marks(*cards: Card) -> tuple[Mark, ...]:
    return tuple(card_mark(card.position, card.text) for card in cards if card.position != "unknown")


def impossible(box: Box, frame_size: tuple[int, int] | None) -> str | None:
    """What is wrong with a box in a picture of (width, height); None where it can be."""
    x0, y0, x1, y1 = box
    if x0 >= x1 or y0 >= y1:
        return "is empty"
    if min(x0, y0) < 0 or (frame_size is not None and (x1 > frame_size[0] or y1 > frame_size[1])):
        return "leaves the picture"
    return None


def _out_of_order(cards: list[tuple[Card, Box]]) -> str | None:
    for (one, box), (other, other_box) in pairwise(cards):
        if box[0] + box[2] >= other_box[0] + other_box[2]:
            return f"card {one.text} is said to be {one.position} of card {other.text}, but lies right of it."
    return None


def overlap(one: Box, other: Box) -> float:
    """How much of the smaller of two boxes lies in the other."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    if wide <= 0 or high <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return float(wide * high / np.min(areas))


def box_words(box: Box) -> str:
    """A box for people."""
    return f"({box[0]}, {box[1]}) to ({box[2]}, {box[3]})"


def _s(stamp_ns: int) -> str:
    return f"{stamp_ns / NS_PER_S:.2f} s"
