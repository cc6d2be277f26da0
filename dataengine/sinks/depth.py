"""Depth as LeRobot 0.6 stores it: 12-bit codes, fine near the camera and coarse far away, in lossless HEVC.

Formula and constants follow lerobot 0.6.1 (datasets/depth_utils.py, configs/video.py): code = 4095 * (log(d + shift) -
log(min + shift)) / (log(max + shift) - log(min + shift)), in millimetres for whole numbers and metres for floats.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataengine.sinks.pictures import video_frames
from schemas.episodes import CameraSpec, DepthStream, VideoFile
from schemas.errors import EpisodeError

MIN_M, MAX_M, SHIFT_M = 0.01, 10.0, 3.5
MOST = 4095  # the highest code
PIX_FMT = "gray12le"
CODEC = "hevc"
_MM_PER_M = 1000.0

Depth = NDArray[Any]  # (height, width) uint16 or float32
Codes = NDArray[np.uint16]  # (height, width), 0..4095


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthCode:
    """How the numbers of one depth camera become codes, and back.

    metres = number * unit_m. 0 and, of floats, what is no number mean "nothing measured": code 0, which reads back as
    the nearest distance there is.
    """

    unit_m: float
    unit: str  # "mm" of whole numbers, "m" of floats: what LeRobot gives statistics in

    @classmethod
    def of(cls, spec: CameraSpec, dtype: np.dtype[Any]) -> "DepthCode":
        """The code of a camera whose pictures have `dtype`. Raises EpisodeError where it is no depth camera's."""
        if dtype not in (np.uint16, np.float32) or spec.depth_unit_m is None:
            raise EpisodeError(
                f"camera '{spec.name}': depth of {dtype} in {spec.depth_unit_m} m. Declare depth_unit_m in the rig, "
                f"and store uint16 or float32."
            )
        return cls(unit_m=spec.depth_unit_m, unit="m" if dtype == np.float32 else "mm")

    @property
    def _scale(self) -> float:
        """LeRobot computes in the unit of the statistics."""
        return _MM_PER_M if self.unit == "mm" else 1.0

    def codes(self, depth: Depth) -> tuple[Codes, int]:
        """Codes of one picture, and how many measured pixels lie outside the format (stored as its nearest)."""
        if depth.dtype == np.uint16:
            table, near, far = self._table()
            return table[depth], int(np.count_nonzero((depth >= far) | ((depth > 0) & (depth < near))))
        values = np.where(np.isfinite(depth), depth, np.float32(0))
        metres = values * self.unit_m
        return self._quantised(values), int(np.count_nonzero((metres > MAX_M) | ((metres > 0) & (metres < MIN_M))))

    def _table(self) -> tuple[Codes, int, int]:
        """Code of each value; the first value within the format; the first one beyond it."""
        known = _TABLES.get(self)
        if known is None:
            values = np.arange(1 << 16, dtype=np.uint16)
            near = np.searchsorted(values * self.unit_m, MIN_M, side="left")
            far = np.searchsorted(values * self.unit_m, MAX_M, side="right")
            known = _TABLES[self] = (self._quantised(values), int(near), int(far))
        return known

    def _quantised(self, depth: Depth) -> Codes:
        scale = self._scale
        values = depth.astype(np.float32)
        if self.unit_m * scale != 1.0:
            values = values * np.float32(self.unit_m * scale)
        low, high, shift = (np.float32(value * scale) for value in (MIN_M, MAX_M, SHIFT_M))
        first, last = math.log(float(low + shift)), math.log(float(high + shift))
        share = (np.log(np.maximum(values, np.float32(0)) + shift) - first) / (last - first)
        return np.rint(share * MOST).clip(0, MOST).astype(np.uint16)


_TABLES: dict[DepthCode, tuple[Codes, int, int]] = {}


def code_values(unit: str) -> NDArray[np.float64]:
    """Distance of every code in "mm" or "m", (4096,)."""
    return metres_of(np.arange(MOST + 1)) * (_MM_PER_M if unit == "mm" else 1.0)


def metres_of(codes: NDArray[Any]) -> NDArray[np.float64]:
    """Distance of codes in metres."""
    first, last = math.log(MIN_M + SHIFT_M), math.log(MAX_M + SHIFT_M)
    metres: NDArray[np.float64] = np.exp(codes * ((last - first) / MOST) + first) - SHIFT_M
    return metres.clip(MIN_M, MAX_M)


def unit_of(spec: CameraSpec) -> str:
    """What a depth video of this camera holds: millimetres, as whole numbers, or metres, as floats."""
    return "mm" if spec.depth_unit_m == 0.001 else "m"


def depth_pictures(stream: DepthStream | VideoFile) -> Iterator[Depth]:
    """Every depth picture of a stream, in order; of a video uint16 millimetres or float32 metres.

    Raises EpisodeError where one has another shape or type.
    """
    spec, dtype = stream.spec, None
    for depth in _decoded(stream) if isinstance(stream, VideoFile) else stream.depths():
        dtype = dtype or depth.dtype
        if depth.shape != (spec.height, spec.width) or depth.dtype != dtype or dtype not in (np.uint16, np.float32):
            raise EpisodeError(
                f"camera '{spec.name}': {depth.dtype} {depth.shape} where uint16 or float32 "
                f"({spec.height}, {spec.width}) was declared. Fix the raw file."
            )
        yield depth


def _decoded(stream: VideoFile) -> Iterator[Depth]:
    if stream.spec.depth_unit_m not in (0.001, 1.0):
        raise EpisodeError(
            f"{stream.path.name}: a depth video in {stream.spec.depth_unit_m} m, where mm and m are read. "
            f"Write depth_unit_m: 0.001 or 1.0 in the rig."
        )
    values = code_values(unit_of(stream.spec))
    table: Depth = values.round().astype(np.uint16) if unit_of(stream.spec) == "mm" else values.astype(np.float32)
    for frame in video_frames(stream):
        yield table[codes_of(frame)]


def gray12_frame(codes: Codes) -> Any:  # noqa: ANN401 - av has no types
    """A video frame of the codes."""
    import av

    frame = av.VideoFrame(codes.shape[1], codes.shape[0], PIX_FMT)
    plane = frame.planes[0]
    rows = np.frombuffer(plane, dtype="<u2").reshape(plane.height, plane.line_size // 2)
    rows[:, : codes.shape[1]] = codes
    return frame


def codes_of(frame: Any) -> Codes:  # noqa: ANN401 - av has no types
    """The codes of a decoded frame. Raises EpisodeError where it holds no depth."""
    if frame.format.name != PIX_FMT:
        raise EpisodeError(f"a depth video of {frame.format.name} pictures, where {PIX_FMT} is read. Correct the rig.")
    plane = frame.planes[0]
    rows = np.frombuffer(plane, dtype="<u2").reshape(plane.height, plane.line_size // 2)
    return rows[:, : frame.width].copy()
