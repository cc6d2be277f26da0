"""Arithmetic as written by hand: a restricted grammar, exact rationals, no `eval`.

sum = term (('+'|'-') term)*; term = factor (('x'|'/') factor)*; factor = '-' factor | number | '(' sum ')'.
What stands right of '=' may be empty or a question mark; anything else is not a question and is not canonical.
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
_ALLOWED = re.compile(r"[0-9Oo+\-x/()]+")
_NOTHING_ASKED = re.compile(r"\??\s*")


class ArithmeticSyntaxError(ValueError):
    """A text is not an expression of the grammar, or has no value (division by zero)."""


def canonical(text: str | None) -> str | None:
    """The one spelling of what is asked: `" 4 X 1 = ? "` -> `"4x1"`; None when it is no arithmetic question.

    A letter O counts as zero only where every other sign is arithmetic and some digit stands beside it.
    """
    if text is None or len(text) > 2 * MAX_LENGTH:
        return None
    plain = re.sub(r"\s+", "", unicodedata.normalize("NFKC", text).translate(_SAME))
    left, _, right = plain.partition("=")
    if not _NOTHING_ASKED.fullmatch(right):
        return None
    left = left.removesuffix("?")
    if not _ALLOWED.fullmatch(left) or not re.search(r"[0-9]", left):
        return None
    left = left.replace("O", "0").replace("o", "0")
    try:
        tree = _parse(left)
    except ArithmeticSyntaxError:
        return None
    return tree.text


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
    """The exact value of an expression; `=?` at its end is tolerated. Raises ArithmeticSyntaxError."""
    plain = canonical(text)
    if plain is None:
        raise ArithmeticSyntaxError(f"'{text[:40]}' is no arithmetic question.")
    return _parse(plain).value


def number_text(value: Fraction) -> str:
    """`5`, `-2` or `5/6`."""
    return str(value.numerator) if value.denominator == 1 else f"{value.numerator}/{value.denominator}"


def worked_line(board: str) -> str | None:
    """`"4+1"` -> `"4+1=5"`; None where the board can not be solved."""
    try:
        return f"{canonical(board)}={number_text(solve(board))}"
    except ArithmeticSyntaxError:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tree:
    """A parsed expression: its canonical text and a way to its value."""

    text: str

    @property
    def value(self) -> Fraction:
        return _Parser(self.text).whole()


def _parse(text: str) -> _Tree:
    if len(text) > MAX_LENGTH:
        raise ArithmeticSyntaxError(f"an expression has at most {MAX_LENGTH} signs, got {len(text)}.")
    _Parser(text, evaluate=False).whole()
    return _Tree(text=text)


class _Parser:
    """Recursive descent; every step is bounded by the length of the text and by MAX_DEPTH."""

    def __init__(self, text: str, *, evaluate: bool = True) -> None:
        self._tokens = re.findall(r"[0-9]+|.", text)
        self._at = 0
        self._depth = 0
        self._evaluate = evaluate  # without it only the form is checked, so that 1/0 has a form but no value

    def whole(self) -> Fraction:
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

    def _sum(self) -> Fraction:
        value = self._term()
        while self._peek() in {"+", "-"}:
            value = value + self._term() if self._take() == "+" else value - self._term()
        return value

    def _term(self) -> Fraction:
        value = self._factor()
        while self._peek() in {"x", "/"}:
            if self._take() == "x":
                value *= self._factor()
            else:
                value = self._divide(value, self._factor())
        return value

    def _divide(self, above: Fraction, below: Fraction) -> Fraction:
        if not self._evaluate:
            return Fraction(1)
        if below == 0:
            raise ArithmeticSyntaxError("division by zero has no value.")
        return above / below

    def _factor(self) -> Fraction:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ArithmeticSyntaxError(f"an expression is at most {MAX_DEPTH} deep.")
        value = self._atom()
        self._depth -= 1
        return value

    def _atom(self) -> Fraction:
        token = self._take()
        if token == "-":
            return -self._factor()
        if token == "(":
            value = self._sum()
            if self._take() != ")":
                raise ArithmeticSyntaxError("a bracket is not closed.")
            return value
        if not token.isascii() or not token.isdigit() or len(token) > MAX_DIGITS:
            raise ArithmeticSyntaxError(f"'{token}' is no number.")
        return Fraction(int(token))
