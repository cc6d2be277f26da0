"""One episode as a commit takes it: freshly staged, or lying in an artifact already.

An artifact keeps what its commit knew about every episode in `contents.parquet`. A later version takes such episodes
over without decoding anything: shards that stay whole are linked, the rest is copied packet by packet or JPEG by JPEG.
"""

import errno
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dataengine.sinks.staged_columns import Columns
from dataengine.sinks.staging import NO_STAMP, StagedCamera, StagedEpisode, load_columns
from dataengine.stats import Stats
from schemas.content_hashes import ContentHashes
from schemas.records import sha256_of
from schemas.spans import frame_ns

# Another device, a file system without links, one that is out of them, or one that does not allow them.
_NO_LINK = {errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.EACCES}


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What an edit must not lose of the recording an episode comes from."""

    start_frame: int  # rows that were cut off before the first one
    source_frames: int  # rows of the untrimmed episode
    clock_hash: str  # rate, rows and stamps of the untrimmed episode

    @classmethod
    def of(cls, staged: StagedEpisode, rate_hz: int) -> "Origin":
        """Of an episode that nobody has trimmed."""
        clock = {"rate_hz": rate_hz, "rows": staged.num_frames, "stamps_ns": staged.stamps_ns}
        return cls(start_frame=0, source_frames=staged.num_frames, clock_hash=sha256_of(clock))


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptRows:
    """Where the low-dimensional rows of an episode lie in the data parquet of an artifact."""

    path: Path
    group: int  # row group
    groups: int  # row groups in the file
    names: tuple[tuple[str, str], ...]  # (name now, name in the file) of every column but the automatic ones
    first: int = 0  # rows of the group that were cut off
    whole: bool = True  # every row and every column as it lies there
    place: tuple[int, int, int] = (0, 0, 0)  # episode index, first index and task index as written there


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptVideo:
    """Where the packets of one camera of an episode lie in a shard of an artifact."""

    path: Path
    first: int  # pictures before it in the shard


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptFrames:
    """Where the pictures of an episode lie in a frame store."""

    store: Path
    first: int  # rows before it in the store
    names: tuple[tuple[str, str], ...]  # (name now, name in the store) of every column


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What a commit knows about one episode, and where its bytes lie when they are not staged."""

    staged: StagedEpisode
    origin: Origin
    rows: KeptRows | None = None
    videos: Mapping[str, KeptVideo] = field(default_factory=dict)  # camera -> shard; without those staged anew
    frames: KeptFrames | None = None

    @classmethod
    def of(cls, episode: "StagedEpisode | Part", rate_hz: int) -> "Part":
        """A part as it is, or that of a staged episode."""
        return episode if isinstance(episode, Part) else cls(staged=episode, origin=Origin.of(episode, rate_hz))

    @property
    def is_trimmed(self) -> bool:
        """True where rows of the recording were cut off."""
        return self.staged.num_frames != self.origin.source_frames

    def content(self) -> dict[str, Any]:
        """What the fingerprint covers; an untrimmed episode counts the same however it got here."""
        trim = {"trim": [self.origin.start_frame, self.staged.num_frames]} if self.is_trimmed else {}
        return self.staged.content() | trim

    def hashes(self) -> ContentHashes:
        """What annotations about this episode depend on."""
        return ContentHashes(
            clock=self.origin.clock_hash,
            pixels={name: pixels_hash(camera) for name, camera in self.staged.cameras.items()},
            columns=sha256_of(self.staged.columns),
        )

    def start_ns(self, rate_hz: int) -> int:
        """Source time of the first row."""
        return frame_ns(self.origin.start_frame, rate_hz)

    def columns(self, stamps: Sequence[str]) -> Columns:
        """Features as (rows, dims), then `stamps` as (rows,), -1 where none was recorded."""
        return self.rows_and_stats(stamps)[0]

    def rows_and_stats(self, stamps: Sequence[str]) -> tuple[Columns, dict[str, Stats]]:
        """Features and stamps as `columns` gives them, and the statistics of those for which they were staged."""
        stats: dict[str, Stats] = {}
        match self:
            case Part(rows=KeptRows() as rows):
                found = _read_group(rows, self.staged.num_frames)
            case Part(frames=KeptFrames() as frames):
                found = _read_store(frames, self.staged)
            case _:
                found, stats = load_columns(self.staged)
        absent = np.full(self.staged.num_frames, NO_STAMP, dtype=np.int64)
        columns = {key: found[key] for key in self.staged.columns}
        columns |= {key: found[key].reshape(-1) if key in self.staged.stamps_ns else absent for key in stamps}
        return columns, stats


def pixels_hash(camera: StagedCamera) -> str:
    """Of what a camera shows: the source's pictures, and how colours and rows are read. Not of any encoder's output."""
    return sha256_of(
        {
            "kind": camera.content_kind,
            "content": camera.content,
            "channel_order": camera.channel_order,
            "orientation": camera.orientation,
            "size": [camera.width, camera.height],
            "depth_unit_m": camera.depth_unit_m,
        }
    )


def stamp_keys_of(parts: Sequence[Part]) -> tuple[str, ...]:
    """Columns of original stamps that any of the parts has."""
    return tuple(dict.fromkeys(key for part in parts for key in part.staged.stamps_ns))


def _read_group(rows: KeptRows, num_frames: int) -> Columns:
    import pyarrow.parquet as pq

    with pq.ParquetFile(rows.path, memory_map=True) as file:
        table = file.read_row_group(rows.group, columns=[then for _, then in rows.names])
    columns: Columns = {}
    for now, then in rows.names:
        column = table.column(then).combine_chunks()
        is_list = hasattr(column.type, "list_size")
        flat = (column.flatten() if is_list else column).to_numpy(zero_copy_only=False)
        columns[now] = flat.reshape(len(column), -1)[rows.first : rows.first + num_frames]
    return columns


def _read_store(frames: KeptFrames, staged: StagedEpisode) -> Columns:
    from dataengine.frame_store import FrameStore

    store = FrameStore.open(frames.store)
    return {now: store.column(then, frames.first, frames.first + staged.num_frames) for now, then in frames.names}


def link_or_copy(source: Path, target: Path) -> None:
    """The same file under another name; a copy where that can not be."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        shutil.copyfile(source, target)


def runs_of_one_file(parts: Sequence[Part]) -> Iterator[list[int]]:
    """Positions of neighbouring parts whose rows lie in the same data file; every other part alone."""
    run: list[int] = []
    for number, part in enumerate(parts):
        before = parts[run[-1]].rows if run else None
        if run and not (part.rows is not None and before is not None and part.rows.path == before.path):
            yield run
            run = []
        run.append(number)
    if run:
        yield run
