"""Real pictures for files that tests write: frames of the sample data, read with plain zarr."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def pusht_frames(samples: Path, num_frames: int) -> NDArray[np.uint8]:
    """(num_frames, 96, 96, 3) RGB, every 40th of the human PushT demonstrations, so that neighbours differ."""
    import zarr

    store = samples / "pusht_zarr/data/pusht/pusht_cchi_v7_replay.zarr"
    images = zarr.open_group(str(store), mode="r")["data/img"]
    return np.stack([np.asarray(images[index * 40]) for index in range(num_frames)]).round().astype(np.uint8)


def mean_error(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Mean absolute difference of two pictures, 0 to 255."""
    return float(np.abs(one.astype(np.int16) - other.astype(np.int16)).mean())
