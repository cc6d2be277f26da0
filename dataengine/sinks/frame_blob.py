"""The pictures of one camera of one staged episode, in one file, as the frame store will take them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataengine.sinks.packets import stat_of
from dataengine.sinks.pictures import Picture, encode_jpeg, resized
from dataengine.sinks.staging import StagedFrames, StageFrames
from schemas.episodes import CameraSpec


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RawPlaces:
    """Where the JPEGs of a camera lie in its raw file; copied from there into shards, they are written once."""

    path: Path
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, stream: Any) -> "RawPlaces | None":  # noqa: ANN401 - any stream may say where its bytes lie
        """Of a stream that knows `path` and `offsets`."""
        offsets = getattr(stream, "offsets", None)
        return None if offsets is None else cls(path=stream.path.resolve(), offsets=offsets)


class FrameBlob:
    """All JPEGs of one camera of one episode, back to back in `<camera>.jpegs`, lengths in `<camera>.npy`.

    With `places`, source bytes stay where they are: `<camera>.npy` then holds (2, rows) lengths and offsets.
    """

    def __init__(
        self, folder: Path, key: str, spec: CameraSpec, job: StageFrames, places: RawPlaces | None = None
    ) -> None:
        self._path = folder / f"{key}.jpegs"
        self._job = job
        self._spec = spec
        self._lengths: list[int] = []
        self._places = places if self._passes_through else None
        self._file_stat = None if self._places is None else stat_of(self._places.path)
        self._file = None if self._places is not None else self._path.open("wb")

    @property
    def _passes_through(self) -> bool:
        return self._spec.encoding == "jpeg" and self._job.frame_size is None

    @property
    def _subsampling(self) -> str:
        # 4:4:4 keeps thin coloured writing, at about a quarter more bytes; video has lost it already
        return "444" if self._spec.encoding in ("raw", "jpeg") else "420"

    def add(self, picture: Picture) -> None:
        """Append the source's bytes where they may stay, freshly encoded upright RGB otherwise."""
        if self._passes_through and picture.jpeg is not None:
            jpeg = picture.jpeg
        else:
            width, height = self._job.frame_size or (self._spec.width, self._spec.height)
            rgb = resized(picture.rgb(), width, height)
            jpeg = encode_jpeg(rgb, quality=self._job.quality, subsampling=self._subsampling)
        self._lengths.append(len(jpeg))
        if self._file is not None:
            self._file.write(jpeg)

    def row(self, *, copied: bool) -> StagedFrames:
        """What was written."""
        copied = copied and self._passes_through
        width, height = self._job.frame_size or (self._spec.width, self._spec.height)
        return StagedFrames(
            width=width,
            height=height,
            channel_order=self._spec.channel_order if copied else "rgb",
            orientation=self._spec.orientation if copied else "upright",
            copied=copied,
            subsampling=None if copied else self._subsampling,
            source=self._places.path if self._places else None,
            file_stat=self._file_stat,
        )

    def __enter__(self) -> "FrameBlob":
        return self

    def __exit__(self, *_: object) -> None:
        lengths = np.asarray(self._lengths, dtype=np.int64)
        if self._file is not None:
            self._file.close()
        elif self._places is not None:
            lengths = np.stack([lengths, self._places.offsets[: len(lengths)]])
        np.save(self._path.with_suffix(".npy"), lengths)


class DepthBlob:
    """All depth pictures of one camera of one episode: raw little-endian values, each compressed by itself."""

    def __init__(self, folder: Path, key: str, spec: CameraSpec) -> None:
        from numcodecs import Zstd

        self._path = folder / f"{key}.jpegs"  # the name the store's writer looks for, whatever is inside
        self._spec = spec
        self._zstd = Zstd(level=1)  # the sensor's noise leaves little to gain by looking longer
        self._lengths: list[int] = []
        self._dtype = ""
        self._file = self._path.open("wb")

    def add(self, depth: NDArray[Any]) -> None:
        """Append one picture."""
        self._dtype = depth.dtype.name
        content = self._zstd.encode(np.ascontiguousarray(depth, dtype=depth.dtype.newbyteorder("<")))
        self._lengths.append(len(content))
        self._file.write(content)

    def row(self) -> StagedFrames:
        """What was written."""
        return StagedFrames(
            width=self._spec.width,
            height=self._spec.height,
            channel_order=self._spec.channel_order,
            orientation=self._spec.orientation,
            copied=True,
            subsampling=None,
            encoding="zstd",
            dtype=self._dtype,
        )

    def __enter__(self) -> "DepthBlob":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        np.save(self._path.with_suffix(".npy"), np.asarray(self._lengths, dtype=np.int64))
