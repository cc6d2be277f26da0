"""Episodes whose cameras are arrays, JPEGs or depth in memory: what a sink gets, without any file format."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dataengine.sinks import lerobot_v3, zarr_frames
from dataengine.sinks.staging import StagedEpisode, StageFrames, StageJob, StageVideos, load_staged
from dataengine.sinks.staging_writer import stage_episode
from dataengine.sinks.video_encoding import VideoEncoding
from schemas.episodes import CameraSpec, CameraStream, Episode, EpisodeMeta
from schemas.rigs import Camera, Feature, Rig


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Arrays:
    """A colour camera in memory."""

    spec: CameraSpec
    frames: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.frames)

    def arrays(self) -> Iterator[NDArray[np.uint8]]:
        yield from self.frames


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Jpegs:
    """A camera of JPEG rows in memory."""

    spec: CameraSpec
    rows: tuple[bytes, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def jpegs(self) -> Iterator[bytes]:
        yield from self.rows


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Depths:
    """A depth camera in memory."""

    spec: CameraSpec
    frames: NDArray[np.uint16] | NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.frames)

    def depths(self) -> Iterator[NDArray[np.uint16] | NDArray[np.float32]]:
        yield from self.frames


def colour(name: str, frames: NDArray[np.uint8], *, orientation: str = "upright", order: str = "rgb") -> Arrays:
    """A camera of (rows, height, width, 3) arrays."""
    height, width = frames.shape[1:3]
    spec = CameraSpec(
        name=name, height=height, width=width, encoding="raw", channel_order=order, orientation=orientation
    )
    return Arrays(spec=spec, frames=frames)


def depth(
    name: str, frames: NDArray[np.uint16] | NDArray[np.float32], unit_m: float, *, orientation: str = "upright"
) -> Depths:
    """A depth camera of (rows, height, width) arrays."""
    spec = CameraSpec(
        name=name,
        height=frames.shape[1],
        width=frames.shape[2],
        encoding="raw",
        channel_order="rgb",
        orientation=orientation,
        depth_unit_m=unit_m,
    )
    return Depths(spec=spec, frames=frames)


def episode(number: int, cameras: dict[str, CameraStream], *, num_frames: int, rate_hz: int = 30) -> Episode:
    """One episode with a state of two dimensions."""
    state = np.arange(2 * num_frames, dtype=np.float32).reshape(num_frames, 2) + 1000 * number
    meta = EpisodeMeta(episode_id=f"episode_{number}-{number:012x}", raw_name=f"episode_{number}", task="Look.")
    return Episode(meta=meta, rate_hz=rate_hz, columns={"observation.state": state}, cameras=cameras)


def rig_of(first: Episode) -> Rig:
    """A rig that declares what the episode has."""
    return Rig(
        name="memory",
        source="aloha_hdf5",
        robot_type="arm",
        rate_hz=first.rate_hz,
        features={key: Feature(key=key) for key in first.columns},
        cameras={
            key: Camera(key=key, channel_order="rgb", depth_unit_m=stream.spec.depth_unit_m)
            for key, stream in first.cameras.items()
        },
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """Where a dataset and a frame store were written, and what was staged for them."""

    dataset: Path
    store: Path
    staged: tuple[StagedEpisode, ...]


def write(
    folder: Path, episodes: Sequence[Episode], *, encoding: VideoEncoding | None = None, threads: int | None = None
) -> Written:
    """Stage `episodes` for both sinks, in this process, and commit them."""
    encoding, rig = encoding or VideoEncoding(), rig_of(episodes[0])
    videos = StageVideos(root=folder / "videos_staging", encoding=encoding, encoder_threads=threads)
    frames = StageFrames(root=folder / "frames_staging", frame_size=None, quality=90)
    jobs: tuple[StageJob, ...] = (videos, frames)
    for job in jobs:
        job.root.mkdir(parents=True)
    for each in episodes:
        stage_episode(each, each.meta.raw_name, rig, jobs, stamp="")
    staged = [[load_staged(job.root, each.meta.raw_name) for each in episodes] for job in jobs]
    rows = [[row for row in found if row is not None] for found in staged]
    dataset, store = folder / "dataset", folder / "store"
    lerobot_v3.commit(dataset, rows[0], rig, encoding)
    zarr_frames.commit(store, rows[1], rig, zarr_frames.frame_recipe(rig, None, 90))
    return Written(dataset=dataset, store=store, staged=tuple(rows[0]))
