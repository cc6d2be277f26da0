"""UMI's dataset.zarr.zip: JPEG XL pictures in a zip, and an action that is the pose one row later.

The zips are written by zipfile, json and imagecodecs alone, as UMI's own script lays them out.
"""

import json
import pickle
import zipfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from raw_files import pictures, trajectory

from dataengine.convert import convert
from dataengine.episode_set import EpisodeSet
from dataengine.inspection import inspect_path
from dataengine.rig_files import RIG_FOLDER, load_rig
from dataengine.sources import detect, open_source
from dataengine.verification import verify
from dataengine.workspace import Workspace
from schemas.errors import ArtifactError, EpisodeError, RigError, SourceError
from schemas.refs import Ref

_JPEGXL = {
    "id": "imagecodecs_jpegxl",
    "decodingspeed": None,
    "distance": None,
    "effort": None,
    "index": None,
    "keeporientation": None,
    "level": 99,
    "lossless": False,
    "numthreads": 1,
    "photometric": None,
    "planar": None,
    "usecontainer": None,
}


def put(
    file: zipfile.ZipFile, key: str, values: NDArray[Any], chunks: Sequence[int], codec: dict[str, Any] | None
) -> None:
    """One zarr v2 array, chunked along its first axis; `codec` None = stored as it is."""
    file.writestr(
        f"{key}/.zarray",
        json.dumps(
            {
                "zarr_format": 2,
                "shape": values.shape,
                "chunks": chunks,
                "dtype": values.dtype.str,
                "compressor": codec,
                "fill_value": 0,
                "filters": None,
                "order": "C",
            }
        ),
    )
    for number, first in enumerate(range(0, len(values), chunks[0])):
        rows = values[first : first + chunks[0]]
        name = ".".join([str(number)] + ["0"] * (values.ndim - 1))
        if codec is not None:
            content = imagecodecs.jpegxl_encode(rows[0], level=99, lossless=False, numthreads=1)
        else:  # the last chunk is filled up
            content = np.concatenate([rows, np.zeros((chunks[0] - len(rows), *rows.shape[1:]), rows.dtype)]).tobytes()
        file.writestr(f"{key}/{name}", content)


def write_umi(
    path: Path,
    frames: NDArray[np.uint8],
    lengths: Sequence[int],
    *,
    num_hands: int = 1,
    drop: str | None = None,
    state: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """A UMI zip; returns (rows, 7) pose and width of robot 0. `drop` is a member to leave out."""
    total = sum(lengths)
    poses = [trajectory(total, 7, seed=hand) if state is None else state for hand in range(num_hands)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path.with_suffix(".tmp"), "w") as file:
        for group in ("", "data/", "meta/"):
            file.writestr(f"{group}.zgroup", '{"zarr_format": 2}')
        put(file, "meta/episode_ends", np.cumsum(lengths).astype(np.int64), (len(lengths),), None)
        for hand, pose in enumerate(poses):
            put(file, f"data/camera{hand}_rgb", frames, (1, *frames.shape[1:]), _JPEGXL)
            put(file, f"data/robot{hand}_eef_pos", pose[:, :3], (total, 3), None)
            put(file, f"data/robot{hand}_eef_rot_axis_angle", pose[:, 3:6], (total, 3), None)
            put(file, f"data/robot{hand}_gripper_width", pose[:, 6:], (total, 1), None)
            for end in ("start", "end"):
                fixed = np.full((total, 6), 0.25 if end == "start" else 0.5, np.float64)
                put(file, f"data/robot{hand}_demo_{end}_pose", fixed, (total, 6), None)
    with zipfile.ZipFile(path.with_suffix(".tmp")) as old, zipfile.ZipFile(path, "w") as new:
        for member in old.namelist():
            if member != drop:
                new.writestr(member, old.read(member))
    path.with_suffix(".tmp").unlink()
    return poses[0]


def my_rig(tmp_path: Path, base: str = "umi", **changes: Any) -> str:
    rig = yaml.safe_load((RIG_FOLDER / f"{base}.yaml").read_text())
    path = tmp_path / "my.yaml"
    path.write_text(yaml.safe_dump({**rig, "task": "Serve the cup.", **changes}))
    return str(path)


def decoded(frames: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    return [
        imagecodecs.jpegxl_decode(imagecodecs.jpegxl_encode(frame, level=99, lossless=False, numthreads=1))
        for frame in frames
    ]


def test_the_action_is_the_next_pose_and_the_last_row_is_given_up(tmp_path: Path) -> None:
    frames = pictures(14, height=32, width=32)
    pose = write_umi(tmp_path / "raw/dataset.zarr.zip", frames, (6, 8))
    assert detect(tmp_path / "raw") == detect(tmp_path / "raw/dataset.zarr.zip") == "umi_zarr"
    source = pickle.loads(pickle.dumps(open_source(tmp_path / "raw", load_rig(my_rig(tmp_path)))))
    first, second = (source.read(name) for name in source.names())
    assert (first.num_frames, second.num_frames) == (5, 7)
    assert np.array_equal(second.columns["observation.state"], pose[6:13])
    assert np.array_equal(second.columns["action"], pose[7:14])
    assert second.columns["demo_end_pose"].dtype == np.float64
    assert np.array_equal(list(second.cameras["camera0"].arrays()), decoded(frames[6:13]))
    assert "action" not in {key.key for key in source.rig.features.values()}


def test_without_a_shift_every_row_is_kept(tmp_path: Path) -> None:
    write_umi(tmp_path / "dataset.zarr.zip", pictures(6, height=32, width=32), (6,))
    rig = yaml.safe_load((RIG_FOLDER / "umi.yaml").read_text())
    rig["features"]["action"]["shift_rows"] = 0
    source = open_source(tmp_path, load_rig(my_rig(tmp_path, features=rig["features"])))
    episode = source.read("episode_000000")
    assert episode.num_frames == 6
    assert np.array_equal(episode.columns["action"], episode.columns["observation.state"])
    later = open_source(tmp_path, load_rig(my_rig(tmp_path))).read("episode_000000")
    assert later.meta.episode_id == episode.meta.episode_id  # the id is the recording's, not the rig's


def test_an_episode_shorter_than_the_shift_is_refused(tmp_path: Path) -> None:
    write_umi(tmp_path / "dataset.zarr.zip", pictures(7, height=32, width=32), (6, 1))
    source = open_source(tmp_path, load_rig(my_rig(tmp_path)))
    with pytest.raises(EpisodeError, match=r"episode_000001: 1 rows are too few where an action is taken 1 rows later"):
        source.read("episode_000001")


def test_a_shift_in_a_format_that_does_not_honour_it_is_refused(tmp_path: Path) -> None:
    rig = yaml.safe_load((RIG_FOLDER / "aloha_sim.yaml").read_text())
    rig["features"]["action"]["shift_rows"] = 1
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(rig))
    with pytest.raises(RigError, match=r"'action' has shift_rows, which is read from diffusion_zarr, umi_zarr, rlds"):
        load_rig(str(tmp_path / "x.yaml"))


def test_two_hands_lie_side_by_side(tmp_path: Path) -> None:
    right = write_umi(tmp_path / "dataset.zarr.zip", pictures(5, height=32, width=32), (5,), num_hands=2)
    source = open_source(tmp_path, load_rig(my_rig(tmp_path, base="umi_bimanual")))
    episode = source.read("episode_000000")
    assert np.array_equal(episode.columns["action"], np.hstack([right, trajectory(5, 7, seed=1)])[1:])
    assert set(episode.cameras) == {"camera0", "camera1"}


def test_a_picture_that_is_not_in_the_zip_is_an_error_and_not_a_black_frame(tmp_path: Path) -> None:
    write_umi(tmp_path / "dataset.zarr.zip", pictures(9, height=32, width=32), (4, 5), drop="data/camera0_rgb/6.0.0.0")
    source = open_source(tmp_path, load_rig(my_rig(tmp_path)))
    assert source.read("episode_000000").num_frames == 3
    with pytest.raises(EpisodeError, match=r"1 of 5 chunks of data/camera0_rgb are not in the store \(6.0.0.0 first"):
        source.read("episode_000001")


def test_a_zip_that_is_cut_says_so(tmp_path: Path) -> None:
    write_umi(tmp_path / "dataset.zarr.zip", pictures(4, height=32, width=32), (4,))
    path = tmp_path / "dataset.zarr.zip"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(SourceError, match=r"dataset.zarr.zip is not a readable zarr group .*Copy it again"):
        open_source(tmp_path, load_rig(my_rig(tmp_path)))


def test_stamps_and_fingerprint_follow_one_changed_byte(tmp_path: Path) -> None:
    path = tmp_path / "dataset.zarr.zip"
    pose = write_umi(path, pictures(4, height=32, width=32), (4,))
    one = open_source(tmp_path, load_rig(my_rig(tmp_path)))
    before = (one.stamps(), one.fingerprint(), one.read("episode_000000").meta.episode_id)
    changed = pose.copy()
    changed[2, 6] = np.nextafter(changed[2, 6], np.float32(9))
    write_umi(path, pictures(4, height=32, width=32), (4,), state=changed)
    two = open_source(tmp_path, load_rig(my_rig(tmp_path)))
    after = (two.stamps(), two.fingerprint(), two.read("episode_000000").meta.episode_id)
    assert all(first != second for first, second in zip(before, after, strict=True))


@pytest.mark.parametrize("is_absolute", [False, True])
def test_a_corrected_csv_beside_the_zip_is_another_input(
    tmp_path: Path, workspace: Workspace, is_absolute: bool
) -> None:
    raw = tmp_path / "raw"
    write_umi(raw / "dataset.zarr.zip", pictures(14, height=32, width=32), (6, 8))
    bare = open_source(raw, load_rig(my_rig(tmp_path)))
    before, labels = bare.fingerprint(), raw / "episodes.csv"
    labels.write_text("episode,operator\n0,ada\n1,bob\n")
    assert bare.fingerprint() == before, "a CSV that no rig names changes nothing"
    rig = my_rig(tmp_path, metadata={"csv": str(labels) if is_absolute else labels.name})
    run = partial(convert, source_path=raw, workspace=workspace, rig=rig, sink="lerobot", workers=1)
    run(to=Ref("cup", "1"))
    assert run(to=Ref("cup", "1")).already_there
    labels.write_text("episode,operator\n0,ada\n1,eve\n")
    with pytest.raises(ArtifactError, match=r"cup@1' exists and was made differently \(input raw"):
        run(to=Ref("cup", "1"))
    run(to=Ref("cup", "2"))
    episodes = EpisodeSet.open(workspace, Ref("cup", "2"))
    assert [episodes.row(name).metadata["operator"] for name in episodes.ids()] == ["ada", "eve"]


def test_without_a_rig_or_an_instruction_one_is_asked_for(tmp_path: Path) -> None:
    write_umi(tmp_path / "dataset.zarr.zip", pictures(4, height=32, width=32), (4,))
    with pytest.raises(RigError, match=r"stores no rate. Pass a rig that states it: --rig umi"):
        open_source(tmp_path, None)
    with pytest.raises(EpisodeError, match=r"no instruction"):
        open_source(tmp_path, load_rig("umi")).read("episode_000000")


def test_the_draft_joins_poses_and_works_once_answered(tmp_path: Path) -> None:
    pose = write_umi(tmp_path / "raw/dataset.zarr.zip", pictures(6, height=32, width=32), (6,), num_hands=2)
    found = inspect_path(tmp_path / "raw")
    assert (found.kind, found.folder, found.num_episodes) == ("umi_zarr", "dataset.zarr.zip", 1)
    draft = found.draft_rig_yaml
    answers = {
        "rate_hz: null": "rate_hz: 60",
        "task: null": "task: Serve.",
        "channel_order: unknown": "channel_order: rgb",
    }
    for question, answer in answers.items():
        assert question in draft
        draft = draft.replace(question, answer)
    (tmp_path / "mylab.yaml").write_text(draft)
    episode = open_source(tmp_path / "raw", load_rig(str(tmp_path / "mylab.yaml"))).read("episode_000000")
    assert np.array_equal(episode.columns["action"][:, :7], pose[1:])
    assert episode.columns["observation.state"].shape == (5, 14)
    assert {name for name in episode.columns if name.startswith("observation.")} == {"observation.state"}


def test_real_cup_pictures_in_a_umi_zip_convert_and_verify(samples: Path, tmp_path: Path) -> None:
    import av

    folder = samples / "lerobot_v1_tests/umi_cup_in_the_wild/videos"
    with av.open(str(folder / "observation.image_episode_000000.mp4")) as container:
        stream = zip(range(24), container.decode(video=0), strict=False)
        frames = np.stack([frame.to_ndarray(format="rgb24") for _, frame in stream])
    assert frames.shape == (24, 224, 224, 3)
    pose = write_umi(tmp_path / "raw/dataset.zarr.zip", frames, (10, 14))
    workspace, ref, rig = Workspace.at(tmp_path / "workspace"), Ref("cup", "1"), my_rig(tmp_path)
    report = convert(source_path=tmp_path / "raw", to=ref, workspace=workspace, rig=rig, sink="both", workers=1)
    assert (report.num_episodes, report.num_frames, report.rejected) == (2, 22, ())
    proof = verify(source_path=tmp_path / "raw", ref=ref, workspace=workspace, workers=1)
    assert [row for row in proof.rows if not row.ok] == []
    episodes = EpisodeSet.open(workspace, ref)
    assert np.array_equal(episodes.columns(episodes.ids()[1])["action"], pose[11:])
