"""Faults put into good episodes: what a robot, a camera or a recorder does wrong, one of each kind per check.

Each fault takes a recording and a random generator and gives the recording with the fault in it, or None where the
episode leaves no room for it. Pictures are changed at full size, before the checks make them small.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataengine.proofs.bare_codecs import bare_video
from dataengine.quality.recordings import ACTION, STATE, Recording, Thumbnails
from dataengine.quality.rows import Check
from dataengine.quality.thumbnails import Thumbnail, thumbnail
from dataengine.quality.usual import Usual
from dataengine.sinks.video_encoding import VideoEncoding
from schemas.episodes import StreamSkew

type Random = np.random.Generator
type Columns = dict[str, NDArray[Any]]
type Pictures = dict[str, list[tuple[int, NDArray[np.uint8]]]]  # camera -> (frame, picture), thinned in time


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Specimen:
    """A good episode with its pictures at full size, thinned in time: (frame, picture) per camera."""

    recording: Recording
    pictures: Pictures
    usual: Usual  # of the dataset it comes from
    pairs: tuple[tuple[int, int], ...]

    @property
    def columns(self) -> Columns:
        """Copies, to be changed."""
        return {key: np.array(values) for key, values in self.recording.columns.items()}


type Fault = Callable[[Specimen, Random], Recording | None]


def _walk(pictures: list[tuple[int, NDArray[np.uint8]]]) -> Iterator[Thumbnail]:
    for frame, rgb in pictures:
        yield thumbnail(frame, rgb)


def _with_columns(specimen: Specimen, columns: Columns) -> Recording:
    return replace(specimen.recording, columns=columns)


def _with_pictures(specimen: Specimen, key: str, pictures: list[tuple[int, NDArray[np.uint8]]]) -> Recording:
    cameras: dict[str, Thumbnails] = {**specimen.recording.cameras, key: partial(_walk, pictures)}
    return replace(specimen.recording, cameras=cameras)


def not_finite(specimen: Specimen, random: Random) -> Recording | None:
    """One value is NaN or infinite."""
    columns = specimen.columns
    key = str(random.choice([key for key, values in columns.items() if values.dtype.kind == "f"]))
    values = columns[key]
    values[random.integers(len(values)), random.integers(values.shape[1])] = random.choice([np.nan, np.inf, -np.inf])
    return _with_columns(specimen, columns)


def jump(specimen: Specimen, random: Random) -> Recording | None:
    """One joint is off by 20 to 100 % of its range, for one row or from there on."""
    columns, usual = specimen.columns, specimen.usual
    dims = np.flatnonzero(usual.moving & ~usual.grippers[STATE])
    if not len(dims):
        return None
    dim, row = int(random.choice(dims)), int(random.integers(2, specimen.recording.num_frames - 2))
    size = usual.ranges[STATE][dim] * random.uniform(0.2, 1.0) * random.choice([-1, 1])
    columns[STATE][row : row + 1 if random.random() < 0.5 else None, dim] += size
    return _with_columns(specimen, columns)


def stuck_joint(specimen: Specimen, random: Random) -> Recording | None:
    """A joint keeps its value for 2 s or more, while its command moves by at least a quarter of its usual range."""
    columns, usual = specimen.columns, specimen.usual
    rate_hz, num = specimen.recording.rate_hz, specimen.recording.num_frames
    length = round(random.uniform(2.0, 4.0) * rate_hz)
    room = []
    for number, (told, joint) in enumerate(specimen.pairs):
        if number < len(usual.follows) and usual.follows[number] and not usual.grippers[STATE][joint]:
            for start in range(0, num - length, max(1, rate_hz // 5)):
                # the second half may be the robot on its way to where it was told to be
                window = columns[ACTION][start : start + length // 2, told]
                if np.ptp(window) >= 0.25 * usual.episode_ranges[ACTION][told] > 0:
                    room.append((start, joint))
    if not room:
        return None
    start, joint = room[int(random.integers(len(room)))]
    columns[STATE][start : start + length, joint] = columns[STATE][start, joint]
    return _with_columns(specimen, columns)


def static_episode(specimen: Specimen, random: Random) -> Recording | None:
    """The robot keeps its first pose, but for noise of a thousandth of the range."""
    columns = specimen.columns
    for key in (STATE, ACTION):
        if key in columns:
            noise = random.normal(size=columns[key].shape) * 1e-3 * specimen.usual.ranges[key]
            columns[key] = (columns[key][:1] + noise).astype(columns[key].dtype)
    return _with_columns(specimen, columns)


def action_lag(specimen: Specimen, random: Random) -> Recording | None:
    """The action is written 0.2 to 0.8 s too early or too late."""
    columns, rate_hz = specimen.columns, specimen.recording.rate_hz
    if ACTION not in columns or STATE not in columns:
        return None
    rows = max(2, round(random.uniform(0.2, 0.8) * rate_hz)) * int(random.choice([-1, 1]))
    at = np.clip(np.arange(len(columns[ACTION])) + rows, 0, len(columns[ACTION]) - 1)
    columns[ACTION] = columns[ACTION][at]
    return _with_columns(specimen, columns)


def dropped_frames(specimen: Specimen, random: Random) -> Recording | None:
    """Three to ten frames in a row were lost, or one of twenty all over the episode."""
    recording = specimen.recording
    stamps = jittered_stamps(recording, random)
    if random.random() < 0.5:
        row = int(random.integers(1, len(stamps)))
        stamps[row:] += int(random.integers(3, 11) / recording.rate_hz * 1e9)
    else:
        lost = np.zeros(len(stamps), dtype=np.int64)
        lost[random.choice(np.arange(1, len(stamps)), size=max(2, len(stamps) // 20), replace=False)] = 1
        stamps += np.cumsum(lost) * round(1e9 / recording.rate_hz)
    return multi_rate(recording, stamps)


def jittered_stamps(recording: Recording, random: Random) -> NDArray[np.int64]:
    """Stamps of a recorder that loses nothing: each 5 % of a period off."""
    period = 1e9 / recording.rate_hz
    even = np.arange(recording.num_frames) * period
    return np.sort(even + random.normal(size=len(even)) * 0.05 * period).astype(np.int64)


def multi_rate(recording: Recording, camera_ns: NDArray[np.int64]) -> Recording:
    """Rows at a camera's stamps, and joint states at 4/3 of that rate of which each row takes the newest."""
    joints_ns = np.arange(camera_ns[0], camera_ns[-1] + 1, round(0.75e9 / recording.rate_hz))
    picks = np.searchsorted(joints_ns, camera_ns, side="right") - 1
    ages = (camera_ns - joints_ns[picks]) / 1e9
    skew = StreamSkew(
        num_messages=len(joints_ns),
        num_dropped=int(picks[-1]) + 1 - len(np.unique(picks)),
        num_repeated=int((np.diff(picks) == 0).sum()),
        p50_s=float(np.percentile(ages, 50)),
        p95_s=float(np.percentile(ages, 95)),
        max_s=float(ages.max()),
    )
    return replace(recording, stamps_ns={"camera": camera_ns, "joints": joints_ns[picks]}, skew={"joints": skew})


def length_outlier(specimen: Specimen, random: Random) -> Recording | None:
    """The recording was cut after a sixth of the usual length, or left running for six times as long."""
    num, usual = specimen.recording.num_frames, specimen.usual.length
    if random.random() < 0.5:
        rows = np.arange(max(2, min(num, int(usual / random.uniform(6, 9)))))
    else:
        there_and_back = np.concatenate([np.arange(num), np.arange(num)[::-1]])
        rows = np.resize(there_and_back, int(usual * random.uniform(6, 9)))
    columns = {key: values[rows] for key, values in specimen.columns.items()}
    return replace(specimen.recording, columns=columns, cameras={}, stamps_ns={})


def frozen_camera(specimen: Specimen, random: Random) -> Recording | None:
    """A camera repeats a picture for 2 to 4 s in which a joint moves; half of them went through a video encoder."""
    recording, usual = specimen.recording, specimen.usual
    state, length = recording.columns[STATE], round(random.uniform(2.0, 4.0) * recording.rate_hz)
    moves = usual.moving & (usual.episode_ranges[STATE] > 0)
    room = [
        start
        for start in range(0, recording.num_frames - length, max(1, recording.rate_hz // 5))
        if (np.ptp(state[start : start + length], axis=0)[moves] >= 0.3 * usual.episode_ranges[STATE][moves]).any()
    ]
    if not room:
        return None
    key = str(random.choice(list(specimen.pictures)))
    start = room[int(random.integers(len(room)))]
    pictures = list(specimen.pictures[key])
    stuck = next(at for at, (frame, _) in enumerate(pictures) if frame >= start)
    inside = [at for at, (frame, _) in enumerate(pictures) if start <= frame <= start + length]
    for at in inside:
        pictures[at] = (pictures[at][0], pictures[stuck][1])
    if random.random() < 0.5:
        encoded = bare_video([rgb for _, rgb in pictures], encoding=VideoEncoding(), rate_hz=recording.rate_hz)
        pictures = [(frame, rgb) for (frame, _), rgb in zip(pictures, encoded, strict=True)]
    return _with_pictures(specimen, key, pictures)


def black_camera(specimen: Specimen, random: Random) -> Recording | None:
    """A camera gives black with sensor noise: always, from some moment on, or for one second."""
    return _spoiled(specimen, random, lambda rgb: np.clip(random.normal(2, 2, rgb.shape), 0, 255))


def washed_out_camera(specimen: Specimen, random: Random) -> Recording | None:
    """A camera is overexposed five times, or gives one even gray."""
    if random.random() < 0.5:
        return _spoiled(specimen, random, lambda rgb: np.clip(rgb * 5.0 + 100, 0, 255))
    gray = random.uniform(60, 220)
    return _spoiled(specimen, random, lambda rgb: np.clip(random.normal(gray, 2, rgb.shape), 0, 255))


def _spoiled(
    specimen: Specimen, random: Random, spoil: Callable[[NDArray[np.uint8]], NDArray[np.float64]]
) -> Recording:
    key = str(random.choice(list(specimen.pictures)))
    num, rate_hz = specimen.recording.num_frames, specimen.recording.rate_hz
    start = int(random.integers(0, max(1, num - round(1.2 * rate_hz))))
    span = [(0, num), (start, num), (start, start + round(1.2 * rate_hz))][int(random.integers(3))]
    pictures = [
        (frame, spoil(rgb).astype(np.uint8) if span[0] <= frame < span[1] else rgb)
        for frame, rgb in specimen.pictures[key]
    ]
    return _with_pictures(specimen, key, pictures)


def duplicate_episode(specimen: Specimen, other: Specimen, random: Random) -> Recording:
    """Another episode once more: as it is, cut at both ends, or played again with noise of half a thousandth."""
    columns = other.columns
    kind = int(random.integers(3))
    if kind == 1:
        num = other.recording.num_frames
        cut = slice(int(random.uniform(0, 0.2) * num), num - int(random.uniform(0, 0.2) * num))
        columns = {key: values[cut] for key, values in columns.items()}
    elif kind == 2:
        for key, values in columns.items():
            if key in (STATE, ACTION):
                noise = random.normal(size=values.shape) * 5e-4 * other.usual.ranges[key]
                columns[key] = (values + noise).astype(values.dtype)
    return replace(specimen.recording, columns=columns, cameras={}, stamps_ns={})


FAULTS: dict[Check, Fault] = {
    "not_finite": not_finite,
    "jump": jump,
    "stuck_joint": stuck_joint,
    "static_episode": static_episode,
    "action_lag": action_lag,
    "dropped_frames": dropped_frames,
    "length_outlier": length_outlier,
    "frozen_camera": frozen_camera,
    "black_camera": black_camera,
    "washed_out_camera": washed_out_camera,
}
