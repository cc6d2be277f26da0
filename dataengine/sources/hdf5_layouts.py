"""Which HDF5 layout a folder's files have, told by what is inside the first ones that open."""

import os
import re
from pathlib import Path, PurePosixPath

import h5py
import numpy as np

from dataengine.sources.content import natural_key
from dataengine.sources.hdf5_content import open_hdf5
from schemas.errors import SourceError
from schemas.rigs import SourceKind

SUFFIXES = (".hdf5", ".h5")
_MOST_OPENED = 20  # files opened in search of a layout that is known


def hdf5_names(root: Path) -> list[str]:
    """Relative paths of all *.hdf5 and *.h5 below a folder, in natural order; nothing hidden is an episode.

    Links to nowhere (a drive that is not mounted, content not fetched) are listed too: `read` says what they are.
    """
    names: list[str] = []
    for folder, inside, files in os.walk(root):  # a list of 10,000 files: pathlib took ten times as long
        inside[:] = [name for name in inside if not name.startswith(".")]
        below = Path(folder).relative_to(root).as_posix()
        for name in files:
            if name.startswith(".") or not name.endswith(SUFFIXES):
                continue
            path = Path(folder, name)
            if path.is_file() or leads_nowhere(path):
                names.append(name if below == "." else f"{below}/{name}")
    return sorted(names, key=natural_key)


def leads_nowhere(path: Path) -> bool:
    """A link whose target is not there."""
    return path.is_symlink() and not path.exists()


def unreadable(path: Path, name: str, error: Exception) -> str:
    """Why a file does not open or can not be read, and what to do."""
    if leads_nowhere(path):
        return f"{name}: a link to a file that is not there. Mount its drive, fetch the file, or drop the link."
    reason = "file is truncated" if "truncated" in str(error) else "not a readable HDF5 file"
    return f"{name}: {reason}. Copy it again from the recorder, or drop it."


def none_opens(root: Path, names: list[str]) -> str:
    """The sentence for a folder of which no file can be opened."""
    suffix = PurePosixPath(names[0]).suffix
    return (
        f"none of the {len(names)} {suffix} files in '{root.name}' can be opened ({names[0]} first). Copy them again."
    )


def hdf5_kind(root: Path) -> SourceKind:
    """The format of a folder of HDF5 files. Raises SourceError that says what else they are."""
    names = hdf5_names(root)
    if not names:
        raise SourceError(f"what ends in .hdf5 or .h5 in '{root}' is no file. Name a folder that holds episodes.")
    refusal: str | None = None
    num_opened = 0
    for name in names:
        try:
            with open_hdf5(root / name) as file:
                num_opened += 1
                kind = kind_of(file)
                if kind is not None:
                    return kind
                refusal = refusal or stranger(file, name)
        except (OSError, RuntimeError):
            continue
        if num_opened == _MOST_OPENED:
            break
    raise SourceError(refusal or none_opens(root, names))


def kind_of(file: h5py.File) -> SourceKind | None:
    """The format of one open file; None for a layout that is not read."""
    if demo_names(file):
        return "robomimic_hdf5"
    if "puppet" in file or "master" in file:  # RoboMIND: /observations holds rgb_images, not images
        return None
    if isinstance(file.get("observations"), h5py.Group) or isinstance(file.get("action"), h5py.Dataset):
        return "aloha_hdf5"
    return None


def demo_names(file: h5py.File) -> list[str]:
    """Names of the groups data/demo_N, in natural order; empty where the file has another layout."""
    data = file.get("data")
    if not isinstance(data, h5py.Group):
        return []
    return sorted((name for name in data if re.fullmatch(r"demo_?\d+", name)), key=natural_key)


def stranger(file: h5py.File, name: str) -> str:
    """What a file of a layout that is not read is, in one sentence with what to do."""
    keys = sorted(file, key=natural_key)
    convert = "Write it as ALOHA (/action, /observations) or robomimic (data/demo_N) HDF5 first."
    trials = [key for key in keys if re.fullmatch(r"Trial\d+", key)]
    if trials:
        hollow = _placeholders(file[trials[0]])
        dirt = f", with empty float16 placeholders such as {hollow[0]}" if hollow else ""
        return (
            f"{name} is a RoboHive trace ({len(trials)} groups, {trials[0]} first{dirt}), which is not read. {convert}"
        )
    if "puppet" in file or "master" in file:
        return f"{name} is RoboMIND (/puppet, /master), which is not read yet. {convert}"
    if "observation/robot_state" in file:
        return f"{name} is a DROID trajectory (/observation/robot_state), which is not read yet. {convert}"
    if "state/joint" in file and "state/effector" in file:
        return f"{name} is AgiBot World proprioception (/state, /action), which is not read yet. {convert}"
    shown = ", ".join(f"/{key}{_shape(file.get(key))}" for key in keys[:6]) or "nothing"
    return (
        f"{name} holds {shown}: no HDF5 layout that is known (ALOHA/DexVLA: /action, /observations; "
        f"robomimic, robosuite, LIBERO: /data/demo_N). {convert}"
    )


def _shape(item: object) -> str:
    return f" {item.shape}" if isinstance(item, h5py.Dataset) else ""


def _placeholders(group: h5py.Group) -> list[str]:
    """What RoboHive writes where it recorded nothing: a float16 column of NaN."""
    found: list[str] = []

    def note(key: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and item.dtype == np.float16 and item.ndim == 1:
            found.append(f"{key} {item.shape}")

    group.visititems(note)
    return found
