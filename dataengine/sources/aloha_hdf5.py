"""ALOHA, ACT, DexVLA, TinyVLA and ChatVLA episodes: one HDF5 file each, found anywhere below the folder.

Layout: /action (T, A), /observations/qpos (T, S), /observations/images/<camera>, and where recorded /base_action,
/language_raw, /substep_reasonings (T,), /reasoning (1,) or a group, attribute `sim`. No stamps, no rate, no colour
order: the rig states them. What a trainer does to actions (ACT reads action[t-1] of real robots) is never applied.
"""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from dataengine.sources.content import episode_id, files_stamp, folder_fingerprint
from dataengine.sources.copying import CopyTo
from dataengine.sources.hdf5_cameras import IMAGES, LENGTHS, check_colours, jpeg_sizes, open_camera, unnamed_frames
from dataengine.sources.hdf5_content import content_digest, low_dim_hash, open_hdf5, text_at, texts_of
from dataengine.sources.hdf5_fit import fitted, not_taken, raw_words, read_columns, refuse_extras
from dataengine.sources.hdf5_layouts import hdf5_names, none_opens, unreadable
from dataengine.sources.metadata import MetadataTable, csv_files
from schemas.episodes import Episode
from schemas.errors import EpisodeError, SourceError
from schemas.rigs import Rig, SourceKind

_STEPS, _REASONING, _LANGUAGE = "substep_reasonings", "reasoning", "language_raw"


@dataclass(frozen=True, slots=True, kw_only=True)
class AlohaHdf5:
    """A folder of ALOHA/DexVLA HDF5 episodes."""

    root: Path
    rig: Rig
    declared: Rig  # the rig as given, optional parts included
    table: MetadataTable
    files: tuple[str, ...]
    kind: SourceKind = "aloha_hdf5"

    @classmethod
    def open(cls, root: Path, rig: Rig) -> "AlohaHdf5":
        """List the files and check the rig against them. Raises RigError when it fits none."""
        files = tuple(hdf5_names(root))
        check_colours(rig)
        ours = fitted(rig, files, partial(_opened, root))
        if ours is None:
            raise SourceError(none_opens(root, list(files)))
        table = MetadataTable.of(rig, root, {name: _aliases(name) for name in files})
        return cls(root=root, rig=ours, declared=rig, table=table, files=files)

    def names(self) -> list[str]:
        """Relative paths of all files, in natural order."""
        return list(self.files)

    def stamps(self) -> dict[str, str]:
        """Size and dates of each file, and its row of the CSV."""
        return {name: files_stamp([self.root / name], self.table.row(name)) for name in self.files}

    def fingerprint(self) -> str:
        """Identity of all files, of every number in them, and of the metadata CSV."""
        return folder_fingerprint(
            self.root,
            whole=csv_files(self.rig, self.root),
            pixels=[self.root / name for name in self.files],
            low_dim=[low_dim_hash(self.root / name, _is_camera) for name in self.files],
        )

    def not_taken(self) -> tuple[str, ...]:
        """Datasets and cameras that the rig does not name, of the first file that it fits."""
        return not_taken(self.declared, self.files, partial(_opened, self.root), (LENGTHS, _STEPS, _REASONING))

    def read(self, name: str) -> Episode:
        """One file as an episode. Raises EpisodeError for a truncated, incomplete or inconsistent one."""
        with self._opened(name) as file:
            return self._read(self.root / name, file, name, None)

    def jpeg_sizes(self, name: str) -> dict[str, NDArray[np.int64]]:
        """Bytes of each JPEG of each camera, from `compress_len`; empty where one camera has none."""
        with self._opened(name) as file:
            sizes = {ours: jpeg_sizes(file, name, ours, self.rig) for ours in self.rig.cameras}
        known = {ours: found for ours, found in sizes.items() if found is not None}
        return known if len(known) == len(sizes) else {}

    def read_copying(self, name: str, copy_to: CopyTo) -> Episode:
        """As `read`; JPEGs of which the file states the sizes go to whom `copy_to` names."""
        with self._opened(name) as file:
            return self._read(self.root / name, file, name, copy_to)

    @contextmanager
    def _opened(self, name: str) -> Iterator[h5py.File]:
        path = self.root / name
        try:
            with open_hdf5(path) as file:
                yield file
        except (OSError, RuntimeError) as error:  # h5py raises either for damaged files
            raise EpisodeError(unreadable(path, name, error)) from None

    def _read(self, path: Path, file: h5py.File, name: str, copy_to: CopyTo | None) -> Episode:
        columns = read_columns(file, name, self.rig)
        refuse_extras(file, name, self.rig, self.declared)
        cameras = {ours: open_camera(path, file, name, ours, self.rig, copy_to) for ours in self.rig.cameras}
        digest = content_digest(
            file,
            known={self.rig.cameras[ours].key: camera.content for ours, camera in cameras.items()},
            frames=partial(unnamed_frames, path, file),
            skip=(LENGTHS,),
        )
        tasks = _tasks(file, name, self.rig)
        return Episode(
            meta=self.table.meta(
                episode_id=episode_id(PurePosixPath(name).stem, digest),
                raw_name=name,
                raw_task=tasks[0].strip() if tasks else None,
                raw_words=raw_words(name, self.table, [file]),
            ),
            rate_hz=self.rig.rate_hz,
            columns=columns,
            cameras=dict(cameras),
            imported=_imported(file, name, len(next(iter(columns.values()), ())), tasks),
        )


def _opened(root: Path, name: str) -> AbstractContextManager[h5py.Group]:
    file: AbstractContextManager[h5py.Group] = open_hdf5(root / name)
    return file


def _aliases(name: str) -> tuple[str, ...]:
    """What a CSV may call an episode: its path, its file, that without the suffix, or its last number."""
    stem = PurePosixPath(name).stem
    digits = re.findall(r"\d+", stem)
    return (name, PurePosixPath(name).name, stem, *([str(int(digits[-1]))] if digits else []))


def _is_camera(key: str, _: h5py.Dataset) -> bool:
    return key.startswith(f"{IMAGES}/")


def _tasks(file: h5py.File, name: str, rig: Rig) -> tuple[str, ...]:
    """The instruction, scalar or an array; more than one text where the file holds several."""
    return (text_at(file, rig.task_key, name) if rig.task_key else None) or ()


def _imported(file: h5py.File, name: str, num_frames: int, tasks: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Reasoning recorded with the episode, further instructions, and whether it comes from a simulator."""
    imported = _texts_below(file, name)
    steps = imported.get(_STEPS, ())
    if steps and len(steps) != num_frames:
        raise EpisodeError(
            f"{name}: {_STEPS} has {len(steps)} texts for {num_frames} rows. Write it again or remove it."
        )
    if len(set(tasks)) > 1:
        imported[_LANGUAGE] = tasks
    if "sim" in file.attrs:
        imported["sim"] = ("true" if bool(file.attrs["sim"]) else "false",)
    return imported


def _texts_below(file: h5py.File, name: str) -> dict[str, tuple[str, ...]]:
    """Texts of the reasoning datasets; some files hold /reasoning as a group of one text for each row and part."""
    found: dict[str, tuple[str, ...]] = {}
    for key in (_STEPS, _REASONING):
        item = file.get(key)
        parts = {f"{key}/{part}": item[part] for part in item} if isinstance(item, h5py.Group) else {key: item}
        for path, dataset in parts.items():
            if isinstance(dataset, h5py.Dataset):
                found[path] = _words_of(dataset, f"{name}: {path}")
    return {key: texts for key, texts in found.items() if texts}


def _words_of(dataset: h5py.Dataset, where: str) -> tuple[str, ...]:
    values: Any = dataset[()]
    if dataset.dtype.kind in "fiub":  # numbers among the parts of /reasoning, e.g. a gripper position
        return tuple(str(row) for row in (values.tolist() if dataset.ndim else [values.item()]))
    return texts_of(values, where)
