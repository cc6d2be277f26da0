"""Robot items: which frames of which episodes may be drawn, and the released row that says what the robot thinks there.

Frames are kept as runs (one stretch of an episode under one released row), so a source of ten million frames is a
table of a few thousand rows. A frame without a released row is left out and counted.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dataengine.annotation_set import AnnotationSet
from dataengine.episode_set import EpisodeRow, EpisodeSet
from dataengine.mix.splits import Split
from dataengine.workspace import Workspace
from schemas.chat import Image, Message, Text
from schemas.errors import MixError, RefError, did_you_mean
from schemas.mixes import RobotSource
from schemas.records import InputRef, RejectedRow
from schemas.refs import Ref

FILE = "runs.parquet"
NO_ROW = -1
STATE, ACTION = "observation.state", "action"
_SCHEMA = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("episode_id", pa.string(), nullable=False),
        pa.field("first_frame", pa.int64(), nullable=False),
        pa.field("num_frames", pa.int64(), nullable=False),
        pa.field("annotation_row", pa.int64(), nullable=False),  # row number in the annotation set, -1 for none
        pa.field("supervised_tokens", pa.int64(), nullable=False),  # of one frame of the run
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Consecutive frames of one episode that share one released row."""

    episode_id: str
    first_frame: int
    num_frames: int
    annotation_row: int = NO_ROW
    supervised_tokens: int = 0
    split: Split = "train"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RobotItems:
    """The usable frames of one robot source, and what was left out."""

    source: RobotSource
    episodes: EpisodeSet
    annotations: AnnotationSet | None  # None where nothing is said while training
    judged: AnnotationSet | None  # the release whose unusable episodes are left out; the same, or alone
    frames_fingerprint: str | None  # of the frame store that pixels are read from; None = from the mp4
    runs: tuple[Run, ...]
    rejected: tuple[RejectedRow, ...]
    frames_without_reasoning: int

    def episode_ids(self, split: Split) -> tuple[str, ...]:
        """Episodes of a split that have at least one usable frame, in dataset order."""
        return tuple(dict.fromkeys(run.episode_id for run in self.runs if run.split == split))

    def inputs(self) -> list[InputRef]:
        """The artifacts this source is made from."""
        rows = [InputRef(kind="episodes", ref=str(self.episodes.ref), fingerprint=self.episodes.fingerprint)]
        if self.frames_fingerprint is not None:
            rows.append(InputRef(kind="frames", ref=str(self.episodes.ref), fingerprint=self.frames_fingerprint))
        released = self.annotations or self.judged
        if released is not None:
            rows.append(InputRef(kind="annotations", ref=str(released.ref), fingerprint=released.fingerprint))
        return rows


def find_robot_items(source: RobotSource, workspace: Workspace) -> RobotItems:
    """Open, filter and lay out one robot source. Raises MixError that names the source and what to do."""
    if source.reasoning != "none" and source.annotations is None:
        raise MixError(
            f"source '{source.name}': reasoning '{source.reasoning}' needs annotations: NAME@VERSION. "
            "Name a release, or write reasoning: none."
        )
    try:
        episodes = EpisodeSet.open(workspace, Ref.parse(source.episodes))
        judged = AnnotationSet.open(workspace, Ref.parse(source.annotations)) if source.annotations else None
        annotations = judged if source.reasoning != "none" else None
    except RefError as error:
        raise MixError(f"source '{source.name}': {error}") from None
    _check_features(source, episodes)
    chosen = _filtered(source, episodes)
    runs: list[Run] = []
    rejected: list[RejectedRow] = []
    bare = 0
    unusable = judged.unusable() if judged is not None else {}
    for row in chosen:
        if row.episode_id in unusable:
            reason = f"source '{source.name}': {unusable[row.episode_id]}"
            rejected.append(RejectedRow(episode=row.episode_id, reason=reason))
            continue
        found = _runs(source, episodes, annotations, row)
        bare += row.num_frames - sum(run.num_frames for run in found)
        if not found:
            reason = f"source '{source.name}': no released {source.reasoning} in {source.annotations}"
            rejected.append(RejectedRow(episode=row.episode_id, reason=reason))
        runs += found
    if not runs:
        raise MixError(_nothing_released(source, len(chosen), annotations))
    return RobotItems(
        source=source,
        episodes=episodes,
        annotations=annotations,
        judged=judged,
        frames_fingerprint=workspace.record("frames", episodes.ref).fingerprint if episodes.has_frame_store else None,
        runs=tuple(runs),
        rejected=tuple(rejected),
        frames_without_reasoning=bare,
    )


def split_items(items: RobotItems, validation: frozenset[str]) -> RobotItems:
    """The same items, those of the validation episodes held out. Raises MixError when none are left to train on."""
    runs = tuple(replace(run, split="validation") if run.episode_id in validation else run for run in items.runs)
    if not any(run.split == "train" for run in runs):
        raise MixError(
            f"source '{items.source.name}': every usable episode is held out for validation, none is left to train on. "
            "Lower validation, change seed, or add episodes."
        )
    return replace(items, runs=runs)


def _nothing_released(source: RobotSource, num_chosen: int, annotations: AnnotationSet | None) -> str:
    if annotations is None:
        return f"source '{source.name}': {source.episodes} holds no frames. Convert it again."
    policy = annotations.record.recipe.get("policy", "unknown")
    return (
        f"source '{source.name}': {source.annotations} (policy {policy}, {len(annotations)} rows) releases no "
        f"{source.reasoning} for any of {num_chosen} episodes of {source.episodes}. "
        "Review more of them, release with another policy, or write reasoning: none."
    )


def _check_features(source: RobotSource, episodes: EpisodeSet) -> None:
    for camera in source.cameras:
        if camera not in episodes.cameras:
            raise MixError(
                f"source '{source.name}': {source.episodes} has no camera '{camera}'. "
                f"{did_you_mean(camera, episodes.cameras)}"
            )
    columns = episodes.columns(episodes.ids()[0])
    for name in (STATE, ACTION):
        if name not in columns:
            raise MixError(
                f"source '{source.name}': {source.episodes} has no column '{name}'. "
                "Declare it under features: in the rig and convert again."
            )


def _filtered(source: RobotSource, episodes: EpisodeSet) -> list[EpisodeRow]:
    """Episodes that `where` lets through. Raises MixError that names the values that exist."""
    rows = [episodes.row(episode_id) for episode_id in episodes.ids()]
    for key, wanted in source.where.items():
        values = [_metadata(row).get(key) for row in rows]
        if not any(value is not None for value in values):
            known = sorted({name for row in rows for name in _metadata(row)})
            raise MixError(f"source '{source.name}': where: no metadata '{key}'. {did_you_mean(key, known)}")
        kept = [row for row, value in zip(rows, values, strict=True) if value == wanted]
        if not kept:
            exist = ", ".join(sorted({f"'{value}'" for value in values if value is not None})[:20])
            raise MixError(
                f"source '{source.name}': where: no episode of {source.episodes} has {key} '{wanted}'. Values: {exist}."
            )
        rows = kept
    return rows


def _metadata(row: EpisodeRow) -> dict[str, str]:
    return {"task": row.task, **row.metadata}


def _runs(source: RobotSource, episodes: EpisodeSet, annotations: AnnotationSet | None, row: EpisodeRow) -> list[Run]:
    if annotations is None:
        return [Run(episode_id=row.episode_id, first_frame=0, num_frames=row.num_frames)]
    stamps = episodes.stamps_ns(row.episode_id)
    runs = []
    for start_ns, end_ns, index in annotations.spans(row.episode_id, source.reasoning):
        first, last = np.searchsorted(stamps, (start_ns, end_ns))
        if last > first:
            runs.append(
                Run(
                    episode_id=row.episode_id,
                    first_frame=int(first),
                    num_frames=int(last - first),
                    annotation_row=index,
                )
            )
    return runs


def counted(items: RobotItems, count: Callable[[Sequence[Message]], int]) -> RobotItems:
    """The same items with the supervised tokens of each run, each distinct text counted once."""
    known: dict[str, int] = {}
    runs = []
    for run in items.runs:
        text = reasoning_text(items.annotations, run.annotation_row)
        if text is None:
            runs.append(run)
            continue
        if text not in known:
            known[text] = count(robot_messages(items.source, "", text)[-1:])
        runs.append(replace(run, supervised_tokens=known[text]))
    return replace(items, runs=tuple(runs))


def reasoning_text(annotations: AnnotationSet | None, annotation_row: int) -> str | None:
    """The words of a released row, or None where the source has none."""
    return annotations.text(annotation_row) if annotations is not None and annotation_row != NO_ROW else None


def robot_messages(source: RobotSource, task: str, reasoning: str | None) -> tuple[Message, ...]:
    """What the robot is shown and told, then what it says: the reasoning as rendered, and nothing after it."""
    asked = Message(role="user", parts=(*(Image(camera) for camera in source.cameras), Text(task)))
    if reasoning is None:
        return (asked,)
    return (asked, Message(role="assistant", parts=(Text(reasoning),), supervised=True))


def write_runs(folder: Path, sources: Sequence[RobotItems]) -> None:
    """Write the runs of all robot sources of a mix into one table."""
    values = [
        {
            "source": items.source.name,
            "split": run.split,
            "episode_id": run.episode_id,
            "first_frame": run.first_frame,
            "num_frames": run.num_frames,
            "annotation_row": run.annotation_row,
            "supervised_tokens": run.supervised_tokens,
        }
        for items in sources
        for run in items.runs
    ]
    pq.write_table(pa.Table.from_pylist(values, schema=_SCHEMA), folder / FILE)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameAddress:
    """One frame and the released row above it."""

    episode_id: str
    frame: int
    annotation_row: int


class FrameItems:
    """Reads the runs of one source and one split; item numbers count the frames of its runs in order."""

    def __init__(self, folder: Path, source: str, split: Split) -> None:
        table = pq.read_table(folder / FILE, filters=[("source", "=", source), ("split", "=", split)])
        self._episode_ids: list[str] = table.column("episode_id").to_pylist()
        self._first: NDArray[np.int64] = table.column("first_frame").to_numpy()
        self._rows: NDArray[np.int64] = table.column("annotation_row").to_numpy()
        self._tokens: NDArray[np.int64] = table.column("supervised_tokens").to_numpy()
        self._counts: NDArray[np.int64] = table.column("num_frames").to_numpy()
        self._ends = np.cumsum(self._counts)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @property
    def tokens(self) -> NDArray[np.int64]:
        """Supervised tokens of every item, (items,)."""
        return np.repeat(self._tokens, self._counts)

    def range_of(self, episode_id: str) -> tuple[int, int]:
        """Items of one episode, [first, last); its runs lie side by side. (0, 0) when it has none."""
        runs = [run for run, name in enumerate(self._episode_ids) if name == episode_id]
        if not runs:
            return (0, 0)
        return int(self._ends[runs[0]] - self._counts[runs[0]]), int(self._ends[runs[-1]])

    def address(self, item: int) -> FrameAddress:
        """Where an item lies."""
        run = int(np.searchsorted(self._ends, item, side="right"))
        frame = item - int(self._ends[run] - self._counts[run]) + int(self._first[run])
        return FrameAddress(episode_id=self._episode_ids[run], frame=frame, annotation_row=int(self._rows[run]))
