"""The math matching game: which equation, which cards, where, in whose handwriting.

A `Scene` is a pure function of (split, seed, index). The two splits share no equation (a commuted
pair counts as one), no handwriting style and no card layout, so that an open-world trial asks for
reading and arithmetic that no demonstration showed.
"""

import zlib
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

POSITIONS = ("left", "middle", "right")
MAX_NUMBER = 18
TASK = "Answer the question and pick the card with the correct answer."


# Which half of the game's equations, handwritings and layouts a scene is drawn from.
Split = Literal["in-domain", "open-world"]
SPLITS: tuple[Split, ...] = ("in-domain", "open-world")


def keyed_rng(*key: int | str) -> np.random.Generator:
    """A generator that depends on the key alone, not on the process, the order or the platform."""
    return np.random.default_rng([part if isinstance(part, int) else zlib.crc32(part.encode()) for part in key])


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Equation:
    """A one-step problem as it stands on the board."""

    left: int
    operator: str
    right: int

    def __post_init__(self) -> None:
        if self.operator not in ("+", "-", "x"):
            raise ValueError(f"An equation's operator is one of + - x, got {self.operator!r}.")
        if not 0 <= self.answer <= MAX_NUMBER:
            raise ValueError(f"An answer lies in 0..{MAX_NUMBER}, got {self.text} = {self.answer}.")

    @property
    def text(self) -> str:
        """The problem without the equals sign, like `4+1`."""
        return f"{self.left}{self.operator}{self.right}"

    @property
    def answer(self) -> int:
        """The number the right card shows."""
        match self.operator:
            case "+":
                return self.left + self.right
            case "-":
                return self.left - self.right
            case _:
                return self.left * self.right


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


# Where the three cards lie: (x, y, yaw) in metres and radians. The jitter around a template (see
# `_JITTER_XY_M`) is smaller than the distance between any two templates, so the splits stay apart.
_LAYOUTS: dict[Split, dict[str, tuple[tuple[float, float, float], ...]]] = {
    "in-domain": {
        "row": ((-0.155, 0.0, 0.0), (0.0, 0.0, 0.0), (0.155, 0.0, 0.0)),
        "arc": ((-0.150, -0.010, 0.12), (0.0, 0.024, 0.0), (0.150, -0.010, -0.12)),
        "near_row": ((-0.130, -0.034, 0.0), (0.0, -0.034, 0.0), (0.130, -0.034, 0.0)),
    },
    "open-world": {
        "vee": ((-0.165, 0.024, -0.15), (0.0, -0.036, 0.0), (0.165, 0.024, 0.15)),
        "rising": ((-0.140, -0.036, 0.10), (0.0, -0.006, 0.10), (0.140, 0.024, 0.10)),
        "falling": ((-0.140, 0.024, -0.10), (0.0, -0.006, -0.10), (0.140, -0.036, -0.10)),
    },
}
_JITTER_XY_M = 0.006
_JITTER_YAW_RAD = 0.05

STYLES: dict[Split, tuple[str, ...]] = {
    "in-domain": ("round_pen", "quick_pen", "tall_pen", "DejaVuSans", "cmss10", "DejaVuSans-Bold"),
    "open-world": ("slanted_pen", "wide_pen", "thick_pen", "STIXGeneral", "cmtt10", "DejaVuSerif"),
}


@cache
def equations(split: Split) -> tuple[Equation, ...]:
    """All equations of a split, sorted: about three fifths of the game in-domain, the rest open-world."""
    found = []
    for left in range(10):
        for right in range(10):
            for operator in "+-x":
                if operator == "-" and right > left:
                    continue
                if operator == "x" and left * right > MAX_NUMBER:
                    continue
                equation = Equation(left=left, operator=operator, right=right)
                if _split_of(equation) == split:
                    found.append(equation)
    return tuple(sorted(found))


def layout_names(split: Split) -> tuple[str, ...]:
    """The card layouts of a split."""
    return tuple(_LAYOUTS[split])


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
    layout = layout_names(split)[rng.integers(len(_LAYOUTS[split]))]
    cards = []
    for number, (x_m, y_m, yaw_rad) in zip(numbers, _LAYOUTS[split][layout], strict=True):
        dx_m, dy_m = rng.uniform(-_JITTER_XY_M, _JITTER_XY_M, 2)
        yaw_rad += rng.uniform(-_JITTER_YAW_RAD, _JITTER_YAW_RAD)
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


def _split_of(equation: Equation) -> Split:
    # A commuted pair goes to one side: 3+5 in training would give 5+3 away.
    operands = [equation.left, equation.right]
    if equation.operator != "-":
        operands.sort()
    draw = keyed_rng("split", equation.operator, *operands).random()
    return "in-domain" if draw < 0.6 else "open-world"


def _distractors(answer: int, rng: np.random.Generator) -> list[int]:
    # Near misses, so that guessing by size does not work.
    near = [n for n in range(max(0, answer - 5), min(MAX_NUMBER, answer + 5) + 1) if n != answer]
    return [int(n) for n in rng.choice(near, 2, replace=False)]
