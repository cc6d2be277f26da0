"""Verifiers of the scene of a board and cards: pure functions like those of `annotators.verifiers`, which runs them.

They compare with the evidence alone: what was read twice, where programs found board and cards, which place was empty
after the release.
"""

import re

from annotators.arithmetic import answer, canonical, worked_line
from annotators.card_scenes import agreed, card_nouns, card_questions, ended, landed_at
from annotators.evidence import Evidence
from annotators.placement_checks import badly_retold, list_of
from annotators.placements import middle
from annotators.structure import Check, Finding, box_words, counted, impossible, overlap
from annotators.traces import build_trace
from annotators.wordings import changed_fact
from schemas.annotations import Card, ReasoningTrace
from schemas.scenes import SceneNotes

_MOST_OVERLAP = 0.25  # of the smaller box, for two things that lie apart
_SAME_PLACE = 0.5  # of the smaller side of two boxes: their middles may be so far apart
_NUMBER = re.compile(r"\d+")
_BOX_TEXT = re.compile(r"\[\d+, \d+, \d+, \d+\]")


def card_instruction(notes: SceneNotes, evidence: Evidence) -> Finding:
    """Other wordings of the recording's instruction ask for the same."""
    if notes.instruction != evidence.task:
        return Finding("fail", f"the recording says '{evidence.task}', the notes '{notes.instruction}'.")
    if retold := badly_retold(notes):
        return retold
    if not notes.paraphrases:
        return Finding("pass", "the recording's own words, and no other wording.")
    for words in notes.paraphrases:
        if problem := changed_fact(evidence.task, words):
            return Finding("fail", f"'{words}' does not say what was asked for: {problem}.")
    return Finding("pass", f"{counted(len(notes.paraphrases), 'other wording')}, all with the same facts.")


def card_boxes(notes: SceneNotes, evidence: Evidence) -> Finding:
    """Boxes lie in the picture, each in a place of its own, where programs find board and cards."""
    boxed = [(one.noun, one.box_xyxy) for one in notes.objects if one.box_xyxy is not None]
    table = evidence.table
    if not boxed or notes.picture is None:
        return Finding("unknown", "no thing has a box.")
    for noun, box in boxed:
        if problem := impossible(box, (notes.picture.width, notes.picture.height)):
            return Finding("fail", f"the box of {noun} {problem}: {box_words(box)}.")
    for at, (noun, box) in enumerate(boxed):
        for other, other_box in boxed[at + 1 :]:
            if overlap(box, other_box) > _MOST_OVERLAP:
                return Finding("fail", f"{noun} and {other} are said to be in one place: {box_words(box)}.")
    if table is None:
        return Finding("unknown", "nobody looked for board and cards in the pictures.")
    found = dict(zip(card_nouns(len(table.cards)), table.cards, strict=True))
    if table.board is not None:
        found["board"] = table.board
    for noun, box in boxed:
        if noun not in found:
            return Finding("unknown", f"programs find no {noun} in the picture.")
        (x, y), (other_x, other_y) = middle(box), middle(found[noun])
        sides = (box[2] - box[0], box[3] - box[1], found[noun][2] - found[noun][0], found[noun][3] - found[noun][1])
        if max(abs(x - other_x), abs(y - other_y)) > _SAME_PLACE * min(sides):
            told = f"programs find {noun} at {box_words(found[noun])}"
            return Finding("fail", f"{told}, not at {box_words(box)}.")
    if len(boxed) < len(notes.objects):
        return Finding("unknown", f"{len(notes.objects) - len(boxed)} of {len(notes.objects)} things have no box.")
    return Finding("pass", f"{counted(len(boxed), 'box', 'boxes')}, each in a place of its own.")


def card_relation(notes: SceneNotes, evidence: Evidence) -> Finding:
    """How the card that was moved lies to the board, computed again."""
    if not notes.relations:
        return Finding("unknown", "no relation is claimed.")
    found = landed_at(evidence.table, evidence.pick)
    if not found:
        return Finding("unknown", "where the moved card lies afterwards was not seen.")
    for claim in notes.relations:
        if claim not in found:
            return Finding("fail", f"{claim.render()[:-1]} ({claim.frame_of_reference}): seen was {found[0].render()}")
    return Finding("pass", f"{counted(len(notes.relations), 'relation')} as the boxes have them.")


def outcome(notes: SceneNotes, evidence: Evidence) -> Finding:
    """How it ended follows from which card has the answer, which one was moved, and where it lies."""
    found, why = ended(read_trace(evidence), evidence.table, evidence.pick)
    if "unknown" in (found, notes.outcome):
        return Finding("unknown", why if found == "unknown" else f"the notes do not say how it ended; {why}")
    if found != notes.outcome:
        return Finding("fail", f"the notes say {notes.outcome}, but {why}")
    return Finding("pass", why)


def card_answers(notes: SceneNotes, evidence: Evidence) -> Finding:
    """Every question about the picture is answered again from what was read and found."""
    if not notes.questions:
        return Finding("unknown", "nothing is asked.")
    right = {one.question: one.answer for one in card_questions(read_trace(evidence), _board(evidence))}
    for one in notes.questions:
        if one.question in right and one.answer != right[one.question]:
            told = f"'{one.question}' is answered {one.answer}"
            return Finding("fail", f"{told} What was read says {right[one.question]}")
    if strange := [one.question for one in notes.questions if one.question not in right]:
        return Finding("unknown", f"nothing that was read answers '{strange[0]}'")
    return Finding("pass", f"{counted(len(notes.questions), 'question')}, answered the same again.")


def card_numbers(notes: SceneNotes, evidence: Evidence) -> Finding:
    """Every number in the words was read, follows from what was read, counts the cards, or is a box of a thing."""
    if evidence.readings is None and evidence.cards_read is None:
        return Finding("unknown", "what was read is not known.")
    allowed = {str(len(evidence.cards_read or ())), *_NUMBER.findall(evidence.task)}
    readings = evidence.readings
    for text in (*((readings.first, readings.second) if readings else ()), *(evidence.cards_read or ())):
        if text is not None:
            for words in (text, canonical(text), answer(text), worked_line(text)):
                allowed |= set(_NUMBER.findall(words or ""))
    known = {list_of(one.box_xyxy) for one in notes.objects if one.box_xyxy is not None}
    words = [*notes.paraphrases, *(step.render() for step in notes.plan)]
    words += [text for one in notes.questions for text in (one.question, one.answer)]
    count = 0
    for text in words:
        for box in _BOX_TEXT.findall(text):
            count += 4
            if box not in known:
                return Finding("fail", f"'{text}' names {box}, which is no box of a thing.")
        for number in _NUMBER.findall(_BOX_TEXT.sub("", text)):
            count += 1
            if number not in allowed:
                return Finding("fail", f"'{text}' says {number}, which was read nowhere.")
    return Finding("pass", f"{counted(count, 'number')}, all accounted for.")


def read_trace(evidence: Evidence) -> ReasoningTrace:
    """What follows from the evidence alone: both readings of the board, and the cards where programs found them."""
    table, texts = evidence.table, evidence.cards_read or ()
    if table is None or len(table.cards) != len(texts):
        return build_trace(agreed(evidence.readings), ())
    cards = tuple(
        Card(text=text, position="unknown", box_xyxy=box) for text, box in zip(texts, table.cards, strict=True)
    )
    return build_trace(agreed(evidence.readings), cards)


def _board(evidence: Evidence) -> tuple[int, int, int, int] | None:
    return evidence.table.board if evidence.table else None


# What is not here says the same about every scene.
CARD_SCENES: dict[str, Check] = {
    "instruction": card_instruction,
    "relation": card_relation,
    "boxes": card_boxes,
    "numbers": card_numbers,
    "outcome": outcome,
    "answers": card_answers,
}
