"""A version that extends another one: its shards are linked, everything else is as if all was converted at once."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import raw_files

from dataengine.convert import ConvertReport, VideoEncoding, convert
from dataengine.episode_set import EpisodeSet
from dataengine.frame_store import FrameStore
from dataengine.proofs.records import content_findings
from dataengine.sinks import parts
from dataengine.transfer import pull, push
from dataengine.workspace import Workspace
from schemas.errors import ArtifactError, RefError, RejectedError, RigError
from schemas.refs import Ref

ONE, TWO, WHOLE = Ref("tiny", "1"), Ref("tiny", "2"), Ref("whole", "1")
SHIPPED_RIG = Path(raw_files.__file__).resolve().parents[2] / "dataengine/rigs/aloha_sim.yaml"
LENGTHS = (300, 260, 21, 34)  # more than one shard of 512 pictures in the frame store of version 1
SMALL = {"height": 32, "width": 48}


def write_raw(folder: Path, indices: tuple[int, ...], **more: Any) -> Path:
    for index in indices:
        path = folder / f"episode_{index}.hdf5"
        raw_files.write_aloha_episode(path, num_frames=LENGTHS[index], seed=index, **(SMALL | more))
    rows = [{"file": f"episode_{index}.hdf5", "operator": ("ada", "bo")[index % 2]} for index in indices]
    raw_files.write_metadata_csv(folder, rows)
    return folder


def run(raw: Path, workspace: Workspace, to: Ref, **options: Any) -> ConvertReport:
    return convert(source_path=raw, to=to, workspace=workspace, **({"rig": "aloha_sim"} | options))


def hashes(root: Path) -> dict[str, str]:
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in root.rglob("*") if p.is_file()
    }


def inodes(root: Path, pattern: str) -> dict[str, int]:
    return {str(path.relative_to(root)): path.stat().st_ino for path in root.rglob(pattern)}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 1 of two episodes, version 2 with two more, and all four converted at once."""
    folder = tmp_path_factory.mktemp("extend")
    workspace = Workspace.at(folder / "workspace")
    run(write_raw(folder / "first", (0, 1)), workspace, ONE)
    before = {kind: hashes(workspace.path(kind, ONE)) for kind in ("episodes", "frames")}
    run(write_raw(folder / "more", (2, 3)), workspace, TWO, extends=ONE)
    assert before == {kind: hashes(workspace.path(kind, ONE)) for kind in ("episodes", "frames")}
    run(write_raw(folder / "all", (0, 1, 2, 3)), workspace, WHOLE)
    return folder


@pytest.fixture
def made(place: Path) -> Workspace:
    return Workspace.at(place / "workspace")


def test_the_fingerprint_is_that_of_one_conversion_of_everything(made: Workspace) -> None:
    for kind in ("episodes", "frames"):
        extended, whole = made.record(kind, TWO), made.record(kind, WHOLE)
        assert extended.fingerprint == whole.fingerprint
        assert extended.counts == whole.counts | {"added": 2}
        assert [(row.kind, row.ref) for row in extended.inputs] == [("raw", "more"), (kind, "tiny@1")]
        assert extended.inputs[1].fingerprint == made.record(kind, ONE).fingerprint
        assert extended.recipe["extends"] == "tiny@1"


def test_shards_of_the_first_version_are_the_same_files(made: Workspace) -> None:
    one, two = made.path("episodes", ONE), made.path("episodes", TWO)
    for pattern in ("*.mp4", "data/**/*.parquet"):
        old, new = inodes(one, pattern), inodes(two, pattern)
        assert old
        assert old.items() <= new.items()  # same names, same inodes
        assert len(new) == 2 * len(old)  # one new file for each kind of shard
    one, two = made.path("frames", ONE), made.path("frames", TWO)
    full = {name: inode for name, inode in inodes(one, "c.0.0.0.0").items() if "columns" not in name}
    assert len(full) == 2
    assert full.items() <= inodes(two, "c.0.0.0.0").items()
    assert not set(inodes(one, "c.1.0.0.0").values()) & set(inodes(two, "c.1.0.0.0").values())  # the partial ones


def test_every_row_and_picture_is_that_of_one_conversion(made: Workspace) -> None:
    extended, whole = EpisodeSet.open(made, TWO), EpisodeSet.open(made, WHOLE)
    assert extended.ids() == whole.ids()
    for name in whole.ids():
        assert extended.row(name) == whole.row(name)
        for key, column in whole.columns(name).items():
            assert np.array_equal(extended.columns(name)[key], column)
        for camera in whole.cameras:
            for index in (0, whole.row(name).num_frames - 1):
                assert np.array_equal(extended.frame(name, camera, index), whole.frame(name, camera, index))
                assert np.array_equal(extended.video_frame(name, camera, index), whole.video_frame(name, camera, index))
    stores = FrameStore.open(made.path("frames", TWO)), FrameStore.open(made.path("frames", WHOLE))
    for row in range(sum(LENGTHS)):
        assert stores[0].jpeg("cam_low", row) == stores[1].jpeg("cam_low", row)
    for key in stores[1].columns:
        assert np.array_equal(stores[0].column(key, 0, sum(LENGTHS)), stores[1].column(key, 0, sum(LENGTHS)))


def test_statistics_are_those_of_everything(made: Workspace) -> None:
    one, two = (made.path("episodes", ref) / "meta" / "stats.json" for ref in (TWO, WHOLE))
    assert one.read_bytes() == two.read_bytes()
    tables = [
        pq.read_table(made.path("episodes", ref) / "meta/episodes/chunk-000/file-000.parquet").drop(
            [
                f"videos/observation.images.{camera}/{part}"
                for camera in raw_files.ALOHA_CAMERAS
                for part in ("file_index", "from_timestamp", "to_timestamp")
            ]
            + ["data/file_index"]
        )
        for ref in (TWO, WHOLE)
    ]
    assert tables[0].equals(tables[1])


def test_lerobot_reads_every_frame_of_the_extended_dataset(
    made: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf" / "datasets")
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    root = made.path("episodes", TWO)
    dataset = LeRobotDataset("local/tiny", root=root, video_backend="pyav")
    assert (dataset.num_episodes, len(dataset)) == (4, sum(LENGTHS))
    ends = np.cumsum(LENGTHS)
    for position in range(0, sum(LENGTHS), 7):
        episode = int(np.searchsorted(ends, position, side="right"))
        frame = position - int(ends[episode]) + LENGTHS[episode]
        item = dataset[position]
        assert (item["episode_index"].item(), item["frame_index"].item()) == (episode, frame)
        wanted = raw_files.bimanual_14(LENGTHS[episode], seed=episode)[frame]
        assert np.array_equal(item["observation.state"].numpy(), wanted)
        picture = raw_files.pictures(frame + 1, seed=episode * 10, **SMALL)[frame]
        got = (item["observation.images.cam_high"].numpy().transpose(1, 2, 0) * 255).round()
        assert np.abs(got - picture).mean() < 12
    only = LeRobotDataset("local/tiny", root=root, video_backend="pyav", episodes=[1, 3])
    assert len(only) == LENGTHS[1] + LENGTHS[3]
    assert {int(only[index]["episode_index"]) for index in (0, LENGTHS[1], len(only) - 1)} == {1, 3}


def test_deleting_the_first_version_does_not_harm_the_second(place: Path, tmp_path: Path) -> None:
    copied = Workspace.at(tmp_path / "workspace")  # links among the copies, as among the originals
    for kind in ("episodes", "frames"):
        for ref in (ONE, TWO):
            shutil.copytree(place / "workspace" / kind / str(ref), copied.path(kind, ref), copy_function=os.link)
    for kind in ("episodes", "frames"):
        shutil.rmtree(copied.path(kind, ONE))
    episodes = EpisodeSet.open(copied, TWO)
    wanted = raw_files.pictures(8, seed=0, **SMALL)[7]
    assert np.abs(episodes.frame(episodes.ids()[0], "cam_high", 7).astype(int) - wanted).mean() < 9
    assert np.abs(episodes.video_frame(episodes.ids()[0], "cam_high", 7).astype(int) - wanted).mean() < 12


def test_known_episodes_are_rows_and_do_not_count_as_rejected(place: Path, made: Workspace) -> None:
    again = run(place / "all", made, Ref("tiny", "3"), extends=ONE, sink="lerobot")
    assert [row.episode for row in again.rejected] == ["episode_0.hdf5", "episode_1.hdf5"]
    assert again.rejected[0].reason == "episode_0.hdf5: tiny@1 holds this episode already."
    assert again.records[0].fingerprint == made.record("episodes", WHOLE).fingerprint
    with pytest.raises(RejectedError, match="holds all of these episodes already"):
        run(place / "first", made, Ref("tiny", "4"), extends=ONE, sink="lerobot")
    assert run(place / "more", made, TWO, extends=ONE).already_there


def test_what_does_not_fit_is_one_sentence_that_names_it(place: Path, made: Workspace, tmp_path: Path) -> None:
    rig = tmp_path / "slow.yaml"
    rig.write_text(SHIPPED_RIG.read_text().replace("rate_hz: 50", "rate_hz: 25"))
    new = Ref("tiny", "5")
    with pytest.raises(RigError, match=r"^rig 'aloha_sim' does not fit tiny@1: rate_hz is 25, but 50 there\."):
        run(place / "more", made, new, extends=ONE, rig=str(rig))
    with pytest.raises(RigError, match=r"encoding is .*crf.*23.*, but .*crf.*30"):
        run(place / "more", made, new, extends=ONE, encoding=VideoEncoding(crf=23), sink="lerobot")
    with pytest.raises(RefError, match="no episodes 'tiny@9'"):
        run(place / "more", made, new, extends=Ref("tiny", "9"))
    with pytest.raises(ArtifactError, match=r"exists and was made differently \(extends: was \"tiny@1\", now null\)"):
        run(place / "more", made, TWO)
    big = write_raw(tmp_path / "big", (2, 3), height=48)
    with pytest.raises(RigError, match="camera cam_high is 48x48 rgb upright, but 48x32 rgb upright in tiny@1"):
        run(big, made, new, extends=ONE, sink="lerobot")


def test_without_links_shards_are_copied(
    place: Path, made: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import errno

    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "another device")

    monkeypatch.setattr(parts.os, "link", refuse)
    report = run(place / "more", made, Ref("copied", "1"), extends=ONE)
    assert report.records[0].fingerprint == made.record("episodes", WHOLE).fingerprint
    copied, one = made.path("episodes", Ref("copied", "1")), made.path("episodes", ONE)
    for name, inode in inodes(one, "*.mp4").items():
        assert (copied / name).stat().st_ino != inode
        assert (copied / name).read_bytes() == (one / name).read_bytes()


def test_an_extended_frame_store_has_the_identity_that_its_contents_give(made: Workspace) -> None:
    path = made.path("frames", TWO)
    findings = {row.check: row.ok for row in content_findings(path, made.record("frames", TWO))}
    assert findings["fingerprint is that of the contents"]
    other = made.record("frames", TWO).model_copy(update={"fingerprint": "0" * 64})
    assert not all(row.ok for row in content_findings(path, other))


def test_what_another_rig_extended_is_pulled_with_its_identity(place: Path, made: Workspace, tmp_path: Path) -> None:
    """Its recipe holds the rig of what was added, its fingerprint is made with that of version 1."""
    rig, to, other = tmp_path / "tue.yaml", Ref("tue", "2"), Workspace.at(tmp_path / "other")
    text = SHIPPED_RIG.read_text().replace("\nname: aloha_sim", "\nname: tue")
    rig.write_text(f"{text}  fixed: {{station: tuesday}}\n")
    run(place / "more", made, to, extends=ONE, rig=str(rig))
    for kind in ("episodes", "frames"):
        sent = made.record(kind, to)
        assert sent.recipe["rig"]["name"] == "tue"
        url = push(workspace=made, kind=kind, ref=to, url=f"file://{tmp_path}/shelf").url
        assert pull(workspace=other, url=url).record == sent
        assert all(row.ok for row in content_findings(other.path(kind, to), sent))


def as_layout_1(store: Path) -> None:
    """What this program wrote before: every chunk in folders of its own, and no rig beside the arrays."""
    for path in store.rglob("zarr.json"):
        meta = json.loads(path.read_text())
        if meta["node_type"] == "array":
            meta["chunk_key_encoding"]["configuration"]["separator"] = "/"
            for chunk in path.parent.glob("c.*"):
                target = path.parent.joinpath(*chunk.name.split("."))
                target.parent.mkdir(parents=True, exist_ok=True)
                chunk.rename(target)
        elif meta["attributes"]:
            del meta["attributes"]["rig"]
            meta["attributes"]["schema_version"] = 1
        path.write_text(json.dumps(meta))


def test_an_extended_store_of_the_previous_layout_is_not_called_damaged(made: Workspace, tmp_path: Path) -> None:
    """It holds the rig of what was added alone, which may differ from the one that its identity was made with."""
    store, record = tmp_path / "tiny@2", made.record("frames", TWO)
    shutil.copytree(made.path("frames", TWO), store)
    as_layout_1(store)
    rig = {**record.recipe["rig"], "name": "another"}
    old = record.model_copy(update={"recipe": {**record.recipe, "rig": rig, "layout": 1}})
    (store / "record.json").write_text(old.model_dump_json())
    assert all(row.ok for row in content_findings(store, old))


def test_a_frame_store_of_the_previous_layout_is_read_and_extended(place: Path, tmp_path: Path) -> None:
    workspace = Workspace.at(tmp_path / "workspace")
    shutil.copytree(place / "workspace/frames/tiny@1", workspace.path("frames", ONE))
    as_layout_1(workspace.path("frames", ONE))
    run(place / "more", workspace, TWO, extends=ONE, sink="zarr")
    old, new = workspace.path("frames", ONE), workspace.path("frames", TWO)
    linked = (old / "cam_low/c/0/0/0/0", new / "cam_low/c.0.0.0.0")
    assert linked[0].stat().st_ino == linked[1].stat().st_ino
    stores, whole = [FrameStore.open(old), FrameStore.open(new)], FrameStore.open(place / "workspace/frames/whole@1")
    for row in range(sum(LENGTHS)):
        for store in stores[row >= sum(LENGTHS[:2]) :]:
            assert store.jpeg("cam_low", row) == whole.jpeg("cam_low", row)
    assert np.array_equal(stores[0].column("action", 5, 400), whole.column("action", 5, 400))
