"""What bounds a conversion: the passes over the bytes and the second process, with no HDF5, no Ray and no artifact.

Two processes that are there already take half of the work each; only what they do is timed.
"""

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import xxhash

from dataengine.sources.hdf5_cameras import IMAGES, LENGTHS
from dataengine.sources.hdf5_content import open_hdf5, row_offsets

PROCESSES = 2
_BUFFER_BYTES = 1 << 20
_LOOP_STEPS = 12_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where the JPEGs of one camera lie in a file, in rising order."""

    path: Path
    offsets: list[int]
    lengths: list[int]

    def runs(self) -> Iterator[tuple[int, int]]:
        """Pictures [low, high) that fit into the buffer together."""
        low = 0
        for row in range(1, len(self.offsets) + 1):
            is_end = row == len(self.offsets)
            if is_end or self.offsets[row] + self.lengths[row] - self.offsets[low] > _BUFFER_BYTES:
                yield low, row
                low = row


def places_in(raw: Path) -> list[Places]:
    """Of every camera of every file that `convert_data.aloha` made; its chunks are neither filtered nor moved."""
    found = []
    for path in sorted(raw.glob("*.hdf5")):
        with open_hdf5(path) as file:
            for dataset, lengths in zip(file[IMAGES].values(), file[LENGTHS][()].astype(int).tolist(), strict=True):
                offsets = row_offsets(dataset)
                if offsets is None:
                    raise RuntimeError(f"{path.name}: rows have no places")
                found.append(Places(path=path, offsets=offsets.tolist(), lengths=lengths))
    return found


class Workers:
    """Processes that wait for work; use as a context manager."""

    def __init__(self) -> None:
        self._pool = ProcessPoolExecutor(PROCESSES, mp_context=multiprocessing.get_context("spawn"))

    def passes(self, places: list[Places], folder: Path, *, separate: bool) -> None:
        """Check, hash and copy every picture: in one pass over the bytes, or in two as a conversion does."""
        half = -(-len(places) // PROCESSES)
        parts = [(number, places[number * half : (number + 1) * half]) for number in range(PROCESSES)]
        for does_hash, does_write in ((True, False), (False, True)) if separate else ((True, True),):
            tasks = [
                self._pool.submit(_pass_over, part, folder / str(number), does_hash, does_write)
                for number, part in parts
            ]
            for task in tasks:
                task.result()

    def loops(self, processes: int) -> None:
        """The same loop in each of some processes, beside each other."""
        for task in [self._pool.submit(_loop) for _ in range(processes)]:
            task.result()

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()


def _pass_over(places: list[Places], folder: Path, does_hash: bool, does_write: bool) -> None:
    folder.mkdir(exist_ok=True)
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    for number, camera in enumerate(places):
        digest = xxhash.xxh3_128()
        with ExitStack() as stack:
            source = stack.enter_context(camera.path.open("rb", buffering=0))
            # making a file takes time of its own
            target = stack.enter_context((folder / str(number)).open("wb", buffering=0)) if does_write else None
            for low, high in camera.runs():
                start, stop = camera.offsets[low], camera.offsets[high - 1] + camera.lengths[high - 1]
                if os.preadv(source.fileno(), [buffer[: stop - start]], start) != stop - start:
                    raise RuntimeError(f"{camera.path.name} ended early")
                pictures = [
                    buffer[offset - start : offset - start + length]
                    for offset, length in zip(camera.offsets[low:high], camera.lengths[low:high], strict=True)
                ]
                for picture in pictures if does_hash else ():
                    if bytes(picture[:2]) != b"\xff\xd8" or bytes(picture[-2:]) != b"\xff\xd9":
                        raise RuntimeError(f"{camera.path.name}: a picture is cut off")
                    digest.update(len(picture).to_bytes(8, "little"))
                    digest.update(picture)
                if target is not None and os.writev(target.fileno(), pictures) != sum(map(len, pictures)):
                    raise RuntimeError("the disk is full")


def _loop() -> int:
    total = 0
    for step in range(_LOOP_STEPS):
        total += step
    return total
