"""Stages one episode, read once by one worker, for every sink that wants it."""

import hashlib
import os
import shutil
import uuid
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dataengine.artifacts import write_atomic
from dataengine.checks import check_episode
from dataengine.sinks.camera_staging import stage_cameras
from dataengine.sinks.staged_columns import head_of, pack, with_head
from dataengine.sinks.staging import StagedEpisode, StageJob, StageVideos, boot_id, load_staged, marker_of, unwritable
from dataengine.sinks.video_encoding import quiet_codecs
from schemas.episodes import Episode
from schemas.rigs import Rig


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
        for folder in folders.values() if episode.cameras else ():
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
                with suppress(OSError):
                    _next_marker(folder).unlink()
        if fault:
            raise unwritable(name, fault) from error
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
        if any(camera.frames and camera.frames.source for camera in staged.cameras.values()):
            return False  # its pictures lie in the raw file, maybe at other places by now
        marker = marker_of(job.root, name)
        content = marker.read_bytes()  # once: another worker may put its own there, whose columns go with its head
        kept = StagedEpisode.model_validate_json(head_of(content)).model_copy(update={"stamp": stamp})
        write_atomic(marker, with_head(content, kept.model_dump_json().encode()))
    return True


def _write_staged(episode: Episode, name: str, folders: dict[StageJob, Path], stamp: str) -> None:
    cameras = stage_cameras(episode, folders)
    columns = {key: np.ascontiguousarray(column) for key, column in episode.columns.items()}
    stamps = {f"stamp_ns.{key}": np.asarray(value, dtype=np.int64) for key, value in episode.stamps_ns.items()}
    was_encoded = any(
        (row.video and not row.video.copied) or (row.frames and not row.frames.copied) for row in cameras.values()
    )
    for job, folder in folders.items():
        is_quick = not was_encoded and job.boot is not None and job.boot == boot_id()
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
            skew=episode.skew,
            boot=job.boot if is_quick else None,
            cameras={key: row.model_copy(update=_without_other_sink(job)) for key, row in cameras.items()},
        )
        marker = marker_of(job.root, name)
        content = pack(staged.model_dump_json().encode(), {**columns, **stamps})
        if is_quick:
            _next_marker(folder).write_bytes(content)
            _next_marker(folder).replace(marker)
        else:
            pictures = [*folder.iterdir(), folder] if episode.cameras else []
            for path in [*pictures, job.root]:
                _sync(path)  # the marker must not survive a power cut that its files do not
            write_atomic(marker, content)


def _next_marker(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.marker")


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
