"""robomimic, robosuite and LIBERO demonstrations: many to an HDF5 file, each a group data/demo_N.

Layout: actions (T, A), states, rewards, dones, obs/<key>; attributes `env_args` (JSON with control_freq), in LIBERO
`problem_info` (JSON with the instruction); /mask/<filter> lists demos. next_obs is obs one row later and is not read.
A rig's keys are relative to the demo; those of its texts are looked for there and then in the whole file.
"""

import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import h5py

from dataengine.sources.content import episode_id, files_stamp, folder_fingerprint
from dataengine.sources.hdf5_cameras import check_colours, is_picture, open_camera, unnamed_frames
from dataengine.sources.hdf5_content import content_digest, low_dim_hash, open_hdf5, text_at, texts_of
from dataengine.sources.hdf5_fit import fitted, not_taken, raw_words, read_columns, refuse_extras
from dataengine.sources.hdf5_layouts import demo_names, hdf5_names, none_opens, stranger, unreadable
from dataengine.sources.metadata import MetadataTable, csv_files
from schemas.episodes import Episode
from schemas.errors import EpisodeError, RigError, SourceError
from schemas.rigs import Rig, SourceKind

DERIVED = "next_obs"
_ENVIRONMENTS = ("env_args", "env_info")  # robomimic and LIBERO; robosuite's own collector


@dataclass(frozen=True, slots=True, kw_only=True)
class RobomimicHdf5:
    """A folder of files that hold demonstrations; an episode is called `file.hdf5/demo_3`."""

    root: Path
    rig: Rig
    declared: Rig  # the rig as given, optional parts included
    table: MetadataTable
    demos: dict[str, tuple[str, str]]  # episode -> its file and demo; demo "" for a file that holds none
    masks: dict[str, tuple[str, ...]]  # episode -> the filters that name it
    kind: SourceKind = "robomimic_hdf5"

    @classmethod
    def open(cls, root: Path, rig: Rig) -> "RobomimicHdf5":
        """List the demos and check the rig against them. Raises RigError when it fits none."""
        check_colours(rig)
        files = hdf5_names(root)
        demos: dict[str, tuple[str, str]] = {}
        masks: dict[str, tuple[str, ...]] = {}
        rates: dict[str, float] = {}
        for file in files:
            listed = _Listed.of(root / file)
            names = [f"{file}/{demo}" for demo in listed.demos] or [file]
            demos.update(zip(names, [(file, demo) for demo in listed.demos] or [(file, "")], strict=True))
            masks.update({f"{file}/{demo}": filters for demo, filters in listed.masks.items()})
            if listed.rate_hz is not None:
                rates[file] = listed.rate_hz
        _check_rates(rates, rig)
        ours = fitted(rig, list(demos), partial(_opened, root, demos))
        if ours is None:
            raise SourceError(none_opens(root, files))
        table = MetadataTable.of(rig, root, {name: _aliases(name, *place) for name, place in demos.items()})
        return cls(root=root, rig=ours, declared=rig, table=table, demos=demos, masks=masks)

    def names(self) -> list[str]:
        """`file.hdf5/demo_N` of all files, in natural order; a broken file counts as one episode."""
        return list(self.demos)

    def stamps(self) -> dict[str, str]:
        """Size and dates of each demo's file, and its row of the CSV."""
        files = {file: files_stamp([self.root / file], {}) for file in {file for file, _ in self.demos.values()}}
        return {
            name: files[file] if not (row := self.table.row(name)) else f"{files[file]} {sorted(row.items())}"
            for name, (file, _) in self.demos.items()
        }

    def fingerprint(self) -> str:
        """Identity of all files, of every number in them, and of the metadata CSV."""
        files = list(dict.fromkeys(file for file, _ in self.demos.values()))
        return folder_fingerprint(
            self.root,
            whole=csv_files(self.rig, self.root),
            pixels=[self.root / file for file in files],
            low_dim=[low_dim_hash(self.root / file, _is_pixels_or_derived) for file in files],
        )

    def not_taken(self) -> tuple[str, ...]:
        """Datasets and cameras that the rig does not name, of the first demo that it fits."""
        return not_taken(self.declared, self.names(), partial(_opened, self.root, self.demos), (DERIVED,))

    def read(self, name: str) -> Episode:
        """One demo as an episode; the others of its file are not touched. Raises EpisodeError for a bad one."""
        file, demo = self.demos[name]
        path = self.root / file
        try:
            with open_hdf5(path) as handle:
                if not demo:
                    raise EpisodeError(stranger(handle, name))
                return self._read(path, handle["data"][demo], handle, name)
        except (OSError, RuntimeError, KeyError) as error:  # h5py raises any of them for damaged files
            raise EpisodeError(unreadable(path, name, error)) from None

    def _read(self, path: Path, group: h5py.Group, file: h5py.File, name: str) -> Episode:
        rate = control_rate(file)
        if rate is not None and rate != self.rig.rate_hz:
            raise EpisodeError(_rate_sentence(name, rate, self.rig))
        _check_robots(name, robots(file), self.rig)
        columns = read_columns(group, name, self.rig)
        num_rows = len(next(iter(columns.values()), ()))
        stated = group.attrs.get("num_samples")
        if stated is not None and int(stated) != num_rows:
            raise EpisodeError(f"{name}: num_samples says {int(stated)} rows, there are {num_rows}. Write it again.")
        refuse_extras(group, name, self.rig, self.declared)
        cameras = {ours: open_camera(path, group, name, ours, self.rig) for ours in self.rig.cameras}
        digest = content_digest(
            group,
            known={self.rig.cameras[ours].key: camera.content for ours, camera in cameras.items()},
            frames=partial(unnamed_frames, path, group),
            skip=(DERIVED,),
        )
        stem, demo = PurePosixPath(self.demos[name][0]).stem, self.demos[name][1]
        filters = self.masks.get(name, ())
        return Episode(
            meta=self.table.meta(
                episode_id=episode_id(f"{stem}_{demo}", digest),
                raw_name=name,
                raw_task=instruction(group, file, name, self.rig.task_key),
                raw_words=raw_words(name, self.table, [group, file]),
            ),
            rate_hz=self.rig.rate_hz,
            columns=columns,
            cameras=dict(cameras),
            imported={"mask": filters} if filters else {},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Listed:
    """What opening a file once tells about its demos."""

    demos: tuple[str, ...] = ()
    masks: dict[str, tuple[str, ...]]
    rate_hz: float | None = None

    @classmethod
    def of(cls, path: Path) -> "_Listed":
        try:
            with open_hdf5(path) as file:
                return cls(demos=tuple(demo_names(file)), masks=_masks(file), rate_hz=control_rate(file))
        except (OSError, RuntimeError, EpisodeError):
            return cls(masks={})  # `read` says what is wrong


def _masks(file: h5py.File) -> dict[str, tuple[str, ...]]:
    """Which filters (train, valid, 20_percent, ...) name each demo."""
    group = file.get("mask")
    found: dict[str, list[str]] = {}
    for name in group if isinstance(group, h5py.Group) else ():
        for demo in texts_of(group[name][()], f"{file.filename}: mask/{name}"):
            found.setdefault(demo, []).append(name)
    return {demo: tuple(filters) for demo, filters in found.items()}


def environment(file: h5py.File) -> dict[str, Any]:
    """The JSON that says how the simulation was set up; empty where the file has none."""
    attrs = file["data"].attrs if isinstance(file.get("data"), h5py.Group) else {}
    for key in _ENVIRONMENTS:
        try:
            found = json.loads(attrs.get(key, ""))
        except (ValueError, TypeError):
            continue
        if isinstance(found, dict):
            return found
    return {}


def control_rate(file: h5py.File) -> float | None:
    """Rows per second as the environment's settings state it; None where they do not."""
    settings = environment(file)
    inner = settings.get("env_kwargs")
    value = (inner if isinstance(inner, dict) else settings).get("control_freq", settings.get("control_freq"))
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value) or value <= 0:
        return None
    return float(value)


def robots(file: h5py.File) -> tuple[str, ...]:
    """Names of the robots in the environment; robosuite 0.x has them in the environment's name only."""
    settings = environment(file)
    inner = settings.get("env_kwargs")
    value = (inner if isinstance(inner, dict) else settings).get("robots")
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list):
        return tuple(map(str, value))
    name = file["data"].attrs.get("env") if isinstance(file.get("data"), h5py.Group) else None
    found = re.match("Sawyer|Baxter", name) if isinstance(name, str) else None
    return (found[0],) if found else ()


def _check_rates(rates: dict[str, float], rig: Rig) -> None:
    """A rig that contradicts every file is the rig's fault; one that contradicts some is theirs."""
    if rates and rig.rate_hz not in rates.values():
        file, rate = next(iter(rates.items()))
        raise RigError(_rate_sentence(file, rate, rig))


def _rate_sentence(name: str, rate: float, rig: Rig) -> str:
    return (
        f"{name}: its env_args say control_freq {rate:g}, rig '{rig.name}' says {rig.rate_hz} Hz. "
        f"Correct rate_hz in the rig, or convert the file with a rig of its own."
    )


def _check_robots(name: str, found: tuple[str, ...], rig: Rig) -> None:
    """Another robot's state vector can have the same shape and other joints: `columns` would take wrong ones."""
    odd = next((robot for robot in found if robot.lower() not in rig.robot_type.lower()), None)
    if odd is not None and rig.robot_type != "unknown":
        raise EpisodeError(
            f"{name}: recorded with a {odd}, rig '{rig.name}' is for robot_type {rig.robot_type}. "
            f"Convert it with a rig for that robot."
        )


def instruction(group: h5py.Group, file: h5py.File, name: str, key: str | None) -> str | None:
    """The instruction at a key of the demo or of the file; LIBERO stores some in quotes, some as a list of words."""
    if key is None:
        return None
    texts = next((texts for place in (group, file) if (texts := text_at(place, key, name)) is not None), None)
    if not texts:
        return None
    text = texts[0].strip()
    if text.startswith("["):
        try:
            words = json.loads(text)
        except ValueError:
            words = None
        if isinstance(words, list) and all(isinstance(word, str) for word in words):
            text = ("" if all(len(word) == 1 for word in words) else " ").join(words)
    return text.strip('"').strip() or None


@contextmanager
def _opened(root: Path, demos: dict[str, tuple[str, str]], name: str) -> Iterator[h5py.Group]:
    file, demo = demos[name]
    if not demo:
        raise EpisodeError(f"{name} holds no demo.")
    with open_hdf5(root / file) as handle:
        yield handle["data"][demo]


def _aliases(name: str, file: str, demo: str) -> tuple[str, ...]:
    """What a CSV may call a demo: its path, its file and number, or its number alone."""
    return tuple(dict.fromkeys((name, f"{PurePosixPath(file).name}/{demo}", demo))) if demo else (name,)


def _is_pixels_or_derived(key: str, dataset: h5py.Dataset) -> bool:
    return f"/{DERIVED}/" in key or is_picture(dataset) or dataset.ndim == 4
