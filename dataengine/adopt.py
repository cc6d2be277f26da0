"""Adopt: an existing LeRobot v3.0 dataset becomes an episodes artifact, its video hard-linked and never copied.

read and check every episode -> stage its numbers -> link the shards -> write data parquet and metadata anew -> publish

Metadata is not believed but measured: rows, packets, times and statistics. What is untrue is mended, and said in the
record's notes; an episode that can not be mended is rejected. The dataset's own folder is never written to.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from dataengine.artifacts import Draft, begin
from dataengine.executor import for_each_episode, num_workers
from dataengine.fitting import layout_difference
from dataengine.rig_files import load_rig
from dataengine.sinks import lerobot_v3
from dataengine.sinks.mp4_tables import NotPlain, read_table
from dataengine.sinks.parts import KeptVideo, Origin, Part
from dataengine.sinks.staging import StagedEpisode, StageVideos, load_staged, why_absent
from dataengine.sinks.staging_writer import stage_episode
from dataengine.sinks.video_encoding import VideoEncoding
from dataengine.sources.detection import find_dataset
from dataengine.sources.lerobot_v30 import LeRobotV30
from dataengine.sources.sizes import raw_bytes
from dataengine.sources.video_probe import probe_head
from dataengine.workspace import Workspace
from schemas.episodes import Rejected
from schemas.errors import ArtifactError, RejectedError, RigError, UsageError
from schemas.records import InputRef, Record, RejectedRow
from schemas.refs import Ref
from schemas.rigs import Rig

__all__ = ["adopt"]

_TOLERANCE_S = 1e-4  # LeRobot's own: a picture farther from its row's time is an error there


def adopt(
    *,
    path: Path,
    to: Ref,
    workspace: Workspace,
    rig: str | None = None,
    max_rejected: float = 0.10,
    workers: int | None = None,
    ray_address: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Record:
    """Make `episodes/to` of the LeRobot v3.0 dataset in or below `path`.

    Args:
        rig: shipped name or YAML path; None takes what the dataset says of itself.
        max_rejected: share of episodes that may be left out; above it the run stops and can be continued.

    Raises:
        UsageError: it is another format, or holds what only a conversion can bring into the layout.
        RejectedError: more episodes were rejected than allowed, or none is left.
        SourceError, RigError, ArtifactError: the run cannot start, or `to` was made differently.
    """
    source = _opened(path, rig)
    recipe = {"layout": lerobot_v3.LAYOUT, "rig": source.rig.model_dump(mode="json"), "adopted": True}
    raw = InputRef(kind="raw", ref=source.root.resolve().name, fingerprint=source.fingerprint())
    begun = begin(workspace, "episodes", to, recipe=recipe, inputs=[raw], inputs_checked_per_item=True)
    if isinstance(begun, Record):
        return begun
    with begun as draft:
        stamps = source.stamps()
        job = StageVideos(
            root=draft.staging / "adopted",
            encoding=VideoEncoding(),
            encoder_threads=1 if num_workers(workers) > 1 else None,
        )
        job.root.mkdir(exist_ok=True)
        reasons = _stage(source, stamps, job, workers, ray_address, on_progress)
        accepted = _accept(job.root, stamps, reasons)
        _check_share(list(stamps), reasons, accepted, max_rejected)
        return _publish(draft, source, accepted, [RejectedRow(episode=n, reason=r) for n, r in reasons.items()])


def _opened(path: Path, rig: str | None) -> LeRobotV30:
    """The dataset; what linking can not bring into the layout of an artifact is refused."""
    found = find_dataset(path)
    if found.kind != "lerobot_v30":
        raise UsageError(f"'{path}' holds {found.kind}, and only LeRobot v3.0 can be adopted. Convert it instead.")
    source = LeRobotV30.open(found.root, load_rig(rig) if rig else None)
    for name, camera in source.rig.cameras.items():
        if source.meta.info.features[camera.key].dtype == "image":
            raise UsageError(
                f"camera '{name}' is stored as pictures inside parquet, so there is no video to adopt. Convert it."
            )
        if camera.orientation != "upright":
            raise RigError(f"camera '{name}' is {camera.orientation}; adopted video stays as it is. Convert it.")
    return source


def _stage(
    source: LeRobotV30,
    stamps: dict[str, str],
    job: StageVideos,
    workers: int | None,
    ray_address: str | None,
    on_progress: Callable[[int, int], None] | None,
) -> dict[str, str]:
    """Read, check and stage every episode that is not staged yet; returns the rejected ones and why."""

    def is_staged(name: str) -> bool:
        staged = load_staged(job.root, name)
        return staged is not None and staged.stamp == stamps[name]

    todo = [name for name in stamps if not is_staged(name)]
    done, rejected = len(stamps) - len(todo), {}
    results = for_each_episode(
        partial(_stage_one, source, job, stamps),
        todo,
        workers=workers,
        ray_address=ray_address,
        num_bytes=raw_bytes(source),
        disk=job.root,
    )
    for name, result in results:
        if isinstance(result, Rejected):
            rejected[name] = result.reason
        done += 1
        if on_progress:
            on_progress(done, len(stamps))
    return {name: rejected[name] for name in stamps if name in rejected}


def _stage_one(source: LeRobotV30, job: StageVideos, stamps: dict[str, str], name: str) -> None:
    stage_episode(source.read(name), name, source.rig, (job,), stamp=stamps[name])


def _accept(root: Path, stamps: dict[str, str], reasons: dict[str, str]) -> list[StagedEpisode]:
    """Staged episodes in order; one that is laid out otherwise than the first, or is there twice, gets a reason."""
    accepted: list[StagedEpisode] = []
    seen: dict[str, str] = {}
    for name, stamp in stamps.items():
        if name in reasons:
            continue
        staged = load_staged(root, name)
        if staged is None or staged.stamp != stamp:
            why = why_absent(root, name) or "the dataset has changed since"
            raise ArtifactError(f"{name} was staged, but {why}. Run the same command again: the others are kept.")
        digest = staged.episode_id.rsplit("-", 1)[1]
        odd = layout_difference(accepted[0], staged) if accepted else None
        if odd is not None:
            reasons[name] = f"{name}: {odd} in {accepted[0].name}. Repair or drop the episode."
        elif digest in seen:
            reasons[name] = f"{name}: the same content as {seen[digest]}. Remove the copy."
        else:
            accepted.append(staged)
            seen[digest] = name
    return accepted


def _check_share(
    names: Sequence[str], reasons: dict[str, str], accepted: Sequence[StagedEpisode], max_rejected: float
) -> None:
    if accepted and len(reasons) <= max_rejected * len(names) + 1e-9:
        return
    percent = min(100, -(-100 * len(reasons) // len(names)))
    allow = f", or allow it with --max-rejected {percent}%" if accepted else ""
    first = next(iter(reasons.values()))
    raise RejectedError(f"{len(reasons)} of {len(names)} episodes were rejected (first: {first}) Fix them{allow}.")


def _publish(
    draft: Draft, source: LeRobotV30, accepted: Sequence[StagedEpisode], rejected: Sequence[RejectedRow]
) -> Record:
    is_even = cache(partial(_is_even, rate_hz=source.rig.rate_hz))
    parts = [_part(episode, source.rig, is_even) for episode in accepted]
    done = lerobot_v3.commit(draft.path, parts, source.rig, VideoEncoding())
    num_linked, num_copied = _count_linked(draft.path, parts)
    return draft.publish(
        fingerprint=done.fingerprint,
        counts={
            "episodes": len(parts),
            "frames": done.num_frames,
            "hours": round(done.num_frames / source.rig.rate_hz / 3600, 4),
            "rejected": len(rejected),
            "linked_videos": num_linked,
            "copied_videos": num_copied,
        },
        rejected=rejected,
        notes={"mended": list(_mended(source, parts, num_copied))},
    )


def _part(episode: StagedEpisode, rig: Rig, is_even: Callable[[Path], bool]) -> Part:
    """The episode with its video where it lies, to be linked if its times are what the format promises."""
    videos = {}
    for name, camera in episode.cameras.items():
        assert camera.video is not None
        if camera.video.copied and is_even(camera.video.path):
            videos[name] = KeptVideo(path=camera.video.path, first=camera.video.first)
    return Part(staged=episode, origin=Origin.of(episode, rig.rate_hz), videos=videos)


def _is_even(path: Path, *, rate_hz: int) -> bool:
    """True where picture n of a shard is shown at n / rate, as LeRobot looks for it."""
    try:
        table = read_table(path)
    except NotPlain:
        return False
    start_s = probe_head(path, path.name).start_s
    times = np.sort(table.stamps - table.stamps.min()) / table.timescale + start_s
    return bool(np.abs(times - np.arange(len(times)) / rate_hz).max() < _TOLERANCE_S)


def _count_linked(root: Path, parts: Sequence[Part]) -> tuple[int, int]:
    """Shards of the artifact that are the dataset's own files, and those that were written."""
    sources = {video.path for part in parts for video in part.videos.values()}
    known = {(found.st_dev, found.st_ino) for path in sources if (found := path.stat())}
    shards = [path.stat() for path in (root / "videos").rglob("*.mp4")]
    linked = sum((found.st_dev, found.st_ino) in known for found in shards)
    return linked, len(shards) - linked


def _mended(source: LeRobotV30, parts: Sequence[Part], num_copied: int) -> Iterable[str]:
    """What the dataset said untruly of itself, or holds otherwise than the artifact, in words."""
    yield from source.meta.notes
    for name, camera in source.rig.cameras.items():
        if camera.key != lerobot_v3.IMAGES + name:
            yield f"{camera.key} is called {lerobot_v3.IMAGES}{name}"
    moved = [video for part in parts for video in _moved(source, part)]
    if moved:
        yield f"meta/episodes has {len(moved)} videos starting between two pictures: the nearest picture is taken"
    if num_copied:
        yield (
            f"{num_copied} video files were written anew, packets copied: the dataset's hold pictures of no accepted "
            f"episode, have uneven times, or lie on another disk"
        )
    changing = sum("task" in part.staged.imported for part in parts)
    if changing:
        yield f"{changing} episodes change their instruction: each has its first one, all are kept as imported"
    uneven = sum(bool(part.staged.stamps_ns) for part in parts)
    if uneven:
        yield f"{uneven} episodes have uneven timestamps: kept as stamp_ns columns, timestamp counts rows"
    yield "statistics are computed anew: exact for numbers, of decoded keyframes for cameras"


def _moved(source: LeRobotV30, part: Part) -> Iterable[str]:
    place = source.meta.episodes[int(part.staged.name.rsplit("_", 1)[1])]
    for name, camera in part.staged.cameras.items():
        said = place.videos[source.rig.cameras[name].key]
        first: Any = camera.video.first if camera.video else 0
        if abs(said.from_s - first / source.rig.rate_hz) > _TOLERANCE_S:
            yield name
