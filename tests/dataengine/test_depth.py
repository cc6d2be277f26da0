"""Depth: LeRobot reads the video back as its own, the frame store gives back the very numbers."""

import json
from pathlib import Path
from typing import Any

import episodes_in_memory as memory
import numpy as np
import pytest
from numpy.typing import NDArray

from dataengine.frame_store import FrameStore
from dataengine.sinks.depth import DepthCode, code_values, depth_pictures
from dataengine.sinks.packets import scan_video
from dataengine.video_reader import VideoReader
from schemas.episodes import CameraSpec, VideoFile
from schemas.errors import EpisodeError

RANDOM = np.random.default_rng(0)


def millimetres(num_frames: int) -> NDArray[np.uint16]:
    """(num_frames, 48, 64): a slope that moves, holes of 0, and some pixels beyond ten metres."""
    rows, columns = np.mgrid[0:48, 0:64]
    frames = np.stack([300 + rows * 60 + columns * 90 + 37 * step for step in range(num_frames)]).astype(np.uint16)
    frames[:, :5, :5] = 0
    frames[:, -1, -1] = 12_345
    return frames


@pytest.fixture
def lerobot_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the caches of `datasets` out of HOME."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf" / "datasets")


def written(folder: Path, *, orientation: str = "upright") -> tuple[memory.Written, list[NDArray[Any]], list[Any]]:
    """Two episodes with a colour camera, depth in millimetres and depth in metres."""
    ints = [millimetres(12), millimetres(9)[:, ::-1].copy()]
    floats = [(part / np.float32(1000)).astype(np.float32) for part in ints]
    episodes = [
        memory.episode(
            number,
            {
                "cam": memory.colour("cam", RANDOM.integers(0, 256, (len(part), 48, 64, 3), dtype=np.uint8)),
                "near": memory.depth("near", part, 0.001, orientation=orientation),
                "far": memory.depth("far", floats[number], 1.0),
            },
            num_frames=len(part),
        )
        for number, part in enumerate(ints)
    ]
    return memory.write(folder, episodes), ints, floats


@pytest.mark.usefixtures("lerobot_cache")
def test_lerobot_reads_depth_back_within_one_step(tmp_path: Path) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    made, ints, _ = written(tmp_path)
    dataset: Any = LeRobotDataset("local/depth", root=made.dataset, video_backend="pyav")
    assert sorted(dataset.meta.depth_keys) == ["observation.images.far", "observation.images.near"]
    wanted = np.concatenate(ints)
    for key in ("near", "far"):
        for index in range(len(dataset)):
            got = dataset[index][f"observation.images.{key}"].numpy()[0]
            reached = np.clip(wanted[index], 10, 10_000)
            step = 13_500 * np.log(13.5 / 3.51) / 4095  # of 12-bit codes, at ten metres: 4.4 mm
            assert np.abs(got - reached).max() <= step / 2 + 0.5, (key, index)
    stats = dataset.meta.stats["observation.images.near"]
    reached = np.clip(wanted, 10, 10_000)
    assert stats["mean"].shape == (1, 1, 1)
    assert stats["mean"].item() == pytest.approx(reached.mean(), abs=3)
    assert (stats["min"].item(), stats["max"].item()) == (pytest.approx(10), pytest.approx(10_000))


def test_what_is_said_about_a_depth_camera_is_what_lerobot_would_say(tmp_path: Path) -> None:
    from lerobot.configs.video import DepthEncoderConfig

    made, _, _ = written(tmp_path)
    info = json.loads((made.dataset / "meta/info.json").read_text())["features"]
    near = info["observation.images.near"]
    assert near["shape"] == [48, 64, 1]
    assert (near["info"]["is_depth_map"], near["info"]["depth_unit"]) == (True, "mm")
    assert info["observation.images.far"]["info"]["depth_unit"] == "m"
    assert info["observation.images.cam"]["info"]["is_depth_map"] is False
    config = DepthEncoderConfig.from_video_info(near["info"])
    assert config == DepthEncoderConfig()
    assert made.staged[0].cameras["near"].video is not None
    assert made.staged[0].cameras["near"].video.num_beyond == int((millimetres(12) > 10_000).sum())


def test_codes_are_those_lerobot_makes() -> None:
    from lerobot.datasets.depth_utils import quantize_depth

    spec = CameraSpec(name="d", height=48, width=64, encoding="raw", channel_order="rgb", depth_unit_m=0.001)
    ints = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)
    codes, beyond = DepthCode.of(spec, ints.dtype).codes(ints)
    assert np.array_equal(codes, quantize_depth(ints, video_backend=None))
    assert beyond == (1 << 16) - 10_001 + 9  # farther than 10 m, and 1 to 9 mm
    metres = (ints / np.float32(1000)).astype(np.float32)
    assert np.array_equal(DepthCode(unit_m=1.0, unit="m").codes(metres)[0], quantize_depth(metres, video_backend=None))
    tenths, _ = DepthCode(unit_m=0.0001, unit="mm").codes(np.asarray([[12_340]], np.uint16))
    assert code_values("m")[tenths[0, 0]] == pytest.approx(1.234, abs=0.001)


def test_what_is_no_number_reads_as_nothing_measured() -> None:
    bad = np.asarray([[np.nan, np.inf, -1.0, 0.0]], np.float32)
    codes, beyond = DepthCode(unit_m=1.0, unit="m").codes(bad)
    assert (codes.tolist(), beyond) == ([[0, 0, 0, 0]], 0)


def test_the_frame_store_gives_back_the_very_numbers(tmp_path: Path) -> None:
    import zarr

    made, ints, floats = written(tmp_path, orientation="rotated_180")
    store = FrameStore.open(made.store)
    assert (list(store.cameras), sorted(store.depth_cameras)) == (["cam"], ["far", "near"])
    assert store.depth_cameras["near"].depth_unit_m == 0.001
    for row, (near, far) in enumerate(zip(np.concatenate(ints), np.concatenate(floats), strict=True)):
        assert np.array_equal(store.depth("near", row), near[::-1, ::-1])
        assert np.array_equal(store.depth("far", row), far)
        assert [store.depth(key, row).dtype.name for key in ("near", "far")] == ["uint16", "float32"]
    plain: Any = zarr.open_array(made.store / "near", mode="r")
    assert np.array_equal(plain[:, :, :, 0], np.concatenate(ints))
    assert np.array_equal(zarr.open_array(made.store / "far", mode="r")[5, :, :, 0], floats[0][5])


def test_the_video_shows_depth_upright_and_a_copied_one_is_the_same(tmp_path: Path) -> None:
    made, ints, _ = written(tmp_path, orientation="flipped_vertical")
    path = made.dataset / "videos/observation.images.near/chunk-000/file-000.mp4"
    reader = VideoReader(path, rate_hz=30)
    for row, near in enumerate(np.concatenate(ints)):
        reached = np.clip(near[::-1], 10, 10_000) / 1000
        assert np.abs(reader.depth_m(row) - reached).max() < 0.0023
    reader.close()
    spec = CameraSpec(name="d", height=48, width=64, encoding="hevc", channel_order="rgb", depth_unit_m=0.001)
    stream = VideoFile(spec=spec, path=path, num_frames=9, first=12, whole=False)
    again = memory.write(tmp_path / "again", [memory.episode(0, {"near": stream}, num_frames=9)])
    video = again.staged[0].cameras["near"].video
    assert video is not None
    assert (video.copied, video.depth_unit) == (True, "mm")
    copy = again.dataset / "videos/observation.images.near/chunk-000/file-000.mp4"
    assert scan_video(copy, rate_hz=30).content == scan_video(path, rate_hz=30, first=12).content
    store = FrameStore.open(again.store)
    for row, decoded in enumerate(depth_pictures(stream)):
        assert np.array_equal(store.depth("near", row), decoded)


def test_depth_of_another_shape_is_refused(tmp_path: Path) -> None:
    stream = memory.depth("near", millimetres(3), 0.001)
    wrong = memory.Depths(spec=stream.spec, frames=millimetres(3)[:, :40])
    with pytest.raises(EpisodeError, match=r"uint16 \(40, 64\) where uint16 or float32 \(48, 64\) was declared"):
        memory.write(tmp_path, [memory.episode(0, {"near": wrong}, num_frames=3)])
