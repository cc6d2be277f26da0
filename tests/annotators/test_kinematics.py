"""Gripper events, segments and move primitives from numbers alone."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from annotators.evidence import Evidence
from annotators.kinematics import commanded_events, gripper_events, openness, segment
from annotators.moves import readable
from annotators.verifiers import gripper_events as judge
from dataengine.rig_files import load_rig
from schemas.errors import EpisodeError
from schemas.rigs import Rig
from schemas.spans import frame_stamps_ns

RATE_HZ = 50
Columns = dict[str, NDArray[np.float32]]


def aloha(left: NDArray[np.float64], right: NDArray[np.float64], moving: NDArray[np.float64] | None = None) -> Columns:
    """An ALOHA state whose grippers do as told while both elbows follow `moving`."""
    state = np.zeros((len(left), 14), np.float32)
    state[:, 6], state[:, 13] = left, right
    if moving is not None:
        state[:, 2] = state[:, 9] = moving
    return {"observation.state": state, "action": state.copy()}


def path(*points: tuple[int, float], noise: float = 0.0) -> NDArray[np.float64]:
    """Straight lines through (frame, openness), with seeded noise."""
    frames, values = zip(*points, strict=True)
    line = np.interp(np.arange(frames[-1] + 1), frames, values)
    return np.asarray(line + np.random.default_rng(3).normal(0, noise, len(line)))


def one_pick(noise: float = 0.0) -> NDArray[np.float64]:
    """Open, close on a card at 60..70 (held at 0.52), let go at 150..160, open further at home."""
    return path((0, 0.9), (60, 0.9), (70, 0.52), (150, 0.52), (160, 0.74), (200, 0.76), (240, 0.9), noise=noise)


def labels(columns: Columns, rig: Rig) -> list[str]:
    return [one.label for one in segment(columns, rig, frame_stamps_ns(len(columns["action"]), rig.rate_hz)).segments]


@pytest.fixture(scope="module")
def rig() -> Rig:
    """Joints alone; what a robot file adds is in test_moves."""
    return load_rig("aloha")


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_a_pick_is_one_close_and_one_open_at_the_frames_where_they_begin(rig: Rig, noise: float) -> None:
    columns = aloha(np.full(241, 0.9), one_pick(noise))
    events = gripper_events(columns, rig, frame_stamps_ns(241, RATE_HZ))
    assert events is not None
    assert [(event.event, event.end_effector) for event in events] == [
        ("close", "right gripper"),
        ("open", "right gripper"),
    ]
    frames = [event.stamp_ns * RATE_HZ // 1_000_000_000 for event in events]
    assert abs(frames[0] - 60) <= 4
    assert abs(frames[1] - 150) <= 4


def test_segments_are_ordered_half_open_and_cover_the_episode(rig: Rig) -> None:
    columns = aloha(
        np.full(241, 0.9), one_pick(), path((0, 0.0), (20, 0.0), (60, 1.0), (150, 0.3), (220, 0.0), (240, 0.0))
    )
    found = segment(columns, rig, frame_stamps_ns(241, RATE_HZ)).segments
    assert [one.label for one in found] == ["hold", "reach", "grasp", "carry", "release", "retreat", "hold"]
    assert found[0].start_ns == 0
    assert found[-1].end_ns == 241 * 1_000_000_000 // RATE_HZ
    assert all(before.end_ns == after.start_ns and before.start_ns < before.end_ns for before, after in pairwise(found))
    assert found[1].moves == ("right elbow increases",)
    assert found[3].moves == ("right elbow decreases",)


def test_a_second_try_gives_a_second_grasp(rig: Rig) -> None:
    tries = path(
        (0, 0.9),
        (50, 0.9),
        (60, 0.25),
        (70, 0.25),
        (80, 0.9),
        (110, 0.9),
        (120, 0.52),
        (180, 0.52),
        (190, 0.74),
        (240, 0.9),
    )
    assert labels(aloha(np.full(241, 0.9), tries), rig).count("grasp") == 2


def test_a_grasp_that_lets_go_where_it_closed_carries_nothing(rig: Rig) -> None:
    tries = path(
        (0, 0.9),
        (50, 0.9),
        (60, 0.25),
        (75, 0.25),
        (85, 0.9),
        (110, 0.9),
        (120, 0.52),
        (180, 0.52),
        (190, 0.9),
        (220, 0.9),
    )
    moving = path((0, 0.0), (48, 1.0), (90, 1.0), (105, 0.9), (125, 0.9), (175, 0.2), (190, 0.2), (220, 0.8))
    assert labels(aloha(np.full(221, 0.9), tries, moving), rig) == [
        *("reach", "grasp", "release", "reach", "grasp", "carry", "release", "retreat")
    ]


def test_a_carry_begins_as_the_arm_leaves_not_as_the_hand_has_closed(rig: Rig) -> None:
    moving = path((0, 0.0), (55, 1.0), (90, 1.0), (150, 0.3), (240, 0.3))
    found = segment(aloha(np.full(241, 0.9), one_pick(), moving), rig, frame_stamps_ns(241, RATE_HZ)).segments
    (carry,) = [one for one in found if one.label == "carry"]
    assert abs(carry.start_ns * RATE_HZ // 1_000_000_000 - 90) <= 2


def test_noise_and_drift_are_no_events(rig: Rig) -> None:
    drifting = path((0, 0.90), (240, 0.87), noise=0.008)
    assert gripper_events(aloha(drifting, drifting), rig, frame_stamps_ns(241, RATE_HZ)) == ()
    assert labels(aloha(drifting, drifting), rig) == ["hold"]


def test_a_hand_that_closes_in_the_first_moment_is_a_grasp_too(rig: Rig) -> None:
    """Fewer rows come before it than a look at its movement takes."""
    early = path((0, 0.9), (4, 0.2), (40, 0.2))
    assert labels(aloha(early, path((0, 0.9), (40, 0.9))), rig)[:2] == ["grasp", "carry"]


def test_one_closing_that_never_opens_again_is_carried_to_the_end(rig: Rig) -> None:
    kept = path((0, 0.9), (60, 0.9), (70, 0.5), (240, 0.5))
    assert labels(aloha(np.full(241, 0.9), kept), rig) == ["reach", "grasp", "carry"]


def test_a_hand_that_only_opens_has_no_grasp(rig: Rig) -> None:
    opening = path((0, 0.3), (60, 0.3), (80, 0.9), (240, 0.9))
    assert gripper_events(aloha(opening, opening), rig, frame_stamps_ns(241, RATE_HZ)) == ()


def test_two_hands_share_one_gapless_timeline(rig: Rig) -> None:
    left = path((0, 0.9), (20, 0.9), (30, 0.5), (210, 0.5), (220, 0.9), (240, 0.9))
    found = segment(aloha(left, one_pick()), rig, frame_stamps_ns(241, RATE_HZ)).segments
    assert {one.end_effector for one in found} == {"left gripper", "right gripper"}
    assert all(before.end_ns == after.start_ns for before, after in pairwise(found))


def test_without_a_declared_end_effector_everything_is_unknown(rig: Rig) -> None:
    bare = rig.model_copy(update={"end_effectors": (), "arms": ()})
    columns, stamps_ns = aloha(np.full(241, 0.9), one_pick()), frame_stamps_ns(241, RATE_HZ)
    assert gripper_events(columns, bare, stamps_ns) is None
    (only,) = segment(columns, bare, stamps_ns).segments
    assert (only.label, only.end_effector, only.moves) == ("unknown", "unknown", ("unknown",))


def test_a_rig_that_does_not_fit_the_episode_is_a_bad_episode(rig: Rig) -> None:
    with pytest.raises(EpisodeError, match="right gripper"):
        openness({"observation.state": np.zeros((9, 7), np.float32)}, rig.end_effectors[1])


def test_real_humanoid_hands_grasp_with_the_right_and_never_with_the_left(samples: Path) -> None:
    rig = load_rig("g1_inspire")
    order, sane = set(), 0
    files = sorted((samples / "g1_inspire_v21" / "data" / "chunk-000").glob("*.parquet"))[:30]
    for file in files:
        table = pq.read_table(file)
        columns = {name: np.stack(table[name].to_numpy()) for name in ("observation.state", "action")}
        found = segment(columns, rig, frame_stamps_ns(len(table), rig.rate_hz))
        order |= {event.end_effector for event in found.events}
        names = [one.label for one in found.segments if one.label != "hold"]
        sane += names[:5] == ["reach", "grasp", "carry", "release", "retreat"]
        assert all(before.end_ns == after.start_ns for before, after in pairwise(found.segments))
    assert len(order) == 1
    assert "right" in order.pop()
    assert sane >= 0.6 * len(files)  # the others curl their fingers again while the arm still moves


def test_joint_names_are_made_readable() -> None:
    assert readable("kLeftShoulderPitch") == "left shoulder pitch"
    assert readable("left_forearm_roll") == "left forearm roll"


def test_commands_are_read_from_the_action_and_a_copy_of_the_state_is_none(rig: Rig) -> None:
    columns = aloha(np.full(241, 0.9), one_pick())
    stamps_ns = frame_stamps_ns(241, RATE_HZ)
    assert commanded_events(columns, rig, stamps_ns) is None  # the state again
    copied = {**columns, "action": np.concatenate([columns["observation.state"][1:], columns["action"][-1:]])}
    assert commanded_events(copied, rig, stamps_ns) is None  # the next state, as some recorders write it
    leader = columns["action"].copy()
    leader[:-8, 13] = columns["observation.state"][8:, 13] - 0.1
    told = commanded_events({**columns, "action": leader}, rig, stamps_ns)
    done = gripper_events(columns, rig, stamps_ns)
    assert told is not None
    assert done is not None
    lags = [
        (one.event, (two.stamp_ns - one.stamp_ns) * RATE_HZ // 1_000_000_000)
        for one, two in zip(told, done, strict=True)
    ]
    assert [event for event, _ in lags] == ["close", "open"]
    assert all(6 <= lag <= 10 for _, lag in lags)


def test_a_grip_around_something_wide_counts_where_its_command_goes_on(rig: Rig) -> None:
    """The fingers stop at 0.70, at a disc, whatever the command asks; a hand that only wanders so far does not grip."""
    stopped = path((0, 0.94), (60, 0.94), (70, 0.70), (150, 0.70), (160, 0.94), (240, 0.94))
    columns, stamps_ns = aloha(np.full(241, 0.9), stopped), frame_stamps_ns(241, RATE_HZ)
    told = columns["action"].copy()
    told[:, 13] = path((0, 0.94), (56, 0.94), (66, 0.30), (146, 0.30), (156, 0.94), (240, 0.94))
    found = gripper_events({**columns, "action": told}, rig, stamps_ns)
    assert found is not None
    assert [event.event for event in found] == ["close", "open"]
    wanders = columns["action"].copy()
    wanders[4:, 13] = columns["observation.state"][:-4, 13]
    assert gripper_events({**columns, "action": wanders}, rig, stamps_ns) == ()


def test_a_command_in_other_units_or_names_is_not_compared(rig: Rig) -> None:
    columns = aloha(np.full(241, 0.9), one_pick())
    columns["action"][:, 13] *= 0.9
    stamps_ns = frame_stamps_ns(241, RATE_HZ)
    assert commanded_events(columns, rig, stamps_ns) is not None
    for other in ({"unit": "percent"}, {"names": ()}):
        features = {**rig.features, "action": rig.features["action"].model_copy(update=other)}
        assert commanded_events(columns, rig.model_copy(update={"features": features}), stamps_ns) is None


def test_a_real_hand_answers_its_commands(samples: Path) -> None:
    rig = load_rig("g1_inspire")
    for number in (28, 29, 30, 31, 59, 82):
        (file,) = (samples / "g1_inspire_v21").rglob(f"episode_{number:06d}.parquet")
        table = pq.read_table(file)
        columns = {
            name: np.stack(table.column(name).to_numpy(zero_copy_only=False))
            for name in ("observation.state", "action")
        }
        stamps_ns = frame_stamps_ns(len(table), rig.rate_hz)
        evidence = Evidence(
            rate_hz=rig.rate_hz,
            events=gripper_events(columns, rig, stamps_ns),
            commanded=commanded_events(columns, rig, stamps_ns),
        )
        found = segment(columns, rig, stamps_ns)
        assert judge(found, evidence).verdict == "pass"
        late = tuple(
            one.model_copy(update={"stamp_ns": one.stamp_ns - 1_500_000_000}) for one in evidence.commanded or ()
        )
        shifted = Evidence(rate_hz=rig.rate_hz, events=evidence.events, commanded=late)
        assert judge(found, shifted).verdict == "fail"


def point_rig() -> Rig:
    """A rig that knows nothing of its arm but where the tool is: columns 0 to 2 in metres; column 6 is the gripper."""
    rig = load_rig("bridge")
    return rig.model_copy(update={"arms": (rig.arms[0].model_copy(update={"indices": (0, 1, 2)}),)})


def drifting(rig: Rig, speed_m_s: float, speed_rad_s: float = 0.0) -> Columns:
    """50 rows in which the tool goes left and a wrist turns, both evenly, while the gripper stays open."""
    state = np.zeros((50, 7), np.float32)
    state[:, 1], state[:, 3] = (np.arange(50) * speed / rig.rate_hz for speed in (speed_m_s, speed_rad_s))
    state[:, 6] = 1.0
    return {"observation.state": state, "action": np.zeros_like(state)}


def test_a_point_moves_or_holds_by_its_metres_and_adds_up_with_joints() -> None:
    rig = point_rig()
    assert [labels(drifting(rig, speed), rig) for speed in (0.02, 0.005, 0.0)] == [["move"], ["hold"], ["hold"]]
    wrist = rig.arms[0].model_copy(update={"name": "wrist", "indices": (3,), "position": None})
    both = rig.model_copy(update={"arms": (*rig.arms, wrist)})
    assert labels(drifting(both, 0.012, 0.04), both) == ["move"]  # 0.8 of the least move each
    assert labels(drifting(both, 0.0, 0.04), both) == ["hold"]


def test_a_last_closing_counts_where_a_point_goes_on_by_centimetres() -> None:
    rig = point_rig()
    command = rig.features["observation.state"].model_copy(update={"key": "action"})
    rig = rig.model_copy(update={"features": {**rig.features, "action": command}})
    stamps_ns = frame_stamps_ns(70, rig.rate_hz)
    for reach_m, expected in ((0.10, ["close", "open", "close"]), (0.01, ["close", "open"])):
        state = np.zeros((70, 7), np.float32)
        state[:, 1] = np.interp(np.arange(70), [0, 40, 52, 60], [0.0, 0.2, 0.2, 0.2 + reach_m])
        state[:, 6] = np.interp(np.arange(70), [10, 12, 30, 32, 45, 47], [1.0, 0.2, 0.2, 1.0, 1.0, 0.2])
        columns = {"observation.state": state, "action": np.concatenate([state[2:], state[-1:], state[-1:]])}
        for found in (gripper_events(columns, rig, stamps_ns), commanded_events(columns, rig, stamps_ns)):
            assert found is not None
            assert [event.event for event in found] == expected
