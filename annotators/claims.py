"""Verifiers of what a proposal claims to rest on: numbers somebody read, pictures that exist, no look into the future.

Pure functions like those of `annotators.verifiers`, which runs them.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from annotators.arithmetic import answer, canonical, worked_line
from annotators.evidence import Evidence
from annotators.structure import Finding, span_mark
from schemas.annotations import Mark, Proposal, ReasoningTrace, SegmentList
from schemas.spans import NS_PER_S, frame_ns

AFTERWARDS = ("grasp", "after")  # pictures that check what was done; no word of a trace comes from them
_NUMBER = re.compile(r"[0-9]+")
# A sum in metadata is only what is said to be one: "4+1=?", "board: 4+1". A date, "3/4 done" or "run 2-1" is none.
_SUM = r"[0-9(?][0-9+\-x\u00d7*/\u00f7()? ]*"
_NOTED = re.compile(
    rf"({_SUM}=[0-9+\-x\u00d7*/\u00f7()? ]*)|\b(?:board|equation|sum)\b\W*(?:reads|says|is)?\W*({_SUM})", re.I
)


def read_numbers(trace: ReasoningTrace, evidence: Evidence) -> Finding:
    """Every number in the words was read on the board or on a card, or follows from what was read."""
    if evidence.readings is None and evidence.cards_read is None:
        return Finding("unknown", "what was read is not known.")
    known: set[str] = set()
    for reading in (evidence.readings.first, evidence.readings.second) if evidence.readings else ():
        known |= {*_numbers(reading), *_numbers(canonical(reading))}
        known |= {*_numbers(answer(reading)), *_numbers(worked_line(reading) if reading else None)}
    for text in evidence.cards_read or ():
        known |= {*_numbers(text), *_numbers(answer(text))}
    said = _numbers(trace.render())
    invented = [number for number in said if number not in known]
    if invented:
        return Finding("fail", f"{invented[0]} was read nowhere and follows from nothing that was read.")
    return Finding("pass", f"{len(said)} numbers, all read or worked out.")


def _numbers(text: str | None) -> list[str]:
    return [number.lstrip("0") or "0" for number in _NUMBER.findall(text or "")]


def metadata(trace: ReasoningTrace, evidence: Evidence) -> Finding:
    """What was noted at collection does not contradict the board."""
    if evidence.metadata is None:
        return Finding("unknown", "what was noted at collection is not known.")
    noted = dict(_noted_sums(evidence.metadata))
    if not noted:
        return Finding("pass", "no sum was noted at collection: nothing to contradict.")
    if trace.board is None:
        name, wrote = next(iter(noted.items()))
        return Finding("unknown", f"{name} notes {wrote}, the board was not read.")
    for name, wrote in noted.items():
        if wrote != canonical(trace.board):
            return Finding("fail", f"{name} notes {wrote}, the trace says {trace.board}.")
    return Finding("pass", f"{' and '.join(noted)} note {trace.board} too.")


def _noted_sums(noted: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, words in noted.items():
        for found in _NOTED.finditer(words):
            wrote = canonical(found.group(1) or found.group(2))
            if wrote is not None and re.search(r"[+x/]|(?<=[0-9)])-", wrote):
                yield name, wrote


def stamps(proposal: Proposal, evidence: Evidence) -> Finding:
    """Every picture and event that is named lies on a row of the episode, every box inside its picture."""
    rows = evidence.stamps_ns
    if rows is None or not len(rows):
        return Finding("unknown", "the stamps of the episode's rows are not known.")
    named = 0
    for name, frame, box in _pictures(proposal):
        named += 1
        if frame_ns(frame, evidence.rate_hz) not in rows:
            seen = Mark(title=f"{name}: no such frame", image=name, number=f"frame {frame}")
            return Finding("fail", f"{name} is frame {frame}, which the episode does not have.", (seen,))
        if box is not None and evidence.frame_size is not None and not _inside(box, evidence.frame_size):
            at_ns = frame_ns(frame, evidence.rate_hz)
            seen = Mark(title=f"the box of {name}", start_ns=at_ns, image=name, number=str(box))
            return Finding("fail", f"the box of {name} leaves the picture or is empty: {box}.", (seen,))
    if isinstance(proposal.payload, SegmentList):
        for event in proposal.payload.events:
            named += 1
            if not np.isin(event.stamp_ns, rows):
                told = f"{event.end_effector} {event.event}s"
                seen = Mark(title=told, start_ns=event.stamp_ns)
                return Finding("fail", f"{told} at {event.stamp_ns} ns, where no row is.", (seen,))
    elif not named:
        return Finding("unknown", "it names no picture.")
    return Finding("pass", f"{named} pictures and events, all on rows of the episode.")


def no_future(proposal: Proposal, evidence: Evidence) -> Finding:
    """No word of a trace comes from a picture of after the moment it is acted on: the first grasp."""
    if evidence.events is None:
        return Finding("unknown", "the rig declares no end effector: when the trace is acted on is not known.")
    closes = [event.stamp_ns for event in evidence.events if event.event == "close"]
    if not closes:
        return Finding("unknown", "no gripper closes: when the trace is acted on is not known.")
    read_from = [(name, frame) for name, frame, _ in _pictures(proposal) if name not in AFTERWARDS]
    if not read_from:
        return Finding("unknown", "it names no picture that it was read from.")
    grasp = Mark(title="the first grasp", start_ns=closes[0])
    for name, frame in read_from:
        at_ns = frame_ns(frame, evidence.rate_hz)
        if at_ns > closes[0]:
            late = Mark(title=f"{name} is read here", start_ns=at_ns, image=name, number=f"frame {frame}")
            return Finding(
                "fail", f"{name} is of {_s(at_ns)}, after the first grasp at {_s(closes[0])}.", (grasp, late)
            )
    name, last = max(read_from, key=lambda one: one[1])
    read = Mark(title="the last picture that was read", start_ns=frame_ns(last, evidence.rate_hz), image=name)
    return Finding("pass", f"read from frames up to {last}; the first grasp is at {_s(closes[0])}.", (read, grasp))


def held_object(segments: SegmentList, evidence: Evidence) -> Finding:
    """What a hand is said to hold is what a second look, which knew nothing else, saw in it at the grasp."""
    named = [one for one in segments.segments if one.phase == "grasp" and one.about]
    if not any(one.about for one in segments.segments):
        return Finding("pass", "no object is named.")
    looks = dict(evidence.held or ())
    for one in named:
        if (seen := looks.get(one.start_ns)) is not None and not same_thing(one.about, seen):
            words = f"at {_s(one.start_ns)} the hand is said to hold {one.about}, a second look says {seen}."
            return Finding("fail", words, (span_mark(one, number=seen),))
    unseen = [one for one in named if looks.get(one.start_ns) is None]
    if unseen or not named:
        where = f"at {_s(unseen[0].start_ns)}" if unseen else "anywhere, for no grasp names what it holds"
        return Finding("unknown", f"no second look tells what is held {where}.", tuple(map(span_mark, unseen)))
    return Finding("pass", f"{len(named)} grasps, each looked at twice.", tuple(map(span_mark, named)))


def same_thing(one: str, other: str) -> bool:
    """`the yellow bottle` and `bottle` are one thing, `yellow bottle` and `red bottle` are not."""
    few, many = sorted(
        ({*re.findall(r"\w+", words.casefold())} - {"the", "a", "an"} for words in (one, other)), key=len
    )
    return bool(few) and few <= many


def _pictures(proposal: Proposal) -> Iterator[tuple[str, int, tuple[float, ...] | None]]:
    for name, picture in proposal.images.items():
        if isinstance(picture, dict) and isinstance(frame := picture.get("frame"), int):
            box: Any = picture.get("box_xyxy")
            yield name, frame, tuple(box) if isinstance(box, list) else None


def _inside(box: tuple[float, ...], size: tuple[int, int]) -> bool:
    x0, y0, x1, y1 = box
    return 0 <= x0 < x1 <= size[0] and 0 <= y0 < y1 <= size[1]


def _s(stamp_ns: int) -> str:
    return f"{stamp_ns / NS_PER_S:.2f} s"
