"""Which source and which item comes at which position: a pure function of (lock, seed, epoch, position).

Sources are interleaved so that every prefix of a pass holds each source's share to within one sample. Inside a source,
items come in a keyed order without replacement; one walk over its items is followed by another in a new order, and
walks go on across passes of the mix, so a source drawn half per pass is seen whole after two. Nothing is stored but
the interleave (one period, made once); the keyed order is computed, in O(1) memory for any number of items.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.errors import MixError

type Ints = NDArray[np.int64]
type SourceIds = NDArray[np.uint16]

_ROUNDS = 8  # of the Feistel network; 4 already pass for a permutation, 8 cost 40 ns more per item
_STRIDE = 1 << 16  # prefix counts of the interleave are kept every so many positions


def interleave(draws: Sequence[int]) -> SourceIds:
    """One period of source numbers, (sum(draws) / gcd,) uint16; repeated, it gives each source exactly its draws.

    Tijdeman's rule for the chairman assignment problem (Discrete Mathematics 32, 1980): of the sources whose share has
    come far enough to be eligible, the one that becomes overdue first. With k sources no prefix is off by more than
    1 - 1 / (2k - 2) samples; plain largest-deficit picking can be off by more than 1 with four sources or more.
    """
    divisor = math.gcd(*draws)
    counts = [count // divisor for count in draws]
    if len(counts) == 1:
        return np.zeros(1, dtype=np.uint16)
    total, scale = sum(counts), 2 * len(counts) - 2
    # The (x+1)th draw of a source is due before (x + 1 - 1/scale) * total / count, and may come
    # from (x + 1/scale) * total / count on. Both are kept as whole numerators over scale * count.
    due = [(scale - 1) * total] * len(counts)
    opens = [total] * len(counts)
    order = np.empty(total, dtype=np.uint16)
    for step in range(1, total + 1):
        chosen = -1
        for source, count in enumerate(counts):
            ready = opens[source] <= scale * count * step
            if ready and (chosen < 0 or due[source] * counts[chosen] < due[chosen] * count):
                chosen = source
        order[step - 1] = chosen
        due[chosen] += scale * total
        opens[chosen] += scale * total
    return order


def shuffled(index: Ints, size: int, key: bytes, *, inverse: bool = False) -> Ints:
    """Where each index in [0, size) goes under the order named by `key`; `inverse` asks what came from where.

    A Feistel network over the next power of four, walked until it falls inside [0, size): a permutation that needs no
    table. `key` must hold 64 bytes.
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    keys = np.frombuffer(key, dtype="<u8", count=_ROUNDS)
    rounds = keys[::-1] if inverse else keys
    value = index.astype(np.uint64)
    outside = np.ones(value.shape, dtype=np.bool_)
    while outside.any():
        value[outside] = _feistel(value[outside], np.uint64(half), rounds, inverse=inverse)
        outside = value >= np.uint64(size)
    return value.astype(np.int64)


def _feistel(
    value: NDArray[np.uint64], half: np.uint64, rounds: NDArray[np.uint64], *, inverse: bool
) -> NDArray[np.uint64]:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = value >> half, value & mask
    for key in rounds:
        if inverse:
            left, right = right ^ (_scramble(left ^ key) & mask), left
        else:
            left, right = right, left ^ (_scramble(right ^ key) & mask)
    return (left << half) | right


def _scramble(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64: every input bit reaches every output bit."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def order_key(seed: int, source: str, walk: int) -> bytes:
    """64 bytes that name the order of one walk over one source."""
    return hashlib.sha512(f"{seed}/order/{source}/{walk}".encode()).digest()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DrawBlock:
    """Draws of consecutive positions; three arrays of equal length."""

    source: SourceIds
    item: Ints
    repeat: Ints  # how many times this item came before in the same pass of the mix


class DrawOrder:
    """The order of one mix. Positions count from 0 and go on for ever; epoch = position // num_samples."""

    def __init__(
        self, period: SourceIds, *, names: Sequence[str], num_items: Sequence[int], num_draws: Sequence[int], seed: int
    ) -> None:
        self.num_samples = sum(num_draws)
        self._period = period
        self._names = tuple(names)
        self._num_items = tuple(num_items)
        self._num_draws = tuple(num_draws)
        self._seed = seed
        starts = range(0, len(period), _STRIDE)
        counts = [np.bincount(period[start : start + _STRIDE], minlength=len(names)) for start in starts]
        self._before = np.concatenate([np.zeros((1, len(names)), np.int64), np.cumsum(counts, axis=0)])

    def block(self, start: int, count: int) -> DrawBlock:
        """The draws of positions start..start+count-1, which may cross the end of a pass."""
        if start < 0 or count < 0:
            raise MixError(f"positions count from 0, got {start}. Ask for 0 or more.")
        parts = []
        while count > 0:
            epoch, local = divmod(start, self.num_samples)
            taken = min(count, self.num_samples - local)
            parts.append(self._within_pass(epoch, local, taken))
            start, count = start + taken, count - taken
        if not parts:
            empty = np.zeros(0, np.int64)
            return DrawBlock(source=empty.astype(np.uint16), item=empty, repeat=empty)
        return DrawBlock(
            source=np.concatenate([part.source for part in parts]),
            item=np.concatenate([part.item for part in parts]),
            repeat=np.concatenate([part.repeat for part in parts]),
        )

    def _within_pass(self, epoch: int, local: int, count: int) -> DrawBlock:
        source = self._period[np.arange(local, local + count) % len(self._period)]
        before = self._counts_before(local)
        item, repeat = np.empty(count, np.int64), np.empty(count, np.int64)
        for number in np.unique(source):
            places = np.flatnonzero(source == number)
            first = epoch * self._num_draws[number]
            drawn = first + before[number] + np.arange(len(places))
            item[places], repeat[places] = self._items(int(number), drawn, first)
        return DrawBlock(source=source, item=item, repeat=repeat)

    def _counts_before(self, local: int) -> Ints:
        """Draws of each source in the positions of a pass before `local`."""
        periods, rest = divmod(local, len(self._period))
        chunk = rest // _STRIDE
        tail = np.bincount(self._period[chunk * _STRIDE : rest], minlength=len(self._names))
        counts: Ints = periods * self._before[-1] + self._before[chunk] + tail
        return counts

    def _items(self, number: int, drawn: Ints, first: int) -> tuple[Ints, Ints]:
        """Items of a source's draws (numbered since position 0), and how often each came since draw `first`."""
        size, name = self._num_items[number], self._names[number]
        walks, steps = drawn // size, drawn % size
        first_walk, first_step = divmod(first, size)
        item = np.empty(len(drawn), np.int64)
        for walk in np.unique(walks):
            places = walks == walk
            item[places] = shuffled(steps[places], size, order_key(self._seed, name, int(walk)))
        repeat = walks - first_walk
        if first_step and (later := repeat > 0).any():
            # The walk that was under way when this pass began showed only its later steps in this pass.
            came = shuffled(item[later], size, order_key(self._seed, name, first_walk), inverse=True)
            repeat[later] -= came < first_step
        return item, repeat
