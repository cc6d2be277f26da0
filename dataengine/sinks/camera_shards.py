"""The shards of one camera of a new store: filled by workers already, linked from an older version, or written here."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dataengine.frame_store import SHARD_FRAMES, FrameStore, chunk_name
from dataengine.sinks.frame_shards import Stretch, finish_shard, write_shard
from dataengine.sinks.mp4_tables import stat_of
from dataengine.sinks.parts import Part, link_or_copy
from dataengine.sinks.shard_plan import planned_shard
from schemas.errors import ArtifactError

SEPARATOR = "."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CameraShards:
    """Each shard is known from where the parts begin, so that several can be written at once."""

    folder: Path  # the camera's array
    key: str
    parts: Sequence[Part]
    ends: NDArray[np.int64]  # of the parts, in rows of the store

    def numbers(self) -> range:
        """Of all shards."""
        return range(-(-int(self.ends[-1]) // SHARD_FRAMES))

    def take_planned(self, number: int) -> bool:
        """Move a shard that workers filled to its place, if every picture of it is wanted where the plan put it."""
        folder = self._planned_folder(number)
        if folder is None:
            return False
        pieces = list(self._pieces(number))
        path = planned_shard(folder, self.key, number)
        sizes = np.concatenate([piece.sizes for piece in pieces if isinstance(piece, Stretch)])
        if not finish_shard(path, sizes):
            return False
        os.rename(path, self._path(number))
        self._check_raw(number)
        return True

    def link_kept(self, number: int) -> bool:
        """Link the shard of an older version whose pictures stay the same ones in the same places."""
        source = self._same_shard(number)
        if source is None:
            return False
        link_or_copy(_shard_of(source, self.key, number), self._path(number))
        return True

    def write(self, number: int) -> None:
        """Copy every picture from where it lies."""
        write_shard(self._path(number), list(self._pieces(number)))
        self._check_raw(number)  # a raw file may have been written to meanwhile

    def _path(self, number: int) -> Path:
        return self.folder / chunk_name(number, 4, SEPARATOR)

    def _rows(self, number: int) -> range:
        return range(number * SHARD_FRAMES, min((number + 1) * SHARD_FRAMES, int(self.ends[-1])))

    def _inside(self, number: int) -> range:
        """Parts of which pictures lie in a shard."""
        rows = self._rows(number)
        low, high = np.searchsorted(self.ends, (rows.start, rows.stop - 1), side="right").tolist()
        return range(low, high + 1)

    def _start(self, index: int) -> int:
        """First row of a part in the store."""
        return int(self.ends[index]) - self.parts[index].staged.num_frames

    def _planned_folder(self, number: int) -> Path | None:
        """Where workers put all pictures of a shard; None where not all of them are where the plan put them."""
        found: set[tuple[Path, int]] = set()
        for index in self._inside(number):
            part = self.parts[index]
            frames = part.staged.cameras[self.key].frames
            planned = frames.planned if frames is not None and part.frames is None else None
            if planned is None or planned.first != self._start(index):
                return None
            found.add((part.staged.folder.parent / planned.folder, planned.num_rows))
        folder, num_rows = found.pop()
        # of the last one, pictures of episodes that were not accepted may come after these rows
        ends_alike = min(num_rows, (number + 1) * SHARD_FRAMES) == self._rows(number).stop
        return folder if ends_alike and not found else None

    def _same_shard(self, number: int) -> Path | None:
        """The store whose shard of the same number holds just these rows in these places; None where none does."""
        inside = self._inside(number)
        stores = {part.frames.store if (part := self.parts[index]).frames else None for index in inside}
        store = stores.pop()
        if stores or store is None:
            return None
        for index in inside:
            kept = self.parts[index].frames
            if kept is None or kept.first != self._start(index):
                return None
        # the last shard of a store may be partial: it is the same only where it ends in the same row
        num_frames = _open_store(store).episode_ends[-1]
        return store if min(num_frames, (number + 1) * SHARD_FRAMES) == self._rows(number).stop else None

    def _pieces(self, number: int) -> Iterator[Stretch | bytes]:
        rows = self._rows(number)
        for index in self._inside(number):
            start = self._start(index)
            yield from self._pictures(
                index, max(rows.start, start) - start, min(rows.stop, int(self.ends[index])) - start
            )

    def _pictures(self, index: int, first: int, stop: int) -> Iterator[Stretch | bytes]:
        """Pictures [first, stop) of part `index`."""
        kept = self.parts[index].frames
        if kept is not None:
            store = FrameStore.open(kept.store)  # one of its own: a store is not shared between threads
            for frame in range(first, stop):
                yield store.jpeg(self.key, kept.first + frame)
            store.close()
            return
        staged = self.parts[index].staged
        found, frames = _sizes_and_places(staged.folder / f"{self.key}.npy"), staged.cameras[self.key].frames
        if frames is None or frames.source is None:
            offsets = np.cumsum(found) - found
            blob = staged.folder / f"{self.key}.jpegs"
            yield Stretch(path=blob, offsets=offsets[first:stop], sizes=found[first:stop])
            return
        self._check_unchanged(index)
        yield Stretch(path=frames.source, offsets=found[1, first:stop], sizes=found[0, first:stop])

    def _check_raw(self, number: int) -> None:
        for index in self._inside(number):
            self._check_unchanged(index)

    def _check_unchanged(self, index: int) -> None:
        """Raise ArtifactError where the raw file of a part is no longer the one that was read."""
        frames = self.parts[index].staged.cameras[self.key].frames
        if self.parts[index].frames is not None or frames is None or frames.source is None:
            return
        if frames.file_stat is None or stat_of(frames.source) != tuple(frames.file_stat):
            raise ArtifactError(f"{frames.source.name} changed while it was converted. Run the command again.")


def _shard_of(store: Path, key: str, number: int) -> Path:
    """A shard of an older version, whose names may be another layout's."""
    opened = _open_store(store)
    return (opened.cameras.get(key) or opened.depth_cameras[key]).shard_path(number)


@lru_cache(maxsize=64)  # neighbouring shards ask for the same one
def _sizes_and_places(path: Path) -> NDArray[np.int64]:
    found: NDArray[np.int64] = np.load(path)
    return found


@lru_cache(maxsize=8)
def _open_store(path: Path) -> FrameStore:
    return FrameStore.open(path)
