"""Episode metadata from a CSV beside ALOHA files: every row finds its episode, or says why it does not."""

from pathlib import Path

import pytest
from raw_files import write_aloha_episode, write_aloha_folder, write_metadata_csv

from dataengine.rig_files import load_rig
from dataengine.sources import open_source
from schemas.errors import EpisodeError, RigError


def test_metadata_comes_from_the_csv_beside_the_files(tmp_path: Path) -> None:
    source = open_source(write_aloha_folder(tmp_path / "raw"), load_rig("aloha_sim"))
    metas = [source.read(name).meta for name in source.names()]
    assert [(meta.operator, meta.outcome, meta.scene) for meta in metas] == [
        ("bob", "success", "unknown"),
        ("ada", "success", "unknown"),
        ("bob", "success", "unknown"),
    ]


def test_a_csv_by_episode_number_and_its_faults(tmp_path: Path) -> None:
    raw = write_aloha_folder(tmp_path / "raw", num_frames=3)
    rig = load_rig("aloha_sim")
    rows = [{"episode": f"{index}", "task": "Wave.", "operator": "eve"} for index in range(3)]
    write_metadata_csv(raw, rows)
    meta = open_source(raw, rig).read("episode_1.hdf5").meta
    assert (meta.task, meta.operator) == ("Wave.", "eve")
    write_metadata_csv(raw, [{"file": "episode_1", "operator": "a"}, {"file": "episode_1", "operator": "b"}])
    with pytest.raises(RigError, match=r"metadata.csv says two different things about 'episode_1'"):
        open_source(raw, rig)
    write_metadata_csv(raw, [{"name": "episode_1"}])
    with pytest.raises(RigError, match=r"has no column 'file' or 'episode'"):
        open_source(raw, rig)
    (raw / "metadata.csv").unlink()
    with pytest.raises(RigError, match=r"metadata.csv, which is not in raw/"):
        open_source(raw, rig)


@pytest.mark.parametrize("column", ["opertor", "Operator", "license", "tasks"])
def test_a_mistyped_column_of_a_csv_is_refused_and_a_column_of_notes_is_not(tmp_path: Path, column: str) -> None:
    raw = write_aloha_folder(tmp_path / "raw", num_frames=3)
    others = {"notes": "sunny", "date": "monday", "tags": "x", "station_id": "7", "operator_age": "30"}
    write_metadata_csv(raw, [{"file": f"episode_{index}", **others} for index in range(3)])
    assert open_source(raw, load_rig("aloha_sim")).read("episode_1.hdf5").meta.operator == "unknown"
    write_metadata_csv(raw, [{"file": f"episode_{index}", **others, column: "eve"} for index in range(3)])
    with pytest.raises(
        RigError, match=rf"metadata.csv has a column '{column}'. Did you mean '(operator|licence|task)'"
    ):
        open_source(raw, load_rig("aloha_sim"))


def test_a_csv_row_and_an_episode_that_do_not_find_each_other_are_never_silent(tmp_path: Path) -> None:
    raw = write_aloha_folder(tmp_path / "raw", num_frames=3)
    rig = load_rig("aloha_sim")
    write_metadata_csv(raw, [{"file": f"episode_{name}.hdf5", "operator": "eve"} for name in ("0", "1", "O2")])
    with pytest.raises(RigError, match=r"has a row 'episode_O2.hdf5', but no episode .* Did you mean 'episode_2.hdf5'"):
        open_source(raw, rig)
    write_metadata_csv(raw, [{"file": f"episode_{name}.hdf5", "operator": "eve"} for name in ("0", "1")])
    source = open_source(raw, rig)
    assert source.read("episode_1.hdf5").meta.operator == "eve"
    with pytest.raises(EpisodeError, match=r"episode_2.hdf5: metadata.csv has no row for it. Add one"):
        source.read("episode_2.hdf5")
    rows = [{"file": name, "operator": "eve"} for name in ("0", "1", "2", "episode_1.hdf5")]
    write_metadata_csv(raw, rows)
    with pytest.raises(RigError, match=r"the row '1' is about episode_1.hdf5, which has a row already"):
        open_source(raw, rig)
    (raw / "metadata.csv").write_bytes("file,operator\nepisode_0.hdf5,Zo\xeb\n".encode("latin-1"))
    with pytest.raises(RigError, match=r"metadata.csv is not UTF-8"):
        open_source(raw, rig)


def test_a_csv_row_that_fits_two_episodes_is_refused_until_it_says_which(tmp_path: Path) -> None:
    for day in ("day_1", "day_2"):
        write_aloha_episode(tmp_path / day / "episode_0.hdf5", num_frames=3)
    rig = load_rig("aloha_sim")
    write_metadata_csv(tmp_path, [{"file": "episode_0.hdf5", "operator": "ada"}])
    with pytest.raises(RigError, match=r"'episode_0.hdf5' fits day_1/episode_0.hdf5 and day_2/episode_0.hdf5"):
        open_source(tmp_path, rig)
    write_metadata_csv(tmp_path, [{"file": f"day_{day}/episode_0.hdf5", "operator": f"op{day}"} for day in (1, 2)])
    source = open_source(tmp_path, rig)
    assert [source.read(name).meta.operator for name in source.names()] == ["op1", "op2"]
