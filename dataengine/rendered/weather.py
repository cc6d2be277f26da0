"""What lies between a scene and its picture: light, glare, blur and noise."""

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from dataengine.rendered.items import PICTURE_SIZE
from dataengine.rendered.keyed import keyed_rng
from dataengine.rendered.shapes import Picture


def weathered(picture: Picture, *, strength: float, rng: np.random.Generator) -> Picture:
    """The picture as a worse camera in worse light would show it; `strength` 0 leaves it as it is."""
    width, height = PICTURE_SIZE
    happens = rng.random(4) < np.array([0.8, 0.35, 0.5, 0.7]) * strength
    light = rng.uniform(-1, 1, 6)
    places = rng.uniform(0, 1, 4)
    sigma_px, noise, tile_row, tile_column = rng.random(4)
    if not happens.any():
        return picture
    seen = picture
    if happens[2]:
        seen = cv2.GaussianBlur(seen, (0, 0), 0.3 + 0.7 * strength * sigma_px)
    if happens[0]:
        gains = (1 - 0.16 * strength * abs(light[0]) + 0.08 * strength * light[1]) * (1 + 0.05 * strength * light[2:5])
        curves = np.arange(256)[:, None, None] * gains + 12 * strength * light[5]
        seen = cv2.LUT(seen, curves.clip(0, 255).astype(np.uint8))
    if happens[1]:
        seen = cv2.add(seen, _glare(places, 80 * strength))
    if happens[3]:
        tile = _noise(1 + round(7 * strength * noise))
        row, column = int(tile_row * (tile.shape[0] - height)), int(tile_column * (tile.shape[1] - width))
        seen = cv2.add(seen, tile[row : row + height, column : column + width], dtype=cv2.CV_8U)
    return np.asarray(seen, dtype=np.uint8)


def _glare(places: NDArray[np.float64], peak: float) -> Picture:
    """A soft bright spot."""
    width, height = PICTURE_SIZE
    rows, columns = np.mgrid[0:1:15j, 0:1:20j]
    wide, high = 0.1 + 0.25 * places[2:]
    distance = ((columns - places[0]) / wide) ** 2 + ((rows - places[1]) / high) ** 2
    spot = cv2.resize((peak * np.exp(-distance)).astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.merge([spot.astype(np.uint8)] * 3), dtype=np.uint8)


@cache
def _noise(sigma: int) -> NDArray[np.int16]:
    """Normal noise to cut pieces from: drawing it anew would take longer than the picture."""
    width, height = PICTURE_SIZE
    return (sigma * keyed_rng("noise").normal(size=(2 * height, 2 * width, 3))).astype(np.int16)
