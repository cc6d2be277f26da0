"""Moves in metres where the tool is known, in joints where it is not, and which of the two it was."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from raw_robomimic import write_libero

from annotators.evidence import Evidence
from annotators.inputs import numbers_hash
from annotators.kinematics import segment
from annotators.moves import Moves, basis_words, tool_path_m
from annotators.structure import moves as judge
from dataengine.rig_files import load_rig
from dataengine.sources import open_source
from schemas.annotations import SegmentList
from schemas.errors import EpisodeError
from schemas.rigs import Position, Rig
from schemas.spans import frame_stamps_ns


@pytest.fixture(scope="module")
def bridge() -> Rig:
    """A rig whose recordings state where the tool is."""
    return load_rig("bridge")


def picked(rig: Rig) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.int64]]:
    """40 rows at 5 Hz: the hand closes at 10, carries 12 cm to the right and 5 cm up, opens at 30."""
    state = np.zeros((40, 7), np.float32)
    state[:, 1] = np.interp(np.arange(40), [14, 26], [0.0, -0.12])
    state[:, 2] = np.interp(np.arange(40), [14, 26], [0.0, 0.05])
    state[:, 6] = np.interp(np.arange(40), [10, 12, 30, 32], [1.0, 0.2, 0.2, 1.0])
    return {"observation.state": state, "action": np.zeros_like(state)}, frame_stamps_ns(40, rig.rate_hz)


def test_a_stated_position_gives_moves_in_the_robots_own_directions(bridge: Rig) -> None:
    columns, stamps_ns = picked(bridge)
    carried = next(one for one in segment(columns, bridge, stamps_ns).segments if one.label == "carry")
    assert carried.moves == ("arm moves 12 cm right, 5 cm up",)
    turned = bridge.model_copy(
        update={"kinematics": bridge.kinematics.model_copy(update={"forward": "-y", "left": "+x"})}  # type: ignore[union-attr]
    )
    carried = next(one for one in segment(columns, turned, stamps_ns).segments if one.label == "carry")
    assert carried.moves == ("arm moves 12 cm forward, 5 cm up",)


def test_joints_alone_are_named_as_joints_and_a_robot_file_says_where_their_tool_goes() -> None:
    rig = load_rig("aloha_sim")
    state = np.zeros((50, 14), np.float32)
    state[25:, 7] = 0.5  # the right waist turns half a radian to its left
    columns, stamps_ns = {"observation.state": state}, frame_stamps_ns(50, rig.rate_hz)
    moves = Moves.of(columns, rig, stamps_ns)
    assert moves is not None
    reach_m = 0.19 + 0.12 + 0.03 + 0.118  # of the straight arm, ahead of the waist
    left_cm, back_cm = round(100 * reach_m * np.sin(0.5)), round(100 * reach_m * (1 - np.cos(0.5)))
    assert moves.over(0, 50, "right gripper") == (f"right arm moves {left_cm} cm left, {back_cm} cm back",)
    assert moves.over(0, 50, "left gripper") == ()
    bare = tuple(arm.model_copy(update={"joints": (), "tool": None}) for arm in rig.arms)
    joints = Moves.of(columns, rig.model_copy(update={"arms": bare, "kinematics": None}), stamps_ns)
    assert joints is not None
    assert joints.over(0, 50, "right gripper") == ("right waist increases",)


def test_a_dataset_without_the_optional_column_that_states_the_tool_falls_back_to_joints(bridge: Rig) -> None:
    elsewhere = bridge.arms[0].model_copy(update={"position": Position(feature="tool", indices=(0, 1, 2))})
    lacking = Rig.model_validate_json(bridge.model_copy(update={"arms": (elsewhere,)}).model_dump_json())
    assert basis_words(lacking) == "joints"
    columns, stamps_ns = picked(lacking)
    assert "y decreases" in {move for one in segment(columns, lacking, stamps_ns).segments for move in one.moves}


def test_provenance_says_what_moves_rest_on(bridge: Rig) -> None:
    rig = load_rig("aloha_sim")
    assert rig.kinematics is not None
    assert rig.kinematics.sha256 is not None
    assert basis_words(rig) == f"forward kinematics of aloha_sim.xml sha256:{rig.kinematics.sha256[:12]}"
    assert basis_words(bridge) == "end-effector pose"
    assert basis_words(load_rig("g1_inspire")) == "joints"
    assert basis_words(load_rig("pusht")) == "no arm declared"


def test_another_robot_file_or_another_left_is_another_reading_of_the_numbers(bridge: Rig) -> None:
    turned = {"kinematics": bridge.kinematics.model_copy(update={"forward": "-y", "left": "+x"})}  # type: ignore[union-attr]
    assert numbers_hash(bridge.model_copy(update=turned)) != numbers_hash(bridge)


def test_a_move_to_the_other_side_is_found_wrong(bridge: Rig) -> None:
    columns, stamps_ns = picked(bridge)
    found = segment(columns, bridge, stamps_ns)
    evidence = Evidence(rate_hz=bridge.rate_hz, stamps_ns=stamps_ns, moves_over=Moves.of(columns, bridge, stamps_ns))
    assert judge(found, evidence).verdict == "pass"
    mirrored = tuple(
        one.model_copy(update={"moves": tuple(move.replace("right", "left") for move in one.moves)})
        for one in found.segments
    )
    assert judge(SegmentList(segments=mirrored), evidence).verdict == "fail"


def test_a_position_that_the_episode_lacks_is_a_bad_episode(bridge: Rig) -> None:
    with pytest.raises(EpisodeError, match=r"'arm' reads observation.state\[0, 1, 2\], which the episode lacks"):
        tool_path_m({"observation.state": np.zeros((5, 2), np.float32)}, bridge, bridge.arms[0])


def test_recordings_without_joints_keep_their_arm_by_the_position_they_state(tmp_path: Path) -> None:
    path = write_libero(tmp_path / "bowl_demo.hdf5", lengths=(40,))
    with h5py.File(path, "a") as file:
        seen = file["data/demo_0/obs"]
        del seen["joint_states"]
        seen["ee_states"][:] = 0.0
        seen["ee_states"][:, 1] = np.interp(np.arange(40), [26, 36], [0.0, 0.12])  # after the gripper closed at 20
    source = open_source(tmp_path, load_rig("libero"))
    columns = source.read(source.names()[0]).columns
    assert basis_words(source.rig) == "end-effector pose"
    found = segment(columns, source.rig, frame_stamps_ns(40, source.rig.rate_hz)).segments
    assert [one.moves for one in found if one.label == "carry"] == [("arm moves 12 cm left",)]
