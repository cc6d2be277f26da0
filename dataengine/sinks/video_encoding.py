"""Encoding upright RGB pictures into one mp4: blocking, constant rate, and every picture accounted for."""

from contextlib import nullcontext
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dataengine.sinks.depth import CODEC, Codes, gray12_frame
from dataengine.sinks.depth import PIX_FMT as DEPTH_PIX_FMT
from dataengine.sinks.pictures import Rgb
from dataengine.sinks.planes import yuv420p
from dataengine.sinks.scheduling import ordinary_scheduling
from schemas.errors import EpisodeError, UsageError, did_you_mean

PIX_FMT = "yuv420p"
# x265 gives so few pictures decode times from unset memory: the muxer refused one file in five. It does not reorder
# them, so they are decoded when they are shown.
_X265_UNTIMED = 2
_WORDS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
_PRESETS = {"libsvtav1": tuple(map(str, range(14))), "libx264": _WORDS, "libx265": _WORDS}


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoEncoding:
    """How pictures become video; the defaults are LeRobot's.

    g: pictures from keyframe to keyframe; 2 makes random access cheap and files about six times larger than 30.
    """

    codec: str = "libsvtav1"
    g: int = 2
    crf: int = 30
    preset: str = "12"

    def __post_init__(self) -> None:
        presets = _PRESETS.get(self.codec)
        if presets is None:
            raise UsageError(f"no video codec '{self.codec}'. {did_you_mean(self.codec, _PRESETS)}")
        if self.preset not in presets:
            raise UsageError(f"{self.codec} has no preset '{self.preset}'. Known: {', '.join(presets)}.")
        if self.g < 1 or not 0 <= self.crf <= 63:
            raise UsageError(f"g must be at least 1 and crf within 0..63, got g={self.g}, crf={self.crf}.")

    def to_json(self) -> dict[str, Any]:
        """Plain values, for the recipe."""
        return {**asdict(self), "pix_fmt": PIX_FMT}

    def options(self, *, threads: int | None) -> dict[str, str]:
        """FFmpeg options; `threads` bounds one encoder where several run side by side (no effect on the result)."""
        options = {"g": str(self.g), "crf": str(self.crf), "preset": self.preset}
        if self.codec == "libsvtav1":
            if threads is not None:
                options["svtav1-params"] = f"lp={threads}"
        else:
            options["threads"] = str(threads or 0)
        return options


class _Mp4Writer:
    """Writes one track of one mp4; use as a context manager, so that the file is closed also when it fails."""

    def __init__(
        self,
        path: Path,
        *,
        width: int,
        height: int,
        rate_hz: int,
        codec: str,
        pix_fmt: str,
        options: dict[str, str],
    ) -> None:
        import av

        self._container = av.open(str(path), "w", format="mp4")
        try:
            self._stream = self._container.add_stream(codec, rate=rate_hz, options=options)
        except av.codec.codec.UnknownCodecError:
            self._container.close()
            raise UsageError(f"this FFmpeg has no encoder '{codec}'. Use another codec.") from None
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, pix_fmt
        self._stream.codec_context.time_base = Fraction(1, rate_hz)
        self._count = 0

    def _encode(self, frame: Any) -> None:  # noqa: ANN401 - av has no types
        """Encode the next picture; waits for the encoder rather than dropping anything."""
        frame.pts = self._count
        frame.time_base = self._stream.codec_context.time_base
        with nullcontext() if self._count else ordinary_scheduling():  # the first picture opens the encoder
            packets = self._stream.encode(frame)
        self._container.mux(packets)
        self._count += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                packets = self._stream.encode()
                if self._stream.codec_context.name == "libx265" and self._count <= _X265_UNTIMED:
                    for packet in packets:
                        packet.dts = packet.pts
                self._container.mux(packets)
        finally:
            self._container.close()


class VideoWriter(_Mp4Writer):
    """Writes one episode of one camera."""

    def __init__(
        self, path: Path, *, width: int, height: int, rate_hz: int, encoding: VideoEncoding, threads: int | None
    ) -> None:
        if width % 2 or height % 2:
            raise EpisodeError(f"pictures of {width}x{height} can not be {PIX_FMT} video: both sides must be even.")
        options = encoding.options(threads=threads)
        super().__init__(
            path, width=width, height=height, rate_hz=rate_hz, codec=encoding.codec, pix_fmt=PIX_FMT, options=options
        )

    def add(self, rgb: Rgb) -> None:
        """Encode the next picture."""
        self._encode(yuv420p(rgb))


class DepthVideoWriter(_Mp4Writer):
    """Writes the depth codes of one episode of one camera, lossless, as LeRobot 0.6.1 does by default."""

    def __init__(self, path: Path, *, width: int, height: int, rate_hz: int, threads: int | None) -> None:
        parameters = "lossless=1:log-level=error" + (f":pools={threads}:frame-threads=1" if threads else "")
        options = {"g": "2", "x265-params": parameters}
        super().__init__(
            path, width=width, height=height, rate_hz=rate_hz, codec=CODEC, pix_fmt=DEPTH_PIX_FMT, options=options
        )

    def add(self, codes: Codes) -> None:
        """Encode the next picture."""
        self._encode(gray12_frame(codes))


def quiet_codecs() -> None:
    """Keep encoder banners out of logs, where errors still come as exceptions, and one OpenCV thread per caller."""
    import os

    import av
    import cv2

    os.environ.setdefault("SVT_LOG", "1")  # errors only; SVT-AV1 writes its banner past FFmpeg's logging
    # None, no level: with one, FFmpeg's threads take the GIL to say anything at all, and whoever frees a decoder in the
    # meantime holds it and waits for them for ever
    av.logging.set_level(None)
    cv2.setNumThreads(1)  # workers and cameras run side by side: more threads only wait for each other
