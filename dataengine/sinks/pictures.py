"""One camera, picture by picture: the stored bytes where there are any, and upright RGB when somebody asks for it.

A stream is walked once, however many sinks want it; a picture decodes at most once.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from schemas.episodes import CameraSpec, CameraStream, VideoFile
from schemas.errors import EpisodeError

JPEG_END = b"\xff\xd9"
Rgb = NDArray[np.uint8]  # (height, width, 3), upright


class Picture:
    """One frame of one camera: JPEG bytes or an array as stored, corrected to upright RGB on demand."""

    __slots__ = ("_rgb", "array", "jpeg", "spec")

    def __init__(self, spec: CameraSpec, *, jpeg: bytes | None = None, array: NDArray[np.uint8] | None = None) -> None:
        self.spec = spec
        self.jpeg = jpeg
        self.array = array
        self._rgb: Rgb | None = None

    def rgb(self) -> Rgb:
        """Upright RGB, C-contiguous. Raises EpisodeError when the bytes do not decode."""
        if self._rgb is None:
            if self.jpeg is not None:
                self._rgb = decode_jpeg(self.jpeg, self.spec.channel_order, self.spec.orientation)
            else:
                assert self.array is not None
                self._rgb = upright_rgb(self.array, self.spec.channel_order, self.spec.orientation)
        return self._rgb


def upright_rgb(array: NDArray[np.uint8], channel_order: str, orientation: str) -> Rgb:
    """Correct colour order and orientation of (height, width, 3)."""
    if channel_order == "bgr":
        array = array[:, :, ::-1]
    if orientation == "rotated_180":
        array = array[::-1, ::-1]
    return np.ascontiguousarray(array)


def decode_jpeg(jpeg: bytes | memoryview, channel_order: str, orientation: str) -> Rgb:
    """Decode one JPEG whose channels were stored in `channel_order`, to upright RGB.

    The decoder itself puts swapped channels right, which costs nothing. Raises EpisodeError for damaged bytes.
    """
    import simplejpeg

    try:
        array = simplejpeg.decode_jpeg(jpeg, colorspace="BGR" if channel_order == "bgr" else "RGB")
    except ValueError as error:
        raise EpisodeError(f"a JPEG does not decode ({str(error).strip()}). Record the episode again.") from None
    return np.ascontiguousarray(array[::-1, ::-1]) if orientation == "rotated_180" else array


def check_jpeg(jpeg: bytes, spec: CameraSpec) -> None:
    """Refuse what a plain zarr reader would only stumble over later: cut, gray or wrongly sized JPEGs.

    A truncated JPEG decodes silently to gray rows, so its end marker is looked for here.
    """
    import simplejpeg

    if not jpeg.rstrip(b"\x00").endswith(JPEG_END):
        raise EpisodeError(f"camera '{spec.name}': a JPEG of {len(jpeg)} bytes has no end. Record the episode again.")
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(jpeg)
    except ValueError as error:
        raise EpisodeError(f"camera '{spec.name}': bytes that are no JPEG ({str(error).strip()}).") from None
    if (height, width) != (spec.height, spec.width) or colorspace not in ("YCbCr", "RGB"):
        raise EpisodeError(
            f"camera '{spec.name}': a {width}x{height} {colorspace} JPEG where {spec.width}x{spec.height} colour was "
            f"declared. Drop the episode or mend it."
        )


def encode_jpeg(rgb: Rgb, *, quality: int, subsampling: str) -> bytes:
    """Encode upright RGB."""
    import simplejpeg

    return bytes(simplejpeg.encode_jpeg(rgb, quality=quality, colorspace="RGB", colorsubsampling=subsampling))


def resized(rgb: Rgb, width: int, height: int) -> Rgb:
    """Resize with an antialiased filter."""
    from PIL import Image

    if rgb.shape[:2] == (height, width):
        return rgb
    return np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.BILINEAR))


def pictures(stream: CameraStream) -> Iterator[Picture]:
    """Every picture of a stream, in order."""
    spec = stream.spec
    if isinstance(stream, VideoFile):
        for array in decoded_video(stream):
            yield Picture(spec, array=array)
    elif hasattr(stream, "jpegs"):
        for jpeg in stream.jpegs():
            yield Picture(spec, jpeg=bytes(jpeg))
    elif hasattr(stream, "depths"):
        raise EpisodeError(f"camera '{spec.name}' is a depth camera, which has no colour picture.")
    else:
        for array in stream.arrays():
            if array.shape != (spec.height, spec.width, 3) or array.dtype != np.uint8:
                raise EpisodeError(
                    f"camera '{spec.name}': {array.dtype} {array.shape} where uint8 "
                    f"({spec.height}, {spec.width}, 3) was declared. Fix the raw file."
                )
            yield Picture(spec, array=array)


def decoded_video(stream: VideoFile) -> Iterator[NDArray[np.uint8]]:
    """Frames of a video file in presentation order, channels as stored. Raises EpisodeError when it does not decode."""
    import av

    try:
        with av.open(str(stream.path)) as container:
            video = container.streams.video[0]
            video.thread_type = "AUTO"
            for frame in container.decode(video):
                yield frame.to_ndarray(format="rgb24")
    except av.error.FFmpegError as error:
        raise EpisodeError(f"{stream.path.name}: the video does not decode ({error.strerror}).") from None


def is_upright_rgb(spec: CameraSpec) -> bool:
    """True where a reader that knows nothing of colour order or orientation still shows the right picture."""
    return spec.channel_order == "rgb" and spec.orientation == "upright"
