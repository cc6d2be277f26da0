"""How large raw episodes are, so that work can be cut by bytes."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Protocol, runtime_checkable

from dataengine.sources.protocol import Source


@runtime_checkable
class Sized(Protocol):
    """A source that knows better than its file names how large an episode is; optional."""

    def num_bytes(self, name: str) -> int:
        """About how many raw bytes `read` takes. Cheap: no file is opened."""
        ...


def raw_bytes(source: Source) -> Callable[[str], int]:
    """Raw bytes of each episode: as the source says, or of the file or folder of its name, else an even share."""
    if isinstance(source, Sized):
        return source.num_bytes
    root = getattr(source, "root", None)

    @cache
    def share() -> int:
        total = _bytes_of(root) if isinstance(root, Path) else 0
        return total // max(len(source.names()), 1)

    def num_bytes(name: str) -> int:
        path = root / name if isinstance(root, Path) else None
        return _bytes_of(path) if path is not None and path.exists() else share()

    return num_bytes


def _bytes_of(path: Path) -> int:
    """Of a file, or of all files of a folder; a file that vanishes meanwhile counts nothing."""
    try:
        if not path.is_dir():
            return path.stat().st_size
        return sum(_bytes_of(inside) for inside in path.iterdir() if not inside.is_symlink())
    except OSError:
        return 0
