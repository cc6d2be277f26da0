"""The yardstick for encoded pictures: the same pictures through bare PyAV (or a bare JPEG encoder), same settings.

It shares nothing with the sinks but the settings, so what a sink loses on the way shows.
"""

import io
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from dataengine.sinks.pictures import Rgb
from dataengine.sinks.video_encoding import PIX_FMT, VideoEncoding, quiet_codecs

_LEAST = 12  # pictures compared in one stretch
_MOST = 60
IDENTICAL_DB = 100.0  # said where no difference is left


def stretch_frames(encoding: VideoEncoding) -> int:
    """Pictures of one stretch: whole groups of pictures, so that both encoders start from a keyframe."""
    return min(_MOST, -(-_LEAST // encoding.g) * encoding.g)


def margin_frames(encoding: VideoEncoding) -> int:
    """Pictures encoded before and after a stretch, and not compared: encoders look ahead and carry quality along.

    SVT-AV1 made the same bytes of whole groups without any; libx264 came up to 1.9 dB short without, 0.1 with 24.
    """
    return 0 if encoding.codec == "libsvtav1" and encoding.g <= _MOST else 24


def bare_video(pictures: Sequence[Rgb], *, encoding: VideoEncoding, rate_hz: int) -> list[NDArray[np.uint8]]:
    """Encode upright RGB pictures into memory and decode them again."""
    import av

    quiet_codecs()
    file = io.BytesIO()
    options = {"g": str(encoding.g), "crf": str(encoding.crf), "preset": encoding.preset}
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream(encoding.codec, rate=rate_hz, options=options)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = PIX_FMT
        stream.codec_context.time_base = Fraction(1, rate_hz)
        for index, rgb in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts = index
            frame.time_base = Fraction(1, rate_hz)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    file.seek(0)
    with av.open(file) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(container.streams.video[0])]


def bare_jpeg(rgb: Rgb, *, quality: int, subsampling: str) -> Rgb:
    """Encode one upright RGB picture and decode it again; `subsampling` "444" or "420"."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "JPEG", quality=quality, subsampling=0 if subsampling == "444" else 2)
    return np.asarray(Image.open(file))


def psnr_db(ones: Sequence[NDArray[np.uint8]], others: Sequence[NDArray[np.uint8]]) -> float:
    """Peak signal-to-noise ratio over all pictures; 100 where they are equal, 0 where number or shapes differ."""
    if len(ones) != len(others) or any(one.shape != other.shape for one, other in zip(ones, others, strict=True)):
        return 0.0
    pairs = zip(ones, others, strict=True)
    error = float(np.mean([np.mean((one.astype(np.float32) - other) ** 2) for one, other in pairs]))
    return IDENTICAL_DB if error == 0 else min(IDENTICAL_DB, 10 * float(np.log10(255**2 / error)))
