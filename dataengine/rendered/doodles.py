"""What stands on a board that is no equation: simple drawings and words."""

import cv2
import numpy as np

from dataengine.rendered.camera import Points
from dataengine.rendered.equations import Split
from dataengine.rendered.views import Doodle
from dataengine.rendered.writing import Ink

WORDS: dict[Split, tuple[str, ...]] = {
    "train": (
        "hello",
        "back soon",
        "robot lab",
        "milk, eggs",
        "Monday",
        "do not wipe",
        "good job",
        "coffee",
        "out",
        "A B C",
    ),
    "held-out": ("welcome", "lunch", "see you", "Friday", "thank you", "please knock", "to do", "tea", "X Y Z"),
}

_turn = np.linspace(0, 2 * np.pi, 25)
_circle = np.stack([np.cos(_turn), np.sin(_turn)], axis=1)
_spiral = _circle * np.linspace(0.05, 0.5, 25)[:, None]
_points = np.linspace(-np.pi / 2, 1.5 * np.pi, 11)
# Strokes in a box from -0.5 to 0.5, x to the right, y down.
_STROKES: dict[Doodle, tuple[Points, ...]] = {
    "house": (
        np.array([(-0.35, 0.5), (-0.35, -0.05), (0.35, -0.05), (0.35, 0.5), (-0.35, 0.5)]),
        np.array([(-0.45, 0.0), (0.0, -0.5), (0.45, 0.0)]),
        np.array([(-0.1, 0.5), (-0.1, 0.2), (0.1, 0.2), (0.1, 0.5)]),
    ),
    "star": (np.stack([np.cos(_points), np.sin(_points)], axis=1) * np.resize([0.5, 0.2], 11)[:, None],),
    "face": (
        _circle * 0.5,
        _circle * 0.05 + (-0.18, -0.15),
        _circle * 0.05 + (0.18, -0.15),
        np.stack([np.linspace(-0.25, 0.25, 9), 0.1 + 0.2 * np.cos(np.linspace(-np.pi / 2, np.pi / 2, 9))], axis=1),
    ),
    "wave": (np.stack([np.linspace(-0.5, 0.5, 40), 0.2 * np.sin(np.linspace(0, 5 * np.pi, 40))], axis=1),),
    "arrow": (
        np.array([(-0.5, 0.1), (0.5, -0.1)]),
        np.array([(0.2, -0.3), (0.5, -0.1), (0.28, 0.18)]),
    ),
    "spiral": (_spiral,),
}


def draw_doodle(
    sheet: Ink, doodle: Doodle, *, centre_px: tuple[float, float], size_px: float, rng: np.random.Generator
) -> None:
    """Draw into the sheet, turned and stretched a little."""
    angle = rng.uniform(-0.2, 0.2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    stretch = np.array([rng.uniform(0.9, 1.6), 1.0])
    for stroke in _STROKES[doodle]:
        path = (stroke * stretch) @ turn.T * size_px + centre_px
        cv2.polylines(
            sheet, [np.round(path * 16).astype(np.int32)], False, (255,), max(2, round(size_px / 16)), cv2.LINE_AA, 4
        )
