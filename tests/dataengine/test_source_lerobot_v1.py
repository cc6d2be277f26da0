"""LeRobot v1.x: rows of many episodes in arrow files, and videos handed on where they are the rows' pictures."""

import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from raw_files import pictures, trajectory, write_mp4
from safetensors.numpy import save_file

from dataengine.convert import convert
from dataengine.episode_set import EpisodeSet
from dataengine.inspection import inspect_path
from dataengine.rig_files import load_rig
from dataengine.sinks.pictures import pictures as decoded
from dataengine.sources import detect, open_source
from dataengine.verification import verify
from dataengine.workspace import Workspace
from schemas.episodes import VideoFile
from schemas.errors import EpisodeError, RigError, SourceError
from schemas.refs import Ref

CAMERA = "observation.images.top"


def write_v1(
    root: Path,
    *,
    lengths: Sequence[int] = (8, 11),
    rate_hz: int = 10,
    rows_per_file: int = 13,
    declared: Sequence[int] | None = None,
    info: bool = True,
    instruction: str | None = None,
    start_s: float = 0.0,
    skip_at: int | None = None,
    png: bool = False,
    seed: int = 0,
) -> Path:
    """train/*.arrow streams of `rows_per_file` rows, meta_data/, videos/, as LeRobot 1.6 left them.

    `declared` are the lengths in episode_data_index; `start_s` shifts the rows' times in their videos; `skip_at` is a
    row from which on one picture is passed over; `png` stores the pictures in the rows; `seed` is the first episode's.
    """
    import io

    from PIL import Image

    columns: dict[str, list[Any]] = {name: [] for name in (CAMERA, "observation.state", "action")}
    numbers: dict[str, list[Any]] = {name: [] for name in ("episode_index", "frame_index", "timestamp", "next.done")}
    for episode, length in enumerate(lengths):
        path = f"videos/{CAMERA}_episode_{episode:06d}.mp4"
        extra = round(start_s * rate_hz) + (skip_at is not None)
        frames = pictures(length + extra, seed=seed + episode)
        if not png:
            write_mp4(root / path, frames, rate_hz=rate_hz)
        for index in range(length):
            buffer = io.BytesIO()
            Image.fromarray(frames[index]).save(buffer, format="PNG")
            place = index + (skip_at is not None and index >= skip_at)
            video = {"path": path, "timestamp": np.float32(start_s + place / rate_hz)}
            columns[CAMERA].append({"bytes": buffer.getvalue(), "path": None} if png else video)
        columns["observation.state"] += list(trajectory(length, 3, seed=seed + episode))
        columns["action"] += list(trajectory(length, 3, seed=seed + episode + 20))
        numbers["episode_index"] += [episode] * length
        numbers["frame_index"] += range(length)
        numbers["timestamp"] += (np.arange(length) / rate_hz).astype(np.float32).tolist()
        numbers["next.done"] += [index == length - 1 for index in range(length)]
    cell = (
        [("bytes", pa.binary()), ("path", pa.string())] if png else [("path", pa.string()), ("timestamp", pa.float32())]
    )
    fields: dict[str, pa.Array] = {
        CAMERA: pa.array(columns[CAMERA], pa.struct(cell)),
        "observation.state": pa.array(columns["observation.state"], pa.list_(pa.float32(), 3)),
        "action": pa.array(columns["action"], pa.list_(pa.float32(), 3)),
        "episode_index": pa.array(numbers["episode_index"], pa.int64()),
        "frame_index": pa.array(numbers["frame_index"], pa.int64()),
        "timestamp": pa.array(numbers["timestamp"], pa.float32()),
        "next.done": pa.array(numbers["next.done"], pa.bool_()),
        "index": pa.array(range(sum(lengths)), pa.int64()),
    }
    if instruction is not None:
        fields["language_instruction"] = pa.array([instruction] * sum(lengths))
    table = pa.table(fields)
    (root / "train").mkdir(parents=True)
    files = range(0, len(table), rows_per_file)
    for number, first in enumerate(files):
        file = root / f"train/data-{number:05d}-of-{len(files):05d}.arrow"
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table.slice(first, rows_per_file), max_chunksize=5)
    (root / "meta_data").mkdir()
    ends = np.cumsum(declared or lengths).astype(np.int64)
    bounds = {"from": np.concatenate([[0], ends[:-1]]).astype(np.int64), "to": ends}
    save_file(bounds, str(root / "meta_data/episode_data_index.safetensors"))
    if info:
        (root / "meta_data/info.json").write_text(json.dumps({"codebase_version": "v1.6", "fps": rate_hz, "video": 1}))
    return root


def rig_of(root: Path, tmp_path: Path, task: str = "Lift it.") -> Any:
    """The survey's draft with its one question answered."""
    draft = inspect_path(root).draft_rig_yaml
    assert "task: null" in draft
    (tmp_path / "v1.yaml").write_text(draft.replace("task: null", f"task: {task}"))
    return load_rig(str(tmp_path / "v1.yaml"))


def test_an_episode_that_two_files_share_comes_out_whole(tmp_path: Path) -> None:
    root = write_v1(tmp_path / "raw")
    assert detect(root) == "lerobot_v1"
    source = pickle.loads(pickle.dumps(open_source(root, rig_of(root, tmp_path))))
    assert source.names() == ["episode_000000", "episode_000001"]
    for episode, length in enumerate((8, 11)):
        read = source.read(f"episode_{episode:06d}")
        assert np.array_equal(read.columns["observation.state"], trajectory(length, 3, seed=episode))
        assert read.columns["next.done"][:, 0].tolist() == [False] * (length - 1) + [True]
        assert (read.meta.task, read.rate_hz, read.stamps_ns, read.imported) == ("Lift it.", 10, {}, {})
        video = read.cameras["top"]
        assert isinstance(video, VideoFile)
        assert (video.path.name, video.num_frames) == (f"{CAMERA}_episode_{episode:06d}.mp4", length)
        assert (video.first, video.whole) == (0, True)


def test_without_a_rig_the_instruction_must_be_in_the_rows(tmp_path: Path) -> None:
    with pytest.raises(RigError, match=r"LeRobot v1 stores no instruction. Pass a rig with task:"):
        open_source(write_v1(tmp_path / "a", lengths=(3,)), None)
    source = open_source(write_v1(tmp_path / "b", lengths=(3,), instruction="Open the drawer."), None)
    read = source.read("episode_000000")
    assert (read.meta.task, read.imported) == ("Open the drawer.", {})


def test_episodes_that_the_index_promises_but_the_data_lacks_are_said(tmp_path: Path) -> None:
    root = write_v1(tmp_path / "raw", lengths=(8, 11), declared=(8, 11, 9))
    source = open_source(root, rig_of(root, tmp_path))
    assert len(source.names()) == 3
    with pytest.raises(EpisodeError, match=r"the index says 9 rows, but the data holds none of it \(19 rows of 2 epi"):
        source.read("episode_000002")
    assert "the index lists 3 episodes, the data holds 2 of them" in inspect_path(root).notes


def test_an_index_of_other_lengths_is_not_believed(tmp_path: Path) -> None:
    root = write_v1(tmp_path / "raw", lengths=(8, 11), declared=(9, 10))
    with pytest.raises(EpisodeError, match=r"8 rows, but meta_data/episode_data_index.safetensors says 9"):
        open_source(root, rig_of(root, tmp_path)).read("episode_000000")


def test_rows_that_take_a_stretch_of_a_video_say_which(tmp_path: Path) -> None:
    root = write_v1(tmp_path / "raw", lengths=(6,), start_s=0.4)
    video = open_source(root, rig_of(root, tmp_path)).read("episode_000000").cameras["top"]
    assert isinstance(video, VideoFile)
    assert (video.first, video.num_frames, video.whole) == (4, 6, False)


def test_rows_that_pass_over_a_picture_are_refused(tmp_path: Path) -> None:
    root = write_v1(tmp_path / "raw", lengths=(6,), skip_at=3)
    with pytest.raises(EpisodeError, match=r"takes the picture at 0.4000 s for row 3, which does not follow"):
        open_source(root, rig_of(root, tmp_path)).read("episode_000000")


def test_a_missing_or_short_video_is_said(tmp_path: Path) -> None:
    root = write_v1(tmp_path / "raw", lengths=(6, 7))
    source = open_source(root, rig_of(root, tmp_path))
    first, second = sorted((root / "videos").iterdir())
    first.unlink()
    write_mp4(second, pictures(5), rate_hz=10)
    with pytest.raises(EpisodeError, match=r"episode_000000.mp4 is missing"):
        source.read("episode_000000")
    with pytest.raises(EpisodeError, match=r"camera 'top' has 5 frames for 7 rows"):
        source.read("episode_000001")


def test_the_rate_comes_from_even_stamps_where_no_file_says_it(tmp_path: Path) -> None:
    root = write_v1(tmp_path / "raw", lengths=(6,), info=False)
    found = inspect_path(root)
    assert found.rate_text == "10 Hz"
    assert "meta_data/info.json is missing; the timestamps are even at 10 Hz, which is taken" in found.notes
    rig = rig_of(root, tmp_path)
    assert open_source(root, rig).read("episode_000000").rate_hz == 10
    with pytest.raises(RigError, match=r"says 20 Hz, but the timestamps says 10"):
        open_source(root, rig.model_copy(update={"rate_hz": 20}))


def test_pictures_in_the_rows_are_read(tmp_path: Path) -> None:
    root = write_v1(tmp_path / "raw", png=True)
    stream = open_source(root, rig_of(root, tmp_path)).read("episode_000001").cameras["top"]
    shown = np.stack([picture.rgb() for picture in decoded(stream)])
    assert np.array_equal(shown, pictures(11, seed=1))


def test_another_value_or_video_changes_the_id_of_its_episode_only(tmp_path: Path) -> None:
    root = write_v1(tmp_path / "raw")
    source = open_source(root, rig_of(root, tmp_path))
    before = [source.read(name).meta.episode_id for name in source.names()]
    write_mp4(root / f"videos/{CAMERA}_episode_000001.mp4", pictures(11, seed=9), rate_hz=10)
    after = [source.read(name).meta.episode_id for name in source.names()]
    assert (before[0] == after[0], before[1] == after[1]) == (True, False)


def test_metadata_without_data_and_damaged_data_say_so(tmp_path: Path) -> None:
    root = write_v1(tmp_path / "raw")
    first = sorted((root / "train").iterdir())[0]
    first.write_bytes(first.read_bytes()[:500])
    with pytest.raises(SourceError, match=r"the data of 'raw' can not be read"):
        open_source(root, None)
    for path in (root / "train").iterdir():
        path.unlink()
    with pytest.raises(SourceError, match=r"no data: neither train/\*.arrow nor data/\*.parquet"):
        open_source(root, None)


@pytest.mark.parametrize(
    ("name", "num_rows", "rate_hz", "cameras"),
    [
        ("aloha_sim_insertion_human", 500, 50, {"top": (480, 640)}),
        ("umi_cup_in_the_wild", 400, 10, {"image": (224, 224)}),
        ("pusht", 161, 10, {"image": (96, 96)}),
        ("pusht_image", 161, 10, {"image": (96, 96)}),
        ("xarm_lift_medium_replay", 25, 15, {"image": (84, 84)}),
    ],
)
def test_the_real_v1_sets_are_read(
    samples: Path, tmp_path: Path, name: str, num_rows: int, rate_hz: int, cameras: dict[str, tuple[int, int]]
) -> None:
    root = samples / "lerobot_v1_tests" / name
    source = open_source(root, rig_of(root, tmp_path))
    episode = source.read("episode_000000")
    assert (episode.num_frames, episode.rate_hz) == (num_rows, rate_hz)
    found = {ours: (stream.spec.height, stream.spec.width) for ours, stream in episode.cameras.items()}
    assert found == cameras


def test_the_real_pusht_set_converts_and_the_205_absent_episodes_are_rows_in_rejected(
    samples: Path, tmp_path: Path, workspace: Workspace
) -> None:
    root, ref = samples / "lerobot_v1_tests/pusht", Ref("pusht", "1")
    rig_of(root, tmp_path, "Push the T.")
    rig = str(tmp_path / "v1.yaml")
    report = convert(source_path=root, to=ref, workspace=workspace, rig=rig, max_rejected=1.0, workers=1)
    assert (report.num_episodes, report.num_frames, len(report.rejected)) == (1, 161, 205)
    assert all("the data holds none of it" in row.reason for row in report.rejected)
    episode = open_source(root, load_rig(rig)).read("episode_000000")
    dataset = EpisodeSet.open(workspace, ref)
    [episode_id] = dataset.ids()
    assert np.array_equal(dataset.columns(episode_id)["action"], episode.columns["action"])
    assert verify(source_path=root, ref=ref, workspace=workspace, rig=rig, workers=1).ok


@pytest.mark.parametrize("png", [True, False])
def test_an_id_survives_the_removal_of_an_episode_before_it(tmp_path: Path, png: bool) -> None:
    both = write_v1(tmp_path / "both", lengths=(8, 11), png=png)
    one = write_v1(tmp_path / "one", lengths=(11,), png=png, seed=1)
    rig = rig_of(both, tmp_path)
    second, alone = open_source(both, rig).read("episode_000001"), open_source(one, rig).read("episode_000000")
    assert np.array_equal(second.columns["action"], alone.columns["action"])
    assert second.meta.episode_id == alone.meta.episode_id
    assert open_source(both, rig).read("episode_000000").meta.episode_id != alone.meta.episode_id


def test_a_row_that_names_a_video_elsewhere_is_refused(tmp_path: Path) -> None:
    root = write_v1(tmp_path / "raw", lengths=(8,))
    rig = rig_of(root, tmp_path)
    for path in (root / "train").glob("*.arrow"):
        with pa.ipc.open_stream(path.read_bytes()) as reader:
            table = reader.read_all()
        cells = [{**cell, "path": f"../raw/{cell['path']}"} for cell in table[CAMERA].to_pylist()]
        table = table.set_column(0, table.schema.field(CAMERA), pa.array(cells, table.schema.field(CAMERA).type))
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    source = open_source(root, rig)
    assert list(source.stamps()) == ["episode_000000"]
    with pytest.raises(EpisodeError, match=r"its rows name \.\./raw/videos/.* which is not in the dataset's folder"):
        source.read("episode_000000")
