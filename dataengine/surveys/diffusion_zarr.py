"""Survey of diffusion-policy replay buffers."""

import numpy as np

from dataengine.inspected import InspectedCamera, InspectedKey, Inspection
from dataengine.rig_drafts import DraftCamera, draft_rig
from dataengine.sources.detection import Found
from dataengine.sources.diffusion_zarr import is_picture, open_zarr, read_ends
from dataengine.surveys.words import draft_column


def survey(found: Found, folder: str) -> Inspection:
    """What the arrays are; `folder` is where the group lies below the one that was named."""
    group = open_zarr(found.root)
    arrays = dict(sorted(group["data"].arrays()))
    ends = read_ends(found.root, group)
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
    columns = [
        draft_column(key, np.asarray(array[: ends[0]]))
        for key, array in arrays.items()
        if len(array.shape) <= 2 and array.dtype.kind in "fiu"
    ]
    notes = ["no rate, no instruction, no names and no colour order are stored"]
    lengths = np.diff(ends, prepend=0)
    notes.append(f"episodes have {lengths.min()} to {lengths.max()} rows")
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
        rate_hz=None,
        timing="no stamps stored",
        tasks=(),
        notes=tuple(notes),
        draft_rig_yaml=draft_rig(
            kind=found.kind,
            name="mylab",
            robot_type=None,
            rate_hz=None,
            columns=columns,
            cameras=[DraftCamera(name=camera.key, key=camera.key, channel_order=None) for camera in cameras],
            task_key=None,
            has_task=False,
        ),
    )
