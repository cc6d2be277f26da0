"""Changes applied to the episodes of artifacts of one kind: what goes into the new one, and what is left out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dataengine.editing.changes import Changes, Trim
from dataengine.editing.cuts import rows_of, trimmed
from dataengine.editing.rigs import edited_rig
from dataengine.editing.selection import chosen_by
from dataengine.fitting import layout_difference, rig_difference
from dataengine.sinks.kept import KeptArtifact
from dataengine.sinks.parts import KeptFrames, KeptRows, Part
from dataengine.sinks.video_encoding import VideoEncoding
from schemas.errors import RigError, UsageError
from schemas.records import RejectedRow
from schemas.rigs import Rig


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What an edit amounts to, before a byte is written."""

    rig: Rig
    parts: tuple[Part, ...]  # as they lie: neither trimmed nor renamed
    left_out: tuple[RejectedRow, ...]
    trims: Mapping[str, tuple[int, int]]  # episode id -> rows [first, last)
    relabels: Mapping[str, Mapping[str, str]]  # episode id -> field -> value
    rename: Mapping[str, str]
    drop_cameras: tuple[str, ...]

    def edited(self, encoding: VideoEncoding, folder: Path) -> list[Part]:
        """The parts as they go into the new version; videos that have to be cut are written under `folder`."""
        return [self._edited(part, encoding, folder) for part in self.parts]

    def _edited(self, part: Part, encoding: VideoEncoding, folder: Path) -> Part:
        name = part.staged.episode_id
        part = _without_cameras(part, self.drop_cameras)
        if name in self.trims:
            first, last = self.trims[name]
            part = trimmed(part, first, last, rate_hz=self.rig.rate_hz, encoding=encoding, folder=folder)
        meta = {**part.staged.meta, **self.relabels.get(name, {})}
        return _renamed(replace(part, staged=part.staged.model_copy(update={"meta": meta})), self.rename)


def plan(bases: Sequence[KeptArtifact], changes: Changes) -> Plan:
    """Work out an edit. Raises UsageError where the words fit nothing, RigError where the artifacts do not fit."""
    first, *others = bases
    rate_hz = first.rig.rate_hz
    for other in others:
        _check_fits(first, other)
    parts, left_out = _merged(bases)
    reasons = _left_out(parts, changes, rate_hz)
    kept = [part for part in parts if part.staged.episode_id not in reasons]
    if not kept:
        raise UsageError(f"no episode of {', '.join(str(base.ref) for base in bases)} is left. Exclude fewer.")
    trims: dict[str, tuple[int, int]] = {}
    for trim in changes.trims:
        _add_trim(trims, trim, kept, rate_hz)
    relabels: dict[str, dict[str, str]] = {}
    for relabel in changes.relabels:
        names = [part.staged.episode_id for part in kept]
        for name in chosen_by([relabel.episodes], kept, rate_hz) if relabel.episodes else names:
            relabels.setdefault(name, {})[relabel.field] = relabel.value
    return Plan(
        rig=edited_rig(first.rig, changes.rename, changes.drop_cameras),
        parts=tuple(kept),
        left_out=(*left_out, *(RejectedRow(episode=name, reason=reason) for name, reason in reasons.items())),
        trims=trims,
        relabels=relabels,
        rename=changes.rename,
        drop_cameras=changes.drop_cameras,
    )


def _check_fits(first: KeptArtifact, other: KeptArtifact) -> None:
    one, two = first.parts[0].staged, other.parts[0].staged
    difference = rig_difference(first.rig, other.rig) or layout_difference(one, two)
    if difference is None:
        keys = [key for key in one.cameras if one.cameras[key].frames != two.cameras[key].frames]
        difference = f"the stored pictures of camera {keys[0]} are kept in another way than" if keys else None
    if difference is not None:
        raise RigError(f"{other.ref} can not be merged into {first.ref}: {difference} there. Edit one of them first.")


def _merged(bases: Sequence[KeptArtifact]) -> tuple[list[Part], list[RejectedRow]]:
    """All episodes in order; of one that several hold, the first counts."""
    parts: dict[str, Part] = {}
    left_out = []
    for base in bases:
        for part in base.parts:
            name = part.staged.episode_id
            if name in parts:
                left_out.append(RejectedRow(episode=name, reason=f"{name}: {base.ref} holds it a second time."))
            else:
                parts[name] = part
    return list(parts.values()), left_out


def _left_out(parts: Sequence[Part], changes: Changes, rate_hz: int) -> dict[str, str]:
    reasons: dict[str, str] = {}
    if changes.keep:
        wanted = chosen_by(changes.keep, parts, rate_hz)
        ids = [part.staged.episode_id for part in parts]
        reasons = {name: f"{name}: not kept by {', '.join(changes.keep)}." for name in ids if name not in wanted}
    for name, word in chosen_by(changes.exclude, parts, rate_hz).items():
        reasons.setdefault(name, f"{name}: excluded" + ("." if word == name else f" by {word}."))
    return {
        part.staged.episode_id: reasons[part.staged.episode_id] for part in parts if part.staged.episode_id in reasons
    }


def _add_trim(trims: dict[str, tuple[int, int]], trim: Trim, kept: Sequence[Part], rate_hz: int) -> None:
    chosen = chosen_by([trim.episodes], kept, rate_hz)
    for part in kept:
        name = part.staged.episode_id
        if name not in chosen:
            continue
        if name in trims:
            raise UsageError(f"{name} is trimmed twice in one edit. Give its start and end once.")
        rows = rows_of(trim, part, rate_hz)
        if rows != (0, part.staged.num_frames):
            trims[name] = rows


def _without_cameras(part: Part, drop: Sequence[str]) -> Part:
    cameras = {key: camera for key, camera in part.staged.cameras.items() if key not in drop}
    videos = {key: video for key, video in part.videos.items() if key not in drop}
    return replace(part, staged=part.staged.model_copy(update={"cameras": cameras}), videos=videos)


def _renamed(part: Part, rename: Mapping[str, str]) -> Part:
    if not rename:
        return part
    staged = part.staged.model_copy(
        update={
            "columns": {rename.get(key, key): value for key, value in part.staged.columns.items()},
            "column_types": {rename.get(key, key): value for key, value in part.staged.column_types.items()},
        }
    )
    rows: KeptRows | None = part.rows and replace(part.rows, names=_names(part.rows.names, rename), whole=False)
    frames: KeptFrames | None = part.frames and replace(part.frames, names=_names(part.frames.names, rename))
    return replace(part, staged=staged, rows=rows, frames=frames)


def _names(names: tuple[tuple[str, str], ...], rename: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((rename.get(now, now), then) for now, then in names)
