"""Samples in order, for one rank of many, from any position on.

Of every `world_size` consecutive positions each rank takes one, and which one turns with the position: with fixed
places, a mix of 1 : 3 on four ranks would send every image-text sample to the same rank. Whatever the world size, all
ranks together have taken exactly the positions before `position`, so a run stopped on 8 ranks goes on with 3.
"""

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from typing import Any

from dataengine.mix.mix import Mix
from schemas.errors import MixError
from schemas.mixes import Sample
from schemas.records import sha256_of


@dataclass(slots=True)
class MixReader:
    """Reads one rank's samples. Iterating moves `position`; indexing does not, so a DataLoader can use either.

    Args:
        start: global position of the first sample of all ranks.
        stop: position to end before (needed for len()); None goes on for ever.
    """

    mix: Mix
    _: KW_ONLY
    start: int = 0
    stop: int | None = None
    rank: int = 0
    world_size: int = 1
    position: int = -1  # the first global position that no rank has taken; -1 = start

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise MixError(f"rank {self.rank} does not exist among {self.world_size}. Ranks count from 0.")
        if self.start < 0 or (self.stop is not None and self.stop < self.start):
            raise MixError(f"positions {self.start} to {self.stop} are no range. Give 0 <= start <= stop.")
        if self.stop is not None and (self.stop - self.start) % self.world_size:
            raise MixError(
                f"{self.stop - self.start} samples do not divide among {self.world_size} ranks. "
                f"Stop at {self.stop - (self.stop - self.start) % self.world_size}."
            )
        if self.position < 0:
            self.position = self.start

    @classmethod
    def resume(
        cls, mix: Mix, state: dict[str, Any], *, rank: int = 0, world_size: int = 1, stop: int | None = None
    ) -> "MixReader":
        """Go on where `state()` was taken, with any world size. Raises MixError when the mix is another one."""
        if state["mix"] != mix.fingerprint:
            raise MixError(
                f"the state belongs to a mix with fingerprint {str(state['mix'])[:12]}, but '{mix.ref}' is "
                f"{mix.fingerprint[:12]}. Go on with the mix that the checkpoint names, or start anew."
            )
        return cls(mix, start=int(state["position"]), stop=stop, rank=rank, world_size=world_size)

    def state(self) -> dict[str, Any]:
        """All that is needed to go on: {"mix": fingerprint, "position": the first position not taken}."""
        return {"mix": self.mix.fingerprint, "position": self.position}

    def position_of(self, index: int) -> int:
        """Global position of this rank's sample number `index`, counted from `start`."""
        first = self.start + index * self.world_size
        turn = int(sha256_of([self.mix.lock.spec.seed, first])[:8], 16) if self.world_size > 1 else 0
        return first + (self.rank + turn) % self.world_size

    def __len__(self) -> int:
        if self.stop is None:
            raise TypeError("a MixReader without stop= never ends and has no length")
        return (self.stop - self.start) // self.world_size

    def __getitem__(self, index: int) -> Sample:
        if index < 0 or (self.stop is not None and index >= len(self)):
            raise IndexError(index)
        return self.mix.sample(self.position_of(index))

    def __iter__(self) -> Iterator[Sample]:
        while self.stop is None or self.position < self.stop:
            yield self.next()

    def next(self) -> Sample:
        """The next sample of this rank; `position` moves past the samples that all ranks take with it."""
        sample = self.mix.sample(self.position_of((self.position - self.start) // self.world_size))
        self.position += self.world_size
        return sample

    def batch(self, size: int) -> list[Sample]:
        """The next `size` samples of this rank, without end checks: a mix goes on into its next pass."""
        return [self.next() for _ in range(size)]
