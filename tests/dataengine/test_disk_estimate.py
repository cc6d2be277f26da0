"""What a conversion would take, before it is begun."""

from pathlib import Path

import pytest
import raw_files

from dataengine.disk_estimate import estimate
from dataengine.rig_files import load_rig
from dataengine.sources import open_source


def test_minutes_come_from_a_piece_that_was_really_staged(tmp_path: Path) -> None:
    raw = raw_files.write_aloha_folder(tmp_path / "raw", num_episodes=3, num_frames=300)
    source = open_source(raw, load_rig("aloha_sim"))
    before = sorted(path for path in tmp_path.rglob("*"))
    guess = estimate(source, source.names(), videos=True, frames=True, workers=1)
    assert guess.minutes is not None
    assert 0 < guess.minutes < 10
    assert sorted(path for path in tmp_path.rglob("*")) == before
    # a thousand times the episodes take longer, though not more than a thousand times: the start counts once
    many = estimate(source, source.names() * 1000, videos=True, frames=True, workers=1)
    assert many.minutes is not None
    assert 3 * guess.minutes < many.minutes
    assert many.num_episodes == 3000


def test_videos_that_are_copied_are_timed_as_copies(tmp_path: Path) -> None:
    raw = raw_files.write_lerobot_v21(tmp_path / "raw", lengths=(20, 25))
    source = open_source(raw, None)
    guess = estimate(source, source.names(), videos=True, frames=False, workers=1)
    assert guess.minutes is not None
    assert guess.num_frames == 45


def test_where_no_episode_can_be_read_no_minutes_are_guessed(tmp_path: Path) -> None:
    raw = raw_files.write_aloha_folder(tmp_path / "raw", num_episodes=1, num_frames=8, short_camera="cam_low")
    source = open_source(raw, load_rig("aloha_sim"))
    guess = estimate(source, source.names(), videos=True, frames=True)
    assert (guess.minutes, guess.num_episodes, guess.disk_bytes) == (None, 0, 0)
    assert "episode_0.hdf5" in guess.unreadable[0]


@pytest.mark.parametrize("size", [(160, 120), None])
def test_a_frame_size_is_staged_as_asked(tmp_path: Path, size: tuple[int, int] | None) -> None:
    raw = raw_files.write_aloha_folder(tmp_path / "raw", num_episodes=1, num_frames=8)
    source = open_source(raw, load_rig("aloha_sim"))
    guess = estimate(source, source.names(), videos=False, frames=True, frame_size=size)
    assert guess.minutes is not None
