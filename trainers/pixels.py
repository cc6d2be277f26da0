"""Pixels to the flat patches Qwen2-VL eats, and how many tokens they become: one rule for training and serving.

Axes: N images, H W pixels, C colours, G H/W cells of the patch grid, M merge size, P patch size, L frames per patch.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from schemas.errors import TrainError

# Qwen2-VL was trained with CLIP's channel statistics.
MEAN_C = np.array([0.48145466, 0.4578275, 0.40821073], dtype=np.float32)
STD_C = np.array([0.26862954, 0.26130258, 0.27577711], dtype=np.float32)
# What a byte becomes, (C, 256): looking it up is a fifth of the time of computing it for every pixel.
_LEVELS_C256 = ((np.arange(256, dtype=np.float32)[:, None] / 255 - MEAN_C) / STD_C).T.copy()


def patch_grid(width: int, height: int, *, patch_size: int, merge_size: int) -> tuple[int, int]:
    """Rows and columns of patches for an image: its size rounded to whole merged cells, at least one.

    The same rounding as Qwen2-VL's own resize between its pixel limits.
    """
    if width <= 0 or height <= 0:
        raise TrainError(
            f"an image of {width}x{height} has no pixels. Set image_size in the mix to two positive numbers."
        )
    step = patch_size * merge_size
    rows, columns = max(1, round(height / step)), max(1, round(width / step))
    return rows * merge_size, columns * merge_size


def image_tokens(width: int, height: int, *, patch_size: int, merge_size: int) -> int:
    """How many placeholder tokens an image of this size takes in the chat."""
    rows, columns = patch_grid(width, height, patch_size=patch_size, merge_size=merge_size)
    return rows * columns // merge_size**2


def patchify(
    images: Sequence[NDArray[np.uint8]], *, patch_size: int, merge_size: int, frames_per_patch: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Cut upright RGB images (H, W, 3) into Qwen2-VL's flat patches.

    Returns (patches, C*L*P*P) float32, the 2x2 neighbours that merge into one token next to each other, and
    (N, 3) grids of frames, rows, columns.
    """
    bytes_NCP, grids = cut_patches(images, patch_size=patch_size, merge_size=merge_size)
    x_NCLP = np.empty((len(bytes_NCP), 3, frames_per_patch, patch_size**2), np.float32)
    for channel in range(3):  # a still image is the same frame L times
        x_NCLP[:, channel] = np.take(_LEVELS_C256[channel], bytes_NCP[:, channel])[:, None]
    return x_NCLP.reshape(len(bytes_NCP), 3 * frames_per_patch * patch_size**2), grids  # there may be none


def cut_patches(
    images: Sequence[NDArray[np.uint8]], *, patch_size: int, merge_size: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The same patches as bytes, (patches, C, P*P), for whoever normalises them elsewhere; and the grids."""
    if not images:
        return np.zeros((0, 3, patch_size**2), np.uint8), np.zeros((0, 3), np.int64)
    parts, grids = [], []
    for image in images:
        rows, columns = patch_grid(image.shape[1], image.shape[0], patch_size=patch_size, merge_size=merge_size)
        fitted_HWC = _fit(image, columns * patch_size, rows * patch_size)
        cut = fitted_HWC.reshape(
            rows // merge_size, merge_size, patch_size, columns // merge_size, merge_size, patch_size, 3
        ).transpose(0, 3, 1, 4, 6, 2, 5)  # cell row, cell column, row in cell, column in cell, C, P, P
        parts.append(np.ascontiguousarray(cut).reshape(rows * columns, 3, -1))
        grids.append((1, rows, columns))
    return np.concatenate(parts), np.array(grids, np.int64)


def _fit(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """The image at the size of its grid; untouched when it already has it."""
    if image.shape[:2] == (height, width):
        return image
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
