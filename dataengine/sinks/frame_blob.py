"""The JPEGs of one camera of one staged episode, in one file, as the frame store will take them."""

from pathlib import Path

import numpy as np

from dataengine.sinks.pictures import Picture, encode_jpeg, resized
from dataengine.sinks.staging import StagedFrames, StageFrames
from schemas.episodes import CameraSpec


class FrameBlob:
    """All JPEGs of one camera of one episode, back to back in `<camera>.jpegs`, lengths in `<camera>.npy`."""

    def __init__(self, folder: Path, key: str, spec: CameraSpec, job: StageFrames) -> None:
        self._path = folder / f"{key}.jpegs"
        self._job = job
        self._spec = spec
        self._lengths: list[int] = []
        self._file = self._path.open("wb")

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
        )

    def __enter__(self) -> "FrameBlob":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        np.save(self._path.with_suffix(".npy"), np.asarray(self._lengths, dtype=np.int64))
