"""What a trial's reasoning text claims, held against the scene: so that failures of reading, of arithmetic and of
control can be told apart.
"""

import re
from dataclasses import dataclass

from apps.sim.game import POSITIONS, Scene

_BOARD = re.compile(r"board reads\s+(\d+)\s*([-+x*×−])\s*(\d+)", re.IGNORECASE)  # noqa: RUF001 - what people write
_RESULT = re.compile(r"=\s*(-?\d+)|(\d+),0\.")  # said, or counted out: `11,1 12,0.`
_PICK = re.compile(r"\bpick\s+(?:the\s+)?(\d+)(?:\s+from\s+the\s+(left|middle|right))?", re.IGNORECASE)
_OPERATORS = {"*": "x", "×": "x", "X": "x", "−": "-"}  # noqa: RUF001 - what people write


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasoningScore:
    """True, False, or None where the text claims nothing.

    `read_right`: the equation is the one on the board. `math_right`: the claimed result is right for the equation
    that the text itself states. `plan_right`: the card it says it picks is the right one, at the place where it lies.
    """

    read_right: bool | None
    math_right: bool | None
    plan_right: bool | None


def score_reasoning(text: str, scene: Scene) -> ReasoningScore:
    """Score one reasoning text against the scene it was said in."""
    board, result, pick = _BOARD.search(text), _RESULT.search(text), _PICK.search(text)
    stated = None if board is None else (int(board[1]), _OPERATORS.get(board[2], board[2]).lower(), int(board[3]))
    equation = scene.equation
    plan_right = None
    if pick is not None:
        at_its_place = pick[2] is None or pick[2].lower() == POSITIONS[scene.correct_slot]
        plan_right = int(pick[1]) == equation.answer and at_its_place
    return ReasoningScore(
        read_right=None if stated is None else stated == (equation.left, equation.operator, equation.right),
        math_right=None if stated is None or result is None else int(result[1] or result[2]) == _compute(*stated),
        plan_right=plan_right,
    )


def _compute(left: int, operator: str, right: int) -> int:
    match operator:
        case "+":
            return left + right
        case "-":
            return left - right
        case _:
            return left * right
