"""Where cards lie on the table, and which of these layouts may be trained on.

Places are (x, y, yaw) in metres and radians, in the tabletop's frame: x to the right of the picture, y towards the
board. The jitter around a template is smaller than the distance between any two templates, so the splits stay apart.
"""

import numpy as np

from dataengine.rendered.equations import Split
from dataengine.rendered.keyed import keyed_rng

Place = tuple[float, float, float]

TEMPLATES: dict[Split, dict[str, tuple[Place, Place, Place]]] = {
    "train": {
        "row": ((-0.155, 0.0, 0.0), (0.0, 0.0, 0.0), (0.155, 0.0, 0.0)),
        "arc": ((-0.150, -0.010, 0.12), (0.0, 0.024, 0.0), (0.150, -0.010, -0.12)),
        "near_row": ((-0.130, -0.034, 0.0), (0.0, -0.034, 0.0), (0.130, -0.034, 0.0)),
    },
    "held-out": {
        "vee": ((-0.165, 0.024, -0.15), (0.0, -0.036, 0.0), (0.165, 0.024, 0.15)),
        "rising": ((-0.140, -0.036, 0.10), (0.0, -0.006, 0.10), (0.140, 0.024, 0.10)),
        "falling": ((-0.140, 0.024, -0.10), (0.0, -0.006, -0.10), (0.140, -0.036, -0.10)),
    },
}
JITTER_XY_M = 0.006
JITTER_YAW_RAD = 0.05
_NEAR_M = 0.018  # every card closer than this to a template's: the layout is that template's
_CELL_M = 0.02
_SPREAD_X_M, _SPREAD_Y_M = 0.20, 0.045
_APART_M = 0.078  # a card's diagonal and a little


def split_of_layout(places: tuple[Place, ...]) -> Split:
    """A layout near a template belongs to the template's split; any other by a hash of the cells its cards lie in."""
    xy = np.array([place[:2] for place in places])
    for split, templates in TEMPLATES.items():
        for template in templates.values():
            if len(xy) == len(template):
                apart = np.linalg.norm(xy - np.array([place[:2] for place in template]), axis=1)
                if apart.max() < _NEAR_M:
                    return split
    cells = [int(cell) + 1000 for cell in np.round(xy / _CELL_M).ravel()]
    return "train" if keyed_rng("layout", *cells).random() < 0.6 else "held-out"


def draw_places(*, split: Split, num_cards: int, freedom: float, rng: np.random.Generator) -> tuple[Place, ...]:
    """Places of `num_cards` cards from left to right; three lie near a template, in training with `freedom` anywhere.

    Held-out layouts of three are the open-world game's own.
    """
    if num_cards == 0:
        return ()
    free = num_cards != 3 or (split == "train" and rng.random() < 0.5 * freedom)
    while True:
        places = _free(num_cards, rng) if free else _near_template(split, freedom, rng)
        if split_of_layout(places) == split:
            return places


def _near_template(split: Split, freedom: float, rng: np.random.Generator) -> tuple[Place, ...]:
    names = list(TEMPLATES[split])
    template = TEMPLATES[split][names[int(rng.integers(len(names)))]]
    return tuple(
        (
            x_m + float(rng.uniform(-1, 1)) * JITTER_XY_M * freedom,
            y_m + float(rng.uniform(-1, 1)) * JITTER_XY_M * freedom,
            yaw_rad + float(rng.uniform(-1, 1)) * JITTER_YAW_RAD * freedom,
        )
        for x_m, y_m, yaw_rad in template
    )


def _free(num_cards: int, rng: np.random.Generator) -> tuple[Place, ...]:
    """One card per stripe of the table, anywhere in it."""
    stripe_m = 2 * _SPREAD_X_M / num_cards
    play_m = (stripe_m - _APART_M) / 2
    return tuple(
        (
            -_SPREAD_X_M + (number + 0.5) * stripe_m + float(rng.uniform(-play_m, play_m)),
            float(rng.uniform(-_SPREAD_Y_M, _SPREAD_Y_M)),
            float(rng.uniform(-0.2, 0.2)),
        )
        for number in range(num_cards)
    )
