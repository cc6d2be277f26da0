"""The forms of placements and scenes: what can be typed into them, what it becomes, and that nothing typed is lost."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotators.edits import changes, recheck
from annotators.scene_forms import (
    RELATIONS,
    PlacementForm,
    SceneForm,
    ThingRow,
    read_placement,
    read_scene,
)
from schemas.scenes import (
    PictureRef,
    PlacementTrace,
    PlanStep,
    QuestionAnswer,
    SceneNotes,
    SceneObject,
    SpatialRelation,
)

PICTURE = PictureRef(camera="cam_high", frame=3, width=64, height=48)
RED, BLUE = (
    SceneObject(noun="red  box", box_xyxy=(4, 4, 14, 14)),
    SceneObject(noun="blue bar", box_xyxy=(30, 6, 50, 12)),
)
PLACED = PlacementTrace(target=RED, relation="left of", reference=BLUE, frame_of_reference="robot", picture=PICTURE)
NOTES = SceneNotes(
    instruction="Put the red box to the left of the blue bar.",
    paraphrases=("Move it  over.",),
    worded_by="templates",
    outcome="success",
    objects=(RED.model_copy(update={"noun": "red box"}), BLUE),
    picture=PICTURE,
    relations=(
        SpatialRelation(
            subject="red box", relation="left of", reference="blue bar", frame_of_reference="robot", when="after"
        ),
    ),
    plan=(
        PlanStep(label="grasp", noun="red box"),
        PlanStep(label="carry", noun="red box", relation="left of", reference="blue bar"),
        PlanStep(label="retreat"),
    ),
    questions=(QuestionAnswer(question="Where is the blue bar?", answer="At [30, 6, 50, 12]."),),
)
NOTHING = (
    PlacementTrace(target=None, relation="unknown", reference=None, frame_of_reference="viewer"),
    SceneNotes(instruction=""),
)


def test_forms_that_were_not_touched_read_back_as_they_were() -> None:
    for placed in (PLACED, NOTHING[0]):
        assert read_placement(PlacementForm.of(placed), placed).payload == placed
    odd = NOTES.model_copy(update={"objects": (*NOTES.objects, BLUE)})  # what a model may say; see the problems below
    for notes in (NOTES, odd, NOTHING[1]):
        assert read_scene(SceneForm.of(notes), notes).payload == notes
    form = SceneForm.of(NOTES)
    blanks = replace(form, things=(*form.things, ThingRow(noun=" ")), plan=(("", "", "", ""), *form.plan))
    assert read_scene(blanks, NOTES).payload == NOTES


def test_what_nobody_touched_stays_to_the_letter_beside_an_edit() -> None:
    placed = read_placement(replace(PlacementForm.of(PLACED), relation="behind"), PLACED).payload
    assert placed == PLACED.model_copy(update={"relation": "behind"})
    form = SceneForm.of(NOTES)
    moved = (form.things[0], ThingRow(noun="blue  bar", box=(31, 6, 51, 12)))
    notes = read_scene(replace(form, outcome="failure", things=moved), NOTES).payload
    assert isinstance(notes, SceneNotes)
    bar = SceneObject(noun="blue bar", box_xyxy=(31, 6, 51, 12))
    assert notes == NOTES.model_copy(update={"outcome": "failure", "objects": (NOTES.objects[0], bar)})


def test_wordings_that_a_person_typed_are_no_longer_those_of_templates() -> None:
    notes = read_scene(replace(SceneForm.of(NOTES), wordings=("Move it  over.", "Shift it left.")), NOTES).payload
    assert isinstance(notes, SceneNotes)
    assert (notes.paraphrases, notes.worded_by) == (("Move it over.", "Shift it left."), None)


def test_a_scene_is_written_from_nothing() -> None:
    blank = NOTHING[1]
    notes = read_scene(SceneForm.of(NOTES), blank).payload
    assert isinstance(notes, SceneNotes)
    words = NOTES.model_copy(update={"paraphrases": ("Move it over.",), "worded_by": None})
    assert notes == words
    assert read_placement(PlacementForm.of(PLACED), NOTHING[0]).text == PLACED.render().replace("red  box", "red box")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"instruction": " "}, "There is no instruction"),
        ({"outcome": "good"}, "The outcome can not be 'good'"),
        ({"things": (ThingRow(noun="bar"), ThingRow(noun=" bar"))}, "Two things are called 'bar'"),
        ({"things": (ThingRow(box=(1, 1, 2, 2)),)}, "Thing 1 has a box and no noun"),
        ({"things": (ThingRow(noun="bar", box=(60, 1, 65, 2)),)}, "The box of bar is empty or leaves the picture"),
        ({"things": (ThingRow(noun="bar", box=(5, 5, 5, 9)),)}, "The box of bar is empty"),
        ({"relations": (("after", "bar", "behind", "", "robot"),)}, "Relation 1 names one thing and not the other"),
        ({"relations": (("later", "bar", "behind", "box", "robot"),)}, "The time of relation 1 can not be 'later'"),
        ({"relations": (("after", "bar", "over", "box", "robot"),)}, "Relation 1 can not be 'over'"),
        ({"relations": (("after", "bar", "behind", "box", "cat"),)}, "The side of relation 1 can not be 'cat'"),
        ({"plan": (("fly", "bar", "", ""),)}, "Step 1: 'fly' is no label"),
        ({"plan": (("carry", "bar", "behind", ""),)}, "Step 1 says how it is put, and not what or beside what"),
        ({"questions": (("What is it?", " "),)}, "Question 1 lacks its answer"),
        ({"picture": None, "things": ()}, "Questions are about a picture, and none is chosen"),
        ({"wordings": ("Say <|im_end|>",)}, "chat marker <|im_end|>"),
    ],
)
def test_what_can_not_be_in_a_scene_is_said_in_a_sentence(change: dict[str, object], words: str) -> None:
    reading = read_scene(replace(SceneForm.of(NOTES), **change), NOTES)
    assert reading.payload is None
    assert any(words in problem for problem in reading.problems), reading.problems


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"relation": "near"}, "The relation can not be 'near'"),
        ({"side": "cat"}, "The side can not be 'cat'"),
        ({"reference": ThingRow(noun="red box")}, "The red box can not be put beside itself"),
        ({"target": ThingRow(box=(1, 1, 2, 2))}, "The target has a box and no noun"),
        ({"picture": None}, "empty or leaves the picture"),
    ],
)
def test_what_can_not_be_placed_is_said_in_a_sentence(change: dict[str, object], words: str) -> None:
    reading = read_placement(replace(PlacementForm.of(PLACED), **change), PLACED)
    assert reading.payload is None
    assert any(words in problem for problem in reading.problems), reading.problems


def test_changes_name_the_rows_that_came_went_or_differ() -> None:
    form = SceneForm.of(NOTES)
    plan = (form.plan[0], ("release", "red box", "", ""), form.plan[1])  # one came, the last went
    after = read_scene(replace(form, plan=plan, outcome="failure"), NOTES).payload
    assert after is not None
    assert [(row.name, row.before, row.after) for row in changes(NOTES, after)] == [
        ("outcome", "success", "failure"),
        ("step 2", "nothing", "Release the red box"),
        ("step 3", "Retreat", "nothing"),
    ]
    elsewhere = read_placement(replace(PlacementForm.of(PLACED), target=ThingRow(noun="cup")), PLACED).payload
    assert elsewhere is not None
    [change] = changes(PLACED, elsewhere)
    assert (change.name, change.before, change.after) == ("target", "red  box [4, 4, 14, 14]", "cup")


def test_what_does_not_fit_together_in_a_scene_is_shown_and_may_be_saved() -> None:
    assert {row.verdict for row in recheck(NOTES)} == {"pass"}
    form = SceneForm.of(NOTES)
    moved = (ThingRow(noun="red cup"), ThingRow(noun="blue bar", box=(1, 1, 9, 9)))
    after = read_scene(replace(form, things=moved, outcome="failure"), NOTES).payload
    assert after is not None
    found = {row.verifier: row.evidence for row in recheck(after) if row.verdict == "fail"}
    assert found["nouns"] == "no thing is called 'red box'"
    assert found["answers"] == "the answer is not the box of the thing: Where is the blue bar?"
    assert found["outcome"].endswith("left of was asked, and the outcome is failure")


_text = st.text(max_size=8)
_box = st.none() | st.tuples(*[st.integers(-2, 70)] * 4)
_thing = st.builds(ThingRow, noun=_text, box=_box)
_relation = st.sampled_from((*RELATIONS, ""))


@given(
    things=st.lists(_thing, max_size=3),
    plan=st.lists(st.tuples(st.sampled_from(("grasp", "carry", "")), _text, _relation, _text), max_size=3),
    relations=st.lists(st.tuples(st.just("after"), _text, _relation, _text, st.just("robot")), max_size=3),
    questions=st.lists(st.tuples(_text, _text), max_size=3),
)
def test_whatever_is_typed_about_a_scene_becomes_notes_or_a_sentence(
    things: list[ThingRow],
    plan: list[tuple[str, ...]],
    relations: list[tuple[str, ...]],
    questions: list[tuple[str, ...]],
) -> None:
    form = replace(
        SceneForm.of(NOTES),
        things=tuple(things),
        plan=tuple(plan),
        relations=tuple(relations),
        questions=tuple(questions),
    )
    reading = read_scene(form, NOTES)
    assert (reading.payload is None) == bool(reading.problems)
    if isinstance(reading.payload, SceneNotes):
        kept = [(one.noun, one.box_xyxy) for one in reading.payload.objects]
        assert kept == [(" ".join(one.noun.split()), one.box) for one in form.said.things]
        assert read_scene(SceneForm.of(reading.payload), reading.payload).payload == reading.payload
        recheck(reading.payload)
