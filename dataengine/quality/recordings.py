"""What the quality checks read: numbers, stamps and thinned pictures of an episode, converted or raw."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dataengine.episode_set import EpisodeSet
from dataengine.frame_store import FrameStore
from dataengine.quality.likeness import ACTION, STATE
from dataengine.quality.thumbnails import Thumbnail, thumbnail, video_thumbnails
from dataengine.sinks.pictures import pictures
from dataengine.sources import Source
from schemas.episodes import CameraStream, StreamSkew, VideoFile
from schemas.rigs import Rig

SAMPLES_HZ = 5  # pictures looked at per second: a freeze of one second is five of them

__all__ = [
    "ACTION",
    "SAMPLES_HZ",
    "STATE",
    "ArtifactRecordings",
    "Recording",
    "Recordings",
    "SourceRecordings",
    "Thumbnails",
]

type Thumbnails = Callable[[], Iterator[Thumbnail]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recording:
    """One episode. `cameras` give their pictures anew at each call, thinned in time and size."""

    episode_id: str
    rate_hz: int
    columns: Mapping[str, NDArray[Any]]  # feature -> (rows, dims)
    cameras: Mapping[str, Thumbnails] = field(default_factory=dict)
    stamps_ns: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    skew: Mapping[str, StreamSkew] = field(default_factory=dict)
    skew_frames: int | None = None  # rows that `skew` counts, where they are more: those of the untrimmed episode

    @property
    def num_frames(self) -> int:
        """Rows of every column."""
        return len(next(iter(self.columns.values())))


class Recordings(Protocol):
    """Episodes to look at. Picklable: workers read on their own copy."""

    @property
    def rig(self) -> Rig: ...
    def names(self) -> list[str]: ...
    def read(self, name: str) -> Recording: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactRecordings:
    """Converted episodes: pictures from the frame store where there is one, else from the video."""

    rig: Rig
    episodes: EpisodeSet | None
    store: FrameStore | None

    def names(self) -> list[str]:
        """Episode ids."""
        if self.episodes is not None:
            return list(self.episodes.ids())
        assert self.store is not None
        return list(self.store.episode_ids)

    def read(self, name: str) -> Recording:
        """One episode by its id."""
        rate_hz = self.rig.rate_hz
        step = max(1, rate_hz // SAMPLES_HZ)
        skew: Mapping[str, StreamSkew] = {}
        skew_frames: int | None = None
        if self.episodes is not None:
            skew, skew_frames = self.episodes.skew(name), self.episodes.row(name).source_frames
            columns: Mapping[str, NDArray[Any]] = self.episodes.columns(name)
            stamps = self.episodes.recorded_stamps_ns(name)
        else:
            columns, stamps = self._stored(name)
        cameras: dict[str, Thumbnails] = {}
        if self.store is not None:
            cameras = {key: partial(_stored_thumbnails, self.store, name, key, step) for key in self.store.cameras}
        elif self.episodes is not None:
            num_frames = self.episodes.row(name).num_frames
            for key in self.episodes.cameras:
                path, start_s, _ = self.episodes.video_clip(name, key)
                first = round(start_s * rate_hz)
                cameras[key] = partial(video_thumbnails, path, rate_hz, first, num_frames, step)
        return Recording(
            episode_id=name,
            rate_hz=rate_hz,
            columns=columns,
            cameras=cameras,
            stamps_ns=stamps,
            skew=skew,
            skew_frames=skew_frames,
        )

    def _stored(self, name: str) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[np.int64]]]:
        assert self.store is not None
        start, stop = self.store.span(name)
        columns: dict[str, NDArray[Any]] = {}
        stamps: dict[str, NDArray[np.int64]] = {}
        for key in self.store.columns:
            values = self.store.column(key, start, stop)
            if key.startswith("stamp_ns."):
                if values[0] >= 0:  # -1: this episode has none of its own
                    stamps[key.removeprefix("stamp_ns.")] = values.reshape(-1)
            else:
                columns[key] = values.reshape(len(values), -1)
        return columns, stamps


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRecordings:
    """Raw episodes, as a source reads them."""

    source: Source

    @property
    def rig(self) -> Rig:
        """The source's."""
        return self.source.rig

    def names(self) -> list[str]:
        """Raw names."""
        return self.source.names()

    def read(self, name: str) -> Recording:
        """One episode. Raises EpisodeError for a bad one."""
        episode = self.source.read(name)
        step = max(1, episode.rate_hz // SAMPLES_HZ)
        colour = {key: stream for key, stream in episode.cameras.items() if stream.spec.depth_unit_m is None}
        return Recording(
            episode_id=episode.meta.episode_id,
            rate_hz=episode.rate_hz,
            columns=episode.columns,
            cameras={key: partial(_source_thumbnails, stream, step) for key, stream in colour.items()},
            stamps_ns=episode.stamps_ns,
            skew=episode.skew,
        )


def _stored_thumbnails(store: FrameStore, episode_id: str, camera: str, step: int) -> Iterator[Thumbnail]:
    start, stop = store.span(episode_id)
    for row in range(start, stop, step):
        yield thumbnail(row - start, store.frame(camera, row))


def _source_thumbnails(stream: CameraStream, step: int) -> Iterator[Thumbnail]:
    for index, picture in enumerate(pictures(stream)):
        if index % step == 0:
            yield thumbnail(index, picture.rgb(), encoded=isinstance(stream, VideoFile))
