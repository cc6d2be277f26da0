"""Whether a rig fits HDF5 episodes: which of its optional parts they have, and one sentence where it fits none."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from dataengine.sources.columns import check_column
from dataengine.sources.hdf5_cameras import IMAGES, is_picture, picture_keys
from dataengine.sources.hdf5_content import check_written, text_at
from dataengine.sources.metadata import MetadataTable
from dataengine.sources.optional_parts import without
from schemas.errors import EpisodeError, RigError
from schemas.rigs import Camera, Feature, Rig

_NUM_PROBED = 50  # episodes looked into to see which optional columns and cameras this folder has
_JOIN = " + "  # between keys of which the columns stand side by side

type Opened = Callable[[str], AbstractContextManager[h5py.Group]]


def fitted(rig: Rig, names: Sequence[str], opened: Opened) -> Rig | None:
    """The rig without optional parts that these episodes lack: the commonest set among those that it fits.

    None where no episode can be opened. Raises RigError where some can and it fits none.
    """
    misfit: str | None = None
    sets: Counter[frozenset[str]] = Counter()
    step = max(len(names) // _NUM_PROBED, 1)
    order = [*names[::step], *names]  # spread first; all of them only when none of those fits
    for number, name in enumerate(order):
        if sets and number >= len(names[::step]):
            break
        try:
            with opened(name) as group:
                fault = _misfit(group, name, rig)
                if fault is None:
                    sets[frozenset(ours for ours, part in _parts(rig) if _has(group, part.key))] += 1
                misfit = misfit or fault
        except (OSError, RuntimeError, EpisodeError):
            continue  # a truncated file: `read` says so
    if sets:
        present = sets.most_common(1)[0][0]
        return without(rig, features=rig.features.keys() - present, cameras=rig.cameras.keys() - present)
    if misfit:
        raise RigError(misfit)
    return None


def refuse_extras(group: h5py.Group, name: str, rig: Rig, declared: Rig) -> None:
    """An optional column or camera that only this episode has would be dropped without a word."""
    for ours, part in _parts(declared):
        if ours not in rig.features and ours not in rig.cameras and _has(group, part.key):
            raise EpisodeError(
                f"{name}: has {part.key}, which most files here lack. Convert it from a folder of its own."
            )


def not_taken(rig: Rig, names: Sequence[str], opened: Opened, known: Collection[str]) -> tuple[str, ...]:
    """Pictures and datasets of a row per step that the rig names nowhere, of the first episode that it fits.

    `known` are keys and groups that the format itself explains: lengths, reasoning, what is derived from the rest.
    """
    for name in names:
        try:
            with opened(name) as group:
                if _misfit(group, name, rig) is None:
                    return _left_out(group, rig, known)
        except (OSError, RuntimeError, EpisodeError):
            continue  # `read` says so
    return ()


def _left_out(group: h5py.Group, rig: Rig, known: Collection[str]) -> tuple[str, ...]:
    columns = [piece for feature in rig.features.values() for piece in feature.key.split(_JOIN)]
    cameras = [camera.key for camera in rig.cameras.values()]
    taken = {key.strip("/") for key in (*columns, *cameras, *rig.metadata.keys.values(), rig.task_key or "")}
    lengths = {group[key].shape[:1] for key in columns if _has(group, key)}
    found: list[tuple[str, Any]] = []
    group.visititems(lambda key, item: found.append((key, item)))
    return tuple(
        _described(key, item)
        for key, item in found
        if isinstance(item, h5py.Dataset)
        and item.size
        and key not in taken
        and key.split("/", 1)[0] not in known
        and (item.shape[:1] in lengths or is_picture(item))
    )


def _described(key: str, dataset: h5py.Dataset) -> str:
    if key.startswith(f"{IMAGES}/") or is_picture(dataset):
        return f"{key} (camera)"
    return f"{key} (text)" if h5py.check_string_dtype(dataset.dtype) else key


def read_columns(group: h5py.Group, name: str, rig: Rig) -> dict[str, NDArray[Any]]:
    """All columns of one episode, checked and transformed as the rig says."""
    return {
        ours: check_column(name, ours, feature, _values(group, name, feature)) for ours, feature in rig.features.items()
    }


def raw_words(name: str, table: MetadataTable, places: Sequence[h5py.Group]) -> dict[str, str]:
    """What the raw file says for each word of `metadata.keys`, looked for in `places` in order."""
    words: dict[str, str] = {}
    for word, key in table.keys.items():
        texts = next((texts for place in places if (texts := text_at(place, key, name)) is not None), None)
        if texts is not None:
            words[word] = ", ".join(texts).strip()
    return words


def low_dim_keys(group: h5py.Group) -> list[str]:
    """Keys of all numeric datasets outside the images, in file order."""
    keys: list[str] = []

    def note(key: str, item: Any) -> None:  # noqa: ANN401 - h5py hands a group or a dataset
        if isinstance(item, h5py.Dataset) and "/images/" not in key and item.dtype.kind in "fiub" and item.ndim:
            keys.append(key)

    group.visititems(note)
    return keys


def _parts(rig: Rig) -> Iterator[tuple[str, Feature | Camera]]:
    yield from rig.features.items()
    yield from rig.cameras.items()


def _has(group: h5py.Group, key: str) -> bool:
    return all(isinstance(group.get(piece), h5py.Dataset) for piece in key.split(_JOIN))


def _misfit(group: h5py.Group, name: str, rig: Rig) -> str | None:
    """Why the rig cannot read this episode, in one sentence; None where it can."""
    where = f"in rig '{rig.name}'"
    absent = {ours: camera for ours, camera in rig.cameras.items() if camera.key not in group}
    has = ", ".join(picture_keys(group)) or "none" if absent else ""  # to list them takes longer than all the rest
    for ours, camera in absent.items():
        if not camera.optional:
            reads = f"camera '{ours}' reads {camera.key}, not in {name} (has: {has})."
            return f"{reads} Correct its key under cameras: {where}"
    if absent and has != "none" and len(absent) == len(rig.cameras):
        return f"none of the rig's cameras is in {name} (has: {has}). Name them under cameras: {where}"
    for ours, feature in rig.features.items():
        if not _has(group, feature.key):
            if feature.optional:
                continue
            keys = ", ".join(low_dim_keys(group)) or "no columns"
            return f"'{ours}' reads {feature.key}, not in {name} (has: {keys}). Correct its key under features: {where}"
        dims = _num_dims(group, feature.key)
        if feature.names and feature.columns is None and dims is not None and dims != len(feature.names):
            return (
                f"'{ours}' has {dims} dimensions in {name}, but the rig names {len(feature.names)}. "
                f"Correct names: under features: {where}"
            )
    return None


def _num_dims(group: h5py.Group, key: str) -> int | None:
    shapes = [group[piece].shape for piece in key.split(_JOIN)]
    return sum(shape[1] for shape in shapes) if all(len(shape) == 2 for shape in shapes) else None


def _values(group: h5py.Group, name: str, feature: Feature) -> NDArray[Any]:
    """A dataset, or several side by side."""
    pieces: list[NDArray[Any]] = []
    for key in feature.key.split(_JOIN):
        dataset = group.get(key)
        if not isinstance(dataset, h5py.Dataset):
            raise EpisodeError(f"{name}: {key} is missing. Record it again or drop the episode.")
        check_written(name, key, dataset)
        values = dataset[()]
        pieces.append(values[:, None] if values.ndim == 1 and _JOIN in feature.key else values)
    if len(pieces) == 1:
        return pieces[0]
    if len({(len(piece), piece.ndim, piece.dtype) for piece in pieces}) != 1:
        shapes = " and ".join(f"{piece.dtype} {piece.shape}" for piece in pieces)
        raise EpisodeError(f"{name}: {feature.key} are {shapes}, which do not stand side by side. Record it again.")
    return np.concatenate(pieces, axis=1)
