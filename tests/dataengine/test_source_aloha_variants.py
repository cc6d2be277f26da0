"""What labs made of the ALOHA layout: DexVLA, TinyVLA and ChatVLA, mobile bases, depth, reasoning; and what a rig may
declare about numbers and words."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from raw_files import TASK, bimanual_14, jpeg, pictures, trajectory, write_aloha_episode
from real_frames import mean_error, pusht_frames

from dataengine.convert import convert
from dataengine.episode_set import EpisodeSet
from dataengine.frame_store import FrameStore
from dataengine.inspection import inspect_path
from dataengine.rig_files import load_rig
from dataengine.sources import detect, open_source
from dataengine.verification import verify
from dataengine.workspace import Workspace
from schemas.errors import EpisodeError, RigError
from schemas.refs import Ref
from schemas.rigs import Rig


def changed(rig: str, **parts: Any) -> Rig:
    """A shipped rig with some parts replaced, validated anew."""
    return Rig.model_validate({**load_rig(rig).model_dump(), **parts})


def write_franka(path: Path, frames: np.ndarray[Any, np.dtype[np.uint8]], *, seed: int = 0) -> Path:
    """A DexVLA/TinyVLA/ChatVLA single-arm episode: 10-D action, three plain cameras, a text for every row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    length = len(frames)
    with h5py.File(path, "w") as file:
        file["action"] = trajectory(length, 10, seed=seed)
        file["language_raw"] = [TASK.encode()]
        file["substep_reasonings"] = [f"Reach for it, {index}.".encode() for index in range(length)]
        file["language_distilbert"] = np.zeros((1, 768), np.float32)
        file["is_edited"] = np.zeros(1, np.uint8)
        for key in ("joint_positions", "qpos", "qvel"):
            file[f"observations/{key}"] = trajectory(length, 7, seed=seed + len(key))
        for camera in ("left", "right", "wrist"):
            file[f"observations/images/{camera}"] = frames[:, :, ::-1, ::-1] if camera == "wrist" else frames[..., ::-1]
    return path


def test_a_dexvla_franka_dataset_of_real_frames_converts_and_verifies(
    tmp_path: Path, samples: Path, workspace: Workspace
) -> None:
    frames = pusht_frames(samples, 14)
    for index in range(2):
        write_franka(tmp_path / f"raw/episode_{index}.h5", frames[index : index + 12], seed=index)
    ref = Ref("franka", "1")
    report = convert(
        source_path=tmp_path / "raw", to=ref, workspace=workspace, rig="dexvla_franka", sink="both", workers=1
    )
    assert (report.num_episodes, report.num_frames) == (2, 24)
    episodes = EpisodeSet.open(workspace, ref)
    [first, _] = episodes.ids()
    assert np.array_equal(episodes.columns(first)["action"], trajectory(12, 10))
    assert episodes.imported(first)["substep_reasonings"][11] == "Reach for it, 11."
    assert mean_error(episodes.video_frame(first, "left", 5), frames[5]) < 4, "BGR arrays become RGB pictures"
    checked = verify(source_path=tmp_path / "raw", ref=ref, workspace=workspace, workers=1)
    assert not [row for row in checked.rows if not row.ok]


def test_a_jpeg_dataset_of_real_frames_keeps_every_byte_in_the_frame_store(
    tmp_path: Path, samples: Path, workspace: Workspace
) -> None:
    frames = pusht_frames(samples, 20)
    path = write_aloha_episode(tmp_path / "raw/episode_0.hdf5", num_frames=20, cameras=("cam_high",))
    rows = [jpeg(frame) for frame in frames]
    with h5py.File(path, "a") as file:
        del file["observations/images/cam_high"], file["compress_len"]
        padded = np.zeros((20, max(map(len, rows)) + 9), np.uint8)
        for index, row in enumerate(rows):
            padded[index, : len(row)] = np.frombuffer(row, np.uint8)
        file["observations/images/cam_high"] = padded
        file["compress_len"] = np.asarray([[len(row) for row in rows]], np.float32)
    ref = Ref("aloha", "1")
    convert(source_path=tmp_path / "raw", to=ref, workspace=workspace, rig="aloha", sink="zarr", workers=1)
    store = FrameStore.open(workspace.path("frames", ref))
    assert [store.jpeg("cam_high", index) for index in range(20)] == rows
    assert verify(source_path=tmp_path / "raw", ref=ref, workspace=workspace, workers=1).ok


def test_both_suffixes_are_one_dataset(tmp_path: Path) -> None:
    write_aloha_episode(tmp_path / "episode_2.h5", num_frames=3)
    write_aloha_episode(tmp_path / "episode_10.hdf5", num_frames=3)
    assert detect(tmp_path) == "aloha_hdf5"
    assert open_source(tmp_path, load_rig("aloha")).names() == ["episode_2.h5", "episode_10.hdf5"]


def test_a_mobile_base_is_a_column_of_its_own(tmp_path: Path) -> None:
    cameras = ("cam_high", "cam_left_wrist", "cam_right_wrist")
    path = write_aloha_episode(tmp_path / "episode_0.hdf5", cameras=cameras)
    with pytest.raises(RigError, match=r"'action.base' reads base_action, not in episode_0.hdf5"):
        open_source(tmp_path, load_rig("aloha_mobile"))
    with h5py.File(path, "a") as file:
        file["base_action"] = trajectory(30, 2, seed=8)
    episode = open_source(tmp_path, load_rig("aloha_mobile")).read("episode_0.hdf5")
    assert np.array_equal(episode.columns["action.base"], trajectory(30, 2, seed=8))
    assert "action.base" in open_source(tmp_path, load_rig("aloha")).read("episode_0.hdf5").columns


def test_sixteen_dimensional_arms_have_a_rig(tmp_path: Path) -> None:
    write_aloha_episode(tmp_path / "episode_0.hdf5", qpos=trajectory(30, 16), action=trajectory(30, 16, seed=1))
    with pytest.raises(RigError, match=r"has 16 dimensions in episode_0.hdf5, but the rig names 14"):
        open_source(tmp_path, load_rig("aloha"))
    episode = open_source(tmp_path, load_rig("dexvla_bimanual")).read("episode_0.hdf5")
    assert episode.columns["action"].shape == (30, 16)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
@pytest.mark.parametrize("last_axis", [False, True])
def test_a_depth_camera_comes_out_value_for_value(tmp_path: Path, dtype: Any, last_axis: bool) -> None:
    path = write_aloha_episode(tmp_path / "episode_0.hdf5", depth_cameras=("cam_high_depth",))
    depth = (np.arange(30 * 48 * 64).reshape(30, 48, 64) % 4000).astype(dtype)
    with h5py.File(path, "a") as file:
        del file["observations/images/cam_high_depth"]
        file["observations/images/cam_high_depth"] = depth[..., None] if last_axis else depth
    episode = open_source(tmp_path, load_rig("aloha")).read("episode_0.hdf5")
    camera: Any = episode.cameras["cam_high_depth"]
    assert np.array_equal(list(camera.depths()), depth)
    assert next(camera.depths()).dtype == dtype
    assert (camera.spec.depth_unit_m, camera.spec.height, camera.spec.width) == (0.001, 48, 64)


def test_what_is_no_depth_is_refused(tmp_path: Path) -> None:
    write_aloha_episode(tmp_path / "episode_0.hdf5", compressed=False)
    cameras = {"cam_high": {"key": "observations/images/cam_high", "depth_unit_m": 0.001}}
    with pytest.raises(EpisodeError, match=r"depth camera 'cam_high' has shape \(30, 48, 64, 3\) of uint8, not"):
        open_source(tmp_path, changed("aloha", cameras=cameras)).read("episode_0.hdf5")
    write_aloha_episode(tmp_path / "episode_0.hdf5", depth_cameras=("top",))
    colour = {"top": {"key": "observations/images/top", "channel_order": "rgb"}}
    with pytest.raises(EpisodeError, match=r"neither .* nor JPEG rows\. .* Depth needs depth_unit_m: there"):
        open_source(tmp_path, changed("aloha", cameras=colour)).read("episode_0.hdf5")


def test_reasoning_as_a_group_is_kept_part_by_part(tmp_path: Path) -> None:
    path = write_aloha_episode(tmp_path / "episode_0.hdf5", num_frames=4, sim=None)
    with h5py.File(path, "a") as file:
        file["reasoning/subtask"] = [b"reach", b"reach", b"grasp", b"lift"]
        file["reasoning/gripper_position"] = np.asarray([[1, 2], [3, 4], [5, 6], [7, 8]])
    imported = open_source(tmp_path, load_rig("aloha")).read("episode_0.hdf5").imported
    assert imported == {
        "reasoning/subtask": ("reach", "reach", "grasp", "lift"),
        "reasoning/gripper_position": ("[1, 2]", "[3, 4]", "[5, 6]", "[7, 8]"),
    }


@pytest.mark.parametrize(
    ("stored", "task"),
    [
        ("Wipe it.", "Wipe it."),
        (np.bytes_("Wipe it."), "Wipe it."),
        (["Wipe it."], "Wipe it."),
        ([["Wipe it."]], "Wipe it."),
        (np.asarray([b"Wipe it.\0\0"]), "Wipe it."),
        (["  Wipe \u00e9t. "], "Wipe \u00e9t."),
    ],
    ids=["str", "bytes", "array", "two axes", "fixed length", "spaces and accents"],
)
def test_every_form_of_an_instruction_reads_the_same(tmp_path: Path, stored: Any, task: str) -> None:
    path = write_aloha_episode(tmp_path / "episode_0.hdf5", num_frames=3, language=None)
    with h5py.File(path, "a") as file:
        file["language_raw"] = stored
    assert open_source(tmp_path, load_rig("aloha")).read("episode_0.hdf5").meta.task == task


def test_several_instructions_are_all_kept_and_numbers_are_none(tmp_path: Path) -> None:
    path = write_aloha_episode(tmp_path / "episode_0.hdf5", num_frames=3, language=None)
    with h5py.File(path, "a") as file:
        file["language_raw"] = ["Wipe it.", "Clean the board."]
    episode = open_source(tmp_path, load_rig("aloha")).read("episode_0.hdf5")
    assert episode.meta.task == "Wipe it."
    assert episode.imported["language_raw"] == ("Wipe it.", "Clean the board.")
    for bad in ([b"\xff\xfe"], np.zeros(0, "S4")):
        with h5py.File(path, "a") as file:
            del file["language_raw"]
            file["language_raw"] = bad
        with pytest.raises(EpisodeError, match=r"language_raw is not UTF-8 text|no instruction"):
            open_source(tmp_path, load_rig("aloha")).read("episode_0.hdf5")


def test_an_id_survives_another_rig_and_reasoning_that_is_added_later(tmp_path: Path) -> None:
    path = write_aloha_episode(tmp_path / "episode_0.hdf5")
    other = changed(
        "aloha", cameras={}, features={"action": {"key": "action", "scale": 2.0}}, end_effectors=(), arms=()
    )

    def identity(rig: Rig) -> str:
        return open_source(tmp_path, rig).read("episode_0.hdf5").meta.episode_id

    first = identity(load_rig("aloha"))
    assert identity(other) == first
    with h5py.File(path, "a") as file:
        file["substep_reasonings"] = [b"reach"] * 30
        file["language_raw"][0] = b"Put the card down."
    assert identity(load_rig("aloha")) == first
    with h5py.File(path, "a") as file:  # a camera that `other` does not name
        rows = file["observations/images/cam_low"][:]
        rows[3, 300] ^= 1
        file["observations/images/cam_low"][:] = rows
    assert identity(other) == identity(load_rig("aloha")) != first


def test_an_id_is_the_same_however_the_pictures_are_packed(tmp_path: Path) -> None:
    ids = set()
    packings: list[dict[str, Any]] = [{}, {"chunked": False}, {"with_compress_len": False}, {"vlen": True}]
    for number, options in enumerate(packings):
        write_aloha_episode(tmp_path / f"{number}/episode_0.hdf5", **options)
        ids.add(open_source(tmp_path / str(number), load_rig("aloha")).read("episode_0.hdf5").meta.episode_id)
    assert len(ids) == 1


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ({"scale": 0.5}, lambda raw: raw * 0.5),
        ({"offset": -1.25}, lambda raw: raw - 1.25),
        ({"scale": tuple(range(1, 15)), "offset": 0.1}, lambda raw: raw * np.arange(1.0, 15.0) + 0.1),
    ],
)
def test_a_declared_transform_is_computed_in_float64_and_kept_as_float32(
    tmp_path: Path, declared: dict[str, Any], expected: Any
) -> None:
    raw = trajectory(30, 14, seed=3).astype(np.float64) / 3
    write_aloha_episode(tmp_path / "episode_0.hdf5", action=raw)
    feature = {**load_rig("aloha").features["action"].model_dump(), **declared}
    features = {**load_rig("aloha").model_dump()["features"], "action": feature}
    episode = open_source(tmp_path, changed("aloha", features=features)).read("episode_0.hdf5")
    assert episode.columns["action"].dtype == np.float32
    assert np.array_equal(episode.columns["action"], expected(raw).astype(np.float32))
    assert episode.columns["observation.state"].dtype == np.float32, "what has no transform keeps its bits"


def test_a_transform_of_the_wrong_width_or_beyond_float32_is_named(tmp_path: Path) -> None:
    write_aloha_episode(tmp_path / "episode_0.hdf5", action=bimanual_14(30).astype(np.float64))
    for declared, error, message in (
        ({"scale": (1.0, 2.0)}, RigError, r"'action': scale has 2 values for 14 dimensions"),
        ({"scale": 1e300}, EpisodeError, r"action has an infinite value at frame 0"),
    ):
        features = {"action": {"key": "action", **declared}}
        rig = changed("aloha", features=features, end_effectors=(), arms=())
        with pytest.raises(error, match=message):
            open_source(tmp_path, rig).read("episode_0.hdf5")


def test_numbers_of_another_byte_order_come_out_as_the_same_numbers(tmp_path: Path) -> None:
    write_aloha_episode(tmp_path / "episode_0.hdf5", action=bimanual_14(30, seed=5).astype(">f8"))
    action = open_source(tmp_path, load_rig("aloha")).read("episode_0.hdf5").columns["action"]
    assert action.dtype.isnative
    assert np.array_equal(action, bimanual_14(30, seed=5))


def test_metadata_comes_from_datasets_and_attributes_of_each_file(tmp_path: Path) -> None:
    for index, operator in enumerate(("ada", "")):
        path = write_aloha_episode(tmp_path / f"episode_{index}.hdf5", num_frames=3)
        with h5py.File(path, "a") as file:
            file.attrs["operator"] = operator
            file["meta/station"] = 3 + index
            file["meta"].attrs["site"] = np.bytes_("lab b")
    keys = {"operator": "operator", "station": "meta/station", "scene": "meta/site"}
    source = open_source(tmp_path, changed("aloha", metadata={"keys": keys, "fixed": {"operator": "nobody"}}))
    metas = [source.read(name).meta for name in source.names()]
    assert [(meta.operator, meta.station, meta.scene) for meta in metas] == [
        ("ada", "3", "lab b"),
        ("nobody", "4", "lab b"),
    ]
    with pytest.raises(RigError, match=r"metadata.keys has 'pilot'. Use only: task, operator"):
        open_source(tmp_path, changed("aloha", metadata={"keys": {"pilot": "operator"}}))


def test_variable_rows_of_very_different_lengths_come_out_whole(tmp_path: Path) -> None:
    path = write_aloha_episode(tmp_path / "episode_0.hdf5", num_frames=200, cameras=("cam_high",), vlen=True)
    first = jpeg(pictures(1)[0])
    padded = first[:2] + b"\xff\xfe\xff\xff" + bytes(65533) + first[2:]  # a long comment makes any JPEG longer
    with h5py.File(path, "a") as file:
        for index in range(200):
            row = padded if index % 2 else first
            file["observations/images/cam_high"][index] = np.frombuffer(row, np.uint8)
    camera: Any = open_source(tmp_path, load_rig("aloha")).read("episode_0.hdf5").cameras["cam_high"]
    assert [len(row) for row in camera.jpegs()] == [len(padded) if index % 2 else len(first) for index in range(200)]


def test_the_survey_shows_depth_and_its_draft_converts_once_answered(tmp_path: Path) -> None:
    write_aloha_episode(tmp_path / "raw/episode_0.h5", depth_cameras=("cam_high_depth",))
    found = inspect_path(tmp_path / "raw")
    assert "cam_high_depth is uint16" in " | ".join(found.notes)
    assert "to convert it, name it under cameras: with depth_unit_m" in " | ".join(found.notes)
    draft = found.draft_rig_yaml.replace("rate_hz: null", "rate_hz: 50")
    (tmp_path / "mylab.yaml").write_text(draft.replace("channel_order: unknown", "channel_order: rgb"))
    episode = open_source(tmp_path / "raw", load_rig(str(tmp_path / "mylab.yaml"))).read("episode_0.h5")
    assert set(episode.cameras) >= {"cam_high", "cam_low"}


def test_a_jpeg_of_another_size_among_equal_ones_is_refused_when_it_is_read(tmp_path: Path) -> None:
    path = write_aloha_episode(tmp_path / "episode_0.hdf5")
    with h5py.File(path, "a") as file:
        rows = file["observations/images/cam_high"]
        row = rows[4]
        size = bytes(row).index(b"\xff\xc0") + 5  # of the frame header: height and width, two bytes each
        row[size + 2 : size + 4] = 0, 32
        rows[4] = row
    with pytest.raises(EpisodeError, match=r"camera 'cam_high': a 32x48 YCbCr JPEG where 64x48 colour was declared"):
        open_source(tmp_path, load_rig("aloha")).read("episode_0.hdf5")


def test_a_link_to_another_file_is_refused(tmp_path: Path) -> None:
    """Its pictures would not be hashed, and their places would be read in the wrong file."""
    whole = write_aloha_episode(tmp_path / "elsewhere/whole.hdf5", num_frames=4)
    linked = write_aloha_episode(tmp_path / "raw/episode_0.hdf5", num_frames=4)
    with h5py.File(linked, "a") as file:
        del file["observations/images/cam_high"]
        file["observations/images/cam_high"] = h5py.ExternalLink(str(whole), "observations/images/cam_high")
    source = open_source(tmp_path / "raw", changed("aloha_sim", metadata={}))
    with pytest.raises(EpisodeError, match=r"cam_high' is a link to another file .*Copy the data into the file"):
        source.read("episode_0.hdf5")


def create_partly(path: Path, key: str, chunks: tuple[int, ...], written: Any, libver: str, **how: Any) -> None:
    """Create a dataset of an episode anew, and write some of it; what `chunks` leaves out of the shape is whole."""
    with h5py.File(path, "a", libver=libver) as file:
        values = file[key][:]
        del file[key]
        whole = (*chunks, *values.shape[len(chunks) :]) if chunks else None
        dataset = file.create_dataset(key, values.shape, values.dtype, chunks=whole, **how)
        if written is not None:
            dataset[written] = values[written]


@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize(
    ("key", "chunks", "how", "written", "num_lost"),
    [
        ("observations/qpos", (1,), {}, np.s_[:20], 10),
        ("observations/qpos", (1,), {"maxshape": (None, 14)}, np.s_[10:20], 20),
        ("action", (4,), {"compression": "gzip"}, np.s_[:18], 10),
        ("action", (4, 7), {}, np.s_[:, :7], 30),
        ("action", (), {}, None, 30),
        ("observations/images/cam_high", (1,), {}, np.s_[:20], 10),
        ("observations/images/cam_low", (8,), {"compression": "gzip"}, np.s_[:20], 6),
    ],
)
@pytest.mark.parametrize("compressed", [True, False])
def test_rows_that_were_never_written_are_refused_and_zeros_that_were_are_not(
    tmp_path: Path,
    compressed: bool,
    key: str,
    chunks: tuple[int, ...],
    how: dict[str, Any],
    written: Any,
    num_lost: int,
    libver: str,
) -> None:
    path = write_aloha_episode(tmp_path / "episode_0.hdf5", compressed=compressed)
    with h5py.File(path) as file:
        values = file[key][:]
    create_partly(path, key, chunks, written, libver, **how)
    source = open_source(tmp_path, load_rig("aloha"))
    sentence = rf"episode_0.hdf5: {num_lost} of 30 rows of {key} were never written .* Record it again, trim"
    with pytest.raises(EpisodeError, match=sentence):
        source.read("episode_0.hdf5")
    with h5py.File(path, "a") as file:
        file[key][...] = values if compressed and "images" in key else 0
        file.create_dataset("observations/spare", (30, 7), "f4", chunks=(1, 7))  # the rig does not take it
    assert source.read("episode_0.hdf5").num_frames == 30
