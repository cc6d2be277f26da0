"""The restricted arithmetic parser: what it reads, what it refuses, and that it never runs anything."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotators.arithmetic import ArithmeticSyntaxError, answer, canonical, canonical_number, solve, worked_line


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


@pytest.mark.parametrize(
    ("written", "spelled", "asked", "worked"),
    [
        ("? = 4 + 1", "4+1", "5", "4+1=5"),
        ("=4+1", "4+1", "5", "4+1=5"),
        ("3 + ? = 7", "3+?=7", "4", "3+4=7"),
        ("7 = 3 + ??", "7=3+?", "4", "7=3+4"),
        ("\u25a1 + 2 = 5", "?+2=5", "3", "3+2=5"),
        ("12 = ? x 4", "12=?x4", "3", "12=3x4"),
        ("12 / ? = 4", "12/?=4", "3", "12/3=4"),
        ("(2 + ?) x 3 = 15", "(2+?)x3=15", "3", "(2+3)x3=15"),
        ("? / 4 = 1/2", "?/4=1/2", "2", "2/4=1/2"),
        ("5 - ? = 9", "5-?=9", "-4", "5-(-4)=9"),
        ("2 x ? = 3", "2x?=3", "3/2", "2x(3/2)=3"),
    ],
)
def test_the_unknown_may_stand_on_either_side_and_inside(written: str, spelled: str, asked: str, worked: str) -> None:
    assert (canonical(written), answer(written), worked_line(written)) == (spelled, asked, worked)


@pytest.mark.parametrize("written", ["3+4=7", "3+?=?", "?=?", "?+?=4", "3+?7=40", "3?=31", "?+1"])
def test_a_question_has_exactly_one_unknown(written: str) -> None:
    assert canonical(written) is None


@pytest.mark.parametrize("written", ["0x?=0", "0x?=5", "0/?=0", "5/?=0", "?+1=?+1"])
def test_what_no_number_or_any_number_solves_has_no_answer(written: str) -> None:
    assert answer(written) is None
    assert worked_line(written) is None


@given(st.sampled_from(["+", "-", "x"]), st.integers(0, 99), st.integers(1, 99), st.booleans())
def test_the_unknown_is_what_was_hidden(sign: str, hidden: int, other: int, hidden_first: bool) -> None:
    whole = f"{hidden}{sign}{other}" if hidden_first else f"{other}{sign}{hidden}"
    asked = whole.replace(str(hidden), "?", 1) if hidden_first else f"{other}{sign}?"
    assert solve(f"{asked}={eval(whole.replace('x', '*'))}") == hidden
