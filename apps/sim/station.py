"""The running station: two arms and two cameras in MuJoCo, stepped at the control rate, whatever lies on the table.

States and actions have ALOHA's 14 numbers: left arm's six joints in radians, left gripper, right arm's six
joints, right gripper; grippers from 0 (closed) to 1 (open). An action is what the leader arms say, `qpos` what
the follower arms do.
"""

from types import TracebackType
from typing import Self

import mujoco
import numpy as np
from numpy.typing import NDArray

from apps.sim.tabletop import ARMS, CAMERAS, CONTROL_HZ, FINGER_TRAVEL_M, JOINTS, PHYSICS_STEP_S, TabletopXml

NUM_DIMS = 14
_SUBSTEPS = round(1 / (CONTROL_HZ * PHYSICS_STEP_S))
# Gripper over the near edge of the table, pointing down, open: all that matters is in plain view.
_HOME = (0.0, -0.0816, 0.4478, 0.0, 1.2046, 1.5708, 0.9)
_STILL_M_S = 0.02


class Station:
    """One set-up of the table. Close it (or use `with`): it holds a renderer."""

    def __init__(self, tabletop: TabletopXml, *, image_size: tuple[int, int]) -> None:
        self.model = mujoco.MjModel.from_xml_string(tabletop.xml, tabletop.assets)
        self.data = mujoco.MjData(self.model)
        self.image_size = image_size
        self.num_steps = 0
        self._renderer: mujoco.Renderer | None = None
        self._joints = [self.model.joint(name) for name in _joint_names()]
        self._qpos_at = np.array([joint.qposadr[0] for joint in self._joints])
        self._qvel_at = np.array([joint.dofadr[0] for joint in self._joints])
        self._arm_geoms = {geom for geom in range(self.model.ngeom) if self.model.geom_contype[geom] in (1, 4)}
        self.reset()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Frees the renderer's graphics context."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def reset(self) -> None:
        """Back to the start of the scene: arms at home, things where they were laid."""
        mujoco.mj_resetData(self.model, self.data)
        self.num_steps = 0
        home = home_action()
        self.data.qpos[self._qpos_at] = _to_joints(home)
        self.data.ctrl[:] = _to_joints(home)
        mujoco.mj_forward(self.model, self.data)

    @property
    def qpos(self) -> NDArray[np.float32]:
        """Follower positions, (14,)."""
        return _from_joints(self.data.qpos[self._qpos_at])

    @property
    def qvel(self) -> NDArray[np.float32]:
        """Follower velocities, (14,), rad/s and gripper openings per second."""
        return _from_joints(self.data.qvel[self._qvel_at])

    @property
    def effort(self) -> NDArray[np.float32]:
        """Actuator forces, (14,): Nm for joints, newtons summed over both fingers for grippers."""
        force = np.array(self.data.actuator_force, dtype=np.float32).reshape(2, 8)
        grippers = force[:, 6:].sum(axis=1, keepdims=True)
        return np.ravel(np.concatenate([force[:, :6], grippers], axis=1))

    def step(self, action_14: NDArray[np.floating]) -> None:
        """One control step of 20 ms towards a leader command; commands beyond the joint limits stop at them."""
        action = np.asarray(action_14, dtype=np.float64)
        if action.shape != (NUM_DIMS,) or not np.isfinite(action).all():
            raise ValueError(f"An action has {NUM_DIMS} finite numbers, got shape {action.shape}: {action}.")
        self.data.ctrl[:] = _to_joints(action)
        mujoco.mj_step(self.model, self.data, nstep=_SUBSTEPS)
        self.num_steps += 1

    def render(self, camera: str) -> NDArray[np.uint8]:
        """What a camera sees now, (height, width, 3) RGB."""
        if camera not in CAMERAS:
            raise ValueError(f"The tabletop has the cameras {', '.join(CAMERAS)}, not {camera!r}.")
        renderer = self._drawing()
        renderer.update_scene(self.data, camera=camera)
        return np.asarray(renderer.render(), dtype=np.uint8)

    def _drawing(self) -> mujoco.Renderer:
        if self._renderer is None:
            width, height = self.image_size
            self._renderer = mujoco.Renderer(self.model, height=height, width=width)
        return self._renderer

    def project(self, camera: str, point_m: NDArray[np.float64]) -> tuple[float, float]:
        """Where a point of the table shows in a camera's picture: (column, row) in pixels."""
        of = self.model.camera(camera)
        width, height = self.image_size
        focal_px = height / 2 / np.tan(np.deg2rad(self.model.cam_fovy[of.id]) / 2)
        x_m, y_m, z_m = self.data.cam_xmat[of.id].reshape(3, 3).T @ (point_m - self.data.cam_xpos[of.id])
        return float(width / 2 - focal_px * x_m / z_m), float(height / 2 + focal_px * y_m / z_m)

    def centre_m(self, body: str) -> NDArray[np.float64]:
        """Where a body's centre is, (3,)."""
        return np.array(self.data.xpos[self.model.body(body).id])

    def yaw_rad(self, body: str) -> float:
        """How far a body is turned about the vertical."""
        rotation = self.data.xmat[self.model.body(body).id].reshape(3, 3)
        return float(np.arctan2(rotation[1, 0], rotation[0, 0]))

    def at_rest(self, body: str) -> bool:
        """Let go and still: no arm touches the body, and it moves slower than 2 cm/s."""
        dof = self.model.joint(body).dofadr[0]
        if np.linalg.norm(self.data.qvel[dof : dof + 3]) > _STILL_M_S:
            return False
        of = self.model.body(body).id
        geoms = range(self.model.body_geomadr[of], self.model.body_geomadr[of] + self.model.body_geomnum[of])
        touching = self.data.contact.geom[np.isin(self.data.contact.geom, geoms).any(axis=1)]
        return not self._arm_geoms.intersection(touching.ravel().tolist())


def home_action() -> NDArray[np.float32]:
    """The command both arms start from, (14,)."""
    return np.array(_HOME * 2, dtype=np.float32)


def _joint_names() -> list[str]:
    return [f"{side}_{name}" for side in ARMS for name in (*JOINTS, "finger_a", "finger_b")]


def _to_joints(vector_14: NDArray[np.floating]) -> NDArray[np.float64]:
    """(14,) -> the model's (16,): one number opens both fingers."""
    arms = np.asarray(vector_14, dtype=np.float64).reshape(2, 7)
    finger = arms[:, 6:] * FINGER_TRAVEL_M
    return np.concatenate([arms[:, :6], finger, finger], axis=1).ravel()


def _from_joints(vector_16: NDArray[np.floating]) -> NDArray[np.float32]:
    """The model's (16,) -> (14,): the gripper is the mean of its fingers."""
    arms = np.asarray(vector_16).reshape(2, 8)
    gripper = arms[:, 6:].mean(axis=1, keepdims=True) / FINGER_TRAVEL_M
    return np.ravel(np.concatenate([arms[:, :6], gripper], axis=1)).astype(np.float32)
