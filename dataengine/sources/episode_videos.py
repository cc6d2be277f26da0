"""Videos beside a replay buffer: `videos/<episode>/<camera>.mp4`, one file per episode, recorded on a clock of its own.

A real robot of diffusion policy writes 30 pictures a second and 10 rows: row k takes the newest picture that is not
younger than the row, the video starting at row 0. (Its own reader picks the same ones.) Where pictures and rows match
one to one the file itself is handed on.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from schemas.episodes import CameraSpec, CameraStream, StreamSkew, VideoFile
from schemas.errors import EpisodeError, RigError

FOLDER = "videos"
_SLACK_S = 1e-4  # float noise between the clock of a video and of its rows


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SampledVideo:
    """The pictures of a video that rows take, in order; a picture may serve several rows."""

    spec: CameraSpec
    path: Path
    picks: NDArray[np.int64]  # rising

    def __len__(self) -> int:
        return len(self.picks)

    def arrays(self) -> Iterator[NDArray[np.uint8]]:
        """Each row's picture, (height, width, 3) RGB uint8. Raises EpisodeError when the video does not decode."""
        import av

        row = 0
        try:
            with av.open(str(self.path)) as container:
                container.streams.video[0].thread_type = "AUTO"
                for index, frame in enumerate(container.decode(container.streams.video[0])):
                    if row < len(self.picks) and index == self.picks[row]:
                        picture = frame.to_ndarray(format="rgb24")
                        while row < len(self.picks) and index == self.picks[row]:
                            yield picture
                            row += 1
        except av.error.FFmpegError as error:
            raise EpisodeError(f"{self.path.name}: the video does not decode ({error.strerror}).") from None


def camera_files(root: Path, index: int) -> dict[str, Path]:
    """Key (`videos/0`) -> file of the cameras recorded beside a buffer for one episode, in order."""
    folder = root.parent / FOLDER / str(index)
    return {f"{FOLDER}/{path.stem}": path for path in sorted(folder.glob("*.mp4"))}


def video_camera(
    name: str, path: Path, spec_of: CameraSpec, row_times_s: NDArray[np.float64], max_age_s: float
) -> tuple[CameraStream, StreamSkew | None]:
    """One camera of one episode; `row_times_s` are seconds since row 0, `spec_of` what the rig says about the camera.

    Raises EpisodeError for a video that does not reach over all rows, or has a gap: a row whose newest picture is older
    than `max_age_s`.
    """
    times, spec = _probe(name, path, spec_of)
    picks = np.searchsorted(times, row_times_s + _SLACK_S, side="right") - 1
    step = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
    if row_times_s[-1] > times[-1] + 2 * step + _SLACK_S:
        raise EpisodeError(
            f"{name}: video {path.name} ends at {times[-1] + step:.2f} s, the rows at {row_times_s[-1]:.2f} s. "
            f"Copy the video again or drop the episode."
        )
    ages = row_times_s - times[picks]
    if ages.max() > max_age_s + _SLACK_S:
        row = int(np.argmax(ages > max_age_s + _SLACK_S))
        raise EpisodeError(
            f"{name}: the newest picture of video {path.name} is {ages[row]:.3f} s old at row {row}, longer than "
            f"max_age {max_age_s:g} s. Drop the episode, or raise its max_age_s in the rig."
        )
    if len(times) == len(row_times_s) and np.array_equal(picks, np.arange(len(times))):
        return VideoFile(spec=spec, path=path, num_frames=len(times)), None
    return SampledVideo(spec=spec, path=path, picks=picks), StreamSkew(
        num_messages=len(times),
        num_dropped=len(times) - len(np.unique(picks)),  # those before the first row and after the last one too
        num_repeated=int((np.diff(picks) == 0).sum()),
        p50_s=float(np.percentile(ages, 50)),
        p95_s=float(np.percentile(ages, 95)),
        max_s=float(ages.max()),
    )


def _probe(name: str, path: Path, stated: CameraSpec) -> tuple[NDArray[np.float64], CameraSpec]:
    """Seconds of each picture since the first one, told by packets, and the camera's true size and codec."""
    import av

    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise EpisodeError(f"{name}: {path.name} holds no video stream. Copy it again or drop the episode.")
            stream = container.streams.video[0]
            stamps = [packet.pts for packet in container.demux(stream) if packet.size and packet.pts is not None]
            context = stream.codec_context
            spec = CameraSpec(
                name=stated.name,
                height=context.height,
                width=context.width,
                encoding=str(context.codec.canonical_name),
                channel_order=stated.channel_order,
                orientation=stated.orientation,
            )
            base = float(stream.time_base)
    except av.error.FFmpegError:
        raise EpisodeError(f"{name}: {path.name} is not a readable video. Copy it again or drop the episode.") from None
    if not stamps:
        raise EpisodeError(f"{name}: {path.name} holds no picture. Copy it again or drop the episode.")
    times = np.sort(np.asarray(stamps, dtype=np.float64)) * base
    return times - times[0], spec


def check_rate(root_name: str, rate_hz: int, seconds: NDArray[np.float64]) -> None:
    """Raise RigError where recorded times step at another rate than the rig states."""
    steps = np.diff(seconds)
    if len(steps) and not 0.95 < float(np.median(steps)) * rate_hz < 1.05:
        raise RigError(
            f"{root_name}: data/timestamp steps by {float(np.median(steps)):.4f} s, but the rig says {rate_hz} Hz. "
            f"Correct rate_hz: in the rig."
        )
