"""Video inside messages: one coded picture each (foxglove.CompressedVideo), H.264 or H.265 with start codes.

A picture can only be decoded after all since the last keyframe, so none is skipped before the rows have taken theirs.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import EpisodeError

_CODECS = {"h264": "h264", "avc": "h264", "h265": "hevc", "hevc": "hevc"}
_START = re.compile(rb"\x00\x00\x01(.)", re.DOTALL)
_H264_IDR = 5
_H265_KEY = range(16, 22)  # BLA, IDR, CRA


def codec_of(word: str, where: str) -> str:
    """FFmpeg's name of a message's `format`. Raises EpisodeError for one that is not read."""
    codec = _CODECS.get(word.lower())
    if codec is None:
        raise EpisodeError(f"{where} is video of format '{word}', which is not read. Known: {', '.join(_CODECS)}.")
    return codec


def is_key_picture(data: bytes, codec: str) -> bool:
    """Whether decoding can start here, by the types of the units inside."""
    heads = [match[1][0] for match in _START.finditer(data)]
    if codec == "h264":
        return any(head & 0x1F == _H264_IDR for head in heads)
    return any((head >> 1) & 0x3F in _H265_KEY for head in heads)


def decoded(messages: Iterable[tuple[int, bytes]], codec: str, where: str) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """(message number, (height, width, 3) RGB) in the order of the numbers; the first message is a key picture.

    Raises EpisodeError for damaged bytes and where a message gives no picture.
    """
    import av

    context = av.CodecContext.create(codec, "r")
    waiting: list[int] = []
    try:
        for number, data in messages:
            packet = av.Packet(data)
            packet.pts = packet.dts = number
            waiting.append(number)
            for frame in context.decode(packet):
                yield _shown(frame, waiting, where)
        for frame in context.decode(None):
            yield _shown(frame, waiting, where)
    except av.error.FFmpegError as error:
        raise EpisodeError(f"{where}: the video does not decode ({error.strerror}). Drop the episode.") from None
    if waiting:
        raise EpisodeError(f"{where}: message {waiting[0]} gives no picture. Drop the episode.")


def _shown(frame: Any, waiting: list[int], where: str) -> tuple[int, NDArray[np.uint8]]:  # noqa: ANN401 - a PyAV frame
    if not waiting or frame.pts != waiting[0]:
        got = f"message {waiting[0]}" if waiting else "one of its messages"
        raise EpisodeError(
            f"{where}: {got} gives no picture of its own, or pictures come in another order (B-frames). "
            f"Record it with one picture a message."
        )
    return waiting.pop(0), frame.to_ndarray(format="rgb24")
