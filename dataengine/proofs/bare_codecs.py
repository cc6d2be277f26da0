"""The yardstick for encoded pictures: the same pictures through bare PyAV (or a bare JPEG encoder), same settings.

It shares nothing with the sinks but the settings, so what a sink loses on the way shows.
"""

import io
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from dataengine.sinks.pictures import Rgb
from dataengine.sinks.scheduling import ordinary_scheduling
from dataengine.sinks.video_encoding import PIX_FMT, VideoEncoding, quiet_codecs

COMPARED = 120  # pictures, from the first one on: a whole short episode, and a bounded cost for a long one
IDENTICAL_DB = 100.0  # said where no difference is left


def margin_frames(encoding: VideoEncoding) -> int:
    """Pictures encoded after those that are compared: encoders look ahead before they spend bits.

    SVT-AV1 made the same bytes of whole groups without any; libx264 came up to 1.9 dB short without, 0.1 with 24.
    """
    return 0 if encoding.codec == "libsvtav1" and COMPARED % encoding.g == 0 else 24


def bare_video(pictures: Sequence[Rgb], *, encoding: VideoEncoding, rate_hz: int) -> list[NDArray[np.uint8]]:
    """Encode upright RGB pictures into memory and decode them again."""
    import av

    quiet_codecs()
    file = io.BytesIO()
    options = {"g": str(encoding.g), "crf": str(encoding.crf), "preset": encoding.preset}
    with ordinary_scheduling(), av.open(file, "w", format="mp4") as output:
        stream = output.add_stream(encoding.codec, rate=rate_hz, options=options)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = PIX_FMT
        stream.codec_context.time_base = Fraction(1, rate_hz)
        for index, rgb in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts = index
            frame.time_base = Fraction(1, rate_hz)
            output.mux(stream.encode(frame))
        last = stream.encode()
        if len(pictures) <= 2:  # so few get no decode times from x265, and are in order
            for packet in last:
                packet.dts = packet.pts
        output.mux(last)
    file.seek(0)
    with av.open(file) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(container.streams.video[0])]


def bare_jpeg(rgb: Rgb, *, quality: int, subsampling: str) -> Rgb:
    """Encode one upright RGB picture and decode it again; `subsampling` "444" or "420"."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "JPEG", quality=quality, subsampling=0 if subsampling == "444" else 2)
    return np.asarray(Image.open(file))


def squared_error(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Mean over all values; that of the largest difference there is where shapes differ."""
    import cv2

    if one.shape != other.shape:
        return 255.0**2
    return float(cv2.norm(one, other, cv2.NORM_L2SQR)) / one.size


def psnr_of(errors: Sequence[float]) -> float:
    """Peak signal-to-noise ratio over all pictures, from the squared error of each; 100 where there is none."""
    error = float(np.mean(errors))
    return IDENTICAL_DB if error == 0 else min(IDENTICAL_DB, 10 * float(np.log10(255**2 / error)))


def psnr_db(ones: Sequence[NDArray[np.uint8]], others: Sequence[NDArray[np.uint8]]) -> float:
    """The same of pictures; 0 where number or shapes differ."""
    if len(ones) != len(others) or not ones:
        return 0.0
    return psnr_of([squared_error(one, other) for one, other in zip(ones, others, strict=True)])
