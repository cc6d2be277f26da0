"""What lies in a folder of raw data, before anybody has written a rig for it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dataengine.inspected import InspectedCamera, InspectedKey, Inspection
from dataengine.rig_drafts import DraftCamera, DraftColumn, draft_rig
from dataengine.sources.aloha_hdf5 import hdf5_names, low_dim_keys
from dataengine.sources.detection import Found, find_dataset
from dataengine.sources.diffusion_zarr import is_picture, open_zarr, read_ends
from dataengine.sources.hdf5_cameras import IMAGES, camera_names, first_picture_size, open_hdf5
from dataengine.sources.lerobot_meta import LeRobotMeta, episode_number
from dataengine.sources.lerobot_v21 import camera_name, low_dim_features
from dataengine.sources.parquet_columns import matrix_of
from dataengine.sources.video_probe import probe_video
from schemas.errors import EpisodeError

__all__ = ["Inspection", "inspect_path"]

_OUR_NAMES = {"action": "action", "observations/qpos": "observation.state", "state": "observation.state"}
_SHOWN = 3  # names listed in a note


def inspect_path(path: Path) -> Inspection:
    """Look into the one dataset in or below `path`, without a rig. Raises SourceError where there is none."""
    found = find_dataset(path)
    folder = found.root.relative_to(path).as_posix()
    match found.kind:
        case "aloha_hdf5":
            return _inspect_hdf5(found, folder)
        case "lerobot_v21":
            return _inspect_lerobot(found, folder)
        case "diffusion_zarr":
            return _inspect_zarr(found, folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hdf5Survey:
    """What opening every file once tells."""

    names: tuple[str, ...]
    broken: tuple[str, ...]
    camera_sets: dict[str, frozenset[str]]  # readable file -> its cameras
    tasks: tuple[str, ...]
    num_rows: int

    @classmethod
    def of(cls, root: Path) -> "_Hdf5Survey":
        names = hdf5_names(root)
        broken: list[str] = []
        camera_sets: dict[str, frozenset[str]] = {}
        tasks: Counter[str] = Counter()
        num_rows = 0
        for name in names:
            try:
                with open_hdf5(root / name) as file:
                    camera_sets[name] = frozenset(camera_names(file))
                    action = file.get("action")
                    num_rows += len(action) if isinstance(action, h5py.Dataset) and action.ndim else 0
                    tasks.update(_language(file))
            except (OSError, RuntimeError):
                broken.append(name)
        return cls(
            names=tuple(names),
            broken=tuple(broken),
            camera_sets=camera_sets,
            tasks=tuple(tasks),
            num_rows=num_rows,
        )


def _inspect_hdf5(found: Found, folder: str) -> Inspection:
    survey = _Hdf5Survey.of(found.root)
    rows, cameras, columns, notes = _first_file(found.root, tuple(survey.camera_sets))
    notes += _uneven(survey.camera_sets)
    if survey.broken:
        notes.append(f"{len(survey.broken)} of {len(survey.names)} files cannot be opened: {_some(survey.broken)}")
    return Inspection(
        kind=found.kind,
        folder=folder,
        num_episodes=len(survey.names),
        num_rows=survey.num_rows,
        rows=tuple(rows),
        cameras=tuple(cameras),
        rate_hz=None,
        timing="no stamps stored",
        tasks=survey.tasks,
        notes=tuple(notes),
        draft_rig_yaml=draft_rig(
            kind=found.kind,
            name="mylab",
            robot_type=None,
            rate_hz=None,
            columns=columns,
            cameras=[
                DraftCamera(name=camera.key.rsplit("/", 1)[-1], key=camera.key, channel_order=None)
                for camera in cameras
            ],
            task_key="language_raw" if survey.tasks else None,
            has_task=bool(survey.tasks),
        ),
    )


def _first_file(
    root: Path, names: Sequence[str]
) -> tuple[Sequence[InspectedKey], Sequence[InspectedCamera], list[DraftColumn], list[str]]:
    """Keys, cameras, columns and notes of the first file whose numbers can be read."""
    broken: dict[str, str] = {}
    for name in names:
        try:
            with open_hdf5(root / name) as file:
                cameras, camera_notes = _hdf5_cameras(file)
                columns = [_draft_column(key, file[key][()]) for key in low_dim_keys(file) if _is_column(file, key)]
                notes = [*_hdf5_notes(file, name), *camera_notes, *_broken_notes(broken)]
                return _hdf5_keys(file), cameras, columns, notes
        except (OSError, RuntimeError):  # it opens, but what it holds is damaged
            broken[name] = "its data can not be read"
    return (), (), [], _broken_notes(broken)


def _hdf5_keys(file: h5py.File) -> tuple[InspectedKey, ...]:
    rows: list[InspectedKey] = []

    def note(key: str, item: Any) -> None:  # noqa: ANN401 - h5py hands a group or a dataset
        if isinstance(item, h5py.Dataset):
            dtype = "text" if h5py.check_string_dtype(item.dtype) or item.dtype.kind == "S" else str(item.dtype)
            rows.append(InspectedKey(key=key, shape=tuple(item.shape), dtype=dtype))

    file.visititems(note)
    return tuple(rows)


def _hdf5_cameras(file: h5py.File) -> tuple[tuple[InspectedCamera, ...], list[str]]:
    cameras: list[InspectedCamera] = []
    notes: list[str] = []
    for name in camera_names(file):
        key = f"{IMAGES}/{name}"
        item = file[key]
        if not isinstance(item, h5py.Dataset):
            continue
        if item.ndim == 4 and item.shape[3] == 3 and item.dtype == np.uint8:
            cameras.append(InspectedCamera(key=key, height=item.shape[1], width=item.shape[2], encoding="raw"))
        elif item.ndim in (1, 2) and len(item):
            try:
                width, height = first_picture_size(item, name)
                cameras.append(InspectedCamera(key=key, height=height, width=width, encoding="jpeg"))
            except EpisodeError as error:
                notes.append(str(error))
        else:
            notes.append(f"{name} is {item.dtype} of shape {item.shape}: no colour camera, not read")
    if cameras:
        notes.append("the colour order of the cameras is not stored")
    return tuple(cameras), notes


def _hdf5_notes(file: h5py.File, name: str) -> list[str]:
    notes = []
    if "sim" in file.attrs:
        notes.append(f"{name} says sim = {bool(file.attrs['sim'])}")
    notes += [f"reasoning is recorded in {key}" for key in ("substep_reasonings", "reasoning") if key in file]
    if not _language(file):
        notes.append("no instruction is stored (language_raw)")
    return notes


def _language(file: h5py.File) -> list[str]:
    item = file.get("language_raw")
    if not isinstance(item, h5py.Dataset) or not item.size:
        return []
    value = np.asarray(item[()]).ravel()[0]
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return [text.strip()] if text.strip() else []


def _is_column(file: h5py.File, key: str) -> bool:
    item = file[key]
    action = file.get("action")
    same_rows = not isinstance(action, h5py.Dataset) or len(item) == len(action)
    return item.ndim == 2 and same_rows and key != "compress_len"


def _uneven(camera_sets: dict[str, frozenset[str]]) -> list[str]:
    """Cameras that some files lack."""
    notes = []
    for camera in sorted(frozenset[str]().union(*camera_sets.values())):
        lacking = [name for name, cameras in camera_sets.items() if camera not in cameras]
        if lacking:
            notes.append(f"{len(lacking)} of {len(camera_sets)} files lack camera {camera}: {_some(lacking)}")
    return notes


def _inspect_lerobot(found: Found, folder: str) -> Inspection:
    meta = LeRobotMeta.read(found.root)
    info, names = meta.info, meta.names()
    videos = meta.keys("video")
    filmed = [name for name in names if all(meta.video_path(episode_number(name), key).is_file() for key in videos)]
    stored = [name for name in names if meta.parquet_path(name).is_file()]
    columns, timing, broken = _first_table(meta, stored)
    cameras = [_lerobot_camera(meta, key, filmed, broken) for key in videos]
    return Inspection(
        kind=found.kind,
        folder=folder,
        num_episodes=len(names),
        num_rows=sum(meta.lengths.values()),
        rows=tuple(
            InspectedKey(key=key, shape=feature.shape, dtype=feature.dtype) for key, feature in info.features.items()
        ),
        cameras=tuple(cameras),
        rate_hz=info.fps,
        timing=timing,
        tasks=tuple(meta.tasks.values()),
        notes=(*_lerobot_notes(meta, names, filmed, stored), *_broken_notes(broken)),
        draft_rig_yaml=draft_rig(
            kind=found.kind,
            name="mylab",
            robot_type=info.robot_type,
            rate_hz=meta.whole_rate_hz,
            columns=columns,
            cameras=[DraftCamera(name=camera_name(key), key=key, channel_order="rgb") for key in videos],
            task_key=None,
            has_task=bool(meta.tasks),
        ),
    )


def _first_table(meta: LeRobotMeta, stored: Sequence[str]) -> tuple[list[DraftColumn], str, dict[str, str]]:
    """Ranges and timing of the first episode whose parquet can be read; and the ones before it that can not: why."""
    broken: dict[str, str] = {}
    for name in stored:
        path = meta.parquet_path(name)
        try:
            table = pq.read_table(path, partitioning=None)
            columns = [
                _draft_column(key, matrix_of(table, name, key), name=key, labels=feature.labels())
                for key, feature in low_dim_features(meta.info)
            ]
        except (pa.ArrowException, OSError):
            broken[name] = f"{path.relative_to(meta.root).as_posix()} is no readable parquet"
        except EpisodeError as error:
            broken[name] = str(error)
        else:
            stamped = "timestamp" in table.column_names and table.num_rows
            return columns, _timing(name, table["timestamp"].to_numpy()) if stamped else "no stamps stored", broken
    return [], "no stamps stored", broken


def _broken_notes(broken: dict[str, str]) -> list[str]:
    """What was met on the way to the first episode that can be read."""
    notes = [f"{name} is broken and was passed over: {reason}" for name, reason in broken.items()]
    return notes[:_SHOWN] + ([f"{len(notes) - _SHOWN} more broken ones were passed over"] if notes[_SHOWN:] else [])


def _lerobot_notes(meta: LeRobotMeta, names: list[str], filmed: list[str], stored: list[str]) -> list[str]:
    notes = ["which numbers are grippers or hands is not stored"]
    if meta.whole_rate_hz is None:
        notes.append(f"{meta.info.fps:g} Hz is no whole rate: resample before converting")
    notes += [f"{key} is stored as images inside parquet, which is not read" for key in meta.keys("image")]
    for what, present in (("video", filmed), ("parquet", stored)):
        lacking = [name for name in names if name not in set(present)]
        if lacking:
            notes.append(f"{len(lacking)} of {len(names)} episodes lack their {what}: {_some(lacking)}")
    return notes


def _lerobot_camera(meta: LeRobotMeta, key: str, filmed: Sequence[str], broken: dict[str, str]) -> InspectedCamera:
    """As the first readable video says; as info.json says where there is none. Others are added to `broken`."""
    for name in filmed:
        try:
            probe = probe_video(meta.video_path(episode_number(name), key), f"its video of {key}")
        except EpisodeError as error:
            broken[name] = str(error)
        else:
            return InspectedCamera(key=key, height=probe.height, width=probe.width, encoding=probe.codec)
    height, width = meta.info.features[key].shape[:2]
    encoding = "unknown: no video can be read" if filmed else "unknown: no video present"
    return InspectedCamera(key=key, height=height, width=width, encoding=encoding)


def _timing(name: str, seconds: NDArray[Any]) -> str:
    if len(seconds) < 2:
        return f"{name}: one row"
    steps = np.diff(seconds.astype(np.float64)) * 1000
    return (
        f"{name}: {len(seconds)} rows over {float(seconds[-1] - seconds[0]):.2f} s, "
        f"step {steps.min():.2f} to {steps.max():.2f} ms, median {np.median(steps):.2f}"
    )


def _inspect_zarr(found: Found, folder: str) -> Inspection:
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
        _draft_column(key, np.asarray(array[: ends[0]]))
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


def _draft_column(
    key: str, values: NDArray[Any], *, name: str | None = None, labels: tuple[str, ...] = ()
) -> DraftColumn:
    matrix = values.reshape(len(values), int(np.prod(values.shape[1:]))).astype(np.float64)
    ours = name or _OUR_NAMES.get(key) or f"observation.{key.removeprefix('observations/').replace('/', '_')}"
    if not len(matrix):  # an episode without rows has no range
        matrix = np.full((1, matrix.shape[1]), np.nan)
    return DraftColumn(name=ours, key=key, labels=labels, low=matrix.min(axis=0), high=matrix.max(axis=0))


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
