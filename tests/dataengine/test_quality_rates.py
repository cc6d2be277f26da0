"""Frames are missing where a stream has gaps of its own, not where rows of another clock pass over its messages."""

from dataclasses import replace

import numpy as np
import pytest

from dataengine.quality.checking import judge
from dataengine.quality.facts import measure
from dataengine.quality.limits import QualityLimits
from dataengine.quality.recordings import Recording
from dataengine.quality.rows import QualityRow
from dataengine.sync import Stream, align
from schemas.rigs import Camera, Clock, Feature, Rig

STATE = "observation.state"


def aligned(rows_hz: int, other_hz: int, *, lost: str = "", how: str = "burst") -> tuple[Recording, Rig]:
    """Ten seconds of a camera, whose stamps are the rows, and of joints at another rate; `lost` loses messages."""
    random = np.random.default_rng(0)
    streams = []
    for name, rate_hz, late_ns in (("cam", rows_hz, 0), (STATE, other_hz, 11 * 10**6)):
        number = np.arange(10 * rate_hz)
        stamps = number * 10**9 // rate_hz + random.integers(-(10**6), 10**6, len(number)) + late_ns
        gone = number % 20 == 15 if how == "all over" else abs(number - 5 * rate_hz) <= max(1, rate_hz // 20)
        streams.append(Stream(name=name, stamps_ns=stamps[~gone] if name == lost else stamps, max_age_ns=6 * 10**8))
    made = align(streams, Clock(reference="cam"), rows_hz, episode="e")
    recording = Recording(
        episode_id="e",
        rate_hz=rows_hz,
        columns={STATE: np.sin(made.rows_ns[:, None] / 1e9).astype(np.float32)},
        stamps_ns={each.name: each.stamps_ns[made.picks[each.name]] for each in streams},
        skew=made.skew,
    )
    rig = Rig(
        name="arm",
        source="mcap",
        robot_type="arm",
        rate_hz=rows_hz,
        features={STATE: Feature(key="/joint_states.position")},
        cameras={"cam": Camera(key="/cam", channel_order="rgb")},
        clock=Clock(reference="cam"),
    )
    return recording, rig


def missing(recording: Recording, rig: Rig) -> dict[str, QualityRow]:
    """The streams of which messages are said to be missing."""
    limits = QualityLimits()
    rows = judge([measure(recording, rig, limits)], rig, limits)
    return {row.stream: row for row in rows if row.check == "dropped_frames" and row.verdict == "fail"}


@pytest.mark.parametrize(("rows_hz", "other_hz"), [(30, 40), (25, 30), (30, 10), (50, 30), (30, 30), (30, 250)])
def test_messages_that_rows_of_another_rate_pass_over_are_not_missing(rows_hz: int, other_hz: int) -> None:
    recording, rig = aligned(rows_hz, other_hz)
    assert missing(recording, rig) == {}
    assert missing(replace(recording, skew={}), rig) == {}  # a frame store keeps stamps alone


@pytest.mark.parametrize("lost", ["cam", STATE])
@pytest.mark.parametrize("other_hz", [10, 30, 40])
def test_a_gap_is_found_in_the_stream_that_has_it_and_in_no_other(other_hz: int, lost: str) -> None:
    recording, rig = aligned(30, other_hz, lost=lost)
    for each in (recording, replace(recording, skew={})):
        found = missing(each, rig)
        assert set(found) == {lost}
        assert (found[lost].value or 0) > 3
        assert 145 <= (found[lost].frame or 0) <= 165


@pytest.mark.parametrize("other_hz", [10, 30, 40])
def test_messages_lost_all_over_a_stream_of_another_rate_are_found(other_hz: int) -> None:
    recording, rig = aligned(30, other_hz, lost=STATE, how="all over")
    assert set(missing(recording, rig)) == {STATE}


def test_what_alignment_counted_is_of_the_whole_episode_though_half_was_cut_off() -> None:
    recording, rig = aligned(30, 10)
    half = recording.num_frames // 2
    trimmed = replace(
        recording,
        columns={key: values[:half] for key, values in recording.columns.items()},
        stamps_ns={key: stamps[:half] for key, stamps in recording.stamps_ns.items()},
        skew_frames=recording.num_frames,
    )
    assert missing(trimmed, rig) == {}
