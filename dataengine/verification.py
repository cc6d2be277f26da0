"""Verify: reads the raw data and what was made of it once more, and compares.

Low-dimensional columns must be equal bit for bit, copied packets and JPEGs byte for byte, every camera must have as
many pictures as rows, and what was re-encoded must be near the source (lowest PSNR over sampled pictures).
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataengine.episode_set import EpisodeSet
from dataengine.executor import for_each_episode
from dataengine.frame_store import FrameStore
from dataengine.rig_files import load_rig
from dataengine.sinks.pictures import is_upright_rgb, pictures, resized
from dataengine.sources import Source, open_source
from dataengine.workspace import Workspace
from schemas.episodes import CameraStream, Episode, Rejected, VideoFile
from schemas.errors import SourceError
from schemas.records import Record
from schemas.refs import Ref
from schemas.rigs import Rig

FLOOR_DB = 20.0  # libsvtav1 crf 30 stays above 30 dB on real teleoperation; hard synthetic edges reach 24
_SAMPLED = 25  # pictures compared per camera and episode
_IDENTICAL_DB = 100.0  # said where no difference is left


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRow:
    """One check over all episodes."""

    check: str  # "columns are bit-equal", "frames == rows", ...
    stream: str  # feature or camera
    num_episodes: int
    ok: bool
    detail: str  # the first failure, or the number measured


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """All checks; `ok` when every one holds."""

    ref: Ref
    rows: tuple[CheckRow, ...]
    num_episodes: int

    @property
    def ok(self) -> bool:
        """True when nothing failed."""
        return all(row.ok for row in self.rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Finding:
    check: str
    stream: str
    ok: bool
    detail: str = ""
    psnr_db: float | None = None


def verify(
    *,
    source_path: Path,
    ref: Ref,
    workspace: Workspace,
    rig: str | None = None,
    workers: int | None = None,
    ray_address: str | None = None,
    floor_db: float = FLOOR_DB,
    on_progress: Callable[[int, int], None] | None = None,
) -> VerifyReport:
    """Compare every episode of `ref` with the raw data it was made from.

    `rig` defaults to the one it was converted with. Raises RefError when there are neither episodes nor frames of that
    name, SourceError when the raw data holds another number of episodes.
    """
    target = _Target.open(workspace, ref)
    source = open_source(source_path, load_rig(rig) if rig else target.rig)
    rejected = {row.episode for row in target.record.rejected}
    names = [name for name in source.names() if name not in rejected]
    if len(names) != len(target.ids):
        raise SourceError(
            f"'{source_path.name}' has {len(names)} episodes that were not rejected, '{ref}' has {len(target.ids)}. "
            f"Name the folder it was converted from."
        )
    task = partial(_verify_one, source, target, dict(zip(names, target.ids, strict=True)), floor_db)
    findings: list[tuple[str, _Finding]] = []
    for done, (name, result) in enumerate(
        for_each_episode(task, names, workers=workers, ray_address=ray_address), start=1
    ):
        if isinstance(result, Rejected):
            findings.append(
                (name, _Finding(check="the source can be read", stream="all", ok=False, detail=result.reason))
            )
        else:
            findings.extend((name, finding) for finding in result)
        if on_progress:
            on_progress(done, len(names))
    return VerifyReport(ref=ref, rows=tuple(_summarised(findings)), num_episodes=len(names))


def _summarised(findings: list[tuple[str, _Finding]]) -> Iterator[CheckRow]:
    grouped: dict[tuple[str, str], list[tuple[str, _Finding]]] = {}
    for name, finding in findings:
        grouped.setdefault((finding.check, finding.stream), []).append((name, finding))
    for (check, stream), rows in sorted(grouped.items()):
        bad = [(name, row) for name, row in rows if not row.ok]
        measured = [row.psnr_db for _, row in rows if row.psnr_db is not None]
        detail = f"lowest {min(measured):.1f} dB" if measured else "all equal"
        if bad:
            detail = f"{len(bad)} episodes differ, e.g. {bad[0][0]}: {bad[0][1].detail}"
        yield CheckRow(check=check, stream=stream, num_episodes=len(rows), ok=not bad, detail=detail)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    """What was made: an episodes artifact, a frames artifact, or both. Picklable."""

    record: Record
    rig: Rig
    ids: tuple[str, ...]
    episodes: EpisodeSet | None
    store: FrameStore | None

    @classmethod
    def open(cls, workspace: Workspace, ref: Ref) -> "_Target":
        frames = workspace.path("frames", ref)
        store = FrameStore.open(frames) if (frames / "record.json").is_file() else None
        if store is not None and not (workspace.path("episodes", ref) / "record.json").is_file():
            record = workspace.record("frames", ref)
            rig = Rig.model_validate(record.recipe["rig"])
            return cls(record=record, rig=rig, ids=store.episode_ids, episodes=None, store=store)
        episodes = EpisodeSet.open(workspace, ref)
        return cls(record=episodes.record, rig=episodes.rig, ids=episodes.ids(), episodes=episodes, store=store)


def _verify_one(source: Source, target: _Target, ids: dict[str, str], floor_db: float, name: str) -> list[_Finding]:
    episode, episode_id = source.read(name), ids[name]
    same = episode.meta.episode_id == episode_id
    detail = f"{episode.meta.episode_id} / {episode_id}"
    findings = [_Finding(check="episode ids are equal", stream="all", ok=same, detail=detail)]
    if not same:
        return findings
    if target.episodes is not None:
        stamps = target.episodes.recorded_stamps_ns(episode_id)
        ours = target.episodes.columns(episode_id) | {f"stamp_ns.{key}": value for key, value in stamps.items()}
        findings += _compare_columns(episode, ours, "columns are bit-equal")
    if target.store is not None:
        start, stop = target.store.span(episode_id)
        ours = {key: target.store.column(key, start, stop) for key in target.store.columns}
        findings += _compare_columns(episode, ours, "columns of the frame store are bit-equal")
    for key, stream in episode.cameras.items():
        findings += _compare_camera(episode, key, stream, target, floor_db)
    return findings


def _compare_columns(episode: Episode, ours: dict[str, NDArray[Any]], check: str) -> Iterator[_Finding]:
    stamps = {f"stamp_ns.{key}": value for key, value in episode.stamps_ns.items()}
    for key, column in (episode.columns | stamps).items():
        got = ours.get(key)
        equal = got is not None and got.dtype == column.dtype and _bytes(got) == _bytes(column)
        detail = "absent" if got is None else f"{got.dtype} {got.shape} for {column.dtype} {column.shape}"
        yield _Finding(check=check, stream=key, ok=equal, detail=detail)


def _bytes(column: NDArray[Any]) -> bytes:
    return np.ascontiguousarray(column).tobytes()


def _compare_camera(
    episode: Episode, key: str, stream: CameraStream, target: _Target, floor_db: float
) -> Iterator[_Finding]:
    """Packets and counts of the video, then every picture of the source once, for both stores."""
    episode_id, rows = episode.meta.episode_id, episode.num_frames
    video, store = target.episodes, target.store
    copied = False
    if video is not None:
        packets = video.video_packets(episode_id, key)
        detail = f"{len(packets)} for {rows} rows"
        yield _Finding(check="frames == rows", stream=key, ok=len(packets) == rows, detail=detail)
        if len(packets) != rows:
            return
        if isinstance(stream, VideoFile) and is_upright_rgb(stream.spec):
            copied = True
            same = packets == source_packets(stream)
            yield _Finding(check="video packets are byte-identical", stream=key, ok=same, detail="packets differ")
    passed_through = store is not None and store.cameras[key].source_bytes
    first = store.span(episode_id)[0] if store is not None else 0
    sampled = set(np.linspace(0, rows - 1, min(_SAMPLED, rows)).round().astype(int).tolist())
    video_db, store_db, same_jpegs = _IDENTICAL_DB, _IDENTICAL_DB, 0
    for index, picture in enumerate(pictures(stream)):
        if store is not None and passed_through:
            same_jpegs += picture.jpeg == store.jpeg(key, first + index)
        if index not in sampled:
            continue
        if video is not None:
            video_db = min(video_db, psnr_db(picture.rgb(), video.video_frame(episode_id, key, index)))
        if store is not None and not passed_through:
            stored = store.frame(key, first + index)
            store_db = min(store_db, psnr_db(resized(picture.rgb(), stored.shape[1], stored.shape[0]), stored))
    if passed_through:
        detail = f"{rows - same_jpegs} of {rows} JPEGs differ"
        yield _Finding(check="JPEGs are byte-identical", stream=key, ok=same_jpegs == rows, detail=detail)
    elif store is not None:
        yield _near("stored pictures are near the source", key, store_db, floor_db)
    if video is not None:
        yield _near("video pictures are near the source", key, video_db, _IDENTICAL_DB if copied else floor_db)


def _near(check: str, key: str, db: float, floor_db: float) -> _Finding:
    detail = f"{db:.1f} dB, expected at least {floor_db:.1f}"
    return _Finding(check=check, stream=key, ok=db >= floor_db, detail=detail, psnr_db=db)


def source_packets(stream: VideoFile) -> list[str]:
    """Hash of each packet of a source video, in presentation order."""
    import av

    with av.open(str(stream.path)) as container:
        track = container.streams.video[0]
        packets = [
            (packet.pts, hashlib.sha256(bytes(packet)).hexdigest()) for packet in container.demux(track) if packet.size
        ]
    return [digest for _, digest in sorted(packets)]


def psnr_db(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio in dB; 100 where both are equal, 0 where the shapes differ."""
    if one.shape != other.shape:
        return 0.0
    error = float(np.mean((one.astype(np.float32) - other.astype(np.float32)) ** 2))
    return _IDENTICAL_DB if error == 0 else min(_IDENTICAL_DB, 10 * float(np.log10(255**2 / error)))
