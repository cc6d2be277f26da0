"""Agreement figures, against examples that were published with their results."""

import itertools

import numpy as np
import pytest
from ledger_rows import segments, trace

from annotators.agreement import (
    Comparisons,
    Vote,
    agrees,
    boundary_agreement,
    field_agreement,
    fields_of,
    krippendorff_alpha,
    pair_agreement,
)
from annotators.ballots import Ballot, Ballots
from schemas.annotations import ReasoningTrace, SegmentList
from schemas.shares import Share


def by_unit(*coders: str) -> list[list[str]]:
    """Units from one line per coder; a dot is a value that is missing."""
    return [[value for value in unit if value != "."] for unit in zip(*(line.split() for line in coders), strict=True)]


def alpha_of(units: list[list[str]]) -> float | None:
    said = [(number, ord(value)) for number, unit in enumerate(units) for value in unit]
    unit_E, value_E = np.array(said, dtype=np.int64).reshape(-1, 2).T
    return krippendorff_alpha(unit_E, value_E)


def kappa_of(table: tuple[int, ...]) -> float | None:
    """One row of counts after the other: what the one said, by what the other said."""
    cells = np.repeat(np.arange(len(table)), table)
    width = round(len(table) ** 0.5)
    pairs = Comparisons(num_values=width)
    for some in np.array_split(cells, 3):  # it comes in parts, under two keys
        pairs.add(np.full_like(some, 7), some // width, some % width)
        pairs.add(np.full_like(some, 3), some % width, some % width)
    (first, _, _, _), (_, total, num_same, kappa) = pairs.kappas()
    assert first == 3
    assert (total, num_same) == (sum(table), sum(table[:: width + 1]))
    return kappa


def ballot(votes: list[Vote]) -> Ballot:
    ballots = Ballots()
    return ballots.chosen([ballots.add(one.item_id, one.reviewer, one.said) for one in votes])


@pytest.mark.parametrize(
    ("coders", "alpha"),
    [  # Krippendorff, Computing Krippendorff's Alpha-Reliability (2011): A binary, B nominal, C many and missing
        (("0 1 0 0 0 0 0 0 1 0", "1 1 1 0 0 1 0 0 0 0"), 0.095),
        (("a a b b d c c c e d d a", "b a b b b c c c e d d d"), 0.692),
        (
            (
                "1 2 3 3 2 1 4 1 2 . . .",
                "1 2 3 3 2 2 4 1 2 5 . 3",
                ". 3 3 3 2 3 4 2 2 5 1 .",
                "1 2 3 3 2 4 4 1 2 5 1 .",
            ),
            0.743,
        ),
    ],
)
def test_alpha_is_that_of_the_published_examples(coders: tuple[str, ...], alpha: float) -> None:
    assert alpha_of(by_unit(*coders)) == pytest.approx(alpha, abs=0.0005)


def test_alpha_is_not_defined_where_nobody_ever_said_two_different_things() -> None:
    assert alpha_of([["a", "a"], ["a", "a"]]) is None
    assert alpha_of([["a"], ["b"]]) is None
    assert alpha_of([]) is None


@pytest.mark.parametrize(
    ("table", "kappa"),
    [  # the first is Cohen's own (1960), of 200 cases; the second is worked out in many textbooks
        ((88, 10, 2, 14, 40, 6, 18, 10, 12), 0.492),
        ((20, 5, 10, 15), 0.4),
    ],
)
def test_kappa_is_that_of_the_published_examples(table: tuple[int, ...], kappa: float) -> None:
    assert kappa_of(table) == pytest.approx(kappa, abs=0.0005)


def test_kappa_is_not_defined_where_both_always_say_one_same_thing() -> None:
    assert kappa_of((7,)) is None
    assert not list(Comparisons(num_values=1).kappas())


def vote(reviewer: str, payload: ReasoningTrace | SegmentList | None, item: str = "one") -> Vote:
    field = "segments" if isinstance(payload, SegmentList) else "trace"
    return Vote(
        item_id=item, reviewer=reviewer, field=field, words=None if payload is None else payload.model_dump(mode="json")
    )


def test_people_are_compared_field_by_field_and_a_reject_says_nothing_about_fields() -> None:
    votes = [vote("a", trace()), vote("b", trace(board="4+2")), vote("c", None), vote("a", trace(), "two")]
    found = {row.field: row for row in field_agreement(ballot(votes))}
    assert found["trace.board"].num_items == 1
    assert found["trace.board"].alpha == pytest.approx(0.0)
    assert found["trace.solution"].alpha is None
    assert found["trace.keep"].num_items == 1
    assert {row.field for row in pair_agreement(ballot(votes))} == {
        *(f"trace.{name}" for name in ("keep", "board", "solution", "cards", "pick_text", "pick_position"))
    }
    board = next(row for row in pair_agreement(ballot(votes)) if row.field == "trace.board")
    assert (board.first, board.second, board.num_items, board.num_same, board.kappa) == ("a", "b", 1, 0, 0.0)


def test_where_a_card_was_seen_is_no_disagreement() -> None:
    words = trace().model_dump(mode="json")
    moved = trace().model_dump(mode="json")
    moved["cards"][0]["box_xyxy"] = [1, 2, 3, 4]
    assert fields_of(words) == fields_of(moved)
    assert agrees(words, moved)


def later(seconds: float) -> SegmentList:
    """The segments of 8 s, each inner boundary later by so much."""
    parts = [part.model_dump(mode="json") for part in segments(8_000_000_000).segments]
    for left, right in itertools.pairwise(parts):
        left["end_ns"] = right["start_ns"] = right["start_ns"] + round(seconds * 1e9)
    return SegmentList.model_validate({"segments": parts})


@pytest.mark.parametrize(
    ("seconds", "tight", "wide"), [(0.0, 1.0, 1.0), (0.25, 1.0, 1.0), (0.3, 0.0, 1.0), (0.6, 0, 0)]
)
def test_boundaries_agree_within_a_tolerance(seconds: float, tight: float, wide: float) -> None:
    votes = [vote("a", segments(8_000_000_000)), vote("b", later(seconds))]
    assert [row.f1 for row in boundary_agreement(votes)] == [tight, wide]
    words = [one.words for one in votes]
    assert agrees(*words) == (tight == 1.0)


def test_one_boundary_is_paired_with_one_other() -> None:
    three, two = segments(8_000_000_000), segments(8_000_000_000).segments
    merged = SegmentList(segments=(two[0], two[1].model_copy(update={"end_ns": two[2].end_ns})))
    row = boundary_agreement([vote("a", three), vote("b", merged)])[0]
    assert (row.num_pairs, row.num_boundaries) == (1, 3)
    assert row.f1 == pytest.approx(2 / 3)
    assert not agrees(vote("a", three).words, vote("b", merged).words)


@pytest.mark.parametrize(
    ("num", "of", "low", "high"),
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (1, 29, 0.0061, 0.1718)],
)
def test_the_interval_of_a_share_is_wilsons(num: int, of: int, low: float, high: float) -> None:
    share = Share(num=num, of=of)
    assert (share.low, share.high) == (pytest.approx(low, abs=5e-4), pytest.approx(high, abs=5e-4))
