"""RLDS: TFRecords read without TensorFlow, damage confined to its record, copies named, JPEGs untouched.

The files are written by `rlds_files`.
"""

import io
import json
import pickle
import shutil
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from PIL import Image
from raw_files import jpeg, pictures, trajectory
from rlds_files import episode, example, framed, tensor, write_rlds

from dataengine.convert import convert
from dataengine.episode_set import EpisodeSet
from dataengine.frame_store import FrameStore
from dataengine.inspection import inspect_path
from dataengine.rig_files import RIG_FOLDER, load_rig
from dataengine.sources import detect, open_source
from dataengine.verification import verify
from dataengine.workspace import Workspace
from schemas.episodes import Episode
from schemas.errors import ArtifactError, EpisodeError, RejectedError, RigError, SourceError
from schemas.refs import Ref

BRIDGE = "octo_bridge_rlds/tests/debug_dataset/bridge_dataset/1.0.0"


def read_all(root: Path, rig: str = "bridge") -> dict[str, Episode | str]:
    """Every episode, or why it is bad."""
    source = open_source(root, load_rig(rig))
    found: dict[str, Episode | str] = {}
    for name in source.names():
        try:
            found[name] = source.read(name)
        except EpisodeError as error:
            found[name] = str(error)
    return found


def test_columns_pictures_and_words_come_back_as_written(tmp_path: Path) -> None:
    root = write_rlds(tmp_path / "raw/tiny/1.0.0", {"train": [[episode(0), episode(1)], [episode(2)]]})
    assert detect(tmp_path / "raw") == "rlds"
    source = pickle.loads(pickle.dumps(open_source(tmp_path / "raw", load_rig("bridge"))))
    assert source.names() == ["train-00000/000000", "train-00000/000001", "train-00001/000000"]
    last = source.read("train-00001/000000")
    assert np.array_equal(last.columns["observation.state"], trajectory(6, 7, seed=2))
    assert np.array_equal(last.columns["action"], trajectory(6, 7, seed=102))
    assert list(last.cameras["image_0"].jpegs()) == [jpeg(picture) for picture in pictures(6, seed=2)]
    assert (last.meta.task, last.rate_hz, set(last.cameras)) == ("put cup 2 away", 5, {"image_0"})
    assert root.is_dir()


def my_rig(tmp_path: Path, **changes: Any) -> str:
    rig = yaml.safe_load((RIG_FOLDER / "bridge.yaml").read_text())
    path = tmp_path / "my.yaml"
    path.write_text(yaml.safe_dump({**rig, **changes}))
    return str(path)


def test_integers_negative_ones_too_keep_their_type_and_metadata_keys_are_read(tmp_path: Path) -> None:
    root = write_rlds(tmp_path / "raw", {"train": [[episode(0)]], "val": [[episode(1)]]})
    columns = {"count": {"key": "count"}, "observation.state": {"key": "observation/state + count"}}
    keys = {"session": "episode_metadata/file_path", "scene": "split", "station": "episode_metadata/number"}
    path = my_rig(tmp_path, features=columns, end_effectors=[], arms=[], metadata={"keys": keys})
    second = open_source(root, load_rig(path)).read("val-00000/000000")
    expected = np.array([[row - 3, row * 1000] for row in range(6)])
    assert np.array_equal(second.columns["count"], expected)
    assert second.columns["count"].dtype == np.int64
    assert second.columns["observation.state"].shape == (6, 9)
    assert (second.meta.session, second.meta.scene, second.meta.station) == ("/lab/day_1.npy", "val", "1")


def test_a_zlib_tensor_is_unpacked_to_its_declared_shape_and_no_further(tmp_path: Path) -> None:
    numbers = trajectory(6, 7, seed=3).astype("<f4")
    packed = [zlib.compress(row.tobytes()) for row in numbers]
    bomb = [*packed[:5], zlib.compress(b"\0" * (64 << 20))]
    shards = [
        [episode(number, **{"steps/extra": rows}) for number, rows in enumerate((packed, bomb, [b"no zlib"] * 6))]
    ]
    root = write_rlds(tmp_path / "raw", {"train": shards}, more={"extra": tensor("float32", 7, encoding="zlib")})
    path = my_rig(tmp_path, features={"extra": {"key": "extra"}}, end_effectors=[], arms=[])
    source = open_source(root, load_rig(path))
    assert np.array_equal(source.read("train-00000/000000").columns["extra"], numbers)
    tracemalloc.start()
    with pytest.raises(EpisodeError, match=r"extra does not unpack to the 28 bytes that features\.json declares"):
        source.read("train-00000/000001")
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()
    with pytest.raises(EpisodeError, match="extra holds no zlib stream"):
        source.read("train-00000/000002")


def test_more_records_than_a_file_can_hold_are_not_believed(tmp_path: Path) -> None:
    root = write_rlds(tmp_path / "a", {"train": [[episode(0)]]}, declared={"train": [10**9]})
    with pytest.raises(SourceError, match=r"says 1000000000 records in tiny-train.* holds 1 and has room for"):
        open_source(root, load_rig("bridge"))
    (root / "tiny-train.tfrecord-00000-of-00001").unlink()
    (root / "tiny-val.tfrecord-00000-of-00001").write_bytes(framed(example(episode(1))))
    with pytest.raises(SourceError, match="says 1000000000 records"):
        open_source(root, load_rig("bridge"))
    many = write_rlds(tmp_path / "b", {"train": [[episode(0)]]})
    (many / "tiny-train.tfrecord-00000-of-00001").rename(many / "tiny-train.tfrecord-00000-of-99999999999")
    with pytest.raises(SourceError, match="split train has 99999999999 shards"):
        open_source(many, load_rig("bridge"))


def test_a_damaged_record_is_rejected_and_its_neighbours_are_not(tmp_path: Path) -> None:
    root = write_rlds(tmp_path / "raw", {"train": [[episode(0), episode(1), episode(2)]]})
    [path] = root.glob("*.tfrecord*")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    found = read_all(root)
    assert [isinstance(each, Episode) for each in found.values()] == [True, False, True]
    assert "fails its checksum" in str(found["train-00000/000001"])


def test_after_a_damaged_length_the_rest_of_the_shard_is_named_record_by_record(tmp_path: Path) -> None:
    root = write_rlds(tmp_path / "raw", {"train": [[episode(0), episode(1), episode(2)], [episode(3)]]})
    path = root / "tiny-train.tfrecord-00000-of-00002"
    content = bytearray(path.read_bytes())
    second = len(framed(example(episode(0))))
    content[second] ^= 1
    path.write_bytes(content)
    found = read_all(root)
    assert [isinstance(each, Episode) for each in found.values()] == [True, False, False, True]
    assert f"has a damaged record length at byte {second}, after which no record can be found" in str(
        found["train-00000/000002"]
    )


def test_a_cut_or_absent_shard_costs_only_its_own_records(tmp_path: Path) -> None:
    root = write_rlds(tmp_path / "raw", {"train": [[episode(0), episode(1)], [episode(2)], [episode(3)]]})
    first, second, _ = sorted(root.glob("*.tfrecord*"))
    first.write_bytes(first.read_bytes()[:-9])
    second.unlink()
    found = read_all(root)
    assert [isinstance(each, Episode) for each in found.values()] == [True, False, False, True]
    assert "ends inside a record at byte" in str(found["train-00000/000001"])
    assert "tiny-train.tfrecord-00001-of-00003 can not be read" in str(found["train-00001/000000"])


def test_fewer_records_than_declared_are_missed_by_number(tmp_path: Path) -> None:
    root = write_rlds(tmp_path / "raw", {"train": [[episode(0)]]}, declared={"train": [3]})
    found = read_all(root)
    assert [isinstance(each, Episode) for each in found.values()] == [True, False, False]
    assert "holds 1 records, dataset_info.json says 3" in str(found["train-00000/000002"])


def test_a_dataset_whose_files_were_renamed_is_read_without_missing_shards(tmp_path: Path) -> None:
    root = write_rlds(tmp_path / "raw", {"train": [[episode(0)]], "val": [[episode(1)]]})
    for path in root.glob("*.tfrecord*"):
        path.rename(root / path.name.replace("tiny-", "my_tiny-"))
    found = read_all(root)
    assert list(found) == ["train-00000/000000", "val-00000/000000"]
    assert all(isinstance(each, Episode) for each in found.values())


def test_two_episodes_in_one_record_and_short_cameras_are_refused(tmp_path: Path) -> None:
    twice = episode(0, **{"steps/is_first": [1, 0, 0, 1, 0, 0]})
    short = episode(1, **{"steps/observation/image_0": [jpeg(picture) for picture in pictures(5)]})
    ragged = episode(2, **{"steps/action": np.zeros(41, np.float32)})
    text = episode(3, **{"steps/observation/image_0": [b"no picture"] * 6})
    reasons = list(read_all(write_rlds(tmp_path / "raw", {"train": [[twice, short, ragged, text]]})).values())
    assert "is_first is true at step [0, 3] of 6" in str(reasons[0])
    assert "camera 'image_0' has 5 pictures for 6 steps" in str(reasons[1])
    assert "action has 41 numbers, no whole steps of 7" in str(reasons[2])
    assert "holds no JPEG or PNG like the others at step 0" in str(reasons[3])


def png(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG")
    return buffer.getvalue()


def test_png_steps_decode_exactly_and_depth_keeps_its_16_bits(tmp_path: Path) -> None:
    frames = pictures(6, seed=4)
    depth = (np.arange(6 * 48 * 64).reshape(6, 48, 64) % 60_000).astype(np.uint16)
    more = {"depth": {"image": {"shape": {"dimensions": ["48", "64", "1"]}, "dtype": "uint16"}}}
    pictured = {
        "steps/observation/image_0": [png(each) for each in frames],
        "steps/depth": [png(each) for each in depth],
    }
    root = write_rlds(tmp_path / "raw", {"train": [[episode(0, **pictured)]]}, more=more)
    cameras = {
        "front": {"key": "observation/image_0", "channel_order": "rgb"},
        "depth": {"key": "depth", "depth_unit_m": 0.001},
    }
    first = open_source(root, load_rig(my_rig(tmp_path, cameras=cameras))).read("train-00000/000000")
    assert np.array_equal(list(first.cameras["front"].arrays()), frames)
    assert np.array_equal(list(first.cameras["depth"].depths()), depth)


def test_tensors_stored_as_bytes_are_read_in_their_own_type(tmp_path: Path) -> None:
    exact = np.random.default_rng(0).normal(size=(6, 2))
    more = {"exact": tensor("float64", 2, encoding="bytes")}
    values = {"steps/exact": [row.astype("<f8").tobytes() for row in exact]}
    root = write_rlds(tmp_path / "raw", {"train": [[episode(0, **values)]]}, more=more)
    rig = load_rig(my_rig(tmp_path, features={"exact": {"key": "exact"}}, end_effectors=[], arms=[]))
    column = open_source(root, rig).read("train-00000/000000").columns["exact"]
    assert column.dtype == np.float64
    assert np.array_equal(column, exact)


def test_an_instruction_that_changes_is_kept_row_by_row(tmp_path: Path) -> None:
    changing = [b"", b"", b"reach", b"reach", b"lift", b"lift"]
    root = write_rlds(tmp_path / "raw", {"train": [[episode(0, **{"steps/language_instruction": changing})]]})
    first = open_source(root, load_rig("bridge")).read("train-00000/000000")
    assert first.meta.task == "reach"
    assert first.imported["task"] == ("", "", "reach", "reach", "lift", "lift")


def test_rigs_that_do_not_fit_are_told_what_there_is(tmp_path: Path) -> None:
    root = write_rlds(tmp_path / "raw", {"train": [[episode(0)]]})
    with pytest.raises(RigError, match=r"RLDS stores no rate. Pass a rig that states it: --rig bridge"):
        open_source(root, None)
    wrong = {"action": {"key": "actions"}}
    with pytest.raises(
        RigError, match=r"'action' reads actions, which is no tensor in features.json \(has: action, count"
    ):
        open_source(root, load_rig(my_rig(tmp_path, features=wrong, end_effectors=[], arms=[])))
    with pytest.raises(
        RigError, match=r"camera 'x' reads observation/x, not in features.json \(has: observation/image_0\)"
    ):
        open_source(root, load_rig(my_rig(tmp_path, cameras={"x": {"key": "observation/x", "channel_order": "rgb"}})))
    with pytest.raises(RigError, match=r"task_key 'count' is no text in features.json"):
        open_source(root, load_rig(my_rig(tmp_path, task_key="count")))


def test_folders_that_lack_their_metadata_are_refused(tmp_path: Path) -> None:
    root = write_rlds(tmp_path / "raw", {"train": [[episode(0)]]})
    info = json.loads((root / "dataset_info.json").read_text())
    (root / "dataset_info.json").write_text(json.dumps({**info, "fileFormat": "array_record"}))
    with pytest.raises(SourceError, match=r"stored as array_record; only tfrecord is read"):
        open_source(root, load_rig("bridge"))
    (root / "features.json").unlink()
    with pytest.raises(SourceError, match=r"holds TFRecords but no features.json"):
        open_source(root, load_rig("bridge"))


def test_two_versions_of_a_dataset_are_listed_and_not_chosen_from(tmp_path: Path) -> None:
    for version in ("1.0.0", "1.1.0"):
        write_rlds(tmp_path / f"tiny/{version}", {"train": [[episode(0)]]})
    with pytest.raises(SourceError, match=r"holds 2 datasets: tiny/1.0.0 \(rlds\), tiny/1.1.0 \(rlds\)"):
        detect(tmp_path)


def test_ids_follow_the_record_and_neither_the_rig_nor_the_place(tmp_path: Path) -> None:
    one = write_rlds(tmp_path / "one", {"train": [[episode(0), episode(1)]]})
    two = write_rlds(tmp_path / "two", {"train": [[episode(1)]]})
    rig = my_rig(tmp_path, features={"action": {"key": "action", "scale": 2.0}}, cameras={}, end_effectors=[], arms=[])
    first = open_source(one, load_rig("bridge")).read("train-00000/000001").meta.episode_id
    assert open_source(two, load_rig(rig)).read("train-00000/000000").meta.episode_id == first
    assert open_source(one, load_rig(rig)).fingerprint() == open_source(one, load_rig("bridge")).fingerprint()
    assert open_source(one, load_rig(rig)).fingerprint() != open_source(two, load_rig(rig)).fingerprint()


def test_a_corrected_csv_is_another_input(tmp_path: Path, workspace: Workspace) -> None:
    root = write_rlds(tmp_path / "raw", {"train": [[episode(0), episode(1)]]})
    bare = open_source(root, load_rig("bridge"))
    before, labels = bare.fingerprint(), root / "labels.csv"
    rig = my_rig(tmp_path, metadata={"csv": "labels.csv"})
    rows = ["episode,outcome", "train-00000/000000,success", "train-00000/000001,success"]
    labels.write_text("\n".join(rows))
    assert bare.fingerprint() == before, "a CSV that no rig names changes nothing"
    convert(source_path=root, to=Ref("x", "1"), workspace=workspace, rig=rig, sink="zarr", workers=1)
    labels.write_text("\n".join(rows).replace("1,success", "1,failure"))
    with pytest.raises(ArtifactError, match=r"x@1' exists and was made differently \(input raw"):
        convert(source_path=root, to=Ref("x", "1"), workspace=workspace, rig=rig, sink="zarr", workers=1)


def test_the_draft_works_once_its_questions_are_answered(tmp_path: Path) -> None:
    zeros = np.concatenate([trajectory(5, 7).ravel(), np.zeros(7, np.float32)])
    root = write_rlds(tmp_path / "raw", {"train": [[episode(0, **{"steps/action": zeros})], [episode(1)]]})
    found = inspect_path(root)
    assert (found.kind, found.num_episodes, found.num_rows, found.rate_text) == ("rlds", 2, 12, "not stored")
    assert [(camera.key, camera.height, camera.width, camera.encoding) for camera in found.cameras] == [
        ("observation/image_0", 48, 64, "jpeg")
    ]
    assert "1 of 2 episodes end with an action of zeros: a terminal step, kept as it is" in found.notes
    draft = found.draft_rig_yaml
    for question, answer in (("rate_hz: null", "rate_hz: 5"), ("channel_order: unknown", "channel_order: rgb")):
        assert question in draft
        draft = draft.replace(question, answer)
    (tmp_path / "mylab.yaml").write_text(draft)
    first = open_source(root, load_rig(str(tmp_path / "mylab.yaml"))).read("train-00000/000000")
    assert {"observation.state", "action", "observation.count"} == set(first.columns)
    assert first.meta.task == "put cup 0 away"


def test_the_real_bridge_episodes_convert_and_verify_and_the_second_split_is_named_as_copies(
    samples: Path, tmp_path: Path
) -> None:
    raw = Path(shutil.copytree(samples / BRIDGE, tmp_path / "raw"))
    found = inspect_path(raw)
    assert "25 of 50 records are copies of others: `convert` rejects the copies" in found.notes
    assert "splits: train 25, val 25" in found.notes
    workspace, ref = Workspace.at(tmp_path / "workspace"), Ref("bridge", "1")
    with pytest.raises(RejectedError, match=r"25 of 50 episodes were rejected .*the same content as"):
        convert(source_path=raw, to=ref, workspace=workspace, rig="bridge", sink="both")
    report = convert(source_path=raw, to=ref, workspace=workspace, rig="bridge", sink="both", max_rejected=0.5)
    assert (report.num_episodes, report.num_frames) == (25, 250)
    assert {row.episode[:4] for row in report.rejected} == {"val-"}  # in another order there: told by content alone
    assert report.rejected[0].reason.startswith("val-00000/000000: the same content as train-00000/")
    proof = verify(source_path=raw, ref=ref, workspace=workspace)
    assert [row for row in proof.rows if not row.ok] == []
    store = FrameStore.open(workspace.path("frames", ref))
    source = open_source(raw, load_rig("bridge"))
    assert store.jpeg("image_3", 0) == next(iter(source.read("train-00000/000000").cameras["image_3"].jpegs()))
    assert store.frame("image_3", 0).max() < 8  # a camera that was never there: kept, and black


def test_what_reads_an_absent_optional_tensor_goes_with_it_and_the_dataset_opens(
    tmp_path: Path, workspace: Workspace
) -> None:
    root = write_rlds(tmp_path / "raw", {"train": [[episode(0)]]})
    features = {
        "observation.state": {"key": "observation/state"},
        "action": {"key": "action"},
        "observation.joints": {"key": "observation/joints", "optional": True},
    }
    hand = {"name": "gripper", "feature": "observation.joints", "indices": [6], "closed": 0.0, "open": 1.0}
    joints = {"feature": "observation.joints", "indices": [0, 1, 2, 3, 4, 5]}
    arms = [{"name": "arm", **joints, "position": {"indices": [0, 1, 2]}}, {"name": "unstated arm", **joints}]
    rig = my_rig(tmp_path, features=features, cameras={}, end_effectors=[hand], arms=arms)
    convert(source_path=root, to=Ref("x", "1"), workspace=workspace, rig=rig, workers=1)
    opened = EpisodeSet.open(workspace, Ref("x", "1")).rig
    assert (set(opened.features), opened.end_effectors) == ({"observation.state", "action"}, ())
    assert [(arm.name, arm.feature, arm.indices) for arm in opened.arms] == [("arm", "observation.state", (0, 1, 2))]
