"""Verifiers of the scene of any manipulation: pure functions like those of `annotators.verifiers`, which runs them.

What a model says in one answer is compared with what it says in another that knew nothing of the first, with what was
noted, and with pixels: which of them changed when a hand closed.
"""

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from annotators.card_checks import card_instruction
from annotators.claims import same_thing
from annotators.evidence import Evidence
from annotators.open_scenes import OpenScene, agreed_ending, near, open_questions
from annotators.placement_checks import nouns, relation
from annotators.placements import named
from annotators.structure import Check, Finding, box_words, counted, impossible, overlap
from schemas.annotations import Mark
from schemas.scenes import Box, SceneNotes
from schemas.spans import frame_ns

_ONE_BOX = 0.9  # of two boxes' union: things may lie in or on each other, but not fill one box
_WITHIN = 0.9  # of the smaller of two boxes: it is a part of the larger one
_TOUCHED, _UNTOUCHED = 0.30, 0.05  # share of a box that changed when the hand closed
_NOT_ASKED = "no model was asked about the scene."
_NOTED = ("outcome", "success", "result")  # what the ending is called where it is noted
_YES = frozenset({"success", "succeeded", "true", "yes", "1", "1.0"})
_NO = frozenset({"failure", "failed", "fail", "false", "no", "0", "0.0"})


def open_boxes(notes: SceneNotes, evidence: Evidence) -> Finding:
    """Boxes lie in the picture; what stays lies there at the end too, what moved was handled and is gone from there."""
    seen = evidence.scene
    boxed = [(one.noun, one.box_xyxy) for one in notes.objects if one.box_xyxy is not None]
    if not boxed or notes.picture is None or seen is None:
        return Finding("unknown", "no thing has a box.")
    for noun, box in boxed:
        if problem := impossible(box, (notes.picture.width, notes.picture.height)):
            return Finding("fail", f"the box of {noun} {problem}: {box_words(box)}.")
    for (noun, box), (other, other_box) in combinations(boxed, 2):
        if _shared(box, other_box) > _ONE_BOX:
            return Finding("fail", f"{noun} and {other} are said to be in one place: {box_words(box)}.")
    if seen.has_moving_camera:
        return Finding("unknown", "most of the picture changed before the first grasp: the camera moves.")
    if not seen.handled:
        return Finding("unknown", "what the hand took is not said.")
    for finding in (_second_look(boxed, seen, evidence), _grasped(boxed, seen)):
        if finding is not None:
            return finding
    if len(boxed) < len(notes.objects):
        return Finding("unknown", f"{len(notes.objects) - len(boxed)} of {len(notes.objects)} things have no box.")
    return Finding("pass", f"{counted(len(boxed), 'box', 'boxes')}, as a second look has them.")


def _second_look(boxed: list[tuple[str, Box]], seen: OpenScene, evidence: Evidence) -> Finding | None:
    """What a look at the last picture says against boxes in the first; None where it says nothing against them."""
    if seen.after is None:
        return Finding("unknown", "nobody looked a second time.")
    missing = []
    for noun, box in boxed:
        other = named(seen.after, noun)
        if other is None or other.box_xyxy is None:
            missing.append(noun)
        elif near(box, other.box_xyxy) or _is_covered(box, other.box_xyxy, seen):
            continue
        elif _is_handled(noun, seen):
            if (share := _share(seen.ended, box)) is not None and share < _UNTOUCHED:
                told = f"{noun} was taken from {box_words(box)}, but {share:.0%} of that place has changed by the end"
                return Finding("fail", f"{told}: it lay elsewhere.")
        else:
            there = box_words(other.box_xyxy)
            mark = Mark(
                title=f"{noun} lies here",
                start_ns=frame_ns(seen.after_frame, evidence.rate_hz),
                image="after",
                number=there,
            )
            told = f"{noun} lies at {there} in frame {seen.after_frame}, not at {box_words(box)}"
            return Finding("fail", f"{told}, and no hand is said to have taken it.", (mark,))
    gone = [noun for noun in missing if not _is_handled(noun, seen)]
    return Finding("unknown", f"a second look does not find {' or '.join(gone)}.") if gone else None


def _is_handled(noun: str, seen: OpenScene) -> bool:
    return any(same_thing(noun, other) for other in seen.handled)


def _is_covered(box: Box, rest: Box, seen: OpenScene) -> bool:
    """Whether what is left of a box at the end is the part of it that something which was taken does not lie on."""
    laid = [one.box_xyxy for one in seen.after or () if one.box_xyxy and _is_handled(one.noun, seen)]
    return overlap(box, rest) >= _WITHIN and _area(rest) < _area(box) and any(overlap(box, other) for other in laid)


def _grasped(boxed: list[tuple[str, Box]], seen: OpenScene) -> Finding | None:
    """What the frame in which a hand first closed says against the box of what it took; None where it agrees."""
    taken = [(noun, box) for noun, box in boxed if same_thing(noun, seen.handled[0])]
    if len(taken) != 1 or seen.touched is None:
        return Finding("unknown", f"{seen.handled[0]} was taken first; which box that is, or when, is not known.")
    ((noun, box),) = taken
    share = _share(seen.touched, box) or 0.0
    words = f"{share:.0%} of the box of {noun} changed when the hand closed"
    if share < _UNTOUCHED:
        return Finding("fail", f"{words}: it closed elsewhere.")
    return None if share >= _TOUCHED else Finding("unknown", f"{words}: that may be a shadow.")


def _share(changed: NDArray[np.bool_] | None, box: Box) -> float | None:
    """How much of a box has changed, of a mask at half the picture's size; None where nobody looked."""
    if changed is None:
        return None
    x0, y0, x1, y1 = (value // 2 for value in box)
    part = changed[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)]
    return float(part.mean()) if part.size else 0.0


def _shared(one: Box, other: Box) -> float:
    """How much of two boxes together is in both."""
    wide, high = (min(one[at + 2], other[at + 2]) - max(one[at], other[at]) for at in (0, 1))
    both = max(0, wide) * max(0, high)
    areas = (_area(one), _area(other))
    return both / (sum(areas) - both) if min(areas) > 0 else 0.0


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def open_relation(notes: SceneNotes, evidence: Evidence) -> Finding:
    """What lies left or right of what, computed again; where boxes tell neither, nothing is claimed, which is right."""
    return relation(notes, evidence) if notes.relations else Finding("pass", "no relation is claimed.")


def open_nouns(notes: SceneNotes, evidence: Evidence) -> Finding:
    """One noun for each thing, in inventory, plan and relations; and what the segments handle is in the inventory."""
    found = nouns(notes, evidence)
    if found.verdict != "pass" or evidence.scene is None:
        return found
    things = [one.noun for one in notes.objects]
    strange = [word for word in evidence.scene.handled if not any(same_thing(word, noun) for noun in things)]
    if strange:
        return Finding("unknown", f"the segments speak of {strange[0]}, the inventory has {', '.join(things)}.")
    return found


def open_outcome(notes: SceneNotes, evidence: Evidence) -> Finding:
    """Two looks, one of which never saw the beginning, say how it ended; what was noted does not say otherwise."""
    seen = evidence.scene
    if seen is None or not seen.endings:
        return Finding("unknown", _NOT_ASKED)
    told = " and ".join(one or "nothing" for one in seen.endings)
    found = agreed_ending(seen.endings)
    if notes.outcome not in ("unknown", found):
        return Finding("fail", f"the notes say {notes.outcome}, the looks at the pictures {told}.")
    noted = noted_ending(evidence)
    if noted is not None and notes.outcome not in ("unknown", noted):
        return Finding("fail", f"the notes say {notes.outcome}, at collection was noted {noted}.")
    if "unknown" in (found, notes.outcome):
        return Finding("unknown", f"how it ended is not said alike: {told}.")
    return Finding(
        "pass", f"{found}, say {counted(len(seen.endings), 'look')}{' and what was noted' if noted else ''}."
    )


def noted_ending(evidence: Evidence) -> str | None:
    """The ending that was noted when the episode was collected; None where none was."""
    for name in _NOTED:
        said = (evidence.metadata or {}).get(name, "").strip().casefold()
        if said in _YES or said in _NO:
            return "success" if said in _YES else "failure"
    return None


def open_answers(notes: SceneNotes, evidence: Evidence) -> Finding:
    """Every question about the picture is answered again from boxes that two looks agree on."""
    if evidence.scene is None:
        return Finding("unknown", _NOT_ASKED)
    if not notes.questions:
        return Finding("unknown", "nothing is asked.")
    right = {one.question: one.answer for one in open_questions(evidence.scene)}
    for one in notes.questions:
        if one.question in right and one.answer != right[one.question]:
            return Finding("fail", f"'{one.question}' is answered {one.answer} The boxes say {right[one.question]}")
    if strange := [one.question for one in notes.questions if one.question not in right]:
        return Finding("unknown", f"no two looks answer '{strange[0]}'")
    return Finding("pass", f"{counted(len(notes.questions), 'question')}, answered the same again.")


# What is not here says the same about every scene.
OPEN_SCENES: dict[str, Check] = {
    "instruction": card_instruction,
    "boxes": open_boxes,
    "relation": open_relation,
    "nouns": open_nouns,
    "outcome": open_outcome,
    "answers": open_answers,
}
