"""Edit: a new version of one or more datasets, in which episodes are left out, cut, relabelled, or put together.

open what is kept -> plan -> link or copy -> publish, once for the dataset and once for its frame store

Nothing of an existing version changes. Shards that stay whole are linked; a shard that loses an episode is written
again without it, packet by packet and JPEG by JPEG, so that excluded pictures are gone. Where a trim cuts through a
group of pictures, that group is encoded again, or the whole trimmed episode (see `sinks.video_cuts`). What was said
about an episode stays right: its id and source time do not move.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataengine.artifacts import Draft, begin
from dataengine.editing.apply import Plan, plan
from dataengine.editing.changes import Changes, Relabel, Trim
from dataengine.fitting import open_kept
from dataengine.sinks import lerobot_v3, zarr_frames
from dataengine.sinks.kept import KeptArtifact
from dataengine.sinks.lerobot_v3 import Committed
from dataengine.sinks.parts import Part
from dataengine.sinks.video_encoding import VideoEncoding
from dataengine.workspace import Workspace
from schemas.errors import UsageError
from schemas.records import InputRef, Record, RejectedRow
from schemas.refs import Kind, Ref
from schemas.rigs import Rig

__all__ = ["Changes", "EditReport", "Relabel", "Trim", "edit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EditReport:
    """What an edit made, or would make."""

    records: tuple[Record, ...]  # empty for a dry run
    already_there: bool
    num_episodes: int
    num_frames: int
    left_out: tuple[RejectedRow, ...]
    num_trimmed: int
    num_relabelled: int


def edit(
    *,
    refs: Sequence[Ref],
    to: Ref,
    workspace: Workspace,
    changes: Changes,
    table: Path | None = None,
    dry_run: bool = False,
) -> EditReport:
    """Make `episodes/to`, and `frames/to` where every one of `refs` has a frame store, from `refs`, in their order.

    Args:
        refs: the dataset to edit; further ones are merged behind it.
        table: a CSV whose lines are added to `changes`; what it holds is part of the recipe, its name is not.

    The same words again find it "already there". Raises UsageError where the words change or fit nothing, RefError,
    RigError where datasets do not fit, ArtifactError where one is too old or `to` was made differently.
    """
    if not refs:
        raise UsageError("an edit needs a dataset. Name one, e.g. kitchen@1.")
    if len(set(refs)) != len(refs):
        raise UsageError("a dataset is named twice. Merge different ones.")
    changes = changes.plus_table(table) if table else changes
    if changes == Changes() and len(refs) == 1:
        raise UsageError("nothing would change. Say what to exclude, keep, trim, set, rename or drop, or name another.")
    kinds = _kinds(workspace, refs)
    bases = {kind: [open_kept(workspace, kind, ref) for ref in refs] for kind in kinds}
    plans = {kind: plan(kept, changes) for kind, kept in bases.items()}
    if dry_run:
        return _report((), plans["episodes"], already_there=False)
    records: list[Record] = []
    done_before = True
    for kind in kinds:
        recipe = _recipe(bases[kind][0], plans[kind].rig, changes)
        inputs = [InputRef(kind=kind, ref=str(base.ref), fingerprint=base.record.fingerprint) for base in bases[kind]]
        begun = begin(workspace, kind, to, recipe=recipe, inputs=inputs)
        if isinstance(begun, Draft):
            done_before = False
            with begun as draft:
                records.append(_publish(draft, bases[kind], plans[kind]))
        else:
            records.append(begun)
    return _report(tuple(records), plans["episodes"], already_there=done_before)


def _kinds(workspace: Workspace, refs: Sequence[Ref]) -> tuple[Kind, ...]:
    """Episodes, and frames too where they are. Raises UsageError where only some have a frame store."""
    for ref in refs:
        workspace.find("episodes", ref)
    stored = [ref for ref in refs if (workspace.path("frames", ref) / "record.json").is_file()]
    if stored and len(stored) != len(refs):
        without = next(ref for ref in refs if ref not in stored)
        raise UsageError(
            f"{stored[0]} has a frame store and {without} has none, so they can not be merged. "
            f"Pull or convert the frame store of {without} first."
        )
    return ("episodes", "frames") if stored else ("episodes",)


def _recipe(base: KeptArtifact, rig: Rig, changes: Changes) -> dict[str, Any]:
    """Every argument that changes the content: how the first one was made, its rig as it is now, and the changes."""
    made: dict[str, Any] = dict(base.record.recipe)
    kept: dict[str, Any] = {key: made[key] for key in ("encoding", "frame_size", "jpeg_quality") if key in made}
    layout = lerobot_v3.LAYOUT if base.record.kind == "episodes" else zarr_frames.LAYOUT
    return {"layout": layout, "rig": rig.model_dump(mode="json"), **kept, "edit": changes.to_json()}


def _publish(draft: Draft, bases: Sequence[KeptArtifact], planned: Plan) -> Record:
    recipe = draft.identity["recipe"]
    encoding = _encoding(recipe)
    parts = planned.edited(encoding, draft.staging / "cuts")
    done = _commit(draft, parts, planned.rig, recipe, encoding)
    return draft.publish(
        fingerprint=done.fingerprint,
        counts={
            "episodes": len(parts),
            "frames": done.num_frames,
            "hours": round(done.num_frames / planned.rig.rate_hz / 3600, 4),
            "rejected": len(planned.left_out),
            "trimmed": len(planned.trims),
            "relabelled": len(planned.relabels),
        },
        rejected=planned.left_out,
    )


def _encoding(recipe: dict[str, Any]) -> VideoEncoding:
    """How the dataset that is edited was encoded; LeRobot's defaults where its video was copied from elsewhere."""
    words = recipe.get("encoding") or {}
    return VideoEncoding(**{key: value for key, value in words.items() if key in VideoEncoding.__dataclass_fields__})


def _commit(draft: Draft, parts: list[Part], rig: Rig, recipe: dict[str, Any], encoding: VideoEncoding) -> Committed:
    match draft.kind:
        case "episodes":
            return lerobot_v3.commit(draft.path, parts, rig, encoding)
        case _:
            return zarr_frames.commit(draft.path, parts, rig, recipe)


def _report(records: tuple[Record, ...], planned: Plan, *, already_there: bool) -> EditReport:
    lengths = {part.staged.episode_id: part.staged.num_frames for part in planned.parts}
    lengths |= {name: last - first for name, (first, last) in planned.trims.items()}
    return EditReport(
        records=records,
        already_there=already_there,
        num_episodes=len(lengths),
        num_frames=sum(lengths.values()),
        left_out=planned.left_out,
        num_trimmed=len(planned.trims),
        num_relabelled=len(planned.relabels),
    )
