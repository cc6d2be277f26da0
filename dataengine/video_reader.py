"""Random access to pictures of one mp4 shard; goes on decoding where the next picture asked for lies ahead."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ArtifactError

_AHEAD = 64  # pictures worth decoding rather than seeking
# Pictures to go back before one that was not met: files are sought by decoding time, and x265 shows pictures before the
# keyframe that stands in front of them (open groups), which then can not be decoded from there.
_BACK = (0, 8, 64, 1 << 30)


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
        picture: NDArray[np.uint8] = self.picture(number).to_ndarray(format="rgb24")
        return picture

    def depth_m(self, number: int) -> NDArray[np.float32]:
        """Picture `number` of a depth video, (height, width) in metres, to within one step of its 12-bit codes.

        What was not measured reads as the nearest distance there is, 0.01 m.
        """
        from dataengine.sinks.depth import codes_of, metres_of

        return metres_of(np.arange(4096)).astype(np.float32)[codes_of(self.picture(number))]

    def picture(self, number: int) -> Any:  # noqa: ANN401 - av has no types
        """Picture `number` of the file as PyAV decodes it. Raises ArtifactError when the file has no such one."""
        if self._last is not None and self._last < number <= self._last + _AHEAD:
            frame = self._on_the_way(number)
            if frame is not None:
                return frame
        for back in _BACK:
            start = max(0, number - back)
            self._container.seek(self._pts(start), stream=self._stream, backward=True)
            self._frames = self._container.decode(self._stream)
            frame = self._on_the_way(number)
            if frame is not None:
                return frame
            if start == 0:
                break
        raise ArtifactError(f"{self._path.name} has no picture {number}. The file is damaged: convert the data again.")

    def _on_the_way(self, number: int) -> Any | None:  # noqa: ANN401 - av has no types
        for frame in self._frames:
            found = round(float(frame.pts * self._stream.time_base) * self._rate_hz)
            if found == number:
                self._last = number
                return frame
            if found > number:
                break
        self._last = None
        return None

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
