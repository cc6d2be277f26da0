"""Survey of ALOHA, ACT, DexVLA and ChatVLA episodes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from dataengine.inspected import InspectedCamera, InspectedKey, Inspection
from dataengine.rig_drafts import DraftCamera, DraftColumn, draft_rig
from dataengine.sources.detection import Found
from dataengine.sources.hdf5_cameras import IMAGES, camera_names, first_picture_size
from dataengine.sources.hdf5_content import open_hdf5
from dataengine.sources.hdf5_fit import low_dim_keys
from dataengine.sources.hdf5_layouts import hdf5_names
from dataengine.surveys.words import broken_notes, draft_column, some
from schemas.errors import EpisodeError


@dataclass(frozen=True, slots=True, kw_only=True)
class _Files:
    """What opening every file once tells."""

    names: tuple[str, ...]
    broken: tuple[str, ...]
    camera_sets: dict[str, frozenset[str]]  # readable file -> its cameras
    tasks: tuple[str, ...]
    num_rows: int

    @classmethod
    def of(cls, root: Path) -> "_Files":
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


def survey(found: Found, folder: str) -> Inspection:
    """What the files of a folder hold; `folder` is where they lie below the one that was named."""
    survey = _Files.of(found.root)
    rows, cameras, columns, notes = _first_file(found.root, tuple(survey.camera_sets))
    notes += _uneven(survey.camera_sets)
    if survey.broken:
        notes.append(f"{len(survey.broken)} of {len(survey.names)} files cannot be opened: {some(survey.broken)}")
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
                columns = [draft_column(key, file[key][()]) for key in low_dim_keys(file) if _is_column(file, key)]
                notes = [*_hdf5_notes(file, name), *camera_notes, *broken_notes(broken)]
                return _hdf5_keys(file), cameras, columns, notes
        except (OSError, RuntimeError):  # it opens, but what it holds is damaged
            broken[name] = "its data can not be read"
    return (), (), [], broken_notes(broken)


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
            is_depth = item.ndim in (3, 4) and item.dtype in (np.uint16, np.float32)
            hint = "depth; to convert it, name it under cameras: with depth_unit_m" if is_depth else "not read"
            notes.append(f"{name} is {item.dtype} of shape {item.shape}: no colour camera, {hint}")
    if cameras:
        notes.append("the colour order of the cameras is not stored")
    return tuple(cameras), notes


def _hdf5_notes(file: h5py.File, name: str) -> list[str]:
    notes = []
    if "sim" in file.attrs:
        notes.append(f"{name} says sim = {bool(file.attrs['sim'])}")
    if not file.attrs.get("sim", False):
        notes.append("ACT trains real robots on action[t-1]; action_shift_steps records such a shift, none is applied")
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
            notes.append(f"{len(lacking)} of {len(camera_sets)} files lack camera {camera}: {some(lacking)}")
    return notes
