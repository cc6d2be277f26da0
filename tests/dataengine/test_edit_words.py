"""What may be said of an edit, and what is refused in one sentence."""

import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import raw_files
from edit_material import LENGTHS, ONE, run, three_datasets
from pydantic import ValidationError

from dataengine.convert import convert
from dataengine.edit import Changes, Relabel, Trim
from dataengine.editing.apply import plan
from dataengine.editing.rigs import edited_rig
from dataengine.episode_set import EpisodeSet
from dataengine.frame_store import FrameStore
from dataengine.sinks.kept import kept_dataset
from dataengine.sinks.staging import StagedEpisode
from dataengine.workspace import Workspace
from schemas.errors import ArtifactError, UsageError
from schemas.refs import Ref
from schemas.rigs import Rig


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `three_datasets` lie, and what they were converted from."""
    folder = tmp_path_factory.mktemp("edit")
    three_datasets(folder)
    return folder


@pytest.fixture
def made(place: Path) -> Workspace:
    return Workspace.at(place / "workspace")


@pytest.fixture
def ids(made: Workspace) -> tuple[str, ...]:
    return EpisodeSet.open(made, ONE).ids()


def test_a_table_of_all_episodes_may_describe_what_goes(made: Workspace, ids: tuple[str, ...], tmp_path: Path) -> None:
    table = tmp_path / "all.csv"
    lines = [f"{ids[0]},yes,0.1,Stack.", f"{ids[1]},,0.1,Push.", f"{ids[2]},,,Pull."]
    table.write_text("\n".join(["episode_id,exclude,start_s,task", *lines]) + "\n")
    report = run(made, "described", table=table, exclude=("task=Sort.",))
    assert [row.episode for row in report.left_out] == [ids[0], ids[2]]
    assert (report.num_episodes, report.num_trimmed, report.num_relabelled) == (1, 1, 1)
    assert EpisodeSet.open(made, Ref("described", "1")).row(ids[1]).task == "Push."


def test_one_recording_under_two_names_is_one_episode(
    made: Workspace, ids: tuple[str, ...], place: Path, tmp_path: Path
) -> None:
    (tmp_path / "raw").mkdir()
    shutil.copyfile(place / ONE.name / "episode_1.hdf5", tmp_path / "raw" / "take_7.hdf5")
    raw_files.write_metadata_csv(tmp_path / "raw", [{"file": "take_7.hdf5", "operator": "bo"}])
    convert(source_path=tmp_path / "raw", to=Ref("copy", "1"), workspace=made, rig="aloha_sim")
    [copy] = EpisodeSet.open(made, Ref("copy", "1")).ids()
    assert copy != ids[1]
    report = run(made, "once", ONE, Ref("copy", "1"))
    assert report.num_episodes == 3
    assert [row.reason for row in report.left_out] == [
        f"{copy}: copy@1 holds it a second time, it is {ids[1]} of tiny@1."
    ]


def test_a_table_names_each_of_many_episodes_with_one_look(
    made: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = kept_dataset(made.path("episodes", ONE))
    part, num = base.parts[0], 2000
    named = [
        replace(part, staged=part.staged.model_copy(update={"meta": part.staged.meta | {"episode_id": f"a-{index}"}}))
        for index in range(num)
    ]
    table = tmp_path / "many.csv"
    table.write_text("episode_id,start_s,task\n" + "".join(f"a-{index},0.1,Push {index}.\n" for index in range(num)))
    looks = 0
    once = StagedEpisode.episode_id.fget

    def counted(staged: StagedEpisode) -> str:
        nonlocal looks
        looks += 1
        return once(staged)

    monkeypatch.setattr(StagedEpisode, "episode_id", property(counted))
    planned = plan([replace(base, parts=tuple(named))], Changes().plus_table(table))
    assert (len(planned.trims), planned.relabels["a-7"]) == (num, {"task": "Push 7."})
    assert looks < 5 * num


def test_a_frame_store_of_other_rows_or_pictures_is_refused(
    made: Workspace, ids: tuple[str, ...], place: Path, tmp_path: Path
) -> None:
    for name, start in (("early", 4), ("late", 8)):
        run(made, name, trims=(Trim(episodes=ids[1], start_s=start / 50, end_s=(start + 20) / 50),))
    bgr = tmp_path / "bgr.yaml"
    shipped = Path(raw_files.__file__).resolve().parents[2] / "dataengine/rigs/aloha_sim.yaml"
    bgr.write_text(shipped.read_text().replace("cam_high, channel_order: rgb", "cam_high, channel_order: bgr", 1))
    convert(source_path=place / ONE.name, to=Ref("bgr", "1"), workspace=made, rig=str(bgr), sink="zarr")
    for episodes, frames, message in (
        ("early", ONE.name, f"different rows of {ids[1]}"),
        ("early", "late", f"different readings of {ids[1]}, cut at other rows"),
        (ONE.name, "bgr", f"different readings of {ids[0]}, what cam_high shows changed"),
    ):
        other = Workspace.at(tmp_path / f"{episodes}-{frames}")
        for kind, name in (("episodes", episodes), ("frames", frames)):
            shutil.copytree(made.path(kind, Ref(name, "1")), other.path(kind, Ref("mixed", "1")))
        with pytest.raises(ArtifactError, match=message):
            EpisodeSet.open(other, Ref("mixed", "1"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "nothing would change"),
        ({"exclude": ("operator=eve",)}, r"is true of no episode. Values of operator: 'ada', 'bo'"),
        ({"exclude": ("operatr=ada",)}, "no field 'operatr'. Did you mean 'operator'"),
        ({"exclude": ("episode_9",)}, "'episode_9' is no episode and no filter"),
        ({"exclude": ("operator>ada",)}, "'>' compares numbers"),
        ({"exclude": ("num_frames<many",)}, "'many' is no number"),
        ({"exclude": ("num_frames>1",)}, "no episode of tiny@1 is left"),
        ({"trims": (Trim(episodes="operator=bo", start_s=0.2, end_s=9),)}, "which holds 0 to 0.82 s"),
        ({"rename": {"observation.velocity": "action"}}, "the name is taken"),
        ({"rename": {"state": "x"}}, "no feature 'state' to rename"),
        ({"rename": {"action": ".."}}, "'..' is no name: write letters"),
        ({"rename": {"action": "a..b"}}, "'a..b' is no name"),
        ({"rename": {"action": "a/b"}}, "'a/b' is no name"),
        ({"rename": {"action": ""}}, "'' is no name"),
        ({"rename": {"action": "task"}}, "the name 'task' is reserved"),
        ({"rename": {"action": "episode_id"}}, "the name 'episode_id' is reserved"),
        ({"rename": {"action": "stamp_ns.action"}}, "the name 'stamp_ns.action' is reserved"),
        ({"drop_cameras": ("cam_hig",)}, "Did you mean 'cam_high'"),
    ],
)
def test_words_that_fit_nothing_are_one_sentence(made: Workspace, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run(made, "never", **changes)
    assert not made.path("episodes", Ref("never", "1")).exists()


def test_words_that_mean_nothing_are_refused_when_they_are_said() -> None:
    with pytest.raises(UsageError, match="keeps nothing"):
        Trim(episodes="a", start_s=2, end_s=1)
    for text in ("a:nan:", "a::inf", "a:0:1e400", "a:-inf:1"):
        with pytest.raises(UsageError, match="is no time in seconds"):
            Trim.parse(text)
    with pytest.raises(UsageError, match="'colour' can not be set"):
        Relabel.parse("colour=red")
    assert Relabel.parse("task=Put a=b.", "operator=ada") == Relabel(
        field="task", value="Put a=b.", episodes="operator=ada"
    )
    assert Trim.parse("task=Stack: now.:0.5:") == Trim(episodes="task=Stack: now.", start_s=0.5)
    with pytest.raises(UsageError, match="is no trim"):
        Trim.parse("episode_1")


def test_a_camera_that_gave_the_rows_may_go() -> None:
    rig = Rig.model_validate(
        {
            "name": "arm",
            "source": "mcap",
            "robot_type": "arm",
            "rate_hz": 10,
            "features": {"observation.state": {"key": "/state"}},
            "cameras": {"top": {"key": "/top"}, "side": {"key": "/side"}},
            "clock": {"reference": "top"},
        }
    )
    assert edited_rig(rig, {}, ["top"]).clock.reference is None
    assert edited_rig(rig, {}, ["side"]).clock.reference == "top"
    for changes, message in (
        ({"clock": {"reference": "front"}}, "the reference 'front' of clock is neither feature nor camera"),
        ({"features": {"task": {"key": "/state"}}}, "the name 'task' is reserved"),
        ({"features": {"a..b": {"key": "/state"}}}, "'a..b' is no name"),
        ({"cameras": {"columns": {"key": "/top"}, "top": {"key": "/top"}}}, "the name 'columns' is reserved"),
    ):
        with pytest.raises(ValidationError, match=message):
            Rig.model_validate(rig.model_dump(mode="json") | changes)


def test_a_small_frame_store_is_not_filled_up(made: Workspace) -> None:
    store = made.path("frames", ONE)
    columns = EpisodeSet.open(made, ONE).columns(EpisodeSet.open(made, ONE).ids()[0])
    for key, column in columns.items():
        [chunk] = (store / "columns" / key).glob("c.0*")
        assert chunk.stat().st_size == sum(LENGTHS[:3]) * column[0].nbytes
        assert np.array_equal(FrameStore.open(store).column(key, 0, LENGTHS[0]), column)


def test_what_is_kept_of_an_episode_takes_little_memory(made: Workspace) -> None:
    path = made.path("episodes", ONE)
    tracemalloc.start()
    kept = kept_dataset(path)
    per_episode = tracemalloc.get_traced_memory()[0] / len(kept.parts)
    tracemalloc.stop()
    videos = [camera.video for part in kept.parts for camera in part.staged.cameras.values()]
    assert all(video is not None and len(video.histogram) == 3 for video in videos)
    bins = 2 * 3 * 256 * 8  # of two cameras
    assert per_episode < 3 * bins


def test_many_cuts_at_once_stay_with_their_episodes(made: Workspace, ids: tuple[str, ...]) -> None:
    trim = Trim(episodes="num_frames>1", start_s=5 / 50, end_s=21 / 50)  # through a group of pictures at either end
    report = run(made, "cuts", trims=(trim,))
    assert (report.num_trimmed, report.num_frames) == (3, 48)
    before, after = (EpisodeSet.open(made, ref) for ref in (ONE, Ref("cuts", "1")))
    assert after.ids() == ids
    for name in ids:
        for index in (0, 8, 15):
            got, wanted = after.video_frame(name, "cam_low", index), before.video_frame(name, "cam_low", index + 5)
            assert np.abs(got.astype(int) - wanted).mean() < 6
