"""What we write is read back by LeRobot itself: every frame of every camera."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
import raw_files
from numpy.typing import NDArray

from dataengine.convert import VideoEncoding, convert
from dataengine.rig_files import load_rig
from dataengine.sinks.lerobot_v3 import commit
from dataengine.sinks.packets import scan_video
from dataengine.sinks.staging import StageVideos, load_staged
from dataengine.sinks.staging_writer import stage_episode
from dataengine.sinks.video_encoding import VideoWriter
from dataengine.sources import open_source
from dataengine.stats import PictureHistogram, column_stats, picture_stats
from dataengine.workspace import Workspace
from schemas.errors import EpisodeError
from schemas.refs import Ref

REF = Ref("tiny", "1")
LENGTHS = (23, 40, 31)


@pytest.fixture
def lerobot_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the caches of `datasets` out of HOME."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf" / "datasets")


def write_raw(folder: Path) -> Path:
    """Three compressed ALOHA episodes of different lengths."""
    for index, num_frames in enumerate(LENGTHS):
        raw_files.write_aloha_episode(folder / f"episode_{index}.hdf5", num_frames=num_frames, seed=index)
    raw_files.write_metadata_csv(folder, [{"file": f"episode_{index}.hdf5", "operator": "ada"} for index in range(3)])
    return folder


def open_lerobot(root: Path, **options: Any) -> Any:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    return LeRobotDataset("local/tiny", root=root, video_backend="pyav", **options)


def nearest(wanted: NDArray[Any], candidates: NDArray[Any]) -> int:
    """Index of the candidate picture that differs least."""
    return int(np.abs(candidates.astype(int) - wanted.astype(int)).mean(axis=(1, 2, 3)).argmin())


@pytest.mark.usefixtures("lerobot_cache")
def test_lerobot_reads_every_frame_of_every_camera_back(tmp_path: Path, workspace: Workspace) -> None:
    convert(source_path=write_raw(tmp_path / "raw"), to=REF, workspace=workspace, rig="aloha_sim", sink="lerobot")
    dataset = open_lerobot(workspace.path("episodes", REF))
    assert (dataset.num_episodes, len(dataset), dataset.fps) == (3, sum(LENGTHS), 50)
    position = 0
    for episode, num_frames in enumerate(LENGTHS):
        state = raw_files.bimanual_14(num_frames, seed=episode)
        whole = {
            camera: raw_files.pictures(num_frames, seed=episode * 10 + number)
            for number, camera in enumerate(raw_files.ALOHA_CAMERAS)
        }
        for frame in range(num_frames):
            item = dataset[position]
            assert item["episode_index"].item() == episode
            assert np.array_equal(item["observation.state"].numpy(), state[frame])
            for camera, pictures in whole.items():
                got = (item[f"observation.images.{camera}"].numpy().transpose(1, 2, 0) * 255).round()
                assert np.abs(got - pictures[frame]).mean() < 9
                assert nearest(got, pictures) == frame  # not merely similar: the right one
            position += 1
    assert dataset[0]["task"] == raw_files.TASK


@pytest.mark.usefixtures("lerobot_cache")
def test_delta_timestamps_feed_a_data_loader(tmp_path: Path, workspace: Workspace) -> None:
    from torch.utils.data import DataLoader

    convert(source_path=write_raw(tmp_path / "raw"), to=REF, workspace=workspace, rig="aloha_sim", sink="lerobot")
    deltas = {"action": [step / 50 for step in range(8)], "observation.images.cam_high": [-0.02, 0.0]}
    dataset = open_lerobot(workspace.path("episodes", REF), delta_timestamps=deltas)
    batch = next(iter(DataLoader(dataset, batch_size=4, shuffle=False)))
    assert batch["action"].shape == (4, 8, 14)
    assert batch["observation.images.cam_high"].shape == (4, 2, 3, 48, 64)
    assert np.array_equal(batch["action"][1].numpy(), raw_files.bimanual_14(LENGTHS[0], seed=1)[1:9])
    assert batch["action_is_pad"].sum() == 0


@pytest.mark.usefixtures("lerobot_cache")
def test_statistics_are_those_of_all_rows(tmp_path: Path, workspace: Workspace) -> None:
    convert(source_path=write_raw(tmp_path / "raw"), to=REF, workspace=workspace, rig="aloha_sim", sink="lerobot")
    stats = open_lerobot(workspace.path("episodes", REF)).meta.stats
    rows = np.concatenate([raw_files.bimanual_14(num, seed=seed) for seed, num in enumerate(LENGTHS)])
    for name, share in (("q01", 0.01), ("q50", 0.5), ("q99", 0.99)):
        np.testing.assert_allclose(stats["observation.state"][name], np.quantile(rows, share, axis=0), atol=1e-6)
    np.testing.assert_allclose(stats["observation.state"]["mean"], rows.mean(axis=0), atol=1e-5)
    assert stats["observation.state"]["count"] == [sum(LENGTHS)]
    pictures = np.concatenate([raw_files.pictures(num, seed=seed * 10) for seed, num in enumerate(LENGTHS)]) / 255
    assert stats["observation.images.cam_high"]["mean"].shape == (3, 1, 1)
    np.testing.assert_allclose(
        stats["observation.images.cam_high"]["mean"].ravel(), pictures.mean(axis=(0, 1, 2)), atol=0.01
    )


def test_picture_statistics_from_histograms_equal_those_of_the_pixels() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (20, 40, 30, 3), dtype=np.uint8)
    histogram = PictureHistogram()
    for picture in pictures:
        histogram.add(picture)
    from_bins = picture_stats(histogram.counts, histogram.num_pictures)
    from_pixels = column_stats(pictures.reshape(-1, 3) / 255)
    for name in ("min", "max", "mean", "std", "q01", "q50", "q99"):
        np.testing.assert_allclose(from_bins[name].ravel(), from_pixels[name], atol=1 / 255)


def test_lerobot_doctor_finds_nothing_wrong(tmp_path: Path, workspace: Workspace) -> None:
    pytest.importorskip("lerobot_doctor", reason="lerobot-doctor is not installed")
    convert(source_path=write_raw(tmp_path / "raw"), to=REF, workspace=workspace, rig="aloha_sim", sink="lerobot")
    doctor = Path(sys.executable).parent / "lerobot-doctor"
    command = [str(doctor), "check", str(workspace.path("episodes", REF)), "--ci", "--fail-on", "fail"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def packet_hashes(path: Path) -> list[str]:
    """Hash of every packet in decode order, by PyAV alone."""
    with av.open(str(path)) as container:
        packets = container.demux(container.streams.video[0])
        return [hashlib.sha256(bytes(packet)).hexdigest() for packet in packets if packet.size]


def decoded(path: Path) -> Iterator[NDArray[Any]]:
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


@pytest.mark.usefixtures("lerobot_cache")
def test_mp4_sources_are_copied_packet_by_packet_also_with_reordered_pictures(
    tmp_path: Path, workspace: Workspace
) -> None:
    raw = raw_files.write_lerobot_v21(tmp_path / "raw", lengths=(20, 25))
    videos = sorted((raw / "videos/chunk-000/observation.images.cam_high").glob("*.mp4"))
    assert scan_video(videos[0], rate_hz=30).delay > 0  # libx264 made B-frames
    convert(source_path=raw, to=REF, workspace=workspace, rig=None, sink="lerobot")
    root = workspace.path("episodes", REF)
    shard = root / "videos/observation.images.cam_high/chunk-000/file-000.mp4"
    assert packet_hashes(shard) == packet_hashes(videos[0]) + packet_hashes(videos[1])
    dataset = open_lerobot(root)
    wanted = [*decoded(videos[0]), *decoded(videos[1])]
    for index, picture in enumerate(wanted):
        got = (dataset[index]["observation.images.cam_high"].numpy().transpose(1, 2, 0) * 255).round()
        assert np.array_equal(got, picture)


@pytest.mark.usefixtures("lerobot_cache")
def test_another_codec_opens_another_shard(tmp_path: Path, workspace: Workspace) -> None:
    raw = raw_files.write_lerobot_v21(tmp_path / "raw", lengths=(10, 12, 14))
    videos = sorted((raw / "videos/chunk-000/observation.images.cam_high").glob("*.mp4"))
    raw_files.write_mp4(videos[1], raw_files.pictures(12, seed=10), codec="libsvtav1")
    convert(source_path=raw, to=REF, workspace=workspace, rig=None, sink="lerobot")
    root = workspace.path("episodes", REF)
    shards = sorted((root / "videos/observation.images.cam_high/chunk-000").glob("*.mp4"))
    assert [packet_hashes(shard) for shard in shards] == [packet_hashes(video) for video in videos]
    dataset = open_lerobot(root)
    wanted = [picture for video in videos for picture in decoded(video)]
    for index in (0, 9, 10, 21, 22, 35):
        got = (dataset[index]["observation.images.cam_high"].numpy().transpose(1, 2, 0) * 255).round()
        assert np.array_equal(got, wanted[index])


def test_data_parquet_has_one_row_group_per_episode_and_our_metadata(tmp_path: Path, workspace: Workspace) -> None:
    convert(source_path=write_raw(tmp_path / "raw"), to=REF, workspace=workspace, rig="aloha_sim", sink="lerobot")
    root = workspace.path("episodes", REF)
    data = pq.ParquetFile(root / "data/chunk-000/file-000.parquet")
    assert [data.metadata.row_group(group).num_rows for group in range(data.num_row_groups)] == list(LENGTHS)
    rows = pq.read_table(root / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [row["raw_name"] for row in rows] == [f"episode_{index}.hdf5" for index in range(3)]
    assert {row["operator"] for row in rows} == {"ada"}
    assert [row["videos/observation.images.cam_high/from_timestamp"] for row in rows] == [0, 23 / 50, 63 / 50]
    info = json.loads((root / "meta/info.json").read_text())
    assert info["features"]["observation.images.cam_high"]["info"]["video.codec"] == "av1"
    assert info["splits"] == {"train": "0:3"}
    assert not list(root.rglob(".staging*"))


@pytest.mark.usefixtures("lerobot_cache")
def test_lerobot_reads_many_small_shards(tmp_path: Path) -> None:
    source = open_source(write_raw(tmp_path / "raw"), load_rig("aloha_sim"))
    staging, root, encoding = tmp_path / "staging", tmp_path / "dataset", VideoEncoding()
    staging.mkdir()
    for name in source.names():
        job = StageVideos(root=staging, encoding=encoding, encoder_threads=1)
        stage_episode(source.read(name), name, source.rig, (job,), stamp="")
    staged = [row for name in source.names() if (row := load_staged(staging, name))]
    commit(root, staged, source.rig, encoding, data_bytes=1, video_bytes=1)
    assert len(list((root / "data").rglob("*.parquet"))) == 3
    assert len(list((root / "videos").rglob("*.mp4"))) == 6
    dataset = open_lerobot(root)
    for position, (episode, frame) in {
        0: (0, 0),
        22: (0, 22),
        23: (1, 0),
        62: (1, 39),
        63: (2, 0),
        93: (2, 30),
    }.items():
        item = dataset[position]
        got = (item["observation.images.cam_low"].numpy().transpose(1, 2, 0) * 255).round()
        whole = raw_files.pictures(LENGTHS[episode], seed=episode * 10 + 1)
        assert nearest(got, whole) == frame
        assert np.array_equal(item["action"].numpy(), raw_files.bimanual_14(LENGTHS[episode], seed=episode + 1)[frame])


def test_odd_sides_are_refused_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(EpisodeError, match="both sides must be even"):
        VideoWriter(tmp_path / "a.mp4", width=63, height=48, rate_hz=50, encoding=VideoEncoding(), threads=1)


def test_a_video_at_another_rate_is_refused(tmp_path: Path) -> None:
    path = raw_files.write_mp4(tmp_path / "a.mp4", raw_files.pictures(30), rate_hz=25)
    with pytest.raises(EpisodeError, match=r"even 30 Hz \(mean 25.000 Hz\)"):
        scan_video(path, rate_hz=30)
