"""Randomness that depends on a key alone."""

import zlib

import numpy as np


def keyed_rng(*key: int | str) -> np.random.Generator:
    """A generator that depends on the key alone, not on the process, the order or the platform."""
    return np.random.default_rng([part if isinstance(part, int) else zlib.crc32(part.encode()) for part in key])
