"""Faults put into right notes about a board and cards, each for the verifier that is there to find it."""

import numpy as np

from benchmarks.annotation_faults import Fault
from benchmarks.placement_faults import another_ending, dropped_plan_step, merged_plan_steps, swapped_relation
from schemas.scenes import Box, QuestionAnswer, SceneNotes

_ANOTHER_TASK = (("correct", "wrong"), ("answer", "question"), ("card", "pen"), ("the result", "no result"))
_PLACES = (", and put it on the ledge.", ", and put it to the left of the board.", " from the left side.")


def changed_task(notes: SceneNotes, rng: np.random.Generator) -> SceneNotes | None:
    """One other wording asks for another card, another thing, or another place than the instruction."""
    if not notes.paraphrases:
        return None
    at = int(rng.integers(len(notes.paraphrases)))
    words = notes.paraphrases[at]
    ways = [words.replace(right, wrong) for right, wrong in _ANOTHER_TASK if right in words]
    ways += [f"{words.rstrip('.')}{place}" for place in _PLACES if place.split()[-1] not in words]
    turned = ways[int(rng.integers(len(ways)))]
    return notes.model_copy(update={"paraphrases": (*notes.paraphrases[:at], turned, *notes.paraphrases[at + 1 :])})


def misplaced_card(notes: SceneNotes, rng: np.random.Generator) -> SceneNotes | None:
    """The box of the board or of a card lies on another one's, beside its place, out of the picture, or is empty."""
    boxed = [at for at, one in enumerate(notes.objects) if one.box_xyxy is not None]
    if len(boxed) < 2 or notes.picture is None:
        return None
    one, other = (int(at) for at in rng.permutation(boxed)[:2])
    x0, y0, x1, y1 = notes.objects[one].box_xyxy or (0, 0, 0, 0)
    wide = x1 - x0
    beside = (x0 + wide, y0, x1 + wide, y1) if rng.random() < 0.5 else (x0 - wide, y0, x1 - wide, y1)
    outside = (x0, y0 + notes.picture.height, x1, y1 + notes.picture.height)
    choices: list[Box] = [notes.objects[other].box_xyxy or outside, beside, outside, (x0, y0, x0, y1)]
    box = choices[int(rng.integers(len(choices)))]
    moved = notes.objects[one].model_copy(update={"box_xyxy": box})
    return notes.model_copy(update={"objects": (*notes.objects[:one], moved, *notes.objects[one + 1 :])})


def another_card(notes: SceneNotes, rng: np.random.Generator) -> SceneNotes | None:
    """The relation after the release is said of a card that did not move."""
    cards = [one.noun for one in notes.objects if one.noun.endswith(" card")]
    if not notes.relations or len(cards) < 2:
        return None
    (claim, *rest) = notes.relations
    others = [noun for noun in cards if noun != claim.subject]
    turned = claim.model_copy(update={"subject": others[int(rng.integers(len(others)))]})
    return notes.model_copy(update={"relations": (turned, *rest)})


def strange_noun(notes: SceneNotes, rng: np.random.Generator) -> SceneNotes | None:
    """Two things share one noun, or what the plan speaks of goes by another noun in the inventory."""
    planned = {step.noun for step in notes.plan if step.noun is not None}
    at = next((at for at, one in enumerate(notes.objects) if one.noun in planned), None)
    if at is None or len(notes.objects) < 2:
        return None
    noun = notes.objects[at - 1].noun if rng.random() < 0.5 else "paper"
    told = notes.objects[at].model_copy(update={"noun": noun})
    return notes.model_copy(update={"objects": (*notes.objects[:at], told, *notes.objects[at + 1 :])})


def _answered(notes: SceneNotes, at: int, answer: str) -> SceneNotes:
    told = QuestionAnswer(question=notes.questions[at].question, answer=answer)
    return notes.model_copy(update={"questions": (*notes.questions[:at], told, *notes.questions[at + 1 :])})


def invented_number(notes: SceneNotes, rng: np.random.Generator) -> SceneNotes | None:
    """An answer has a number that was read nowhere, or a place where nothing lies."""
    places = [at for at, one in enumerate(notes.questions) if any(char.isdigit() for char in one.answer)]
    if not places:
        return None
    at = int(rng.choice(places))
    if "[" in notes.questions[at].answer:
        return _answered(notes, at, f"At {[int(value) for value in rng.integers(1, 200, 4)]}.")
    return _answered(notes, at, f"{int(rng.integers(1000, 9999))}.")


def another_answer(notes: SceneNotes, rng: np.random.Generator) -> SceneNotes | None:
    """A question has the answer of another one: the number of another card, the place of another thing."""
    at = int(rng.integers(len(notes.questions))) if notes.questions else 0
    others = sorted({one.answer for one in notes.questions} - {one.answer for one in notes.questions[at : at + 1]})
    return _answered(notes, at, others[int(rng.integers(len(others)))]) if others else None


CARD_SCENE_FAULTS = (
    Fault(name="wording that changes a fact", verifier="instruction", scene=changed_task),
    Fault(name="wrong box in the inventory", verifier="boxes", scene=misplaced_card),
    Fault(name="swapped side", verifier="relation", scene=swapped_relation),
    Fault(name="another card is said to have moved", verifier="relation", scene=another_card),
    Fault(name="second noun", verifier="nouns", scene=strange_noun),
    Fault(name="dropped step", verifier="plan_order", scene=dropped_plan_step),
    Fault(name="merged steps", verifier="plan_order", scene=merged_plan_steps),
    Fault(name="hallucinated number", verifier="numbers", scene=invented_number),
    Fault(name="another ending", verifier="outcome", scene=another_ending),
    Fault(name="another answer", verifier="answers", scene=another_answer),
)
