"""Placements and scenes as data: words are rendered from the structure, and boxes have a picture."""

import pytest
from pydantic import ValidationError

from schemas.annotations import Proposal, payload_from_json, render_payload
from schemas.scenes import (
    PictureRef,
    PlacementTrace,
    PlanStep,
    QuestionAnswer,
    SceneNotes,
    SceneObject,
    SpatialRelation,
)

PICTURE = PictureRef(camera="cam_high", frame=0, width=320, height=240)
BOX = SceneObject(noun="red box", box_xyxy=(10, 20, 30, 40))
BAR = SceneObject(noun="blue bar", box_xyxy=(100, 20, 140, 40))
TRACE = PlacementTrace(target=BOX, relation="left of", reference=BAR, frame_of_reference="robot", picture=PICTURE)


def test_a_placement_says_where_both_things_are_and_what_is_done() -> None:
    assert TRACE.render() == (
        "The red box is at [10, 20, 30, 40]. The blue bar is at [100, 20, 140, 40]. "
        "I put the red box to the left of the blue bar."
    )
    unseen = TRACE.model_copy(update={"target": SceneObject(noun="red box")})
    assert unseen.render().startswith("The red box is somewhere I do not see.")
    nothing = PlacementTrace(target=None, relation="unknown", reference=None, frame_of_reference="robot")
    assert nothing.render() == "What to put where can not be told."


def test_notes_render_their_inventory_relations_plan_and_outcome() -> None:
    notes = SceneNotes(
        instruction="Put the red box to the left of the blue bar.",
        outcome="success",
        objects=(BOX, BAR),
        picture=PICTURE,
        relations=(
            SpatialRelation(
                subject="red box", relation="behind", reference="blue bar", frame_of_reference="robot", when="before"
            ),
        ),
        plan=(PlanStep(label="reach", noun="red box"), PlanStep(label="retreat")),
        questions=(QuestionAnswer(question="How many things are on the table?", answer="2."),),
    )
    assert render_payload(notes) == (
        "On the table: a red box, a blue bar. Before, the red box is behind the blue bar. "
        "1. Reach for the red box. 2. Retreat. Outcome: success."
    )
    assert payload_from_json(notes.model_dump(mode="json")) == notes
    assert payload_from_json(TRACE.model_dump(mode="json")) == TRACE


def test_a_box_without_its_picture_is_no_box() -> None:
    with pytest.raises(ValidationError, match="needs the picture"):
        PlacementTrace(target=BOX, relation="left of", reference=BAR, frame_of_reference="robot")
    with pytest.raises(ValidationError, match="need the picture"):
        SceneNotes(instruction="Put it away.", objects=(BOX,))


def test_a_proposal_takes_either_kind_and_tells_them_apart() -> None:
    said = {
        "episode_id": "episode_0-0123456789ab",
        "stamp_ns": 0,
        "field": "trace",
        "family": "toy-placement@1",
        "payload": TRACE.model_dump(mode="json"),
        "provenance": {"backend": "perception", "model": "things@1"},
    }
    assert isinstance(Proposal.model_validate(said).payload, PlacementTrace)
