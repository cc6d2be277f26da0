"""Equations as they stand on a board, and the rule that says which half of them may be trained on.

The rule is one hash of the operator and its sorted operands, so that a commuted pair is one equation: 3+5 in training
would give 5+3 away. The tabletop game and the rendered pictures share it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

from dataengine.rendered.keyed import keyed_rng

# What may be trained on, and what is kept to ask about; the game calls them in-domain and open-world.
Split = Literal["train", "held-out"]
SPLITS: tuple[Split, ...] = ("train", "held-out")
Kind = Literal["plus", "minus", "times", "two-digit", "brackets"]

GAME_MAX_ANSWER = 18
_MAX_TERM, _MAX_ANSWER = 20, 40
# How often each kind is asked when all are; the first, the easiest, also takes the share of those left out.
_SHARES: dict[Kind, float] = {"plus": 0.30, "minus": 0.22, "times": 0.18, "two-digit": 0.20, "brackets": 0.10}


@dataclass(frozen=True, slots=True, kw_only=True)
class Equation:
    """A problem as it stands on the board; an operand may itself be one, and is then written in brackets."""

    left: "int | Equation"
    operator: str
    right: "int | Equation"

    def __post_init__(self) -> None:
        if self.operator not in ("+", "-", "x"):
            raise ValueError(f"An equation's operator is one of + - x, got {self.operator!r}.")
        if self.answer < 0:
            raise ValueError(f"An answer is never negative, got {self.text} = {self.answer}.")

    @property
    def text(self) -> str:
        """The problem without the equals sign, like `4+1` or `(4+1)x2`."""
        return f"{_written(self.left)}{self.operator}{_written(self.right)}"

    @property
    def answer(self) -> int:
        """The number the right card shows."""
        left, right = _value(self.left), _value(self.right)
        match self.operator:
            case "+":
                return left + right
            case "-":
                return left - right
            case _:
                return left * right


def split_of(equation: Equation) -> Split:
    """About three fifths of all equations are for training; of bracketed ones see `equations`."""
    draw = keyed_rng("split", *_key(equation)).random()
    return "train" if draw < 0.6 else "held-out"


@cache
def equations(split: Split, kind: Kind) -> tuple[Equation, ...]:
    """All equations of a kind in a split, in a fixed order.

    What stands in brackets is of the same split; of training's also what remains once that is solved.
    """
    return tuple(equation for equation in _all(kind) if _belongs(equation, split))


def draw_equation(*, split: Split, share: float, rng: np.random.Generator) -> Equation:
    """One equation; `share` 0 draws sums of two digits only, 1 every kind."""
    kinds: list[Kind] = list(_SHARES)
    kind = kinds[rng.choice(len(kinds), p=list(_SHARES.values()))]
    if rng.random() >= share:
        kind = kinds[0]
    pool = equations(split, kind)
    return pool[int(rng.integers(len(pool)))]


def _belongs(equation: Equation, split: Split) -> bool:
    # An equation whose bracket lies in the other split belongs to neither. What is trained on may be worked out, so
    # that what is left once the bracket is solved must be for training as well.
    inner = [side for side in (equation.left, equation.right) if isinstance(side, Equation)]
    remainder = Equation(left=_value(equation.left), operator=equation.operator, right=_value(equation.right))
    return (
        split_of(equation) == split
        and all(_belongs(side, split) for side in inner)
        and (split == "held-out" or split_of(remainder) == split)
    )


def _all(kind: Kind) -> Iterator[Equation]:
    match kind:
        case "plus":
            yield from _single("+")
        case "minus":
            yield from _single("-")
        case "times":
            yield from _single("x")
        case "two-digit":
            for operator in "+-x":
                for left in range(_MAX_TERM + 1):
                    for right in range(_MAX_TERM + 1):
                        if max(left, right) >= 10 and 0 <= _apply(left, operator, right) <= _MAX_ANSWER:
                            yield Equation(left=left, operator=operator, right=right)
        case "brackets":
            yield from _bracketed()


def _single(operator: str) -> Iterator[Equation]:
    for left in range(10):
        for right in range(10):
            if 0 <= _apply(left, operator, right) <= GAME_MAX_ANSWER:
                yield Equation(left=left, operator=operator, right=right)


def _bracketed() -> Iterator[Equation]:
    for inner in (*_single("+"), *_single("-")):
        for term in range(1, 10):
            for operator in "+-x":
                if 0 <= _apply(inner.answer, operator, term) <= _MAX_ANSWER:
                    yield Equation(left=inner, operator=operator, right=term)
                if 0 <= _apply(term, operator, inner.answer) <= _MAX_ANSWER:
                    yield Equation(left=term, operator=operator, right=inner)


def _apply(left: int, operator: str, right: int) -> int:
    return left + right if operator == "+" else left - right if operator == "-" else left * right


def _value(side: "int | Equation") -> int:
    return side.answer if isinstance(side, Equation) else side


def _written(side: "int | Equation") -> str:
    return f"({side.text})" if isinstance(side, Equation) else str(side)


def _key(equation: Equation) -> tuple[int | str, ...]:
    sides: list[tuple[int | str, ...]] = [
        ("(", *_key(side), ")") if isinstance(side, Equation) else (side,) for side in (equation.left, equation.right)
    ]
    if equation.operator != "-":
        sides.sort(key=lambda side: (len(side), side))
    return (equation.operator, *sides[0], *sides[1])
