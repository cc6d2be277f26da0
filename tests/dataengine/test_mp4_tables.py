"""Joining and cutting by sample tables: every picture comes out as it went in, or the file is refused."""

import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import raw_files
from numpy.typing import NDArray

from dataengine.sinks import packets
from dataengine.sinks.mp4_tables import NotPlain, read_table
from dataengine.sinks.packets import Clip, PacketScan, join_clips, scan_video
from dataengine.sinks.pictures import decoded_video
from dataengine.sinks.video_cuts import cut_clip, entry_points
from dataengine.sinks.video_encoding import VideoEncoding, VideoWriter
from schemas.episodes import CameraSpec, VideoFile
from schemas.errors import ArtifactError, EpisodeError

CODECS = ("libx264", "libx265", "libsvtav1")  # the first two reorder pictures


def write(
    path: Path,
    frames: NDArray[np.uint8],
    *,
    codec: str = "libx264",
    rate_hz: int = 30,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    g: int = 12,
) -> Path:
    """A video by PyAV alone."""
    with av.open(str(path), "w", options=container or {}) as output:
        stream = output.add_stream(codec, rate=rate_hz, options={"g": str(g), **(options or {})})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, rate_hz)
        for picture in frames:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        last = stream.encode(None)
        if len(frames) <= 2:  # x265 gives so few no decode times
            for packet in last:
                packet.dts = packet.pts
        output.mux(last)
    return path


def decoded(path: Path) -> list[NDArray[Any]]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def times(path: Path) -> list[Fraction]:
    with av.open(str(path)) as container:
        base = container.streams.video[0].time_base
        return [frame.pts * base for frame in container.decode(video=0)]


def clip(path: Path, scan: PacketScan, *, first: int = 0) -> Clip:
    return Clip(path=path, num_frames=scan.num_frames, content=scan.content, first=first)


def equal(left: list[NDArray[Any]], right: list[NDArray[Any]]) -> bool:
    return len(left) == len(right) and all(np.array_equal(*pair) for pair in zip(left, right, strict=True))


def join(paths: list[Path], target: Path) -> list[PacketScan]:
    scans = [scan_video(path, rate_hz=30) for path in paths]
    delay = max(scan.delay for scan in scans)
    join_clips([clip(*pair) for pair in zip(paths, scans, strict=True)], target, rate_hz=30, delay=delay)
    return scans


@pytest.mark.parametrize("codec", CODECS)
def test_joined_videos_show_every_picture_at_its_time(tmp_path: Path, codec: str) -> None:
    paths = [
        write(tmp_path / f"{number}.mp4", raw_files.pictures(num, seed=number), codec=codec)
        for number, num in enumerate((21, 34, 2))
    ]
    scans = join(paths, tmp_path / "joined.mp4")
    assert (max(scan.delay for scan in scans) > 0) == (codec != "libsvtav1")
    assert equal(decoded(tmp_path / "joined.mp4"), [picture for path in paths for picture in decoded(path)])
    assert times(tmp_path / "joined.mp4") == [Fraction(number, 30) for number in range(57)]
    content = (tmp_path / "joined.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


@pytest.mark.parametrize("codec", CODECS)
def test_a_stretch_of_a_joined_file_is_what_was_joined(tmp_path: Path, codec: str) -> None:
    paths = [write(tmp_path / f"{n}.mp4", raw_files.pictures(20, seed=n), codec=codec) for n in range(3)]
    scans = join(paths, tmp_path / "joined.mp4")
    again = scan_video(tmp_path / "joined.mp4", rate_hz=30, first=20, num_frames=20)
    assert (again.content, again.num_bytes) == (scans[1].content, scans[1].num_bytes)
    join_clips([clip(tmp_path / "joined.mp4", again, first=20)], tmp_path / "cut.mp4", rate_hz=30, delay=again.delay)
    assert equal(decoded(tmp_path / "cut.mp4"), decoded(paths[1]))
    spec = CameraSpec(name="c", height=48, width=64, encoding="h264", channel_order="rgb")
    stream = VideoFile(spec=spec, path=tmp_path / "joined.mp4", num_frames=20, first=20, whole=False)
    assert equal(list(decoded_video(stream)), decoded(paths[1]))


def test_a_stretch_that_does_not_start_with_a_keyframe_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", raw_files.pictures(40))
    with pytest.raises(EpisodeError, match="can not be decoded by themselves"):
        scan_video(path, rate_hz=30, first=5, num_frames=10)
    with pytest.raises(EpisodeError, match="has 40 pictures, asked for 30 to 50"):
        scan_video(path, rate_hz=30, first=30, num_frames=20)


@pytest.mark.parametrize("codec", CODECS)
def test_tables_and_pyav_tell_the_same(tmp_path: Path, codec: str) -> None:
    path = write(tmp_path / "a.mp4", raw_files.pictures(30), codec=codec)
    table, walked = read_table(path), packets._demuxed(path)
    assert np.array_equal(table.sizes, walked.sizes)
    assert np.array_equal(table.keys, walked.keys)
    assert np.array_equal(np.argsort(table.stamps), np.argsort(walked.stamps))
    assert packets._hash_packets(path, walked.sizes, 0, 30) == scan_video(path, rate_hz=30).content


def test_fragmented_files_and_other_containers_are_copied_by_pyav(tmp_path: Path) -> None:
    fragmented = {"movflags": "frag_keyframe+empty_moov"}
    paths = [write(tmp_path / f"{n}.mp4", raw_files.pictures(20, seed=n), container=fragmented) for n in range(2)]
    with pytest.raises(NotPlain, match="fragmented"):
        read_table(paths[0])
    join(paths, tmp_path / "joined.mp4")
    assert equal(decoded(tmp_path / "joined.mp4"), [picture for path in paths for picture in decoded(path)])
    matroska = write(tmp_path / "a.mkv", raw_files.pictures(12), codec="libsvtav1")
    join([matroska], tmp_path / "from_mkv.mp4")
    assert equal(decoded(tmp_path / "from_mkv.mp4"), decoded(matroska))


def test_codec_parameters_differ_where_they_must_not_share_a_track(tmp_path: Path) -> None:
    frames = raw_files.pictures(10)
    same = [write(tmp_path / f"{n}.mp4", frames, options={"crf": str(20 + n)}) for n in range(2)]
    other = write(tmp_path / "b.mp4", frames, options={"profile": "baseline"})
    scans = [scan_video(path, rate_hz=30) for path in (*same, other)]
    assert scans[0].parameters != scans[2].parameters
    assert scans[0].content != scans[1].content


def test_a_video_trimmed_by_its_edit_list_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", raw_files.pictures(30), codec="libsvtav1")
    content = bytearray(path.read_bytes())
    place = content.index(b"elst") + 4
    version, count = content[place], struct.unpack_from(">I", content, place + 4)[0]
    assert (version, count) == (0, 1)
    struct.pack_into(">i", content, place + 12, 5 * 512)  # starts at the sixth picture
    path.write_bytes(content)
    with pytest.raises(EpisodeError, match="trimmed by its edit list"):
        scan_video(path, rate_hz=30)


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", raw_files.pictures(60), container={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(EpisodeError, match="cut short"):
        scan_video(path, rate_hz=30)


def test_a_video_that_changed_since_it_was_scanned_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", raw_files.pictures(20))
    scan = scan_video(path, rate_hz=30)
    write(path, raw_files.pictures(20, seed=3))
    known = Clip(path=path, num_frames=20, content=scan.content, file_stat=scan.file_stat)
    with pytest.raises(ArtifactError, match=r"a.mp4 changed while it was converted"):
        join_clips([known], tmp_path / "b.mp4", rate_hz=30, delay=scan.delay)


@pytest.mark.parametrize(
    ("codec", "first", "num_frames"),
    [(codec, *cut) for codec in CODECS for cut in ((0, 60), (12, 24), (12, 20), (5, 40), (13, 5), (30, 30))],
)
def test_a_cut_shows_just_the_pictures_asked_for_and_encodes_only_what_it_goes_through(
    tmp_path: Path, codec: str, first: int, num_frames: int
) -> None:
    closed = {"libx265": {"x265-params": "open-gop=0:log-level=error"}}.get(codec, {})
    path = write(tmp_path / "a.mp4", raw_files.pictures(60), codec=codec, options=closed)
    starts = entry_points(scan_video(path, rate_hz=30)).tolist()
    num_encoded = cut_clip(path, first, num_frames, tmp_path / "cut.mp4", 30, VideoEncoding())
    wanted, got = decoded(path)[first : first + num_frames], decoded(tmp_path / "cut.mp4")
    assert times(tmp_path / "cut.mp4") == [Fraction(number, 30) for number in range(num_frames)]
    errors = [float(np.abs(a.astype(int) - b).mean()) for a, b in zip(got, wanted, strict=True)]
    assert max(errors) < 6
    untouched = sum(error == 0 for error in errors)
    assert untouched >= num_frames - num_encoded
    if first in starts and (first + num_frames in starts or first + num_frames == 60):
        assert num_encoded == 0
    if codec != "libsvtav1" and num_encoded:  # under codec parameters of its own, so nothing else may be in its track
        assert num_encoded == num_frames
        assert untouched == 0
    if codec == "libsvtav1":
        stop = first + num_frames  # a torn group of AV1 may hold pictures that come later, so its start is encoded too
        begin = min([start for start in starts if start >= first], default=stop)
        end = stop if stop == 60 else max(start for start in starts if start <= stop)
        assert num_encoded == (num_frames if end <= begin else begin - first + stop - end)
    with av.open(str(tmp_path / "cut.mp4")) as container:  # random access too
        stream = container.streams.video[0]
        for number in range(num_frames - 1, -1, -7):
            container.seek(round(Fraction(number, 30) / stream.time_base), stream=stream, backward=True)
            frame = next(f for f in container.decode(stream) if f.pts * stream.time_base == Fraction(number, 30))
            assert np.array_equal(frame.to_ndarray(format="rgb24"), got[number])


@pytest.mark.parametrize("num_frames", [1, 2, 3])
def test_a_very_short_h265_video_is_written_every_time(tmp_path: Path, num_frames: int) -> None:
    encoding = VideoEncoding(codec="libx265", crf=18, preset="ultrafast")
    for _ in range(20):  # without decode times of our own, one in five failed
        with VideoWriter(tmp_path / "a.mp4", width=64, height=48, rate_hz=30, encoding=encoding, threads=1) as writer:
            for picture in raw_files.pictures(num_frames):
                writer.add(picture)
        assert times(tmp_path / "a.mp4") == [Fraction(number, 30) for number in range(num_frames)]
