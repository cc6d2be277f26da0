"""The math matching game: which equation, which cards, where, in whose handwriting.

A `Scene` is a pure function of (split, seed, index). The two splits share no equation (a commuted
pair counts as one), no handwriting style and no card layout, so that an open-world trial asks for
reading and arithmetic that no demonstration showed.
"""

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

from dataengine.rendered.equations import GAME_MAX_ANSWER, Equation, Kind
from dataengine.rendered.equations import Split as Half
from dataengine.rendered.equations import equations as rendered_equations
from dataengine.rendered.keyed import keyed_rng
from dataengine.rendered.layouts import JITTER_XY_M, JITTER_YAW_RAD, TEMPLATES
from dataengine.rendered.styles import GAME_STYLES

# Named here too: the game is where its users look for them.
__all__ = [
    "POSITIONS",
    "SPLITS",
    "STYLES",
    "TASK",
    "Card",
    "Equation",
    "Scene",
    "Split",
    "draw_scene",
    "equations",
    "layout_names",
]

POSITIONS = ("left", "middle", "right")
TASK = "Answer the question and pick the card with the correct answer."


# Which half of the game's equations, handwritings and layouts a scene is drawn from.
Split = Literal["in-domain", "open-world"]
SPLITS: tuple[Split, ...] = ("in-domain", "open-world")
_HALVES: dict[Split, Half] = {"in-domain": "train", "open-world": "held-out"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A number card: what it shows and where it starts."""

    number: int
    x_m: float
    y_m: float
    yaw_rad: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Everything that differs between two set-ups of the table; `cards` run from left to right."""

    split: Split
    seed: int
    index: int
    equation: Equation
    style: str
    layout: str
    cards: tuple[Card, Card, Card]

    def __post_init__(self) -> None:
        numbers = [card.number for card in self.cards]
        if len(set(numbers)) != 3 or self.equation.answer not in numbers:
            raise ValueError(f"Cards show three numbers, the answer among them; got {numbers}.")

    @property
    def correct_slot(self) -> int:
        """0, 1 or 2 from the left."""
        return [card.number for card in self.cards].index(self.equation.answer)


STYLES: dict[Split, tuple[str, ...]] = {split: GAME_STYLES[half] for split, half in _HALVES.items()}


@cache
def equations(split: Split) -> tuple[Equation, ...]:
    """All equations of a split, sorted: about three fifths of the game in-domain, the rest open-world."""
    kinds: tuple[Kind, ...] = ("plus", "minus", "times")
    found = [equation for kind in kinds for equation in rendered_equations(_HALVES[split], kind)]
    return tuple(sorted(found, key=lambda equation: equation.text))


def layout_names(split: Split) -> tuple[str, ...]:
    """The card layouts of a split."""
    return tuple(TEMPLATES[_HALVES[split]])


def draw_scene(*, split: Split, seed: int, index: int) -> Scene:
    """The set-up number `index` of a seeded series.

    Equations come in shuffled rounds without repeats, the right card's position in shuffled triples, so
    that even a short series is balanced.
    """
    pool = equations(split)
    turn, place = divmod(index, len(pool))
    equation = pool[keyed_rng("equation", split, seed, turn).permutation(len(pool))[place]]
    triple, member = divmod(index, 3)
    slot = int(keyed_rng("slot", split, seed, triple).permutation(3)[member])
    rng = keyed_rng("scene", split, seed, index)
    numbers = _distractors(equation.answer, rng)
    numbers.insert(slot, equation.answer)
    templates = TEMPLATES[_HALVES[split]]
    layout = layout_names(split)[rng.integers(len(templates))]
    cards = []
    for number, (x_m, y_m, yaw_rad) in zip(numbers, templates[layout], strict=True):
        dx_m, dy_m = rng.uniform(-JITTER_XY_M, JITTER_XY_M, 2)
        yaw_rad += rng.uniform(-JITTER_YAW_RAD, JITTER_YAW_RAD)
        cards.append(Card(number=number, x_m=x_m + dx_m, y_m=y_m + dy_m, yaw_rad=float(yaw_rad)))
    return Scene(
        split=split,
        seed=seed,
        index=index,
        equation=equation,
        style=str(rng.choice(STYLES[split])),
        layout=layout,
        cards=(cards[0], cards[1], cards[2]),
    )


def _distractors(answer: int, rng: np.random.Generator) -> list[int]:
    # Near misses, so that guessing by size does not work.
    near = [n for n in range(max(0, answer - 5), min(GAME_MAX_ANSWER, answer + 5) + 1) if n != answer]
    return [int(n) for n in rng.choice(near, 2, replace=False)]
