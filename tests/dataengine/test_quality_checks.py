"""Each quality check finds its fault in plain numbers and pictures, and keeps quiet without one."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dataengine.quality.camera_facts import camera_facts
from dataengine.quality.checking import judge
from dataengine.quality.facts import measure
from dataengine.quality.limits import QualityLimits, load_limits
from dataengine.quality.recordings import Recording
from dataengine.quality.rows import Check, QualityReport, QualityRow
from dataengine.quality.set_checks import candidates
from dataengine.quality.thumbnails import Thumbnail, thumbnail, video_thumbnails
from dataengine.sinks.video_encoding import VideoEncoding, VideoWriter
from schemas.episodes import StreamSkew
from schemas.errors import UsageError
from schemas.refs import Ref
from schemas.rigs import Camera, EndEffector, Feature, Rig

RATE_HZ, NUM_FRAMES, LAG = 20, 200, 2
NAMES = ("shoulder", "elbow", "wrist", "gripper")
RIG = Rig(
    name="test",
    source="aloha_hdf5",
    robot_type="test",
    rate_hz=RATE_HZ,
    features={
        "observation.state": Feature(key="state", names=NAMES),
        "action": Feature(key="action", names=NAMES),
    },
    cameras={"cam": Camera(key="cam", channel_order="rgb")},
    end_effectors=(EndEffector(name="gripper", indices=(3,), closed=0.0, open=1.0),),
)


def _motion(seed: int) -> NDArray[np.float32]:
    """(rows, 4) of slow sums of sines with sensor noise; the gripper is open or closed."""
    random = np.random.default_rng(seed)
    time = np.arange(NUM_FRAMES + 10)[:, None] / RATE_HZ
    phases, rates = random.uniform(0, 6, (2, 1, 3)), random.uniform(0.6, 1.4, (2, 1, 3))
    arm = np.sin(rates[0] * time + phases[0]) + 0.4 * np.sin(2.3 * rates[1] * time + phases[1])
    grip = (np.sin(0.9 * time + random.uniform(0, 6)) > 0).astype(float)
    return np.asarray(np.concatenate([arm, grip], axis=1), dtype=np.float32)


def _pictures(seed: int, num_frames: int = NUM_FRAMES) -> list[tuple[int, NDArray[np.uint8]]]:
    """A textured scene in which a bar moves; sensor noise; five pictures a second."""
    random = np.random.default_rng([seed, 9])
    scene = random.integers(40, 200, (48, 64, 3))
    found = []
    for frame in range(0, num_frames, RATE_HZ // 5):
        picture = scene + random.normal(0, 2, scene.shape)
        left = (frame // 2 + seed) % 56
        picture[10:40, left : left + 8] = (230, 60, 60)
        found.append((frame, np.clip(picture, 0, 255).astype(np.uint8)))
    return found


def _thumbnails(pictures: list[tuple[int, NDArray[np.uint8]]]) -> list[Thumbnail]:
    return [thumbnail(frame, rgb) for frame, rgb in pictures]


def episode(seed: int, pictures: list[tuple[int, NDArray[np.uint8]]] | None = None) -> Recording:
    motion = _motion(seed)
    noise = np.random.default_rng([seed, 1]).normal(0, 0.002, (NUM_FRAMES, 4)).astype(np.float32)
    shown = _thumbnails(_pictures(seed) if pictures is None else pictures)
    stamps = (np.arange(NUM_FRAMES) * 1e9 / RATE_HZ).astype(np.int64)
    return Recording(
        episode_id=f"episode_{seed}",
        rate_hz=RATE_HZ,
        columns={
            "observation.state": motion[10 - LAG : 10 - LAG + NUM_FRAMES] + noise,
            "action": motion[10 : 10 + NUM_FRAMES],
        },
        cameras={"cam": partial(iter, shown)},
        stamps_ns={"cam": stamps},
    )


GOOD = [episode(seed) for seed in range(8)]


def verdicts(recordings: list[Recording], limits: QualityLimits | None = None) -> list[QualityRow]:
    limits = limits or QualityLimits()
    return list(judge([measure(row, RIG, limits) for row in recordings], RIG, limits))


def failed(rows: list[QualityRow]) -> list[tuple[str, Check]]:
    return sorted({(row.episode_id, row.check) for row in rows if row.verdict == "fail"})


def changed(key: str, change: Callable[[NDArray[np.float32]], NDArray[np.float32]], seed: int = 3) -> list[Recording]:
    """The good episodes, one of which has one column changed."""
    row = GOOD[seed]
    columns = {**row.columns, key: change(np.array(row.columns[key]))}
    return [*GOOD[:seed], replace(row, columns=columns), *GOOD[seed + 1 :]]


def of(rows: list[QualityRow], check: Check, episode_id: str = "episode_3") -> QualityRow:
    [row] = [row for row in rows if row.check == check and row.episode_id == episode_id and row.verdict == "fail"]
    return row


def test_good_episodes_pass_every_check() -> None:
    rows = verdicts(GOOD)
    assert failed(rows) == []
    assert not [row for row in rows if row.verdict == "unknown"]
    assert len({row.check for row in rows}) == 11


def test_a_nan_is_found_at_its_row_and_dimension() -> None:
    def change(values: NDArray[np.float32]) -> NDArray[np.float32]:
        values[70, 1] = np.nan
        return values

    row = of(verdicts(changed("action", change)), "not_finite")
    assert (row.stream, row.frame, row.dim, row.value) == ("action", 70, 1, 1.0)
    assert "elbow" in row.detail


def test_a_joint_that_jumps_is_found_but_a_gripper_may() -> None:
    def change(values: NDArray[np.float32]) -> NDArray[np.float32]:
        values[90, 0] += 0.6
        return values

    row = of(verdicts(changed("observation.state", change)), "jump")
    assert row.dim == 0
    assert row.frame in (89, 90, 91)
    assert (row.value or 0) > (row.limit or 0) > 0


def test_a_step_above_a_stated_limit_is_found() -> None:
    rows = verdicts(GOOD, QualityLimits(max_step={"action.wrist": 0.001}))
    found = [row for row in rows if row.check == "jump" and row.verdict == "fail"]
    assert {row.episode_id for row in found} == {row.episode_id for row in GOOD}
    assert {(row.stream, row.dim, row.limit) for row in found} == {("action", 2, 0.001)}


def test_an_angle_that_wraps_has_not_jumped() -> None:
    def wrapped(values: NDArray[np.float32]) -> NDArray[np.float32]:
        angle = np.linspace(2.5, 4.0, len(values))
        values[:, 2] = (angle + np.pi) % (2 * np.pi) - np.pi
        return values

    rows = verdicts(changed("action", wrapped))
    assert not [row for row in rows if row.check == "jump" and row.verdict == "fail"]


def test_a_stuck_joint_is_found_where_its_command_moves() -> None:
    def change(values: NDArray[np.float32]) -> NDArray[np.float32]:
        values[60:130, 1] = values[60, 1]
        return values

    row = of(verdicts(changed("observation.state", change)), "stuck_joint")
    assert row.dim == 1
    assert row.frame in range(60, 130)


def test_an_episode_in_which_nothing_moves_is_found() -> None:
    still = changed("observation.state", lambda values: np.repeat(values[:1], len(values), axis=0))
    assert ("episode_3", "static_episode") in failed(verdicts(still))


@pytest.mark.parametrize("rows_early", [8, -8])
def test_actions_written_too_early_or_too_late_are_found(rows_early: int) -> None:
    at = np.clip(np.arange(NUM_FRAMES) + rows_early, 0, NUM_FRAMES - 1)
    shifted = changed("action", lambda values: values[at])
    row = of(verdicts(shifted), "action_lag")
    assert row.value == pytest.approx((LAG + rows_early) / RATE_HZ, abs=1 / RATE_HZ)


def test_a_gap_in_the_stamps_is_found() -> None:
    stamps = np.array(GOOD[3].stamps_ns["cam"])
    stamps[120:] += int(4e9 / RATE_HZ)
    rows = verdicts([*GOOD[:3], replace(GOOD[3], stamps_ns={"cam": stamps}), *GOOD[4:]])
    row = of(rows, "dropped_frames")
    assert row.frame == 120
    assert row.value == pytest.approx(5.0)


def test_repeated_messages_count_as_dropped_frames_unless_the_stream_is_slow() -> None:
    def skew(messages: int, repeated: int) -> dict[str, StreamSkew]:
        row = StreamSkew(num_messages=messages, num_dropped=0, num_repeated=repeated, p50_s=0.0, p95_s=0.01, max_s=0.05)
        return {"imu": row}

    fast = replace(GOOD[3], skew=skew(NUM_FRAMES, 20))
    slow = replace(GOOD[4], skew=skew(NUM_FRAMES // 2, NUM_FRAMES // 2))
    rows = verdicts([*GOOD[:3], fast, slow, *GOOD[5:]])
    assert failed(rows) == [("episode_3", "dropped_frames")]


def test_an_unusual_length_is_found() -> None:
    short = {key: values[:30] for key, values in GOOD[3].columns.items()}
    cut = replace(GOOD[3], columns=short, cameras={}, stamps_ns={})
    assert failed(verdicts([*GOOD[:3], cut, *GOOD[4:]])) == [("episode_3", "length_outlier")]


@pytest.mark.parametrize("how", ["the same", "trimmed", "played again"])
def test_an_episode_recorded_twice_is_found(how: str) -> None:
    columns = dict(GOOD[1].columns)
    if how == "trimmed":
        columns = {key: values[20:180] for key, values in columns.items()}
    if how == "played again":
        columns = {key: values + np.float32(0.001) for key, values in columns.items()}
    copy = replace(GOOD[5], columns=columns, cameras={}, stamps_ns={})
    row = of(verdicts([*GOOD[:5], copy, *GOOD[6:]]), "duplicate_episode", "episode_5")
    assert row.other == "episode_1"


def test_a_frozen_camera_is_found_only_while_the_robot_moves() -> None:
    pictures = _pictures(3)
    for at in range(10, 22):
        pictures[at] = (pictures[at][0], pictures[10][1])
    frozen = episode(3, pictures)
    row = of(verdicts([*GOOD[:3], frozen, *GOOD[4:]]), "frozen_camera")
    assert (row.frame, row.num_frames) == (40, 44)
    state = np.array(frozen.columns["observation.state"])
    state[40:90] = state[40]
    still = replace(frozen, columns={**frozen.columns, "observation.state": state})
    assert ("episode_3", "frozen_camera") not in failed(verdicts([*GOOD[:3], still, *GOOD[4:]]))


@pytest.mark.parametrize(
    ("check", "colour"), [("black_camera", 3), ("washed_out_camera", 253), ("washed_out_camera", 120)]
)
def test_a_camera_that_shows_nothing_is_found(check: Check, colour: int) -> None:
    random = np.random.default_rng(0)
    pictures = _pictures(3)
    for at in range(20, 30):
        blank = np.clip(random.normal(colour, 1.5, (48, 64, 3)), 0, 255).astype(np.uint8)
        pictures[at] = (pictures[at][0], blank)
    rows = verdicts([*GOOD[:3], episode(3, pictures), *GOOD[4:]])
    assert failed(rows) == [("episode_3", check)]
    assert (of(rows, check).frame, of(rows, check).num_frames) == (80, 40)


def test_a_white_scene_is_not_washed_out() -> None:
    def on_paper(seed: int) -> Recording:
        shown = _pictures(seed)
        return episode(seed, [(frame, np.where(rgb > 90, 255, rgb).astype(np.uint8)) for frame, rgb in shown])

    rows = verdicts([on_paper(seed) for seed in range(6)])
    assert not [row for row in rows if row.check == "washed_out_camera" and row.verdict == "fail"]


def test_what_cannot_be_told_is_unknown_and_no_failure() -> None:
    alone = [replace(GOOD[0], columns={"observation.state": GOOD[0].columns["observation.state"]}, stamps_ns={})]
    rows = verdicts(alone)
    unknown = {row.check for row in rows if row.verdict == "unknown"}
    assert {"length_outlier", "static_episode", "action_lag", "stuck_joint", "dropped_frames"} <= unknown
    assert failed(rows) == []


def test_a_report_counts_episodes_and_lists_what_is_no_pass() -> None:
    rows = verdicts(changed("observation.state", lambda values: np.repeat(values[:1], len(values), axis=0)))
    report = QualityReport(ref=Ref("t", "1"), rows=tuple(rows), num_episodes=8, limits=QualityLimits().to_json())
    assert not report.ok
    assert report.bad_episodes() == ("episode_3",)
    assert report.counts()["static_episode"] == {"fail": 1, "pass": 7}
    listed = report.to_json()["rows"]
    assert all(row["verdict"] != "pass" for row in listed)


def test_limits_come_from_a_small_file_and_nonsense_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "limits.yaml"
    path.write_text("frozen_s: 2\nmax_step: {action: 0.2}\n")
    limits = load_limits(path)
    assert (limits.frozen_s, limits.max_step, limits.stuck_s) == (2, {"action": 0.2}, QualityLimits().stuck_s)
    for text, words in (
        ("frozen: 2\n", "no limit 'frozen'. Did you mean"),
        ("frozen_s: soon\n", "must be a number above 0"),
        ("lag_s: -1\n", "must be a number above 0"),
        ("- 1\n", "no mapping"),
        ("max_step: 3\n", "max_step is a mapping"),
    ):
        path.write_text(text)
        with pytest.raises(UsageError, match=words):
            load_limits(path)
    with pytest.raises(UsageError, match="no file of limits"):
        load_limits(tmp_path / "absent.yaml")


@pytest.mark.parametrize("num_episodes", [500, 1000])
def test_episodes_that_start_alike_are_not_each_compared_with_all_others(num_episodes: int) -> None:
    random = np.random.default_rng(0)
    rest = random.integers(0, 2**63, 20, dtype=np.uint64)  # rows that all episodes hold
    hashes = [np.concatenate([rest, random.integers(0, 2**63, 40, dtype=np.uint64)]) for _ in range(num_episodes)]
    hashes[300] = np.concatenate([rest, hashes[200][30:], hashes[7][20:25]])
    found = dict(candidates(hashes))
    assert sum(map(len, found.values())) <= 4 * num_episodes
    assert found[300][0] == 200


@pytest.mark.parametrize("size", [(48, 64), (240, 320)])
@pytest.mark.parametrize(
    "encoding",
    [
        VideoEncoding(),
        VideoEncoding(g=30, preset="8"),
        VideoEncoding(codec="libx264", preset="medium"),
        VideoEncoding(codec="libx264", preset="medium", g=30),
    ],
    ids=lambda row: f"{row.codec}-g{row.g}",
)
def test_a_frozen_camera_is_found_through_the_noise_of_an_encoder(
    tmp_path: Path, encoding: VideoEncoding, size: tuple[int, int]
) -> None:
    num_frames, rate_hz = 200, 50
    state = np.arange(num_frames, dtype=np.float32)[:, None]

    def freezes(shown: Callable[[int], int]) -> list[tuple[int, int]]:
        path = tmp_path / "video.mp4"
        with VideoWriter(path, width=size[1], height=size[0], rate_hz=rate_hz, encoding=encoding, threads=1) as writer:
            for frame in range(num_frames):
                writer.add(_sharp(shown(frame), *size))
        thumbnails = video_thumbnails(path, rate_hz, 0, num_frames, 10)
        facts = camera_facts(thumbnails, state, num_frames=num_frames, difference=1.0, least_frames=25)
        return [(row.frame, row.num_frames) for row in facts.freezes]

    assert freezes(lambda frame: frame) == []
    start, length = freezes(lambda frame: min(frame, 40) if frame < 140 else frame)[0]
    assert 30 <= start <= 60
    assert 80 <= length <= 110
    assert freezes(lambda frame: 0)[0][1] >= 180


def test_a_robot_that_rests_and_then_moves_what_is_hardly_seen_freezes_no_camera() -> None:
    """Pictures of video: half of them are the same while it rests, the others change by less than noise may."""
    scene = np.full((240, 320, 3), 90, np.uint8)
    shown = []
    for number in range(20):
        picture = scene.copy()
        picture[100:120, 100:120] += 0 if number < 10 else number - 9
        shown.append(thumbnail(number * 10, picture, encoded=True))
    state = np.concatenate([np.zeros(95), np.arange(105)])[:, None].astype(np.float32)
    facts = camera_facts(shown, state, num_frames=200, difference=0.5, least_frames=25)
    assert [row.moved.max() for row in facts.freezes if row.num_frames > 95] == [0.0]


def _sharp(step: int, height: int, width: int) -> NDArray[np.uint8]:
    """Steep edges in all colours, which cost an encoder most, and a block that moves over them."""
    rows, columns = np.mgrid[0:height, 0:width]
    picture = np.stack([columns * 3 + step * 2, rows * 4, np.full_like(rows, 40)], axis=2).astype(np.uint8)
    left = (5 + step) % (width - 14)
    picture[height // 2 : height // 2 + 10, left : left + 8] = (255, 0, 0)
    return picture
