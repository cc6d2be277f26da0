"""Which format a folder holds, and where inside it the dataset lies."""

import os
from dataclasses import dataclass
from pathlib import Path

from dataengine.sources.demo_pickle import pickle_names
from dataengine.sources.hdf5_layouts import SUFFIXES, hdf5_kind
from dataengine.sources.lerobot_version import check_lerobot, lerobot_kind
from dataengine.sources.look_alikes import look_alike
from dataengine.sources.recordings import kind_of_file
from dataengine.sources.replay_buffers import ZIP_SUFFIX, array_names, is_umi, open_buffer
from schemas.errors import SourceError
from schemas.rigs import SourceKind

_KNOWN = (
    "ALOHA/DexVLA *.hdf5, robomimic/LIBERO *.hdf5, LeRobot v1.x to v3.0, diffusion-policy and UMI zarr, RLDS *.tfrecord"
    ", MCAP *.mcap, ROS 1 *.bag, rosbag2 *.db3"
)


@dataclass(frozen=True, slots=True)
class Found:
    """One dataset: its format and its root folder, which may lie below the folder that was named."""

    kind: SourceKind
    root: Path


def find_dataset(path: Path) -> Found:
    """The one dataset in or below `path`. Raises SourceError when there is none, or more than one."""
    if not path.exists():
        raise SourceError(f"'{path}' does not exist. Check the path.")
    if path.is_file() and (recorded := kind_of_file(path.name)) is not None:
        return Found(recorded, path)
    if path.is_file() and path.name.endswith(ZIP_SUFFIX):
        return _found_zip(path)
    if not path.is_dir():
        raise SourceError(
            f"'{path}' is a file. Give the folder that holds the dataset, or an .mcap, .bag or .db3 file."
        )
    try:
        if not any(path.iterdir()):
            raise SourceError(f"'{path}' is an empty directory. Give the folder that holds the dataset.")
    except PermissionError:
        raise SourceError(f"'{path}' may not be read. Ask for permission or copy it.") from None
    found = _walk(path)
    if len(found) > 1:
        listing = ", ".join(
            f"files that are {each.kind}" if each.root == path else f"{each.root.relative_to(path)} ({each.kind})"
            for each in found[:5]
        )
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        raise SourceError(f"'{path}' holds {len(found)} datasets: {listing}{more}. Name one of them, or a single file.")
    if not found and pickle_names(path):  # beside other data they are somebody's statistics
        return Found("demo_pickle", path)
    if not found:
        raise SourceError(look_alike(path) or f"'{path}' holds no dataset that can be read. Known: {_KNOWN}.")
    if found[0].kind == "aloha_hdf5":
        return Found(hdf5_kind(found[0].root), found[0].root)
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
            found += [_found_zip(here / name) for name in sorted(files) if name.endswith(ZIP_SUFFIX)]
            collected |= {kind for name in files if not name.startswith(".") and (kind := _collected(name))}
    # Recorders nest episode files by day or task: together they are one dataset.
    found += [Found(kind, path) for kind in sorted(collected)]
    if not found and _is_zarr([each.name for each in path.iterdir()]):
        return [Found("diffusion_zarr", path)]  # which lacks what a replay buffer has: `open_buffer` says what
    return found


def _owner(here: Path, files: list[str]) -> SourceKind | None:
    """The format whose dataset this very folder is; None for a folder that is none."""
    if (kind := lerobot_kind(here)) is not None:
        return kind
    if _is_zarr(files) and (here / "meta/episode_ends").is_dir():
        return "umi_zarr" if is_umi(array_names(here)) else "diffusion_zarr"
    if any(".tfrecord" in name for name in files):
        return "rlds"
    return None


def _found_zip(path: Path) -> Found:
    """A replay buffer in one file."""
    return Found("umi_zarr" if is_umi(array_names(path)) else "diffusion_zarr", path)


def _is_zarr(files: list[str]) -> bool:
    return ".zgroup" in files or "zarr.json" in files


def _collected(file: str) -> SourceKind | None:
    """The format of which each such file, wherever it lies, is one episode."""
    if file.endswith(SUFFIXES):
        return "aloha_hdf5"  # HDF5 of some layout: `find_dataset` looks inside
    return kind_of_file(file)


def _check_readable(found: Found) -> None:
    """Refuse look-alikes of a known format by name."""
    match found.kind:
        case "lerobot_v21" | "lerobot_v30":
            check_lerobot(found.root)
        case "diffusion_zarr" | "umi_zarr":
            open_buffer(found.root)
