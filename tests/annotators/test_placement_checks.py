"""Verifiers of placements by mutation: what is right passes, one thing made wrong fails, what nobody saw is unknown."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from annotators.evidence import Evidence
from annotators.placement_checks import (
    answers,
    boxes,
    instruction,
    moved_thing,
    nouns,
    numbers,
    placement_outcome,
    plan_order,
    relation,
)
from annotators.placements import PlacementSeen, placement_trace, scene_notes
from annotators.things import ThingsView
from schemas.annotations import Segment, SegmentList
from schemas.scenes import Box, PictureRef, PlanStep, QuestionAnswer, SceneObject

TASK = "Put the red box to the left of the blue bar."
BOX, BAR, DISC = (200, 150, 221, 171), (120, 100, 164, 121), (60, 160, 88, 188)
GOAL = (75, 101, 96, 122)
DONE = ("hold", "reach", "grasp", "carry", "release", "retreat", "hold")
SEGMENTS = SegmentList(
    segments=tuple(
        Segment(start_ns=at, end_ns=at + 1, label=label, end_effector="left gripper") for at, label in enumerate(DONE)
    )
)


def things(**places: Box) -> tuple[SceneObject, ...]:
    return tuple(SceneObject(noun=name.replace("_", " "), box_xyxy=box) for name, box in places.items())


def hand_over(box: Box) -> np.ndarray:
    mask = np.zeros((120, 160), bool)
    x0, y0, x1, y1 = (value // 2 for value in box)
    mask[y0 - 5 : y1 + 5, x0 - 5 : x1 + 5] = True
    return mask


SEEN = PlacementSeen(
    view=ThingsView(),
    picture=PictureRef(camera="cam_high", frame=0, width=320, height=240),
    before=things(red_box=BOX, blue_bar=BAR, green_disc=DISC),
    after=things(red_box=GOAL, blue_bar=BAR, green_disc=DISC),
    after_frame=200,
    moved=("red box",),
    touched=hand_over(BOX),
)
EVIDENCE = Evidence(rate_hz=50, task=TASK, placement=SEEN, executed=DONE[1:-1])
TRACE = placement_trace(TASK, SEEN)
NOTES = scene_notes(TASK, SEEN, SEGMENTS)


def test_what_is_right_passes_every_verifier() -> None:
    found = [check(TRACE, EVIDENCE) for check in (instruction, moved_thing, relation, boxes, nouns)]
    found += [check(NOTES, EVIDENCE) for check in (instruction, relation, boxes, plan_order, nouns, numbers)]
    assert [one.verdict for one in found] == ["pass"] * 11, found
    assert NOTES.outcome == "success"
    assert [step.render() for step in NOTES.plan][2] == "Carry the red box to the left of the blue bar"


def test_a_swapped_side_fails_against_the_boxes_and_against_the_instruction() -> None:
    swapped = TRACE.model_copy(update={"relation": "right of"})
    assert relation(swapped, EVIDENCE).verdict == "fail"
    assert instruction(swapped, EVIDENCE).verdict == "fail"
    side = NOTES.relations[-1].model_copy(update={"relation": "behind"})
    assert relation(NOTES.model_copy(update={"relations": (side,)}), EVIDENCE).verdict == "fail"


def test_a_relation_is_judged_in_the_frame_that_it_declares() -> None:
    opposite = replace(SEEN, view=ThingsView(seen_from="opposite"))
    there = replace(EVIDENCE, placement=opposite)
    assert relation(TRACE, there).verdict == "fail"
    as_viewed = TRACE.model_copy(update={"frame_of_reference": "viewer"})
    assert relation(as_viewed, there).verdict == "pass"


@pytest.mark.parametrize("box", [GOAL, BAR, (200, 150, 200, 171), (310, 150, 331, 171), (1, 1, 3, 3), (0, 0, 320, 200)])
def test_a_wrong_box_fails(box: Box) -> None:
    wrong = TRACE.model_copy(update={"target": SceneObject(noun="red box", box_xyxy=box)})
    assert boxes(wrong, EVIDENCE).verdict == "fail"


def test_the_box_of_what_did_not_move_is_held_against_the_later_picture() -> None:
    wrong = TRACE.model_copy(update={"reference": SceneObject(noun="blue bar", box_xyxy=DISC)})
    assert boxes(wrong, EVIDENCE).verdict == "fail"
    objects = (*NOTES.objects[:1], SceneObject(noun="blue bar", box_xyxy=(20, 20, 64, 41)), *NOTES.objects[2:])
    assert boxes(NOTES.model_copy(update={"objects": objects}), EVIDENCE).verdict == "fail"


def test_another_thing_than_the_one_that_moved_fails() -> None:
    other = replace(EVIDENCE, placement=replace(SEEN, moved=("green disc",)))
    assert moved_thing(TRACE, other).verdict == "fail"
    both = replace(EVIDENCE, placement=replace(SEEN, moved=("green disc", "red box")))
    assert moved_thing(TRACE, both).verdict == "fail"


@pytest.mark.parametrize("plan", [NOTES.plan[:2] + NOTES.plan[3:], (NOTES.plan[1], NOTES.plan[0], *NOTES.plan[2:])])
def test_a_plan_without_a_step_that_was_done_or_in_another_order_fails(plan: tuple[PlanStep, ...]) -> None:
    assert plan_order(NOTES.model_copy(update={"plan": plan}), EVIDENCE).verdict == "fail"
    longer = (*NOTES.plan, PlanStep(label="reach", noun="green disc"))
    assert plan_order(NOTES.model_copy(update={"plan": longer}), EVIDENCE).verdict == "pass"


def test_one_thing_has_one_noun() -> None:
    cube = NOTES.relations[0].model_copy(update={"subject": "red cube"})
    assert nouns(NOTES.model_copy(update={"relations": (cube,)}), EVIDENCE).verdict == "fail"
    twice = (*NOTES.objects[:2], NOTES.objects[0])
    assert nouns(NOTES.model_copy(update={"objects": twice}), EVIDENCE).verdict == "fail"


@pytest.mark.parametrize("answer", ["7.", "At [1, 2, 3, 4].", "3 of 5."])
def test_a_number_that_nothing_has_fails(answer: str) -> None:
    said = QuestionAnswer(question="How many things are on the table?", answer=answer)
    assert numbers(NOTES.model_copy(update={"questions": (said,)}), EVIDENCE).verdict == "fail"


def test_any_other_ending_and_any_other_answer_fail() -> None:
    assert (placement_outcome(NOTES, EVIDENCE).verdict, answers(NOTES, EVIDENCE).verdict) == ("pass", "pass")
    assert placement_outcome(NOTES.model_copy(update={"outcome": "failure"}), EVIDENCE).verdict == "fail"
    other = replace(EVIDENCE, placement=replace(SEEN, moved=("green disc", "red box")))
    assert placement_outcome(NOTES, other).verdict == "fail"
    assert placement_outcome(NOTES, replace(EVIDENCE, placement=replace(SEEN, moved=()))).verdict == "unknown"
    asked = {one.question: one for one in NOTES.questions}
    for question in ("What is furthest to the left?", "What colour is the bar?"):
        said = asked[question].model_copy(update={"answer": "Pink."})
        assert answers(NOTES.model_copy(update={"questions": (said,)}), EVIDENCE).verdict == "fail"
    side = next(one for one in NOTES.questions if one.question.startswith("How does the red box lie"))
    turned = side.model_copy(update={"answer": "It is behind the blue bar."})
    assert turned != side
    assert answers(NOTES.model_copy(update={"questions": (turned,)}), EVIDENCE).verdict == "fail"
    assert answers(NOTES, Evidence(rate_hz=50, task=TASK)).verdict == "unknown"


def test_a_wording_that_changes_a_fact_fails() -> None:
    changed = ("Put the red box to the right of the blue bar.",)
    assert instruction(NOTES.model_copy(update={"paraphrases": changed}), EVIDENCE).verdict == "fail"


def test_what_nobody_saw_is_unknown_and_not_pass() -> None:
    blind = Evidence(rate_hz=50, task=TASK)
    for check in (moved_thing, relation, boxes, nouns):
        assert check(TRACE, blind).verdict == "unknown"
    assert plan_order(NOTES, blind).verdict == "unknown"
    assert instruction(TRACE, replace(EVIDENCE, task="Tidy up.")).verdict == "unknown"
    changes: list[dict[str, Any]] = [{"touched": None}, {"touched": np.zeros((120, 160), bool)}]
    assert [boxes(TRACE, replace(EVIDENCE, placement=replace(SEEN, **one))).verdict for one in changes] == [
        "unknown",
        "fail",
    ]
    unmoved = replace(EVIDENCE, placement=replace(SEEN, moved=()))
    assert moved_thing(TRACE, unmoved).verdict == "unknown"
