"""Words and geometry of placements: one grammar, one rule, and unknown where neither says."""

import pytest

from annotators.placements import RELATIONS, Asked, read_instruction, relation_of
from schemas.scenes import Relation

REFERENCE = (100, 100, 120, 120)
TO: dict[Relation, tuple[int, int]] = {
    "left of": (-50, 0),
    "right of": (50, 4),
    "in front of": (-3, 50),
    "behind": (0, -50),
    "on top of": (2, -3),
}


def moved(by: tuple[int, int]) -> tuple[int, int, int, int]:
    return (100 + by[0], 100 + by[1], 120 + by[0], 120 + by[1])


@pytest.mark.parametrize(
    ("words", "relation"),
    [
        ("Put the red box to the left of the blue bar.", "left of"),
        ("pick up the red box and put it behind the blue bar", "behind"),
        ("Please set the red box down on top of the blue bar.", "on top of"),
        ("Take the red box and place it into the blue bar.", "inside"),
        ("Move the red box in front of the blue bar.", "in front of"),
        ("Pick the red box and place it to the right of the blue bar.", "right of"),
    ],
)
def test_an_instruction_is_read_in_several_wordings(words: str, relation: Relation) -> None:
    assert read_instruction(words) == Asked(target="red box", relation=relation, reference="blue bar")


@pytest.mark.parametrize(
    "words",
    ["", "Fold the towel.", "Put the red box near the blue bar.", "Put the red box on top of the red box."],
)
def test_what_no_grammar_reads_is_not_guessed(words: str) -> None:
    assert read_instruction(words) is None


@pytest.mark.parametrize("relation", TO)
def test_a_relation_follows_from_two_boxes(relation: Relation) -> None:
    assert relation_of(moved(TO[relation]), REFERENCE, reference_noun="blue bar", is_turned=False) == relation


def test_a_container_is_lain_in_and_a_camera_from_the_other_side_turns_left_and_near() -> None:
    assert relation_of(moved((2, -3)), REFERENCE, reference_noun="white tray", is_turned=False) == "inside"
    opposite = {"left of": "right of", "right of": "left of", "in front of": "behind", "behind": "in front of"}
    for relation, turned in opposite.items():
        by = next(step for name, step in TO.items() if name == relation)
        assert relation_of(moved(by), REFERENCE, reference_noun="blue bar", is_turned=True) == turned


def test_a_diagonal_is_neither_beside_nor_behind() -> None:
    assert relation_of(moved((50, 45)), REFERENCE, reference_noun="blue bar", is_turned=False) == "unknown"
    assert "unknown" not in RELATIONS
