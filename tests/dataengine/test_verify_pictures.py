"""Verify looks at every picture of an encoded video, and finds no fault in a faithful one."""

import shutil
from pathlib import Path

import av
import numpy as np
import pytest
import raw_files
from numpy.typing import NDArray

from dataengine.convert import convert
from dataengine.proofs.bare_codecs import bare_video
from dataengine.proofs.nearness import Nearness, apart, small
from dataengine.sinks.packets import scan_video
from dataengine.sinks.video_encoding import VideoEncoding, VideoWriter
from dataengine.verification import verify
from dataengine.workspace import Workspace
from schemas.refs import Ref

REF = Ref("tiny", "1")
ENCODINGS = (
    VideoEncoding(),
    VideoEncoding(g=30, preset="8"),
    VideoEncoding(codec="libx264", preset="fast"),
    VideoEncoding(codec="libx264", preset="fast", g=30, crf=40),
)


def _scene(num: int = 60) -> list[NDArray[np.uint8]]:
    """A gradient over which a block moves, two pixels a picture."""
    rows, columns = np.mgrid[0:96, 0:128]
    found = []
    for step in range(num):
        picture = np.stack([rows * 2, columns + 40, np.full_like(rows, 90)], axis=2).astype(np.uint8)
        left = 2 * step % 100
        picture[30:60, left : left + 24] = (220, 60, 50)
        found.append(picture)
    return found


def _faults(source: list[NDArray[np.uint8]], made: list[NDArray[np.uint8]], bare: list[NDArray[np.uint8]]) -> list[str]:
    """`bare` stands beside the first rows of the source."""
    near = Nearness()
    for one, other in zip(source, made, strict=True):
        near.add(one, other)
    pairs = enumerate(zip(source, bare, strict=False))
    return near.faults({row: apart(small(one), small(other)) for row, (one, other) in pairs})


@pytest.mark.parametrize("num_bare", [60, 12])
@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda row: f"{row.codec}-g{row.g}-crf{row.crf}")
def test_every_picture_that_is_not_its_own_is_found(encoding: VideoEncoding, num_bare: int) -> None:
    source = _scene()
    made = bare_video(source, encoding=encoding, rate_hz=30)
    bare = made[:num_bare]
    assert _faults(source, made, bare) == []
    swapped = [*made[:20], made[22], made[21], made[20], *made[23:]]
    assert _faults(source, swapped, bare) == [
        "row 20 shows what row 22 of the source shows",
        "row 22 shows what row 20 of the source shows",
    ]
    assert len(_faults(source, [*made[:10], *[made[0]] * 50], bare)) >= 45  # the block comes back to where it was
    gray = [*made[:40], np.full_like(made[0], 128), *made[41:]]
    [words] = _faults(source, gray, bare)
    assert words.startswith("row 40 is ")


@pytest.mark.parametrize("num_frames", [1, 2, 3])
@pytest.mark.parametrize("codec", ["libx264", "libx265", "libsvtav1"])
def test_the_shortest_videos_are_encoded_every_time(tmp_path: Path, codec: str, num_frames: int) -> None:
    source = _scene()[:num_frames]
    height, width = source[0].shape[:2]
    encoding = VideoEncoding(codec=codec, preset="12" if codec == "libsvtav1" else "ultrafast")
    for number in range(25 if codec == "libx265" else 1):  # x265 left one file in five without times
        assert len(bare_video(source, encoding=encoding, rate_hz=30)) == num_frames
        path = tmp_path / f"{number}.mp4"
        with VideoWriter(path, width=width, height=height, rate_hz=30, encoding=encoding, threads=1) as writer:
            for picture in source:
                writer.add(picture)
        assert scan_video(path, rate_hz=30).num_frames == num_frames


def test_a_scene_that_gets_busier_is_no_fault() -> None:
    dark = [np.full((96, 128, 3), 3, np.uint8)] * 30
    coarse = np.random.default_rng(0).integers(0, 255, (30, 6, 8, 3), dtype=np.uint8)
    busy = [np.repeat(np.repeat(picture, 16, axis=0), 16, axis=1) for picture in coarse]
    source = [*dark, *busy]
    made = bare_video(source, encoding=VideoEncoding(crf=50), rate_hz=30)
    worst = max(apart(small(one), small(other)) for one, other in zip(busy, made[30:], strict=True))
    assert worst > 1.0  # more than is lost of the dark ones by far
    assert _faults(source, made, made[:30]) == []


def test_replaced_pictures_far_from_any_sample_are_found(tmp_path: Path) -> None:
    raw = raw_files.write_aloha_folder(tmp_path / "raw", num_episodes=1, num_frames=160)
    workspace = Workspace.at(tmp_path / "workspace")
    convert(source_path=raw, to=REF, workspace=workspace, rig="aloha_sim", sink="lerobot", encoding=ENCODINGS[2])
    assert verify(source_path=raw, ref=REF, workspace=workspace, workers=1).ok
    shard = workspace.path("episodes", REF) / "videos/observation.images.cam_high/chunk-000/file-000.mp4"
    _replace_groups(shard, range(130, 140))
    report = verify(source_path=raw, ref=REF, workspace=workspace, workers=1)
    assert {(row.check, row.stream) for row in report.rows if not row.ok} == {
        ("files of episodes are those of record.json", "all"),
        ("video packets are those that were committed", "cam_high"),
        ("video pictures are those of their rows", "cam_high"),
    }


def _replace_groups(path: Path, numbers: range) -> None:
    """Packets of the first group of two pictures in the place of others; times stay."""
    beside = path.with_name("beside.mp4")
    with av.open(str(path)) as container, av.open(str(beside), "w") as output:
        stream = container.streams.video[0]
        target = output.add_stream_from_template(stream)
        packets = [packet for packet in container.demux(stream) if packet.size]
        first = [bytes(packet) for packet in packets[:2]]
        for number, packet in enumerate(packets):
            new = av.Packet(first[number % 2] if number in numbers else bytes(packet))
            new.pts, new.dts, new.duration, new.time_base = packet.pts, packet.dts, packet.duration, packet.time_base
            new.is_keyframe, new.stream = packet.is_keyframe, target
            output.mux(new)
    shutil.move(beside, path)
