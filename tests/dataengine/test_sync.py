"""Aligning streams of several rates: no look into the future, and the same picks as the slow obvious way."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dataengine.sync import Alignment, Stream, align, linear
from schemas.errors import EpisodeError, RigError
from schemas.rigs import Clock

MS = 1_000_000
SECOND = 1000 * MS


def stream(name: str, stamps: NDArray[np.int64] | list[int], max_age_ms: int = 100, **options: bool) -> Stream:
    return Stream(name=name, stamps_ns=np.asarray(stamps, np.int64), max_age_ns=max_age_ms * MS, **options)


def even(rate_hz: float, seconds: float, start_ns: int = 0) -> NDArray[np.int64]:
    return start_ns + np.arange(int(rate_hz * seconds), dtype=np.int64) * int(SECOND / rate_hz)


def brute(streams: list[Stream], rows: list[int]) -> dict[str, list[int | None]]:
    """For each row the number of the newest message not after it, if it is fresh; one comparison at a time."""
    found: dict[str, list[int | None]] = {}
    for each in streams:
        picks: list[int | None] = []
        for row in rows:
            pick = None
            for number, stamp in enumerate(each.stamps_ns.tolist()):
                if stamp <= row:
                    pick = number
            if pick is not None and row - int(each.stamps_ns[pick]) > each.max_age_ns:
                pick = None
            picks.append(pick)
        found[each.name] = picks
    return found


def jittered(draw: st.DrawFn) -> list[int]:
    steps = draw(st.lists(st.integers(0, 60), min_size=2, max_size=40))
    return [int(stamp) for stamp in np.cumsum([draw(st.integers(0, 80)), *steps])]


stamps_ms = st.composite(jittered)()


@settings(max_examples=300, deadline=None)
@given(reference=stamps_ms, other=stamps_ms, third=stamps_ms, max_age=st.integers(20, 150))
def test_picks_equal_brute_force_and_never_look_ahead(
    reference: list[int], other: list[int], third: list[int], max_age: int
) -> None:
    streams = [
        stream("ref", np.array(reference) * MS, 10_000),
        stream("other", np.array(other) * MS, max_age),
        stream("third", np.array(third) * MS, max_age),
    ]
    expected = brute(streams, streams[0].stamps_ns.tolist())
    whole = [all(expected[each.name][row] is not None for each in streams) for row in range(len(reference))]
    rate = max(round((len(reference) - 1) * 1000 / max(reference[-1] - reference[0], 1)), 1)
    inside = whole[whole.index(True) : len(whole) - whole[::-1].index(True)] if any(whole) else [False]
    if not all(inside) or len(inside) < len(whole) / 2:
        with pytest.raises(EpisodeError, match=r"gap|overlap|fresh"):
            align(streams, Clock(reference="ref"), rate, episode="e")
        return
    try:
        made = align(streams, Clock(reference="ref"), rate, episode="e")
    except EpisodeError as error:
        if "Hz" in str(error):  # jitter made the reference miss its rate
            return
        raise
    first, last = whole.index(True), len(whole) - whole[::-1].index(True)
    assert (made.num_trimmed_start, made.num_trimmed_end) == (first, len(whole) - last)
    for each in streams:
        assert made.picks[each.name].tolist() == expected[each.name][first:last]
        taken = each.stamps_ns[made.picks[each.name]]
        assert (taken <= made.rows_ns).all()
        assert (made.rows_ns - taken <= each.max_age_ns).all()
        assert (np.diff(made.picks[each.name]) >= 0).all()


@settings(max_examples=100, deadline=None)
@given(stamps=stamps_ms, extra=st.lists(st.integers(1, 500), min_size=1, max_size=5))
def test_messages_after_the_last_row_change_nothing(stamps: list[int], extra: list[int]) -> None:
    reference = stream("ref", np.array([0, 50, 100]) * MS, 10_000)
    state = np.array(stamps) * MS - stamps[0] * MS
    later = 100 * MS + np.cumsum(extra) * MS
    past = state[state <= 100 * MS]
    plain = align([reference, stream("s", past, 10_000)], Clock(reference="ref"), 20, episode="e")
    more = align([reference, stream("s", np.r_[past, later], 10_000)], Clock(reference="ref"), 20, episode="e")
    assert plain.picks["s"].tolist() == more.picks["s"].tolist()


@settings(max_examples=100, deadline=None)
@given(rate=st.integers(1, 240), starts=st.lists(st.integers(0, 10**18), min_size=2, max_size=2))
def test_the_even_grid_never_drifts(rate: int, starts: list[int]) -> None:
    start = max(starts)
    times = [start, start + 3 * SECOND + 1]
    made = align([stream("a", times, 10_000), stream("b", times, 10_000)], Clock(), rate, episode="e")
    assert len(made.rows_ns) == 3 * rate + 1
    exact = [start + index * SECOND // rate for index in range(3 * rate + 1)]
    assert made.rows_ns.tolist() == exact


def multi_rate(seed: int = 0) -> list[Stream]:
    """State at 250 Hz with jitter, commands at 30 Hz, a camera at 30 Hz that loses frames."""
    rng = np.random.default_rng(seed)
    state = np.sort(even(250, 3) + rng.integers(-MS, MS, 750))
    camera = even(30, 3, start_ns=11 * MS)
    return [
        stream("state", state, 50),
        stream("action", even(30, 3, start_ns=5 * MS), 100),
        stream("camera", np.delete(camera, [20, 50, 51]), 150),
    ]


def test_the_skew_report_counts_dropped_and_repeated_and_gives_ages() -> None:
    made = align(multi_rate(), Clock(reference="action"), 30, episode="e")
    assert made.num_trimmed_start == 1, "the camera's first picture comes after the first command"
    assert len(made.rows_ns) == 89
    assert made.skew["action"].max_s == 0
    camera, state = made.skew["camera"], made.skew["state"]
    assert (camera.num_messages, camera.num_repeated, camera.num_dropped) == (87, 3, 0)
    assert state.num_dropped > 600
    assert state.num_repeated == 0
    assert 0 <= state.p50_s < state.p95_s <= state.max_s < 0.007
    assert camera.p50_s == pytest.approx(1 / 30 - 0.006, abs=1e-3)


def test_a_gap_inside_is_named_with_stream_place_and_length() -> None:
    camera = even(30, 3)
    streams = [stream("state", even(100, 3)), stream("camera", np.delete(camera, range(30, 40)))]
    with pytest.raises(EpisodeError, match=r"'camera' has a gap of 0\.367 s, 0\.97 s after .*message 29.*max_age 0\.1"):
        align(streams, Clock(reference="state"), 100, episode="run_7")
    with pytest.raises(EpisodeError, match=r"run_7: 'camera' has a gap of 0\.367 s"):
        align(streams, Clock(reference="camera"), 30, episode="run_7")


def test_a_reference_at_another_rate_is_refused_with_the_measured_rate() -> None:
    streams = [stream("state", even(250, 3)), stream("camera", even(25, 3))]
    with pytest.raises(
        EpisodeError, match=r"reference 'camera' runs at 25\.00 Hz, the rig says rate_hz: 30 \(up to 2% off"
    ):
        align(streams, Clock(reference="camera"), 30, episode="e")
    slightly = [stream("state", even(250, 3)), stream("camera", even(29.7, 3))]
    assert len(align(slightly, Clock(reference="camera"), 30, episode="e").rows_ns) == 89


def test_streams_that_never_meet_say_how_far_apart_they_are() -> None:
    streams = [stream("state", even(100, 1)), stream("camera", even(30, 1, start_ns=3 * SECOND))]
    for clock in (Clock(), Clock(reference="camera")):
        with pytest.raises(EpisodeError, match=r"'state' ends 2\.010 s before 'camera' begins.*clock\.stamp: log"):
            align(streams, clock, 30, episode="e")
    with pytest.raises(EpisodeError, match="'camera' has no message"):
        align([streams[0], stream("camera", [])], Clock(), 30, episode="e")
    with pytest.raises(RigError, match=r"'cam' is no feature or camera.*Did you mean 'camera'"):
        align(streams, Clock(reference="cam"), 30, episode="e")


def test_linear_lies_on_the_line_and_needs_the_next_value() -> None:
    slow = stream("pose", even(10, 1), 200, linear=True)
    made = align([stream("camera", even(30, 1.5), 100), slow], Clock(reference="camera"), 30, episode="e")
    assert made.num_trimmed_end == 45 - len(made.rows_ns) > 0
    assert made.rows_ns[-1] <= slow.stamps_ns[-1], "a row after the last value would have to be made up"
    values = np.stack([slow.stamps_ns / SECOND, -slow.stamps_ns / SECOND], axis=1)
    mixed = linear(values, slow, made)
    np.testing.assert_allclose(mixed[:, 0], made.rows_ns / SECOND, atol=1e-12)
    np.testing.assert_allclose(mixed[:, 1], -made.rows_ns / SECOND, atol=1e-12)
    assert linear(values.astype(np.float32), slow, made).dtype == np.float32


def test_a_linear_row_on_a_stamp_is_that_value_bit_for_bit() -> None:
    times = even(30, 1)
    noise = np.random.default_rng(0).normal(size=(30, 7)).astype(np.float32)
    pose = stream("pose", times, linear=True)
    made: Alignment = align([stream("camera", times), pose], Clock(reference="camera"), 30, episode="e")
    assert linear(noise, pose, made).tobytes() == noise.tobytes()


def test_real_arms_of_one_robot_with_unequal_row_counts_and_irregular_cameras(samples: Path) -> None:
    episode = samples / "openarm_fixture/tests/fixture/dataset_0.3.0/episodes/0"
    streams = []
    for name in ("obs/arms/left/state", "obs/arms/right/state", "action/arms/left/qpos"):
        stamps = pq.read_table(episode / f"{name}.parquet")["timestamp"].cast(pa.timestamp("ns")).cast(pa.int64())
        streams.append(stream(name, stamps.to_numpy(), 50))
    shots = sorted(int(path.stem) for path in (episode / "cameras/ceiling").iterdir())
    assert [len(each.stamps_ns) for each in streams[:2]] == [745, 746]
    made = align(streams, Clock(reference="action/arms/left/qpos"), 30, episode="0")
    expected = brute(streams, made.rows_ns.tolist())
    assert {name: picks.tolist() for name, picks in made.picks.items()} == expected
    assert len(made.rows_ns) == 90
    assert made.skew["obs/arms/right/state"].max_s < 0.012
    streams.append(stream("ceiling", shots, 100))
    with pytest.raises(EpisodeError, match=r"only 4 of 90 rows have a fresh .*'ceiling' has 3 messages over 0\.04 s"):
        align(streams, Clock(reference="action/arms/left/qpos"), 30, episode="0")
