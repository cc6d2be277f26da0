"""An episode: one recorded demonstration, as read from raw data and before it is written anywhere.

Arrays are rows x dimensions at the rig's rate. Pixels are never held for a whole episode: a camera is a stream.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from schemas.errors import EpisodeError


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeMeta:
    """Who, what, where: filters and splits need it."""

    episode_id: str  # readable name + hash of the raw content; the same in every artifact
    raw_name: str  # file or position in the raw data, relative, for people
    task: str
    operator: str = "unknown"
    session: str = "unknown"
    station: str = "unknown"
    scene: str = "unknown"
    outcome: str = "unknown"
    licence: str = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraSpec:
    """How the pixels of one camera are stored and must be read."""

    name: str
    height: int
    width: int
    encoding: str  # "jpeg" | "raw" | a video codec name such as "av1"
    channel_order: str  # "rgb" | "bgr"
    orientation: str = "upright"  # "upright" | "rotated_180" | "flipped_vertical"
    depth_unit_m: float | None = None  # of a depth camera: metres per stored unit; None = colour


class JpegStream(Protocol):
    """A camera stored as one JPEG per row; bytes are passed through untouched."""

    @property
    def spec(self) -> CameraSpec: ...
    def __len__(self) -> int: ...
    def jpegs(self) -> Iterator[bytes]: ...


class ArrayStream(Protocol):
    """A camera stored as arrays; yields (height, width, 3) uint8 in the declared channel order."""

    @property
    def spec(self) -> CameraSpec: ...
    def __len__(self) -> int: ...
    def arrays(self) -> Iterator[NDArray[np.uint8]]: ...


class DepthStream(Protocol):
    """A depth camera; yields (height, width) uint16 or float32, metres = value * spec.depth_unit_m, 0 = unmeasured."""

    @property
    def spec(self) -> CameraSpec: ...
    def __len__(self) -> int: ...
    def depths(self) -> Iterator[NDArray[np.uint16] | NDArray[np.float32]]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoFile:
    """A camera stored in a video file, whole or from picture `first` on; packets are copied, never re-encoded."""

    spec: CameraSpec
    path: Path
    num_frames: int
    first: int = 0  # pictures of the file, in presentation order, before this episode
    whole: bool = True  # False: the file holds other episodes too

    def __len__(self) -> int:
        return self.num_frames


type CameraStream = JpegStream | ArrayStream | DepthStream | VideoFile


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSkew:
    """How one stream fitted the rows: ages of the values taken, and messages no row or more than one row took."""

    num_messages: int
    num_dropped: int  # messages between the first and the last row that no row took
    num_repeated: int  # rows that took the same message as the row before
    p50_s: float
    p95_s: float
    max_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One demonstration: low-dimensional columns in memory, cameras as streams."""

    meta: EpisodeMeta
    rate_hz: int
    columns: dict[str, NDArray[np.generic]]  # feature -> (rows, dims)
    cameras: dict[str, CameraStream]
    stamps_ns: dict[str, NDArray[np.int64]] = field(default_factory=dict)  # stream -> original stamps, if recorded
    imported: dict[str, tuple[str, ...]] = field(default_factory=dict)  # annotations found in the raw data
    skew: dict[str, StreamSkew] = field(default_factory=dict)  # of sources that align streams: stream -> how it fitted

    def __post_init__(self) -> None:
        if not self.columns:
            raise EpisodeError(f"{self.meta.raw_name}: no low-dimensional column. Check features: in the rig.")
        rows = {name: len(column) for name, column in self.columns.items()}
        if len(set(rows.values())) != 1:
            raise EpisodeError(
                f"{self.meta.raw_name}: columns differ in length ({rows}). Record them again or trim the raw file."
            )
        for name, camera in self.cameras.items():
            if len(camera) != self.num_frames:
                raise EpisodeError(
                    f"{self.meta.raw_name}: camera '{name}' has {len(camera)} frames for {self.num_frames} rows. "
                    "Record it again or drop the episode."
                )

    @property
    def num_frames(self) -> int:
        """Rows of every column and frames of every camera."""
        return len(next(iter(self.columns.values())))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """An episode that was left out, and why."""

    episode: str
    reason: str
