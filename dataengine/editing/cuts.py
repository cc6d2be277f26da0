"""A kept episode with its head or tail cut off: rows, words and packets are taken over, torn video is cut."""

import hashlib
import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dataengine.editing.changes import Trim
from dataengine.sinks.depth import codes_of
from dataengine.sinks.language_columns import EVENTS
from dataengine.sinks.packets import PacketScan, key_pictures, scan_video
from dataengine.sinks.parts import KeptVideo, Part
from dataengine.sinks.staging import StagedCamera, StagedVideo
from dataengine.sinks.staging_writer import hash_array
from dataengine.sinks.video_cuts import cut_clip
from dataengine.sinks.video_encoding import DepthVideoWriter, VideoEncoding, quiet_codecs
from dataengine.stats import DepthHistogram, PictureHistogram
from dataengine.video_reader import VideoReader
from schemas.errors import EpisodeError, UsageError

_KEY_PICTURES = 16  # of a trimmed video, decoded for statistics, as for one that is copied


def rows_of(trim: Trim, part: Part, rate_hz: int) -> tuple[int, int]:
    """Rows [first, last) of an episode that a trim keeps. UsageError where there are none, or fewer."""
    start, num_frames = part.origin.start_frame, part.staged.num_frames
    # 1e-6 of a frame: 0.3 s at 30 Hz is 9.000000000000002 frames in floating point
    first = start if trim.start_s is None else int(np.ceil(trim.start_s * rate_hz - 1e-6))
    last = start + num_frames if trim.end_s is None else int(np.ceil(trim.end_s * rate_hz - 1e-6))
    if not start <= first < last <= start + num_frames:
        raise UsageError(
            f"the trim {trim.start_s} to {trim.end_s} s does not lie in {part.staged.episode_id}, which holds "
            f"{start / rate_hz:g} to {(start + num_frames) / rate_hz:g} s. Give times inside it."
        )
    return first - start, last - start


def trimmed(part: Part, first: int, last: int, *, rate_hz: int, encoding: VideoEncoding, folder: Path) -> Part:
    """Rows [first, last) of a kept episode; video that has to be cut is written under `folder`, once."""
    staged, num_frames = part.staged, last - first
    keys = tuple(staged.stamps_ns)
    columns = part.columns(keys)
    cameras: dict[str, StagedCamera] = {}
    videos: dict[str, KeptVideo] = {}
    for key, camera in staged.cameras.items():
        kept = part.videos.get(key)
        if camera.video is None or kept is None:
            cameras[key] = camera
            continue
        where = KeptVideo(path=kept.path, first=kept.first + first)
        video, is_cut = _video(camera.video, where, num_frames, rate_hz, encoding, folder / key, staged.episode_id)
        cameras[key] = camera.model_copy(update={"video": video})
        if not is_cut:
            videos[key] = where
    changed = staged.model_copy(
        update={
            "num_frames": num_frames,
            "columns": {key: hash_array(np.ascontiguousarray(columns[key][first:last])) for key in staged.columns},
            "stamps_ns": {key: hash_array(np.ascontiguousarray(columns[key][first:last])) for key in keys},
            "imported": {
                key: words
                for key, texts in staged.imported.items()
                if (words := _kept_words(key, texts, staged.num_frames, first, last))
            },
            "cameras": cameras,
        }
    )
    return replace(
        part,
        staged=changed,
        origin=replace(part.origin, start_frame=part.origin.start_frame + first),
        rows=part.rows and replace(part.rows, first=part.rows.first + first, whole=False),
        frames=part.frames and replace(part.frames, first=part.frames.first + first),
        videos=videos,
    )


def _kept_words(key: str, texts: tuple[str, ...], num_frames: int, first: int, last: int) -> tuple[str, ...]:
    """What was imported, without the words of rows that were cut off; words about the whole episode stay."""
    if key == EVENTS:  # each names its row
        rows = [(row, row["frame_index"] - first) for row in map(json.loads, texts)]
        kept = [row | {"frame_index": at} for row, at in rows if 0 <= at < last - first]
        return tuple(json.dumps(row, sort_keys=True, ensure_ascii=False) for row in kept)
    return texts[first:last] if len(texts) == num_frames else texts


def _video(
    video: StagedVideo,
    where: KeptVideo,
    num_frames: int,
    rate_hz: int,
    encoding: VideoEncoding,
    folder: Path,
    episode_id: str,
) -> tuple[StagedVideo, bool]:
    """The trimmed video, and whether it had to be cut: pictures that decode by themselves stay where they are."""
    try:
        scan = scan_video(where.path, rate_hz=rate_hz, first=where.first, num_frames=num_frames)
    except EpisodeError:  # no keyframe where it begins, or pictures after its end are decoded before
        name = f"{episode_id} {where.path} {where.first} {num_frames}"
        target = folder / f"{hashlib.sha256(name.encode()).hexdigest()[:20]}.mp4"
        if not target.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            beside = target.with_suffix(".part.mp4")
            if video.depth_unit:
                _cut_depth(where, num_frames, beside, rate_hz)
            else:
                cut_clip(where.path, where.first, num_frames, beside, rate_hz, encoding)
            beside.replace(target)
        return _described(video, target, 0, scan_video(target, rate_hz=rate_hz), rate_hz), True
    return _described(video, where.path, where.first, scan, rate_hz), False


def _cut_depth(where: KeptVideo, num_frames: int, target: Path, rate_hz: int) -> None:
    """Depth codes are stored without loss, so writing all of them again keeps every one."""
    quiet_codecs()
    reader = VideoReader(where.path, rate_hz=rate_hz)
    codes = (codes_of(reader.picture(where.first + index)) for index in range(num_frames))
    first = next(codes)
    height, width = first.shape
    with DepthVideoWriter(target, width=width, height=height, rate_hz=rate_hz, threads=None) as writer:
        for picture in itertools.chain((first,), codes):
            writer.add(picture)
    reader.close()


def _described(video: StagedVideo, path: Path, first: int, scan: PacketScan, rate_hz: int) -> StagedVideo:
    """What is known about the trimmed video; its statistics come from decoded pictures, so they are no longer exact.

    All of them where all pixels were counted before, so that an episode keeps its weight among the others.
    """
    histogram = DepthHistogram() if video.depth_unit else PictureHistogram()
    if video.exact:
        reader = VideoReader(path, rate_hz=rate_hz)
        for number in range(first, first + scan.num_frames):
            _count(histogram, reader.picture(number))
        reader.close()
    else:
        for picture in key_pictures(path, scan, _KEY_PICTURES):
            _count(histogram, picture, thinned=True)
    return video.model_copy(
        update={
            "path": path,
            "codec": scan.codec,
            "pix_fmt": scan.pix_fmt,
            "parameters": scan.parameters,
            "delay": scan.delay,
            "num_bytes": scan.num_bytes,
            "packets": scan.content,
            "histogram": tuple(tuple(row) for row in histogram.counts.tolist()),
            "num_sampled": histogram.num_pictures,
            "exact": False,
            "first": 0,
            "file_stat": None,
        }
    )


def _count(histogram: PictureHistogram | DepthHistogram, picture: Any, *, thinned: bool = False) -> None:  # noqa: ANN401 - av has no types
    match histogram:
        case DepthHistogram():
            histogram.add_whole(codes_of(picture))
        case PictureHistogram() if thinned:
            histogram.add(picture.to_ndarray(format="rgb24"))
        case PictureHistogram():
            histogram.add_whole(picture.to_ndarray(format="rgb24"))
