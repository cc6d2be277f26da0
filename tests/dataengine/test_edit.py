"""A new version out of existing ones: left out, cut, relabelled, renamed, put together; read back by LeRobot."""

import json
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
import raw_files
from edit_material import (
    LENGTHS,
    MORE,
    ONE,
    PART,
    SMALL,
    TASKS,
    hidden_pictures,
    lerobot,
    packets,
    picture,
    run,
    shard,
    three_datasets,
    write_raw,
)

from dataengine.artifacts import Draft, begin
from dataengine.convert import VideoEncoding, convert
from dataengine.edit import Changes, Relabel, Trim, edit
from dataengine.episode_set import EpisodeSet
from dataengine.frame_store import FrameStore
from dataengine.quality.checking import open_recordings
from dataengine.sinks.lerobot_v3 import commit, skew_of
from dataengine.sinks.staging import StageVideos, load_staged
from dataengine.sinks.staging_writer import stage_episode
from dataengine.workspace import Workspace
from schemas.episodes import Episode, EpisodeMeta, StreamSkew
from schemas.errors import ArtifactError, RefError, RigError, UsageError
from schemas.refs import Ref
from schemas.rigs import Feature, Rig


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


def test_what_is_excluded_is_gone_and_what_stays_is_as_converted(made: Workspace, ids: tuple[str, ...]) -> None:
    report = run(made, "excluded", exclude=("task=Sort.", ids[0]))
    assert [(row.episode, row.reason) for row in report.left_out] == [
        (ids[0], f"{ids[0]}: excluded."),
        (ids[2], f"{ids[2]}: excluded by task=Sort.."),
    ]
    for record, kind in zip(report.records, ("episodes", "frames"), strict=True):
        assert record.fingerprint == made.record(kind, PART).fingerprint  # as if only this one had been converted
    assert packets(shard(made, Ref("excluded", "1"))) == packets(shard(made, ONE))[30:71]
    gone = {FrameStore.open(made.path("frames", ONE)).jpeg("cam_high", row) for row in (0, 29, 71)}
    for path in made.path("frames", Ref("excluded", "1")).rglob("*"):
        assert not path.is_file() or not any(jpeg in path.read_bytes() for jpeg in gone)
    store = FrameStore.open(made.path("frames", Ref("excluded", "1")))
    assert store.jpeg("cam_low", 40) == FrameStore.open(made.path("frames", ONE)).jpeg("cam_low", 70)
    assert run(made, "excluded", exclude=("task=Sort.", ids[0])).already_there
    with pytest.raises(ArtifactError, match="was made differently"):
        run(made, "excluded", exclude=("task=Sort.",))


def test_keep_is_the_other_way_round_and_untouched_shards_are_links(made: Workspace, ids: tuple[str, ...]) -> None:
    kept = run(made, "kept", keep=(ids[1],))
    assert kept.records[0].fingerprint == made.record("episodes", PART).fingerprint
    run(made, "relabelled", relabels=(Relabel(field="outcome", value="success"),))
    new = Ref("relabelled", "1")
    assert shard(made, new).stat().st_ino == shard(made, ONE).stat().st_ino
    data = "data/chunk-000/file-000.parquet"
    assert (made.path("episodes", new) / data).stat().st_ino == (made.path("episodes", ONE) / data).stat().st_ino
    episodes = EpisodeSet.open(made, new)
    assert [episodes.row(name).metadata["outcome"] for name in episodes.ids()] == ["success"] * 3


@pytest.mark.parametrize("start", [8, 9])  # on a keyframe (g=2), and in the middle of a group of pictures
def test_a_trim_keeps_pixels_rows_and_source_time(
    made: Workspace, ids: tuple[str, ...], start: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if start % 2:
        pytest.importorskip("dataengine.sinks.video_cuts")
    to = Ref(f"trimmed{start}", "1")
    report = run(made, to.name, trims=(Trim(episodes=ids[1], start_s=start / 50, end_s=0.6),))
    assert (report.num_trimmed, report.num_frames) == (1, 30 + 30 - start + 24)
    before, after = EpisodeSet.open(made, ONE), EpisodeSet.open(made, to)
    row = after.row(ids[1])
    assert (row.num_frames, row.start_frame, row.source_frames) == (30 - start, start, 41)
    assert row.start_ns == start * 20_000_000
    assert row.hashes is not None
    assert row.hashes.clock == before.row(ids[1]).hashes.clock
    assert np.array_equal(after.stamps_ns(ids[1]), before.stamps_ns(ids[1])[start:30])
    assert after.end_ns(ids[1]) == 600_000_000
    for key, column in before.columns(ids[1]).items():
        assert np.array_equal(after.columns(ids[1])[key], column[start:30])
    for index in range(30 - start):
        assert np.array_equal(after.frame(ids[1], "cam_low", index), before.frame(ids[1], "cam_low", index + start))
        video = after.video_frame(ids[1], "cam_low", index)
        assert np.abs(video.astype(int) - picture(1, index + start, 1)).mean() < 12
        if start % 2 == 0:
            assert np.array_equal(video, before.video_frame(ids[1], "cam_low", index + start))
    for other in (ids[0], ids[2]):  # the episodes around it did not move
        last = before.row(other).num_frames - 1
        assert np.array_equal(after.video_frame(other, "cam_low", last), before.video_frame(other, "cam_low", last))
    dataset = lerobot(made.path("episodes", to), tmp_path, monkeypatch)
    assert len(dataset) == report.num_frames
    for index in range(30 - start):
        item = dataset[30 + index]
        assert (item["frame_index"].item(), item["index"].item()) == (index, 30 + index)
        assert item["timestamp"].item() == pytest.approx(index / 50)
        wanted = raw_files.bimanual_14(41, seed=1)[start + index]
        assert np.array_equal(item["observation.state"].numpy(), wanted)
        got = (item["observation.images.cam_high"].numpy().transpose(1, 2, 0) * 255).round()
        assert np.abs(got - picture(1, start + index)).mean() < 12
    again = edit(
        refs=(to,),
        to=Ref(f"twice{start}", "1"),
        workspace=made,
        changes=Changes(trims=(Trim(episodes=ids[1], end_s=0.4),)),
    )
    twice = EpisodeSet.open(made, Ref(f"twice{start}", "1"))
    assert (twice.row(ids[1]).start_frame, twice.row(ids[1]).num_frames) == (start, 20 - start)
    assert again.records[0].inputs[0].ref == str(to)


def test_datasets_are_merged_in_order_and_lerobot_filters_them(
    made: Workspace, ids: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = run(made, "merged", MORE, ONE, PART)
    assert [row.reason for row in report.left_out] == [
        f"{ids[1]}: part@1 holds it a second time, it is {ids[1]} of tiny@1."
    ]
    assert [row.ref for row in report.records[0].inputs] == ["more@1", "tiny@1", "part@1"]
    dataset = lerobot(made.path("episodes", Ref("merged", "1")), tmp_path, monkeypatch)
    order = (3, 0, 1, 2)
    assert len(dataset) == sum(LENGTHS)
    position = 0
    for number, index in enumerate(order):
        for frame in range(LENGTHS[index]):
            item = dataset[position]
            assert (item["episode_index"].item(), item["task"]) == (number, TASKS[index])
            got = (item["observation.images.cam_low"].numpy().transpose(1, 2, 0) * 255).round()
            assert np.abs(got - picture(index, frame, 1)).mean() < 12
            assert np.array_equal(item["action"].numpy(), raw_files.bimanual_14(LENGTHS[index], seed=index + 1)[frame])
            position += 1
    only = lerobot(made.path("episodes", Ref("merged", "1")), tmp_path, monkeypatch, episodes=[2])
    assert len(only) == LENGTHS[1]
    assert np.array_equal(only[3]["action"].numpy(), raw_files.bimanual_14(41, seed=2)[3])
    store = FrameStore.open(made.path("frames", Ref("merged", "1")))
    assert store.episode_ends == (35, 65, 106, 130)
    assert store.jpeg("cam_high", 35) == FrameStore.open(made.path("frames", ONE)).jpeg("cam_high", 0)


def test_features_are_renamed_and_cameras_dropped_in_both_stores(made: Workspace, ids: tuple[str, ...]) -> None:
    report = run(made, "renamed", rename={"observation.velocity": "observation.speed"}, drop_cameras=("cam_low",))
    episodes = EpisodeSet.open(made, Ref("renamed", "1"))
    assert episodes.cameras == ("cam_high",)
    assert "observation.speed" in episodes.rig.features
    assert "cam_low" not in episodes.rig.cameras
    before = EpisodeSet.open(made, ONE)
    assert np.array_equal(episodes.columns(ids[2])["observation.speed"], before.columns(ids[2])["observation.velocity"])
    store = FrameStore.open(made.path("frames", Ref("renamed", "1")))
    assert "observation.speed" in store.columns
    assert "observation.velocity" not in store.columns
    assert not list(made.path("frames", Ref("renamed", "1")).glob("cam_low"))
    assert shard(made, Ref("renamed", "1")).stat().st_ino == shard(made, ONE).stat().st_ino
    assert report.records[0].recipe["edit"]["rename"] == {"observation.velocity": "observation.speed"}


def test_a_csv_excludes_trims_and_relabels_and_is_part_of_the_recipe(
    made: Workspace, ids: tuple[str, ...], tmp_path: Path
) -> None:
    table = tmp_path / "edits.csv"
    table.write_text(
        "episode_id,exclude,start_s,end_s,task,outcome\n"
        f"{ids[0]},yes,,,,\n"
        f'{ids[1]},no,0.16,,"Stack, then push.",failure\n'
    )
    report = run(made, "table", table=table)
    assert (report.num_episodes, report.num_trimmed, report.num_relabelled) == (2, 1, 1)
    episodes = EpisodeSet.open(made, Ref("table", "1"))
    assert episodes.ids() == ids[1:]
    row = episodes.row(ids[1])
    assert (row.task, row.metadata["outcome"], row.num_frames) == ("Stack, then push.", "failure", 33)
    assert episodes.row(ids[2]).task == "Sort."
    table.rename(tmp_path / "other.csv")
    assert run(made, "table", table=tmp_path / "other.csv").already_there
    for text, wrong in (
        ("episode_id,tsk\n", "has the column 'tsk'"),
        ("task\n", "no column 'episode_id'"),
        (f"episode_id,exclude\n{ids[0]},maybe\n", "line 2: exclude is 'maybe'"),
        (f"episode_id,start_s\n{ids[0]},soon\n", "'soon' is no time"),
        ("episode_id,task\nnobody,Sort.\n", "'nobody' is no episode"),
        (f"episode_id,task\n{ids[0]},a,b\n", "not as many cells"),
        (f"episode_id,task,task\n{ids[0]},a,b\n", "has the column 'task' twice"),
        (f"episode_id,start_s\n{ids[0]},nan\n", "nan is no time in seconds"),
    ):
        table.write_text(text)
        with pytest.raises(UsageError, match=wrong):
            run(made, "never", table=table)


def test_what_does_not_fit_together_is_refused(place: Path, made: Workspace, tmp_path: Path) -> None:
    with pytest.raises(RefError, match="no episodes 'tiny@7'"):
        run(made, "never", ONE, Ref("tiny", "7"))
    raw = write_raw(tmp_path / "big", (3,), height=48)
    convert(source_path=raw, to=Ref("big", "1"), workspace=made, rig="aloha_sim", sink="lerobot")
    with pytest.raises(UsageError, match="tiny@1 has a frame store and big@1 has none"):
        run(made, "never", ONE, Ref("big", "1"))
    convert(source_path=raw, to=Ref("big", "1"), workspace=made, rig="aloha_sim", sink="zarr")
    with pytest.raises(RigError, match=r"big@1 can not be merged into tiny@1: camera cam_high is 48x48 .* 48x32"):
        run(made, "never", ONE, Ref("big", "1"))
    dry = edit(refs=(ONE,), to=Ref("never", "1"), workspace=made, changes=Changes(keep=("operator=bo",)), dry_run=True)
    assert (dry.num_episodes, dry.records) == (1, ())
    assert not list((place / "workspace" / "episodes").glob(".never*"))


@pytest.mark.parametrize("codec", ["libsvtav1", "libx264"])
def test_copied_av1_is_cut_inside_its_torn_groups_and_copied_h264_encoded_again_as_a_whole(
    tmp_path: Path, workspace: Workspace, codec: str
) -> None:
    pytest.importorskip("dataengine.sinks.video_cuts")
    raw = raw_files.write_lerobot_v21(tmp_path / "raw", lengths=(40, 25), codec=codec, g=10)
    convert(source_path=raw, to=ONE, workspace=workspace, rig=None, sink="lerobot", encoding=VideoEncoding())
    before = EpisodeSet.open(workspace, ONE)
    name, other = before.ids()
    edit(
        refs=(ONE,),
        to=Ref("cut", "1"),
        workspace=workspace,
        changes=Changes(trims=(Trim(episodes=name, start_s=5 / 30, end_s=1.2),)),
    )
    after = EpisodeSet.open(workspace, Ref("cut", "1"))
    assert after.row(name).num_frames == 31
    for index in range(31):
        got, wanted = after.video_frame(name, "cam_high", index), before.video_frame(name, "cam_high", index + 5)
        assert np.abs(got.astype(int) - wanted).mean() < 6
    then, now = (episodes.video_packets(name, "cam_high") for episodes in (before, after))
    if codec == "libsvtav1":
        assert now[5:25] == then[10:30]  # between the groups that the trim cuts through
    else:
        assert not set(now) & set(then)
    assert after.video_packets(other, "cam_high") == before.video_packets(other, "cam_high")


def test_a_cut_inside_a_long_group_of_av1_leaves_no_picture_behind(tmp_path: Path, workspace: Workspace) -> None:
    raw = write_raw(tmp_path / "raw", (0, 1))
    encoding = VideoEncoding(g=60)
    convert(source_path=raw, to=ONE, workspace=workspace, rig="aloha_sim", sink="lerobot", encoding=encoding)
    before = EpisodeSet.open(workspace, ONE)
    long, other = before.ids()[1], before.ids()[0]
    changes = Changes(trims=(Trim(episodes=long, end_s=0.38),), exclude=(other,))
    edit(refs=(ONE,), to=Ref("cut", "1"), workspace=workspace, changes=changes)
    whole, cut = shard(workspace, ONE), shard(workspace, Ref("cut", "1"))
    assert hidden_pictures(whole) == 0
    assert hidden_pictures(cut) == 0
    after = EpisodeSet.open(workspace, Ref("cut", "1"))
    assert after.row(long).num_frames == 19
    for index in range(19):
        got, wanted = after.video_frame(long, "cam_high", index), before.video_frame(long, "cam_high", index)
        assert np.abs(got.astype(int) - wanted).mean() < 12


def test_depth_is_trimmed_with_the_rest_and_read_in_metres(tmp_path: Path, workspace: Workspace) -> None:
    raw = tmp_path / "raw"
    for index in range(2):
        path = raw / f"episode_{index}.hdf5"
        raw_files.write_aloha_episode(path, num_frames=20, depth_cameras=("wrist_depth",), seed=index, **SMALL)
        with h5py.File(path, "r+") as file:  # every row another depth, and a corner where nothing was measured
            rows = (np.arange(20, dtype=np.uint16) * 10 + 500)[:, None, None] * np.ones((1, 32, 48), np.uint16)
            rows[:, :4, :4] = 0
            file["observations/images/wrist_depth"][:] = rows
    raw_files.write_metadata_csv(raw, [{"file": f"episode_{index}.hdf5"} for index in range(2)])
    shipped = Path(raw_files.__file__).resolve().parents[2] / "dataengine/rigs/aloha_sim.yaml"
    line = "  wrist: {key: observations/images/wrist_depth, depth_unit_m: 0.001}\n"
    rig = tmp_path / "depth.yaml"
    rig.write_text(shipped.read_text().replace("cameras:\n", "cameras:\n" + line, 1))
    convert(source_path=raw, to=ONE, workspace=workspace, rig=str(rig))
    before = EpisodeSet.open(workspace, ONE)
    assert (before.cameras, before.depth_cameras) == (("cam_high", "cam_low"), ("wrist",))
    name = before.ids()[1]
    edit(
        refs=(ONE,),
        to=Ref("cut", "1"),
        workspace=workspace,
        changes=Changes(trims=(Trim(episodes=name, start_s=0.1, end_s=0.3),), exclude=(before.ids()[0],)),
    )
    root = workspace.path("episodes", Ref("cut", "1"))
    stored = EpisodeSet.open(workspace, Ref("cut", "1"))
    filmed = EpisodeSet(root, None, workspace.record("episodes", Ref("cut", "1")))
    assert stored.row(name).num_frames == 10
    for index in range(10):
        wanted = (500 + 10 * (index + 5)) / 1000
        assert stored.depth(name, "wrist", index)[20, 20] == pytest.approx(wanted)
        assert stored.depth(name, "wrist", index)[0, 0] == 0
        assert filmed.depth(name, "wrist", index)[20, 20] == pytest.approx(wanted, abs=0.004)
    with pytest.raises(RefError, match="no depth camera 'cam_high'"):
        stored.depth(name, "cam_high", 0)
    with pytest.raises(RefError, match="no camera 'wrist'"):
        stored.frame(name, "wrist", 0)


def test_words_of_rows_that_are_cut_off_are_in_no_file(tmp_path: Path, workspace: Workspace) -> None:
    steps = tuple(f"Step {row}." for row in range(41))
    raw = write_raw(tmp_path / "raw", (1,), substep_reasonings=steps, reasoning="Read the board first.")
    convert(source_path=raw, to=ONE, workspace=workspace, rig="aloha_sim")
    [name] = EpisodeSet.open(workspace, ONE).ids()
    once, twice = Ref("cut", "1"), Ref("cut", "2")
    for base, to, trim, kept in (
        (ONE, once, Trim(episodes=name, start_s=0.3), steps[15:]),
        (once, twice, Trim(episodes=name, end_s=0.6), steps[15:30]),
    ):
        edit(refs=(base,), to=to, workspace=workspace, changes=Changes(trims=(trim,)))
        imported = EpisodeSet.open(workspace, to).imported(name)
        assert imported == {"substep_reasonings": kept, "reasoning": ("Read the board first.",), "sim": ("true",)}
        for path in (workspace.path("episodes", to) / "meta", workspace.path("frames", to)):
            [content] = pq.read_table(path / "contents.parquet").column("content_json").to_pylist()
            assert [step for step in steps if step in content] == list(kept)


def test_original_stamps_skew_and_words_stay_with_their_episodes(tmp_path: Path, workspace: Workspace) -> None:
    rig = Rig(
        name="arm", source="mcap", robot_type="arm", rate_hz=10, features={"observation.state": Feature(key="/state")}
    )
    stamps = {name: np.arange(12, dtype=np.int64) * 100_000_001 + start for name, start in (("a-1", 5), ("b-2", 7000))}
    staging = tmp_path / "staging"
    staging.mkdir()
    job = StageVideos(root=staging, encoding=VideoEncoding(), encoder_threads=1)
    said = tuple(json.dumps({"content": f"at {row}", "frame_index": row}) for row in (2, 3, 3, 11))
    for number, (name, values) in enumerate(stamps.items()):
        skew = StreamSkew(
            num_messages=20, num_dropped=number, num_repeated=0, p50_s=0.01, p95_s=0.02 * number, max_s=0.05
        )
        episode = Episode(
            meta=EpisodeMeta(episode_id=name, raw_name=f"{name}.mcap", task=f"Task {number}."),
            rate_hz=10,
            columns={"observation.state": raw_files.trajectory(12, 3, seed=number)},
            cameras={},
            stamps_ns={"state": values},
            skew={"state": skew},
            imported={"language_events": said},
        )
        stage_episode(episode, name, rig, (job,), stamp="")
    draft = begin(workspace, "episodes", ONE, recipe={"rig": rig.model_dump(mode="json")})
    assert isinstance(draft, Draft)
    with draft:
        staged = [found for name in stamps if (found := load_staged(staging, name))]
        done = commit(draft.path, staged, rig, VideoEncoding())
        draft.publish(fingerprint=done.fingerprint, counts={"episodes": 2, "frames": 24})
    whole = skew_of(workspace.path("episodes", ONE))["state"]
    assert (whole.num_messages, whole.num_dropped, whole.p95_s) == (40, 1, 0.02)
    changes = Changes(exclude=("a-1",), trims=(Trim(episodes="b-2", start_s=0.3),))
    edit(refs=(ONE,), to=Ref("later", "1"), workspace=workspace, changes=changes)
    before, after = (EpisodeSet.open(workspace, ref) for ref in (ONE, Ref("later", "1")))
    assert np.array_equal(after.recorded_stamps_ns("b-2")["state"], stamps["b-2"][3:])
    assert after.skew("b-2") == before.skew("b-2")
    assert open_recordings(workspace, Ref("later", "1")).read("b-2").skew_frames == 12
    events = [json.loads(text) for text in after.imported("b-2")["language_events"]]
    assert [(event["content"], event["frame_index"]) for event in events] == [("at 3", 0), ("at 3", 0), ("at 11", 8)]
    assert skew_of(workspace.path("episodes", Ref("later", "1")))["state"].num_messages == 20
    assert after.row("b-2").hashes.clock == before.row("b-2").hashes.clock
    assert before.row("a-1").hashes.clock != before.row("b-2").hashes.clock
    data = pq.read_table(workspace.path("episodes", Ref("later", "1")) / "data/chunk-000/file-000.parquet")
    assert data.column("index").to_pylist() == data.column("frame_index").to_pylist() == list(range(9))
    assert set(data.column("task_index").to_pylist()) == set(data.column("episode_index").to_pylist()) == {0}
