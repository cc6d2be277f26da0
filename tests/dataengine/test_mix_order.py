"""The order of draws: shares in every prefix, items without replacement, any rank and any restart."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataengine.mix.order import DrawOrder, interleave, order_key, shuffled
from dataengine.mix.resolve import largest_remainder, resolve_draws
from dataengine.mix.splits import held_out
from schemas.errors import MixError
from schemas.mixes import LlavaSource, MixSpec


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=7))
def test_every_prefix_holds_each_share_to_less_than_one_sample(draws: list[int]) -> None:
    period = interleave(draws)
    order = np.tile(period, sum(draws) // len(period))
    counts = np.cumsum(order[:, None] == np.arange(len(draws)), axis=0)
    assert counts[-1].tolist() == draws
    ideal = np.arange(1, len(order) + 1)[:, None] * np.array(draws) / sum(draws)
    assert np.abs(counts - ideal).max() < 1


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3000), st.integers(0, 50))
def test_a_keyed_order_is_a_permutation_and_its_inverse_undoes_it(size: int, walk: int) -> None:
    key = order_key(3, "arms", walk)
    places = np.arange(size)
    there = shuffled(places, size, key)
    assert sorted(there.tolist()) == places.tolist()
    assert shuffled(there, size, key, inverse=True).tolist() == places.tolist()


def test_a_keyed_order_leaves_no_trace_of_the_items_order() -> None:
    there = shuffled(np.arange(20000), 20000, order_key(0, "arms", 0))
    assert abs(np.corrcoef(np.arange(20000), there)[0, 1]) < 0.03
    assert np.mean(np.abs(np.diff(there)) == 1) < 0.001
    assert abs(np.mean(there[:2000]) - 9999.5) < 500  # an early draw comes from anywhere


def _order(num_items: tuple[int, ...], num_draws: tuple[int, ...], seed: int = 0) -> DrawOrder:
    names = [f"source{number}" for number in range(len(num_items))]
    return DrawOrder(interleave(num_draws), names=names, num_items=num_items, num_draws=num_draws, seed=seed)


def test_a_source_shows_every_item_once_before_any_twice_also_across_passes() -> None:
    order = _order((7, 5), (4, 3))
    block = order.block(0, 7 * 35)
    for number, size in enumerate((7, 5)):
        items = block.item[block.source == number]
        for start in range(0, len(items) - size + 1, size):
            assert sorted(items[start : start + size].tolist()) == list(range(size))


def test_repeat_counts_how_often_an_item_came_before_in_the_same_pass() -> None:
    order = _order((7, 5), (17, 3))
    for epoch in range(5):
        block = order.block(epoch * 20, 20)
        seen: dict[tuple[int, int], int] = {}
        for source, item, repeat in zip(block.source, block.item, block.repeat, strict=True):
            assert repeat == seen.get((int(source), int(item)), 0)
            seen[int(source), int(item)] = int(repeat) + 1


def test_a_position_holds_the_same_draw_however_it_is_asked_for() -> None:
    order = _order((11, 6, 30), (20, 9, 3), seed=4)
    whole = order.block(0, 200)
    for start, count in ((0, 1), (31, 2), (63, 70), (199, 1)):
        part = order.block(start, count)
        for name in ("source", "item", "repeat"):
            assert getattr(part, name).tolist() == getattr(whole, name)[start : start + count].tolist()


def test_another_seed_gives_another_order_of_the_same_items() -> None:
    first, second = _order((50,), (50,), seed=1).block(0, 50), _order((50,), (50,), seed=2).block(0, 50)
    assert first.item.tolist() != second.item.tolist()
    assert sorted(first.item) == sorted(second.item)


def test_long_interleaves_count_from_the_middle_as_from_the_start() -> None:
    draws = (40_003, 30_001)  # longer than one stride of the prefix counts
    order = _order((1000, 770), draws)
    whole = order.block(0, sum(draws))
    part = order.block(66_000, 4000)
    assert part.item.tolist() == whole.item[66_000:70_000].tolist()
    assert [int((whole.source == number).sum()) for number in (0, 1)] == list(draws)


def test_a_negative_position_is_refused() -> None:
    with pytest.raises(MixError, match="count from 0"):
        _order((3,), (3,)).block(-1, 2)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=6), st.integers(1, 100_000))
def test_weights_become_whole_draws_that_sum_to_the_total(shares: list[float], total: int) -> None:
    draws = largest_remainder(shares, total)
    assert sum(draws) == total
    for share, drawn in zip(shares, draws, strict=True):
        assert abs(drawn - share / sum(shares) * total) < 1 + 1e-6


def _spec(**how_much: float) -> MixSpec:
    total = {"num_samples": 100} if "weight" in how_much else {}
    sources = [LlavaSource(name=name, path="a.json", max_repeats=3, **how_much) for name in ("a", "b")]
    return MixSpec(sources=tuple(sources), **total)


def test_epochs_are_passes_over_a_source() -> None:
    assert resolve_draws(_spec(epochs=1.5), [10, 3]) == (15, 5)


def test_a_source_repeated_beyond_its_cap_is_refused_with_the_numbers() -> None:
    with pytest.raises(MixError, match=r"'b' would be drawn 50 times from 10 items \(5.0 repeats\).*max_repeats 3"):
        resolve_draws(_spec(weight=1), [1000, 10])


def test_a_source_that_would_get_nothing_is_refused() -> None:
    with pytest.raises(MixError, match="'b' gets 0 of 10 samples"):
        resolve_draws(_spec(epochs=0.1), [100, 4])


def test_num_samples_that_disagree_with_epochs_are_refused() -> None:
    spec = _spec(epochs=1).model_copy(update={"num_samples": 7})
    with pytest.raises(MixError, match="come to 30 samples"):
        resolve_draws(spec, [10, 20])


def test_a_split_keeps_its_sides_when_episodes_are_added() -> None:
    few = [f"episode_{number}" for number in range(200)]
    many = [*few, *(f"more_{number}" for number in range(200))]
    before, after = held_out(few, share=0.1, seed=1), held_out(many, share=0.1, seed=1)
    assert before == after & set(few)
    assert 5 <= len(before) <= 40


def test_a_split_leaves_neither_side_empty() -> None:
    for seed in range(30):
        assert len(held_out(["a", "b"], share=0.01, seed=seed)) == 1
        assert len(held_out(["a", "b"], share=0.99, seed=seed)) == 1
    assert held_out(["a"], share=0.5, seed=0) == frozenset()
    assert held_out(["a", "b"], share=0.0, seed=0) == frozenset()
