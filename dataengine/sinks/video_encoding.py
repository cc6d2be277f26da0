"""Encoding upright RGB pictures into one mp4: blocking, constant rate, and every picture accounted for."""

from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

from dataengine.sinks.pictures import Rgb
from schemas.errors import EpisodeError, UsageError, did_you_mean

PIX_FMT = "yuv420p"
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


class VideoWriter:
    """Writes one episode of one camera; use as a context manager, so that the file is closed also when it fails."""

    def __init__(
        self, path: Path, *, width: int, height: int, rate_hz: int, encoding: VideoEncoding, threads: int | None
    ) -> None:
        import av

        if width % 2 or height % 2:
            raise EpisodeError(f"pictures of {width}x{height} can not be {PIX_FMT} video: both sides must be even.")
        self._container = av.open(str(path), "w", format="mp4")
        options = encoding.options(threads=threads)
        try:
            self._stream = self._container.add_stream(encoding.codec, rate=rate_hz, options=options)
        except av.codec.codec.UnknownCodecError:
            self._container.close()
            raise UsageError(f"this FFmpeg has no encoder '{encoding.codec}'. Use another codec.") from None
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, PIX_FMT
        self._stream.codec_context.time_base = Fraction(1, rate_hz)
        self._count = 0

    def add(self, rgb: Rgb) -> None:
        """Encode the next picture; waits for the encoder rather than dropping anything."""
        import av

        frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
        frame.pts = self._count
        frame.time_base = self._stream.codec_context.time_base
        self._container.mux(self._stream.encode(frame))
        self._count += 1

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._container.mux(self._stream.encode())
        finally:
            self._container.close()


def quiet_codecs() -> None:
    """Keep encoder banners out of logs; errors still come as exceptions."""
    import os

    import av

    os.environ.setdefault("SVT_LOG", "1")  # errors only; SVT-AV1 writes its banner past FFmpeg's logging
    av.logging.set_level(av.logging.ERROR)
