"""ALOHA, ACT, DexVLA and ChatVLA episodes: one HDF5 file each, found anywhere below the folder.

Layout: /action (T, A), /observations/qpos (T, S), /observations/images/<camera>, and where recorded /language_raw,
/substep_reasonings (T,), /reasoning (1,), attribute `sim`. No stamps, no rate, no colour order: the rig states them.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from dataengine.sources.columns import check_column
from dataengine.sources.content import episode_id, files_stamp, folder_fingerprint, hash_files, natural_key
from dataengine.sources.hdf5_cameras import IMAGES, camera_names, colour_question, open_camera, open_hdf5
from dataengine.sources.metadata import MetadataTable
from schemas.episodes import Episode
from schemas.errors import EpisodeError, RigError, SourceError
from schemas.rigs import Camera, Feature, Rig, SourceKind

SUFFIX = ".hdf5"
_NUM_PROBED = 50  # files looked into to see which optional columns and cameras this folder has
_REASONING = ("substep_reasonings", "reasoning")


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
        for ours, camera in rig.cameras.items():
            if camera.channel_order == "unknown" and camera.jpeg_channel_order is None:
                raise RigError(colour_question(rig.name, ours))
        present = _probe(root, files, rig)
        table = MetadataTable.of(rig, root, {name: _aliases(name) for name in files})
        return cls(root=root, rig=_resolved(rig, present), declared=rig, table=table, files=files)

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
            whole=[self.root / self.rig.metadata.csv] if self.rig.metadata.csv else [],
            pixels=[self.root / name for name in self.files],
            low_dim=[_low_dim_hash(self.root / name) for name in self.files],
        )

    def read(self, name: str) -> Episode:
        """One file as an episode. Raises EpisodeError for a truncated, incomplete or inconsistent one."""
        path = self.root / name
        try:
            with open_hdf5(path) as file:
                return self._read(path, file, name)
        except (OSError, RuntimeError) as error:  # h5py raises either for damaged files
            raise EpisodeError(_unreadable(path, name, error)) from None

    def _read(self, path: Path, file: h5py.File, name: str) -> Episode:
        columns = {
            ours: check_column(name, ours, feature, _dataset(file, name, feature)[()])
            for ours, feature in self.rig.features.items()
        }
        self._refuse_extras(file, name)
        cameras = {ours: open_camera(path, file, name, ours, self.rig) for ours in self.rig.cameras}
        return Episode(
            meta=self.table.meta(
                episode_id=episode_id(PurePosixPath(name).stem, hash_files([path])),
                raw_name=name,
                raw_task=_instruction(file, name, self.rig),
            ),
            rate_hz=self.rig.rate_hz,
            columns=columns,
            cameras=dict(cameras),
            imported=_imported(file, name, len(next(iter(columns.values()), ()))),
        )

    def _refuse_extras(self, file: h5py.File, name: str) -> None:
        """An optional column or camera that only this file has would be dropped without a word."""
        for ours, part in _parts(self.declared):
            if ours not in self.rig.features and ours not in self.rig.cameras and part.key in file:
                raise EpisodeError(
                    f"{name}: has {part.key}, which most files here lack. Convert it from a folder of its own."
                )


def hdf5_names(root: Path) -> list[str]:
    """Relative paths of all *.hdf5 below a folder, in natural order; nothing hidden is an episode.

    Links to nowhere (a drive that is not mounted, content not fetched) are listed too: `read` says what they are.
    """
    found = (path.relative_to(root) for path in root.rglob(f"*{SUFFIX}") if path.is_file() or _leads_nowhere(path))
    shown = (path for path in found if not any(part.startswith(".") for part in path.parts))
    return sorted((path.as_posix() for path in shown), key=natural_key)


def _leads_nowhere(path: Path) -> bool:
    return path.is_symlink() and not path.exists()


def _aliases(name: str) -> tuple[str, ...]:
    """What a CSV may call an episode: its path, its file, that without the suffix, or its last number."""
    stem = PurePosixPath(name).stem
    digits = re.findall(r"\d+", stem)
    return (name, PurePosixPath(name).name, stem, *([str(int(digits[-1]))] if digits else []))


def _parts(rig: Rig) -> Iterator[tuple[str, Feature | Camera]]:
    yield from rig.features.items()
    yield from rig.cameras.items()


def _probe(root: Path, files: tuple[str, ...], rig: Rig) -> frozenset[str]:
    """Which of the rig's parts this folder has: the commonest set among files that the rig fits."""
    misfit: str | None = None
    sets: Counter[frozenset[str]] = Counter()
    step = max(len(files) // _NUM_PROBED, 1)
    order = [*files[::step], *files]  # spread first; all of them only when none of those fits
    for number, name in enumerate(order):
        if sets and number >= len(files[::step]):
            break
        try:
            with open_hdf5(root / name) as file:
                fault = _misfit(file, name, rig)
                if fault is None:
                    sets[frozenset(ours for ours, part in _parts(rig) if part.key in file)] += 1
                misfit = misfit or fault
        except (OSError, RuntimeError):
            continue  # a truncated file: `read` says so
    if sets:
        return sets.most_common(1)[0][0]
    if misfit:
        raise RigError(misfit)
    raise SourceError(
        f"none of the {len(files)} {SUFFIX} files in {root.name}/ can be opened ({files[0]} first). Copy them again."
    )


def _misfit(file: h5py.File, name: str, rig: Rig) -> str | None:
    """Why the rig cannot read this file, in one sentence; None where it can."""
    cameras = ", ".join(camera_names(file)) or "none"
    where = f"in rigs/{rig.name}.yaml"
    for ours, camera in rig.cameras.items():
        if camera.key not in file and not camera.optional:
            return f"camera '{ours}' not in {name} (has: {cameras}). Name it under cameras: {where}"
    if rig.cameras and cameras != "none" and not any(camera.key in file for camera in rig.cameras.values()):
        return f"none of the rig's cameras is in {name} (has: {cameras}). Name them under cameras: {where}"
    for ours, feature in rig.features.items():
        dataset = file.get(feature.key)
        if not isinstance(dataset, h5py.Dataset):
            if feature.optional:
                continue
            has = ", ".join(low_dim_keys(file)) or "no columns"
            return f"'{ours}' reads {feature.key}, not in {name} (has: {has}). Correct its key under features: {where}"
        dims = dataset.shape[1] if dataset.ndim == 2 else None
        if feature.names and feature.columns is None and dims is not None and dims != len(feature.names):
            return (
                f"'{ours}' has {dims} dimensions in {name}, but the rig names {len(feature.names)}. "
                f"Correct names: under features: {where}"
            )
    return None


def low_dim_keys(file: h5py.File) -> list[str]:
    """Keys of all numeric datasets outside the images, in file order."""
    keys: list[str] = []

    def note(key: str, item: Any) -> None:  # noqa: ANN401 - h5py hands a group or a dataset
        if isinstance(item, h5py.Dataset) and "/images/" not in key and item.dtype.kind in "fiu" and item.ndim:
            keys.append(key)

    file.visititems(note)
    return keys


def _resolved(rig: Rig, present: frozenset[str]) -> Rig:
    """The rig without optional parts that the folder does not have, and without what leans on them."""
    features = {ours: feature for ours, feature in rig.features.items() if ours in present}
    return rig.model_copy(
        update={
            "features": features,
            "cameras": {ours: camera for ours, camera in rig.cameras.items() if ours in present},
            "end_effectors": tuple(part for part in rig.end_effectors if part.feature in features),
            "arms": tuple(part for part in rig.arms if part.feature in features),
        }
    )


def _dataset(file: h5py.File, name: str, feature: Feature) -> h5py.Dataset:
    dataset = file.get(feature.key)
    if not isinstance(dataset, h5py.Dataset):
        raise EpisodeError(f"{name}: {feature.key} is missing. Record it again or drop the episode.")
    return dataset


def _texts(file: h5py.File, name: str, key: str) -> tuple[str, ...]:
    """A text dataset, scalar or (N,), bytes or str."""
    dataset = file.get(key)
    if not isinstance(dataset, h5py.Dataset):
        return ()
    values: NDArray[Any] | bytes | str = dataset[()]
    flat = [values] if isinstance(values, bytes | str) else values.ravel().tolist()
    try:
        return tuple(value.decode("utf-8") if isinstance(value, bytes) else str(value) for value in flat)
    except UnicodeDecodeError:
        raise EpisodeError(f"{name}: {key} is not UTF-8 text. Write it again.") from None


def _instruction(file: h5py.File, name: str, rig: Rig) -> str | None:
    texts = _texts(file, name, rig.task_key) if rig.task_key else ()
    return texts[0].strip() if texts else None


def _imported(file: h5py.File, name: str, num_frames: int) -> dict[str, tuple[str, ...]]:
    """Reasoning recorded with the episode, and whether it says that it comes from a simulator."""
    imported = {key: texts for key in _REASONING if (texts := _texts(file, name, key))}
    steps = imported.get(_REASONING[0], ())
    if steps and len(steps) != num_frames:
        raise EpisodeError(
            f"{name}: substep_reasonings has {len(steps)} texts for {num_frames} rows. Write it again or remove it."
        )
    if "sim" in file.attrs:
        imported["sim"] = ("true" if bool(file.attrs["sim"]) else "false",)
    return imported


def _spelled(values: Any) -> bytes:  # noqa: ANN401 - what h5py gives for text
    """Bytes of a text dataset; `repr` of an array would be shortened."""
    return repr(values.tolist() if isinstance(values, np.ndarray | np.generic) else values).encode()


def _low_dim_hash(path: Path) -> str:
    """Hash of everything but the images; a file that cannot be opened counts by its sampled bytes alone."""
    digest = hashlib.sha256()

    def note(key: str, item: Any) -> None:  # noqa: ANN401 - h5py hands a group or a dataset
        if isinstance(item, h5py.Dataset) and not key.startswith(f"{IMAGES}/"):
            values = item[()]
            plain = isinstance(values, np.ndarray) and values.dtype != object
            raw = values.tobytes() if plain else _spelled(values)
            digest.update(f"{key} {item.shape} {item.dtype} ".encode() + raw)

    try:
        with open_hdf5(path) as file:
            file.visititems(note)
            digest.update(repr(sorted((key, str(value)) for key, value in file.attrs.items())).encode())
    except (OSError, RuntimeError):
        return "unreadable"
    return digest.hexdigest()


def _unreadable(path: Path, name: str, error: Exception) -> str:
    if _leads_nowhere(path):
        return f"{name}: a link to a file that is not there. Mount its drive, fetch the file, or drop the link."
    reason = "file is truncated" if "truncated" in str(error) else "not a readable HDF5 file"
    return f"{name}: {reason}. Copy it again from the recorder, or drop it."
