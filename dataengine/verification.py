"""Verify: reads the raw data and what was made of it once more, and compares. It never repairs.

Numbers and stamps must be equal bit for bit (after the transforms the rig declares, which the source applies), copied
packets and JPEGs byte for byte; every camera has as many pictures as rows; what was encoded is as near the source as
bare PyAV makes it at the same settings, and every picture is that of its row; indices, offsets, counts, tasks, hashes
and statistics agree with the rows; every file is the one that was published. A damaged file is a failed check.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from dataengine.episode_set import EpisodeSet
from dataengine.executor import for_each_episode
from dataengine.frame_store import FrameStore
from dataengine.proofs.cameras import LOSS_DB, episode_camera
from dataengine.proofs.columns import episode_columns, stored_columns
from dataengine.proofs.dataset import dataset_findings
from dataengine.proofs.depths import episode_depth
from dataengine.proofs.findings import CheckRow, Finding, damaged, damages, guarded, summarised
from dataengine.proofs.metadata import episode_metadata, picture_findings, rig_findings
from dataengine.proofs.records import content_findings, file_findings
from dataengine.rig_files import load_rig
from dataengine.sinks.kept import rig_of_store
from dataengine.sinks.lerobot_v3 import SYNC, skew_of
from dataengine.sinks.video_encoding import VideoEncoding
from dataengine.sources import Source, open_source
from dataengine.sources.sizes import raw_bytes
from dataengine.workspace import Workspace
from schemas.episodes import CameraStream, Episode, Rejected, StreamSkew
from schemas.errors import EpisodeError, RefError, SourceError
from schemas.records import Record
from schemas.refs import Kind, Ref
from schemas.rigs import Rig

__all__ = ["CheckRow", "VerifyReport", "verify"]

_QUALITY = 90  # of JPEGs, in stores whose recipe does not say


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """All checks; `ok` when every one holds."""

    ref: Ref
    rows: tuple[CheckRow, ...]
    num_episodes: int
    skew: dict[str, StreamSkew] = field(default_factory=dict)  # stream -> how it fitted the rows, all episodes

    @property
    def ok(self) -> bool:
        """True when nothing failed."""
        return all(row.ok for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        from dataclasses import asdict

        return {
            "ref": str(self.ref),
            "ok": self.ok,
            "num_episodes": self.num_episodes,
            "rows": [asdict(row) for row in self.rows],
            "skew": {key: asdict(row) for key, row in self.skew.items()},
        }


def verify(
    *,
    source_path: Path,
    ref: Ref,
    workspace: Workspace,
    rig: str | None = None,
    workers: int | None = None,
    ray_address: str | None = None,
    loss_db: float = LOSS_DB,
    on_progress: Callable[[int, int], None] | None = None,
) -> VerifyReport:
    """Compare every episode of `ref` with the raw data it was made from.

    Args:
        rig: the one it was converted with, where that is another than the record says.
        loss_db: how much worse than bare PyAV at the same settings an encoded picture may be.

    Raises RefError when there are neither episodes nor frames of that name, SourceError when the raw data holds
    other episodes.
    """
    findings = [("the dataset", row) for row in _artifact_findings(workspace, ref)]
    try:
        target = _Target.open(workspace, ref)
    except RefError:
        raise
    except damages() as error:  # nothing more can be compared
        findings.append(("the dataset", damaged(error)))
        return VerifyReport(ref=ref, rows=tuple(summarised(findings)), num_episodes=0)
    source = open_source(source_path, load_rig(rig) if rig else target.rig)
    rejected = {row.episode for row in target.record.rejected}
    names = [name for name in source.names() if name not in rejected]
    _check_number(source_path.name, names, target)
    seen: dict[str, str] = {}
    results = for_each_episode(
        partial(_verify_one, source, target, loss_db),
        names,
        workers=workers,
        ray_address=ray_address,
        num_bytes=raw_bytes(source),
    )
    for done, (name, result) in enumerate(results, start=1):
        if isinstance(result, Rejected):
            finding = Finding(check="the source can be read", stream="all", ok=False, detail=result.reason)
            findings.append((name, finding))
        else:
            findings += [(name, finding) for finding in result.findings]
            seen[result.episode_id] = name
        if on_progress:
            on_progress(done, len(names))
    findings.append(("the dataset", _all_seen(target, seen)))
    skew: dict[str, StreamSkew] = {}
    if target.episodes is not None:
        try:
            skew = skew_of(target.episodes.path)
        except damages() as error:
            findings.append(("the dataset", damaged(error, SYNC)))
    return VerifyReport(ref=ref, rows=tuple(summarised(findings)), num_episodes=len(names), skew=skew)


def _artifact_findings(workspace: Workspace, ref: Ref) -> Iterator[Finding]:
    """What can be said without the raw data, of the episodes and the frames of that name."""
    kinds: tuple[Kind, ...] = ("episodes", "frames")
    for kind in kinds:
        folder = workspace.path(kind, ref)
        if not (folder / "record.json").is_file():
            continue
        record = workspace.record(kind, ref)
        yield from guarded(file_findings(folder, record, kind, ref), stream=kind)
        yield from guarded(content_findings(folder, record), stream=kind)
        if kind == "episodes":
            yield from guarded(dataset_findings(folder), stream="meta")
            yield from guarded(_of_rig(folder), stream="meta/info.json")
            yield from guarded(picture_findings(folder), stream="meta/stats.json")


def _of_rig(folder: Path) -> Iterator[Finding]:
    yield from rig_findings(folder, Rig.model_validate_json((folder / "meta" / "rig.json").read_bytes()))


def _check_number(folder: str, names: list[str], target: "_Target") -> None:
    """Refuse another folder before it is read; a dataset that extends another one holds more than its raw data."""
    if len(names) > len(target.ids) or (len(names) < len(target.ids) and not target.extends):
        raise SourceError(
            f"'{folder}' has {len(names)} episodes that were not rejected, '{target.ref}' has {len(target.ids)}. "
            f"Name the folder it was converted from."
        )


def _all_seen(target: "_Target", seen: dict[str, str]) -> Finding:
    """Every episode has its source, but for those that came from the version that was extended."""
    unseen = sorted(target.ids - seen.keys())
    ok = not unseen or target.extends
    detail = "" if ok else f"{len(unseen)} episodes are in no raw file, e.g. {unseen[0]}"
    return Finding(check="every episode has its source", stream="all", ok=ok, detail=detail)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    """What was made: an episodes artifact, a frames artifact, or both. Picklable."""

    ref: Ref
    record: Record
    rig: Rig
    ids: frozenset[str]
    episodes: EpisodeSet | None
    store: FrameStore | None
    encoding: VideoEncoding | None
    jpeg_quality: int

    @classmethod
    def open(cls, workspace: Workspace, ref: Ref) -> "_Target":
        frames = workspace.path("frames", ref)
        store = FrameStore.open(frames) if (frames / "record.json").is_file() else None
        quality = _QUALITY
        if store is not None:
            stated = workspace.record("frames", ref).recipe.get("jpeg_quality")
            quality = stated if isinstance(stated, int) else _QUALITY
        episodes = None
        if store is None or (workspace.path("episodes", ref) / "record.json").is_file():
            episodes = EpisodeSet.open(workspace, ref)
        record = episodes.record if episodes is not None else workspace.record("frames", ref)
        ids = episodes.ids() if episodes is not None else store.episode_ids if store is not None else ()
        rig = episodes.rig if episodes is not None else rig_of_store(FrameStore.open(frames), record)
        return cls(
            ref=ref,
            record=record,
            rig=rig,
            ids=frozenset(ids),
            episodes=episodes,
            store=store,
            encoding=_encoding(record),
            jpeg_quality=quality,
        )

    @property
    def extends(self) -> bool:
        """Whether it holds the episodes of an older version too."""
        return bool(self.record.recipe.get("extends"))


def _encoding(record: Record) -> VideoEncoding | None:
    """How pictures were encoded, as the record says; None where it does not."""
    stated = record.recipe.get("encoding")
    if not isinstance(stated, dict):
        return None
    return VideoEncoding(
        codec=str(stated["codec"]), g=int(str(stated["g"])), crf=int(str(stated["crf"])), preset=str(stated["preset"])
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compared:
    episode_id: str
    findings: list[Finding]


def _verify_one(source: Source, target: _Target, loss_db: float, name: str) -> _Compared:
    """Compare one episode; the task of a worker."""
    episode = source.read(name)
    episode_id = episode.meta.episode_id
    known = episode_id in target.ids
    detail = "" if known else f"'{target.ref}' holds no {episode_id}"
    findings = [Finding(check="episode ids are equal", stream="all", ok=known, detail=detail)]
    if not known:
        return _Compared(episode_id=episode_id, findings=findings)
    held = target.episodes.row(episode_id).num_frames if target.episodes is not None else None
    if held is not None and held != episode.num_frames:
        raise EpisodeError(f"{name}: {episode.num_frames} rows in the source, {held} in '{target.ref}'.")
    if target.episodes is not None:
        findings += guarded(episode_columns(episode, target.episodes))
        findings += guarded(episode_metadata(target.episodes, episode_id), stream="meta/episodes")
    if target.store is not None:
        findings += guarded(stored_columns(episode, target.store), stream="frames")
    for key, stream in episode.cameras.items():
        findings += _camera_findings(episode, key, stream, target, loss_db)
    return _Compared(episode_id=episode_id, findings=findings)


def _camera_findings(
    episode: Episode, key: str, stream: CameraStream, target: _Target, loss_db: float
) -> Iterator[Finding]:
    if stream.spec.depth_unit_m is not None:  # also a depth video that is copied
        return guarded(episode_depth(episode, key, stream, episodes=target.episodes, store=target.store), stream=key)
    pictures = episode_camera(
        episode,
        key,
        stream,
        episodes=target.episodes,
        store=target.store,
        encoding=target.encoding,
        jpeg_quality=target.jpeg_quality,
        loss_db=loss_db,
    )
    return guarded(pictures, stream=key)
