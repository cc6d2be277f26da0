"""Cameras of an RLDS record: one JPEG or PNG per step, inside the record's own bytes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dataengine.sources.tfds_features import TfdsFeature
from schemas.episodes import CameraSpec, CameraStream
from schemas.errors import EpisodeError
from schemas.rigs import Camera

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RecordJpegs:
    """JPEG steps, passed through byte for byte."""

    spec: CameraSpec
    rows: Sequence[memoryview]

    def __len__(self) -> int:
        return len(self.rows)

    def jpegs(self) -> Iterator[bytes]:
        """Each step's JPEG."""
        return (bytes(row) for row in self.rows)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RecordPngs:
    """PNG steps of a colour camera, decoded one at a time."""

    spec: CameraSpec
    rows: Sequence[memoryview]

    def __len__(self) -> int:
        return len(self.rows)

    def arrays(self) -> Iterator[NDArray[np.uint8]]:
        """Each step's picture, (height, width, 3) uint8. Raises EpisodeError for gray, 16 bits or transparency."""
        for index, row in enumerate(self.rows):
            picture = _decoded(row, self.spec.name, index)
            if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
                raise EpisodeError(
                    f"camera '{self.spec.name}' step {index} is a PNG of {picture.dtype} {picture.shape}, no RGB "
                    f"picture. Correct cameras: in the rig."
                )
            yield picture.astype(np.uint8, copy=False)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RecordDepths:
    """PNG steps of a depth camera, decoded one at a time."""

    spec: CameraSpec
    rows: Sequence[memoryview]

    def __len__(self) -> int:
        return len(self.rows)

    def depths(self) -> Iterator[NDArray[np.uint16]]:
        """Each step's depth, (height, width) uint16. Raises EpisodeError for anything else."""
        for index, row in enumerate(self.rows):
            depth = np.squeeze(_decoded(row, self.spec.name, index))
            if depth.dtype not in (np.uint8, np.uint16) or depth.ndim != 2:
                raise EpisodeError(
                    f"camera '{self.spec.name}' step {index} is a PNG of {depth.dtype} {depth.shape}, no depth. "
                    f"Correct cameras: in the rig."
                )
            yield depth.astype(np.uint16)


def _decoded(row: memoryview, camera: str, index: int) -> NDArray[np.generic]:
    import imagecodecs

    try:
        return np.asarray(imagecodecs.png_decode(bytes(row)))
    except imagecodecs.PngError as error:
        raise EpisodeError(f"camera '{camera}' step {index}: a PNG does not decode ({error}).") from None


def camera_stream(
    name: str, ours: str, camera: Camera, feature: TfdsFeature, rows: Sequence[memoryview]
) -> CameraStream:
    """One camera of one episode. Raises EpisodeError where a step holds neither JPEG nor PNG, or both occur."""
    kinds = {encoding_of(row) for row in rows}
    if len(kinds) != 1 or None in kinds:
        bad = next(index for index, row in enumerate(rows) if encoding_of(row) != encoding_of(rows[0]) or None in kinds)
        raise EpisodeError(
            f"{name}: camera '{ours}' holds no JPEG or PNG like the others at step {bad} ({len(rows[bad])} bytes). "
            f"Drop the episode or the camera."
        )
    jpeg = kinds == {"jpeg"}
    if camera.depth_unit_m is not None and jpeg:
        raise EpisodeError(f"{name}: camera '{ours}' holds JPEGs, no depth. Take depth_unit_m out of the rig.")
    height, width = picture_size(rows[0]) if None in feature.shape[:2] or len(feature.shape) < 2 else feature.shape[:2]
    spec = CameraSpec(
        name=ours,
        height=int(height or 0),
        width=int(width or 0),
        encoding="jpeg" if jpeg else "raw",
        channel_order=(camera.jpeg_channel_order or camera.channel_order) if jpeg else camera.channel_order,
        orientation=camera.orientation,
        depth_unit_m=camera.depth_unit_m,
    )
    if jpeg:
        return RecordJpegs(spec=spec, rows=rows)
    return RecordPngs(spec=spec, rows=rows) if camera.depth_unit_m is None else RecordDepths(spec=spec, rows=rows)


def encoding_of(row: memoryview) -> str | None:
    """ "jpeg", "png" or None, by the first bytes."""
    head = bytes(row[:8])
    return "jpeg" if head.startswith(_JPEG) else "png" if head == _PNG else None


def picture_size(row: memoryview) -> tuple[int, int]:
    """(height, width) of a JPEG or PNG, from its header; (0, 0) for other bytes."""
    match encoding_of(row):
        case "jpeg":
            import simplejpeg

            height, width = simplejpeg.decode_jpeg_header(bytes(row))[:2]
            return int(height), int(width)
        case "png":
            return int.from_bytes(row[20:24], "big"), int.from_bytes(row[16:20], "big")
        case _:
            return 0, 0
