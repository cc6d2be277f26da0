"""Released rows as chat samples with picture files, and as ECoT's reasoning dict per step."""

import fcntl
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import raw_files
from export_material import EPISODES, RELEASE, release_rows, spoken_workspace, write_release_of
from PIL import Image

from dataengine.convert import convert
from dataengine.episode_set import EpisodeSet
from dataengine.exports.chat import export_chat
from dataengine.exports.dexvla import export_dexvla
from dataengine.exports.ecot import export_ecot
from dataengine.workspace import Workspace
from schemas.errors import ArtifactError, UsageError
from schemas.refs import Ref


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return spoken_workspace(tmp_path_factory.getbasetemp() / "spoken")


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "chat.jsonl").read_text().splitlines()]


def test_every_released_row_is_one_sample_with_its_pictures(made: Workspace, tmp_path: Path) -> None:
    report = export_chat(annotations=RELEASE, out=tmp_path / "out", workspace=made)
    episodes = EpisodeSet.open(made, EPISODES)
    ids, samples = episodes.ids(), lines(tmp_path / "out")
    assert report.counts == {"episodes": 3, "samples": 7, "pictures": 14}
    assert report.without_words == (ids[3],)
    assert len(report.left_out) == 1
    places = [(ids.index(row["episode_id"]), row["frame"], row["field"]) for row in samples]
    assert places == [
        (0, 0, "trace"),
        (0, 5, "segment"),
        (0, 15, "trace"),
        (0, 21, "segment"),
        (1, 5, "trace"),
        (2, 6, "segment"),
        (2, 18, "segment"),
    ]
    asked, said = samples[2]["messages"]
    paths = [f"frames/{ids[0]}/{camera}/000015.jpg" for camera in ("cam_high", "cam_low")]
    shown = [{"type": "image", "image": path} for path in paths]
    assert asked == {"role": "user", "content": [*shown, {"type": "text", "text": episodes.row(ids[0]).task}]}
    assert said == {"role": "assistant", "content": [{"type": "text", "text": "Already picked 5."}]}
    assert (samples[2]["images"], samples[2]["basis"], samples[2]["reviewer"]) == (paths, "human", "ada")
    assert samples[1]["messages"][0]["content"][-1]["text"].endswith("What does the robot do now?")
    for path, camera in zip(paths, ("cam_high", "cam_low"), strict=True):
        assert (tmp_path / "out" / path).read_bytes() == episodes.jpeg(ids[0], camera, 15)


def test_one_camera_and_one_field_can_be_asked_for(made: Workspace, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = export_chat(annotations=RELEASE, out=out, workspace=made, fields=("trace",), cameras=("cam_low",))
    assert report.counts == {"episodes": 2, "samples": 3, "pictures": 3}
    again = export_chat(
        annotations=RELEASE, out=tmp_path / "b", workspace=made, fields=("trace",), cameras=("cam_low",)
    )
    assert again.fingerprint == report.fingerprint
    with pytest.raises(UsageError, match=r"no camera 'cam_lo'\. Did you mean 'cam_low'"):
        export_chat(annotations=RELEASE, out=tmp_path / "c", workspace=made, cameras=("cam_lo",))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "out"]


def test_pictures_a_plain_reader_would_misread_are_put_right(made: Workspace, tmp_path: Path) -> None:
    rig = tmp_path / "swapped.yaml"
    text = (Path(raw_files.__file__).parents[2] / "dataengine" / "rigs" / "aloha.yaml").read_text()
    rig.write_text(text.replace("jpeg_channel_order: rgb", "jpeg_channel_order: bgr, orientation: rotated_180"))
    for number, (ref, sink) in enumerate(((Ref("swapped", "1"), "both"), (Ref("filmed", "1"), "lerobot"))):
        raw, release = made.root.parent / "raw", Ref(f"about-{ref.name}", "1")
        convert(source_path=raw, to=ref, workspace=made, rig=str(rig) if number == 0 else "aloha", sink=sink, workers=1)
        episodes = EpisodeSet.open(made, ref)
        write_release_of(made, release, release_rows(episodes.ids()), ref)
        out = tmp_path / ref.name
        report = export_chat(annotations=release, out=out, workspace=made, cameras=("cam_high",))
        assert report.notes == (
            "pictures of cam_high were encoded as JPEG (quality 95); all others are the stored bytes",
        )
        path = out / lines(out)[2]["images"][0]
        got = np.asarray(Image.open(io.BytesIO(path.read_bytes()))).astype(int)
        assert np.abs(got - episodes.frame(episodes.ids()[0], "cam_high", 15)).mean() < 2
    report = export_dexvla(annotations=Ref("about-swapped", "1"), out=tmp_path / "dexvla", workspace=made)
    assert report.notes[0] == "JPEGs of cam_high are bgr and rotated_180 as recorded; rig.yaml says so"
    back = Ref("swapped-back", "1")
    convert(source_path=tmp_path / "dexvla", to=back, workspace=made, rig=str(tmp_path / "dexvla/rig.yaml"), workers=1)
    before, after = (EpisodeSet.open(made, ref) for ref in (Ref("swapped", "1"), back))
    shown = [each.frame(each.ids()[0], "cam_high", 15) for each in (before, after)]
    assert np.array_equal(shown[0], shown[1])


def test_ecot_gets_a_reasoning_dict_for_every_step_that_has_words(made: Workspace, tmp_path: Path) -> None:
    report = export_ecot(annotations=RELEASE, out=tmp_path / "out", workspace=made)
    ids = EpisodeSet.open(made, EPISODES).ids()
    found = json.loads((tmp_path / "out" / "reasonings.json").read_text())
    assert {path: list(inside) for path, inside in found.items()} == {
        f"episode_{number}.hdf5": [ids[number]] for number in range(3)
    }
    first = found["episode_0.hdf5"][ids[0]]
    assert first["metadata"]["n_steps"] == 30
    assert first["reasoning"]["14"] == {
        "task": first["metadata"]["language_instruction"],
        "subtask_reason": "The board reads 4+1. I pick 5.",
        "subtask": "right gripper: carry",
        "move": "right arm left, right arm up",
    }
    assert "subtask" not in first["reasoning"]["11"]
    assert first["features"]["move_primitive"][9:14:2] == ["right arm forward", None, "right arm left, right arm up"]
    assert list(found["episode_1.hdf5"][ids[1]]["reasoning"]) == [str(step) for step in range(5, 20)]
    assert report.counts == {"episodes": 3, "steps": 30 + 15 + 24, "steps_without_words": 5}
    assert report.without_words == (ids[3],)
    assert export_ecot(annotations=RELEASE, out=tmp_path / "out", workspace=made).already_there


def test_one_process_writes_a_folder_and_what_a_killed_one_left_is_gone(made: Workspace, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / ".out.draft").mkdir()
    (tmp_path / ".out.draft" / "half.json").write_text("{")
    with (tmp_path / ".out.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="is being written by another process"):
            export_ecot(annotations=RELEASE, out=out, workspace=made)
    export_ecot(annotations=RELEASE, out=out, workspace=made)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")) == [
        "out",
        "out/export.json",
        "out/reasonings.json",
    ]


def test_a_release_about_nothing_or_about_other_episodes_is_refused(made: Workspace, tmp_path: Path) -> None:
    empty = Ref("empty", "1")
    write_release_of(made, empty, [])
    for export in (export_chat, export_dexvla, export_ecot):
        with pytest.raises(UsageError, match="'empty@1' hold no "):
            export(annotations=empty, out=tmp_path / "out", workspace=made)
    assert list(tmp_path.iterdir()) == []
    other = Workspace.at(tmp_path / "other")
    for kind, ref in (("episodes", EPISODES), ("annotations", RELEASE)):
        target = other.path(kind, ref)  # type: ignore[arg-type]
        target.parent.mkdir(parents=True)
        target.symlink_to(made.path(kind, ref))  # type: ignore[arg-type]
    assert export_ecot(annotations=RELEASE, out=tmp_path / "out", workspace=other).counts["episodes"] == 3
    other.path("episodes", EPISODES).unlink()
    other.path("episodes", EPISODES).symlink_to(made.path("episodes", Ref("swapped", "1")))
    with pytest.raises(ArtifactError, match="were released about other episodes 'tiny@1'"):
        export_ecot(annotations=RELEASE, out=tmp_path / "out", workspace=other)
