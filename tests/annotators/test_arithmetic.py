"""The restricted arithmetic parser: what it reads, what it refuses, and that it never runs anything."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotators.arithmetic import ArithmeticSyntaxError, canonical, canonical_number, solve, worked_line


@pytest.mark.parametrize(
    ("written", "spelled"),
    [
        ("4+1=?", "4+1"),
        (" 4 + 1 = ", "4+1"),
        ("\uff14\uff0b\uff11\uff1d\uff1f", "4+1"),  # full-width
        ("3\u00d70=?", "3x0"),
        ("3*2", "3x2"),
        ("3X2", "3x2"),
        ("8\u00f72=?", "8/2"),
        ("9\u22124", "9-4"),
        ("3xO=?", "3x0"),
        ("[2+3]x4", "(2+3)x4"),
    ],
)
def test_one_question_has_one_spelling(written: str, spelled: str) -> None:
    assert canonical(written) == spelled


@pytest.mark.parametrize(
    "written",
    [
        "",
        "?",
        "=",
        "O",
        "OO",
        "hello",
        "4+",
        "+4",
        "4+1=6",
        "4+1=?7",
        "4++1",
        "(4+1",
        "4+1)",
        "__import__('os')",
        "1e9",
        "1.5",
        "4**2**9",
        "x",
    ],
)
def test_what_is_no_question_is_not_read_as_one(written: str) -> None:
    assert canonical(written) is None


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("4+1=?", Fraction(5)),
        ("2+3x4", Fraction(14)),
        ("(2+3)x4", Fraction(20)),
        ("7-9", Fraction(-2)),
        ("-3x-2", Fraction(6)),
        ("1/2+1/3", Fraction(5, 6)),
        ("8/4/2", Fraction(1)),
        ("9-4-3", Fraction(2)),
    ],
)
def test_values_are_exact(written: str, value: Fraction) -> None:
    assert solve(written) == value


def test_division_by_zero_is_readable_but_has_no_value() -> None:
    assert canonical("4/0=?") == "4/0"
    assert worked_line("4/0") is None
    with pytest.raises(ArithmeticSyntaxError):
        solve("4/(2-2)")


def test_length_and_depth_are_bounded() -> None:
    assert canonical("(" * 13 + "1" + ")" * 13) is None
    assert canonical("-" * 13 + "1") is None
    assert canonical("1+" * 40 + "1") is None
    assert canonical("9" * 10) is None


def test_a_number_on_a_card_has_one_spelling() -> None:
    assert canonical_number(" \uff117 ") == "17"
    assert canonical_number("O") == "0"
    assert canonical_number("07") == "7"
    assert canonical_number("6/8") == "3/4"
    assert canonical_number("4+1") is None
    assert canonical_number(None) is None


@given(
    st.lists(st.tuples(st.sampled_from(["+", "-", "x"]), st.integers(0, 99)), min_size=0, max_size=6),
    st.integers(0, 99),
)
def test_it_agrees_with_python_on_integers(tail: list[tuple[str, int]], head: int) -> None:
    text = str(head) + "".join(f"{sign}{number}" for sign, number in tail)
    assert solve(text) == eval(text.replace("x", "*"))


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused_but_never_raises(text: str) -> None:
    spelled = canonical(text)
    assert spelled is None or canonical(spelled) == spelled
