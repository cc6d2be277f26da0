"""Stages the cameras of one episode: each stream is walked once, and several encoders work side by side."""

import os
import threading
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from dataengine.sinks.depth import Depth, DepthCode, codes_of, depth_pictures, unit_of
from dataengine.sinks.frame_blob import DepthBlob, FrameBlob, RawPlaces
from dataengine.sinks.packets import PacketScan, key_pictures, scan_video
from dataengine.sinks.pictures import Picture, check_jpeg, is_upright_rgb, pictures, upright
from dataengine.sinks.staging import StagedCamera, StagedFrames, StagedVideo, StageFrames, StageJob, StageVideos
from dataengine.sinks.video_encoding import DepthVideoWriter, VideoWriter
from dataengine.stats import DepthHistogram, PictureHistogram
from schemas.episodes import CameraSpec, CameraStream, DepthStream, Episode, VideoFile
from schemas.errors import ArtifactError, EpisodeError

# Of a copied video, decoded for statistics: each costs as much as copying 100 of its packets, and a dataset has many
# episodes.
_KEY_PICTURES = 16


class _Stopped(Exception):
    """Another camera of the episode failed."""


def stage_cameras(episode: Episode, folders: dict[StageJob, Path]) -> dict[str, StagedCamera]:
    """Write every camera for every job. The first error of any camera ends all of them."""
    stages = [
        _CameraStage(episode=episode, key=key, stream=row, folders=folders) for key, row in episode.cameras.items()
    ]
    side_by_side = min(len(stages), _most_encoders(folders))
    if side_by_side < 2:
        return {stage.key: stage.run() for stage in stages}
    stop = threading.Event()
    with ThreadPoolExecutor(max_workers=side_by_side) as pool:
        running = {stage.key: pool.submit(stage.run, stop, side_by_side) for stage in stages}
        _, waiting = wait(running.values(), return_when=FIRST_EXCEPTION)
        if waiting:
            stop.set()
    errors = [error for future in running.values() if (error := _error_of(future)) is not None]
    for error in errors:
        raise error
    return {key: future.result() for key, future in running.items()}


def _error_of(future: Future[StagedCamera]) -> BaseException | None:
    error = future.exception()
    return None if isinstance(error, _Stopped) else error


def _most_encoders(folders: dict[StageJob, Path]) -> int:
    """How many cameras are worth encoding at once: one per core, or two where several workers share the machine.

    Two fill the cores while one of them drains its encoder.
    """
    job = next((job for job in folders if isinstance(job, StageVideos)), None)
    if job is None:
        return 1
    return 2 if job.encoder_threads == 1 else os.cpu_count() or 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _CameraStage:
    """One camera on its way into staging."""

    episode: Episode
    key: str
    stream: CameraStream
    folders: dict[StageJob, Path]

    def run(self, stop: threading.Event | None = None, side_by_side: int = 1) -> StagedCamera:
        """Write it; `side_by_side` encoders share the cores."""
        stop = stop or threading.Event()
        if self.stream.spec.depth_unit_m is not None:
            if not isinstance(self.stream, VideoFile) and not hasattr(self.stream, "depths"):
                raise EpisodeError(f"camera '{self.key}' is declared as depth, but holds colour. Correct the rig.")
            return self._depth(cast(DepthStream | VideoFile, self.stream), stop, side_by_side)
        return self._colour(stop, side_by_side)

    def _jobs(self) -> tuple[StageVideos | None, StageFrames | None]:
        video = next((job for job in self.folders if isinstance(job, StageVideos)), None)
        return video, next((job for job in self.folders if isinstance(job, StageFrames)), None)

    def _colour(self, stop: threading.Event, side_by_side: int) -> StagedCamera:
        stream, spec = self.stream, self.stream.spec
        video_job, frame_job = self._jobs()
        scan = self._scan(stream) if isinstance(stream, VideoFile) else None
        video: StagedVideo | None = None
        if video_job is not None and isinstance(stream, VideoFile) and scan is not None and is_upright_rgb(spec):
            video, video_job = copied_video(stream, scan), None
        frames: StagedFrames | None = None
        content = scan.content if scan else None
        places = RawPlaces.of(stream, frame_job)
        if places is not None and frame_job is not None:
            self._check_count(len(places.lengths))
            frames = places.stage(self.folders[frame_job], self.key, spec)
            content, frame_job = places.content, None
        walk = _Walk()
        if video_job is not None or frame_job is not None or content is None:
            with ExitStack() as stack:
                if video_job is not None:
                    walk.writer = stack.enter_context(self._video_writer(video_job, side_by_side))
                if frame_job is not None:
                    walk.blob = stack.enter_context(FrameBlob(self.folders[frame_job], self.key, spec, frame_job))
                self._walk(walk, stop)
            if places is not None and walk.digest.hexdigest() != places.content:
                raise ArtifactError(f"{places.path.name} changed while it was converted. Run the command again.")
            frames = walk.blob.row(copied=spec.encoding == "jpeg") if walk.blob else frames
            if video_job is not None:
                video = self._encoded_video(self.folders[video_job] / f"{self.key}.mp4", walk.histogram)
        return StagedCamera(
            width=spec.width,
            height=spec.height,
            encoding=spec.encoding,
            channel_order=spec.channel_order,
            orientation=spec.orientation,
            content_kind="packets" if scan else "jpegs" if spec.encoding == "jpeg" else "pixels",
            content=content or walk.digest.hexdigest(),
            video=video,
            frames=frames,
        )

    def _scan(self, stream: VideoFile) -> PacketScan:
        num_frames = None if stream.whole else stream.num_frames
        scan = scan_video(stream.path, rate_hz=self.episode.rate_hz, first=stream.first, num_frames=num_frames)
        self._check_count(scan.num_frames)
        return scan

    def _check_count(self, got: int) -> None:
        if got != self.episode.num_frames:
            raise EpisodeError(
                f"{self.episode.meta.raw_name}: camera '{self.key}' has {got} frames for {self.episode.num_frames} "
                f"rows. Record it again or drop the episode."
            )

    def _threads(self, job: StageVideos, side_by_side: int) -> int | None:
        if job.encoder_threads is not None or side_by_side < 2:
            return job.encoder_threads
        return max(1, (os.cpu_count() or 1) // side_by_side)

    def _video_writer(self, job: StageVideos, side_by_side: int) -> VideoWriter:
        return VideoWriter(
            self.folders[job] / f"{self.key}.mp4",
            width=self.stream.spec.width,
            height=self.stream.spec.height,
            rate_hz=self.episode.rate_hz,
            encoding=job.encoding,
            threads=self._threads(job, side_by_side),
        )

    def _walk(self, walk: "_Walk", stop: threading.Event) -> None:
        """Give every picture to whoever wants it, hash it, and count."""
        num = 0
        for picture in pictures(self.stream):
            if stop.is_set():
                raise _Stopped
            walk.take(picture, is_video=isinstance(self.stream, VideoFile))
            num += 1
        self._check_count(num)

    def _encoded_video(self, path: Path, histogram: PictureHistogram | DepthHistogram) -> StagedVideo:
        scan = scan_video(path, rate_hz=self.episode.rate_hz)
        self._check_count(scan.num_frames)  # an encoder that drops must never go unnoticed
        return _staged_video(Path(path.name), scan, histogram, copied=False)

    def _depth(self, stream: DepthStream | VideoFile, stop: threading.Event, side_by_side: int) -> StagedCamera:
        spec = stream.spec
        video_job, frame_job = self._jobs()
        scan = self._scan(stream) if isinstance(stream, VideoFile) else None
        walk = _DepthWalk(orientation=spec.orientation)
        video: StagedVideo | None = None
        path = self.folders[video_job] / f"{self.key}.mp4" if video_job is not None else None
        if video_job is not None and isinstance(stream, VideoFile) and scan is not None and is_upright_rgb(spec):
            video, video_job = _copied_depth(stream, scan), None
        if video_job is not None or frame_job is not None or scan is None:
            with ExitStack() as stack:
                if video_job is not None and path is not None:
                    walk.writer = stack.enter_context(self._depth_writer(path, video_job, side_by_side))
                if frame_job is not None:
                    walk.blob = stack.enter_context(DepthBlob(self.folders[frame_job], self.key, spec))
                for depth in depth_pictures(stream):
                    if stop.is_set():
                        raise _Stopped
                    walk.take(depth, spec)
            self._check_count(walk.histogram.num_pictures)
            if video_job is not None and path is not None and walk.code is not None:
                video = self._encoded_video(path, walk.histogram).model_copy(
                    update={"depth_unit": walk.code.unit, "num_beyond": walk.num_beyond}
                )
        return StagedCamera(
            width=spec.width,
            height=spec.height,
            encoding=spec.encoding,
            channel_order=spec.channel_order,
            orientation=spec.orientation,
            content_kind="packets" if scan else "depths",
            content=scan.content if scan else walk.digest.hexdigest(),
            depth_unit_m=spec.depth_unit_m,
            video=video,
            frames=walk.blob.row() if walk.blob else None,
        )

    def _depth_writer(self, path: Path, job: StageVideos, side_by_side: int) -> DepthVideoWriter:
        spec, threads = self.stream.spec, self._threads(job, side_by_side)
        return DepthVideoWriter(
            path, width=spec.width, height=spec.height, rate_hz=self.episode.rate_hz, threads=threads
        )


def _new_digest() -> Any:  # noqa: ANN401 - xxhash has no types
    import xxhash

    return xxhash.xxh3_128()


@dataclass(slots=True, kw_only=True)
class _Walk:
    """What one pass over a colour camera feeds. Not cryptographic: 16 times faster, and nobody forges his own data."""

    writer: VideoWriter | None = None
    blob: FrameBlob | None = None
    histogram: PictureHistogram = field(default_factory=PictureHistogram)
    digest: Any = field(default_factory=_new_digest)

    def take(self, picture: Picture, *, is_video: bool) -> None:
        """One picture."""
        if picture.jpeg is not None:
            check_jpeg(picture.jpeg, picture.spec)
            self.digest.update(len(picture.jpeg).to_bytes(8, "little"))
            self.digest.update(picture.jpeg)
        elif not is_video:  # a video's content is its packets
            assert picture.array is not None
            self.digest.update(np.ascontiguousarray(picture.array))
        if self.writer:
            self.writer.add(picture.rgb())
            self.histogram.add_whole(picture.rgb())
        if self.blob:
            self.blob.add(picture)


@dataclass(slots=True, kw_only=True)
class _DepthWalk:
    """What one pass over a depth camera feeds."""

    orientation: str
    writer: DepthVideoWriter | None = None
    blob: DepthBlob | None = None
    code: DepthCode | None = None
    histogram: DepthHistogram = field(default_factory=DepthHistogram)
    digest: Any = field(default_factory=_new_digest)
    num_beyond: int = 0

    def take(self, depth: Depth, spec: CameraSpec) -> None:
        """One picture."""
        self.code = self.code or DepthCode.of(spec, depth.dtype)
        self.digest.update(np.ascontiguousarray(depth, dtype=depth.dtype.newbyteorder("<")))
        if self.blob is not None:
            self.blob.add(depth)
        if self.writer is None:
            self.histogram.num_pictures += 1
            return
        codes, beyond = self.code.codes(upright(depth, self.orientation))
        self.writer.add(codes)
        self.histogram.add_whole(codes)
        self.num_beyond += beyond


def copied_video(stream: VideoFile, scan: PacketScan) -> StagedVideo:
    """A video whose packets are copied; statistics come from some of its keyframes."""
    histogram = PictureHistogram()
    for frame in key_pictures(stream.path, scan, _KEY_PICTURES):
        histogram.add(frame.to_ndarray(format="rgb24"))
    if not histogram.num_pictures:
        raise EpisodeError(f"{stream.path.name}: no keyframe decodes. Export the video again.")
    video = _staged_video(stream.path.resolve(), scan, histogram, copied=True)
    return video.model_copy(update={"first": stream.first})


def _copied_depth(stream: VideoFile, scan: PacketScan) -> StagedVideo:
    histogram = DepthHistogram()
    for frame in key_pictures(stream.path, scan, _KEY_PICTURES):
        histogram.add_whole(codes_of(frame))
    if not histogram.num_pictures:
        raise EpisodeError(f"{stream.path.name}: no keyframe decodes. Export the video again.")
    video = _staged_video(stream.path.resolve(), scan, histogram, copied=True)
    return video.model_copy(update={"first": stream.first, "depth_unit": unit_of(stream.spec)})


def _staged_video(
    path: Path, scan: PacketScan, histogram: PictureHistogram | DepthHistogram, *, copied: bool
) -> StagedVideo:
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
        exact=not copied,
        file_stat=scan.file_stat,
    )
