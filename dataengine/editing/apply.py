"""Changes applied to the episodes of artifacts of one kind: what goes into the new one, and what is left out."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from dataengine.acceptance import content_of
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

_CUTS = 8  # videos cut at once: each decodes and encodes a group of pictures, and the encoder has threads of its own


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
        whole = {part.staged.episode_id: part for part in self.parts}
        with ThreadPoolExecutor(max_workers=min(_CUTS, os.cpu_count() or 1)) as pool:  # codecs hold no lock
            made = pool.map(lambda name: self._edited(whole[name], encoding, folder), self.trims)
            cut = dict(zip(self.trims, made, strict=True))
        return [cut.get(name) or self._edited(part, encoding, folder) for name, part in whole.items()]

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
    kept = [part for name, part in parts.items() if name not in reasons]
    if not kept:
        raise UsageError(f"no episode of {', '.join(str(base.ref) for base in bases)} is left. Exclude fewer.")
    # What is left out may be described too: a table of all episodes says of some of them that they go.
    trims: dict[str, tuple[int, int]] = {}
    for trim in changes.trims:
        for name in chosen_by([trim.episodes], parts, rate_hz):
            if name not in reasons:
                _add_trim(trims, trim, parts[name], rate_hz)
    relabels: dict[str, dict[str, str]] = {}
    for relabel in changes.relabels:
        for name in chosen_by([relabel.episodes], parts, rate_hz) if relabel.episodes else parts:
            if name not in reasons:
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


def _merged(bases: Sequence[KeptArtifact]) -> tuple[dict[str, Part], list[RejectedRow]]:
    """All episodes by id, in order; of one that several hold, the first counts, under whatever name the others have."""
    parts: dict[str, Part] = {}
    places: dict[str, str] = {}  # hash of a recording, which an id ends with -> where it was met first
    left_out = []
    for base in bases:
        for part in base.parts:
            name = part.staged.episode_id
            digest = content_of(name)
            if digest in places:
                reason = f"{name}: {base.ref} holds it a second time, it is {places[digest]}."
                left_out.append(RejectedRow(episode=name, reason=reason))
            else:
                parts[name] = part
                places[digest] = f"{name} of {base.ref}"
    return parts, left_out


def _left_out(parts: Mapping[str, Part], changes: Changes, rate_hz: int) -> dict[str, str]:
    reasons: dict[str, str] = {}
    if changes.keep:
        wanted = chosen_by(changes.keep, parts, rate_hz)
        reasons = {name: f"{name}: not kept by {', '.join(changes.keep)}." for name in parts if name not in wanted}
    for name, word in chosen_by(changes.exclude, parts, rate_hz).items():
        reasons.setdefault(name, f"{name}: excluded" + ("." if word == name else f" by {word}."))
    return {name: reasons[name] for name in parts if name in reasons}


def _add_trim(trims: dict[str, tuple[int, int]], trim: Trim, part: Part, rate_hz: int) -> None:
    name = part.staged.episode_id
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
