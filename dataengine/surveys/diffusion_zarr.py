"""Survey of replay buffers: diffusion policy's and UMI's."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from dataengine.inspected import InspectedCamera, InspectedKey, Inspection
from dataengine.rig_drafts import DraftCamera, DraftColumn, draft_rig
from dataengine.sources.detection import Found
from dataengine.sources.diffusion_zarr import STAMPS
from dataengine.sources.episode_videos import camera_files
from dataengine.sources.replay_buffers import is_picture, open_buffer, read_ends
from dataengine.surveys.words import draft_column, timing
from schemas.errors import EpisodeError

_POSE = ("eef_pos", "eef_rot_axis_angle", "gripper_width")  # what UMI's own loader takes as state and as action


def survey(found: Found, folder: str) -> Inspection:
    """What the arrays are; `folder` is where the group lies below the one that was named."""
    group = open_buffer(found.root)
    arrays = dict(sorted(group["data"].arrays()))
    ends = read_ends(found.root, group)
    cameras, broken = _cameras(found, arrays)
    seconds = _seconds(arrays, ends[0])
    lengths = np.diff(ends, prepend=0)
    notes = [
        "no rate, no instruction, no names and no colour order are stored",
        f"episodes have {lengths.min()} to {lengths.max()} rows",
        *broken,
    ]
    columns = _columns(found, arrays, ends[0])
    if found.kind == "umi_zarr" and "action" not in arrays:
        notes.append("no action is stored: the draft takes the pose one row later, so each episode loses its last row")
    return Inspection(
        kind=found.kind,
        folder=folder,
        num_episodes=len(ends),
        num_rows=ends[-1],
        rows=tuple(
            InspectedKey(key=f"data/{key}", shape=tuple(array.shape), dtype=str(array.dtype))
            for key, array in arrays.items()
        ),
        cameras=tuple(cameras),
        rate_hz=_rate(seconds),
        timing="no stamps stored" if seconds is None else timing("episode_000000", seconds),
        tasks=(),
        notes=tuple(notes),
        draft_rig_yaml=_draft(found, columns, cameras, seconds),
    )


def _draft(
    found: Found, columns: list[DraftColumn], cameras: list[InspectedCamera], seconds: np.ndarray[Any, Any] | None
) -> str:
    rate = _rate(seconds)
    text = draft_rig(
        kind=found.kind,
        name="mylab",
        robot_type="umi" if found.kind == "umi_zarr" else None,
        rate_hz=round(rate) if rate else None,
        columns=columns,
        cameras=[
            DraftCamera(
                name=camera.key.replace("videos/", "camera_"),
                key=camera.key,
                channel_order="rgb" if camera.key.startswith("videos/") else None,
            )
            for camera in cameras
        ],
        task_key=None,
        has_task=False,
    )
    if found.kind == "umi_zarr" and " + " in next(each.key for each in columns if each.name == "action"):
        head, _, tail = text.partition("\n  action:\n")
        text = (
            f"{head}\n  action:\n    shift_rows: 1  # ? row t takes the pose of row t + 1; 0 = UMI's own loader\n{tail}"
        )
    return text


def _columns(found: Found, arrays: Mapping[str, Any], num_rows: int) -> list[DraftColumn]:
    """Arrays of numbers under their own names; of UMI's, poses side by side as state and, later, as action."""
    low_dim = {
        key: np.asarray(array[:num_rows])
        for key, array in arrays.items()
        if len(array.shape) <= 2 and array.dtype.kind in "fiu" and key != STAMPS
    }
    if found.kind != "umi_zarr":
        return [draft_column(key, values) for key, values in low_dim.items()]
    joined = _umi_columns(arrays, num_rows)
    if "action" in arrays:
        joined = [joined[0], draft_column("action", low_dim.pop("action"))]
    # under their own names: how a demonstration ends is no observation
    rest = [draft_column(key, values, name=key) for key, values in low_dim.items() if not key.endswith(_POSE)]
    return joined + rest


def _umi_columns(arrays: Mapping[str, Any], num_rows: int) -> list[DraftColumn]:
    """State and action of every hand: position, rotation and width side by side."""
    hands = sorted({key.split("_")[0] for key in arrays if key.endswith(_POSE[0])})
    keys = [f"{hand}_{part}" for hand in hands for part in _POSE if f"{hand}_{part}" in arrays]
    parts = [np.asarray(arrays[key][:num_rows]).reshape(num_rows, -1) for key in keys]
    labels = tuple(
        key if part.shape[1] == 1 else f"{key}_{'xyz'[index] if part.shape[1] == 3 else index}"
        for key, part in zip(keys, parts, strict=True)
        for index in range(part.shape[1])
    )
    values = np.concatenate(parts, axis=1)
    return [
        draft_column(" + ".join(keys), values, name=name, labels=labels) for name in ("observation.state", "action")
    ]


def _cameras(found: Found, arrays: Mapping[str, Any]) -> tuple[list[InspectedCamera], list[str]]:
    """Arrays of pictures, and videos beside the store."""
    cameras = [
        InspectedCamera(
            key=key,
            height=int(array.shape[1]),
            width=int(array.shape[2]),
            encoding="raw" if array.dtype == np.uint8 else f"raw {array.dtype}",
        )
        for key, array in arrays.items()
        if is_picture(array)
    ]
    notes: list[str] = []
    for key, path in camera_files(found.root, 0).items():
        from dataengine.sources.video_probe import probe_video

        try:
            probe = probe_video(path, f"{key} of episode 0")
            cameras.append(InspectedCamera(key=key, height=probe.height, width=probe.width, encoding=str(probe.codec)))
        except EpisodeError as error:
            notes.append(str(error))
    return cameras, notes


def _seconds(arrays: Mapping[str, Any], num_rows: int) -> np.ndarray[Any, Any] | None:
    """Recorded times of the first episode, where there are any."""
    if STAMPS not in arrays or arrays[STAMPS].dtype.kind != "f" or num_rows < 2:
        return None
    return np.asarray(arrays[STAMPS][:num_rows]).reshape(-1)


def _rate(seconds: np.ndarray[Any, Any] | None) -> float | None:
    if seconds is None:
        return None
    step = float(np.median(np.diff(seconds)))
    return round(1 / step, 2) if step > 0 else None
