"""Stages one episode, read once by one worker, for every sink that wants it."""

import hashlib
import os
import shutil
import uuid
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataengine.artifacts import write_atomic
from dataengine.checks import check_episode
from dataengine.sinks.frame_blob import FrameBlob
from dataengine.sinks.packets import PacketScan, key_pictures, scan_video
from dataengine.sinks.pictures import check_jpeg, is_upright_rgb, pictures, upright_rgb
from dataengine.sinks.staging import (
    COLUMNS,
    StagedCamera,
    StagedEpisode,
    StagedFrames,
    StagedVideo,
    StageFrames,
    StageJob,
    StageVideos,
    load_staged,
    marker_of,
)
from dataengine.sinks.video_encoding import VideoWriter, quiet_codecs
from dataengine.stats import PictureHistogram, sample_indices
from schemas.episodes import CameraSpec, CameraStream, Episode, VideoFile
from schemas.errors import ArtifactError, EpisodeError
from schemas.rigs import Rig

_KEY_PICTURES = 100  # of a copied video, decoded for statistics


def stage_episode(episode: Episode, name: str, rig: Rig, jobs: tuple[StageJob, ...], *, stamp: str) -> None:
    """Write `episode` for every job that does not hold it yet; `stamp` is what the source said before it was read.

    Raises EpisodeError when it is bad, RigError when the rig is, ArtifactError when it can not be written.
    """
    quiet_codecs()
    check_episode(episode, rig)
    # A folder of its own for each attempt, and none where the staging was removed: a worker that outlives a killed run
    # ends here and leaves nothing behind.
    folders = {
        job: job.root / f"{marker_of(job.root, name).stem}.{uuid.uuid4().hex}"
        for job in jobs
        if not _still_holds(job, episode, name, stamp)
    }
    try:
        for folder in folders.values():
            folder.mkdir()
        _write_staged(episode, name, folders, stamp)
    except BaseException as error:
        # Whatever a decoder or an encoder raises: half a folder is of no use, and a place that can not be written is
        # not the episode's fault.
        fault = next((fault for job in folders if (fault := _fault_of_place(error, job.root))), None)
        for job, folder in folders.items():
            staged = load_staged(job.root, name)
            if staged is None or staged.folder != folder:
                shutil.rmtree(folder, ignore_errors=True)
        if fault:
            raise ArtifactError(
                f"the draft can not be written while {name} is staged ({fault}). Mend that and run the same command "
                f"again: what is staged is kept."
            ) from error
        raise


def _fault_of_place(error: BaseException, root: Path) -> str | None:
    """What is wrong with the place that is written to; None where the error is about something else."""
    if not root.is_dir():
        return "it was removed"
    ours = isinstance(error, OSError) and str(error.filename or "").startswith(str(root))
    return str(error.strerror) if isinstance(error, OSError) and ours else None


def _still_holds(job: StageJob, episode: Episode, name: str, stamp: str) -> bool:
    """Whether the job has this very episode; raw files that were only touched or moved get their new stamp."""
    staged = load_staged(job.root, name)
    # the id holds the hash of the raw content; the rest of meta and what was imported may come from other files
    if staged is None or (staged.meta, staged.imported) != (asdict(episode.meta), episode.imported):
        return False
    if staged.stamp != stamp:
        kept = StagedEpisode.model_validate_json(marker_of(job.root, name).read_bytes())
        write_atomic(marker_of(job.root, name), kept.model_copy(update={"stamp": stamp}).model_dump_json().encode())
    return True


def _write_staged(episode: Episode, name: str, folders: dict[StageJob, Path], stamp: str) -> None:
    cameras = {key: _stage_camera(episode, key, stream, folders) for key, stream in episode.cameras.items()}
    columns = {key: np.ascontiguousarray(column) for key, column in episode.columns.items()}
    stamps = {f"stamp_ns.{key}": np.asarray(value, dtype=np.int64) for key, value in episode.stamps_ns.items()}
    for job, folder in folders.items():
        np.savez(folder / COLUMNS, allow_pickle=False, **columns, **stamps)
        staged = StagedEpisode(
            name=name,
            folder=Path(folder.name),
            stamp=stamp,
            num_frames=episode.num_frames,
            meta=asdict(episode.meta),
            columns={key: hash_array(column) for key, column in columns.items()},
            column_types={key: (value.dtype.name, value.shape[1]) for key, value in columns.items()},
            stamps_ns={key: hash_array(value) for key, value in stamps.items()},
            imported=episode.imported,
            cameras={key: row.model_copy(update=_without_other_sink(job)) for key, row in cameras.items()},
        )
        for path in [*folder.iterdir(), folder, job.root]:
            _sync(path)  # the marker must not survive a power cut that its files do not
        write_atomic(marker_of(job.root, name), staged.model_dump_json().encode())


def hash_array(array: NDArray[np.generic]) -> str:
    """Hash of dtype, shape and little-endian bytes."""
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    head = f"{little.dtype.str} {little.shape} ".encode()
    return hashlib.sha256(head + little.tobytes()).hexdigest()


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
    blob: FrameBlob | None,
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
