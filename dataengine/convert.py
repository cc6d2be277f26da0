"""Convert: raw episodes become a LeRobot v3.0 dataset and a frame store.

read on Ray workers -> stage per episode -> accept or reject -> commit in natural order -> publish

Staging survives a kill and mended raw files, so a run goes on per episode: an episode whose raw files have other sizes
or dates is read again, and staged again where its content differs. The fingerprint covers what the source holds, so an
unbroken run, a resumed one and one with other workers agree.

With `extends`, the episodes of an older version come first: their shards are linked and never written again.
"""

import logging
import re
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from dataengine.artifacts import Draft, begin
from dataengine.disk_estimate import Estimate, estimate
from dataengine.executor import for_each_episode, num_workers
from dataengine.fitting import check_fits, layout_difference, open_kept
from dataengine.rig_files import load_rig
from dataengine.sinks import lerobot_v3, zarr_frames
from dataengine.sinks.kept import KeptArtifact
from dataengine.sinks.parts import Part
from dataengine.sinks.staging import StagedEpisode, StageFrames, StageJob, StageVideos, boot_id, load_staged, why_absent
from dataengine.sinks.staging_writer import stage_episode
from dataengine.sinks.video_encoding import VideoEncoding
from dataengine.sources import Source, open_source
from dataengine.sources.sizes import raw_bytes
from dataengine.workspace import Workspace
from schemas.episodes import Rejected, StreamSkew
from schemas.errors import ArtifactError, RejectedError, RigError, UsageError
from schemas.records import InputRef, Record, RejectedRow, sha256_of
from schemas.refs import Kind, Ref
from schemas.rigs import Rig

__all__ = ["ConvertReport", "Estimate", "Sink", "VideoEncoding", "convert"]

Sink = Literal["lerobot", "zarr", "both"]
JPEG_QUALITY = 90
_HOLDS_IT = "holds this episode already"
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
    encoding = encoding or VideoEncoding()
    _check_arguments(max_rejected, frame_size, workers)
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
            rejected = _stage(source, stamps, jobs, workers, ray_address, on_progress)
            for kind, draft in drafts.items():
                records[kind] = _publish(draft, source.rig, stamps, rejected, max_rejected, encoding, bases.get(kind))
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
    with suppress(OSError):
        root.rmdir()


def _stage(
    source: Source,
    stamps: dict[str, str],
    jobs: tuple[StageJob, ...],
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
    task = partial(_stage_one, source, jobs, stamps)
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


def _stage_one(source: Source, jobs: tuple[StageJob, ...], stamps: dict[str, str], name: str) -> None:
    stage_episode(source.read(name), name, source.rig, jobs, stamp=stamps[name])


def _publish(
    draft: Draft,
    rig: Rig,
    stamps: dict[str, str],
    rejected: dict[str, str],
    max_rejected: float,
    encoding: VideoEncoding,
    base: KeptArtifact | None,
) -> Record:
    accepted, reasons = _accept(_staging_root(draft), stamps, rejected, base)
    known = _known(reasons, base)
    _check_share([name for name in stamps if name not in known], reasons, accepted, max_rejected)
    # the rig of the version that is extended stands for all: it means the same, and says where the first ones were read
    parts: list[StagedEpisode | Part] = [*(base.parts if base else ()), *accepted]
    rig = base.rig if base else rig
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
    )


def _accept(
    root: Path, stamps: dict[str, str], rejected: dict[str, str], base: KeptArtifact | None
) -> tuple[list[StagedEpisode], dict[str, str]]:
    """Staged episodes in natural order; what can not stand in one dataset with the first one is rejected.

    Raises ArtifactError where one that was staged is no longer, or was staged from other raw files, RigError where none
    fits the version that is extended.
    """
    accepted: list[StagedEpisode] = []
    odds: list[str] = []
    reasons = dict(rejected)
    seen = {part.staged.episode_id: str(base.ref) for part in base.parts} if base else {}
    first, named = (base.parts[0].staged, str(base.ref)) if base else (None, "")
    for name, stamp in stamps.items():
        if name in rejected:
            continue
        staged = load_staged(root, name)
        if staged is None or staged.stamp != stamp:
            reason = why_absent(root, name) or "another run staged it from raw files that have changed since"
            raise ArtifactError(f"{name} was staged, but {reason}. Run the same command again: the others are kept.")
        first, named = (first, named) if first else (staged, staged.name)
        odd = layout_difference(first, staged)
        if base and seen.get(staged.episode_id) == str(base.ref):
            reasons[name] = f"{name}: {base.ref} {_HOLDS_IT}."
        elif odd is not None:
            reasons[name] = f"{name}: {odd} in {named}. Convert it under another name."
            odds.append(reasons[name])
        elif staged.episode_id in seen:
            reasons[name] = f"{name}: the same episode id as {seen[staged.episode_id]}. Remove the copy."
        else:
            accepted.append(staged)
            seen[staged.episode_id] = name
    if base and odds and not accepted:
        raise RigError(odds[0])
    return accepted, reasons


def _known(reasons: dict[str, str], base: KeptArtifact | None) -> set[str]:
    """Episodes that are left out because the older version holds them: nothing is lost by that."""
    return {name for name, reason in reasons.items() if base and reason == f"{name}: {base.ref} {_HOLDS_IT}."}


def _check_share(
    names: Sequence[str], reasons: dict[str, str], accepted: list[StagedEpisode], max_rejected: float
) -> None:
    num = sum(name in reasons for name in names)
    if not accepted and not names:
        raise RejectedError(
            "the version that is extended holds all of these episodes already. There is nothing to add."
        )
    if accepted and num <= max_rejected * len(names) + 1e-9:
        return
    rows = [(_kind_of(name, reasons[name]), name) for name in names if name in reasons]
    kinds = Counter(kind for kind, _ in rows)
    first = dict(reversed(rows))
    parts = [f"{count}: {kind}, e.g. {first[kind]}" for kind, count in kinds.most_common(3)]
    listing = "; ".join(parts) + ("; ..." if len(kinds) > len(parts) else "")
    allow = f", or allow it with --max-rejected {_percent(num, len(names))}%" if accepted else ""
    raise RejectedError(f"{num} of {len(names)} episodes were rejected ({listing}). Fix them{allow}.")


def _percent(num: int, total: int) -> int:
    """The smallest round share that lets `num` pass: 100 for most of them, else the next whole percent."""
    share = -(-100 * num // total)
    return 100 if share > 50 else share


def _kind_of(name: str, reason: str) -> str:
    """A reason without the episode's name, paths and numbers, to count equal ones."""
    text = reason.removeprefix(f"{name}: ")
    text = re.split(r"\. (?=[A-Z])", text, maxsplit=1)[0].rstrip(".")
    text = " ".join(word for word in text.replace(name, "it").split() if "/" not in word)
    return re.sub(r"\d+(\.\d+)?", "N", text)


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
