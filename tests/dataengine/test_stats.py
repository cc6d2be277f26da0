"""Streamed statistics are those of all rows at once, to the last bit of numpy's own quantiles."""

import numpy as np
import pytest
from numpy.typing import NDArray

from dataengine.stats import QUANTILES, ColumnStatsAccumulator, column_stats

RANDOM = np.random.default_rng(0)
COLUMNS: dict[str, NDArray[np.generic]] = {
    "float32": RANDOM.normal(size=(3001, 3)).astype(np.float32) * np.float32(1e3),
    "float32 of all magnitudes": (10.0 ** RANDOM.uniform(-38, 38, (2000, 2))).astype(np.float32)
    * RANDOM.choice([-1, 1], (2000, 2)).astype(np.float32),
    "float64": RANDOM.normal(size=(2999, 2)),
    "ties": RANDOM.integers(-3, 4, (5000, 2)).astype(np.float32),
    "signed zeros": RANDOM.choice([-0.0, 0.0, 1.0], (501, 1)).astype(np.float32),
    "a constant": np.full((400, 2), 0.1, np.float32),
    "one row": np.asarray([[1.5, -2.5]], np.float32),
    "two rows": np.asarray([[1.5], [-2.5]], np.float64),
    "int64 stamps": np.sort(RANDOM.integers(1_700_000_000_000_000_000, 1_700_000_001_000_000_000, (2500, 1))),
    "int32": RANDOM.integers(-(2**31), 2**31, (2000, 1)).astype(np.int32),
    "int8": RANDOM.integers(-128, 128, (700, 2)).astype(np.int8),
    "uint8": RANDOM.integers(0, 256, (700, 2)).astype(np.uint8),
    "uint16": RANDOM.integers(0, 65536, (700, 2)).astype(np.uint16),
    "bool": RANDOM.integers(0, 2, (700, 2)).astype(bool),
    "float16": RANDOM.normal(size=(900, 2)).astype(np.float16),
    "one dimension": np.arange(1000, dtype=np.int64),
}


def passes(accumulator: ColumnStatsAccumulator, parts: list[NDArray[np.generic]]) -> int:
    """Feed everything as often as it is asked for."""
    num = 0
    while True:
        for part in parts:
            accumulator.add(part)
        num += 1
        if not accumulator.next_pass():
            return num


@pytest.mark.parametrize("small_bytes", [0, 1 << 20], ids=["histograms", "kept"])
@pytest.mark.parametrize("name", COLUMNS)
def test_streamed_quantiles_equal_numpys_on_all_rows(name: str, small_bytes: int) -> None:
    rows = COLUMNS[name]
    accumulator = ColumnStatsAccumulator(small_bytes=small_bytes)
    num = passes(accumulator, np.array_split(rows, 7))
    assert num == 1 if small_bytes else num == max(1, rows.dtype.itemsize // 2)
    stats = accumulator.stats()
    whole = rows.reshape(len(rows), -1).astype(np.float64)
    for key, share in QUANTILES.items():
        assert np.array_equal(stats[key], np.quantile(whole, share, axis=0)), key
    assert np.array_equal(stats["min"], whole.min(axis=0))
    assert np.array_equal(stats["max"], whole.max(axis=0))
    assert stats["count"].tolist() == [len(rows)]
    np.testing.assert_allclose(stats["mean"], whole.mean(axis=0), rtol=1e-12)
    spread = max(float(np.abs(whole).max()) * 1e-12, 1e-300)
    np.testing.assert_allclose(stats["std"], whole.std(axis=0), rtol=1e-9, atol=spread)
    at_once = column_stats(rows)
    assert stats.keys() == at_once.keys()
    for key in (*QUANTILES, "min", "max", "count"):
        assert np.array_equal(stats[key], at_once[key]), key


def test_two_workers_who_merge_know_what_one_would() -> None:
    rows = COLUMNS["float32"]
    whole = ColumnStatsAccumulator(small_bytes=0)
    again = True
    while again:
        workers = [whole.part(), whole.part()]
        for worker, part in zip(workers, (rows[:1000], rows[1000:]), strict=True):
            worker.add(part)
        for worker in workers:
            whole.merge(worker)
        again = whole.next_pass()
    for key, share in QUANTILES.items():
        assert np.array_equal(whole.stats()[key], np.quantile(rows.astype(np.float64), share, axis=0))
    np.testing.assert_allclose(whole.stats()["std"], rows.astype(np.float64).std(axis=0), rtol=1e-9)


def test_rows_that_are_missing_in_the_second_pass_are_noticed() -> None:
    accumulator = ColumnStatsAccumulator(small_bytes=0)
    accumulator.add(COLUMNS["float32"])
    assert accumulator.next_pass()
    accumulator.add(COLUMNS["float32"][1:])
    with pytest.raises(ValueError, match="3000 rows in pass 2, 3001 in the first"):
        accumulator.next_pass()


def test_asking_before_the_last_pass_is_refused() -> None:
    accumulator = ColumnStatsAccumulator(small_bytes=0)
    accumulator.add(COLUMNS["float32"])
    with pytest.raises(ValueError, match="another pass"):
        accumulator.stats()
