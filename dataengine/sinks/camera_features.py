"""What a dataset and a frame store say about one camera: LeRobot's feature, statistics, zarr array."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dataengine.frame_store import SHARD_FRAMES
from dataengine.sinks import depth
from dataengine.sinks.staging import StagedCamera, StagedFrames, StagedVideo
from dataengine.sinks.video_encoding import VideoEncoding
from dataengine.stats import Stats, merged, picture_stats


def video_feature(camera: StagedCamera, rate_hz: int, encoding: VideoEncoding) -> dict[str, Any]:
    """The feature of a camera in `meta/info.json`, as lerobot 0.6.1 writes it."""
    video = camera.video
    assert video is not None
    is_depth = video.depth_unit is not None
    channels = 1 if is_depth else 3
    info: dict[str, Any] = {
        "video.height": camera.height,
        "video.width": camera.width,
        "video.codec": video.codec,
        "video.pix_fmt": video.pix_fmt,
        "video.fps": rate_hz,
        "video.channels": channels,
        "has_audio": False,
        "is_depth_map": is_depth,
    }
    if is_depth:
        info |= {
            "depth_unit": video.depth_unit,
            "video.depth_min": depth.MIN_M,
            "video.depth_max": depth.MAX_M,
            "video.shift": depth.SHIFT_M,
            "video.use_log": True,
        }
        if not video.copied:
            info |= {"video.g": 2, "video.extra_options": {"x265-params": "lossless=1"}}
    elif not video.copied:
        info |= {"video.g": encoding.g, "video.crf": encoding.crf, "video.preset": encoding.preset}
    return {
        "dtype": "video",
        "shape": [camera.height, camera.width, channels],
        "names": ["height", "width", "channels"],
        "info": info,
    }


def video_stats(videos: Sequence[StagedVideo]) -> Stats:
    """Statistics of one camera over some episodes: colours in [0, 1], depth in its unit, as LeRobot has it."""
    counts, num_pictures = merged((np.asarray(row.histogram, dtype=np.int64), row.num_sampled) for row in videos)
    unit = videos[0].depth_unit
    return picture_stats(counts, num_pictures, None if unit is None else depth.code_values(unit))


def how_counted(videos: Sequence[StagedVideo]) -> str:
    """ "exact" where every pixel of every picture was counted, else "sampled" and the number of pictures."""
    return "exact" if all(row.exact for row in videos) else f"sampled {sum(row.num_sampled for row in videos)}"


def camera_array(
    frames: StagedFrames, num_frames: int, *, depth_unit_m: float | None, jpeg_quality: int
) -> dict[str, Any]:
    """Shape, type, codecs and attributes of one camera's zarr array: one picture per inner chunk."""
    is_depth = frames.encoding == "zstd"
    shape = [frames.height, frames.width, 1 if is_depth else 3]
    attributes: dict[str, Any] = {
        "encoding": frames.encoding,
        "channel_order": frames.channel_order,
        "orientation": frames.orientation,
        "source_bytes": frames.copied and not is_depth,
    }
    if is_depth:
        attributes["depth_unit_m"] = depth_unit_m
        codecs: list[dict[str, Any]] = [
            {"name": "bytes", "configuration": {"endian": "little"}},
            {"name": "zstd", "configuration": {"level": 1, "checksum": False}},
        ]
    else:
        # A JPEG made from BGR arrays holds swapped channels; this tells the codec so, and any zarr then reads true RGB.
        swapped = {"colorspace_data": "BGR"} if frames.channel_order == "bgr" else {}
        codecs = [{"name": "imagecodecs_jpeg", "configuration": swapped}]
        if not frames.copied:
            attributes |= {"jpeg_quality": jpeg_quality, "jpeg_subsampling": frames.subsampling}
    sharding = {
        "chunk_shape": [1, *shape],
        "codecs": codecs,
        "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
        "index_location": "end",
    }
    return {
        "shape": [num_frames, *shape],
        "dtype": frames.dtype,
        "chunk": [SHARD_FRAMES, *shape],
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "attributes": attributes,
        "dimensions": ["row", "height", "width", "channel"],
    }
