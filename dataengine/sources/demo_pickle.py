"""Pickled demonstrations, as hand_dapg and its descendants publish them: a list of dicts of arrays.

Each dict has actions (T, A), observations (T, S), rewards (T,), init_state_dict: numbers alone, which `plain_pickle`
reads without running anything. No stamps, no rate, no names: the rig states them.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataengine.sources.columns import check_column, num_dims
from dataengine.sources.content import episode_id, files_stamp, folder_fingerprint, natural_key
from dataengine.sources.metadata import MetadataTable, csv_files
from dataengine.sources.plain_pickle import load_plain
from schemas.episodes import Episode
from schemas.errors import EpisodeError, RigError, SourceError
from schemas.rigs import Feature, Rig, SourceKind

SUFFIXES = (".pickle", ".pkl")
type Demo = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoPickle:
    """A folder of pickles that hold demonstrations; an episode is called `file.pickle/demo_3`."""

    root: Path
    rig: Rig
    table: MetadataTable
    demos: dict[str, tuple[str, int]]  # episode -> its file and place in it
    kind: SourceKind = "demo_pickle"

    @classmethod
    def open(cls, root: Path, rig: Rig) -> "DemoPickle":
        """List the demos and check the rig against them. Raises SourceError, RigError."""
        demos: dict[str, tuple[str, int]] = {}
        misfit: str | None = None
        fits = False
        for file in pickle_names(root):
            for number, demo in enumerate(load_demos(root / file, file)):
                name = f"{file}/demo_{number}"
                demos[name] = (file, number)
                fault = _misfit(demo, name, rig)
                fits, misfit = fits or fault is None, misfit or fault
        if not fits:
            raise RigError(misfit or f"the pickles in '{root.name}' hold no demonstration. Name another folder.")
        table = MetadataTable.of(rig, root, {name: (name, name.rsplit("/", 1)[-1]) for name in demos})
        return cls(root=root, rig=rig, table=table, demos=demos)

    def names(self) -> list[str]:
        """`file.pickle/demo_N` of all files, in natural order."""
        return list(self.demos)

    def stamps(self) -> dict[str, str]:
        """Size and dates of each demo's file, and its row of the CSV."""
        return {name: files_stamp([self.root / file], self.table.row(name)) for name, (file, _) in self.demos.items()}

    def fingerprint(self) -> str:
        """Identity of all files and of the metadata CSV."""
        files = dict.fromkeys(file for file, _ in self.demos.values())
        whole = [*csv_files(self.rig, self.root), *(self.root / file for file in files)]
        return folder_fingerprint(self.root, whole=whole, pixels=[])

    def read(self, name: str) -> Episode:
        """One demo. Raises EpisodeError for one that lacks a column or is inconsistent."""
        file, number = self.demos[name]
        demo = load_demos(self.root / file, file)[number]
        columns: dict[str, NDArray[Any]] = {}
        for ours, feature in self.rig.features.items():
            values = value_at(demo, feature.key)
            if not isinstance(values, np.ndarray):
                raise EpisodeError(f"{name}: {feature.key} is missing. Drop the episode or correct the rig.")
            columns[ours] = check_column(name, ours, feature, values)
        task = value_at(demo, self.rig.task_key) if self.rig.task_key else None
        words = {word: value_at(demo, key) for word, key in self.rig.metadata.keys.items()}
        return Episode(
            meta=self.table.meta(
                episode_id=episode_id(PurePosixPath(file).stem, _digest(demo)),
                raw_name=name,
                raw_task=task if isinstance(task, str) else None,
                raw_words={word: str(value) for word, value in words.items() if value is not None},
            ),
            rate_hz=self.rig.rate_hz,
            columns=columns,
            cameras={},
            imported={key: (json.dumps(_lists(demo[key])),) for key in ("init_state_dict",) if key in demo},
        )


def pickle_names(root: Path) -> list[str]:
    """Relative paths of all pickles below a folder, in natural order; nothing hidden."""
    found = (path.relative_to(root) for suffix in SUFFIXES for path in root.rglob(f"*{suffix}") if path.is_file())
    return sorted(
        (path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts)), key=natural_key
    )


def load_demos(path: Path, name: str) -> list[Demo]:
    """All demonstrations of a pickle. Raises SourceError for one that holds something else."""
    found = load_plain(path, name)
    if not isinstance(found, list) or not found or not all(isinstance(demo, dict) for demo in found):
        what = f"a list of {type(found[0]).__name__}" if isinstance(found, list) and found else type(found).__name__
        raise SourceError(
            f"{name} is a pickle of {what}, not of a list of dicts of arrays (actions, observations). "
            f"Write it as HDF5 (robomimic: data/demo_N)."
        )
    return found


def arrays_of(demo: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, NDArray[Any]]]:
    """Every array of a demo with its path of keys."""
    for key, value in sorted(demo.items()):
        if isinstance(value, np.ndarray):
            yield f"{prefix}{key}", value
        elif isinstance(value, dict):
            yield from arrays_of(value, f"{prefix}{key}/")


def value_at(demo: Mapping[str, Any], key: str) -> Any:  # noqa: ANN401 - whatever lies there
    """What lies at a path of keys; None where nothing does."""
    found: Any = demo
    for step in key.split("/"):
        if not isinstance(found, dict) or step not in found:
            return None
        found = found[step]
    return found


def _misfit(demo: Demo, name: str, rig: Rig) -> str | None:
    """Why the rig cannot read a demo, in one sentence; None where it can."""
    if rig.cameras:
        return f"rig '{rig.name}' has cameras, {name} is numbers alone. Write cameras: {{}} in the rig."
    for ours, feature in rig.features.items():
        values = value_at(demo, feature.key)
        if not isinstance(values, np.ndarray):
            has = ", ".join(key for key, _ in arrays_of(demo)) or "no arrays"
            return f"'{ours}' reads {feature.key}, not in {name} (has: {has}). Correct its key in the rig."
        if (dims := _dims(feature)) is not None and values.ndim == 2 and values.shape[1] != dims:
            return f"'{ours}' has {values.shape[1]} dimensions in {name}, the rig names {dims}. Correct names: there."
    return None


def _dims(feature: Feature) -> int | None:
    return num_dims(feature) if feature.columns is None else None


def _digest(demo: Demo) -> str:
    digest = hashlib.sha256()
    for key, values in arrays_of(demo):
        digest.update(f"{key} {values.shape} {values.dtype} ".encode() + np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def _lists(value: Any) -> Any:  # noqa: ANN401 - plain data
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    return value.tolist() if isinstance(value, np.ndarray) else value
