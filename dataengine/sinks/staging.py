"""One episode, read once by one worker, staged for every sink that wants it.

Each sink has its own folder per episode; `episode.json`, written last, means the folder is whole. It holds everything a
commit needs, so that no pixel and no table crosses the object store and a killed run goes on where it stopped.
"""

import hashlib
import os
import shutil
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from dataengine.artifacts import write_atomic
from dataengine.checks import check_episode
from dataengine.sinks.packets import PacketScan, key_pictures, scan_video
from dataengine.sinks.pictures import Picture, check_jpeg, encode_jpeg, is_upright_rgb, pictures, resized, upright_rgb
from dataengine.sinks.video_encoding import VideoEncoding, VideoWriter, quiet_codecs
from dataengine.stats import PictureHistogram, sample_indices
from schemas.episodes import CameraSpec, CameraStream, Episode, VideoFile
from schemas.errors import EpisodeError
from schemas.rigs import Rig

MARKER = "episode.json"
COLUMNS = "columns.npz"
NO_STAMP = -1  # in a stamp column of an episode that has no stamps of its own
_FROZEN = ConfigDict(frozen=True, extra="forbid")
_KEY_PICTURES = 100  # of a copied video, decoded for statistics


@dataclass(frozen=True, slots=True, kw_only=True)
class StageVideos:
    """Stage for the LeRobot sink: one mp4 per camera."""

    root: Path
    encoding: VideoEncoding
    encoder_threads: int | None  # 1 when several workers share the machine


@dataclass(frozen=True, slots=True, kw_only=True)
class StageFrames:
    """Stage for the frame store: all JPEGs of a camera back to back, and their lengths."""

    root: Path
    frame_size: tuple[int, int] | None  # (width, height)
    quality: int


type StageJob = StageVideos | StageFrames


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
    histogram: tuple[tuple[int, ...], ...]
    num_sampled: int


class StagedFrames(BaseModel):
    """Where the JPEGs of one camera lie, and how they must be read."""

    model_config = _FROZEN
    width: int
    height: int
    channel_order: str
    orientation: str
    copied: bool  # the source's own bytes
    subsampling: str | None  # of what was encoded here: "444" or "420"


class StagedCamera(BaseModel):
    """One camera of one episode."""

    model_config = _FROZEN
    width: int
    height: int
    encoding: str
    channel_order: str
    orientation: str
    content_kind: str  # "packets" | "jpegs" | "pixels": what `content` is the hash of
    content: str
    video: StagedVideo | None = None
    frames: StagedFrames | None = None


class StagedEpisode(BaseModel):
    """Everything about one staged episode but its bytes."""

    model_config = _FROZEN
    name: str
    num_frames: int
    meta: dict[str, str]
    columns: dict[str, str]  # feature -> hash of dtype, shape and bytes
    column_types: dict[str, tuple[str, int]]  # feature -> (numpy dtype name, dims), in order
    stamps_ns: dict[str, str]
    imported: dict[str, tuple[str, ...]]
    cameras: dict[str, StagedCamera]

    @property
    def episode_id(self) -> str:
        """The id that every artifact uses."""
        return self.meta["episode_id"]

    def layout(self) -> dict[str, str]:
        """What must be the same in all episodes of one dataset, in words."""
        columns = {key: f"{dims} x {dtype}" for key, (dtype, dims) in self.column_types.items()}
        return columns | {
            f"camera {key}": f"{row.width}x{row.height} {row.channel_order} {row.orientation}"
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
                name: camera.model_dump(mode="json", exclude={"video", "frames"})
                for name, camera in self.cameras.items()
            },
        }


def folder_of(root: Path, name: str) -> Path:
    """Where the episode `name` of the source is staged; names may hold slashes, folders may not."""
    return root / hashlib.sha256(name.encode()).hexdigest()[:20]


def load_staged(root: Path, name: str) -> StagedEpisode | None:
    """A whole staged episode, video paths made absolute, or None when it has to be staged (again)."""
    folder = folder_of(root, name)
    try:
        staged = StagedEpisode.model_validate_json((folder / MARKER).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    cameras: dict[str, StagedCamera] = {}
    for key, camera in staged.cameras.items():
        if camera.video is not None:
            path = folder / camera.video.path  # a copied one is absolute and stays so
            if not path.is_file():
                return None
            camera = camera.model_copy(update={"video": camera.video.model_copy(update={"path": path})})
        cameras[key] = camera
    return staged.model_copy(update={"cameras": cameras})


def stamp_keys(episodes: Sequence[StagedEpisode]) -> tuple[str, ...]:
    """Columns of original stamps that any of the episodes has."""
    return tuple(dict.fromkeys(key for episode in episodes for key in episode.stamps_ns))


def load_columns(root: Path, staged: StagedEpisode, stamps: Sequence[str]) -> dict[str, NDArray[np.generic]]:
    """Columns of a staged episode: features as (rows, dims), then `stamps` as (rows,), -1 where none was recorded."""
    with np.load(folder_of(root, staged.name) / COLUMNS) as arrays:
        columns = {key: arrays[key] for key in staged.columns}
        absent = np.full(staged.num_frames, NO_STAMP, dtype=np.int64)
        return columns | {key: arrays[key] if key in staged.stamps_ns else absent for key in stamps}


def hash_array(array: NDArray[np.generic]) -> str:
    """Hash of dtype, shape and little-endian bytes."""
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    head = f"{little.dtype.str} {little.shape} ".encode()
    return hashlib.sha256(head + little.tobytes()).hexdigest()


def stage_episode(episode: Episode, name: str, rig: Rig, jobs: tuple[StageJob, ...]) -> None:
    """Write `episode` for every job. Raises EpisodeError when it is bad; RigError when the rig is."""
    quiet_codecs()
    check_episode(episode, rig)
    # A private folder, renamed when whole: a worker that outlives a killed run must not write into a new run's folder.
    folders = {job: job.root / f".{folder_of(job.root, name).name}.{uuid.uuid4().hex}" for job in jobs}
    try:
        _write_staged(episode, name, folders)
    finally:
        for folder in folders.values():
            shutil.rmtree(folder, ignore_errors=True)


def _write_staged(episode: Episode, name: str, folders: dict[StageJob, Path]) -> None:
    for folder in folders.values():
        folder.mkdir(parents=True)
    cameras = {key: _stage_camera(episode, key, stream, folders) for key, stream in episode.cameras.items()}
    columns = {key: np.ascontiguousarray(column) for key, column in episode.columns.items()}
    stamps = {f"stamp_ns.{key}": np.asarray(value, dtype=np.int64) for key, value in episode.stamps_ns.items()}
    for job, folder in folders.items():
        np.savez(folder / COLUMNS, allow_pickle=False, **columns, **stamps)
        staged = StagedEpisode(
            name=name,
            num_frames=episode.num_frames,
            meta=asdict(episode.meta),
            columns={key: hash_array(column) for key, column in columns.items()},
            column_types={key: (value.dtype.name, value.shape[1]) for key, value in columns.items()},
            stamps_ns={key: hash_array(value) for key, value in stamps.items()},
            imported=episode.imported,
            cameras={key: row.model_copy(update=_without_other_sink(job)) for key, row in cameras.items()},
        )
        for path in folder.iterdir():
            _sync(path)  # the marker must not survive a power cut that its files do not
        write_atomic(folder / MARKER, staged.model_dump_json().encode())
        final = folder_of(job.root, name)
        if load_staged(job.root, name) is None:
            shutil.rmtree(final, ignore_errors=True)
            os.rename(folder, final)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _without_other_sink(job: StageJob) -> dict[str, None]:
    return {"frames": None} if isinstance(job, StageVideos) else {"video": None}


def _stage_camera(episode: Episode, key: str, stream: CameraStream, folders: dict[StageJob, Path]) -> StagedCamera:
    spec = stream.spec
    video_job = next((job for job in folders if isinstance(job, StageVideos)), None)
    frame_job = next((job for job in folders if isinstance(job, StageFrames)), None)
    scan = scan_video(stream.path, rate_hz=episode.rate_hz) if isinstance(stream, VideoFile) else None
    if scan is not None and scan.num_frames != episode.num_frames:
        raise EpisodeError(_wrong_count(episode, key, scan.num_frames))
    video: StagedVideo | None = None
    if video_job is not None and isinstance(stream, VideoFile) and scan is not None and is_upright_rgb(spec):
        video, video_job = _copied_video(stream, scan), None
    frames: StagedFrames | None = None
    digest = hashlib.sha256()
    if video_job is not None or frame_job is not None or scan is None:
        with ExitStack() as stack:
            writer = stack.enter_context(_video_writer(video_job, folders, episode, key, spec)) if video_job else None
            blob = stack.enter_context(FrameBlob(folders[frame_job], key, spec, frame_job)) if frame_job else None
            histogram = _walk(episode, key, stream, writer, blob, digest)
        frames = blob.row(copied=spec.encoding == "jpeg") if blob else None
        if video_job is not None:
            video = _encoded_video(folders[video_job] / f"{key}.mp4", episode, key, histogram)
    return StagedCamera(
        width=spec.width,
        height=spec.height,
        encoding=spec.encoding,
        channel_order=spec.channel_order,
        orientation=spec.orientation,
        content_kind="packets" if scan else "jpegs" if spec.encoding == "jpeg" else "pixels",
        content=scan.content if scan else digest.hexdigest(),
        video=video,
        frames=frames,
    )


def _wrong_count(episode: Episode, key: str, got: int) -> str:
    return (
        f"{episode.meta.raw_name}: camera '{key}' has {got} frames for {episode.num_frames} rows. "
        f"Record it again or drop the episode."
    )


def _video_writer(
    job: StageVideos, folders: dict[StageJob, Path], episode: Episode, key: str, spec: CameraSpec
) -> VideoWriter:
    return VideoWriter(
        folders[job] / f"{key}.mp4",
        width=spec.width,
        height=spec.height,
        rate_hz=episode.rate_hz,
        encoding=job.encoding,
        threads=job.encoder_threads,
    )


def _walk(
    episode: Episode,
    key: str,
    stream: CameraStream,
    writer: VideoWriter | None,
    blob: "FrameBlob | None",
    digest: Any,  # noqa: ANN401
) -> PictureHistogram:
    """Give every picture of a stream to whoever wants it, hash it, and count."""
    histogram, num = PictureHistogram(), 0
    sampled = set(sample_indices(episode.num_frames).tolist()) if writer else set()
    for picture in pictures(stream):
        if picture.jpeg is not None:
            check_jpeg(picture.jpeg, stream.spec)
            digest.update(hashlib.sha256(picture.jpeg).digest())
        elif not isinstance(stream, VideoFile):  # a video's content is its packets
            assert picture.array is not None
            digest.update(np.ascontiguousarray(picture.array))
        if writer:
            writer.add(picture.rgb())
            if num in sampled:
                histogram.add(picture.rgb())
        if blob:
            blob.add(picture)
        num += 1
    if num != episode.num_frames:
        raise EpisodeError(_wrong_count(episode, key, num))
    return histogram


def _encoded_video(path: Path, episode: Episode, key: str, histogram: PictureHistogram) -> StagedVideo:
    scan = scan_video(path, rate_hz=episode.rate_hz)
    if scan.num_frames != episode.num_frames:  # an encoder that drops must never go unnoticed
        raise EpisodeError(_wrong_count(episode, key, scan.num_frames))
    return _staged_video(Path(path.name), scan, histogram, copied=False)


def _copied_video(stream: VideoFile, scan: PacketScan) -> StagedVideo:
    histogram = PictureHistogram()
    for array in key_pictures(stream.path, scan, _KEY_PICTURES):
        histogram.add(upright_rgb(array, stream.spec.channel_order, stream.spec.orientation))
    if not histogram.num_pictures:
        raise EpisodeError(f"{stream.path.name}: no keyframe decodes. Export the video again.")
    return _staged_video(stream.path.resolve(), scan, histogram, copied=True)


def _staged_video(path: Path, scan: PacketScan, histogram: PictureHistogram, *, copied: bool) -> StagedVideo:
    return StagedVideo(
        path=path,
        copied=copied,
        codec=scan.codec,
        pix_fmt=scan.pix_fmt,
        parameters=scan.parameters,
        delay=scan.delay,
        num_bytes=scan.num_bytes,
        packets=scan.content,
        histogram=tuple(tuple(row) for row in histogram.counts.tolist()),
        num_sampled=histogram.num_pictures,
    )


class FrameBlob:
    """All JPEGs of one camera of one episode, back to back in `<camera>.jpegs`, lengths in `<camera>.npy`."""

    def __init__(self, folder: Path, key: str, spec: CameraSpec, job: StageFrames) -> None:
        self._path = folder / f"{key}.jpegs"
        self._job = job
        self._spec = spec
        self._lengths: list[int] = []
        self._file = self._path.open("wb")

    @property
    def _passes_through(self) -> bool:
        return self._spec.encoding == "jpeg" and self._job.frame_size is None

    @property
    def _subsampling(self) -> str:
        # 4:4:4 keeps thin coloured writing, at about a quarter more bytes; video has lost it already
        return "444" if self._spec.encoding in ("raw", "jpeg") else "420"

    def add(self, picture: Picture) -> None:
        """Append the source's bytes where they may stay, freshly encoded upright RGB otherwise."""
        if self._passes_through and picture.jpeg is not None:
            jpeg = picture.jpeg
        else:
            width, height = self._job.frame_size or (self._spec.width, self._spec.height)
            rgb = resized(picture.rgb(), width, height)
            jpeg = encode_jpeg(rgb, quality=self._job.quality, subsampling=self._subsampling)
        self._lengths.append(len(jpeg))
        self._file.write(jpeg)

    def row(self, *, copied: bool) -> StagedFrames:
        """What was written."""
        copied = copied and self._passes_through
        width, height = self._job.frame_size or (self._spec.width, self._spec.height)
        return StagedFrames(
            width=width,
            height=height,
            channel_order=self._spec.channel_order if copied else "rgb",
            orientation=self._spec.orientation if copied else "upright",
            copied=copied,
            subsampling=None if copied else self._subsampling,
        )

    def __enter__(self) -> "FrameBlob":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        np.save(self._path.with_suffix(".npy"), np.asarray(self._lengths, dtype=np.int64))
