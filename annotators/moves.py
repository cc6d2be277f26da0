"""What an arm does over a span of time: how far its tool goes, in the robot's own frame, or which joints turn.

Where the rig names a robot file, the tool is followed through forward kinematics; where the recording states the tool's
position, that is taken; otherwise there are only joints, and moves say so by naming them.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from schemas.errors import EpisodeError
from schemas.rigs import Arm, Direction, EndEffector, Kinematics, Rig

UNKNOWN = "unknown"
Columns = Mapping[str, NDArray[np.generic]]
FloatArray = NDArray[np.float64]
type Basis = Literal["forward kinematics", "end-effector pose", "joints"]

_LEAST_MOVE_RAD = 0.05
_LEAST_MOVE_M = 0.015  # along one axis; less is the sway of a hand that stays, and rounds to 0 or 1 cm
_WORDS = (("forward", "back"), ("left", "right"), ("up", "down"))


def basis_of(rig: Rig, arm: Arm) -> Basis:
    """What is known of an arm's tool, the best first; a dataset may lack the feature that would state it."""
    if arm.joints:
        return "forward kinematics"
    is_stated = arm.position is not None and arm.position.feature in rig.features
    return "end-effector pose" if is_stated else "joints"


def basis_words(rig: Rig) -> str:
    """What the moves of this rig's arms rest on, for provenance: which file, or that there was none."""
    found = dict.fromkeys(basis_of(rig, arm) for arm in rig.arms)
    said = rig.kinematics
    file = f" of {said.file} sha256:{said.sha256[:12]}" if said and said.file and said.sha256 else ""
    words = [f"{one}{file}" if one == "forward kinematics" else one for one in found]
    return " and ".join(words) or "no arm declared"


def arms_of(rig: Rig, end: EndEffector) -> tuple[Arm, ...]:
    """The arms that carry an end effector."""
    return tuple(arm for arm in rig.arms if arm.side == end.side)


def joints_of(columns: Columns, arms: Sequence[Arm]) -> FloatArray:
    """All joints of `arms`, (T, J)."""
    return np.concatenate([_columns(columns, arm.name, arm.feature, arm.indices) for arm in arms], axis=1)


def tool_path_m(columns: Columns, rig: Rig, arm: Arm) -> FloatArray | None:
    """Where the tool is in every row, (T, 3): metres forward, left, up in the rig's frame; None from joints alone."""
    said = rig.kinematics
    match basis_of(rig, arm):
        case "forward kinematics":
            from dataengine.robot_models import tool_positions_m  # MuJoCo is loaded only for rigs that need it

            found = tool_positions_m(rig, arm, joints_of(columns, [arm]))
        case "end-effector pose":
            assert arm.position is not None
            found = _columns(columns, arm.name, arm.position.feature, arm.position.indices)
        case "joints":
            return None
    assert said is not None  # a rig without it has neither joints nor positions
    return found @ _axes(said).T


def _axes(said: Kinematics) -> FloatArray:
    """Rows: forward, left and up in the axes of the frame."""
    return np.stack([_axis(word) for word in (said.forward, said.left, said.up)])


def _axis(word: Direction) -> FloatArray:
    axis = np.zeros(3)
    axis["xyz".index(word[1])] = -1.0 if word[0] == "-" else 1.0
    return axis


def _columns(columns: Columns, name: str, feature: str, indices: Sequence[int]) -> FloatArray:
    column = columns.get(feature)
    if column is None or max(indices) >= column.shape[1]:
        raise EpisodeError(f"'{name}' reads {feature}{list(indices)}, which the episode lacks.")
    return np.asarray(column[:, list(indices)], np.float64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _ArmPath:
    """One arm over an episode."""

    arm: Arm
    joint_names: tuple[str, ...]
    values: NDArray[np.float32]  # (T, 3) metres forward, left and up where `is_tool`, else (T, J) radians
    is_tool: bool

    def change(self, start: int, stop: int) -> FloatArray:
        """From the first to the last frame of [start, stop)."""
        rows = self.values.astype(np.float64)
        return np.asarray(rows[min(stop, len(rows)) - 1] - rows[start])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Moves:
    """What the arms of an episode do over any span of it; small enough to send along with an observation."""

    paths: tuple[_ArmPath, ...]
    sides: Mapping[str, str]  # of the end effectors
    stamps_ns: NDArray[np.int64]

    @classmethod
    def of(cls, columns: Columns, rig: Rig, stamps_ns: NDArray[np.int64]) -> "Moves | None":
        """None where the rig declares no arms. Raises EpisodeError if the rig misfits."""
        if not rig.arms:
            return None
        paths = []
        for arm in rig.arms:
            tool = tool_path_m(columns, rig, arm)
            names = rig.features[arm.feature].names
            paths.append(
                _ArmPath(
                    arm=arm,
                    joint_names=tuple(
                        readable(names[index]) if index < len(names) else f"{arm.name} joint {place + 1}"
                        for place, index in enumerate(arm.indices)
                    ),
                    values=(joints_of(columns, [arm]) if tool is None else tool).astype(np.float32),
                    is_tool=tool is not None,
                )
            )
        sides = {end.name: end.side for end in rig.end_effectors}
        return cls(paths=tuple(paths), sides=sides, stamps_ns=stamps_ns)

    def __call__(self, start_ns: int, end_ns: int, end_effector: str) -> tuple[str, ...]:
        """Every move that is large enough to be named, largest first."""
        start, stop = (int(np.searchsorted(self.stamps_ns, edge)) for edge in (start_ns, end_ns))
        start = min(start, len(self.stamps_ns) - 1)
        return self.over(start, max(stop, start + 1), end_effector)

    def over(self, start: int, stop: int, end_effector: str) -> tuple[str, ...]:
        """The same of frames [start, stop): of the arms at the end effector's side, of all where it is not known."""
        side = self.sides.get(end_effector)
        tools: list[tuple[float, str]] = []
        joints: list[tuple[float, str]] = []
        for path in self.paths:
            if side is not None and path.arm.side != side:
                continue
            change = path.change(start, stop)
            if path.is_tool:
                tools += _tool_words(path.arm.name, change)
            else:
                joints += _joint_words(path.joint_names, change)
        return tuple(words for _, words in (*sorted(tools, key=_size), *sorted(joints, key=_size)))


def _size(move: tuple[float, str]) -> float:
    return -move[0]


def _tool_words(name: str, change_m: FloatArray) -> list[tuple[float, str]]:
    """One sentence about one tool, e.g. `left arm moves 12 cm left, 5 cm down`; none where it stays."""
    parts = [
        (abs(along_m), f"{round(100 * abs(along_m))} cm {ahead if along_m > 0 else behind}")
        for along_m, (ahead, behind) in zip(change_m.tolist(), _WORDS, strict=True)
        if abs(along_m) >= _LEAST_MOVE_M
    ]
    if not parts:
        return []
    said = ", ".join(words for _, words in sorted(parts, key=_size))
    return [(float(np.linalg.norm(change_m)), f"{name} moves {said}")]


def _joint_words(names: Sequence[str], change_rad: FloatArray) -> list[tuple[float, str]]:
    """The joints that turn, e.g. `left shoulder increases`."""
    return [
        (abs(turned), f"{name} {'increases' if turned > 0 else 'decreases'}")
        for turned, name in zip(change_rad.tolist(), names, strict=True)
        if abs(turned) >= _LEAST_MOVE_RAD
    ]


def readable(name: str) -> str:
    """`kLeftShoulderPitch`, `left_shoulder_pitch` -> `left shoulder pitch`."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", re.sub(r"^k(?=[A-Z])", "", name)).replace("_", " ")
    return " ".join(words.lower().split())
