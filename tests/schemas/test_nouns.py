"""Nouns check themselves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.annotations import (
    BoxedIn,
    Card,
    Mark,
    Proposal,
    Provenance,
    ReasoningTrace,
    VerifierResult,
    payload_from_json,
    release_schema,
)
from schemas.chat import IGNORE, Image, Message, Text, render_chat
from schemas.errors import EngineError, MixError, RefError, did_you_mean
from schemas.mixes import MixSpec
from schemas.normalization import Normalizer
from schemas.refs import Ref
from schemas.rigs import Rig
from schemas.spans import Span, frame_stamps_ns


class Letters:
    """One id per character."""

    fingerprint = "letters"

    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]

    def decode(self, ids: list[int]) -> str:
        return "".join(map(chr, ids))


@pytest.mark.parametrize("text", ["kitchen", "kitchen@", "@1", "a/b@1", "../x@1", ".hidden@1", "a@1@2", ""])
def test_a_malformed_reference_is_refused(text: str) -> None:
    with pytest.raises(RefError):
        Ref.parse(text)


def test_every_error_is_an_engine_error_drawn_in_the_tree() -> None:
    import schemas.errors as errors

    classes = [
        name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, EngineError)
    ]
    for name in classes:
        assert f"{name} " in (errors.__doc__ or "") + "EngineError ", name


def test_did_you_mean_names_the_nearest_and_all() -> None:
    assert did_you_mean("nanno", ["nano", "chatvla2_2b"]) == "Did you mean 'nano'? Known: chatvla2_2b, nano."


def test_a_verifier_result_without_marks_is_written_as_before_there_were_any() -> None:
    old = {"verifier": "moves", "version": 1, "verdict": "pass", "hard": True, "evidence": "no move is claimed."}
    result = VerifierResult.model_validate(old)
    assert (result.marks, result.model_dump(mode="json")) == ((), old)
    marked = result.model_copy(update={"marks": (Mark(title="reach", start_ns=5, end_ns=9),)})
    assert VerifierResult.model_validate_json(marked.model_dump_json()) == marked != result


@pytest.mark.parametrize("place", [{}, {"end_ns": 4}, {"start_ns": 4, "end_ns": 4}, {"number": "5"}])
def test_a_mark_is_at_a_time_or_in_a_picture_and_moves_forward(place: dict[str, int | str]) -> None:
    with pytest.raises(ValidationError):
        Mark.model_validate({"title": "grasp", **place})


def test_a_trace_whose_boxes_nobody_saw_to_is_written_as_before_and_keeps_its_proposal_id() -> None:
    trace = ReasoningTrace(board="4+1", solution=None)
    assert not {"boxed_in", "board_box_xyxy"} & set(trace.model_dump(mode="json"))
    seen_to = trace.model_copy(update={"boxed_in": BoxedIn(camera="top", frame=3)})
    assert payload_from_json(seen_to.model_dump(mode="json")) == seen_to
    assert seen_to.model_dump(mode="json")["board_box_xyxy"] is None


def test_a_trace_renders_in_chatvla_2_form() -> None:
    trace = ReasoningTrace(
        board="4+1",
        solution="4+1=5",
        cards=(Card(text="3", position="left"), Card(text="5", position="middle"), Card(text="7", position="right")),
        pick_text="5",
        pick_position="middle",
    )
    assert trace.render() == (
        "The board reads 4+1. 4+1=5. Cards: 3 (left), 5 (middle), 7 (right). I pick 5 from the middle."
    )
    assert payload_from_json(trace.model_dump(mode="json")) == trace


def test_the_same_words_from_the_same_speaker_are_one_proposal() -> None:
    def say(board: str, model: str) -> str:
        return Proposal(
            episode_id="ep",
            stamp_ns=0,
            field="trace",
            family="math-matching@1",
            payload=ReasoningTrace(board=board, solution=None),
            provenance=Provenance(backend="perception", model=model),
        ).proposal_id

    assert say("4+1", "a") == say("4+1", "a")
    assert len({say("4+1", "a"), say("4+2", "a"), say("4+1", "b")}) == 3


def test_only_what_the_assistant_says_is_supervised_and_images_take_their_places() -> None:
    chat = render_chat(
        [
            Message(role="user", parts=(Image("cam_high"), Text("What is it?"))),
            Message(role="assistant", parts=(Text("5"),), supervised=True),
        ],
        Letters(),
        [3],
    )
    assert Letters().decode([label for label in chat.labels if label != IGNORE]) == "5<|im_end|>"
    assert Letters().decode(chat.ids).count("<|image_pad|>") == 3
    assert chat.num_supervised == len("5<|im_end|>")


def test_an_image_without_pixels_and_pixels_without_a_place_are_refused() -> None:
    turn = [Message(role="user", parts=(Image("cam_high"),))]
    with pytest.raises(MixError, match="has no pixels"):
        render_chat(turn, Letters(), [])
    with pytest.raises(MixError, match="fewer places"):
        render_chat(turn, Letters(), [1, 1])


def test_a_user_turn_can_not_be_supervised() -> None:
    with pytest.raises(MixError, match="user turn can not be supervised"):
        Message(role="user", parts=(Text("x"),), supervised=True)


@given(st.lists(st.lists(st.floats(-100, 100, width=32), min_size=3, max_size=3), min_size=2, max_size=20))
def test_actions_survive_the_way_to_the_model_and_back(rows: list[list[float]]) -> None:
    action = np.asarray(rows, dtype=np.float32)
    normalizer = Normalizer.fit("arm", action, action)
    again = Normalizer.from_json(normalizer.to_json())
    assert np.allclose(again.raw_action(again.action(action)), action, atol=1e-4)
    assert np.abs(again.action(action)).max() <= 1 + 1e-4


def test_stamps_are_integer_nanoseconds_without_drift() -> None:
    stamps = frame_stamps_ns(30 * 3600 * 30 + 1, 30)
    assert stamps[0] == 0
    assert stamps[-1] == 30 * 3600 * 1_000_000_000


def test_spans_are_half_open() -> None:
    span = Span(start_ns=10, end_ns=20)
    assert span.contains(10)
    assert not span.contains(20)
    with pytest.raises(EngineError):
        Span(start_ns=5, end_ns=5)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"sources": [{"kind": "llava", "name": "a", "path": "a.json"}]}, "needs weight"),
        ({"sources": [{"kind": "llava", "name": "a", "path": "a.json", "weight": 1}]}, "num_samples"),
        ({"sources": [{"kind": "llava", "name": "a", "path": "a.json", "wieght": 1}]}, "wieght"),
        ({"sources": [{"kind": "llava", "name": "a", "path": "x", "epochs": 1}] * 2}, "share a name"),
    ],
)
def test_a_mix_file_that_makes_no_sense_says_which_word(change: dict[str, object], word: str) -> None:
    with pytest.raises(ValidationError, match=word):
        MixSpec.model_validate(change)


def test_a_rig_that_reads_a_feature_it_does_not_declare_is_refused() -> None:
    with pytest.raises(ValidationError, match="does not declare"):
        Rig.model_validate(
            {
                "name": "lab",
                "source": "aloha_hdf5",
                "robot_type": "arm",
                "rate_hz": 50,
                "features": {"action": {"key": "action"}},
                "end_effectors": [{"name": "gripper", "indices": [6], "closed": 0.0, "open": 1.0}],
            }
        )


def test_released_rows_carry_what_lineage_needs() -> None:
    assert {"decision_id", "reviewer", "decided_at", "call_keys", "model", "prompt_hash"} <= set(release_schema().names)
