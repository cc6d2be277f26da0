"""The MuJoCo model of the table: two arms and two cameras; on it a whiteboard with a ledge and three cards.

x runs to the right of the picture, y away from the arms' bases, z up from the table top; metres. Shapes are written
out here, nothing is downloaded. The writing is a texture on geoms that touch nothing: a `plane` on the board (planes
collide without end, and a 2-D texture on a box renders blank), a thin slab on each card (a plane cannot move).
"""

import io
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from apps.sim.game import Card, Scene
from dataengine.rendered.handwriting import write
from dataengine.rendered.keyed import keyed_rng

ARMS = ("left", "right")
JOINTS = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_pitch", "wrist_roll")
CAMERAS = ("cam_high", "cam_low")

PHYSICS_STEP_S = 0.002
CONTROL_HZ = 50

CARD_HALF_M = (0.030, 0.022, 0.018)
LEDGE_CENTRE_M = (0.0, 0.165)
LEDGE_HALF_M = (0.22, 0.045)
LEDGE_TOP_M = 0.024
FINGER_TRAVEL_M = 0.042

_BOARD_HALF_M = (0.20, 0.076)
_BOARD_TILT_DEG = 20.0
_BASE_XY_M = {"left": (-0.24, -0.34), "right": (0.24, -0.34)}
_JOINT_RANGE_RAD = ((-2.6, 2.6), (-1.7, 1.7), (-1.9, 2.2), (-2.9, 2.9), (-1.9, 2.2), (-2.9, 2.9))
_DARK = "0.20 0.21 0.24 1"
_LIGHT = "0.80 0.81 0.84 1"
_ACCENT = {"left": "0.14 0.46 0.75 1", "right": "0.90 0.49 0.13 1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TabletopXml:
    """What `mujoco.MjModel.from_xml_string` takes."""

    xml: str
    assets: dict[str, bytes]


def build_tabletop(scene: Scene, *, image_size: tuple[int, int]) -> TabletopXml:
    """The model of one set-up; `image_size` is (width, height) in pixels."""
    rng = keyed_rng("writing", scene.split, scene.seed, scene.index)
    sheets = {"board": write(f"{scene.equation.text}=?", style=scene.style, size=(480, 182), height=0.62, rng=rng)}
    for slot, card in enumerate(scene.cards):
        sheets[f"card{slot}"] = write(str(card.number), style=scene.style, size=(180, 132), height=0.80, rng=rng)
    assets = {f"{name}.png": _png(sheet) for name, sheet in sheets.items()}
    textures = "".join(
        f'<texture name="{name}" type="2d" file="{name}.png"/>'
        f'<material name="{name}" texture="{name}" texuniform="false" specular="0" reflectance="0" emission="0.25"/>'
        for name in sheets
    )
    board = f"""
    <geom name="ledge" class="thing" type="box" size="{LEDGE_HALF_M[0]} {LEDGE_HALF_M[1]} {LEDGE_TOP_M / 2}"
          pos="{LEDGE_CENTRE_M[0]} {LEDGE_CENTRE_M[1]} {LEDGE_TOP_M / 2}" rgba="0.42 0.45 0.50 1"/>
    <body name="board" pos="0 {LEDGE_CENTRE_M[1] + LEDGE_HALF_M[1]} {LEDGE_TOP_M}"
          axisangle="1 0 0 {np.deg2rad(_BOARD_TILT_DEG):.5f}">
      <geom class="thing" type="box" pos="0 {_BOARD_HALF_M[1] + 0.008} -0.008"
            size="{_BOARD_HALF_M[0] + 0.012} {_BOARD_HALF_M[1] + 0.012} 0.006" rgba="0.32 0.34 0.38 1"/>
      <geom class="paint" type="plane" pos="0 {_BOARD_HALF_M[1] + 0.008} 0.0"
            size="{_BOARD_HALF_M[0]} {_BOARD_HALF_M[1]} 0.01" material="board"/>
    </body>"""
    cards = "".join(_card(slot, card) for slot, card in enumerate(scene.cards))
    light = keyed_rng("light", scene.split, scene.seed, scene.index).uniform(-1.0, 1.0, 3)
    xml = station_xml(image_size=image_size, light=light, assets=textures + _label_mesh(), fixed=board, movable=cards)
    return TabletopXml(xml=xml, assets=assets | {"wood.png": wood_png()})


def station_xml(
    *, image_size: tuple[int, int], light: NDArray[np.float64], assets: str, fixed: str, movable: str
) -> str:
    """The station with whatever is put on its table; `light` is (3,) in -1..1: where from, and how bright.

    `assets`, `fixed` and `movable` are MuJoCo XML; `movable` comes after the arms, so that joints keep their order. The
    wood of the table is `wood.png`.
    """
    arms = "".join(_arm(side) for side in ARMS)
    return f"""
<mujoco model="tabletop">
  <compiler angle="radian" autolimits="true"/>
  <option timestep="{PHYSICS_STEP_S}" integrator="implicitfast" cone="elliptic" impratio="10"/>
  <size memory="16M"/>
  <statistic extent="0.6" center="0 0.05 0.1"/>
  <visual>
    <global offwidth="{image_size[0]}" offheight="{image_size[1]}"/>
    <quality shadowsize="512" offsamples="0" numslices="12" numstacks="6"/>
    <headlight ambient="0.38 0.38 0.38" diffuse="0.30 0.30 0.30" specular="0 0 0"/>
    <map znear="0.05" zfar="4" shadowclip="1.2"/>
  </visual>
  <default>
    <geom condim="4" friction="1.2 0.02 0.0005" solref="0.004 1" solimp="0.95 0.99 0.001"/>
    <joint armature="0.02" damping="0.5"/>
    <default class="paint"><geom contype="0" conaffinity="0" group="1" mass="0"/></default>
    <default class="thing"><geom contype="2" conaffinity="7"/></default>
    <default class="arm_left"><geom contype="1" conaffinity="6"/></default>
    <default class="arm_right"><geom contype="4" conaffinity="3"/></default>
  </default>
  <asset>
    <texture name="sky" type="skybox" builtin="flat" rgb1="0.86 0.88 0.90" width="8" height="8"/>
    <texture name="wood" type="2d" file="wood.png"/>
    <material name="wood" texture="wood" texrepeat="2 1" specular="0.05"/>
    {assets}
  </asset>
  <worldbody>
    <light pos="0 -0.1 1.1" dir="{0.10 * light[0]:.4f} {0.12 + 0.05 * light[1]:.4f} -1" directional="true"
           diffuse="{" ".join([f"{0.44 + 0.06 * light[2]:.4f}"] * 3)}" specular="0.05 0.05 0.05" castshadow="true"/>
    <camera name="cam_high" pos="0 -0.01 0.98" xyaxes="1 0 0 0 0.9888 0.1494" fovy="29.5"/>
    <camera name="cam_low" pos="0 -0.58 0.62" xyaxes="1 0 0 0 0.70 0.714" fovy="46"/>
    <geom name="table" class="thing" type="box" pos="0 0.05 -0.02" size="0.62 0.52 0.02" material="wood"/>
    {fixed}
    {arms}
    {movable}
  </worldbody>
  <actuator>{"".join(_servos(side) for side in ARMS)}</actuator>
</mujoco>"""


@cache
def wood_png() -> bytes:
    """Soft grain along x: broad enough that a JPEG of the table stays small."""
    rng = keyed_rng("wood")
    across, along = np.mgrid[0:1:256j, 0:1:256j]
    grain = np.zeros_like(across)
    for waves in (5, 11, 23):
        bend = rng.uniform(0.01, 0.03) * np.sin(2 * np.pi * (along + rng.random()))
        grain += np.sin(2 * np.pi * waves * (across + bend + rng.random())) / waves
    colour = np.array([170, 146, 120]) * (1 + 0.16 * grain[..., None])
    return _png(Image.fromarray(colour.clip(0, 255).astype(np.uint8)))


def _png(sheet: Image.Image) -> bytes:
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def action_limits() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Lowest and highest action, (14,) each: radians, and 0..1 for a gripper."""
    ranges = np.array([*_JOINT_RANGE_RAD, (0.0, 1.0)] * 2, dtype=np.float32)
    return ranges[:, 0], ranges[:, 1]


def _card(slot: int, card: Card) -> str:
    half_x, half_y, half_z = CARD_HALF_M
    return f"""
    <body name="card{slot}" pos="{card.x_m:.5f} {card.y_m:.5f} {half_z}" axisangle="0 0 1 {card.yaw_rad:.5f}">
      <freejoint name="card{slot}"/>
      <geom class="thing" type="box" size="{half_x} {half_y} {half_z}" mass="0.05" rgba="0.93 0.91 0.84 1"/>
      <geom class="paint" type="mesh" mesh="label" pos="0 0 {half_z + 0.0005}" material="card{slot}"/>
    </body>"""


def _label_mesh() -> str:
    """A paper-thin slab the size of a card; all its vertices map to the picture as seen from above."""
    half_x, half_y = CARD_HALF_M[0] - 0.001, CARD_HALF_M[1] - 0.001
    corners = [(x, y, z) for z in (-0.0004, 0.0004) for y in (-half_y, half_y) for x in (-half_x, half_x)]
    vertices = " ".join(f"{x} {y} {z}" for x, y, z in corners)
    pixels = " ".join(f"{int(x > 0)} {int(y < 0)}" for x, y, _ in corners)
    faces = "4 5 7 4 7 6 0 3 1 0 2 3 0 1 5 0 5 4 2 6 7 2 7 3 0 4 6 0 6 2 1 3 7 1 7 5"
    return f'<mesh name="label" vertex="{vertices}" texcoord="{pixels}" face="{faces}"/>'


def _arm(side: str) -> str:
    """One arm; every link points along its own +x or +z, the base faces +y."""
    low_high = {
        joint: f'name="{side}_{joint}" range="{low} {high}"'
        for joint, (low, high) in zip(JOINTS, _JOINT_RANGE_RAD, strict=True)
    }
    base_x, base_y = _BASE_XY_M[side]
    accent = _ACCENT[side]
    return f"""
    <body name="{side}_base" pos="{base_x} {base_y} 0" axisangle="0 0 1 {np.pi / 2:.6f}" childclass="arm_{side}">
      <geom type="cylinder" size="0.055 0.03" pos="0 0 0.03" rgba="{_DARK}"/>
      <body name="{side}_waist" pos="0 0 0.06" gravcomp="1">
        <joint {low_high["waist"]} axis="0 0 1"/>
        <geom type="cylinder" size="0.042 0.035" pos="0 0 0.035" rgba="{_DARK}" mass="0.6"/>
        <body name="{side}_shoulder" pos="0 0 0.07" gravcomp="1">
          <joint {low_high["shoulder"]} axis="0 1 0"/>
          <geom type="cylinder" size="0.034 0.045" quat="0.7071 0.7071 0 0" rgba="{accent}" mass="0.2"/>
          <geom type="capsule" fromto="0 0 0.02 0 0 0.28" size="0.024" rgba="{_LIGHT}" mass="0.5"/>
          <body name="{side}_elbow" pos="0 0 0.30" gravcomp="1">
            <joint {low_high["elbow"]} axis="0 1 0"/>
            <geom type="cylinder" size="0.029 0.038" quat="0.7071 0.7071 0 0" rgba="{accent}" mass="0.15"/>
            <geom type="capsule" fromto="0.02 0 0 0.17 0 0" size="0.020" rgba="{_LIGHT}" mass="0.25"/>
            <body name="{side}_forearm" pos="0.19 0 0" gravcomp="1">
              <joint {low_high["forearm_roll"]} axis="1 0 0"/>
              <geom type="capsule" fromto="0 0 0 0.09 0 0" size="0.018" rgba="{_DARK}" mass="0.15"/>
              <body name="{side}_wrist" pos="0.12 0 0" gravcomp="1">
                <joint {low_high["wrist_pitch"]} axis="0 1 0"/>
                <geom type="cylinder" size="0.022 0.028" quat="0.7071 0.7071 0 0" rgba="{accent}" mass="0.1"/>
                <body name="{side}_gripper" pos="0.03 0 0" gravcomp="1">
                  <joint {low_high["wrist_roll"]} axis="1 0 0"/>
                  <geom type="cylinder" size="0.018 0.022" pos="0.018 0 0" quat="0.7071 0 0.7071 0" rgba="{_DARK}"
                        mass="0.08"/>
                  <geom type="box" size="0.010 0.050 0.014" pos="0.050 0 0" rgba="{_DARK}" mass="0.08"/>
                  <site name="{side}_tip" pos="0.118 0 0" size="0.003" rgba="0 0 0 0"/>
                  {_finger(side, "a", 1)}
                  {_finger(side, "b", -1)}
                </body>
              </body>
            </body>
          </body>
        </body>
      </body>
    </body>"""


def _finger(side: str, name: str, sign: int) -> str:
    thick = 0.005
    return f"""<body name="{side}_finger_{name}" pos="0.060 {sign * thick} 0" gravcomp="1">
      <joint name="{side}_finger_{name}" type="slide" axis="0 {sign} 0" range="0 {FINGER_TRAVEL_M}" armature="0.1"
             damping="2"/>
      <geom type="box" size="0.036 {thick} 0.011" pos="0.036 0 0" rgba="{_ACCENT[side]}" mass="0.02"/>
    </body>"""


def _servos(side: str) -> str:
    arm = "".join(
        f'<position name="{side}_{joint}" joint="{side}_{joint}" kp="400" kv="25" forcerange="-80 80"'
        f' ctrlrange="{low} {high}"/>'
        for joint, (low, high) in zip(JOINTS, _JOINT_RANGE_RAD, strict=True)
    )
    fingers = "".join(
        f'<position name="{side}_finger_{name}" joint="{side}_finger_{name}" kp="800" kv="20" forcerange="-25 25"'
        f' ctrlrange="0 {FINGER_TRAVEL_M}"/>'
        for name in "ab"
    )
    return arm + fingers
