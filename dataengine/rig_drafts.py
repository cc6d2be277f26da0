"""The first draft of a rig: what the raw data says, filled in; what it cannot say, as a question to a person."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import yaml
from numpy.typing import NDArray

from schemas.rigs import RIG_SCHEMA, SourceKind


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DraftColumn:
    """A low-dimensional column as found: our name for it, its key, its labels, and the range of each dimension."""

    name: str
    key: str
    labels: tuple[str, ...]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftCamera:
    """A camera as found; `channel_order` is None where the data cannot tell."""

    name: str
    key: str
    channel_order: str | None
    depth_unit_m: float | None = None  # of a depth camera


def draft_rig(
    *,
    kind: SourceKind,
    name: str,
    robot_type: str | None,
    rate_hz: int | None,
    columns: Sequence[DraftColumn],
    cameras: Sequence[DraftCamera],
    task_key: str | None,
    has_task: bool,
) -> str:
    """The YAML text. Every unknown is a line with `?`; it loads once those that hold `null` are answered."""
    lines = [
        "# Draft of a rig, made from one dataset. Answer each line that has a '?', then pass it: --rig FILE.yaml",
        f"schema_version: {RIG_SCHEMA}",
        f"name: {_text(name)}",
        f"source: {kind}",
    ]
    if robot_type:
        lines.append(f"robot_type: {_text(robot_type)}")
    else:
        lines.append("robot_type: unknown  # ? which robot is this")
    if rate_hz:
        lines.append(f"rate_hz: {rate_hz}")
    else:
        lines.append("rate_hz: null  # ? how many rows were recorded each second; the data does not say")
    lines += ["features:"] + ([line for column in columns for line in _feature(column)] or ["  {}"])
    lines += ["cameras:" if cameras else "cameras: {}"] + [line for camera in cameras for line in _camera(camera)]
    lines += [
        "end_effectors: []  # ? which dimensions are grippers, and their values when closed and open, e.g.",
        "#  - {name: left gripper, side: left, indices: [6], closed: 0.0, open: 1.0}",
        "arms: []  # ? which dimensions are the joints of each arm, e.g.",
        "#  - {name: left arm, side: left, indices: [0, 1, 2, 3, 4, 5]}",
        "kinematics: null  # ? the robot's MJCF or URDF, or where its tool's position is stated: moves in metres",
    ]
    if task_key:
        lines.append(f"task_key: {_text(task_key)}  # the instruction is read from here")
    elif not has_task:
        lines.append("task: null  # ? the instruction in words; the data holds none")
    lines += [
        "metadata:",
        "  fixed: {}  # ? what holds for all episodes: operator, session, station, scene, outcome, licence",
        "  csv: null  # ? a CSV beside the data with a column 'file' and any of those",
    ]
    return "\n".join(lines) + "\n"


def _feature(column: DraftColumn) -> list[str]:
    lines = [
        f"  {column.name}:",
        f"    key: {_text(column.key)}",
        "    unit: unknown  # ? e.g. rad, m, gripper 0 closed..1 open",
    ]
    if column.labels:
        lines.append(f"    names: [{', '.join(_text(label) for label in column.labels)}]")
    else:
        blanks = ", ".join(f"dim_{index}" for index in range(len(column.low)))
        lines.append(f"    names: [{blanks}]  # ? what each number is")
    lines.append("    # range in the first episode that could be read:")
    lines += [
        f"    #   {index:2d} {label}: {low:.4g} .. {high:.4g}"
        for index, (label, low, high) in enumerate(
            zip(column.labels or [""] * len(column.low), column.low, column.high, strict=True)
        )
    ]
    return lines


def _camera(camera: DraftCamera) -> list[str]:
    lines = [f"  {_text(camera.name)}:", f"    key: {_text(camera.key)}"]
    if camera.depth_unit_m is not None:
        return [
            *lines,
            f"    depth_unit_m: {camera.depth_unit_m}",
            "    orientation: upright  # ? or rotated_180, flipped_vertical",
        ]
    if camera.channel_order:
        lines.append(f"    channel_order: {camera.channel_order}")
    else:
        lines.append(
            "    channel_order: unknown  # ? rgb or bgr: look at something red; it cannot be read from the data"
        )
    lines.append("    orientation: upright  # ? or rotated_180, flipped_vertical")
    return lines


def _text(value: str) -> str:
    """A YAML scalar that reads back as this text."""
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).strip().removesuffix("...").strip()
