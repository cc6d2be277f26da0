"""Pictures inside messages: what a topic's pictures are, and one message's picture as an array.

ROS Image and CompressedImage, and foxglove's RawImage, CompressedImage and CompressedVideo, in any serialisation.
"""

import base64
import struct
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dataengine.sources.message_fields import Node, child
from schemas.errors import EpisodeError

type Picture = NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.float32]
_CHANNELS = {"rgb8": 3, "bgr8": 3, "8UC3": 3, "rgba8": 4, "bgra8": 4, "mono8": 1, "8UC1": 1}
_ORDERS = {"rgb8": "rgb", "rgba8": "rgb", "bgr8": "bgr", "bgra8": "bgr", "8UC3": None}
_YUV = {"yuv422": "UYVY", "uyvy": "UYVY", "yuv422_yuy2": "YUY2", "yuyv": "YUY2"}
_BAYER = {"bayer_rggb8": "RGGB", "bayer_bggr8": "BGGR", "bayer_gbrg8": "GBRG", "bayer_grbg8": "GRBG"}
_DEPTHS = {"16UC1": "u2", "mono16": "u2", "32FC1": "f4"}
_COMPRESSED_DEPTH = struct.Struct("<iff")  # format, and two quantisation parameters of 32FC1
_PNG, _JPEG = b"\x89PNG", b"\xff\xd8"


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureForm:
    """What all pictures of one topic have in common."""

    store: Literal["jpeg", "png", "raw", "depth_png", "video"]
    encoding: str  # the message's own word: "bgr8", "16UC1", "rgb8; jpeg compressed bgr8", "h264"
    height: int
    width: int
    channel_order: str | None  # of the array `picture` gives, or of a standard decoder for JPEG; None: not said
    is_depth: bool = False
    is_gray: bool = False
    bayer: str | None = None  # the pattern of a mosaic, as OpenCV names it: "RGGB"


def picture_form(message: Node, kind: str, where: str) -> PictureForm:
    """Look at one message of a picture topic; `kind` is Topic.picture_kind. Raises EpisodeError saying what is odd."""
    if kind == "raw":
        return _raw_form(message, where)
    data = picture_bytes(message)
    if not data:
        raise EpisodeError(f"{where} is an empty picture. Record it again or drop the episode.")
    if kind == "video":
        return PictureForm(store="video", encoding=_word(message, "format"), height=0, width=0, channel_order="rgb")
    return _compressed_form(_word(message, "format"), data, where)


def picture(message: Node, form: PictureForm, where: str) -> Picture:
    """One message's picture: (height, width, 3) uint8 in form.channel_order, or (height, width) depth."""
    match form.store:
        case "raw":
            found = _raw_picture(message, form, where)
        case "depth_png":
            found = _compressed_depth(picture_bytes(message), form, where)
        case _:
            found = _decoded(picture_bytes(message), form, where)
    if form.bayer is not None:
        found = _demosaiced(found, form.bayer)
    if found.shape[:2] != (form.height, form.width):
        raise EpisodeError(
            f"{where} is {found.shape[1]}x{found.shape[0]}, the first one {form.width}x{form.height}. Drop the episode."
        )
    return found


def picture_bytes(message: Node) -> bytes:
    """The `data` of a message; JSON holds it as base64."""
    data = child(message, "data")
    if isinstance(data, str):
        return base64.b64decode(data)
    if isinstance(data, list):  # JSON written as numbers
        return bytes(data)
    return data.tobytes() if isinstance(data, np.ndarray) else bytes(data or b"")


def _word(message: Node, name: str) -> str:
    return str(child(message, name) or "").strip()


def _raw_form(message: Node, where: str) -> PictureForm:
    encoding = _word(message, "encoding")
    height, width = int(child(message, "height") or 0), int(child(message, "width") or 0)
    if not height or not width:
        raise EpisodeError(f"{where} is an empty picture ({width}x{height}). Record it again or drop the episode.")
    if encoding not in _CHANNELS and encoding not in _YUV and encoding not in _BAYER and encoding not in _DEPTHS:
        raise _not_read(encoding, where)
    return PictureForm(
        store="raw",
        encoding=encoding,
        height=height,
        width=width,
        channel_order=None if encoding in _DEPTHS else _ORDERS.get(encoding, "rgb"),
        is_depth=encoding in _DEPTHS,
        bayer=_BAYER.get(encoding),
    )


def _not_read(encoding: str, where: str) -> EpisodeError:
    known = ", ".join([*_CHANNELS, *_YUV, *_BAYER, *_DEPTHS])
    return EpisodeError(f"{where} has encoding '{encoding}', which is not read. Known: {known}.")


def _compressed_form(text: str, data: bytes, where: str) -> PictureForm:
    if "compressedDepth" in text:
        body = data[_COMPRESSED_DEPTH.size :]
        if not body.startswith(_PNG):
            raise EpisodeError(f"{where} is compressedDepth but no PNG ('{text}'). Only its PNG form is read.")
        height, width = _png_size(body)
        return PictureForm(
            store="depth_png", encoding=text, height=height, width=width, channel_order=None, is_depth=True
        )
    if data.startswith(_JPEG):
        height, width, gray = _jpeg_size(data, where)
        return PictureForm(
            store="jpeg",
            encoding=text,
            height=height,
            width=width,
            channel_order="rgb" if gray else _stated_order(text),
            is_gray=gray,
            bayer=_mosaic(text, where) if gray else None,
        )
    if data.startswith(_PNG):
        height, width = _png_size(data)
        gray = data[25:26] == b"\0"
        bayer = _mosaic(text, where) if gray else None
        deep = gray and data[24:25] == b"\x10" and not bayer  # 16 bits: depth
        return PictureForm(
            store="png",
            encoding=text,
            height=height,
            width=width,
            channel_order=None if deep else "rgb" if bayer else _stated_order(text),
            is_depth=deep,
            bayer=bayer,
        )
    raise EpisodeError(f"{where} is compressed as '{text}', which is not read. Known: jpeg, png, compressedDepth png.")


def _stated_order(text: str) -> str | None:
    """image_transport converts to BGR and writes a standard picture; a bare "jpeg" says nothing."""
    return "rgb" if text.endswith("compressed bgr8") or text.endswith("compressed mono8") else None


def _mosaic(text: str, where: str) -> str | None:
    """The Bayer pattern of a gray picture, if it is a mosaic: image_transport compresses those as they are.

    It then writes "bayer_rggb8; jpeg compressed "; an encoding at the end is what the picture was converted to before.
    """
    source, target = text.partition(";")[0].strip(), text.partition("compressed")[2].strip()
    if not source.startswith("bayer_") or target not in ("", source):
        return None
    if source not in _BAYER:
        raise _not_read(source, where)
    return _BAYER[source]


def _jpeg_size(data: bytes, where: str) -> tuple[int, int, bool]:
    import simplejpeg

    try:
        height, width, colour, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        raise EpisodeError(f"{where} has no readable JPEG header. Record it again or drop the episode.") from None
    return height, width, colour == "Gray"


def _png_size(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack(">II", data[16:24].ljust(8, b"\0"))
    return height, width


def _rows(message: Node, form: PictureForm, dtype: str, channels: int, where: str) -> NDArray[Any]:
    """(height, width, channels), padding at the end of each row cut off."""
    big = bool(child(message, "is_bigendian"))
    kind = np.dtype(f"{'>' if big else '<'}{dtype}")
    data = picture_bytes(message)
    row_bytes = form.width * channels * kind.itemsize
    step = int(child(message, "step") or 0) or row_bytes
    if step < row_bytes or len(data) != step * form.height:
        raise EpisodeError(
            f"{where} has {len(data)} bytes and a step of {step}, not what {form.width}x{form.height} "
            f"{form.encoding} needs ({row_bytes} a row). Record it again or drop the episode."
        )
    rows = np.frombuffer(data, np.uint8).reshape(form.height, step)[:, :row_bytes]
    return np.ascontiguousarray(rows).view(kind).reshape(form.height, form.width, channels)


def _raw_picture(message: Node, form: PictureForm, where: str) -> Picture:
    import cv2

    size = (int(child(message, "height") or 0), int(child(message, "width") or 0))
    if size != (form.height, form.width) or _word(message, "encoding") != form.encoding:
        raise EpisodeError(
            f"{where} is {size[1]}x{size[0]} {_word(message, 'encoding')}, the first one {form.width}x{form.height} "
            f"{form.encoding}. Drop the episode."
        )
    if form.is_depth:
        return _measured(_rows(message, form, _DEPTHS[form.encoding], 1, where)[:, :, 0])
    if form.encoding in _YUV:
        code = getattr(cv2, f"COLOR_YUV2RGB_{_YUV[form.encoding]}")
        return np.asarray(cv2.cvtColor(_rows(message, form, "u1", 2, where), code), np.uint8)
    if form.bayer is not None:
        return _rows(message, form, "u1", 1, where)
    channels = _CHANNELS[form.encoding]
    array = _rows(message, form, "u1", channels, where)
    return np.repeat(array, 3, axis=2) if channels == 1 else np.ascontiguousarray(array[:, :, :3])


def _demosaiced(mosaic: Picture, pattern: str) -> NDArray[np.uint8]:
    """(height, width, 1 or more equal channels) to (height, width, 3) RGB."""
    import cv2

    code = getattr(cv2, f"COLOR_Bayer{pattern}2RGB")
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(mosaic[:, :, 0]), code), np.uint8)


def _measured(depth: NDArray[Any]) -> NDArray[np.uint16] | NDArray[np.float32]:
    """Depth in the machine's byte order; what floats mark as unmeasured (NaN, infinite) is 0 as everywhere here."""
    if depth.dtype.kind == "f":
        return np.where(np.isfinite(depth), depth, 0).astype(np.float32)
    return depth.astype(np.uint16)


def _compressed_depth(data: bytes, form: PictureForm, where: str) -> Picture:
    """compressed_depth_image_transport: 12 bytes of header, then a 16-bit PNG; 32FC1 holds a / (value - b) there."""
    _, scale, shift = _COMPRESSED_DEPTH.unpack(data[: _COMPRESSED_DEPTH.size].ljust(12, b"\0"))
    stored = _png(data[_COMPRESSED_DEPTH.size :], where)
    if not form.encoding.startswith("32FC1"):
        return stored.astype(np.uint16)
    values = np.zeros(stored.shape, np.float32)
    known = stored > 0
    values[known] = scale / (stored[known].astype(np.float32) - shift)
    return values


def _decoded(data: bytes, form: PictureForm, where: str) -> Picture:
    if form.store == "jpeg":
        import simplejpeg

        try:
            return np.asarray(
                simplejpeg.decode_jpeg(data, colorspace="RGB", fastdct=False, fastupsample=False), np.uint8
            )
        except ValueError as error:
            raise EpisodeError(f"{where} is a JPEG that does not decode ({error}). Drop the episode.") from None
    array = _png(data, where)
    if form.is_depth:
        return array.astype(np.uint16)
    if array.dtype != np.uint8:
        raise EpisodeError(f"{where} is a PNG of {array.dtype}, not 8 bits a colour. Leave it out of cameras:.")
    return np.repeat(array[:, :, None], 3, axis=2) if array.ndim == 2 else np.ascontiguousarray(array[:, :, :3])


def _png(data: bytes, where: str) -> NDArray[Any]:
    import imagecodecs

    try:
        return np.asarray(imagecodecs.png_decode(data))
    except (imagecodecs.PngError, ValueError) as error:
        raise EpisodeError(f"{where} is a PNG that does not decode ({error}). Drop the episode.") from None
