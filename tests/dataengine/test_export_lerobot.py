"""Released words in LeRobot's language columns: lerobot itself reads them back, and nothing else has changed."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from edit_material import lerobot
from export_material import EPISODES, LENGTHS, RELEASE, release_rows, spoken_workspace, write_release_of
from raw_files import ALOHA_CAMERAS

from dataengine.edit import Changes, edit
from dataengine.episode_set import EpisodeSet
from dataengine.exports.lerobot import export_lerobot
from dataengine.transfer import pull, push
from dataengine.verification import verify
from dataengine.workspace import Workspace
from schemas.errors import ArtifactError, UsageError
from schemas.refs import Ref

TO = Ref("spoken", "1")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = spoken_workspace(tmp_path_factory.getbasetemp() / "spoken")
    export_lerobot(annotations=RELEASE, to=TO, workspace=workspace)
    return workspace


def words(rows: list[dict[str, Any]]) -> list[tuple[str, str | None, str]]:
    return [(row["role"], row["style"], row["content"]) for row in rows]


def test_lerobot_reads_every_row_back_on_its_frame(
    made: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = lerobot(made.path("episodes", TO), tmp_path, monkeypatch)
    from lerobot.datasets.language_render import active_at

    assert dataset.meta.has_language_columns
    assert len(dataset) == sum(LENGTHS)
    items = [dataset[index] for index in (0, 9, 12, 13, 15, 29)]
    persistent = items[0]["language_persistent"]
    assert words(persistent) == [
        ("assistant", "subtask", "right gripper: reach"),
        ("assistant", "motion", "right arm forward"),
        ("assistant", "subtask", "right gripper: carry"),
        ("assistant", "motion", "right arm left, right arm up"),
    ]
    assert all(item["language_persistent"] == persistent for item in items)
    assert persistent[2]["timestamp"] == items[3]["timestamp"].item()  # frame 13: the first one not before 12.5
    assert words(items[0]["language_events"]) == [("assistant", None, "The board reads 4+1. I pick 5.")]
    assert words(items[4]["language_events"]) == [("assistant", None, "Already picked 5.")]
    assert [item["language_events"] for item in (items[1], items[2], items[3], items[5])] == [[]] * 4
    now = [active_at(item["timestamp"].item(), persistent=persistent, style="subtask") for item in items]
    assert [row and row["content"][15:] for row in now] == ["reach", "reach", "reach", "carry", "carry", "carry"]
    second = LENGTHS[0] + 5  # 0.1 s at 50 Hz
    assert words(dataset[second]["language_events"]) == [("assistant", None, "The board reads 2+5, ½ more. I pick 7.")]
    held = dataset[sum(LENGTHS[:2]) + 12]  # where the arm stops, its motion has an end
    assert words(held["language_persistent"])[1:] == [
        ("assistant", "motion", "right arm forward"),
        ("assistant", "subtask", "right gripper: hold"),
        ("assistant", "motion", None),
    ]
    at, persistent = held["timestamp"].item(), held["language_persistent"]
    before, now = (active_at(stamp, persistent=persistent, style="motion") for stamp in (at - 0.01, at))
    assert before
    assert now
    assert (before["content"], now["content"]) == ("right arm forward", None)
    last = dataset[sum(LENGTHS) - 1]
    assert (last["language_persistent"], last["language_events"]) == ([], [])
    assert last["observation.images.cam_high"].shape == (3, 32, 48)


def test_the_columns_have_the_types_that_lerobot_declares(made: Workspace) -> None:
    from lerobot.datasets.language import (
        column_for_style,
        language_events_arrow_type,
        language_feature_info,
        language_persistent_arrow_type,
    )

    [path] = (made.path("episodes", TO) / "data").rglob("*.parquet")
    schema = pq.read_schema(path)
    assert schema.field("language_persistent").type == language_persistent_arrow_type()
    assert schema.field("language_events").type == language_events_arrow_type()
    info = EpisodeSet.open(made, TO).info["features"]
    assert {key: {**row, "shape": tuple(row["shape"])} for key, row in info.items() if row["dtype"] == "language"} == (
        language_feature_info()
    )
    for name in ("language_persistent", "language_events"):
        rows = [row for each in pq.read_table(path, columns=[name])[name].to_pylist() for row in each]
        assert {column_for_style(row["style"]) for row in rows} == {name}


def test_videos_are_linked_and_every_number_is_as_it_was(made: Workspace) -> None:
    before, after = made.path("episodes", EPISODES), made.path("episodes", TO)
    shards = sorted((before / "videos").rglob("*.mp4"))
    assert len(shards) == len(ALOHA_CAMERAS)
    for shard in [*shards, before / "meta" / "stats.json"]:
        assert shard.samefile(after / shard.relative_to(before))
    old, new = EpisodeSet.open(made, EPISODES), EpisodeSet.open(made, TO)
    for episode_id in old.ids():
        then, now = old.columns(episode_id), new.columns(episode_id)
        assert then.keys() == now.keys()
        assert all(np.array_equal(then[key], now[key]) for key in then)


def test_what_is_not_in_the_dataset_is_counted_and_named(made: Workspace) -> None:
    report = export_lerobot(annotations=RELEASE, to=TO, workspace=made)
    ids = EpisodeSet.open(made, EPISODES).ids()
    assert report.already_there
    assert report.counts == {"episodes": 4, "subtask": 4, "motion": 3, "assistant": 3, "open_ended": 2}
    assert report.without_words == (ids[3],)
    [short] = report.left_out
    assert (short.episode, short.reason) == (ids[0], "segment [204000000, 208000000) ns covers no frame at 50 Hz")


def test_the_same_release_gives_the_same_bytes_and_verify_holds(made: Workspace) -> None:
    export_lerobot(annotations=RELEASE, to=Ref("again", "1"), workspace=made)
    records = [made.record("episodes", ref) for ref in (TO, Ref("again", "1"))]
    assert records[0].fingerprint == records[1].fingerprint
    assert records[0].files == records[1].files
    report = verify(ref=TO, workspace=made, source_path=made.root.parent / "raw", workers=1)
    assert [row for row in report.rows if not row.ok] == []


def test_verify_finds_words_that_were_changed(made: Workspace) -> None:
    export_lerobot(annotations=RELEASE, to=Ref("forged", "1"), workspace=made)
    [path] = (made.path("episodes", Ref("forged", "1")) / "data").rglob("*.parquet")
    path.write_bytes(path.read_bytes().replace(b"I pick 5.", b"I pick 6."))
    report = verify(ref=Ref("forged", "1"), workspace=made, source_path=made.root.parent / "raw", workers=1)
    assert "fingerprint is that of the contents" in {row.check for row in report.rows if not row.ok}


def test_an_export_is_pulled_with_its_identity(made: Workspace, tmp_path: Path) -> None:
    """It covers what the language columns say, beside the contents of the episodes."""
    url = push(workspace=made, kind="episodes", ref=TO, url=f"file://{tmp_path}/shelf").url
    assert pull(workspace=Workspace.at(tmp_path / "other"), url=url).record == made.record("episodes", TO)


def test_an_interrupted_export_leaves_nothing_that_looks_whole_and_goes_on(made: Workspace) -> None:
    to = Ref("cut", "1")
    [data] = (made.path("episodes", EPISODES) / "data").rglob("*.parquet")
    content = data.read_bytes()
    data.write_bytes(content[: len(content) // 2])  # found out after the videos were linked
    with pytest.raises(ArtifactError, match=r"'tiny@1': file-000.parquet can not be read"):
        export_lerobot(annotations=RELEASE, to=to, workspace=made)
    assert to not in made.refs("episodes")
    assert not made.path("episodes", to).exists()
    data.write_bytes(content)
    report = export_lerobot(annotations=RELEASE, to=to, workspace=made)
    assert (report.already_there, report.fingerprint) == (False, made.record("episodes", TO).fingerprint)


def test_words_follow_the_pictures_through_a_trim(made: Workspace) -> None:
    from dataengine.edit import Trim

    ids = EpisodeSet.open(made, EPISODES).ids()
    shorter = Ref("shorter", "1")
    changes = Changes(keep=(ids[0],), trims=(Trim.parse(f"{ids[0]}:0.28:0.5"),))  # frames 14 to 24
    edit(refs=[EPISODES], to=shorter, workspace=made, changes=changes)
    write_release_of(made, Ref("about", "2"), release_rows(ids)[:5], shorter)
    export_lerobot(annotations=Ref("about", "2"), to=Ref("spoken", "2"), workspace=made)
    [path] = (made.path("episodes", Ref("spoken", "2")) / "data").rglob("*.parquet")
    table = pq.read_table(path).to_pylist()
    assert [(row["content"][15:], row["timestamp"]) for row in table[0]["language_persistent"][::2]] == [("carry", 0.0)]
    assert [row["frame_index"] for row in table if row["language_events"]] == [0, 1]


def test_what_can_not_be_exported_is_refused_in_one_sentence(made: Workspace) -> None:
    with pytest.raises(ArtifactError, match="hold language columns"):
        edit(refs=[TO], to=Ref("never", "1"), workspace=made, changes=Changes(exclude=("outcome=failure",)))
    rows = release_rows(EpisodeSet.open(made, EPISODES).ids())
    write_release_of(made, Ref("twice", "1"), rows, TO)
    with pytest.raises(UsageError, match="hold language columns already"):
        export_lerobot(annotations=Ref("twice", "1"), to=Ref("never", "1"), workspace=made)
    with pytest.raises(ArtifactError, match="was made differently"):
        export_lerobot(annotations=RELEASE, to=EPISODES, workspace=made)
