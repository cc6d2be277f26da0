"""Dirt of LeRobot v2 datasets as met in the wild: found and said, read as stored, or refused; never guessed or lost."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot_files import edit_info
from PIL import Image
from raw_files import pictures, write_lerobot_v21

from dataengine.convert import convert
from dataengine.episode_set import EpisodeSet
from dataengine.inspection import inspect_path
from dataengine.rig_files import load_rig
from dataengine.sources import open_source
from dataengine.workspace import Workspace
from schemas.errors import EpisodeError, SourceError
from schemas.refs import Ref
from schemas.rigs import Rig


def edit_table(root: Path, change: Callable[[pa.Table], pa.Table], pattern: str = "*.parquet") -> None:
    for path in (root / "data").rglob(pattern):
        pq.write_table(change(pq.read_table(path, partitioning=None)), path)


def edit_feature(root: Path, key: str, **changes: Any) -> None:
    features = json.loads((root / "meta/info.json").read_text())["features"]
    features[key] = {**features.get(key, {}), **changes}
    edit_info(root, features=features)


def notes_of(root: Path) -> str:
    return " | ".join(inspect_path(root).notes)


def test_videos_in_a_folder_of_another_name_are_found_and_it_is_said(tmp_path: Path) -> None:
    root = write_lerobot_v21(tmp_path / "raw", lengths=(5, 6))
    (root / "videos").rename(root / "video")
    assert len(open_source(root, None).read("episode_000001").cameras["cam_high"]) == 6
    assert "meta/info.json says videos/, which is not there: video/ is read" in notes_of(root)
    folder = root / "video/chunk-000/observation.images.cam_high"
    folder.rename(folder.with_name("cam_high"))
    assert len(open_source(root, None).read("episode_000001").cameras["cam_high"]) == 6
    assert (
        "videos of observation.images.cam_high are read from video/chunk-000/cam_high, not from "
        "video/chunk-000/observation.images.cam_high as meta/info.json says"
    ) in notes_of(root)


def test_the_other_word_for_a_chunk_is_understood_and_an_unknown_one_is_named(tmp_path: Path) -> None:
    root = write_lerobot_v21(tmp_path / "raw", lengths=(5,))
    edit_info(root, data_path="data/chunk-{chunk_index:03d}/episode_{episode_index:06d}.parquet")
    assert open_source(root, None).read("episode_000000").num_frames == 5
    edit_info(root, data_path="data/chunk-{piece:03d}/episode_{episode_index:06d}.parquet")
    with pytest.raises(SourceError, match=r"a path template that cannot be filled: data/chunk-\{piece:03d\}"):
        open_source(root, None)


def test_a_declared_codec_that_is_not_the_files_and_channels_first_are_noted(tmp_path: Path) -> None:
    root = write_lerobot_v21(tmp_path / "raw", lengths=(5,))
    edit_feature(root, "observation.images.cam_high", shape=[3, 48, 64], video_info={"video.codec": "av1"})
    video = open_source(root, None).read("episode_000000").cameras["cam_high"]
    assert (video.spec.encoding, video.spec.height, video.spec.width) == ("h264", 48, 64)
    assert "observation.images.cam_high is declared av1, but its video is h264, which is kept" in notes_of(root)


def test_columns_that_are_declared_and_absent_or_there_and_undeclared_are_noted(tmp_path: Path) -> None:
    root = write_lerobot_v21(tmp_path / "raw", lengths=(5,))
    edit_feature(root, "observation.effort", dtype="float32", shape=[4], names=None)
    edit_table(root, lambda table: table.append_column("tactile", pa.array([[[1.0, 2.0], [3.0, 4.0]]] * len(table))))
    edit_table(root, lambda table: table.append_column("remark", pa.array(["slow", *["fine"] * (len(table) - 1)])))
    episode = open_source(root, None).read("episode_000000")
    assert set(episode.columns) == {"observation.state", "action", "tactile"}
    assert episode.columns["tactile"].tolist() == [[1.0, 2.0, 3.0, 4.0]] * 5
    assert episode.imported == {"remark": ("slow", "fine", "fine", "fine", "fine")}
    assert "observation.effort is declared in meta/info.json, but no column of the data: it is left out" in notes_of(
        root
    )
    assert "tactile is a column that meta/info.json does not declare" in notes_of(root)


def test_lists_of_float64_are_kept_bit_for_bit_and_noted(tmp_path: Path) -> None:
    root = write_lerobot_v21(tmp_path / "raw", lengths=(5,))
    values = [[0.1 * row, 1 / 3, 2.0, -1e-9] for row in range(5)]
    kind = pa.list_(pa.float64())
    edit_table(root, lambda table: table.set_column(1, "action", pa.array(values, kind)))
    column = open_source(root, None).read("episode_000000").columns["action"]
    assert (column.dtype, column.tolist()) == (np.dtype(np.float64), values)
    assert "action is declared float32, but stored as float64, which is kept" in notes_of(root)


def test_without_row_numbers_the_instruction_comes_from_the_list_of_episodes(tmp_path: Path) -> None:
    tasks = ("Open the jar.", "Close the jar.")
    root = write_lerobot_v21(tmp_path / "raw", lengths=(5, 6), tasks=tasks)
    edit_table(root, lambda table: table.drop_columns(["index", "task_index", "frame_index", "episode_index"]))
    source = open_source(root, None)
    assert [source.read(name).meta.task for name in source.names()] == list(tasks)
    lines = [json.loads(line) for line in (root / "meta/episodes.jsonl").read_text().splitlines()]
    lines[0]["tasks"] = list(tasks)
    (root / "meta/episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(EpisodeError, match=r"2 instructions in meta/episodes.jsonl and no column task_index"):
        open_source(root, None).read("episode_000000")


def test_counts_that_are_not_true_are_noted_and_a_parquet_that_is_not_listed_is_rejected(tmp_path: Path) -> None:
    root = write_lerobot_v21(tmp_path / "raw", lengths=(5, 6, 7))
    edit_info(root, total_frames=900, total_episodes=50)
    path = root / "meta/episodes.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    source = open_source(root, None)
    assert source.names() == ["episode_000000", "episode_000001", "episode_000002"]
    with pytest.raises(EpisodeError, match=r"episode_000002.parquet is there, but meta/episodes.jsonl does not"):
        source.read("episode_000002")
    notes = notes_of(root)
    assert "meta/info.json says 50 episodes, meta/episodes.jsonl lists 2" in notes
    assert "meta/info.json says 900 frames, meta/episodes.jsonl 11" in notes
    assert "1 parquet files are of episodes that meta/episodes.jsonl does not list" in notes


@pytest.mark.parametrize("encoding", ["JPEG", "PNG"])
def test_pictures_inside_the_parquet_are_read_and_jpegs_passed_through(tmp_path: Path, encoding: str) -> None:
    root = write_lerobot_v21(tmp_path / "raw", lengths=(6,), cameras=())
    key, frames = "observation.image", pictures(6)
    edit_feature(root, key, dtype="image", shape=[3, 48, 64], names=["channel", "height", "width"])
    stored = []
    for frame in frames:
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, format=encoding)
        stored.append(buffer.getvalue())
    cells: list[dict[str, Any]] = [{"bytes": raw, "path": None} for raw in stored]
    cells[4] = {"bytes": None, "path": "images/frame_000004"}
    (root / "images").mkdir()
    (root / "images/frame_000004").write_bytes(stored[4])
    edit_table(root, lambda table: table.append_column(key, pa.array(cells)))
    stream: Any = open_source(root, None).read("episode_000000").cameras["image"]
    assert (stream.spec.height, stream.spec.width) == (48, 64)
    if encoding == "JPEG":
        assert list(stream.jpegs()) == stored
    else:
        assert np.array_equal(np.stack(list(stream.arrays())), frames)
    assert [camera.encoding for camera in inspect_path(root).cameras] == ["jpeg" if encoding == "JPEG" else "raw"]


def test_a_path_in_a_row_that_leads_out_of_the_dataset_is_not_opened(tmp_path: Path) -> None:
    root = write_lerobot_v21(tmp_path / "raw", lengths=(1,), cameras=())
    key = "observation.image"
    edit_feature(root, key, dtype="image", shape=[48, 64, 3])
    Image.fromarray(pictures(1)[0]).save(tmp_path / "secret.png")
    edit_table(root, lambda table: table.append_column(key, pa.array([{"bytes": None, "path": "x"}])))
    (root / "blob.png").symlink_to(tmp_path / "secret.png")  # as in a hub's cache
    os.mkfifo(root / "pipe.png")

    def first(path: str) -> Any:
        edit_table(root, lambda table: table.drop_columns(key).append_column(key, pa.array([{"path": path}], cell)))
        return open_source(root, None).read("episode_000000").cameras["image"]

    cell = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    assert np.array_equal(next(iter(first("blob.png").arrays())), pictures(1)[0])
    for path in ("../secret.png", str(tmp_path / "secret.png"), f"{root}/../secret.png", "images/../../secret.png"):
        with pytest.raises(EpisodeError, match=r"is not in the dataset's folder. Drop the episode"):
            first(path)
    for path in ("pipe.png", "data"):
        with pytest.raises(EpisodeError, match=r"which can not be read"):
            first(path)


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ("data/{episode_index.nope}/x.parquet", "cannot be filled"),
        ("data/{episode_index.__class__}/x.parquet", "cannot be filled"),
        ("data/{episode_index[0]}/x.parquet", "cannot be filled"),
        ("data/{episode_index:099999999d}.parquet", "cannot be filled"),
        ("data/{episode_index!r}.parquet", "cannot be filled"),
        ("data/{}/x.parquet", "cannot be filled"),
        ("data/{nope}/x.parquet", "cannot be filled"),
        ("data/{episode_index/x.parquet", "cannot be filled"),
        ("/etc/{episode_index}.parquet", "is not in the dataset's folder"),
        ("../{episode_index}.parquet", "is not in the dataset's folder"),
        ("data/../../{episode_index:06d}.parquet", "is not in the dataset's folder"),
    ],
)
def test_a_path_template_is_filled_plainly_and_stays_inside(tmp_path: Path, template: str, sentence: str) -> None:
    root = write_lerobot_v21(tmp_path / "raw", lengths=(2,))
    edit_info(root, data_path=template)
    with pytest.raises(SourceError, match=sentence):
        open_source(root, None)


def test_an_id_survives_the_removal_of_an_episode_before_it(tmp_path: Path) -> None:
    root = write_lerobot_v21(tmp_path / "raw", lengths=(5, 6), tasks=("Open it.", "Close it."))
    before = open_source(root, None).read("episode_000001").meta
    for suffix in ("parquet", "mp4"):
        for path in root.rglob(f"episode_000001.{suffix}"):
            path.replace(path.with_name(f"episode_000000.{suffix}"))
    zeros = np.zeros(6, np.int64)
    columns = {"episode_index": zeros, "task_index": zeros, "index": np.arange(6)}
    edit_table(root, lambda table: pa.table({**{name: table[name] for name in table.column_names}, **columns}))
    (root / "meta/episodes.jsonl").write_text(json.dumps({"episode_index": 0, "tasks": ["Close it."], "length": 6}))
    (root / "meta/tasks.jsonl").write_text(json.dumps({"task_index": 0, "task": "Close it."}))
    after = open_source(root, None).read("episode_000000").meta
    assert (after.episode_id, after.task) == (before.episode_id, "Close it.")
    edit_table(root, lambda table: table.set_column(2, "timestamp", pa.array(np.arange(6) * 0.04, pa.float32())))
    assert open_source(root, None).read("episode_000000").meta.episode_id != before.episode_id  # recorded times


def test_a_damaged_picture_inside_the_parquet_names_its_row(tmp_path: Path) -> None:
    root = write_lerobot_v21(tmp_path / "raw", lengths=(3,), cameras=())
    key = "observation.image"
    edit_feature(root, key, dtype="image", shape=[48, 64, 3])
    buffer = io.BytesIO()
    Image.fromarray(pictures(1)[0]).save(buffer, format="PNG")
    cells = [{"bytes": raw, "path": None} for raw in (buffer.getvalue(), buffer.getvalue()[:-15], None)]
    edit_table(root, lambda table: table.append_column(key, pa.array(cells)))
    stream: Any = open_source(root, None).read("episode_000000").cameras["image"]
    with pytest.raises(EpisodeError, match=r"observation.image has a damaged picture at row 1"):
        list(stream.arrays())


def test_groots_modality_names_dimensions_arms_cameras_and_annotations(tmp_path: Path) -> None:
    root = write_lerobot_v21(tmp_path / "raw", lengths=(5,), names=[], tasks=("Pour the water.", "valid", "invalid"))
    modality = {
        "state": {"left_arm": {"start": 0, "end": 3}, "left_hand": {"start": 3, "end": 4}},
        "action": {"left_arm": {"start": 0, "end": 3}, "left_hand": {"start": 3, "end": 4}},
        "video": {"ego_view": {"original_key": "observation.images.cam_high"}},
        "annotation": {"human.validity": {}, "human.action.task_description": {}},
    }
    (root / "meta/modality.json").write_text(json.dumps(modality))
    edit_feature(root, "annotation.human.validity", dtype="int64", shape=[1])
    edit_table(root, lambda table: table.append_column("annotation.human.validity", pa.array([1, 1, 1, 2, 2])))
    source = open_source(root, None)
    labels = ("left_arm_0", "left_arm_1", "left_arm_2", "left_hand")
    assert source.rig.features["observation.state"].names == labels
    assert source.rig.features["action"].names == labels
    assert [(arm.name, arm.side, arm.indices) for arm in source.rig.arms] == [("left arm", "left", (0, 1, 2))]
    episode = source.read("episode_000000")
    assert (set(episode.columns), set(episode.cameras)) == ({"observation.state", "action"}, {"ego_view"})
    assert episode.imported == {"annotation.human.validity": ("valid", "valid", "valid", "invalid", "invalid")}
    assert "meta/modality.json names parts of the state: left_arm (0..2), left_hand (3..3)" in notes_of(root)


def test_groots_task_description_is_the_instruction_where_no_task_index_says_one(tmp_path: Path) -> None:
    root = write_lerobot_v21(tmp_path / "raw", lengths=(5,), tasks=("valid", "Pour the water."))
    (root / "meta/modality.json").write_text(json.dumps({"annotation": {"human.action.task_description": {}}}))
    column = "annotation.human.action.task_description"
    edit_table(root, lambda table: table.drop_columns(["task_index"]).append_column(column, pa.array([1] * len(table))))
    episode = open_source(root, None).read("episode_000000")
    assert (episode.meta.task, episode.imported) == ("Pour the water.", {column: ("Pour the water.",)})


def test_a_dataset_without_any_video_is_refused_as_a_whole_and_says_how_to_keep_the_numbers(tmp_path: Path) -> None:
    root = write_lerobot_v21(tmp_path / "raw", lengths=(5, 6), missing_videos=(0, 1))
    with pytest.raises(SourceError, match=r"no video of the dataset is there \(videos/.* pass a rig without cameras"):
        open_source(root, None)
    (tmp_path / "numbers.yaml").write_text(inspect_path(root).draft_rig_yaml)
    source = open_source(root, load_rig(str(tmp_path / "numbers.yaml")))
    assert [(row.num_frames, row.cameras) for row in map(source.read, source.names())] == [(5, {}), (6, {})]


def test_an_id_does_not_depend_on_the_rigs_cameras(tmp_path: Path) -> None:
    root = write_lerobot_v21(tmp_path / "raw", lengths=(5,), cameras=("cam_high", "wrist"))
    derived = open_source(root, None).rig
    one = derived.model_copy(update={"cameras": {"wrist": derived.cameras["wrist"]}})
    ids = {open_source(root, rig).read("episode_000000").meta.episode_id for rig in (derived, one)}
    assert len(ids) == 1


def test_optional_parts_of_a_rig_that_the_dataset_lacks_are_left_out(tmp_path: Path) -> None:
    root = write_lerobot_v21(tmp_path / "raw", lengths=(5,))
    raw = open_source(root, None).rig.model_dump()
    raw["cameras"]["wrist"] = {"key": "observation.images.wrist", "optional": True}
    raw["features"]["observation.effort"] = {"key": "observation.effort", "optional": True}
    rig = open_source(root, Rig.model_validate(raw)).rig
    assert (set(rig.cameras), set(rig.features)) == ({"cam_high"}, {"observation.state", "action"})


def test_what_reads_an_absent_optional_column_goes_with_it_and_the_dataset_opens(
    tmp_path: Path, workspace: Workspace
) -> None:
    root = write_lerobot_v21(tmp_path / "raw", lengths=(5,), cameras=())
    raw = open_source(root, None).rig.model_dump(mode="json")
    raw["features"]["observation.effort"] = {"key": "observation.effort", "optional": True}
    hand = {"name": "gripper", "feature": "observation.effort", "indices": [0], "closed": 0.0, "open": 1.0}
    raw |= {"end_effectors": [hand], "arms": [{"name": "arm", "feature": "observation.effort", "indices": [1]}]}
    (tmp_path / "mylab.yaml").write_text(json.dumps(raw))
    convert(source_path=root, to=Ref("x", "1"), workspace=workspace, rig=str(tmp_path / "mylab.yaml"), workers=1)
    rig = EpisodeSet.open(workspace, Ref("x", "1")).rig
    assert (set(rig.features), rig.end_effectors, rig.arms) == ({"observation.state", "action"}, (), ())
