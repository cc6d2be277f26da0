"""Where each picture goes, known before any is read, so that a worker writes it while it still lies in the cache.

Row counts and sizes of JPEGs stand in the headers of raw files. If every episode is accepted, they say in which shard
and at which byte each picture belongs. The same bytes go to the same place whoever writes them: a worker that outlives
a killed run does no harm, and with other raw files a plan has another folder. What turns out not to be as planned, the
commit writes from the raw files.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import xxhash
from numpy.typing import NDArray

from dataengine.frame_store import SHARD_FRAMES
from dataengine.sinks.staging import PlannedRows, boot_id, unwritable
from schemas.errors import EpisodeError
from schemas.records import sha256_of

_FOLDER = "shards."
# What numpy and h5py raise for headers that state nonsense; here one such episode would end the run.
_DAMAGED = (ArithmeticError, LookupError, MemoryError, TypeError, ValueError)

type Sizes = Mapping[str, NDArray[np.int64]]  # camera -> bytes of each of its JPEGs


@dataclass(frozen=True, slots=True, kw_only=True)
class _Start:
    """Where the first picture of one camera of one episode goes."""

    row: int  # in the store
    offset: int  # in the shard of that row
    sizes_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardPlan:
    """The places of all pictures of a conversion; small, whatever the number of pictures."""

    folder: Path  # in the staging root
    boot: str  # of the machine that shares a page cache: elsewhere, writing to one file beside others is not safe
    starts: Mapping[str, Mapping[str, _Start]]  # episode -> camera
    num_rows: int

    @classmethod
    def of(
        cls, staging: Path, boot: str, stamps: Mapping[str, str], sizes_of: Callable[[str], Sizes]
    ) -> "ShardPlan | None":
        """Of all episodes in the order of `stamps`; None where a readable one does not state the sizes of its JPEGs.

        An episode of which `sizes_of` raises an error will be rejected, and takes no place.
        """
        starts: dict[str, dict[str, _Start]] = {}
        offsets: dict[str, int] = {}
        row = 0
        for name in stamps:
            try:
                sizes = sizes_of(name)
            except (EpisodeError, *_DAMAGED):
                continue  # whoever reads it meets the same, and the reason becomes a row
            rows = {len(found) for found in sizes.values()}
            if not rows or (starts and offsets.keys() != sizes.keys()):
                return None
            if len(rows) > 1:
                continue
            starts[name] = {
                camera: _Start(row=row, offset=offsets.get(camera, 0), sizes_hash=_hash(found))
                for camera, found in sizes.items()
            }
            offsets = {camera: _end(offsets.get(camera, 0), row, found) for camera, found in sizes.items()}
            row += rows.pop()
        if not starts:
            return None
        places = [[name, camera, *astuple(start)] for name, found in starts.items() for camera, start in found.items()]
        identity = sha256_of({"stamps": list(stamps.items()), "places": places})
        return cls(folder=staging / f"{_FOLDER}{identity[:20]}", boot=boot, starts=starts, num_rows=row)

    def prepare(self) -> None:
        """Make the folder, by whoever runs the job and never by a worker; those of other plans are of no use."""
        drop_plans(self.folder.parent, but=self.folder)
        self.folder.mkdir(exist_ok=True)

    def copies(self, name: str) -> "EpisodeCopies":
        """What one worker writes of one episode; a context manager."""
        return EpisodeCopies(plan=self, name=name)


def _hash(sizes: NDArray[np.int64]) -> str:
    return xxhash.xxh3_128_hexdigest(np.ascontiguousarray(sizes))


def _end(offset: int, row: int, sizes: NDArray[np.int64]) -> int:
    """Where in its shard the next episode begins, after one whose first picture is `row` of the store, at `offset`."""
    before = (row + len(sizes)) // SHARD_FRAMES * SHARD_FRAMES - row  # pictures that do not lie in the next one's shard
    return int(sizes[before:].sum()) if before > 0 else offset + int(sizes.sum())


@dataclass(slots=True, kw_only=True)
class EpisodeCopies:
    """The cameras of one episode, on their way into the planned shards."""

    plan: ShardPlan
    name: str
    _open: ExitStack = field(default_factory=ExitStack)

    def of(self, camera: str, sizes: NDArray[np.int64]) -> "CameraCopy | None":
        """Who takes the pictures of one camera; None where they are not as planned, or this is another machine."""
        start = self.plan.starts.get(self.name, {}).get(camera)
        if start is None or self.plan.boot != boot_id() or start.sizes_hash != _hash(sizes):
            return None
        path = self.plan.folder / camera
        place = PlannedRows(folder=self.plan.folder.name, first=start.row, num_rows=self.plan.num_rows)
        return self._open.enter_context(
            CameraCopy(name=self.name, path=path, place=place, row=start.row, offset=start.offset)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()


@dataclass(slots=True, kw_only=True)
class CameraCopy:
    """Writes the pictures of one camera of one episode to their places, in order."""

    name: str  # of the episode
    path: Path  # of all its shards, without their numbers
    place: PlannedRows
    row: int  # of the next picture
    offset: int  # of it in its shard
    _handle: int = -1

    def write(self, pictures: Sequence[bytes | memoryview]) -> None:
        """Write the next ones. Raises ArtifactError where the disk can not take them."""
        with self._blamed():
            while pictures:
                inside = pictures[: SHARD_FRAMES - self.row % SHARD_FRAMES]
                self._write_inside(inside)
                self.row += len(inside)
                if self.row % SHARD_FRAMES == 0:
                    self._close()
                    self.offset = 0
                pictures = pictures[len(inside) :]

    @contextmanager
    def _blamed(self) -> Iterator[None]:
        """A source would take an OSError for a damaged raw file, and the episode would be rejected."""
        try:
            yield
        except OSError as error:
            fault = str(error.strerror) if self.path.parent.is_dir() else "it was removed"
            raise unwritable(self.name, fault) from error

    def _write_inside(self, pictures: Sequence[bytes | memoryview]) -> None:
        if self._handle < 0:
            path = planned_shard(self.path.parent, self.path.name, self.row // SHARD_FRAMES)
            self._handle = os.open(path, os.O_CREAT | os.O_WRONLY, 0o666)
        end = self.offset + sum(map(len, pictures))
        self.offset += os.pwritev(self._handle, pictures, self.offset)
        rest = memoryview(b"".join(pictures))[self.offset - end :] if self.offset < end else b""
        while rest:  # on a disk that is almost full; the next write says so
            done = os.pwrite(self._handle, rest, self.offset)
            self.offset, rest = self.offset + done, rest[done:]

    def _close(self) -> None:
        if self._handle >= 0:
            handle, self._handle = self._handle, -1
            os.close(handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._blamed():  # a network disk may refuse what was written only now
            self._close()


def planned_shard(folder: Path, camera: str, number: int) -> Path:
    """Where workers write the n-th shard of a camera."""
    return folder / f"{camera}.{number}"


def drop_plans(staging: Path, *, but: Path | None = None) -> None:
    """Remove what workers put into planned shards: of no use, or to be written anew, and never twice on the disk."""
    for folder in staging.glob(f"{_FOLDER}*"):
        if folder != but:
            shutil.rmtree(folder, ignore_errors=True)  # a worker that outlives a killed run may still be adding to it
