"""A locked mix: any position to its draw, any draw to its sample, with no state but the lock.

A Mix can be pickled, forked and spawned: readers are opened by the process that uses them, on first use.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Any, cast

import numpy as np
from pydantic import ValidationError

from dataengine.mix.build import LOCK_FILE, ORDER_FILE
from dataengine.mix.order import DrawBlock, DrawOrder, interleave, order_key, shuffled
from dataengine.mix.resolve import largest_remainder
from dataengine.mix.sampling import ImageTextReader, RobotReader, open_reader
from dataengine.mix.splits import Split
from dataengine.workspace import Workspace
from schemas.errors import ArtifactError, MixError, RefError, did_you_mean
from schemas.mixes import MIX_SCHEMA, Draw, MixLock, Sample
from schemas.normalization import Normalizer
from schemas.records import Record, sha256_of
from schemas.refs import Kind, Ref

_BLOCK = 1024  # draws computed at once: 2 us each in a block, 300 us alone


class Mix:
    """One `mixes/NAME@VERSION`. Positions count from 0 and go on for ever; epoch = position // num_samples."""

    def __init__(self, workspace: Workspace, ref: Ref, record: Record, lock: MixLock) -> None:
        self.workspace = workspace
        self.ref = ref
        self.record = record
        self.lock = lock
        self.fingerprint = record.fingerprint
        self.num_samples = lock.num_samples
        self._pid = os.getpid()
        self._readers: dict[tuple[str, Split], RobotReader | ImageTextReader] = {}
        self._opening = Lock()  # threads of one process share readers
        self._order: DrawOrder | None = None
        self._block: tuple[int, DrawBlock] | None = None

    @classmethod
    def open(cls, workspace: Workspace, ref: Ref) -> "Mix":
        """Raises RefError when absent, MixError when an artifact it needs is gone or not the one it was locked to."""
        folder = workspace.find("mixes", ref)
        record = workspace.record("mixes", ref)
        try:
            lock = MixLock.model_validate_json((folder / LOCK_FILE).read_bytes())
        except (OSError, ValidationError) as error:
            reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error.strerror
            raise ArtifactError(f"mix '{ref}': {LOCK_FILE} is damaged ({reason}). Build the mix again.") from None
        if lock.schema_version != MIX_SCHEMA:
            raise MixError(
                f"mix '{ref}' has schema version {lock.schema_version}; this program reads {MIX_SCHEMA}. "
                "Build it again."
            )
        if sha256_of(lock.model_dump(mode="json")) != record.fingerprint:
            raise ArtifactError(f"mix '{ref}': {LOCK_FILE} was changed after it was built. Restore it or build again.")
        _check_inputs(workspace, ref, record)
        return cls(workspace, ref, record, lock)

    @property
    def folder(self) -> Path:
        """Where the mix lies."""
        return self.workspace.path("mixes", self.ref)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the sources, in the order of the mix file."""
        return tuple(source.name for source in self.lock.sources)

    def normalizer(self, embodiment: str) -> Normalizer:
        """How the numbers of one embodiment become what the model sees. Raises MixError for an unknown one."""
        value = self.lock.normalizers.get(embodiment)
        if value is None:
            known = did_you_mean(embodiment, self.lock.normalizers)
            raise MixError(f"mix '{self.ref}' holds no embodiment '{embodiment}'. {known}")
        return Normalizer.from_json(cast("dict[str, Any]", value))

    def draw(self, position: int) -> Draw:
        """The draw at a position: a pure function of lock, seed and position."""
        start = position - position % _BLOCK
        kept = self._block  # one read: another thread may replace it
        if kept is None or kept[0] != start:
            kept = self._block = (start, self.draws(start, _BLOCK))
        block, place = kept[1], position - start
        return Draw(
            position=position,
            source=self.names[int(block.source[place])],
            item=int(block.item[place]),
            repeat=int(block.repeat[place]),
        )

    def draws(self, start: int, count: int) -> DrawBlock:
        """The draws of `count` positions from `start` on, as arrays."""
        if self._order is None:
            self._order = DrawOrder(
                np.load(self.folder / ORDER_FILE, mmap_mode="r"),
                names=self.names,
                num_items=[source.num_items for source in self.lock.sources],
                num_draws=[source.num_draws for source in self.lock.sources],
                seed=self.lock.spec.seed,
            )
        return self._order.block(start, count)

    def sample(self, position: int) -> Sample:
        """The sample at a position, exactly as the model gets it."""
        draw = self.draw(position)
        return self.reader(draw.source).sample(draw)

    def validation_samples(self, n: int) -> Iterator[Sample]:
        """Up to `n` held-out samples, sources in the mix's shares, no item twice, always the same ones.

        A source that holds out nothing is left out; one that holds out too little gives all it has.
        """
        readers = [self.reader(name, "validation") for name in self.names]
        present = [number for number, reader in enumerate(readers) if len(reader)]
        if not present or n <= 0:
            return
        shares = largest_remainder([self.lock.sources[number].num_draws for number in present], n)
        counts = [min(share, len(readers[number])) for share, number in zip(shares, present, strict=True)]
        taken = [(number, count) for number, count in zip(present, counts, strict=True) if count]
        items = {
            number: iter(
                shuffled(
                    np.arange(count, dtype=np.int64),
                    len(readers[number]),
                    order_key(self.lock.spec.seed, f"validation/{self.names[number]}", 0),
                ).tolist()
            )
            for number, count in taken
        }
        period = interleave([count for _, count in taken])
        for position in range(sum(count for _, count in taken)):
            number = taken[int(period[position % len(period)])][0]
            draw = Draw(position=position, source=self.names[number], item=next(items[number]), repeat=0)
            yield readers[number].sample(draw)

    def reader(self, name: str, split: Split = "train") -> RobotReader | ImageTextReader:
        """The reader of one source, opened by this process on first use."""
        if self._pid != os.getpid():
            self._forget()
        key = (name, split)
        reader = self._readers.get(key)
        if reader is not None:
            return reader
        if name not in self.names:
            raise MixError(f"mix '{self.ref}' has no source '{name}'. {did_you_mean(name, self.names)}")
        with self._opening:
            if key not in self._readers:
                number = self.names.index(name)
                self._readers[key] = open_reader(number, self.lock, self.folder, self.workspace, split)
        return self._readers[key]

    def tree(self, *, first: int | None = None) -> str:
        """Stated, resolved and observed ratios as text; observed over the first draws (default: one pass)."""
        from dataengine.mix.showing import tree  # it reads mixes, so it imports this module

        return tree(self, first=first)

    def tree_rows(self, *, first: int | None = None) -> dict[str, Any]:
        """The same as plain JSON values."""
        from dataengine.mix.showing import mix_tree

        return mix_tree(self, first=first).to_json()

    def _forget(self) -> None:
        """Start without readers: file positions and decoders are not shared between processes."""
        self._pid = os.getpid()
        self._readers.clear()
        self._opening = Lock()  # the parent's may have been held when it forked

    def __reduce__(self) -> tuple[type["Mix"], tuple[Workspace, Ref, Record, MixLock]]:
        return (Mix, (self.workspace, self.ref, self.record, self.lock))


def _check_inputs(workspace: Workspace, ref: Ref, record: Record) -> None:
    """Raise MixError where an artifact that draws are read from is gone or holds something else than when locked."""
    for row in record.inputs:
        if row.kind == "raw":  # packed into the mix itself
            continue
        try:
            found = workspace.record(cast("Kind", row.kind), Ref.parse(row.ref)).fingerprint
        except RefError as error:
            raise MixError(f"mix '{ref}' is locked to {row.kind} '{row.ref}': {error} Pull it back.") from None
        if found != row.fingerprint:
            raise MixError(
                f"mix '{ref}' is locked to {row.kind} '{row.ref}' with fingerprint {row.fingerprint[:12]}, "
                f"but the workspace holds {found[:12]}. Restore that artifact, or build a new mix."
            )
    _check_no_new_frames(workspace, ref, record)


def _check_no_new_frames(workspace: Workspace, ref: Ref, record: Record) -> None:
    """Raise MixError where pixels were locked to come from the mp4, but a frame store would now be read instead."""
    stores = {row.ref for row in record.inputs if row.kind == "frames"}
    for row in record.inputs:
        if row.kind == "episodes" and row.ref not in stores and Ref.parse(row.ref) in workspace.refs("frames"):
            raise MixError(
                f"mix '{ref}' was built when '{row.ref}' had no frame store; now it has one, whose pixels differ. "
                "Build a new mix."
            )
