"""Robot files: MJCF and URDF are followed to the tool, and a file that does not fit is answered with one sentence."""

from pathlib import Path

import h5py
import mujoco
import numpy as np
import pytest
import yaml

from apps.sim.game import draw_scene
from apps.sim.tabletop import build_tabletop
from dataengine.editing.rigs import edited_rig
from dataengine.fitting import rig_difference
from dataengine.rig_files import RIG_FOLDER, load_rig
from dataengine.robot_models import tool_positions_m, with_chain
from schemas.errors import RigError
from schemas.rigs import Rig

# Two links of 0.3 and 0.2 m that turn about z, then 0.1 m straight up to a tool that is fixed to the second one. Its
# meshes are nowhere on this machine, as with most URDFs that are handed on.
PLANAR = """<?xml version="1.0"?>
<robot name="planar">
  <link name="base"><visual><geometry><mesh filename="package://planar/base.stl"/></geometry></visual></link>
  <link name="upper"><visual><geometry><mesh filename="package://planar/upper.dae"/></geometry></visual></link>
  <link name="lower"/>
  <link name="tool"/>
  <joint name="shoulder" type="revolute">
    <parent link="base"/><child link="upper"/><axis xyz="0 0 1"/><limit lower="-3" upper="3" effort="1" velocity="1"/>
  </joint>
  <joint name="elbow" type="continuous">
    <parent link="upper"/><child link="lower"/><origin xyz="0.3 0 0"/><axis xyz="0 0 1"/>
  </joint>
  <joint name="flange" type="fixed"><parent link="lower"/><child link="tool"/><origin xyz="0.2 0 0.1"/></joint>
</robot>
"""


def rig_file(folder: Path, *, kinematics: object, robot: str = PLANAR, **arm: object) -> str:
    """A rig of a planar arm, beside its robot file."""
    (folder / "planar.urdf").write_text(robot)
    said = {
        "name": "planar",
        "source": "aloha_hdf5",
        "robot_type": "planar",
        "rate_hz": 50,
        "features": {"observation.state": {"key": "observations/qpos"}, "action": {"key": "action"}},
        "arms": [{"name": "arm", "indices": [0, 1], "joints": ["shoulder", "elbow"], "tool": "tool", **arm}],
        "kinematics": kinematics,
    }
    path = folder / "planar.yaml"
    path.write_text(yaml.safe_dump(said))
    return str(path)


def test_the_bundled_robot_file_puts_both_tips_where_the_simulator_has_them() -> None:
    rig = load_rig("aloha_sim")
    built = build_tabletop(draw_scene(split="in-domain", seed=1, index=0), image_size=(64, 64))
    model = mujoco.MjModel.from_xml_string(built.xml, built.assets)
    data = mujoco.MjData(model)
    rows = np.random.default_rng(4).uniform(-1.5, 1.5, (20, 6))
    for arm in rig.arms:
        ours = tool_positions_m(rig, arm, rows)
        for row, position_m in zip(rows, ours, strict=True):
            for name, angle in zip(arm.joints, row, strict=True):
                data.joint(name).qpos[0] = angle
            mujoco.mj_kinematics(model, data)
            np.testing.assert_allclose(position_m, data.site(arm.tool).xpos, atol=1e-5)


def test_a_urdf_without_its_meshes_is_followed_to_a_tool_that_is_fixed_to_the_last_link(tmp_path: Path) -> None:
    rig = load_rig(rig_file(tmp_path, kinematics={"file": "planar.urdf"}))
    rows = np.array([[0.0, 0.0], [np.pi / 2, 0.0], [0.4, -1.1]])
    shoulder, both = rows[:, 0], rows.sum(axis=1)
    expected = np.stack(
        [
            0.3 * np.cos(shoulder) + 0.2 * np.cos(both),
            0.3 * np.sin(shoulder) + 0.2 * np.sin(both),
            np.full(3, 0.1),
        ],
        axis=1,
    )
    np.testing.assert_allclose(tool_positions_m(rig, rig.arms[0], rows), expected, atol=1e-6)
    assert (
        load_rig(rig_file(tmp_path, kinematics={"file": "planar.urdf", "frame": "base"})).kinematics == rig.kinematics
    )
    in_upper = load_rig(rig_file(tmp_path, kinematics={"file": "planar.urdf", "frame": "upper"}))
    turned = tool_positions_m(in_upper, in_upper.arms[0], rows)  # the shoulder turns the frame along
    elbow = rows[:, 1]
    np.testing.assert_allclose(turned[:, 0], 0.3 + 0.2 * np.cos(elbow), atol=1e-6)
    np.testing.assert_allclose(turned[:, 1], 0.2 * np.sin(elbow), atol=1e-6)


def test_the_tool_of_a_real_demonstration_meets_the_cube_that_it_lifts(samples: Path) -> None:
    """robosuite's Panda, moved by a person; its model names 22 meshes that are not there."""
    folder = samples / "robosuite_teleop/v1.0.1/robosuite/models/assets/demonstrations/lift/panda"
    said = load_rig("robosuite_panda").model_dump(mode="json")
    said["arms"][0] |= {"joints": [f"robot0_joint{at}" for at in range(1, 8)], "tool": "gripper0_grip_site"}
    said["kinematics"] = {"file": "models/model_1.xml"}
    rig = with_chain(Rig.model_validate(said), folder, folder)
    with h5py.File(folder / "demo.hdf5") as file:
        states = file["data/demo_1/states"][:]
    tool_m, cube_m = tool_positions_m(rig, rig.arms[0], states[:, 1:8]), states[:, 10:13]
    apart_m = np.linalg.norm(tool_m - cube_m, axis=1)
    assert apart_m[0] > 0.2
    assert cube_m[-1, 2] - cube_m[0, 2] > 0.08
    assert apart_m[-1] < 0.005


def test_a_rig_carries_its_chain_to_where_the_file_is_not(tmp_path: Path) -> None:
    rig = load_rig(rig_file(tmp_path, kinematics={"file": "planar.urdf"}))
    (tmp_path / "planar.urdf").unlink()
    moved = Rig.model_validate_json(rig.model_dump_json())
    assert moved == rig
    assert moved.schema_version == 3
    renamed = edited_rig(moved, {"observation.state": "observation.joints"}, [])
    rows = np.array([[0.2, 0.1]])
    np.testing.assert_array_equal(
        tool_positions_m(renamed, renamed.arms[0], rows), tool_positions_m(rig, rig.arms[0], rows)
    )


def test_a_rig_that_lost_its_chain_says_where_to_find_it(tmp_path: Path) -> None:
    rig = load_rig(rig_file(tmp_path, kinematics={"file": "planar.urdf"}))
    assert rig.kinematics is not None
    lost = rig.model_copy(update={"kinematics": rig.kinematics.model_copy(update={"chain": None})})
    with pytest.raises(RigError, match=r"rig 'planar' holds no chain of its robot file. Load it from its YAML"):
        tool_positions_m(lost, lost.arms[0], np.zeros((1, 2)))


def test_a_copy_of_a_shipped_rig_still_finds_its_robot_file(tmp_path: Path) -> None:
    copy = tmp_path / "mine.yaml"
    copy.write_text((RIG_FOLDER / "aloha_sim.yaml").read_text())
    assert load_rig(str(copy)) == load_rig("aloha_sim")


def test_a_rig_that_says_nothing_of_kinematics_reads_as_it_did_before() -> None:
    said = load_rig("aloha").model_dump(mode="json")
    assert "kinematics" not in said
    assert said["schema_version"] == 2
    assert set(said["arms"][0]) == {"name", "side", "feature", "indices"}


def test_telling_a_rig_its_robot_file_leaves_old_datasets_open_to_new_episodes() -> None:
    rig = load_rig("aloha_sim")
    bare = tuple(arm.model_copy(update={"joints": (), "tool": None}) for arm in rig.arms)
    assert rig_difference(rig.model_copy(update={"arms": bare, "kinematics": None}), rig) is None


@pytest.mark.parametrize(
    ("kinematics", "arm", "message"),
    [
        ({"file": "none.urdf"}, {}, "none.urdf, which is not there. Put the MJCF or URDF beside the rig file"),
        ({"file": "planar.yaml"}, {}, "planar.yaml can not be read as MJCF or URDF"),
        ({"file": "planar.urdf"}, {"joints": ["shoulder", "elbw"]}, "no joint 'elbw' .* Did you mean 'elbow'"),
        ({"file": "planar.urdf"}, {"tool": "toll"}, "no site, body or link 'toll'. Did you mean 'tool'"),
        ({"file": "planar.urdf"}, {"tool": "upper"}, "joint 'elbow' of arm 'arm' does not move its tool 'upper'"),
        ({"file": "planar.urdf", "frame": "moon"}, {}, "no site, body or link 'moon'"),
        ({"file": "planar.urdf"}, {"joints": ["elbow"]}, "2 indices but 1 joints"),
        ({"file": "planar.urdf"}, {"tool": None}, "has one of joints and tool; give both, or neither"),
        ({"file": "planar.urdf"}, {"joints": [], "tool": None}, "but no arm has joints and a tool in it"),
        (
            {},
            {"joints": [], "tool": None, "position": {"feature": "pose", "indices": [0, 1, 2]}},
            "reads feature 'pose'",
        ),
        ({"frame": "base"}, {}, "names no kinematics.file to find them in"),
        (None, {"joints": [], "tool": None, "position": {"indices": [0, 1, 2]}}, "in no kinematics which way is left"),
        ({"file": "planar.urdf", "left": "+x"}, {}, "do not use each of x, y and z once"),
        ({"file": "planar.urdf", "left": "-y"}, {}, "a mirrored frame; turn one of them round"),
    ],
)
def test_what_does_not_fit_is_one_sentence(
    tmp_path: Path, kinematics: object, arm: dict[str, object], message: str
) -> None:
    path = rig_file(tmp_path, kinematics=kinematics, **arm)
    with pytest.raises(RigError, match=message) as caught:
        load_rig(path)
    assert "\n" not in str(caught.value)
