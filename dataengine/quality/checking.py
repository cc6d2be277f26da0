"""Runs the checks: every episode is measured on a worker, then each is judged against what is usual in the dataset."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from dataengine.episode_set import EpisodeSet
from dataengine.executor import for_each_episode
from dataengine.frame_store import FrameStore
from dataengine.quality.camera_checks import black_rows, frozen_rows, washed_rows
from dataengine.quality.facts import EpisodeFacts, measure
from dataengine.quality.limits import QualityLimits
from dataengine.quality.motion_checks import finite_rows, jump_rows, lag_rows, static_rows, stuck_rows
from dataengine.quality.recordings import ArtifactRecordings, Recordings
from dataengine.quality.rows import QualityReport, QualityRow
from dataengine.quality.set_checks import dropped_rows, duplicate_rows, length_rows
from dataengine.quality.usual import Usual, usual
from dataengine.sinks.kept import rig_of_store
from dataengine.workspace import Workspace
from schemas.episodes import Rejected
from schemas.refs import Ref
from schemas.rigs import Rig

_PER_EPISODE = (
    finite_rows,
    jump_rows,
    stuck_rows,
    static_rows,
    lag_rows,
    dropped_rows,
    length_rows,
    black_rows,
    washed_rows,
    frozen_rows,
)


def check_quality(
    *,
    ref: Ref,
    workspace: Workspace,
    limits: QualityLimits | None = None,
    workers: int | None = None,
    ray_address: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> QualityReport:
    """Look for faults in the episodes of `ref`: episodes, frames, or both under one name. Nothing is changed.

    Raises RefError when there are neither episodes nor frames of that name.
    """
    limits = limits or QualityLimits()
    recordings = open_recordings(workspace, ref)
    names = recordings.names()
    facts: dict[str, EpisodeFacts] = {}
    unreadable: list[QualityRow] = []
    task = partial(measure_one, recordings, limits)
    results = for_each_episode(task, names, workers=workers, ray_address=ray_address)
    for done, (name, result) in enumerate(results, start=1):
        if isinstance(result, Rejected):
            row = QualityRow(episode_id=name, check="unreadable", stream="all", verdict="fail", detail=result.reason)
            unreadable.append(row)
        else:
            facts[name] = result
        if on_progress:
            on_progress(done, len(names))
    ordered = [facts[name] for name in names if name in facts]
    rows = (*unreadable, *judge(ordered, recordings.rig, limits))
    return QualityReport(ref=ref, rows=rows, num_episodes=len(names), limits=limits.to_json())


def open_recordings(workspace: Workspace, ref: Ref) -> ArtifactRecordings:
    """Episodes and frames of `ref`, whichever there are."""
    frames = workspace.path("frames", ref)
    store = FrameStore.open(frames) if (frames / "record.json").is_file() else None
    if store is not None and not (workspace.path("episodes", ref) / "record.json").is_file():
        rig = rig_of_store(store, workspace.record("frames", ref))
        return ArtifactRecordings(rig=rig, episodes=None, store=store)
    episodes = EpisodeSet.open(workspace, ref)
    return ArtifactRecordings(rig=episodes.rig, episodes=episodes, store=store)


def measure_one(recordings: Recordings, limits: QualityLimits, name: str) -> EpisodeFacts:
    """Read and measure one episode; the task of a worker."""
    return measure(recordings.read(name), recordings.rig, limits)


def judge(facts: Sequence[EpisodeFacts], rig: Rig, limits: QualityLimits) -> Iterator[QualityRow]:
    """All verdicts, episode by episode, then duplicates."""
    if not facts:
        return
    common: Usual = usual(facts, rig)
    for row in facts:
        for check in _PER_EPISODE:
            yield from check(row, common, limits)
    yield from duplicate_rows(facts, common, limits)
