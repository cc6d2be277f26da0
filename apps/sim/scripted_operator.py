"""A scripted teleoperator: sees where things are, moves a leader arm as a person roughly would.

Each demonstration is a chain of minimum-jerk moves of the gripper in space, blurred by a slow tremor, turned into
joint commands by damped least squares on MuJoCo's Jacobian. Speed, approach, grip and place vary with the attempt.
After closing, the operator looks at the gripper: an empty one means another try. The grasp itself is physics.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace

import mujoco
import numpy as np
from numpy.typing import NDArray

from apps.sim.station import Station, home_action
from apps.sim.tabletop import (
    ARMS,
    CARD_HALF_M,
    CONTROL_HZ,
    FINGER_TRAVEL_M,
    JOINTS,
    LEDGE_CENTRE_M,
    LEDGE_TOP_M,
)
from apps.sim.toy_world import ToyWorld
from apps.sim.world import World
from dataengine.rendered.keyed import keyed_rng

# Who is at the controls, and how fast they like to go (1 = 30 cm/s at most on the mean of a move).
OPERATORS = {"careful": (0.85, 0.98), "steady": (0.95, 1.10), "brisk": (1.08, 1.25)}

_GRIP_ABOVE_CENTRE_M = 0.003
_MAX_GRASPS = 3
# Narrower than this and the fingers met each other, not a card (a held card keeps them at about 0.52).
_HELD_OPENING = 0.42
_LEAST_TIP_M = 0.020  # above the table: fingers end 14 mm below their tip's mark
_TOY_HOVER_M = 0.060  # above its spot, before a toy is put down: it passes over whatever stands around


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A named stretch of a demonstration: frames `start` (included) to `stop` (excluded)."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How one attempt is played."""

    operator: str
    speed: float
    grip: float
    open: float
    hover_m: float
    approach_m: NDArray[np.float64]
    place_m: NDArray[np.float64]
    tremor_m: float
    second_thoughts: bool
    reaction_s: float


@dataclass(slots=True, kw_only=True)
class _Pose:
    """Where the gripper is told to be: tip position, turn about the vertical, opening."""

    xyz_m: NDArray[np.float64]
    yaw_rad: float
    opening: float


def draw_manner(rng: np.random.Generator) -> Manner:
    """Everything about an attempt that is a matter of taste, mood or luck."""
    operator = str(rng.choice(sorted(OPERATORS)))
    return Manner(
        operator=operator,
        speed=float(rng.uniform(*OPERATORS[operator])),
        grip=float(rng.uniform(0.20, 0.34)),
        open=float(rng.uniform(0.86, 0.98)),
        hover_m=float(rng.uniform(0.085, 0.125)),
        approach_m=rng.uniform(-0.018, 0.018, 2),
        place_m=np.array([rng.uniform(-0.03, 0.03), rng.uniform(-0.012, 0.002)]),
        tremor_m=float(rng.uniform(0.0008, 0.002)),
        second_thoughts=bool(rng.random() < 0.12),
        reaction_s=float(rng.uniform(0.1, 0.4)),
    )


def _up(dz_m: float) -> NDArray[np.float64]:
    return np.array([0.0, 0.0, dz_m])


class Operator[World_: Station](ABC):
    """Plays one scene: waits, reaches, grasps, lifts, carries, releases, retreats. What and where to, subclasses know.

    `phases` are the moves as they were planned; `subtasks` the same demonstration in the words of the segments'
    vocabulary: a grasp begins when the hand is told to close and ends when it lifts, a release begins when the hand has
    come to rest over the spot and ends when it is told to leave. Neither is part of what a lab records.
    """

    def __init__(self, world: World_, *, rng: np.random.Generator, manner: Manner, side: str) -> None:
        self.world = world
        self.phases: list[Phase] = []
        self.subtasks: list[Phase] = []
        self.num_grasps = 0
        self.manner = manner
        self.side = side
        self._rng = rng
        self._arm = slice(0, 7) if side == "left" else slice(7, 14)
        self._solver = _ArmSolver(world.model, side)
        self._action = home_action().astype(np.float64)
        self._tremor = np.zeros(4)
        self._now = _Pose(
            xyz_m=self._solver.tip_m(self._action[self._arm]), yaw_rad=0.0, opening=float(self._action[6])
        )

    @abstractmethod
    def _thing(self) -> tuple[NDArray[np.float64], float]:
        """Centre and turn of what is to be grasped, now."""

    @abstractmethod
    def _carry(self) -> Iterator[NDArray[np.float32]]:
        """From the lifted thing to the thing over its spot, a moment before it is let go."""

    _held_opening = _HELD_OPENING
    _release_opening = 0.74

    def actions(self) -> Iterator[NDArray[np.float32]]:
        """Leader commands, one per control step; the caller steps the world between two of them."""
        manner = self.manner
        self._do("hold")
        yield from self._phase("wait", self._hold(manner.reaction_s))
        start = _Pose(xyz_m=self._now.xyz_m.copy(), yaw_rad=0.0, opening=self._now.opening)
        self._do("reach")
        yield from self._phase("reach", self._reach())
        yield from self._phase("grasp", self._grasp())
        self._do("carry")
        yield from self._phase("lift", self._move(dz_m=manner.hover_m - 0.02, least_s=0.4))
        yield from self._phase("carry", self._carry())
        self._do("release")
        yield from self._phase("release", self._release())
        self._do("retreat")
        yield from self._phase("retreat", self._retreat(start))
        self._end_subtask()

    def _do(self, label: str) -> None:
        """A subtask begins here, and the one before it ends."""
        self._end_subtask()
        self.subtasks.append(Phase(name=label, start=self.world.num_steps, stop=self.world.num_steps))

    def _end_subtask(self) -> None:
        if self.subtasks:
            self.subtasks[-1] = replace(self.subtasks[-1], stop=self.world.num_steps)

    def _phase(self, name: str, moves: Iterator[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        start = self.world.num_steps
        yield from moves
        self.phases.append(Phase(name=name, start=start, stop=self.world.num_steps))

    def _reach(self) -> Iterator[NDArray[np.float32]]:
        thing_m, yaw_rad = self._thing()
        above_m = thing_m + np.array([*self.manner.approach_m, self.manner.hover_m])
        yield from self._go(above_m, yaw_rad=yaw_rad, opening=self.manner.open, least_s=0.6)

    def _grasp(self) -> Iterator[NDArray[np.float32]]:
        while True:
            self.num_grasps += 1
            thing_m, yaw_rad = self._thing()
            aim_m = thing_m + np.array([*self._rng.normal(0.0, 0.0025, 2), _GRIP_ABOVE_CENTRE_M])
            aim_m[2] = max(aim_m[2], _LEAST_TIP_M)
            yield from self._go(aim_m, yaw_rad=yaw_rad, opening=self.manner.open, least_s=0.5, care=0.5)
            self._do("grasp")
            yield from self._go(aim_m, yaw_rad=yaw_rad, opening=self.manner.grip, least_s=0.28, care=0.3)
            yield from self._hold(0.08)
            held = self.world.qpos[self._arm][6] > self._held_opening
            content = not (self.manner.second_thoughts and self.num_grasps == 1)
            if (held and content) or self.num_grasps == _MAX_GRASPS:
                return
            self._do("release")
            yield from self._go(aim_m, yaw_rad=yaw_rad, opening=self.manner.open, least_s=0.24, care=0.3)
            self._do("reach")
            yield from self._move(dz_m=0.03, least_s=0.25)

    def _release(self) -> Iterator[NDArray[np.float32]]:
        yield from self._hold(0.06)
        yield from self._go(self._now.xyz_m, yaw_rad=0.0, opening=self._release_opening, least_s=0.24, care=0.3)

    def _retreat(self, start: _Pose) -> Iterator[NDArray[np.float32]]:
        yield from self._move(dz_m=0.09, least_s=0.35)
        yield from self._go(start.xyz_m, yaw_rad=start.yaw_rad, opening=start.opening, least_s=0.6)
        self._do("hold")
        yield from self._hold(0.2)

    def _hold(self, duration_s: float) -> Iterator[NDArray[np.float32]]:
        now = self._now
        yield from self._go(now.xyz_m, yaw_rad=now.yaw_rad, opening=now.opening, least_s=duration_s, care=0.3)

    def _move(self, *, dz_m: float, least_s: float) -> Iterator[NDArray[np.float32]]:
        now = self._now
        yield from self._go(now.xyz_m + _up(dz_m), yaw_rad=now.yaw_rad, opening=now.opening, least_s=least_s)

    def _go(
        self, xyz_m: NDArray[np.float64], *, yaw_rad: float, opening: float, least_s: float, care: float = 1.0
    ) -> Iterator[NDArray[np.float32]]:
        """A minimum-jerk move; `care` below 1 calms the tremor where precision matters."""
        begin = self._now
        goal = _Pose(xyz_m=np.array(xyz_m, dtype=np.float64), yaw_rad=yaw_rad, opening=opening)
        distance_m = float(np.linalg.norm(goal.xyz_m - begin.xyz_m))
        num_steps = max(2, round(max(least_s, distance_m / 0.30) / self.manner.speed * CONTROL_HZ))
        for step in range(1, num_steps + 1):
            share = step / num_steps
            blend = share**3 * (10 - 15 * share + 6 * share**2)
            self._now = _Pose(
                xyz_m=begin.xyz_m + blend * (goal.xyz_m - begin.xyz_m),
                yaw_rad=begin.yaw_rad + blend * (goal.yaw_rad - begin.yaw_rad),
                opening=begin.opening + blend * (goal.opening - begin.opening),
            )
            yield self._command(care)

    def _command(self, care: float) -> NDArray[np.float32]:
        # An Ornstein-Uhlenbeck walk with a memory of 0.3 s: hands drift, they do not jitter at 50 Hz.
        keep = np.exp(-1 / (0.3 * CONTROL_HZ))
        self._tremor = keep * self._tremor + np.sqrt(1 - keep**2) * self._rng.normal(0.0, 1.0, 4)
        xyz_m = self._now.xyz_m + care * self.manner.tremor_m * self._tremor[:3]
        yaw_rad = self._now.yaw_rad + 0.02 * care * float(self._tremor[3])
        joints = self._solver.solve(self._action[self._arm][:6], xyz_m=xyz_m, yaw_rad=yaw_rad)
        self._action[self._arm] = [*joints, self._now.opening]
        return self._action.astype(np.float32)


class ScriptedOperator(Operator[World]):
    """Plays the math matching game; `attempt` varies the manner, never the scene.

    `slot` picks another card than the right one.
    """

    def __init__(self, world: World, *, attempt: int = 0, slot: int | None = None) -> None:
        scene = world.scene
        rng = keyed_rng("operator", scene.split, scene.seed, scene.index, attempt)
        manner = draw_manner(rng)
        self._slot = scene.correct_slot if slot is None else slot
        side = ("left", ARMS[rng.integers(2)], "right")[self._slot]
        super().__init__(world, rng=rng, manner=manner, side=side)

    def _thing(self) -> tuple[NDArray[np.float64], float]:
        return self.world.card_centre_m(self._slot), self.world.card_yaw_rad(self._slot)

    def _carry(self) -> Iterator[NDArray[np.float32]]:
        tip_from_card_m = self._solver.tip_m(self.world.qpos[self._arm]) - self._thing()[0]
        spot_m = (
            np.array(
                [
                    0.5 * self.world.scene.cards[self._slot].x_m + self.manner.place_m[0],
                    LEDGE_CENTRE_M[1] + self.manner.place_m[1],
                    LEDGE_TOP_M + CARD_HALF_M[2],
                ]
            )
            + tip_from_card_m
        )
        yield from self._go(spot_m + _up(0.045), yaw_rad=0.0, opening=self.manner.grip, least_s=0.6)
        yield from self._go(spot_m + _up(0.002), yaw_rad=0.0, opening=self.manner.grip, least_s=0.4, care=0.5)


class ToyOperator(Operator[ToyWorld]):
    """Plays toy placement; `attempt` varies the manner, never the scene."""

    def __init__(self, world: ToyWorld, *, attempt: int = 0) -> None:
        scene = world.scene
        rng = keyed_rng("toy operator", scene.split, scene.seed, scene.index, attempt)
        super().__init__(world, rng=rng, manner=draw_manner(rng), side=scene.side)
        width = scene.toys[scene.target].half_m[1] / FINGER_TRAVEL_M
        self._held_opening = width - 0.09
        self._release_opening = min(0.96, width + 0.24)

    def _thing(self) -> tuple[NDArray[np.float64], float]:
        name = f"toy{self.world.scene.target}"
        return self.world.centre_m(name), self.world.yaw_rad(name)

    def _carry(self) -> Iterator[NDArray[np.float32]]:
        scene = self.world.scene
        target, reference = scene.toys[scene.target], scene.toys[scene.reference]
        under_m = {"on top of": 2 * reference.half_m[2], "inside": 0.003}.get(scene.relation, 0.0)
        off_m = 0.2 * self.manner.place_m
        tip_from_toy_m = self._solver.tip_m(self.world.qpos[self._arm]) - self._thing()[0]
        goal_m = np.array([*(np.array(scene.goal_xy_m) + off_m), under_m + target.half_m[2]])
        spot_m = goal_m + tip_from_toy_m
        grip = self.manner.grip
        yield from self._go(spot_m + _up(_TOY_HOVER_M), yaw_rad=0.0, opening=grip, least_s=0.6)
        yield from self._go(spot_m + _up(0.002), yaw_rad=0.0, opening=grip, least_s=0.4, care=0.5)


class _ArmSolver:
    """Joint angles that bring one gripper's tip to a place, pointing down: damped least squares."""

    def __init__(self, model: mujoco.MjModel, side: str) -> None:
        self._model = model
        self._data = mujoco.MjData(model)
        joints = [model.joint(f"{side}_{name}") for name in JOINTS]
        self._qpos_at = np.array([joint.qposadr[0] for joint in joints])
        self._dof_at = np.array([joint.dofadr[0] for joint in joints])
        self._range = np.array([joint.range for joint in joints])
        self._site = model.site(f"{side}_tip").id
        self._jacobian = np.zeros((6, model.nv))

    def tip_m(self, arm_7: NDArray[np.floating]) -> NDArray[np.float64]:
        """Where the tip is for an arm's joints, (3,)."""
        self._place(np.asarray(arm_7[:6], dtype=np.float64))
        return np.array(self._data.site_xpos[self._site])

    def solve(self, joints: NDArray[np.float64], *, xyz_m: NDArray[np.float64], yaw_rad: float) -> NDArray[np.float64]:
        """Starts from the last command, so that the path stays continuous; (6,)."""
        cos, sin = np.cos(yaw_rad), np.sin(yaw_rad)
        # Columns: gripper axis down, fingers closing along the card's depth, third by the right-hand rule.
        target = np.array([[0.0, -sin, cos], [0.0, cos, sin], [-1.0, 0.0, 0.0]])
        joints = joints.copy()
        for _ in range(12):
            self._place(joints)
            error = np.concatenate([xyz_m - self._data.site_xpos[self._site], self._turn_to(target)])
            if np.abs(error[:3]).max() < 5e-5 and np.abs(error[3:]).max() < 5e-4:
                break
            mujoco.mj_jacSite(self._model, self._data, self._jacobian[:3], self._jacobian[3:], self._site)
            jacobian = self._jacobian[:, self._dof_at]
            step = jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + 1e-5 * np.eye(6), error)
            joints = np.clip(joints + np.clip(step, -0.2, 0.2), self._range[:, 0], self._range[:, 1])
        return joints

    def _place(self, joints: NDArray[np.float64]) -> None:
        self._data.qpos[self._qpos_at] = joints
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_comPos(self._model, self._data)

    def _turn_to(self, target: NDArray[np.float64]) -> NDArray[np.float64]:
        """The rotation vector from the tip's present frame to the target's, small angles assumed."""
        present = self._data.site_xmat[self._site].reshape(3, 3)
        return np.asarray(0.5 * np.cross(present, target, axis=0).sum(axis=1), dtype=np.float64)
