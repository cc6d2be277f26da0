"""Which side an episode is on: a keyed hash of its id, so it stays there when other episodes come or go."""

import hashlib
from collections.abc import Iterable
from typing import Literal

Split = Literal["train", "validation"]


def held_out(keys: Iterable[str], *, share: float, seed: int) -> frozenset[str]:
    """The keys that belong to validation: about `share` of them, at least one and not all where there are two or more.

    A key's side depends on (seed, key) alone, except for the one key that is moved to keep neither side empty. So the
    same episode is on the same side in every source and in every later version of a mix with the same seed.
    """
    ranked = sorted((_fraction(key, seed), key) for key in set(keys))
    if share <= 0 or len(ranked) < 2:
        return frozenset()
    chosen = [key for fraction, key in ranked if fraction < share]
    if not chosen:
        chosen = [ranked[0][1]]
    elif len(chosen) == len(ranked):
        chosen.pop()
    return frozenset(chosen)


def _fraction(key: str, seed: int) -> float:
    digest = hashlib.sha256(f"{seed}/split/{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
