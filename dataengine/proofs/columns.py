"""Numbers, stamps and words of one episode, beside those of its source."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataengine.episode_set import EpisodeSet
from dataengine.frame_store import FrameStore
from dataengine.proofs.findings import Finding
from schemas.episodes import Episode

_STAMPS = "stamp_ns."


def episode_columns(episode: Episode, episodes: EpisodeSet) -> Iterator[Finding]:
    """Every number and stamp bit for bit, the metadata, and what was imported."""
    name = episode.meta.episode_id
    stamps = {f"{_STAMPS}{key}": value for key, value in episodes.recorded_stamps_ns(name).items()}
    yield from _compared(episode, {**episodes.columns(name), **stamps}, "columns are bit-equal")
    row = episodes.row(name)
    ours = {"episode_id": name, "task": row.task, **row.metadata}
    theirs = asdict(episode.meta)
    odd = [key for key, value in theirs.items() if ours.get(key) != value]
    detail = f"{odd[0]} is '{ours.get(odd[0])}' for '{theirs[odd[0]]}'" if odd else ""
    yield Finding(check="metadata is equal", stream="all", ok=not odd, detail=detail)
    imported = {key: tuple(value) for key, value in episode.imported.items()}
    if imported or episodes.imported(name):
        same = episodes.imported(name) == imported
        yield Finding(check="imported annotations are equal", stream="all", ok=same, detail="texts or keys differ")


def stored_columns(episode: Episode, store: FrameStore) -> Iterator[Finding]:
    """The same of a frame store, which holds no words."""
    start, stop = store.span(episode.meta.episode_id)
    ours = {key: store.column(key, start, stop) for key in store.columns}
    # -1 stands where an episode has no stamps of its own
    ours = {key: value for key, value in ours.items() if not (key.startswith(_STAMPS) and (value == -1).all())}
    yield from _compared(episode, ours, "columns of the frame store are bit-equal")


def _compared(episode: Episode, ours: Mapping[str, NDArray[Any]], check: str) -> Iterator[Finding]:
    stamps = {f"{_STAMPS}{key}": value for key, value in episode.stamps_ns.items()}
    theirs = {**episode.columns, **stamps}
    for key, column in theirs.items():
        got = ours.get(key)
        equal = got is not None and got.dtype == column.dtype and _bytes(got) == _bytes(column)
        yield Finding(check=check, stream=key, ok=equal, detail="" if equal else _difference(got, column))
    for key in ours.keys() - theirs.keys():
        yield Finding(check=check, stream=key, ok=False, detail="is not in the source")


def _difference(got: NDArray[Any] | None, column: NDArray[Any]) -> str:
    if got is None:
        return "absent"
    if got.dtype != column.dtype or got.size != column.size:
        return f"{got.dtype} {got.shape} for {column.dtype} {column.shape}"
    rows = len(column)
    differs = got.reshape(rows, -1).view(np.uint8) != np.ascontiguousarray(column).reshape(rows, -1).view(np.uint8)
    row = int(np.argwhere(differs)[0][0])
    return f"row {row} is {got.reshape(rows, -1)[row].tolist()[:6]} for {column.reshape(rows, -1)[row].tolist()[:6]}"


def _bytes(column: NDArray[Any]) -> bytes:
    return np.ascontiguousarray(column).tobytes()
