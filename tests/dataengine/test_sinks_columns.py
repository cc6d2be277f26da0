"""Rows and statistics that a commit takes from elsewhere are those that it would find itself."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dataengine.sinks.auto_columns import AutoColumns, auto_totals
from dataengine.sinks.staged_columns import pack, read_columns, read_head, with_head
from dataengine.sinks.totals import Totals
from dataengine.stats import QUANTILES, Stats, column_stats

RANDOM = np.random.default_rng(0)
RATE_HZ = 30


def assert_same(found: Stats, expected: Stats) -> None:
    """Order statistics to the last bit, sums but for their order."""
    assert list(found) == list(expected)
    for name, values in expected.items():
        assert found[name].shape == values.shape, name
        if name in ("mean", "std", *QUANTILES):
            np.testing.assert_allclose(found[name], values, rtol=1e-12, atol=1e-12, err_msg=name)
        else:
            assert np.array_equal(found[name], values), name


def test_staged_columns_come_back_bit_for_bit_with_their_statistics(tmp_path: Path) -> None:
    columns: dict[str, NDArray[np.generic]] = {
        "float32": RANDOM.normal(size=(7, 3)).astype(np.float32),
        "float16": RANDOM.normal(size=(7, 1)).astype(np.float16),
        "bool": RANDOM.integers(0, 2, (7, 5)).astype(bool),
        "float64": RANDOM.normal(size=(7, 2)),
        "uint8": RANDOM.integers(0, 256, (7, 3)).astype(np.uint8),
        "stamp_ns.clock": np.sort(RANDOM.integers(0, 1 << 60, 7)),
    }
    shapes = {key: (column.dtype, column.shape) for key, column in columns.items()}
    (tmp_path / "columns").write_bytes(pack(b"head", columns))
    assert read_head(tmp_path / "columns") == b"head"
    (tmp_path / "columns").write_bytes(with_head((tmp_path / "columns").read_bytes(), b"another head"))
    head, found, stats = read_columns(tmp_path / "columns", shapes)
    assert head == read_head(tmp_path / "columns") == b"another head"
    assert list(found) == list(stats) == list(columns)
    for key, column in columns.items():
        assert found[key].dtype == column.dtype
        assert np.array_equal(found[key], column), key
        assert_same(stats[key], column_stats(column))


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff" * 40, b'{"name": "of another version"}'])
def test_a_file_that_is_no_staged_one_has_no_head(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "columns").write_bytes(content)
    assert read_head(tmp_path / "columns") == b""


@pytest.mark.parametrize("change", [-8, 8])
def test_a_staged_file_of_another_length_is_not_read(tmp_path: Path, change: int) -> None:
    (tmp_path / "columns").write_bytes(pack(b"{}", {"a": np.zeros((10, 2), np.float32)}))
    content = (tmp_path / "columns").read_bytes()
    (tmp_path / "columns").write_bytes(content[:change] if change < 0 else content + bytes(change))
    with pytest.raises((ValueError, TypeError)):
        read_columns(tmp_path / "columns", {"a": (np.dtype(np.float32), (10, 2))})


def test_statistics_of_automatic_columns_follow_from_lengths() -> None:
    lengths, tasks = [5, 1, 400, 17, 5], [0, 2, 0, 2, 0]
    firsts = np.cumsum([0, *lengths]).tolist()
    episodes = [
        AutoColumns(num_frames=rows, rate_hz=RATE_HZ, episode_index=number, first_index=firsts[number], task_index=task)
        for number, (rows, task) in enumerate(zip(lengths, tasks, strict=True))
    ]
    for episode in episodes:
        stats = episode.stats()
        for key, column in episode.values().items():
            assert_same(stats[key], column_stats(column))
    totals = auto_totals(lengths, tasks, RATE_HZ)
    assert list(totals) == list(episodes[0].values())
    for key, found in totals.items():
        assert_same(found, column_stats(np.concatenate([episode.values()[key] for episode in episodes])))


@pytest.mark.parametrize("kept_bytes", [0, 1 << 20], ids=["counted", "kept"])
def test_totals_are_those_of_all_rows_at_once(kept_bytes: int) -> None:
    episodes: list[dict[str, NDArray[np.generic]]] = [
        {"a": RANDOM.normal(size=(rows, 3)).astype(np.float32) * 1e3, "b": RANDOM.integers(-9, 9, (rows, 1))}
        for rows in (40, 1, 700)
    ]
    totals = Totals(kept_bytes=kept_bytes)
    passes = 1
    while True:
        for columns in episodes:
            totals.add(columns, {key: column_stats(column) for key, column in columns.items()})
        if not totals.next_pass():
            break
        passes += 1
    assert passes == (1 if kept_bytes else 4)
    for key, found in totals.stats().items():
        assert_same(found, column_stats(np.concatenate([columns[key] for columns in episodes])))
