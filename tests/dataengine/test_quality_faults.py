"""The benchmark of the quality checks, run small: faults put into good episodes are found, good ones left alone."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.quality import specimens_of, tally
from dataengine.quality.recordings import SourceRecordings
from dataengine.rig_files import load_rig
from dataengine.sources import open_source
from schemas.intervals import wilson_interval


def test_an_interval_holds_the_share_and_narrows_with_numbers() -> None:
    low, high = wilson_interval(95, 100)
    assert low < 0.95 < high
    assert wilson_interval(950, 1000)[0] > low
    assert wilson_interval(0, 0) == (0.0, 1.0)
    assert wilson_interval(100, 100)[1] == pytest.approx(1.0)


def test_faults_put_into_pushes_that_people_recorded_are_found(samples: Path) -> None:
    folder = samples / "pusht_zarr"
    if not folder.is_dir():
        pytest.skip("sample data is absent: no folder pusht_zarr")
    recordings = SourceRecordings(source=open_source(folder, load_rig("pusht")))
    specimens = specimens_of(recordings, most=10, seed=1)
    assert len(specimens) == 10
    counts = tally(recordings, specimens, repeats=1, seed=3, most=5)
    assert len(counts) == 11
    for check, row in counts.items():
        assert row.judged == 10, check
        assert row.alarms == 0, check
        assert row.faults >= 3, check
        assert row.found == row.faults, (check, row.missed)


def test_a_fault_is_put_in_the_same_place_again(samples: Path) -> None:
    from benchmarks.quality_faults import FAULTS

    folder = samples / "pusht_zarr"
    if not folder.is_dir():
        pytest.skip("sample data is absent: no folder pusht_zarr")
    recordings = SourceRecordings(source=open_source(folder, load_rig("pusht")))
    [specimen] = specimens_of(recordings, most=1, seed=1)
    for _ in range(2):
        one, two = (FAULTS["not_finite"](specimen, np.random.default_rng(5)) for _ in range(2))
        assert one is not None
        assert two is not None
        assert all(np.array_equal(one.columns[key], two.columns[key], equal_nan=True) for key in one.columns)
        assert not np.array_equal(one.columns["action"], specimen.columns["action"], equal_nan=True) or any(
            not np.isfinite(values).all() for values in one.columns.values()
        )
