"""LeRobot v3.0 as a source: what lerobot 0.6.1 wrote is read episode by episode, and what is untrue in it is said."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from lerobot_files import CAM, DEPTH, TASKS, copied, depth_maps, edit_info, edit_parquet, replaced, write_lerobot_v30
from raw_files import pictures, trajectory

from dataengine.convert import convert
from dataengine.episode_set import EpisodeSet
from dataengine.inspection import inspect_path
from dataengine.rig_files import load_rig
from dataengine.sinks.pictures import pictures as decoded
from dataengine.sources import detect, open_source
from dataengine.sources.lerobot_rows import EpisodeRows, Piece, find_episode
from dataengine.verification import verify
from dataengine.workspace import Workspace
from schemas.episodes import VideoFile
from schemas.errors import EpisodeError, RigError, SourceError
from schemas.refs import Ref

DATA = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
VIDEO = f"videos/{CAM}/chunk-000/file-000.mp4"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three episodes with a colour and a depth camera, in one file each."""
    return write_lerobot_v30(tmp_path_factory.mktemp("lerobot") / "v30", depth=True)


@pytest.fixture(scope="module")
def with_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two episodes whose pictures are PNGs inside the parquet."""
    return write_lerobot_v30(tmp_path_factory.mktemp("lerobot") / "images", use_videos=False, lengths=(5, 6))


def test_every_episode_comes_out_of_the_shared_files_as_it_was_recorded(original: Path) -> None:
    assert detect(original) == "lerobot_v30"
    source = pickle.loads(pickle.dumps(open_source(original, None)))
    assert source.names() == ["episode_000000", "episode_000001", "episode_000002"]
    assert source.rig.features["action"].names == ("a", "b", "c", "d")
    first = 0
    for episode, length in enumerate((12, 15, 9)):
        read = source.read(f"episode_{episode:06d}")
        assert np.array_equal(read.columns["observation.state"], trajectory(length, 4, seed=episode))
        assert np.array_equal(read.columns["action"], trajectory(length, 4, seed=episode + 50))
        assert (read.rate_hz, read.stamps_ns, read.meta.task) == (10, {}, TASKS[0])
        video = read.cameras["cam_high"]
        assert isinstance(video, VideoFile)
        assert (video.path, video.first, video.num_frames, video.whole) == (original / VIDEO, first, length, False)
        shown = np.stack([picture.rgb() for picture in decoded(video)])
        assert np.abs(shown.astype(int) - pictures(length, seed=episode * 10)).mean() < 8
        first += length


def test_a_task_that_changes_midway_is_kept_row_by_row(original: Path) -> None:
    source = open_source(original, None)
    assert source.read("episode_000000").imported == {}
    assert source.read("episode_000001").imported == {"task": (TASKS[0],) * 7 + (TASKS[1],) * 8}


def test_a_depth_camera_knows_its_unit_and_one_of_another_code_is_refused(original: Path, tmp_path: Path) -> None:
    assert open_source(original, None).rig.cameras["depth"].depth_unit_m == 0.001
    root = copied(original, tmp_path / "raw")
    features = json.loads((root / "meta/info.json").read_text())["features"]
    features[DEPTH]["info"]["video.depth_max"] = 4.0
    edit_info(root, features=features)
    with pytest.raises(RigError, match=r"camera 'depth' is stored with depth_max 4.0, and only 10.0 is read"):
        open_source(root, None)


def test_depth_without_a_declared_unit_must_be_told_it_and_the_draft_tells_a_declared_one(
    original: Path, tmp_path: Path
) -> None:
    (tmp_path / "depth.yaml").write_text(inspect_path(original).draft_rig_yaml)
    rig = load_rig(str(tmp_path / "depth.yaml"))
    assert {name: camera.depth_unit_m for name, camera in rig.cameras.items()} == {"cam_high": None, "depth": 0.001}
    root = copied(original, tmp_path / "raw")
    features = json.loads((root / "meta/info.json").read_text())["features"]
    del features[DEPTH]["info"]["depth_unit"]
    edit_info(root, features=features)
    assert f"{DEPTH} is depth, and its unit is not declared: a rig must say depth_unit_m" in inspect_path(root).notes
    with pytest.raises(RigError, match=r"camera 'depth' is depth, and its unit is not declared"):
        open_source(root, None)
    assert open_source(root, rig).read("episode_000000").cameras["depth"].spec.depth_unit_m == 0.001


def test_ids_follow_the_content_not_the_rig_the_place_or_the_metadata(original: Path, tmp_path: Path) -> None:
    def ids(root: Path, rig: Any = None) -> list[str]:
        source = open_source(root, rig)
        return [source.read(name).meta.episode_id for name in source.names()]

    derived = open_source(original, None).rig
    before = ids(original)
    assert len(set(before)) == 3
    assert ids(original, derived.model_copy(update={"cameras": {}})) == before
    root = copied(original, tmp_path / "raw")
    edit_parquet(root / DATA, lambda table: replaced(table, "index", np.arange(len(table)) + 700))
    assert ids(root) == before
    edit_parquet(
        root / DATA, lambda table: replaced(table, "action", [[*row[:3], 9.0] for row in table["action"].to_pylist()])
    )
    assert not set(ids(root)) & set(before)


def test_an_id_survives_the_removal_of_an_episode_before_it(with_images: Path, tmp_path: Path) -> None:
    before = open_source(with_images, None).read("episode_000001").meta.episode_id
    root = copied(with_images, tmp_path / "less")

    def renumbered(table: pa.Table) -> pa.Table:
        kept = table.filter(pc.equal(table["episode_index"], 1))
        for column in ("index", "dataset_from_index", "dataset_to_index"):
            if column in kept.column_names:
                kept = replaced(kept, column, [value - 5 for value in kept[column].to_pylist()])
        return replaced(kept, "episode_index", [0] * len(kept))

    edit_parquet(root / DATA, renumbered)
    edit_parquet(root / EPISODES, renumbered)
    source = open_source(root, None)
    assert source.names() == ["episode_000000"]
    assert source.read("episode_000000").meta.episode_id == before


def test_the_footer_of_a_shared_file_is_read_once_for_all_its_episodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "many.parquet"
    numbers = np.repeat(np.arange(300), 3)
    pq.write_table(pa.table({"episode_index": numbers, "x": numbers * 2.0}), path, row_group_size=200)
    parsed = []
    for name in ("read_metadata", "read_schema", "ParquetFile"):
        real = getattr(pq, name)

        def counted(*args: Any, real: Any = real, **more: Any) -> Any:
            if more.get("metadata") is None:
                parsed.append(args)
            return real(*args, **more)

        monkeypatch.setattr(pq, name, counted)
    for episode in range(300):
        piece = find_episode(path, episode, "it")
        assert piece == Piece(path=path, first=3 * episode, num=3)
        rows = EpisodeRows(label="it", pieces=(piece,))
        assert rows.read(["x"])["x"].to_pylist() == [2.0 * episode] * 3
    assert len(parsed) <= 2
    assert find_episode(path, 300, "it") is None
    pq.write_table(pa.table({"episode_index": numbers[::-1], "x": numbers}), path)  # another file at the same place
    assert find_episode(path, 299, "it") == Piece(path=path, first=0, num=3)


def test_a_digest_is_that_of_the_values_in_whatever_row_group_list_type_or_file(tmp_path: Path) -> None:
    values = trajectory(40, 3, seed=4)
    texts = [f"row {row}" if row % 7 else None for row in range(40)]

    def digest(path: Path, kind: pa.DataType, first: int, group: int, cells: list[str | None]) -> str:
        table = pa.table({"x": pa.array(list(values), kind), "text": pa.array(cells), "index": np.arange(40) + group})
        pq.write_table(table, path, row_group_size=group)
        halves = (Piece(path=path, first=first, num=9), Piece(path=path, first=first + 9, num=11))
        return EpisodeRows(label="it", pieces=halves if group > 9 else (Piece(path=path, first=first, num=20),)).digest(
            ["index"]
        )

    fixed, plain = pa.list_(pa.float32(), 3), pa.list_(pa.float32())
    one = digest(tmp_path / "one.parquet", fixed, 10, 40, texts)
    assert digest(tmp_path / "two.parquet", plain, 10, 7, texts) == one
    assert digest(tmp_path / "other_rows.parquet", plain, 11, 7, texts) != one
    assert digest(tmp_path / "other_text.parquet", fixed, 10, 40, [*texts[:15], None, *texts[16:]]) != one


def test_pictures_inside_the_parquet_are_read(with_images: Path) -> None:
    source = open_source(with_images, None)
    for episode, length in enumerate((5, 6)):
        stream = source.read(f"episode_{episode:06d}").cameras["cam_high"]
        shown = np.stack([picture.rgb() for picture in decoded(stream)])
        assert np.array_equal(shown, pictures(length, seed=episode * 10))


def _shorter(table: pa.Table) -> pa.Table:
    return table.slice(0, len(table) - 3)


def _without_episode_1(table: pa.Table) -> pa.Table:
    return table.filter(pa.compute.not_equal(table["episode_index"], 1))


def _times(column: str, change: Callable[[float], float]) -> Callable[[pa.Table], pa.Table]:
    name = f"videos/{CAM}/{column}"
    return lambda table: replaced(table, name, [change(value) for value in table[name].to_pylist()])


@pytest.mark.parametrize(
    ("file", "change", "name", "message"),
    [
        (DATA, _shorter, "episode_000002", r"6 rows in .*file-000.parquet, but meta/episodes says 9"),
        (DATA, _without_episode_1, "episode_000001", r"file-000.parquet holds no row of it"),
        (EPISODES, _without_episode_1, "episode_000001", r"has rows of it, but meta/episodes does not list it"),
        (
            EPISODES,
            _times("from_timestamp", lambda s: s + 0.04),
            "episode_000000",
            r"starts at 0.0400 s, where no pict",
        ),
        (EPISODES, _times("to_timestamp", lambda s: s + 0.2), "episode_000001", r"gives it 17.0 pictures for 15 rows"),
        (
            EPISODES,
            lambda table: _times("to_timestamp", lambda s: s + 1)(_times("from_timestamp", lambda s: s + 1)(table)),
            "episode_000002",
            r"episode_000002: file-000.mp4",
        ),
    ],
)
def test_rows_and_pictures_that_are_not_where_they_should_be_are_said(
    original: Path, tmp_path: Path, file: str, change: Callable[[pa.Table], pa.Table], name: str, message: str
) -> None:
    root = copied(original, tmp_path / "raw")
    edit_parquet(root / file, change)
    with pytest.raises(EpisodeError, match=message):
        open_source(root, None).read(name)


def test_rows_of_one_episode_that_are_not_together_are_said(original: Path, tmp_path: Path) -> None:
    root = copied(original, tmp_path / "raw")
    edit_parquet(root / DATA, lambda table: table.take([*range(0, 6), *range(12, 36), *range(6, 12)]))
    with pytest.raises(EpisodeError, match=r"rows of other episodes lie between those of episode 0"):
        open_source(root, None).read("episode_000000")


def test_files_that_are_damaged_or_absent_say_so(original: Path, tmp_path: Path) -> None:
    root = copied(original, tmp_path / "raw")
    (root / DATA).write_bytes((root / DATA).read_bytes()[:-20])
    with pytest.raises(EpisodeError, match=r"episode_000000: data/chunk-000/file-000.parquet is no readable parquet"):
        open_source(root, None).read("episode_000000")
    (root / EPISODES).write_bytes((root / EPISODES).read_bytes()[:-20])
    with pytest.raises(SourceError, match=r"a recording that was not finalized has no footer"):
        open_source(root, None)
    (root / EPISODES).unlink()
    with pytest.raises(SourceError, match=r"meta/episodes holds no parquet"):
        open_source(root, None)


def test_without_any_video_the_draft_keeps_the_numbers_alone(
    original: Path, tmp_path: Path, workspace: Workspace
) -> None:
    root = copied(original, tmp_path / "raw")
    for path in root.rglob("*.mp4"):
        path.unlink()
    with pytest.raises(SourceError, match=r"no video of the dataset is there .* pass a rig without cameras"):
        open_source(root, None)
    (tmp_path / "numbers.yaml").write_text(inspect_path(root).draft_rig_yaml)
    rig = load_rig(str(tmp_path / "numbers.yaml"))
    assert rig.cameras == {}
    episode = open_source(root, rig).read("episode_000001")
    assert (episode.num_frames, episode.cameras) == (15, {})


def test_what_info_json_says_wrongly_is_noted_and_not_believed(original: Path, tmp_path: Path) -> None:
    root = copied(original, tmp_path / "raw")
    features = json.loads((root / "meta/info.json").read_text())["features"]
    features[CAM]["info"]["video.codec"] = "av1"
    features[CAM] |= {"shape": [3, 48, 64], "names": ["channels", "height", "width"]}
    features["observation.effort"] = features["action"]
    edit_info(root, total_frames=14_983, total_episodes=50, features=features)
    edit_parquet(root / DATA, lambda table: table.append_column("note", pa.array(["good"] * len(table))))
    edit_parquet(root / DATA, lambda table: table.append_column("extra", pa.array(np.arange(len(table)) / 2)))
    (root / "videos").rename(root / "video")
    notes = " | ".join(inspect_path(root).notes)
    assert "meta/info.json says 14983 frames, meta/episodes 36" in notes
    assert "meta/info.json says 50 episodes, meta/episodes lists 3" in notes
    assert f"{CAM} is declared av1, but its video is h264, which is kept" in notes
    assert "observation.effort is declared in meta/info.json, but no column of the data: it is left out" in notes
    assert "extra is a column that meta/info.json does not declare" in notes
    assert "note is text, kept as an imported annotation" in notes
    assert "meta/info.json says videos/, which is not there: video/ is read" in notes
    episode = open_source(root, None).read("episode_000002")
    assert set(episode.columns) == {"observation.state", "action", "extra"}
    assert episode.columns["extra"][:, 0].tolist() == (np.arange(27, 36) / 2).tolist()
    assert episode.imported == {"note": ("good",)}
    assert episode.cameras["cam_high"].spec.encoding == "h264"


def test_subtasks_and_language_columns_are_kept_as_imported(original: Path, tmp_path: Path) -> None:
    root = copied(original, tmp_path / "raw")
    subtasks = pa.table({"subtask_index": pa.array([0, 1]), "subtask": pa.array(["reach", "grip"])})
    pq.write_table(subtasks, root / "meta/subtasks.parquet")
    plan = [{"role": "assistant", "content": "1. reach", "style": "plan", "timestamp": 0.0}]
    event = {"role": "user", "content": "stop", "style": "interjection"}

    def annotated(table: pa.Table) -> pa.Table:
        frames = table["frame_index"].to_pylist()
        table = table.append_column("subtask_index", pa.array([int(frame >= 4) for frame in frames]))
        table = table.append_column("language_persistent", pa.array([plan] * len(table)))
        return table.append_column("language_events", pa.array([[event] if frame == 2 else [] for frame in frames]))

    edit_parquet(root / DATA, annotated)
    source = open_source(root, None)
    assert set(source.rig.features) == {"observation.state", "action"}
    imported = source.read("episode_000000").imported
    assert imported["subtask"] == ("reach",) * 4 + ("grip",) * 8
    assert [json.loads(text) for text in imported["language_persistent"]] == plan
    assert [json.loads(text) for text in imported["language_events"]] == [{**event, "frame_index": 2}]


def test_it_converts_by_copying_its_packets_and_the_copy_is_equal(
    original: Path, tmp_path: Path, workspace: Workspace
) -> None:
    ref = Ref("v30", "1")
    report = convert(source_path=original, to=ref, workspace=workspace, rig=None, sink="both", workers=1)
    assert (report.num_episodes, report.num_frames, report.rejected) == (3, 36, ())
    dataset, source = EpisodeSet.open(workspace, ref), open_source(original, None)
    for name, episode_id in zip(source.names(), dataset.ids(), strict=True):
        episode = source.read(name)
        assert episode.meta.episode_id == episode_id
        assert np.array_equal(dataset.columns(episode_id)["action"], episode.columns["action"])
        for index, picture in enumerate(decoded(episode.cameras["cam_high"])):
            assert np.array_equal(dataset.video_frame(episode_id, "cam_high", index), picture.rgb())
    assert np.abs(depth_maps(1)[0].astype(int)).min() > 0
    assert verify(source_path=original, ref=ref, workspace=workspace, workers=1).ok


def test_the_real_reachy_set_holds_899_rows_and_no_video(samples: Path, tmp_path: Path, workspace: Workspace) -> None:
    root = samples / "rerun_apple_storage"
    found = inspect_path(root)
    assert (found.num_episodes, found.num_rows, found.rate_text) == (3, 899, "30 Hz")
    notes = " | ".join(found.notes)
    assert "meta/info.json says 14983 frames, meta/episodes 899" in notes
    assert "3 of 3 episodes lack their video" in notes
    with pytest.raises(SourceError, match=r"no video of the dataset is there"):
        convert(source_path=root, to=Ref("reachy", "1"), workspace=workspace, rig=None)
    draft = yaml.safe_load(found.draft_rig_yaml)
    assert (draft["cameras"], draft["robot_type"]) == ({}, "reachy2")
    (tmp_path / "reachy.yaml").write_text(found.draft_rig_yaml)
    report = convert(
        source_path=root, to=Ref("reachy", "1"), workspace=workspace, rig=str(tmp_path / "reachy.yaml"), sink="lerobot"
    )
    assert (report.num_episodes, report.num_frames, report.rejected) == (3, 899, ())
    dataset = EpisodeSet.open(workspace, Ref("reachy", "1"))
    raw = pq.read_table(next(root.rglob("data/**/*.parquet")), partitioning=None)
    kept = np.concatenate([dataset.columns(episode)["action"] for episode in dataset.ids()])
    assert np.array_equal(kept, np.stack(raw["action"].to_pylist()).astype(np.float32))
