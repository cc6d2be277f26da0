"""Sums worked out by counting, so that a held-out one needs no answer that must be known by heart.

Each operation is a row of pairs, what there is so far and how much is still to go: `7+5: 7,5 8,4 9,3 10,2 11,1 12,0.`
Every pair follows from the one before it by a rule, and the last one, with nothing to go, is the answer. What is far
is gone by tens. An equals sign is never written: behind `7+5=` a model says what it knows by heart, of sums that it
never learned as well, and not what it has just counted.

A held-out problem is named in no lesson. But counting passes through sums: whoever learns 7+5 writes `8,4 9,3 10,2 11,1
12,0`, which is how 8+4 is counted on from its first pair. Of products nothing of the kind is seen.
"""

from collections.abc import Iterator

from dataengine.rendered.equations import Equation


def counted_out(equation: Equation) -> str:
    """`7-3: 7,3 6,2 5,1 4,0.`; what stands in brackets comes first, in a row of its own."""
    return " ".join(_rows(equation))


def _rows(equation: Equation) -> Iterator[str]:
    sides = []
    for side in (equation.left, equation.right):
        if isinstance(side, Equation):
            yield from _rows(side)
        sides.append(side.answer if isinstance(side, Equation) else side)
    left, right = sides
    pairs = " ".join(f"{so_far},{to_go}" for so_far, to_go in _pairs(left, equation.operator, right))
    yield f"{left}{equation.operator}{right}: {pairs}."


def _pairs(left: int, operator: str, right: int) -> Iterator[tuple[int, int]]:
    """A product is its right number, left times; which of two numbers is larger need not be known."""
    so_far, to_go, step = (0, left, right) if operator == "x" else (left, right, 1 if operator == "+" else -1)
    yield so_far, to_go
    while to_go:
        stride = 10 if to_go >= 10 else 1
        so_far, to_go = so_far + stride * step, to_go - stride
        yield so_far, to_go
