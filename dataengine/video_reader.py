"""Random access to pictures of one mp4 shard; goes on decoding where the next picture asked for lies ahead."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ArtifactError

_AHEAD = 64  # pictures worth decoding rather than seeking


class VideoReader:
    """One open mp4 whose pictures lie at n / rate_hz seconds."""

    def __init__(self, path: Path, *, rate_hz: int) -> None:
        import av

        self._path = path
        self._rate_hz = rate_hz
        try:
            self._container = av.open(str(path))
        except FileNotFoundError:
            raise ArtifactError(f"video {path.name} of the dataset is missing. Pull or convert it again.") from None
        self._stream = self._container.streams.video[0]
        self._frames: Iterator[Any] = iter(())
        self._last: int | None = None  # the picture decoded last; None = nothing to go on from

    def frame(self, number: int) -> NDArray[np.uint8]:
        """Picture `number` of the file, (height, width, 3) RGB. Raises ArtifactError when the file has no such one."""
        if self._last is None or not self._last < number <= self._last + _AHEAD:
            self._container.seek(self._pts(number), stream=self._stream, backward=True)
            self._frames = self._container.decode(self._stream)
        for frame in self._frames:
            found = round(float(frame.pts * self._stream.time_base) * self._rate_hz)
            if found == number:
                self._last = number
                picture: NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
                return picture
            if found > number:
                break
        self._last = None
        raise ArtifactError(f"{self._path.name} has no picture {number}. The file is damaged: convert the data again.")

    def _pts(self, number: int) -> int:
        ticks: int = round(number / self._rate_hz / self._stream.time_base)
        return ticks

    def close(self) -> None:
        """Close the file."""
        self._container.close()


def packet_hashes(path: Path, *, rate_hz: int, first: int, num: int) -> list[str]:
    """sha256 of the packets of pictures `first` to `first + num` of a file, in presentation order."""
    import av

    found: dict[int, str] = {}
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        container.seek(round(first / rate_hz / stream.time_base), stream=stream, backward=True)
        for packet in container.demux(stream):
            if not packet.size:
                continue
            number = round(float(packet.pts * stream.time_base) * rate_hz)
            if first <= number < first + num:
                found[number] = hashlib.sha256(bytes(packet)).hexdigest()
            if packet.dts * stream.time_base * rate_hz >= first + num:
                break  # no picture is shown before it is decoded
    return [found[number] for number in sorted(found)]
