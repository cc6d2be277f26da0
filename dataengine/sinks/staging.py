"""What a staged episode is on disk: one marker file, `<hash of its name>.staged`, that holds its columns and names a
folder of pictures beside it.

A marker is written last and replaced in one step, and a folder is never renamed, reused or removed: a worker that
outlives a killed run can add its own and put its own marker there, but never pull pictures away from under a reader.
A marker holds everything a commit needs, so that no pixel and no table crosses the object store.
"""

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, PlainSerializer, PlainValidator, ValidationError

from dataengine.sinks.staged_columns import Columns, read_columns, read_head
from dataengine.sinks.video_encoding import VideoEncoding
from dataengine.stats import Stats
from schemas.episodes import StreamSkew
from schemas.errors import ArtifactError

MARKER = ".staged"
NO_STAMP = -1  # in a stamp column of an episode that has no stamps of its own
_FROZEN = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True, slots=True, kw_only=True)
class StageVideos:
    """Stage for the LeRobot sink: one mp4 per camera."""

    root: Path  # made by whoever runs the job, never by a worker
    encoding: VideoEncoding
    encoder_threads: int | None  # 1 when several workers share the machine
    boot: str | None = None  # of the machine that runs the job; see StagedEpisode.boot


@dataclass(frozen=True, slots=True, kw_only=True)
class StageFrames:
    """Stage for the frame store: all JPEGs of a camera back to back, and their lengths."""

    root: Path
    frame_size: tuple[int, int] | None  # (width, height)
    quality: int
    boot: str | None = None


type StageJob = StageVideos | StageFrames


def _packed(rows: Sequence[Sequence[int]]) -> tuple[array[int], ...]:
    try:
        return tuple(array("Q", row) for row in rows)
    except (TypeError, OverflowError) as error:
        raise ValueError(f"is no histogram ({error})") from None


# 8 bytes a bin: as Python numbers a commit held 70 kB for an episode of two cameras.
Histogram = Annotated[
    tuple[Sequence[int], ...], PlainValidator(_packed), PlainSerializer(lambda rows: [list(row) for row in rows])
]


class StagedVideo(BaseModel):
    """A staged mp4, or the source's own one when it is to be copied."""

    model_config = _FROZEN
    path: Path  # relative to the episode's folder, or the source's own file
    copied: bool
    codec: str
    pix_fmt: str
    parameters: str
    delay: int
    num_bytes: int
    packets: str
    histogram: Histogram  # one row per channel: 256 values, or 4096 depth codes
    num_sampled: int  # pictures in the histogram
    exact: bool = False  # every pixel of every picture was counted
    first: int = 0  # pictures of the file before the episode
    file_stat: tuple[int, int, int] | None = None  # while the file has these, it is the one that was read
    depth_unit: str | None = None  # "mm" | "m" of a depth camera: what its statistics are in
    num_beyond: int = 0  # depth pixels farther than the format reaches, stored as the farthest


class PlannedRows(BaseModel):
    """The rows of a store that workers filled: see `ShardPlan`."""

    model_config = _FROZEN
    folder: str  # of the plan, in the staging root
    first: int
    num_rows: int  # of the whole store


class StagedFrames(BaseModel):
    """Where the pictures of one camera lie, and how they must be read."""

    model_config = _FROZEN
    width: int
    height: int
    channel_order: str
    orientation: str
    copied: bool  # the source's own bytes
    subsampling: str | None  # of what was encoded here: "444" or "420"
    encoding: str = "jpeg"  # "zstd": raw little-endian depth, compressed without loss
    dtype: str = "uint8"  # of depth "uint16" or "float32"
    source: Path | None = None  # the raw file in which the JPEGs lie, where they are not staged but copied from there
    file_stat: tuple[int, int, int] | None = None  # of that file
    planned: PlannedRows | None = None  # where the same pictures lie as well


class StagedCamera(BaseModel):
    """One camera of one episode."""

    model_config = _FROZEN
    width: int
    height: int
    encoding: str
    channel_order: str
    orientation: str
    content_kind: str  # "packets" | "jpegs" | "pixels" | "depths": what `content` is the hash of
    content: str
    depth_unit_m: float | None = None  # of a depth camera: metres per stored unit
    video: StagedVideo | None = None
    frames: StagedFrames | None = None


class StagedEpisode(BaseModel):
    """Everything about one staged episode but its bytes."""

    model_config = _FROZEN
    name: str
    folder: Path  # in the marker relative to the staging root; absolute once loaded; not there without cameras
    stamp: str  # sizes and dates of the raw files before they were read
    num_frames: int
    meta: dict[str, str]
    columns: dict[str, str]  # feature -> hash of dtype, shape and bytes
    column_types: dict[str, tuple[str, int]]  # feature -> (numpy dtype name, dims), in order
    stamps_ns: dict[str, str]
    imported: dict[str, tuple[str, ...]]
    cameras: dict[str, StagedCamera]
    skew: dict[str, StreamSkew] = {}  # of sources that align streams: how each fitted the rows

    # Set where nothing was encoded and the disk was not waited for: after a restart of the machine such an episode may
    # be damaged and is staged again. Waiting took half of the time of an episode without pictures.
    boot: str | None = None

    @property
    def episode_id(self) -> str:
        """The id that every artifact uses."""
        return self.meta["episode_id"]

    def layout(self) -> dict[str, str]:
        """What must be the same in all episodes of one dataset, in words."""
        columns = {key: f"{dims} x {dtype}" for key, (dtype, dims) in self.column_types.items()}
        return columns | {
            f"camera {key}": f"{row.width}x{row.height} {row.channel_order} {row.orientation}"
            + (f" depth of {row.depth_unit_m} m" if row.depth_unit_m else "")
            for key, row in self.cameras.items()
        }

    def content(self) -> dict[str, Any]:
        """What the fingerprint covers: the logical content as the source holds it, not what an encoder made of it."""
        return {
            "meta": self.meta,
            "columns": self.columns,
            "stamps_ns": self.stamps_ns,
            "imported": self.imported,
            "cameras": {
                name: camera.model_dump(mode="json", exclude={"video", "frames"}, exclude_none=True)
                for name, camera in self.cameras.items()
            },
        }


@cache
def boot_id() -> str | None:
    """What a restart of this machine changes; None where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def marker_of(root: Path, name: str) -> Path:
    """Where the marker of the source's episode `name` is; names may hold slashes, files may not."""
    return root / f"{hashlib.sha256(name.encode()).hexdigest()[:20]}{MARKER}"


def load_staged(root: Path, name: str) -> StagedEpisode | None:
    """A whole staged episode, paths made absolute, or None when it has to be staged (again)."""
    found = _load(root, name)
    return found if isinstance(found, StagedEpisode) else None


def why_absent(root: Path, name: str) -> str | None:
    """Why `load_staged` gives None, as the end of a sentence; None when it does not."""
    found = _load(root, name)
    return found if isinstance(found, str) else None


def _load(root: Path, name: str) -> StagedEpisode | str:
    try:
        staged = StagedEpisode.model_validate_json(read_head(marker_of(root, name)))
    except FileNotFoundError:
        return "its staged files are gone"
    except ValidationError:
        return "its staged files were written by another version of this program (install one version everywhere)"
    if staged.boot is not None and staged.boot != boot_id():
        return "the machine was restarted before it was safe on the disk"
    folder = root / staged.folder
    if staged.cameras and not folder.is_dir():
        return "its staged files are gone"
    cameras: dict[str, StagedCamera] = {}
    for key, camera in staged.cameras.items():
        if camera.video is not None:
            path = folder / camera.video.path  # a copied one is absolute and stays so
            if not path.is_file():
                return (
                    f"the video {path.name} that was to be copied is gone"
                    if camera.video.copied
                    else f"{path.name} is gone"
                )
            camera = camera.model_copy(update={"video": camera.video.model_copy(update={"path": path})})
        if camera.frames is not None and camera.frames.source is not None and not camera.frames.source.is_file():
            return f"the raw file {camera.frames.source.name} that was to be copied is gone"
        cameras[key] = camera
    return staged.model_copy(update={"folder": folder, "cameras": cameras})


def unwritable(name: str, fault: str) -> ArtifactError:
    """The sentence for a place that can not take what is staged of an episode."""
    return ArtifactError(
        f"the draft can not be written while {name} is staged ({fault}). Mend that and run the same command again: "
        f"what is staged is kept."
    )


def stamp_keys(episodes: Sequence[StagedEpisode]) -> tuple[str, ...]:
    """Columns of original stamps that any of the episodes has."""
    return tuple(dict.fromkeys(key for episode in episodes for key in episode.stamps_ns))


def load_columns(staged: StagedEpisode) -> tuple[Columns, dict[str, Stats]]:
    """Columns of a staged episode and their statistics: features as (rows, dims), then its own stamps as (rows,)."""
    rows = staged.num_frames
    shapes = {
        key: (np.dtype(dtype).newbyteorder("<"), (rows, dims)) for key, (dtype, dims) in staged.column_types.items()
    }
    stamps = {key: (np.dtype("<i8"), (rows,)) for key in staged.stamps_ns}
    again = f"{staged.name} was staged again by another run. Run the same command again."
    try:
        head, columns, stats = read_columns(marker_of(staged.folder.parent, staged.name), {**shapes, **stamps})
    except (ValueError, TypeError):
        raise ArtifactError(again) from None
    if staged.folder.name.encode() not in head:  # by now that of a worker that outlived a killed run: the same, or not
        other = StagedEpisode.model_validate_json(head)
        # Their order is that of the bytes.
        if [*other.columns.items(), *other.stamps_ns.items()] != [*staged.columns.items(), *staged.stamps_ns.items()]:
            raise ArtifactError(again)
    return columns, stats
