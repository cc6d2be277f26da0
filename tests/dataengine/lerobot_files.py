"""A LeRobot v3.0 dataset written by lerobot 0.6.1 itself, and small edits of such a folder, for tests."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from raw_files import pictures, trajectory

CAM = "observation.images.cam_high"
DEPTH = "observation.images.depth"
TASKS = ("Open the jar.", "Close the jar.")


def depth_maps(num_frames: int) -> NDArray[np.uint16]:
    """(num_frames, 48, 64) millimetres between 0.5 and 1.2 m, every frame different."""
    rows, columns = np.mgrid[0:48, 0:64]
    return np.stack([500 + rows * 5 + columns * 3 + index * 7 for index in range(num_frames)]).astype(np.uint16)


def write_lerobot_v30(
    root: Path,
    *,
    lengths: Sequence[int] = (12, 15, 9),
    depth: bool = False,
    use_videos: bool = True,
    rate_hz: int = 10,
    file_mb: int | None = None,
) -> Path:
    """What `LeRobotDataset.create`, `add_frame` and `save_episode` leave behind. Episode 1 changes its task midway."""
    from lerobot.configs.video import RGBEncoderConfig
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    kind = "video" if use_videos else "image"
    features: dict[str, Any] = {
        name: {"dtype": "float32", "shape": (4,), "names": ["a", "b", "c", "d"]}
        for name in ("observation.state", "action")
    }
    features[CAM] = {"dtype": kind, "shape": (48, 64, 3), "names": ["height", "width", "channels"]}
    if depth:
        features[DEPTH] = {
            "dtype": "video",
            "shape": (48, 64, 1),
            "names": ["height", "width", "channels"],
            "info": {"is_depth_map": True},
        }
    dataset = LeRobotDataset.create(
        repo_id="test/tiny",
        fps=rate_hz,
        features=features,
        root=root,
        robot_type="test_arm",
        use_videos=use_videos,
        rgb_encoder=RGBEncoderConfig(vcodec="h264", g=2, crf=20),
        video_files_size_in_mb=file_mb,
    )
    for episode, length in enumerate(lengths):
        state, action = trajectory(length, 4, seed=episode), trajectory(length, 4, seed=episode + 50)
        frames, depths = pictures(length, seed=episode * 10), depth_maps(length)
        for index in range(length):
            changed = episode == 1 and index >= length // 2
            row = {"observation.state": state[index], "action": action[index], CAM: frames[index]}
            if depth:
                row[DEPTH] = depths[index][:, :, None]
            dataset.add_frame({**row, "task": TASKS[1 if changed else 0]})
        dataset.save_episode()
    dataset.finalize()
    return root


def copied(source: Path, target: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(source, target))


def edit_info(root: Path, **changes: Any) -> None:
    """Change entries of meta/info.json."""
    path = root / "meta/info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_parquet(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Rewrite a parquet file, one row group."""
    table = change(pq.read_table(path, partitioning=None))
    pq.write_table(table, path)


def replaced(table: pa.Table, column: str, values: Any) -> pa.Table:
    """The table with other values in one column, of the same type."""
    number = table.column_names.index(column)
    return table.set_column(number, column, pa.array(values, table.schema.field(column).type))
