"""Pixels as the model gets them: upright RGB, uint8, scaled to the mix's image size."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage
from PIL import ImageOps

_DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "F")
_ORIENTATION = 274  # EXIF tag; 1 is upright


def decode_picture(content: bytes, *, at_least: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Any picture file as upright RGB (H, W, 3): EXIF rotation applied, transparency laid on white.

    A JPEG much larger than `at_least` (width, height) is decoded at 1/2, 1/4 or 1/8 of its size, never smaller than
    that; each pixel is then the mean of the ones it stands for, and reading takes a fifth of the time.

    Raises ValueError with a reason for what is no picture, is cut short, or holds more than 8 bits per channel.
    """
    try:
        with PilImage.open(io.BytesIO(content)) as picture:
            upright = picture.getexif().get(_ORIENTATION, 1) == 1
            if at_least is not None:
                width, height = at_least
                picture.draft(None, at_least if upright else (max(width, height), max(width, height)))
            picture.load()
            if picture.mode in _DEEP_MODES:
                raise ValueError(f"has pixel mode {picture.mode}, not 8 bits per channel")
            if picture.mode == "RGB" and upright and not picture.has_transparency_data:
                return np.asarray(picture)  # the usual case, without three copies
            return _flattened(ImageOps.exif_transpose(picture))
    except (OSError, SyntaxError, PilImage.DecompressionBombError) as error:
        # PIL raises SyntaxError for a broken PNG chunk, OSError for everything else it can not read.
        raise ValueError(f"can not be decoded ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return "no picture format is recognised" if text.startswith("cannot identify") else text


def _flattened(picture: PilImage.Image) -> NDArray[np.uint8]:
    """As RGB, what is transparent on white paper."""
    if picture.has_transparency_data:
        layered = picture.convert("RGBA")
        paper = PilImage.new("RGBA", layered.size, "white")
        picture = PilImage.alpha_composite(paper, layered)
    return np.asarray(picture.convert("RGB"))


def scaled(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The whole image at (width, height), the aspect ratio not kept.

    A side that shrinks averages pixel areas; a side that grows is interpolated.
    """
    old = (image.shape[1], image.shape[0])
    if old == size:
        return image
    import cv2

    # One thread: a worker process per core is the parallelism here, and OpenCV's pool does not survive a fork.
    cv2.setNumThreads(1)
    smaller = (min(size[0], old[0]), min(size[1], old[1]))
    if smaller != old:
        image = cv2.resize(image, smaller, interpolation=cv2.INTER_AREA)
    if smaller != size:
        image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    return image
