"""A worker's memory does not grow with the length of an episode."""

from pathlib import Path

import pytest

from benchmarks.memory import HOUR_FRAMES, convert_peaks, write_long_episode
from dataengine.workspace import read_record


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_an_hour_at_50_hz_stays_under_one_gigabyte(tmp_path: Path) -> None:
    write_long_episode(tmp_path / "raw" / "episode_0.hdf5", HOUR_FRAMES)
    peaks = convert_peaks(tmp_path / "raw", tmp_path / "workspace")
    record = read_record(tmp_path / "workspace/episodes/hour@1")
    assert record.counts["frames"] == HOUR_FRAMES
    assert peaks.worker_mb < 1000
    assert peaks.driver_mb < 1000
