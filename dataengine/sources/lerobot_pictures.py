"""Pictures stored in the rows themselves: a struct of encoded bytes or the path of a file, one for each row.

JPEG bytes are handed on untouched; PNG and TIFF, which lose nothing, as arrays.
"""

import io
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from dataengine.sources.lerobot_info import BOOKKEEPING, Info, is_inside
from dataengine.sources.lerobot_rows import EpisodeRows
from schemas.episodes import CameraSpec, CameraStream
from schemas.errors import EpisodeError
from schemas.records import sha256_of
from schemas.rigs import Camera

_JPEG_START = b"\xff\xd8"
_PNG_START, _PNG_END = b"\x89PNG", b"IEND\xaeB`\x82"
_COLOUR_MODES = ("RGB", "L", "P")
_DEPTH_MODES = ("I;16", "I;16B", "F")


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureRows:
    """The encoded pictures of one camera, row by row."""

    rows: EpisodeRows
    key: str
    root: Path  # paths in the rows are relative to it

    def encoded(self) -> Iterator[bytes]:
        """The bytes of each picture. Raises EpisodeError for a row without one."""
        for number, cell in enumerate(self.rows.cells(self.key)):
            yield self._bytes(cell, number)

    def digest(self) -> str:
        """Hex hash of all pictures, whatever their files are called: names count episodes."""
        whole = xxhash.xxh3_128()
        for number, cell in enumerate(self.rows.cells(self.key)):
            try:
                raw = self._bytes(cell, number)
            except EpisodeError:  # where the rig takes the camera, `encoded` says so
                raw = b""
            whole.update(len(raw).to_bytes(8, "little"))
            whole.update(raw)
        return whole.hexdigest()

    def _bytes(self, cell: Any, number: int) -> bytes:  # noqa: ANN401 - whatever the column holds
        raw = cell.get("bytes") if isinstance(cell, dict) else cell
        path = cell.get("path") if isinstance(cell, dict) else None
        if raw is None and isinstance(path, str):
            raw = self._file(path, number)
        if not isinstance(raw, bytes) or not raw:
            raise EpisodeError(
                f"{self.rows.label}: {self.key} has no picture at row {number}. Repair or drop the episode."
            )
        return raw

    def _file(self, path: str, number: int) -> bytes:
        where = f"{self.rows.label}: {self.key} is in {path} at row {number}, which"
        if not is_inside(path):
            raise EpisodeError(f"{where} is not in the dataset's folder. Drop the episode.")
        file = self.root / path
        try:
            if file.is_file():  # a pipe or a device would be read forever
                return file.read_bytes()
        except OSError:
            pass
        raise EpisodeError(f"{where} can not be read. Copy it again.")


@dataclass(frozen=True, slots=True, kw_only=True)
class JpegRows:
    """A camera whose rows are JPEGs."""

    spec: CameraSpec
    pictures: PictureRows

    def __len__(self) -> int:
        return len(self.pictures.rows)

    def jpegs(self) -> Iterator[bytes]:
        """The bytes as stored."""
        for number, raw in enumerate(self.pictures.encoded()):
            if not raw.startswith(_JPEG_START):
                raise EpisodeError(
                    f"{self.pictures.rows.label}: {self.pictures.key} is no JPEG at row {number}, as the first one is. "
                    f"Drop the episode."
                )
            yield raw


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelRows:
    """A camera whose rows are PNGs or TIFFs in colour or gray."""

    spec: CameraSpec
    pictures: PictureRows

    def __len__(self) -> int:
        return len(self.pictures.rows)

    def arrays(self) -> Iterator[NDArray[np.uint8]]:
        """(height, width, 3) each."""
        for number, raw in enumerate(self.pictures.encoded()):
            with _opened(raw, self.pictures, number) as picture:
                yield np.asarray(_checked(picture, self.pictures, number, _COLOUR_MODES).convert("RGB"))


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthRows:
    """A depth camera whose rows are 16-bit PNGs or float TIFFs."""

    spec: CameraSpec
    pictures: PictureRows

    def __len__(self) -> int:
        return len(self.pictures.rows)

    def depths(self) -> Iterator[NDArray[np.uint16] | NDArray[np.float32]]:
        """(height, width) each, values as stored."""
        for number, raw in enumerate(self.pictures.encoded()):
            with _opened(raw, self.pictures, number) as picture:
                mode = _checked(picture, self.pictures, number, _DEPTH_MODES).mode
                yield np.asarray(picture, np.float32) if mode == "F" else np.asarray(picture, np.uint16)


def content_digest(
    rows: EpisodeRows, root: Path, info: Info, leave_out: Collection[str], stamps: Mapping[str, NDArray[np.int64]]
) -> str:
    """Hex sha256 of what the rows hold, the same wherever in the dataset the episode lies.

    Row and episode numbers, and times that only count frames, are bookkeeping; `stamps` are the times that say more.
    """
    stored = rows.schema().names
    pictured = [key for key in info.keys("image") if key in stored]
    counted = [key for key in BOOKKEEPING if not (key == "timestamp" and stamps)]
    return sha256_of(
        {
            "columns": rows.digest((*counted, *pictured, *leave_out)),
            "pictures": {key: PictureRows(rows=rows, key=key, root=root).digest() for key in pictured},
        }
    )


def picture_stream(pictures: PictureRows, name: str, camera: Camera) -> CameraStream:
    """A camera stored in the rows; the first picture tells its size and encoding."""
    first = next(pictures.encoded(), None)
    if first is None:
        raise EpisodeError(f"{pictures.rows.label}: {pictures.key} has no row. Drop the episode.")
    with _opened(first, pictures, 0) as picture:
        height, width = picture.height, picture.width
    jpeg = first.startswith(_JPEG_START)
    spec = CameraSpec(
        name=name,
        height=height,
        width=width,
        encoding="jpeg" if jpeg else "raw",
        channel_order="bgr" if camera.channel_order == "bgr" else "rgb",
        orientation=camera.orientation,
        depth_unit_m=camera.depth_unit_m,
    )
    if camera.depth_unit_m is not None:
        return DepthRows(spec=spec, pictures=pictures)
    return JpegRows(spec=spec, pictures=pictures) if jpeg else PixelRows(spec=spec, pictures=pictures)


def _opened(raw: bytes, pictures: PictureRows, number: int) -> Any:  # noqa: ANN401 - Pillow's picture
    from PIL import Image, UnidentifiedImageError

    # Pillow takes a PNG that was cut behind its last row of pixels, and where somebody asked it to, any cut one.
    if raw.startswith(_PNG_START) and not raw.rstrip(b"\x00").endswith(_PNG_END):
        raise EpisodeError(_damaged(pictures, number))
    try:
        return Image.open(io.BytesIO(raw))
    except (UnidentifiedImageError, OSError):
        raise EpisodeError(_damaged(pictures, number)) from None


def _checked(picture: Any, pictures: PictureRows, number: int, modes: tuple[str, ...]) -> Any:  # noqa: ANN401
    """The picture decoded, its kind of pixels known."""
    if picture.mode not in modes:
        raise EpisodeError(
            f"{pictures.rows.label}: {pictures.key} has {picture.mode} pixels at row {number}, not "
            f"{' or '.join(modes)}. Say depth_unit_m in the rig where it is depth, else drop the camera."
        )
    try:
        picture.load()
    except (OSError, SyntaxError):  # Pillow says a broken PNG with a SyntaxError
        raise EpisodeError(_damaged(pictures, number)) from None
    return picture


def _damaged(pictures: PictureRows, number: int) -> str:
    return f"{pictures.rows.label}: {pictures.key} has a damaged picture at row {number}. Repair or drop the episode."
