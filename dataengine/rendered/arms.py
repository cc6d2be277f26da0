"""The tabletop's two arms as the upper camera sees them: a chain of rods that follows from where the gripper is."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from dataengine.rendered.camera import Camera, Points
from dataengine.rendered.shapes import Rgb, Shape, box, box_corners, capsule, shaded

Side = Literal["left", "right"]
SIDES: tuple[Side, ...] = ("left", "right")

# As the tabletop builds them, metres.
_SHOULDER_M: dict[Side, tuple[float, float, float]] = {"left": (-0.24, -0.34, 0.13), "right": (0.24, -0.34, 0.13)}
HOME_TIP_M: dict[Side, tuple[float, float, float]] = {"left": (-0.24, -0.075, 0.17), "right": (0.24, -0.075, 0.17)}
_UPPER_ARM_M, _FOREARM_M, _HAND_M = 0.30, 0.31, 0.148
_FINGER_TRAVEL_M = 0.042
_DARK: Rgb = (58, 60, 68)
_LIGHT: Rgb = (196, 198, 205)
_ACCENT: dict[Side, Rgb] = {"left": (35, 115, 187), "right": (231, 127, 36)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmPose:
    """Where one gripper is, pointing down; `opening` 0..1; `holds` is the place of a card in the view's list."""

    side: Side
    tip_m: tuple[float, float, float]
    yaw_rad: float = 0.0
    opening: float = 0.9
    holds: int | None = None


def home(side: Side) -> ArmPose:
    """Where an arm waits: over the near edge, beside the cards."""
    return ArmPose(side=side, tip_m=HOME_TIP_M[side])


@lru_cache(maxsize=64)
def arm_parts(pose: ArmPose) -> tuple[list[Points], Points]:
    """The hand's boxes, (8, 3) each: fingers, then palm; the joints (4, 3): shoulder, elbow, mid-forearm, wrist."""
    tip_m = np.array(pose.tip_m)
    close = np.array([-np.sin(pose.yaw_rad), np.cos(pose.yaw_rad), 0.0])
    spread_m = 0.005 + _FINGER_TRAVEL_M * pose.opening
    boxes = [
        box_corners(tip_m + sign * spread_m * close + np.array([0, 0, 0.022]), (0.011, 0.005, 0.036), pose.yaw_rad)
        for sign in (-1, 1)
    ]
    boxes.append(box_corners(tip_m + np.array([0, 0, 0.068]), (0.014, 0.050, 0.010), pose.yaw_rad))
    shoulder_m = np.array(_SHOULDER_M[pose.side])
    wrist_m = tip_m + np.array([0, 0, _HAND_M])
    reach_m = float(np.linalg.norm(wrist_m - shoulder_m))
    ahead = (wrist_m - shoulder_m) / reach_m
    up = np.array([0.0, 0.0, 1.0]) - ahead[2] * ahead
    along_m = (_UPPER_ARM_M**2 - _FOREARM_M**2 + reach_m**2) / (2 * reach_m)
    rise_m = np.sqrt(max(0.0, _UPPER_ARM_M**2 - along_m**2))
    elbow_m = shoulder_m + along_m * ahead + rise_m * up / np.linalg.norm(up)
    middle_m = elbow_m + 0.19 / _FOREARM_M * (wrist_m - elbow_m)
    return boxes, np.stack([shoulder_m, elbow_m, middle_m, wrist_m])


def arm_shapes(camera: Camera, pose: ArmPose) -> list[Shape]:
    """The arm, from the fingers up; the camera looks down, so what comes later hides what came before."""
    boxes, joints_m = arm_parts(pose)
    ahead = joints_m[3] - joints_m[0]
    # The axles of elbow and wrist lie across the arm.
    across = np.array([-ahead[1], ahead[0], 0.0]) / np.hypot(ahead[0], ahead[1])
    elbow_m, wrist_m = across * 0.038, across * 0.028
    axles_m = [joints_m[1] - elbow_m, joints_m[1] + elbow_m, joints_m[3] - wrist_m, joints_m[3] + wrist_m]
    # One projection for all: a call for each part would take longer than the drawing.
    all_px = camera.project(np.concatenate([*boxes, joints_m, axles_m]))
    hand_px, joints_px, axles_px = all_px[:24].reshape(3, 8, 2), all_px[24:28], all_px[28:].reshape(2, 2, 2)
    scale = camera.px_per_m(joints_m)
    accent = _ACCENT[pose.side]
    shapes = []
    for finger_px in hand_px[:2]:
        shapes += box(finger_px, side=shaded(accent, 0.35), top=shaded(accent, 0.4))
    shapes += box(hand_px[2], side=shaded(_DARK, 0.45), top=_DARK)
    for first, radius_m, colour in ((0, 0.024, _LIGHT), (1, 0.020, _LIGHT), (2, 0.018, _DARK)):
        shapes += capsule(joints_px[first : first + 2], radius_m * scale[first : first + 2], colour)
    shapes += _axle(axles_px[0], 0.029 * scale[1], accent)
    shapes += _axle(axles_px[1], 0.022 * scale[3], accent)
    return shapes


def _axle(ends_px: Points, radius_px: float, colour: Rgb) -> list[Shape]:
    along = ends_px[1] - ends_px[0]
    side = np.array([-along[1], along[0]]) * radius_px / np.hypot(along[0], along[1])
    outer = np.concatenate([ends_px + side, ends_px[::-1] - side])
    inner = np.concatenate([ends_px + 0.7 * side, ends_px[::-1] - 0.7 * side])
    return [
        Shape(corners_px=outer, colour=shaded(colour, 0.75)),
        Shape(corners_px=inner, colour=colour, outline=False),
    ]
