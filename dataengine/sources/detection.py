"""Which format a folder holds, and where inside it the dataset lies."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import h5py

from dataengine.sources.aloha_hdf5 import SUFFIX, hdf5_names
from dataengine.sources.hdf5_cameras import open_hdf5
from schemas.errors import SourceError
from schemas.rigs import SourceKind

_KNOWN = "ALOHA/DexVLA *.hdf5, LeRobot v2.1 (meta/info.json), diffusion-policy zarr"


@dataclass(frozen=True, slots=True)
class Found:
    """One dataset: its format and its root folder, which may lie below the folder that was named."""

    kind: SourceKind
    root: Path


def find_dataset(path: Path) -> Found:
    """The one dataset in or below `path`. Raises SourceError when there is none, or more than one."""
    if not path.exists():
        raise SourceError(f"'{path}' does not exist. Check the path.")
    if not path.is_dir():
        raise SourceError(f"'{path}' is a file. Give the folder that holds the dataset.")
    try:
        if not any(path.iterdir()):
            raise SourceError(f"'{path}' is an empty directory. Give the folder that holds the dataset.")
    except PermissionError:
        raise SourceError(f"'{path}' may not be read. Ask for permission or copy it.") from None
    found = _walk(path)
    if len(found) > 1:
        listing = ", ".join(f"{each.root.relative_to(path)} ({each.kind})" for each in found[:5])
        raise SourceError(f"'{path}' holds {len(found)} datasets: {listing}. Name one of them.")
    if not found:
        raise SourceError(f"'{path}' holds no dataset that can be read. Known: {_KNOWN}.")
    _check_readable(found[0])
    return found[0]


def _walk(path: Path) -> list[Found]:
    """Every dataset below `path`; what lies inside one is not looked at."""
    found: list[Found] = []
    collected: set[SourceKind] = set()
    for folder, subfolders, files in os.walk(path):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        here = Path(folder)
        kind = _owner(here, files)
        if kind is not None:
            found.append(Found(kind, here))
        if kind is not None or _is_zarr(files):
            subfolders.clear()
        else:
            collected |= {kind for name in files if not name.startswith(".") and (kind := _collected(name))}
    # Recorders nest episode files by day or task: together they are one dataset.
    found += [Found(kind, path) for kind in sorted(collected)]
    if not found and _is_zarr([each.name for each in path.iterdir()]):
        return [Found("diffusion_zarr", path)]  # which lacks what a replay buffer has: `open_zarr` says what
    return found


def _owner(here: Path, files: list[str]) -> SourceKind | None:
    """The format whose dataset this very folder is; None for a folder that is none."""
    if (here / "meta/info.json").is_file():
        return "lerobot_v21"
    if _is_zarr(files) and (here / "meta/episode_ends").is_dir():
        return "diffusion_zarr"
    return None


def _is_zarr(files: list[str]) -> bool:
    return ".zgroup" in files or "zarr.json" in files


def _collected(file: str) -> SourceKind | None:
    """The format of which each such file, wherever it lies, is one episode."""
    if file.endswith(SUFFIX):
        return "aloha_hdf5"
    return None


def _check_readable(found: Found) -> None:
    """Refuse look-alikes of a known format by name."""
    match found.kind:
        case "lerobot_v21":
            _check_lerobot(found.root)
        case "aloha_hdf5":
            _check_hdf5(found.root)
        case "diffusion_zarr":
            from dataengine.sources.diffusion_zarr import open_zarr

            open_zarr(found.root)


def _check_lerobot(root: Path) -> None:
    try:
        version = str(json.loads((root / "meta/info.json").read_text()).get("codebase_version"))
    except (json.JSONDecodeError, AttributeError):
        raise SourceError(f"{root.name}/meta/info.json is not a JSON object. Copy it again.") from None
    if version.startswith("v3"):
        raise SourceError(
            f"'{root}' is LeRobot {version} already; only v2.0 and v2.1 are converted. "
            f"Open it with LeRobot, or convert the data it was made from."
        )
    if not version.startswith("v2"):
        raise SourceError(f"'{root}' is LeRobot {version}; only v2.0 and v2.1 are read. Upgrade it with LeRobot first.")


def _check_hdf5(root: Path) -> None:
    """The first file that opens tells the layout."""
    names = hdf5_names(root)
    if not names:
        raise SourceError(f"what ends in {SUFFIX} in '{root}' is no file. Known: {_KNOWN}.")
    for name in names:
        try:
            with open_hdf5(root / name) as file:
                keys = sorted(file)
                if not isinstance(file.get("observations"), h5py.Group) and "action" not in keys:
                    raise SourceError(
                        f"{name} has /{', /'.join(keys[:6]) or '(nothing)'}, not the ALOHA/DexVLA layout "
                        f"(/action, /observations). Known: {_KNOWN}."
                    )
                return
        except (OSError, RuntimeError):
            continue
    raise SourceError(
        f"none of the {len(names)} {SUFFIX} files in '{root}' can be opened ({names[0]} first). Copy them again."
    )
