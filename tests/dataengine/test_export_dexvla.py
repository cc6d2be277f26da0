"""Episodes for DexVLA and ChatVLA: what its loader reads is there, and our own source reads it all back."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from export_material import EPISODES, LENGTHS, RELEASE, spoken_workspace

from dataengine.convert import convert
from dataengine.episode_set import EpisodeSet
from dataengine.exports.dexvla import export_dexvla
from dataengine.workspace import Workspace
from schemas.errors import ArtifactError, UsageError
from schemas.refs import Ref


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return spoken_workspace(tmp_path_factory.getbasetemp() / "spoken")


@pytest.fixture(scope="module")
def out(made: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dexvla") / "out"
    export_dexvla(annotations=RELEASE, out=folder, workspace=made)
    return folder


def test_each_file_holds_what_the_loader_reads(made: Workspace, out: Path) -> None:
    ids = EpisodeSet.open(made, EPISODES).ids()
    assert sorted(path.name for path in out.glob("*.hdf5")) == sorted(f"{name}.hdf5" for name in ids[:2])
    raw = made.root.parent / "raw"
    for number in (0, 1):
        with h5py.File(raw / f"episode_{number}.hdf5") as before, h5py.File(out / f"{ids[number]}.hdf5") as after:
            for key in ("action", "observations/qpos", "observations/qvel"):
                assert np.array_equal(before[key][()], after[key][()])
            assert after["language_raw"][0].decode("utf-8") == before["language_raw"][0].decode("utf-8")
            assert (after.attrs["sim"], after.attrs["compress"]) == (True, True)
            for camera, lengths in zip(("cam_high", "cam_low"), after["compress_len"][()].astype(int), strict=True):
                key = f"observations/images/{camera}"  # the very bytes of the recording
                for row, then, length in zip(after[key], before[key], lengths, strict=True):
                    assert bytes(row[:length]) == bytes(then).rstrip(b"\0")


def test_every_row_has_its_words_and_none_are_made_up(made: Workspace, out: Path) -> None:
    ids = EpisodeSet.open(made, EPISODES).ids()
    listed = json.loads((out / "substep_reasonings.json").read_text())
    [(task, files)] = listed.items()
    assert task == EpisodeSet.open(made, EPISODES).row(ids[0]).task
    expected = {
        ids[0]: ["The board reads 4+1. I pick 5."] * 15 + ["Already picked 5."] * 15,
        ids[1]: [""] * 5 + ["The board reads 2+5, ½ more. I pick 7."] * 15,
    }
    for name, words in expected.items():
        with h5py.File(out / f"{name}.hdf5") as file:
            assert [text.decode("utf-8") for text in file["substep_reasonings"]] == words
            assert [files[f"{name}.hdf5"][step] for step in file["substeps"]] == words


def test_convert_reads_the_folder_back_as_imported_annotations(made: Workspace, out: Path) -> None:
    back = Ref("back", "1")
    convert(source_path=out, to=back, workspace=made, rig=str(out / "rig.yaml"), workers=1)
    before, after = EpisodeSet.open(made, EPISODES), EpisodeSet.open(made, back)
    assert len(after.ids()) == 2
    for then, now in zip(before.ids(), after.ids(), strict=False):
        assert before.row(then).task == after.row(now).task
        assert before.columns(then).keys() == after.columns(now).keys()
        for key, column in before.columns(then).items():
            assert np.array_equal(column, after.columns(now)[key])
        assert before.jpeg(then, "cam_low", 7) == after.jpeg(now, "cam_low", 7)
    assert after.imported(after.ids()[0])["substep_reasonings"][14:16] == (
        "The board reads 4+1. I pick 5.",
        "Already picked 5.",
    )
    assert after.rig.end_effectors == before.rig.end_effectors


def test_the_report_names_who_is_silent_and_what_is_left_out(made: Workspace, out: Path) -> None:
    report = export_dexvla(annotations=RELEASE, out=out, workspace=made)
    ids = EpisodeSet.open(made, EPISODES).ids()
    assert report.already_there
    assert report.counts == {"episodes": 2, "frames": sum(LENGTHS[:2]), "frames_without_words": 5}
    assert report.without_words == ids[2:]
    assert [row.reason for row in report.left_out] == ["segment [204000000, 208000000) ns covers no frame at 50 Hz"]
    assert report.notes == ()


def test_segments_go_out_when_asked_for_and_every_byte_is_the_same_again(made: Workspace, tmp_path: Path) -> None:
    reports = [
        export_dexvla(annotations=RELEASE, out=tmp_path / name, workspace=made, reasoning="segment")
        for name in ("a", "b")
    ]
    assert reports[0].fingerprint == reports[1].fingerprint
    assert (reports[0].counts["episodes"], reports[0].counts["frames_without_words"]) == (2, 3)
    ids = EpisodeSet.open(made, EPISODES).ids()
    with h5py.File(tmp_path / "a" / f"{ids[0]}.hdf5") as file:
        texts = [text.decode() for text in file["substep_reasonings"]]
    assert (texts[9], texts[10], texts[13]) == ("right gripper: reach", "", "right gripper: carry")


def test_a_folder_appears_whole_or_not_at_all_and_is_never_overwritten(made: Workspace, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    shard = made.path("frames", EPISODES) / "cam_low" / "c.0.0.0.0"
    content = shard.read_bytes()
    shard.unlink()  # found out when half of the first episode is written
    with pytest.raises(ArtifactError, match="the frame store lacks"):
        export_dexvla(annotations=RELEASE, out=out, workspace=made)
    assert not out.exists()
    shard.write_bytes(content)
    export_dexvla(annotations=RELEASE, out=out, workspace=made)
    assert sorted(path.name for path in out.parent.iterdir()) == ["out"]
    with pytest.raises(UsageError, match=r'holds another export \(dexvla of said@1, \{"reasoning": "trace"\}\)'):
        export_dexvla(annotations=RELEASE, out=out, workspace=made, reasoning="segment")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="exists and holds other files"):
        export_dexvla(annotations=RELEASE, out=tmp_path / "mine", workspace=made)
