"""Bytes of the wire: msgpack maps with numpy arrays inside, in the form openpi's clients write.

An array is the map `{b"__ndarray__": True, b"data": bytes, b"dtype": "<f4", b"shape": [..]}`, a numpy scalar
`{b"__npgeneric__": True, b"data": number, b"dtype": "<f4"}`. Nothing is ever unpickled or looked up by name: dtypes
come from a list, sizes and counts are capped before memory is spent, and whatever does not fit is a `WireError`.
"""

import math

import msgpack
import numpy as np

from schemas.errors import WireError

MAX_MESSAGE_BYTES = 32 * 1024 * 1024  # ten 1280x720 RGB frames; openpi itself sets no limit
MAX_DEPTH = 4  # message > images > array map > shape
# One-byte containers cost 60 bytes and more once unpacked, so a small frame could fill the memory without these.
_MAX_CONTAINERS = 256
_MAX_LIST = 1_024
_MAX_MAP = 64
_MAX_DIMS = 4
_DTYPES = {
    name: np.dtype(name)
    for name in ("|b1", "|u1", "|i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f2", "<f4", "<f8")
}
_ARRAY, _SCALAR = b"__ndarray__", b"__npgeneric__"
_SEND_AGAIN = "Send one msgpack map as openpi's client packs it."


def encode(message: dict[str, object]) -> bytes:
    """Pack one message. Raises WireError for a value the protocol cannot carry."""
    try:
        packed: bytes = msgpack.packb(message, default=_encode_array)
    except (TypeError, ValueError, OverflowError) as error:
        raise WireError(f"a message cannot be packed ({error}). Use numbers, text and plain arrays.") from None
    return packed


def decode(frame: bytes, *, max_bytes: int = MAX_MESSAGE_BYTES) -> object:
    """Unpack one frame: dicts, lists, text, numbers and read-only arrays. Raises WireError for anything else."""
    if len(frame) > max_bytes:
        raise WireError(f"a message has {len(frame)} bytes, at most {max_bytes} are taken. Send smaller images.")
    count = _ContainerCount()
    try:
        value = msgpack.unpackb(
            frame,
            object_hook=count,
            list_hook=count,
            max_str_len=65_536,
            max_bin_len=max_bytes,
            max_array_len=_MAX_LIST,
            max_map_len=_MAX_MAP,
            max_ext_len=0,
        )
    except (msgpack.UnpackException, ValueError, TypeError, RecursionError) as error:
        # msgpack's errors are ValueErrors and UnpackExceptions; an unhashable map key is a TypeError.
        raise WireError(f"a message is no msgpack of ours ({type(error).__name__}: {error}). {_SEND_AGAIN}") from None
    return _decode(value, depth=0)


class _ContainerCount:
    """Counts lists and maps while they are unpacked, and stops a frame that holds too many."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, container: object) -> object:
        self.seen += 1
        if self.seen > _MAX_CONTAINERS:
            raise ValueError(f"more than {_MAX_CONTAINERS} lists and maps")
        return container


def _encode_array(value: object) -> object:
    if isinstance(value, np.ndarray | np.generic):
        little = value.dtype.newbyteorder("<")
        if little.str not in _DTYPES:
            raise TypeError(f"dtype {value.dtype}")
        if isinstance(value, np.ndarray):
            data = np.ascontiguousarray(value, dtype=little).tobytes()
            return {_ARRAY: True, b"data": data, b"dtype": little.str, b"shape": list(value.shape)}
        return {_SCALAR: True, b"data": value.item(), b"dtype": little.str}
    raise TypeError(f"a {type(value).__name__}")


def _decode(value: object, *, depth: int) -> object:
    if depth > MAX_DEPTH:
        raise WireError(f"a message is nested deeper than {MAX_DEPTH}. {_SEND_AGAIN}")
    match value:
        case dict() if _ARRAY in value:
            return _decode_array(value)
        case dict() if _SCALAR in value:
            return _decode_scalar(value)
        case dict():
            return {key: _decode(part, depth=depth + 1) for key, part in value.items()}
        case list():
            return [_decode(part, depth=depth + 1) for part in value]
        case _:
            return value


def _dtype(value: dict[object, object]) -> "np.dtype[np.generic]":
    name = value.get(b"dtype")
    if not isinstance(name, str) or name not in _DTYPES:
        raise WireError(f"an array has the dtype {name!r:.40}. Send one of {', '.join(_DTYPES)}.")
    return _DTYPES[name]


def _decode_array(value: dict[object, object]) -> "np.ndarray[tuple[int, ...], np.dtype[np.generic]]":
    dtype, data, shape = _dtype(value), value.get(b"data"), value.get(b"shape")
    if not isinstance(data, bytes) or not isinstance(shape, list) or len(shape) > _MAX_DIMS:
        raise WireError(f"an array's data or shape is malformed. Send bytes and at most {_MAX_DIMS} sides.")
    sides = [side for side in shape if type(side) is int and side >= 0]
    if len(sides) != len(shape) or math.prod(sides) * dtype.itemsize != len(data):
        raise WireError(
            f"an array of shape {shape!r:.80} and dtype {dtype} does not fill {len(data)} bytes. Send it whole."
        )
    try:
        return np.frombuffer(data, dtype=dtype).reshape(sides)
    except ValueError:  # a side of zero lets the others be larger than any array can be
        raise WireError(f"an array has the shape {shape!r:.80}, which no array has. Send it whole.") from None


def _decode_scalar(value: dict[object, object]) -> object:
    dtype, number = _dtype(value), value.get(b"data")
    if not isinstance(number, bool | int | float):
        raise WireError(f"a numpy scalar holds {type(number).__name__}. Send a number.")
    try:
        return dtype.type(number)
    except (OverflowError, ValueError):
        raise WireError(f"the number {number!r:.40} does not fit {dtype}. Send it as float64.") from None
