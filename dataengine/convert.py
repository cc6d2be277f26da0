"""Convert: raw episodes become a LeRobot v3.0 dataset and a frame store.

read on Ray workers -> stage per episode -> accept or reject -> commit in natural order -> publish

Staging survives a kill and mended raw files, so a run goes on per episode: an episode whose raw files have other sizes
or dates is read again, and staged again where its content differs. The fingerprint covers what the source holds, so an
unbroken run, a resumed one and one with other workers agree.

With `extends`, the episodes of an older version come first: their shards are linked and never written again.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from dataengine.acceptance import accept, check_share, known_before
from dataengine.artifacts import Draft, begin
from dataengine.disk_estimate import Estimate, estimate
from dataengine.executor import for_each_episode, num_workers
from dataengine.fitting import check_fits, open_kept
from dataengine.rig_files import load_rig
from dataengine.sinks import lerobot_v3, zarr_frames
from dataengine.sinks.kept import KeptArtifact
from dataengine.sinks.parts import Part
from dataengine.sinks.shard_plan import ShardPlan, drop_plans
from dataengine.sinks.staging import MARKER, StagedEpisode, StageFrames, StageJob, StageVideos, boot_id, load_staged
from dataengine.sinks.staging_writer import stage_episode
from dataengine.sinks.video_encoding import VideoEncoding
from dataengine.sources import Source, open_source
from dataengine.sources.copying import read_copying, shard_plan
from dataengine.sources.protocol import TellsNotTaken
from dataengine.sources.sizes import raw_bytes
from dataengine.workspace import Workspace
from schemas.episodes import Rejected, StreamSkew
from schemas.errors import UsageError
from schemas.records import InputRef, Record, RejectedRow, sha256_of
from schemas.refs import Kind, Ref
from schemas.rigs import Rig

__all__ = ["ConvertReport", "Estimate", "Sink", "VideoEncoding", "convert"]

Sink = Literal["lerobot", "zarr", "both"]
JPEG_QUALITY = 90
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertReport:
    """What a conversion made, or (`estimate`) would make."""

    records: tuple[Record, ...]
    already_there: bool  # nothing had to be done
    num_episodes: int
    num_frames: int
    rejected: tuple[RejectedRow, ...]
    estimate: Estimate | None = None
    skew: dict[str, StreamSkew] = field(default_factory=dict)  # stream -> counts of all episodes, worst ages of any


def convert(
    *,
    source_path: Path,
    to: Ref,
    workspace: Workspace,
    rig: str | None,
    extends: Ref | None = None,
    sink: Sink = "both",
    max_rejected: float = 0.10,
    frame_size: tuple[int, int] | None = None,
    encoding: VideoEncoding | None = None,
    workers: int | None = None,
    ray_address: str | None = None,
    dry_run: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> ConvertReport:
    """Convert `source_path` into `episodes/to` and/or `frames/to`.

    Args:
        rig: shipped name or YAML path; None where the raw data says enough.
        extends: the version whose episodes come first; those that it holds already are left out of the new ones.
        max_rejected: share of episodes that may be left out; above it the run stops and can be continued.
        frame_size: (width, height) of the frame store; None keeps the source's pictures, JPEGs byte for byte.

    Raises:
        RejectedError: more episodes were rejected than allowed, or none is left.
        SourceError, RigError, ArtifactError: the run cannot start, or `to` was made differently.
        RefError: there is no such version to extend.
    """
    _check_arguments(max_rejected, frame_size, workers)
    _check_sink(sink, frame_size, encoding)
    encoding = encoding or VideoEncoding()
    source = open_source(source_path, load_rig(rig) if rig else None)
    names = source.names()
    if dry_run:
        return _dry(source, names, sink, encoding, frame_size, workers)
    recipes = _recipes(sink, source.rig, encoding, frame_size)
    bases = {kind: _base(workspace, kind, extends, source, recipes[kind]) for kind in recipes} if extends else {}
    raw = InputRef(kind="raw", ref=source_path.resolve().name, fingerprint=source.fingerprint())
    with ExitStack() as stack:
        drafts: dict[Kind, Draft] = {}
        records: dict[Kind, Record] = {}
        for kind, recipe in recipes.items():
            inputs = [raw, *(_input(base) for base in (bases.get(kind),) if base)]
            begun = begin(workspace, kind, to, recipe=recipe, inputs=inputs, inputs_checked_per_item=True)
            if isinstance(begun, Record):
                records[kind] = begun
            else:  # entered at once: where the next one can not begin, this one's lock is let go
                drafts[kind] = stack.enter_context(begun)
                stack.callback(_drop_if_empty, _staging_root(begun))
        if drafts:
            stamps = source.stamps()
            jobs = _jobs(drafts, encoding, frame_size, workers)
            # of a version that extends another one, the first rows are linked
            plan = None if bases else shard_plan(source, stamps, jobs)
            rejected = _stage(source, stamps, jobs, plan, workers, ray_address, on_progress)
            for kind, draft in drafts.items():
                records[kind] = _publish(draft, source, stamps, rejected, max_rejected, encoding, bases.get(kind))
    return _report(tuple(records[kind] for kind in recipes), workspace, already_there=not drafts)


def _base(workspace: Workspace, kind: Kind, extends: Ref, source: Source, recipe: dict[str, Any]) -> KeptArtifact:
    """The version to extend, once it is known that the new episodes fit it; its name goes into the recipe."""
    base = open_kept(workspace, kind, extends)
    check_fits(base, source.rig, recipe, f"rig '{source.rig.name}'")
    recipe["extends"] = str(extends)
    return base


def _input(base: KeptArtifact) -> InputRef:
    return InputRef(kind=base.record.kind, ref=str(base.ref), fingerprint=base.record.fingerprint)


def _check_arguments(max_rejected: float, frame_size: tuple[int, int] | None, workers: int | None) -> None:
    if not 0 <= max_rejected <= 1:
        raise UsageError(f"the share of rejected episodes is between 0 and 1, got {max_rejected}. Try 0.1 or 10%.")
    if frame_size is not None and min(frame_size) < 16:
        raise UsageError(f"frames of {frame_size[0]}x{frame_size[1]} are too small. Use WIDTHxHEIGHT, e.g. 320x240.")
    if workers is not None and workers < 1:
        raise UsageError(f"{workers} workers can not work. Use 1 or more.")


def _check_sink(sink: Sink, frame_size: tuple[int, int] | None, encoding: VideoEncoding | None) -> None:
    """Words that would have no effect are a misunderstanding."""
    if sink == "lerobot" and frame_size is not None:
        raise UsageError("a frame size is about the frame store, which --sink lerobot does not make. Leave one out.")
    if sink == "zarr" and encoding is not None:
        raise UsageError("codec, g, crf and preset are about video, which --sink zarr does not make. Leave them out.")


def _recipes(
    sink: Sink, rig: Rig, encoding: VideoEncoding, frame_size: tuple[int, int] | None
) -> dict[Kind, dict[str, Any]]:
    recipes: dict[Kind, dict[str, Any]] = {}
    if sink in ("lerobot", "both"):
        recipes["episodes"] = {
            "layout": lerobot_v3.LAYOUT,
            "rig": rig.model_dump(mode="json"),
            "encoding": encoding.to_json(),
        }
    if sink in ("zarr", "both"):
        recipes["frames"] = zarr_frames.frame_recipe(rig, frame_size, JPEG_QUALITY)
    return recipes


def _jobs(
    drafts: dict[Kind, Draft], encoding: VideoEncoding, frame_size: tuple[int, int] | None, workers: int | None
) -> tuple[StageJob, ...]:
    jobs: list[StageJob] = []
    for kind, draft in drafts.items():
        root = _staging_root(draft)
        root.mkdir(exist_ok=True)  # made here alone: workers of a run whose draft was removed must not bring it back
        if kind == "episodes":
            # one encoder thread each where several work side by side: 1.5 times the frames per second on two cores
            threads = 1 if num_workers(workers) > 1 else None
            jobs.append(StageVideos(root=root, encoding=encoding, encoder_threads=threads, boot=boot_id()))
        else:
            jobs.append(StageFrames(root=root, frame_size=frame_size, quality=JPEG_QUALITY, boot=boot_id()))
    return tuple(jobs)


def _staging_root(draft: Draft) -> Path:
    """Where a draft's episodes are staged: by recipe, so that workers left over from another one can not mix in."""
    return draft.staging / sha256_of(draft.identity["recipe"])[:20]


def _drop_if_empty(root: Path) -> None:
    """A run in which nothing could be staged leaves no work that another recipe would have to respect."""
    if not any(root.glob(f"*{MARKER}")):
        drop_plans(root)
    with suppress(OSError):
        root.rmdir()


def _stage(
    source: Source,
    stamps: dict[str, str],
    jobs: tuple[StageJob, ...],
    plan: ShardPlan | None,
    workers: int | None,
    ray_address: str | None,
    on_progress: Callable[[int, int], None] | None,
) -> dict[str, str]:
    """Stage every episode that is not staged as its raw files are now; returns the rejected ones and why."""
    todo = [name for name in stamps if not all(_is_staged(job.root, name, stamps[name]) for job in jobs)]
    done = len(stamps) - len(todo)
    if done:
        _log.info("going on with %d of %d episodes already staged", done, len(stamps))
    rejected: dict[str, str] = {}
    if plan is not None:
        plan.prepare()
    task = partial(_stage_one, source, jobs, stamps, plan)
    staged = for_each_episode(
        task, todo, workers=workers, ray_address=ray_address, num_bytes=raw_bytes(source), disk=jobs[0].root
    )
    for name, result in staged:
        if isinstance(result, Rejected):
            rejected[name] = result.reason
            _log.info("rejected %s", result.reason)
        done += 1
        if on_progress:
            on_progress(done, len(stamps))
    return rejected


def _is_staged(root: Path, name: str, stamp: str) -> bool:
    staged = load_staged(root, name)
    return staged is not None and staged.stamp == stamp


def _stage_one(
    source: Source, jobs: tuple[StageJob, ...], stamps: dict[str, str], plan: ShardPlan | None, name: str
) -> None:
    stage_episode(read_copying(source, name, plan), name, source.rig, jobs, stamp=stamps[name])


def _publish(
    draft: Draft,
    source: Source,
    stamps: dict[str, str],
    rejected: dict[str, str],
    max_rejected: float,
    encoding: VideoEncoding,
    base: KeptArtifact | None,
) -> Record:
    accepted, reasons = accept(_staging_root(draft), stamps, rejected, base)
    known = known_before(reasons, base)
    check_share([name for name in stamps if name not in known], reasons, accepted, max_rejected)
    # the rig of the version that is extended stands for all: it means the same, and says where the first ones were read
    parts: list[StagedEpisode | Part] = [*(base.parts if base else ()), *accepted]
    rig = base.rig if base else source.rig
    match draft.kind:
        case "episodes":
            done = lerobot_v3.commit(draft.path, parts, rig, encoding)
        case _:
            recipe = draft.identity["recipe"] | {"rig": rig.model_dump(mode="json")}
            done = zarr_frames.commit(draft.path, parts, rig, recipe)
    return draft.publish(
        fingerprint=done.fingerprint,
        counts={
            "episodes": len(parts),
            "frames": done.num_frames,
            "hours": round(done.num_frames / rig.rate_hz / 3600, 4),
            "rejected": len(reasons),
            **({"added": len(accepted)} if base else {}),
        },
        rejected=[RejectedRow(episode=name, reason=reasons[name]) for name in stamps if name in reasons],
        notes=_notes(source, accepted),
    )


def _notes(source: Source, accepted: Sequence[StagedEpisode]) -> dict[str, Any]:
    """In words: what was stored as something else (depth that LeRobot's format does not reach), and what was not taken.

    Notes are no part of an artifact's identity.
    """
    beyond: dict[str, int] = {}
    for episode in accepted:
        for key, camera in episode.cameras.items():
            if camera.video is not None and camera.video.num_beyond:
                beyond[key] = beyond.get(key, 0) + camera.video.num_beyond
    words = [
        f"camera '{key}': {num:,} depth pixels lie outside 0.01 to 10 m, where LeRobot's depth video ends; "
        f"there they are stored as the nearest that it holds (the frame store keeps them as they are)"
        for key, num in beyond.items()
    ]
    left = source.not_taken() if isinstance(source, TellsNotTaken) else ()
    said = [f"not taken: {', '.join(left)}; name columns and cameras in the rig to keep them"] if left else []
    return {key: lines for key, lines in (("clipped", words), ("not_taken", said)) if lines}


def _dry(
    source: Source,
    names: Sequence[str],
    sink: Sink,
    encoding: VideoEncoding,
    frame_size: tuple[int, int] | None,
    workers: int | None,
) -> ConvertReport:
    result = estimate(
        source,
        names,
        videos=sink != "zarr",
        frames=sink != "lerobot",
        encoding=encoding,
        frame_size=frame_size,
        quality=JPEG_QUALITY,
        workers=workers,
    )
    return ConvertReport(
        records=(),
        already_there=False,
        num_episodes=len(names),
        num_frames=result.num_frames,
        rejected=(),
        estimate=result,
    )


def _report(records: tuple[Record, ...], workspace: Workspace, *, already_there: bool) -> ConvertReport:
    counts = records[0].counts
    return ConvertReport(
        records=records,
        already_there=already_there,
        num_episodes=int(counts["episodes"]),
        num_frames=int(counts["frames"]),
        rejected=records[0].rejected,
        skew=lerobot_v3.skew_of(workspace.path(records[0].kind, Ref(records[0].name, records[0].version))),
    )
