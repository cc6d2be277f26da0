"""The frame store, read by plain zarr and by our own reader: equal pixels, untouched JPEG bytes."""

import io
import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import raw_files
from numpy.typing import NDArray
from PIL import Image

from dataengine.convert import convert
from dataengine.frame_store import SHARD_FRAMES, FrameStore
from dataengine.sinks.frame_shards import Stretch, write_shard
from dataengine.sinks.pictures import check_jpeg
from dataengine.workspace import Workspace
from schemas.episodes import CameraSpec
from schemas.errors import ArtifactError, EpisodeError
from schemas.refs import Ref

REF = Ref("tiny", "1")


def plain_zarr(path: Path) -> Any:
    import imagecodecs.zarr
    import zarr

    imagecodecs.zarr.register_codecs()
    return zarr.open_group(str(path), mode="r")


def raw_jpegs(path: Path, camera: str) -> list[bytes]:
    """The JPEGs of one camera of a compressed ALOHA file, trimmed, by h5py alone."""
    with h5py.File(path) as file:
        row = sorted(file["observations/images"]).index(camera)
        lengths = file["compress_len"][row].astype(int)
        return [
            bytes(data[:length]) for data, length in zip(file[f"observations/images/{camera}"], lengths, strict=True)
        ]


def decode(jpeg: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(jpeg)))


def test_source_jpegs_arrive_byte_for_byte_and_plain_zarr_reads_them(tmp_path: Path, workspace: Workspace) -> None:
    raw = raw_files.write_aloha_folder(tmp_path / "raw", num_episodes=2, num_frames=20)
    report = convert(source_path=raw, to=REF, workspace=workspace, rig="aloha_sim", sink="zarr")
    assert [record.kind for record in report.records] == ["frames"]
    store = FrameStore.open(workspace.path("frames", REF))
    group = plain_zarr(workspace.path("frames", REF))
    assert group.attrs["episode_ends"] == [20, 40]
    for camera in raw_files.ALOHA_CAMERAS:
        wanted = [jpeg for index in range(2) for jpeg in raw_jpegs(raw / f"episode_{index}.hdf5", camera)]
        assert [store.jpeg(camera, row) for row in range(40)] == wanted
        pixels = np.asarray(group[camera][:])
        for row, jpeg in enumerate(wanted):
            assert np.array_equal(store.frame(camera, row), pixels[row])
            assert np.abs(pixels[row].astype(int) - decode(jpeg)).max() <= 2  # another decoder's rounding
    state = np.concatenate([raw_files.bimanual_14(20, seed=seed) for seed in range(2)])
    assert np.array_equal(group["columns/observation.state"][:], state)


def test_swapped_and_rotated_sources_come_out_upright_rgb(tmp_path: Path, workspace: Workspace) -> None:
    raw = raw_files.write_aloha_folder(tmp_path / "raw", num_episodes=2, num_frames=12)
    shipped = Path(raw_files.__file__).resolve().parents[2] / "dataengine/rigs/aloha_sim.yaml"
    rig = tmp_path / "mirrored.yaml"
    swapped = shipped.read_text().replace("channel_order: rgb", "channel_order: bgr, orientation: rotated_180")
    assert swapped != shipped.read_text()
    rig.write_text(swapped)
    convert(source_path=raw, to=REF, workspace=workspace, rig=str(rig), sink="both")
    store, group = FrameStore.open(workspace.path("frames", REF)), plain_zarr(workspace.path("frames", REF))
    wanted = raw_files.pictures(12, seed=0)[5][::-1, ::-1, ::-1]
    assert np.abs(store.frame("cam_high", 5).astype(int) - wanted).mean() < 6
    # The codec configuration puts the channels right for every zarr; orientation is the reader's to correct.
    assert np.array_equal(np.asarray(group["cam_high"][5])[::-1, ::-1], store.frame("cam_high", 5))
    assert group["cam_high"].attrs["orientation"] == "rotated_180"
    from dataengine.episode_set import EpisodeSet

    episodes = EpisodeSet.open(workspace, REF)
    video = episodes.video_frame(episodes.ids()[0], "cam_high", 5)
    assert np.abs(video.astype(int) - wanted).mean() < 9


def test_a_frame_size_re_encodes_to_upright_rgb(tmp_path: Path, workspace: Workspace) -> None:
    raw = raw_files.write_aloha_folder(tmp_path / "raw", num_episodes=1, num_frames=8)
    convert(source_path=raw, to=REF, workspace=workspace, rig="aloha_sim", sink="zarr", frame_size=(32, 24))
    store, group = FrameStore.open(workspace.path("frames", REF)), plain_zarr(workspace.path("frames", REF))
    assert group["cam_high"].shape == (8, 24, 32, 3)
    assert dict(group["cam_high"].attrs)["jpeg_subsampling"] == "444"
    small = np.asarray(Image.fromarray(raw_files.pictures(8, seed=0)[3]).resize((32, 24), Image.Resampling.BILINEAR))
    assert np.abs(store.frame("cam_high", 3).astype(int) - small).mean() < 6


def test_array_sources_are_encoded_and_shards_hold_512_frames(tmp_path: Path, workspace: Workspace) -> None:
    lengths = (300, 250)
    raw = raw_files.write_diffusion_zarr(tmp_path / "raw", lengths=lengths, height=96, width=96)
    convert(source_path=raw, to=REF, workspace=workspace, rig="pusht", sink="zarr")
    path = workspace.path("frames", REF)
    store = FrameStore.open(path)
    assert sorted(file.name for file in (path / "image").glob("c*")) == ["c.0.0.0.0", "c.1.0.0.0"]
    pictures = np.concatenate(
        [raw_files.pictures(num, height=96, width=96, seed=seed) for seed, num in enumerate(lengths)]
    )
    pixels = plain_zarr(path)["image"]
    for row in (0, 299, 300, SHARD_FRAMES - 1, SHARD_FRAMES, 549):
        assert np.abs(store.frame("image", row).astype(int) - pictures[row]).mean() < 4
        assert np.array_equal(store.frame("image", row), np.asarray(pixels[row]))
    assert store.span(store.episode_ids[1]) == (300, 550)
    copy = pickle.loads(pickle.dumps(store))
    assert np.array_equal(copy.frame("image", 7), store.frame("image", 7))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda jpeg: jpeg[: len(jpeg) // 2], "has no end"),
        (lambda jpeg: b"\x00" * 64 + b"\xff\xd9", "no JPEG"),
        (lambda jpeg: raw_files.jpeg(raw_files.pictures(1, height=32, width=32)[0]), "32x32"),
    ],
)
def test_jpegs_that_would_only_fail_later_are_refused(damage: Any, sentence: str) -> None:
    spec = CameraSpec(name="cam", height=48, width=64, encoding="jpeg", channel_order="rgb")
    jpeg = raw_files.jpeg(raw_files.pictures(1)[0])
    check_jpeg(jpeg + b"\x00" * 9, spec)  # padding is no damage
    with pytest.raises(EpisodeError, match=sentence):
        check_jpeg(damage(jpeg), spec)


def test_a_damaged_shard_is_named(tmp_path: Path, workspace: Workspace) -> None:
    raw = raw_files.write_aloha_folder(tmp_path / "raw", num_episodes=1, num_frames=8)
    convert(source_path=raw, to=REF, workspace=workspace, rig="aloha_sim", sink="zarr")
    shard = workspace.path("frames", REF) / "cam_high/c.0.0.0.0"
    content = bytearray(shard.read_bytes())
    content[-40] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"cam_high/c\.0\.0\.0\.0 is damaged"):
        FrameStore.open(workspace.path("frames", REF)).frame("cam_high", 0)


def test_a_hole_in_a_shard_is_an_error_not_a_black_picture(tmp_path: Path, workspace: Workspace) -> None:
    raw = raw_files.write_aloha_folder(tmp_path / "raw", num_episodes=1, num_frames=8)
    convert(source_path=raw, to=REF, workspace=workspace, rig="aloha_sim", sink="zarr")
    path = workspace.path("frames", REF)
    write_shard(path / "cam_high/c.0.0.0.0", [FrameStore.open(path).jpeg("cam_high", row) for row in range(7)])
    with pytest.raises(ArtifactError, match="no picture at row 7"):
        FrameStore.open(path).frame("cam_high", 7)


def test_a_shard_holds_pictures_from_anywhere_in_files_byte_for_byte(tmp_path: Path) -> None:
    content = np.random.default_rng(0).integers(0, 255, 6 << 20, dtype=np.uint8).tobytes()
    (tmp_path / "a").write_bytes(content)
    (tmp_path / "b").write_bytes(content[::-1])
    near = [(7 + 60_000 * number, 50_000 + number) for number in range(40)]  # more than a buffer, with padding between
    places = [*near, (3 << 20, 100), (2 << 20, 2 << 20), (5, 1), (6, 90), (1 << 20, 1 << 20)]  # far, back, and large
    offsets, sizes = np.asarray(places, np.int64).T
    pieces: list[Stretch | bytes] = [
        Stretch(path=tmp_path / "a", offsets=offsets, sizes=sizes),
        b"one alone",
        Stretch(path=tmp_path / "b", offsets=offsets[:2], sizes=sizes[:2]),
    ]
    write_shard(tmp_path / "shard", pieces)
    wanted = [content[start : start + size] for start, size in places]
    wanted += [b"one alone", *(content[::-1][start : start + size] for start, size in places[:2])]
    shard = (tmp_path / "shard").read_bytes()
    index = np.frombuffer(shard[-SHARD_FRAMES * 16 - 4 : -4], "<u8").reshape(SHARD_FRAMES, 2)
    assert [shard[start : start + size] for start, size in index[: len(wanted)].tolist()] == wanted
    assert (index[len(wanted) :] == 2**64 - 1).all()
    with pytest.raises(OSError, match="ended 8 bytes early"):
        write_shard(
            tmp_path / "short", [Stretch(path=tmp_path / "a", offsets=np.array([(6 << 20) - 2]), sizes=np.array([10]))]
        )
