"""Survey of robomimic, robosuite and LIBERO demonstrations."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from dataengine.inspected import InspectedCamera, InspectedKey, Inspection
from dataengine.rig_drafts import DraftCamera, DraftColumn, draft_rig
from dataengine.sources.detection import Found
from dataengine.sources.hdf5_cameras import first_picture_size, is_picture
from dataengine.sources.hdf5_content import open_hdf5, text_at
from dataengine.sources.hdf5_layouts import demo_names, hdf5_names
from dataengine.sources.robomimic_hdf5 import DERIVED, control_rate, instruction, robots
from dataengine.surveys.words import broken_notes, draft_column, some
from schemas.errors import EpisodeError

# where these files say what was done: LIBERO, robomimic, robosuite
_TASK_KEYS = ("data/problem_info.language_instruction", "data/env_args.env_name", "data/env")
_OUR_NAMES = {
    "actions": "action",
    "states": "observation.sim_state",
    "obs/object": "observation.environment_state",
    "rewards": "next.reward",
    "dones": "next.done",
}


@dataclass(slots=True, kw_only=True)
class _Files:
    """What opening every file once tells; filled file by file."""

    num_files: int = 0
    num_episodes: int = 0
    num_rows: int = 0
    rates: Counter[float] = field(default_factory=Counter)
    robots: Counter[str] = field(default_factory=Counter)
    tasks: Counter[str] = field(default_factory=Counter)
    task_keys: Counter[str] = field(default_factory=Counter)
    masks: Counter[str] = field(default_factory=Counter)
    widths: dict[str, set[tuple[int, ...]]] = field(default_factory=dict)  # key -> shapes of a row
    first: tuple[str, str] | None = None  # file and demo
    broken: dict[str, str] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)  # HDF5 files that hold no demo

    def add(self, path: Path, name: str) -> None:
        """Look into one file."""
        self.num_files += 1
        try:
            with open_hdf5(path) as file:
                self._add(file, name)
        except (OSError, RuntimeError, EpisodeError) as error:
            self.broken[name] = str(error) if isinstance(error, EpisodeError) else "it can not be opened or read"
            self.num_episodes += 1

    def _add(self, file: h5py.File, name: str) -> None:
        demos = demo_names(file)
        if not demos:
            self.others.append(name)
            self.num_episodes += 1
            return
        self.first = self.first or (name, demos[0])
        self.num_episodes += len(demos)
        self.rates.update([rate] if (rate := control_rate(file)) else [])
        self.robots.update(robots(file))
        if isinstance(file.get("mask"), h5py.Group):
            self.masks.update(file["mask"])
        for key in _TASK_KEYS:
            text = instruction(file["data"][demos[0]], file, name, key)
            if text:
                self.task_keys[key] += 1
                self.tasks[text] += len(demos)
                break
        for demo in demos:
            self.num_rows += _num_rows(file["data"][demo])
            for key, item in file["data"][demo].items():
                if isinstance(item, h5py.Dataset):
                    self.widths.setdefault(key, set()).add(tuple(item.shape[1:]))


def survey(found: Found, folder: str) -> Inspection:
    """What the files of a folder hold; `folder` is where they lie below the one that was named."""
    files = _Files()
    for name in hdf5_names(found.root):
        files.add(found.root / name, name)
    rate = next(iter(files.rates)) if len(files.rates) == 1 else None
    whole = int(rate) if rate is not None and rate == int(rate) else None
    task_key = next(iter(files.task_keys)) if len(files.task_keys) == 1 else None
    first = _First.of(found.root, files.first)
    return Inspection(
        kind=found.kind,
        folder=folder,
        num_episodes=files.num_episodes,
        num_rows=files.num_rows,
        rows=tuple(first.rows),
        cameras=tuple(first.cameras),
        rate_hz=rate,
        timing=first.timing,
        tasks=tuple(files.tasks),
        notes=(*_notes(files), *first.notes),
        draft_rig_yaml=draft_rig(
            kind=found.kind,
            name="mylab",
            robot_type=next(iter(files.robots)).lower() if len(files.robots) == 1 else None,
            rate_hz=whole,
            columns=first.columns,
            cameras=[
                DraftCamera(name=camera.key.rsplit("/", 1)[-1], key=camera.key, channel_order=None)
                for camera in first.cameras
            ],
            task_key=task_key,
            has_task=task_key is not None,
        ),
    )


@dataclass(slots=True, kw_only=True)
class _First:
    """The first demo: its keys, cameras, columns and what is odd about them."""

    rows: list[InspectedKey] = field(default_factory=list)
    cameras: list[InspectedCamera] = field(default_factory=list)
    columns: list[DraftColumn] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    timing: str = "no stamps stored"

    @classmethod
    def of(cls, root: Path, place: tuple[str, str] | None) -> "_First":
        found = cls()
        if place is None:
            return found
        try:
            with open_hdf5(root / place[0]) as file:
                group = file["data"][place[1]]
                group.visititems(lambda key, item: found.add(key, item, _num_rows(group)))
                if control_rate(file) is None:
                    found.add_clock(group)
                if text_at(file, _TASK_KEYS[0], place[0]) is None:
                    found.notes.append("no sentence is stored; the environment's name stands in for the instruction")
        except (OSError, RuntimeError):
            found.notes += broken_notes({f"{place[0]}/{place[1]}": "its data can not be read"})
        if found.cameras:
            found.notes.append("colour order and orientation of the cameras are not stored; LIBERO's are upside down")
        return found

    def add(self, key: str, item: Any, num_rows: int) -> None:  # noqa: ANN401 - h5py hands a group or a dataset
        """Note one dataset of the demo."""
        if not isinstance(item, h5py.Dataset) or key.startswith(f"{DERIVED}/"):
            return
        self.rows.append(InspectedKey(key=key, shape=tuple(item.shape), dtype=str(item.dtype)))
        if is_picture(item):
            if item.ndim == 4:
                height, width, encoding = item.shape[1], item.shape[2], "raw"
            else:
                (width, height), encoding = first_picture_size(item, key), "jpeg"
            self.cameras.append(InspectedCamera(key=key, height=height, width=width, encoding=encoding))
        elif not item.size:
            self.notes.append(f"{key} is empty {tuple(item.shape)}: not read")
        elif item.ndim in (1, 2) and item.dtype.kind in "fiub" and len(item) == num_rows:
            ours = _OUR_NAMES.get(key) or f"observation.{key.removeprefix('obs/').replace('/', '_')}"
            self.columns.append(draft_column(key, item[()], name=ours))
        else:
            self.notes.append(f"{key} is {item.dtype} of shape {tuple(item.shape)}: no column and no colour camera")

    def add_clock(self, group: h5py.Group) -> None:
        """MuJoCo's flattened state begins with its clock, which tells a rate that nothing else does."""
        states = group.get("states")
        if isinstance(states, h5py.Dataset) and states.ndim == 2 and len(states) > 1 and states.shape[1]:
            steps = np.diff(states[:, 0].astype(np.float64))
            step = float(np.median(steps))
            if steps.min() > 0:
                self.timing = (
                    f"states[:, 0] rises as a clock of {1 / step:.4g} Hz does: "
                    f"step {steps.min() * 1000:.4g} to {steps.max() * 1000:.4g} ms, median {step * 1000:.4g}"
                )


def _num_rows(demo: h5py.Group) -> int:
    lengths = [len(demo[key]) for key in ("actions", "states") if isinstance(demo.get(key), h5py.Dataset)]
    return lengths[0] if lengths else 0


def _notes(files: _Files) -> list[str]:
    notes = broken_notes(files.broken)
    if files.others:
        notes.append(f"{len(files.others)} of {files.num_files} files hold no data/demo_N: {some(files.others)}")
    if len(files.rates) > 1:
        notes.append(f"control_freq differs between files ({_list(files.rates)}): convert each rate on its own")
    if len(files.robots) > 1:
        notes.append(f"several robots ({_list(files.robots)}): convert each robot with a rig of its own")
    for key, shapes in sorted(files.widths.items()):
        if len(shapes) > 1:
            widths = " and ".join(str(shape[0] if len(shape) == 1 else shape) for shape in sorted(shapes))
            notes.append(f"{key} is {widths} numbers wide in different demos: leave it out, or take columns of it")
    if files.masks:
        notes.append(f"filters: {_list(files.masks)}; kept with each episode")
    return notes


def _list(counts: Counter[Any]) -> str:
    return ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in sorted(counts))
