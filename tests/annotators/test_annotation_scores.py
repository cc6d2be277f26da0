"""How annotations are scored: one to one, unknown is not right, and frozen scenes are those that are committed."""

import pytest

from benchmarks.annotation_scenes import frozen, source_hash
from benchmarks.annotation_scores import Matches, Part, Scored, box_iou, f1, match_boundaries, match_parts, score_scene
from schemas.scenes import SceneNotes, SceneObject, SpatialRelation


def parts(*cuts: tuple[str, float], end_s: float = 6.0, who: str = "left gripper") -> list[Part]:
    stops = [start for _, start in cuts[1:]] + [end_s]
    return [
        Part(label=label, end_effector=who, start_s=start, stop_s=stop)
        for (label, start), stop in zip(cuts, stops, strict=True)
    ]


TRUE = parts(("hold", 0.0), ("reach", 0.5), ("grasp", 2.0), ("carry", 2.4), ("release", 4.0), ("retreat", 4.3))


def test_a_boundary_counts_once_and_only_within_the_tolerance() -> None:
    assert match_boundaries(TRUE, TRUE, 0.25) == Matches(hits=5, said=5, true=5)
    late = parts(("reach", 0.0), ("grasp", 2.3), ("carry", 2.35), ("release", 4.3), ("retreat", 5.2))
    assert match_boundaries(late, TRUE, 0.25) == Matches(hits=2, said=4, true=5)
    assert match_boundaries(late, TRUE, 0.5) == Matches(hits=3, said=4, true=5)


def test_a_stretch_counts_with_the_same_label_and_hand_and_half_the_union() -> None:
    assert match_parts(TRUE, TRUE).hits == 6
    other_hand = [*TRUE[:-1], parts(("retreat", 4.3), who="right gripper")[0]]
    assert match_parts(other_hand, TRUE).hits == 5
    shifted = parts(("hold", 0.0), ("reach", 0.5), ("grasp", 2.25), ("carry", 2.4), ("release", 4.0), ("retreat", 4.3))
    assert match_parts(shifted, TRUE) == Matches(hits=5, said=6, true=6)


def test_f1_and_iou_are_what_they_are() -> None:
    assert f1([Matches(hits=3, said=4, true=5), Matches(hits=0, said=0, true=1)]) == pytest.approx(0.6)
    assert box_iou((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert box_iou(None, (5, 0, 15, 10)) == 0.0


def test_the_scene_of_a_board_and_cards_is_right_where_the_picked_card_came_to_the_board() -> None:
    truth = {
        "equation": "3+5",
        "chosen_position": "right",
        "cards": [{"position": place} for place in ("left", "middle", "right")],
    }
    landed = SpatialRelation(
        subject="right card", relation="in front of", reference="board", frame_of_reference="robot", when="after"
    )
    nouns = ("board", "left card", "middle card", "right card")
    notes = SceneNotes(
        instruction="", outcome="success", objects=tuple(SceneObject(noun=noun) for noun in nouns), relations=(landed,)
    )
    fewer = notes.model_copy(update={"relations": (), "objects": notes.objects[1:], "outcome": "unknown"})
    for said, is_right in ((notes, True), (fewer, False)):
        scored = Scored()
        score_scene(scored, said, truth)
        assert scored.right == dict.fromkeys(("relation", "outcome", "inventory"), is_right)
        assert scored.ious == []  # the simulator knows no boxes of cards


def test_scenes_are_those_that_were_frozen() -> None:
    assert frozen()["source_hash"] == source_hash()
