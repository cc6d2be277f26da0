"""Verify holds depth against its source: bit for bit in the frame store, within one code step in the video."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import episodes_in_memory as memory
import numpy as np
import pytest
from numpy.typing import NDArray

from dataengine.episode_set import EpisodeSet
from dataengine.frame_store import FrameStore
from dataengine.proofs.depths import episode_depth
from dataengine.proofs.findings import summarised
from schemas.episodes import CameraStream, Episode
from schemas.records import Record

NUM_FRAMES = 15


def _slope() -> NDArray[np.uint16]:
    """(frames, 48, 64) millimetres: a moving slope with a hole, and one pixel beyond ten metres."""
    rows, columns = np.mgrid[0:48, 0:64]
    frames = np.stack([300 + rows * 60 + columns * 90 + 37 * step for step in range(NUM_FRAMES)]).astype(np.uint16)
    frames[:, :5, :5] = 0
    frames[:, -1, -1] = 12_345
    return frames


def _episode(depth: NDArray[Any], unit_m: float, orientation: str) -> Episode:
    colours = np.random.default_rng(0).integers(0, 256, (NUM_FRAMES, 48, 64, 3), dtype=np.uint8)
    cameras: dict[str, CameraStream] = {
        "cam": memory.colour("cam", colours),
        "near": memory.depth("near", depth, unit_m, orientation=orientation),
    }
    return memory.episode(0, cameras, num_frames=NUM_FRAMES)


def _failed(episode: Episode, folder: Path) -> set[str]:
    record = Record(kind="episodes", name="deep", version="1", created=datetime.now(UTC), fingerprint="0")
    findings = episode_depth(
        episode,
        "near",
        episode.cameras["near"],
        episodes=EpisodeSet(folder / "dataset", None, record),
        store=FrameStore.open(folder / "store"),
    )
    return {finding.check for finding in findings if not finding.ok}


@pytest.mark.parametrize(("unit_m", "orientation"), [(0.001, "upright"), (0.001, "rotated_180"), (1.0, "upright")])
def test_what_differs_from_the_recorded_depth_is_found(tmp_path: Path, unit_m: float, orientation: str) -> None:
    depth: NDArray[Any] = _slope() if unit_m == 0.001 else (_slope() / np.float32(1000)).astype(np.float32)
    memory.write(tmp_path, [_episode(depth, unit_m, orientation)])
    assert _failed(_episode(depth, unit_m, orientation), tmp_path) == set()
    one = depth.copy()
    one[3, 20, 20] += 1 if unit_m == 0.001 else np.float32(0.001)
    in_store = "depth of the frame store is bit-equal"
    assert _failed(_episode(one, unit_m, orientation), tmp_path) == {in_store}
    far = depth.copy()
    far[7, 20, 20] += 30 if unit_m == 0.001 else np.float32(0.03)
    in_video = "video depth is within a quantisation step"
    assert _failed(_episode(far, unit_m, orientation), tmp_path) == {in_store, in_video}


def test_depth_beyond_the_reach_of_the_video_is_told_and_is_no_fault(tmp_path: Path) -> None:
    episode = _episode(_slope(), 0.001, "upright")
    memory.write(tmp_path, [episode])
    record = Record(kind="episodes", name="deep", version="1", created=datetime.now(UTC), fingerprint="0")
    episodes = EpisodeSet(tmp_path / "dataset", None, record)
    found = episode_depth(episode, "near", episode.cameras["near"], episodes=episodes, store=None)
    [row] = [row for row in summarised(("one", row) for row in found) if "reach" in row.check]
    assert row.ok
    beyond = int((_slope() > 10_000).sum())
    assert f"one: {beyond} pixels lie beyond 0.01..10 m" in row.detail
