"""Practice in arithmetic without a picture: the board's equations, more of those in brackets, and larger numbers.

They obey the same rule about what may be trained on.
"""

import numpy as np

from dataengine.rendered.equations import Equation, Split, draw_equation, equations, split_of

_LARGEST, _MOST = 49, 60
_LARGER_SHARE, _BRACKETS_SHARE = 0.25, 0.25
_OPERATORS = ("+", "-", "x")
_SHARES = (0.4, 0.35, 0.25)


def draw_sum(*, split: Split, rng: np.random.Generator) -> Equation:
    """A board's equation, one of those with brackets, or one of larger numbers, half of these with a term of one
    digit."""
    kind = rng.random()
    if kind < _BRACKETS_SHARE:
        pool = equations(split, "brackets")
        return pool[int(rng.integers(len(pool)))]
    if kind >= _BRACKETS_SHARE + _LARGER_SHARE:
        return draw_equation(split=split, share=1.0, rng=rng)
    while True:
        operator = _OPERATORS[rng.choice(len(_OPERATORS), p=_SHARES)]
        left, right = (int(number) for number in rng.integers(0, _LARGEST + 1, 2))
        if rng.random() < 0.5:
            right = int(rng.integers(0, 10))
            if operator != "-" and rng.random() < 0.5:
                left, right = right, left
        answer = left + right if operator == "+" else left - right if operator == "-" else left * right
        if 0 <= answer <= _MOST:
            drawn = Equation(left=left, operator=operator, right=right)
            if split_of(drawn) == split:
                return drawn
