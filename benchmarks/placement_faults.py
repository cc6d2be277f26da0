"""Faults put into right placements and scene notes, each for the verifier that is there to find it."""

import numpy as np

from annotators.placements import RELATIONS
from benchmarks.annotation_faults import Fault
from schemas.scenes import PlacementTrace, QuestionAnswer, Relation, SceneNotes, SceneObject

_OPPOSITE: dict[Relation, Relation] = {
    "left of": "right of",
    "right of": "left of",
    "in front of": "behind",
    "behind": "in front of",
    "on top of": "inside",
    "inside": "on top of",
}


def swapped_side(trace: PlacementTrace, rng: np.random.Generator) -> PlacementTrace | None:
    """The opposite relation, or any other."""
    if trace.relation == "unknown":
        return None
    others = [relation for relation in RELATIONS if relation != trace.relation]
    other = _OPPOSITE[trace.relation] if rng.random() < 0.5 else others[int(rng.integers(len(others)))]
    return trace.model_copy(update={"relation": other})


def exchanged_things(trace: PlacementTrace, rng: np.random.Generator) -> PlacementTrace | None:
    """Target and reference change places."""
    return trace.model_copy(update={"target": trace.reference, "reference": trace.target})


def wrong_box(trace: PlacementTrace, rng: np.random.Generator) -> PlacementTrace | None:
    """The target's box lies elsewhere on the table, on the reference, or out of the picture."""
    target, reference, picture = trace.target, trace.reference, trace.picture
    if target is None or target.box_xyxy is None or reference is None or picture is None:
        return None
    x0, y0, x1, y1 = target.box_xyxy
    wide, high = x1 - x0, y1 - y0
    beside = (
        (x0 + 4 * wide, y0, x1 + 4 * wide, y1)
        if x1 + 4 * wide <= picture.width
        else (x0 - 4 * wide, y0, x1 - 4 * wide, y1)
    )
    outside = (x0, y0 + picture.height, x1, y1 + picture.height)
    choices = [beside, outside, reference.box_xyxy or outside, (x0, y0, x0 + wide // 8, y0 + high // 8)]
    box = choices[int(rng.integers(len(choices)))]
    return trace.model_copy(update={"target": target.model_copy(update={"box_xyxy": box})})


def changed_wording(notes: SceneNotes, rng: np.random.Generator) -> SceneNotes | None:
    """One other wording of the instruction has the sides, or the things, the wrong way round."""
    if not notes.paraphrases or not notes.relations:
        return None
    at = int(rng.integers(len(notes.paraphrases)))
    words, claim = notes.paraphrases[at], notes.relations[0]
    turned = words.replace(claim.subject, "@").replace(claim.reference, claim.subject).replace("@", claim.reference)
    listed = (*notes.paraphrases[:at], turned, *notes.paraphrases[at + 1 :])
    return notes.model_copy(update={"paraphrases": listed})


def swapped_relation(notes: SceneNotes, rng: np.random.Generator) -> SceneNotes | None:
    """One relation of the notes is the opposite of what the picture shows."""
    places = [at for at, claim in enumerate(notes.relations) if claim.relation in _OPPOSITE]
    if not places:
        return None
    at = int(rng.choice(places))
    claim = notes.relations[at]
    turned = claim.model_copy(update={"relation": _OPPOSITE[claim.relation]})
    return notes.model_copy(update={"relations": (*notes.relations[:at], turned, *notes.relations[at + 1 :])})


def misplaced_thing(notes: SceneNotes, rng: np.random.Generator) -> SceneNotes | None:
    """The box of one thing that stays where it is lies on another, or out of the picture."""
    target = next((claim.subject for claim in notes.relations), None)
    still = [at for at, one in enumerate(notes.objects) if one.noun != target and one.box_xyxy is not None]
    if len(still) < 2 or notes.picture is None:
        return None
    one, other = (int(at) for at in rng.permutation(still)[:2])
    x0, y0, x1, y1 = notes.objects[one].box_xyxy or (0, 0, 0, 0)
    shifted = (x0 + notes.picture.width, y0, x1 + notes.picture.width, y1)
    box = (notes.objects[other].box_xyxy, shifted)[int(rng.integers(2))]
    return _with_object(notes, one, notes.objects[one].model_copy(update={"box_xyxy": box}))


def second_noun(notes: SceneNotes, rng: np.random.Generator) -> SceneNotes | None:
    """One thing goes by another noun in the inventory than in plan and relations, or two things share one."""
    if not notes.relations or len(notes.objects) < 2:
        return None
    at = next((at for at, one in enumerate(notes.objects) if one.noun == notes.relations[0].subject), None)
    if at is None:
        return None
    other = notes.objects[at - 1].noun if rng.random() < 0.5 else f"{notes.objects[at].noun.split()[0]} block"
    return _with_object(notes, at, notes.objects[at].model_copy(update={"noun": other}))


def _with_object(notes: SceneNotes, at: int, one: SceneObject) -> SceneNotes:
    return notes.model_copy(update={"objects": (*notes.objects[:at], one, *notes.objects[at + 1 :])})


def dropped_plan_step(notes: SceneNotes, rng: np.random.Generator) -> SceneNotes | None:
    """A step that was done is not in the plan."""
    if not notes.plan:
        return None
    at = int(rng.integers(len(notes.plan)))
    return notes.model_copy(update={"plan": (*notes.plan[:at], *notes.plan[at + 1 :])})


def merged_plan_steps(notes: SceneNotes, rng: np.random.Generator) -> SceneNotes | None:
    """Two steps become one that has no label of ours."""
    if len(notes.plan) < 2:
        return None
    at = int(rng.integers(len(notes.plan) - 1))
    one, other = notes.plan[at : at + 2]
    both = one.model_copy(update={"label": f"{one.label} and {other.label}"})
    return notes.model_copy(update={"plan": (*notes.plan[:at], both, *notes.plan[at + 2 :])})


def hallucinated_number(notes: SceneNotes, rng: np.random.Generator) -> SceneNotes | None:
    """An answer counts more or fewer things than there are, or gives a place where none is."""
    places = [at for at, one in enumerate(notes.questions) if any(char.isdigit() for char in one.answer)]
    if not places:
        return None
    at = int(rng.choice(places))
    asked = notes.questions[at]
    answer = (
        f"{len(notes.objects) + int(rng.integers(1, 9))}."
        if "[" not in asked.answer
        else "At " + str([int(value) for value in rng.integers(1, 200, 4)]) + "."
    )
    said = QuestionAnswer(question=asked.question, answer=answer)
    return notes.model_copy(update={"questions": (*notes.questions[:at], said, *notes.questions[at + 1 :])})


def another_ending(notes: SceneNotes, rng: np.random.Generator) -> SceneNotes | None:
    """The notes say that it failed where it succeeded, or the other way round."""
    if notes.outcome == "unknown":
        return None
    return notes.model_copy(update={"outcome": "failure" if notes.outcome == "success" else "success"})


def another_answer(notes: SceneNotes, rng: np.random.Generator) -> SceneNotes | None:
    """A question is answered with another thing, another colour or another side."""
    said = {one.answer for one in notes.questions if not any(char.isdigit() for char in one.answer)}
    places = [at for at, one in enumerate(notes.questions) if one.answer in said]
    if not places:
        return None
    at = int(rng.choice(places))
    asked = notes.questions[at]
    others = sorted(({f"The {one.noun}." for one in notes.objects} | said) - {asked.answer})
    told = QuestionAnswer(question=asked.question, answer=others[int(rng.integers(len(others)))])
    return notes.model_copy(update={"questions": (*notes.questions[:at], told, *notes.questions[at + 1 :])})


PLACEMENT_FAULTS = (
    Fault(name="swapped side", verifier="relation", placement=swapped_side),
    Fault(name="swapped side in the notes", verifier="relation", scene=swapped_relation),
    Fault(name="swapped side against the instruction", verifier="instruction", placement=swapped_side),
    Fault(name="wording that changes a fact", verifier="instruction", scene=changed_wording),
    Fault(name="wrong thing", verifier="moved_thing", placement=exchanged_things),
    Fault(name="wrong box", verifier="boxes", placement=wrong_box),
    Fault(name="wrong box in the inventory", verifier="boxes", scene=misplaced_thing),
    Fault(name="second noun", verifier="nouns", scene=second_noun),
    Fault(name="dropped step", verifier="plan_order", scene=dropped_plan_step),
    Fault(name="merged steps", verifier="plan_order", scene=merged_plan_steps),
    Fault(name="hallucinated number", verifier="numbers", scene=hallucinated_number),
    Fault(name="another ending", verifier="outcome", scene=another_ending),
    Fault(name="another answer", verifier="answers", scene=another_answer),
)
