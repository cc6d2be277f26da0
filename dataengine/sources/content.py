"""Identity and order of raw files: natural names, content hashes, and one cheap fingerprint of a whole folder."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import xxhash

from schemas.records import sha256_of

_DIGITS = re.compile(r"(\d+)")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
STEM = "episode"  # of ids where the raw data numbers its episodes: removing one renumbers the others
WHOLE_BYTES = 1 << 20  # files up to 1 MiB are hashed whole
_UNREADABLE = "unreadable"  # a link to nowhere, a bad sector: `read` rejects its episode, the others go on
_NUM_SAMPLES, _SAMPLE_BYTES = 16, 1 << 14  # of larger ones, 16 KiB at 16 places, first and last included


def natural_key(name: str) -> tuple[tuple[str, int], ...]:
    """Sort key by which `episode_2` comes before `episode_10`."""
    return tuple(("", int(part)) if part.isdigit() else (part, 0) for part in _DIGITS.split(name))


def episode_id(stem: str, digest: str) -> str:
    """Readable name + first 12 hex digits of the raw content's hash; safe as a file name."""
    return f"{_UNSAFE.sub('_', stem).strip('_.') or 'episode'}-{digest[:12]}"


def hash_files(paths: Sequence[Path]) -> str:
    """Hex hash over the whole content of some files, in the given order; at memory speed, see design 0003."""
    if len(paths) == 1:
        with paths[0].open("rb") as file:
            return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()
    return sha256_of([hash_files([path]) for path in paths])


def files_stamp(paths: Iterable[Path], words: Mapping[str, str]) -> str:
    """Sizes and dates of some files, present or not, and a few words, as one short text."""
    return sha256_of([[_size_and_dates(path) for path in paths], dict(words)])


def _size_and_dates(path: Path) -> list[int]:
    try:
        found = path.stat()
    except OSError:  # absent, or not ours to look at: `read` says so
        return []
    # A hard link changes ctime, too, and costs one more reading. Without it a file that a tool mended in place, and
    # gave its old date again, would keep what was staged of it.
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def folder_fingerprint(
    root: Path, *, whole: Iterable[Path], pixels: Iterable[Path], low_dim: Sequence[str] = ()
) -> str:
    """Identity of a raw folder: relative names, sizes and content; no absolute path and no dates.

    `whole` files count with every byte. Of large `pixels` files 16 places are read, so that 100 GB takes seconds;
    where such a file also holds numbers, `low_dim` holds their hashes, because a repaired value would slip through.
    Each episode's id still hashes all of its content.
    """
    rows = [[_name_below(path, root), _whole(path)] for path in whole]
    depth = len(root.parts)
    with ThreadPoolExecutor() as pool:  # reading waits for the disk, hashing holds no lock
        sampled = pool.map(_sampled, pixels := list(pixels))
        rows += [["/".join(path.parts[depth:]), *found] for path, found in zip(pixels, sampled, strict=True)]
    return sha256_of([sorted(rows), list(low_dim)])


def _name_below(path: Path, root: Path) -> str:
    """Relative name; the file's own where it lies elsewhere, as a metadata CSV with an absolute path may."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def _whole(path: Path) -> str:
    try:
        return hash_files([path])
    except OSError:
        return _UNREADABLE


def _sampled(path: Path) -> tuple[str, str]:
    try:
        return _read_places(path)
    except OSError:
        return _UNREADABLE, ""


def _read_places(path: Path) -> tuple[str, str]:
    size = path.stat().st_size
    digest = hashlib.sha256()
    with path.open("rb") as file:
        if size <= WHOLE_BYTES:
            digest.update(file.read())
        else:
            for index in range(_NUM_SAMPLES):
                file.seek((size - _SAMPLE_BYTES) * index // (_NUM_SAMPLES - 1))
                digest.update(file.read(_SAMPLE_BYTES))
    return str(size), digest.hexdigest()
