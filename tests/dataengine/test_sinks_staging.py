"""What staging keeps, counts and refuses, camera by camera, whatever the source."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import episodes_in_memory as memory
import numpy as np
import pytest
import raw_files
import zarr
from numpy.typing import NDArray

from dataengine.frame_store import FrameStore
from dataengine.rig_files import load_rig
from dataengine.sinks import staging, zarr_frames
from dataengine.sinks.planes import yuv420p
from dataengine.sinks.staging import StageFrames, load_staged, marker_of, why_absent
from dataengine.sinks.staging_writer import stage_episode
from dataengine.sinks.video_encoding import VideoEncoding, VideoWriter
from dataengine.sources import open_source
from dataengine.stats import picture_stats
from schemas.episodes import CameraSpec, CameraStream, StreamSkew, VideoFile
from schemas.errors import ArtifactError, EpisodeError

TURNED = {"rotated_180": (slice(None, None, -1), slice(None, None, -1)), "flipped_vertical": (slice(None, None, -1),)}


def decoded(path: Path) -> list[NDArray[Any]]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def psnr_db(one: NDArray[Any], other: NDArray[Any]) -> float:
    return float(10 * np.log10(255**2 / np.mean((one.astype(np.float64) - other) ** 2)))


@pytest.mark.parametrize("orientation", TURNED)
def test_pictures_that_lie_on_their_head_come_out_upright_and_their_bytes_stay(
    tmp_path: Path, orientation: str
) -> None:
    upright = raw_files.pictures(6)
    stored = np.stack([picture[TURNED[orientation]] for picture in upright])
    jpegs = tuple(raw_files.jpeg(picture) for picture in stored)
    spec = CameraSpec(name="jpeg", height=48, width=64, encoding="jpeg", channel_order="rgb", orientation=orientation)
    cameras: dict[str, CameraStream] = {
        "raw": memory.colour("raw", stored, orientation=orientation),
        "jpeg": memory.Jpegs(spec=spec, rows=jpegs),
    }
    made = memory.write(tmp_path, [memory.episode(0, cameras, num_frames=6)])
    store = FrameStore.open(made.store)
    for row, picture in enumerate(upright):
        assert store.jpeg("jpeg", row) == jpegs[row]
        for camera in cameras:
            assert np.abs(store.frame(camera, row).astype(int) - picture).mean() < 5
    plain: Any = zarr.open_array(made.store / "jpeg", mode="r")
    assert plain.attrs["orientation"] == orientation
    for camera in cameras:
        frames = decoded(made.dataset / f"videos/observation.images.{camera}/chunk-000/file-000.mp4")
        assert all(np.abs(a.astype(int) - b).mean() < 9 for a, b in zip(frames, upright, strict=True))


def test_a_stretch_of_a_shard_goes_into_both_sinks(tmp_path: Path) -> None:
    parts = [raw_files.pictures(12, seed=number) for number in range(3)]
    whole = raw_files.write_mp4(tmp_path / "shard.mp4", np.concatenate(parts), codec="libsvtav1")
    spec = CameraSpec(name="cam", height=48, width=64, encoding="av1", channel_order="rgb")
    with av.open(str(whole)) as container:
        keys = [number for number, packet in enumerate(container.demux(video=0)) if packet.is_keyframe]
    starts = [0, *[key for key in keys if key][:1]]
    ends = [*starts[1:], 36]
    episodes = [
        memory.episode(
            number,
            {"cam": VideoFile(spec=spec, path=whole, num_frames=end - start, first=start, whole=False)},
            num_frames=end - start,
        )
        for number, (start, end) in enumerate(zip(starts, ends, strict=True))
    ]
    made = memory.write(tmp_path / "out", episodes)
    source = decoded(whole)
    shard = decoded(made.dataset / "videos/observation.images.cam/chunk-000/file-000.mp4")
    assert all(np.array_equal(a, b) for a, b in zip(shard, source, strict=True))
    store = FrameStore.open(made.store)
    assert all(np.abs(store.frame("cam", row).astype(int) - source[row]).mean() < 4 for row in range(36))


def test_picture_statistics_are_exact_when_encoding_and_marked_when_not(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (5, 48, 64, 3), dtype=np.uint8)
    copied = raw_files.write_mp4(tmp_path / "a.mp4", raw_files.pictures(5), codec="libsvtav1")
    spec = CameraSpec(name="copied", height=48, width=64, encoding="av1", channel_order="rgb")
    cameras: dict[str, CameraStream] = {
        "encoded": memory.colour("encoded", frames),
        "copied": VideoFile(spec=spec, path=copied, num_frames=5),
    }
    made = memory.write(tmp_path / "out", [memory.episode(0, cameras, num_frames=5)])
    stats = json.loads((made.dataset / "meta/stats.json").read_text())
    got = stats["observation.images.encoded"]
    np.testing.assert_allclose(np.ravel(got["mean"]), frames.mean(axis=(0, 1, 2)) / 255, rtol=1e-12)
    np.testing.assert_allclose(np.ravel(got["std"]), frames.std(axis=(0, 1, 2)) / 255, rtol=1e-9)
    assert np.ravel(got["min"]).tolist() == (frames.min(axis=(0, 1, 2)) / 255).tolist()
    marks = json.loads((made.dataset / "meta/statistics.json").read_text())
    assert marks["observation.images.encoded"] == "exact"
    assert marks["observation.images.copied"].startswith("sampled")
    counts = np.stack([np.bincount(frames[..., channel].ravel(), minlength=256) for channel in range(3)])
    assert np.ravel(got["q50"]).tolist() == picture_stats(counts, 5)["q50"].ravel().tolist()


def test_encoded_video_is_within_a_tenth_of_a_decibel_of_bare_pyav(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    blocks = random.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    frames = [cv2.resize(np.roll(blocks, step, 1), (128, 96), interpolation=cv2.INTER_LINEAR) for step in range(12)]
    encoding = VideoEncoding()
    with VideoWriter(tmp_path / "ours.mp4", width=128, height=96, rate_hz=30, encoding=encoding, threads=1) as writer:
        for frame in frames:
            writer.add(frame)
    with av.open(str(tmp_path / "bare.mp4"), "w") as output:
        stream = output.add_stream("libsvtav1", rate=30, options=encoding.options(threads=1))
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for number, picture in enumerate(frames):
            bare = av.VideoFrame.from_ndarray(picture, format="rgb24")
            bare.pts, bare.time_base = number, Fraction(1, 30)
            output.mux(stream.encode(bare))
        output.mux(stream.encode())
    ours, theirs = (
        np.mean([psnr_db(a, b) for a, b in zip(decoded(tmp_path / name), frames, strict=True)])
        for name in ("ours.mp4", "bare.mp4")
    )
    assert ours > theirs - 0.1


def test_colour_planes_take_the_mean_of_four_pixels() -> None:
    stripes = np.zeros((4, 8, 3), np.uint8)
    stripes[:, ::2] = (255, 0, 0)
    planes = yuv420p(stripes).to_ndarray(format="yuv420p")
    red_half = cv2.cvtColor(np.full((4, 8, 3), (128, 0, 0), np.uint8), cv2.COLOR_RGB2YUV_I420)
    assert np.abs(planes[4:].astype(int) - red_half[4:]).max() <= 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Failing:
    """A camera whose third picture does not decode."""

    spec: CameraSpec

    def __len__(self) -> int:
        return 20

    def arrays(self) -> Iterator[NDArray[np.uint8]]:
        yield from raw_files.pictures(2)
        raise EpisodeError("camera 'b': picture 2 is damaged.")


def test_one_failing_camera_ends_all_and_is_the_one_told(tmp_path: Path) -> None:
    good = memory.colour("a", raw_files.pictures(20))
    bad = Failing(spec=CameraSpec(name="b", height=48, width=64, encoding="raw", channel_order="rgb"))
    with pytest.raises(EpisodeError, match="camera 'b': picture 2 is damaged"):
        memory.write(tmp_path, [memory.episode(0, {"a": good, "b": bad}, num_frames=20)])
    assert not list((tmp_path / "videos_staging").iterdir())


def test_a_camera_of_other_length_is_refused(tmp_path: Path) -> None:
    path = raw_files.write_mp4(tmp_path / "a.mp4", raw_files.pictures(9), codec="libsvtav1")
    spec = CameraSpec(name="cam", height=48, width=64, encoding="av1", channel_order="rgb")
    episode = memory.episode(0, {"cam": VideoFile(spec=spec, path=path, num_frames=10)}, num_frames=10)
    with pytest.raises(EpisodeError, match="camera 'cam' has 9 frames for 10 rows"):
        memory.write(tmp_path / "out", [episode])


def test_what_the_disk_was_not_waited_for_is_staged_again_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jpegs = tuple(raw_files.jpeg(picture) for picture in raw_files.pictures(4))
    spec = CameraSpec(name="cam", height=48, width=64, encoding="jpeg", channel_order="rgb")
    passed = memory.episode(0, {"cam": memory.Jpegs(spec=spec, rows=jpegs)}, num_frames=4)
    encoded = memory.episode(1, {"cam": memory.colour("cam", raw_files.pictures(4))}, num_frames=4)
    job = StageFrames(root=tmp_path, frame_size=None, quality=90, boot=staging.boot_id())
    for episode in (passed, encoded):
        stage_episode(episode, episode.meta.raw_name, memory.rig_of(episode), (job,), stamp="")
    assert load_staged(tmp_path, "episode_0")
    monkeypatch.setattr(staging, "boot_id", lambda: "after a restart")
    assert why_absent(tmp_path, "episode_0") == "the machine was restarted before it was safe on the disk"
    assert load_staged(tmp_path, "episode_1")  # what took an encoder's time was waited for
    marker_of(tmp_path, "episode_0").unlink()


def test_skew_of_aligned_streams_is_kept(tmp_path: Path) -> None:
    skew = StreamSkew(num_messages=9, num_dropped=1, num_repeated=2, p50_s=0.01, p95_s=0.02, max_s=0.03)
    first = memory.episode(0, {"cam": memory.colour("cam", raw_files.pictures(4))}, num_frames=4)
    episode = type(first)(
        meta=first.meta, rate_hz=30, columns=first.columns, cameras=first.cameras, skew={"/joints": skew}
    )
    made = memory.write(tmp_path, [episode])
    assert made.staged[0].skew == {"/joints": skew}


def test_jpegs_that_lie_in_a_raw_file_are_copied_from_there_unless_it_changed(tmp_path: Path) -> None:
    raw = raw_files.write_aloha_episode(tmp_path / "raw" / "episode_0.hdf5", num_frames=9)
    raw_files.write_metadata_csv(raw.parent, [{"file": raw.name}])
    source = open_source(raw.parent, load_rig("aloha_sim"))
    [name] = source.names()
    (tmp_path / "staging").mkdir()
    job = StageFrames(root=tmp_path / "staging", frame_size=None, quality=90)
    stage_episode(source.read(name), name, source.rig, (job,), stamp="")
    row = load_staged(job.root, name)
    assert row is not None
    assert not list(row.folder.glob("*.jpegs"))
    recipe = zarr_frames.frame_recipe(source.rig, None, 90)
    zarr_frames.commit(tmp_path / "store", [row], source.rig, recipe)
    store = FrameStore.open(tmp_path / "store")
    wanted = raw_files.pictures(9, seed=0)
    assert [store.jpeg("cam_high", index) for index in range(9)] == [raw_files.jpeg(picture) for picture in wanted]
    raw_files.write_aloha_episode(raw, num_frames=9, seed=5)
    with pytest.raises(ArtifactError, match=r"episode_0.hdf5 changed while it was converted. Run the command again"):
        zarr_frames.commit(tmp_path / "again", [row], source.rig, recipe)
