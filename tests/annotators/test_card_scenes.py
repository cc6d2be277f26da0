"""The scene of a board and cards, by mutation: what is right passes, one thing made wrong fails, unseen is unknown."""

from dataclasses import replace

import pytest

from annotators.card_checks import (
    card_answers,
    card_boxes,
    card_instruction,
    card_numbers,
    card_relation,
    outcome,
)
from annotators.card_scenes import card_nouns, card_scene, read_task, rewordings
from annotators.evidence import Evidence, PickEvidence, TableSeen
from annotators.perception import BoardReadings
from annotators.traces import UNREAD
from annotators.verifiers import verify
from schemas.annotations import Card, Proposal, Provenance, Segment, SegmentList
from schemas.scenes import Box, PictureRef, QuestionAnswer, SceneNotes

TASK = "Answer the question and pick the card with the correct answer."
BOARD: Box = (64, 8, 256, 81)
PLACES: tuple[Box, ...] = ((69, 174, 104, 202), (145, 161, 175, 184), (218, 174, 252, 201))
TABLE = TableSeen(picture=PictureRef(camera="cam_high", frame=0, width=320, height=240), board=BOARD, cards=PLACES)
PICK = PickEvidence(frame=200, slots=("full", "full", "empty"), moved_text="7", landed=(150, 84, 180, 106))
DONE = ("reach", "grasp", "carry", "release", "retreat")
EVIDENCE = Evidence(
    rate_hz=50,
    task=TASK,
    readings=BoardReadings(first="3+4", second="3+4"),
    cards_read=("12", "5", "7"),
    table=TABLE,
    pick=PICK,
    executed=DONE,
)
SEGMENTS = SegmentList(
    segments=tuple(
        Segment(start_ns=at, end_ns=at + 1, label=label, end_effector="right gripper") for at, label in enumerate(DONE)
    )
)
CHECKS = (card_instruction, card_boxes, card_relation, outcome, card_answers, card_numbers)


def scene(seen: Evidence = EVIDENCE) -> SceneNotes:
    texts = seen.cards_read or ()
    cards = [Card(text=text, position="unknown", box_xyxy=box) for text, box in zip(texts, PLACES, strict=True)]
    return card_scene(
        seen.task, readings=seen.readings, cards=cards, table=seen.table, pick=seen.pick, segments=SEGMENTS
    )


NOTES = scene()


def changed(**fields: object) -> SceneNotes:
    return NOTES.model_copy(update=fields)


def test_what_is_right_passes_every_verifier_and_says_who_found_the_wordings() -> None:
    assert [check(NOTES, EVIDENCE).verdict for check in CHECKS] == ["pass"] * len(CHECKS)
    proposal = Proposal(
        episode_id="episode",
        stamp_ns=0,
        field="scene",
        family="math-matching@1",
        payload=NOTES,
        provenance=Provenance(backend="perception", model="programs"),
    )
    names = ("instruction", "relation", "boxes", "outcome", "answers", "numbers", "nouns", "plan_order")
    found = verify(proposal, EVIDENCE, names)  # type: ignore[arg-type]  # all are names of verifiers
    assert {one.verifier: one.verdict for one in found} == dict.fromkeys(names, "pass")
    assert (NOTES.outcome, NOTES.worded_by) == ("success", "templates")
    assert NOTES.relations[0].render() == "After, the right card is in front of the board."
    assert "worded_by" not in SceneNotes(instruction=TASK).model_dump(mode="json")  # older notes keep their hash


def test_every_template_asks_for_the_same_and_another_task_is_not_reworded() -> None:
    for task in (TASK, "Solve the sum, and put it on the ledge.", "Take the card with the answer to the sum."):
        assert {read_task(words) for words in rewordings(task)} <= {read_task(task)}
    onto = "Answer the question and pick the card with the correct answer and put it on the ledge."
    assert all("ledge" in words for words in rewordings(onto))
    assert rewordings("Fold the towel.") == ()


@pytest.mark.parametrize(
    "words",
    [
        "Answer the question and pick the card with the wrong answer.",
        "Answer the question and pick the left card.",
        "Take the card with the answer to the sum, and put it on the ledge.",
        "Do not pick the card that shows the result of the sum on the board.",
    ],
)
def test_a_wording_that_changes_a_fact_fails(words: str) -> None:
    assert card_instruction(changed(paraphrases=(*NOTES.paraphrases, words)), EVIDENCE).verdict == "fail"


@pytest.mark.parametrize("at", range(len(NOTES.questions)))
def test_any_answer_that_is_changed_fails(at: int) -> None:
    asked = NOTES.questions[at]
    said = QuestionAnswer(question=asked.question, answer="The middle card." if "card." in asked.answer else "9.")
    listed = (*NOTES.questions[:at], said, *NOTES.questions[at + 1 :])
    if said != asked:
        assert card_answers(changed(questions=listed), EVIDENCE).verdict == "fail"
    strange = QuestionAnswer(question="Who was here before?", answer="Nobody.")
    assert card_answers(changed(questions=(*NOTES.questions, strange)), EVIDENCE).verdict == "unknown"


def test_a_number_that_was_read_nowhere_fails() -> None:
    for answer in ("8.", "At [1, 2, 3, 4]."):
        said = QuestionAnswer(question="What is on the left card?", answer=answer)
        assert card_numbers(changed(questions=(said,)), EVIDENCE).verdict == "fail"


@pytest.mark.parametrize("box", [BOARD, PLACES[1], (69, 174, 69, 202), (300, 174, 335, 202), (110, 174, 145, 202)])
def test_a_wrong_box_fails(box: Box) -> None:
    board, left, *rest = NOTES.objects
    moved = left.model_copy(update={"box_xyxy": box})
    assert card_boxes(changed(objects=(board, moved, *rest)), EVIDENCE).verdict == "fail"


def test_the_outcome_follows_from_which_card_was_moved_and_where_it_lies() -> None:
    def seen(**pick: object) -> Evidence:
        return replace(EVIDENCE, pick=replace(PICK, **pick))  # type: ignore[arg-type]

    wrong = seen(slots=("empty", "full", "full"), moved_text="12")
    assert scene(wrong).outcome == "failure"
    assert outcome(NOTES, wrong).verdict == "fail"
    assert card_relation(NOTES, wrong).verdict == "fail"  # it is another card that lies there
    assert scene(seen(slots=("full",) * 3, moved_text=None, landed=None)).outcome == "failure"
    for unclear in (
        seen(slots=("full", "hidden", "empty")),
        seen(slots=("empty", "full", "empty")),
        seen(moved_text="12"),
        seen(landed=None),
        seen(landed=(150, 200, 180, 222)),  # the right card, but not at the board
        replace(EVIDENCE, pick=None),
        replace(EVIDENCE, cards_read=("12", "5", UNREAD)),
        replace(EVIDENCE, readings=BoardReadings(first="3+4", second="3+9")),
    ):
        assert scene(unclear).outcome == "unknown"
        assert outcome(NOTES, unclear).verdict == "unknown"


def test_a_card_at_the_boards_edge_lies_in_front_of_it_however_far_from_its_middle() -> None:
    corner = replace(EVIDENCE, pick=replace(PICK, landed=(70, 84, 100, 106)))
    assert [one.relation for one in scene(corner).relations] == ["in front of"]
    beside = replace(EVIDENCE, pick=replace(PICK, landed=(270, 40, 300, 62)))
    assert [one.relation for one in scene(beside).relations] == ["right of"]


def test_two_readings_that_differ_are_asked_nothing_about() -> None:
    apart = replace(EVIDENCE, readings=BoardReadings(first="3+4", second="3+9"))
    asked = [one.question for one in scene(apart).questions]
    assert "What is written on the board?" not in asked
    assert "Which card has the answer?" not in asked
    assert "What is on the left card?" in asked


def test_cards_have_nouns_of_their_own_however_many_there_are() -> None:
    for num in range(9):
        assert len(set(card_nouns(num))) == num
