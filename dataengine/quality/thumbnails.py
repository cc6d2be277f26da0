"""Pictures made small: what the camera checks need of each, a few numbers and a coarse grid."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ArtifactError

GRID = (24, 32)  # rows, columns of the coarse picture; a cell is about 20 pixels of 640 x 480 wide
_LOOKED_AT = 160  # pixels of the longer side that are counted
_WHITE = 250
# Grey levels in a cell of one pixel: the same sharp picture, encoded again and again by libx264 and SVT-AV1 (crf 30, g
# 2 and 30), changed cells of 2 pixels by up to 41, of 10 by 18; what moved changed them by 120 and more.
_NOISE = 60.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Thumbnail:
    """One picture: brightness in 0..255, and mean colours of the cells of a grid (rows, columns, 3)."""

    frame: int
    dark: float  # brighter than 2 % of the picture
    bright: float  # darker than 1 % of the picture
    contrast: float  # between the darkest 2 % and the brightest 2 %
    white: float  # share of pixels that are white
    grid: NDArray[np.float32]
    noise: float = 0.0  # grey levels by which a cell may change although the scene does not: what an encoder adds


def thumbnail(frame: int, rgb: NDArray[np.uint8], *, encoded: bool = False) -> Thumbnail:
    """Look at picture number `frame`, (height, width, 3); `encoded` where it comes from video."""
    import cv2

    step = max(1, max(rgb.shape[:2]) // _LOOKED_AT)
    thin = np.ascontiguousarray(rgb[::step, ::step])
    luma = cv2.cvtColor(thin, cv2.COLOR_RGB2GRAY)
    dark, high, bright = np.percentile(luma, (2, 98, 99))
    # of floats: bytes would be rounded to whole grey levels, which hides what is below one
    grid = cv2.resize(thin.astype(np.float32), GRID[::-1], interpolation=cv2.INTER_AREA)
    return Thumbnail(
        frame=frame,
        dark=float(dark),
        bright=float(bright),
        contrast=float(high - dark),
        white=float(np.mean(thin.min(axis=2) >= _WHITE)),
        grid=np.asarray(grid, dtype=np.float32),
        noise=_NOISE / float(np.sqrt(max(1.0, max(rgb.shape[:2]) / max(GRID)))) if encoded else 0.0,
    )


def video_thumbnails(path: Path, rate_hz: int, first: int, num_frames: int, step: int) -> Iterator[Thumbnail]:
    """Every `step`-th picture of pictures `first` to `first + num_frames` of a video.

    Where keyframes lie close together only those are decoded, which may give pictures up to `step` apart.
    """
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        if _keyframes_apart(container, stream, rate_hz, first) <= step:
            stream.codec_context.skip_frame = "NONKEY"
        container.seek(round(first / rate_hz / stream.time_base), stream=stream, backward=True)
        due = first
        try:
            for frame in container.decode(stream):
                number = round(float(frame.pts * stream.time_base) * rate_hz)
                if number >= first + num_frames:
                    break
                if number >= due:
                    yield thumbnail(number - first, frame.to_ndarray(format="rgb24"), encoded=True)
                    due = number + step
        except av.error.FFmpegError as error:
            raise ArtifactError(f"{path.name} does not decode ({error.strerror}). Pull or convert it again.") from None


def _keyframes_apart(container: Any, stream: Any, rate_hz: int, first: int) -> int:  # noqa: ANN401 - av has no types
    """Pictures from the first keyframe of a stretch to the next one; many where there is no next one near."""
    container.seek(round(first / rate_hz / stream.time_base), stream=stream, backward=True)
    count = 0
    for packet in container.demux(stream):
        if not packet.size:
            continue
        if packet.is_keyframe and count:
            return count
        count += 1
        if count > 2 * rate_hz:
            break
    return 1 << 30
