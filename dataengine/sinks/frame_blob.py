"""The pictures of one camera of one staged episode, in one file, as the frame store will take them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataengine.sinks.mp4_tables import FileStat
from dataengine.sinks.pictures import Picture, encode_jpeg, resized
from dataengine.sinks.staging import PlannedRows, StagedFrames, StageFrames
from schemas.episodes import CameraSpec


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RawPlaces:
    """Where the JPEGs of a camera lie in its raw file; copied from there into shards, they are written once."""

    path: Path
    offsets: NDArray[np.int64]
    lengths: NDArray[np.int64]
    content: str  # xxh3 of the length and the bytes of each, all of which were looked at
    file_stat: FileStat  # before they were read: while the file has these, they are what was read
    planned: PlannedRows | None

    @classmethod
    def of(cls, stream: Any, job: StageFrames | None) -> "RawPlaces | None":  # noqa: ANN401 - any stream may have places
        """Of a stream that checked its JPEGs when it was opened and knows their places, if the job takes them so."""
        if job is None or not _passes_through(stream.spec, job) or getattr(stream, "offsets", None) is None:
            return None
        return cls(
            path=stream.path.resolve(),
            offsets=stream.offsets,
            lengths=stream.lengths,
            content=stream.content,
            file_stat=stream.file_stat,
            planned=stream.planned,
        )

    def stage(self, folder: Path, key: str, spec: CameraSpec) -> StagedFrames:
        """Note the places: `<camera>.npy` holds (2, rows) lengths and offsets, and there is no `<camera>.jpegs`."""
        np.save(folder / f"{key}.npy", np.stack([self.lengths, self.offsets]))
        return StagedFrames(
            width=spec.width,
            height=spec.height,
            channel_order=spec.channel_order,
            orientation=spec.orientation,
            copied=True,
            subsampling=None,
            source=self.path,
            file_stat=self.file_stat,
            planned=self.planned,
        )


def _passes_through(spec: CameraSpec, job: StageFrames) -> bool:
    return spec.encoding == "jpeg" and job.frame_size is None


class FrameBlob:
    """All JPEGs of one camera of one episode, back to back in `<camera>.jpegs`, lengths in `<camera>.npy`."""

    def __init__(self, folder: Path, key: str, spec: CameraSpec, job: StageFrames) -> None:
        self._path = folder / f"{key}.jpegs"
        self._job = job
        self._spec = spec
        self._lengths: list[int] = []
        self._file = self._path.open("wb")

    @property
    def _subsampling(self) -> str:
        # 4:4:4 keeps thin coloured writing, at about a quarter more bytes; video has lost it already
        return "444" if self._spec.encoding in ("raw", "jpeg") else "420"

    def add(self, picture: Picture) -> None:
        """Append the source's bytes where they may stay, freshly encoded upright RGB otherwise."""
        if _passes_through(self._spec, self._job) and picture.jpeg is not None:
            jpeg = picture.jpeg
        else:
            width, height = self._job.frame_size or (self._spec.width, self._spec.height)
            rgb = resized(picture.rgb(), width, height)
            jpeg = encode_jpeg(rgb, quality=self._job.quality, subsampling=self._subsampling)
        self._lengths.append(len(jpeg))
        self._file.write(jpeg)

    def row(self, *, copied: bool) -> StagedFrames:
        """What was written."""
        copied = copied and _passes_through(self._spec, self._job)
        width, height = self._job.frame_size or (self._spec.width, self._spec.height)
        return StagedFrames(
            width=width,
            height=height,
            channel_order=self._spec.channel_order if copied else "rgb",
            orientation=self._spec.orientation if copied else "upright",
            copied=copied,
            subsampling=None if copied else self._subsampling,
        )

    def __enter__(self) -> "FrameBlob":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        np.save(self._path.with_suffix(".npy"), np.asarray(self._lengths, dtype=np.int64))


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
