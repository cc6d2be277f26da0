"""Whose handwriting a picture shows: which styles may be trained on, and which are kept to ask about.

The first of each split are the tabletop game's own. A family of typefaces stays on one side: bold does not make a
typeface unseen.
"""

import numpy as np

from dataengine.rendered.equations import Split
from dataengine.rendered.hands import drawn_hands

GAME_STYLES: dict[Split, tuple[str, ...]] = {
    "train": ("round_pen", "quick_pen", "tall_pen", "DejaVuSans", "cmss10", "DejaVuSans-Bold"),
    "held-out": ("slanted_pen", "wide_pen", "thick_pen", "STIXGeneral", "cmtt10", "DejaVuSerif"),
}
STYLES: dict[Split, tuple[str, ...]] = {
    "train": (
        *GAME_STYLES["train"],
        "hand_fine",
        "hand_upright",
        "hand_narrow",
        "hand_broad",
        "hand_hasty",
        "hand_stiff",
        "hand_backward",
        "hand_round_slant",
        "DejaVuSans-Oblique",
        "DejaVuSansMono",
        "DejaVuSansMono-Bold",
        "cmr10",
        "cmb10",
    ),
    "held-out": (*GAME_STYLES["held-out"], "STIXGeneralBol", "STIXGeneralItalic", "DejaVuSerif-Italic"),
}


def draw_style(split: Split, *, share: float, hands: float, rng: np.random.Generator) -> str:
    """One of the first `share` of a split's styles, or, `hands` of the time, one drawn for training: a pen, a drawn
    typeface or a bent one, each as often."""
    if hands and split != "train":
        raise ValueError(f"Hands are drawn for training alone, got split {split!r} and hands={hands}.")
    pool = styles(split, share)
    if hands and rng.random() < hands:
        pools = drawn_hands()
        pool = pools[int(rng.integers(len(pools)))]
    return pool[int(rng.integers(len(pool)))]


def styles(split: Split, share: float) -> tuple[str, ...]:
    """The first `share` of a split's styles, at least one."""
    return STYLES[split][: max(1, round(share * len(STYLES[split])))]
