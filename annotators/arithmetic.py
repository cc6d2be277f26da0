"""Arithmetic as written by hand: a restricted grammar, exact rationals, no `eval`.

sum = term (('+'|'-') term)*; term = factor (('x'|'/') factor)*; factor = '-' factor | number | '?' | '(' sum ')'.
A question has one unknown: the whole of one side ("4+1=?", "4+1=", "?=4+1": one question, spelled "4+1"), or one number
somewhere in a sum whose other side is known ("3+?=7", "12=?x4"). Anything else is no question and is not canonical.
"""

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

MAX_LENGTH = 64
MAX_DEPTH = 12
MAX_DIGITS = 9
# Signs that pens, keyboards and OCR use for the same operation. NFKC has already folded the full-width forms.
_SAME = str.maketrans(
    {
        **dict.fromkeys("×✕✖⨯*∗·⋅•Xх", "x"),  # noqa: RUF001 - the look-alikes are the point
        **dict.fromkeys("÷∕⁄:∶", "/"),  # noqa: RUF001 - the look-alikes are the point
        **dict.fromkeys("−–—‐‑﹣", "-"),  # noqa: RUF001 - the look-alikes are the point
        **dict.fromkeys("[{", "("),
        **dict.fromkeys("]}", ")"),
    }
)
_ALLOWED = re.compile(r"[0-9Oo+\-x/()?]+")
_WHOLE_SIDE = ("", "?")  # what stands where the answer goes
_BOXES = str.maketrans(dict.fromkeys("□▢◻⬜_", "?"))  # other ways to leave room for one number


class ArithmeticSyntaxError(ValueError):
    """A text is not an expression of the grammar, or has no value (division by zero)."""


def canonical(text: str | None) -> str | None:
    """The one spelling of what is asked: `" 4 X 1 = ? "` -> `"4x1"`; None when it is no arithmetic question.

    A letter O counts as zero only where every other sign is arithmetic and some digit stands beside it.
    """
    if text is None or len(text) > 2 * MAX_LENGTH:
        return None
    plain = re.sub(r"\s+", "", unicodedata.normalize("NFKC", text).translate(_SAME).translate(_BOXES))
    plain = re.sub(r"\?+", "?", plain)
    left, _, right = plain.partition("=")
    if right in _WHOLE_SIDE:
        return _spelled(left.removesuffix("?"), num_unknown=0)
    if left in _WHOLE_SIDE:
        return _spelled(right, num_unknown=0)
    sides = [_spelled(side, num_unknown=side.count("?")) for side in (left, right)]
    if None in sides or plain.count("?") != 1:
        return None
    return "=".join(side for side in sides if side)


def _spelled(side: str, *, num_unknown: int) -> str | None:
    """One side in its one spelling; None where it is no expression with so many unknowns."""
    if len(side) > MAX_LENGTH or not _ALLOWED.fullmatch(side) or side.count("?") != num_unknown:
        return None
    if not num_unknown and not re.search(r"[0-9]", side):
        return None
    side = side.replace("O", "0").replace("o", "0")
    try:
        _Parser(side, evaluate=False).whole()
    except ArithmeticSyntaxError:
        return None
    return side


def canonical_number(text: str | None) -> str | None:
    """The one spelling of a number on a card: `"０7"` -> `"7"`, `"6/8"` -> `"3/4"`; None when it is no number."""  # noqa: RUF002
    written = "0" if text is not None and text.strip() in {"O", "o"} else canonical(text)
    if written is None or not re.fullmatch(r"-?[0-9]+(/[0-9]+)?", written):
        return None
    try:
        return number_text(solve(written))
    except ArithmeticSyntaxError:
        return None


def solve(text: str) -> Fraction:
    """The exact value of what is asked for. Raises ArithmeticSyntaxError, also where nothing or anything would do."""
    plain = canonical(text)
    if plain is None:
        raise ArithmeticSyntaxError(f"'{text[:40]}' is no arithmetic question.")
    left, _, right = plain.partition("=")
    value = _Parser(left).whole()
    if not right:
        return value.number
    other = _Parser(right).whole()
    return value.where_it_is(other.number) if "?" in left else other.where_it_is(value.number)


def number_text(value: Fraction) -> str:
    """`5`, `-2` or `5/6`."""
    return str(value.numerator) if value.denominator == 1 else f"{value.numerator}/{value.denominator}"


def answer(board: str | None) -> str | None:
    """The number that is asked for: `"4+1"` -> `"5"`, `"3+?=7"` -> `"4"`; None where there is none."""
    try:
        return number_text(solve(board)) if board is not None else None
    except ArithmeticSyntaxError:
        return None


def worked_line(board: str) -> str | None:
    """`"4+1"` -> `"4+1=5"`, `"3+?=7"` -> `"3+4=7"`; None where the board can not be solved."""
    written, number = canonical(board), answer(board)
    if written is None or number is None:
        return None
    if "=" not in written:
        return f"{written}={number}"
    return written.replace("?", number if number.isdigit() or written.startswith("?=") else f"({number})")


@dataclass(frozen=True, slots=True)
class _Value:
    """(a + b u) / (c + d u) of an unknown number u that stands in it at most once: every step keeps that form."""

    a: Fraction
    b: Fraction = Fraction(0)
    c: Fraction = Fraction(1)
    d: Fraction = Fraction(0)

    @property
    def number(self) -> Fraction:
        """Its value where no unknown stands in it."""
        return self.a / self.c

    @property
    def is_known(self) -> bool:
        return self.b == 0 and self.d == 0

    def plus(self, other: "_Value") -> "_Value":
        if not other.is_known:
            return other.plus(self)
        k = other.number
        return _Value(self.a + k * self.c, self.b + k * self.d, self.c, self.d)

    def times(self, other: "_Value") -> "_Value":
        if not other.is_known:
            return other.times(self)
        k = other.number
        return _Value(k * self.a, k * self.b, self.c, self.d)

    def inverse(self) -> "_Value":
        if self.a == 0 and self.b == 0:
            raise ArithmeticSyntaxError("division by zero has no value.")
        return _Value(self.c, self.d, self.a, self.b)

    def where_it_is(self, value: Fraction) -> Fraction:
        """The unknown number that gives this value."""
        above, below = value * self.c - self.a, self.b - value * self.d
        if below == 0:
            raise ArithmeticSyntaxError("no number, or any number, would do.")
        unknown = above / below
        if self.c + self.d * unknown == 0:
            raise ArithmeticSyntaxError("division by zero has no value.")
        return unknown


_ONE, _MINUS_ONE = _Value(Fraction(1)), _Value(Fraction(-1))


class _Parser:
    """Recursive descent; every step is bounded by the length of the text and by MAX_DEPTH."""

    def __init__(self, text: str, *, evaluate: bool = True) -> None:
        self._tokens = re.findall(r"[0-9]+|.", text)
        self._at = 0
        self._depth = 0
        self._evaluate = evaluate  # without it only the form is checked, so that 1/0 has a form but no value

    def whole(self) -> _Value:
        value = self._sum()
        if self._peek():
            raise ArithmeticSyntaxError(f"'{self._peek()}' does not belong there.")
        return value

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _take(self) -> str:
        token = self._peek()
        self._at += 1
        return token

    def _sum(self) -> _Value:
        value = self._term()
        while self._peek() in {"+", "-"}:
            value = value.plus(self._term() if self._take() == "+" else self._term().times(_MINUS_ONE))
        return value

    def _term(self) -> _Value:
        value = self._factor()
        while self._peek() in {"x", "/"}:
            value = value.times(self._factor() if self._take() == "x" else self._inverse(self._factor()))
        return value

    def _inverse(self, below: _Value) -> _Value:
        return below.inverse() if self._evaluate else _ONE

    def _factor(self) -> _Value:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ArithmeticSyntaxError(f"an expression is at most {MAX_DEPTH} deep.")
        value = self._atom()
        self._depth -= 1
        return value

    def _atom(self) -> _Value:
        token = self._take()
        if token == "-":
            return self._factor().times(_MINUS_ONE)
        if token == "?":
            return _Value(Fraction(0), Fraction(1)) if self._evaluate else _ONE
        if token == "(":
            value = self._sum()
            if self._take() != ")":
                raise ArithmeticSyntaxError("a bracket is not closed.")
            return value
        if not token.isascii() or not token.isdigit() or len(token) > MAX_DIGITS:
            raise ArithmeticSyntaxError(f"'{token}' is no number.")
        return _Value(Fraction(int(token)))
