"""Folders of formats that are known and not read: what they are, in one sentence with what to do."""

import os
from pathlib import Path


def look_alike(path: Path) -> str | None:
    """What a folder in which no dataset was found holds; None where that is not known either."""
    for folder, subfolders, files in os.walk(path):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        here = Path(folder)
        if "episodes" in subfolders and (streams := _openarm_streams(here / "episodes")):
            return (
                f"'{here}' is an OpenArm dataset: one parquet for each stream, such as {streams[0]}, at rates of their "
                f"own, which is not read yet. Export it as LeRobot with the openarm_dataset tools, and convert that."
            )
        if "data.json" in files and ("colors" in subfolders or "depths" in subfolders):
            return (
                f"'{here}' is a Unitree teleoperation episode (data.json, colors/), which is not read yet. "
                f"Export it as LeRobot with the recorder's own tools, and convert that."
            )
        if "task_info" in subfolders and "proprio_stats" in subfolders:
            return (
                f"'{here}' is AgiBot World (task_info/, proprio_stats/), which is not read yet. "
                f"Take its LeRobot export, and convert that."
            )
        if any(name.endswith(".svo") for name in files) or "trajectory.h5" in files:
            return (
                f"'{here}' is a raw DROID episode, which is not read yet. Take DROID's RLDS or LeRobot release, "
                f"and convert that."
            )
    return None


def _openarm_streams(episodes: Path) -> list[str]:
    """`0/obs/arms/left/state.parquet` and the like; newer versions have arms/, the oldest left_arm/."""
    found = (path.relative_to(episodes) for path in episodes.glob("*/obs/**/*.parquet"))
    return sorted(path.as_posix() for path in found if path.name in ("qpos.parquet", "state.parquet"))
