"""An artifact beside its record.json: the very files, as many episodes and rows, and the identity that it claims."""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from dataengine.frame_store import FrameStore
from dataengine.proofs.findings import Finding, finding
from dataengine.sinks import lerobot_v3, zarr_frames
from dataengine.sinks.kept import CONTENTS, KeptArtifact, kept_dataset, kept_store
from dataengine.sinks.language_columns import exported_fingerprint, language_digest, language_names
from dataengine.sinks.video_encoding import VideoEncoding
from schemas.records import FileRow, Record
from schemas.refs import Kind, Ref

_HASHED_AT_ONCE = min(8, os.cpu_count() or 1)
_NAMED = 3  # files in one sentence


def file_findings(folder: Path, record: Record, kind: Kind, ref: Ref) -> Iterator[Finding]:
    """Every file is there with the bytes that were published, nothing else is, and the record is that of this ref."""
    found = {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if path.is_file() and path != folder / "record.json"
    }
    listed = {row.path: row for row in record.files}
    words = []
    for what, names in (
        ("missing", listed.keys() - found.keys()),
        ("not in record.json", found.keys() - listed.keys()),
    ):
        if names:
            words.append(f"{what}: {_named(sorted(names))}")
    both = [(found[name], listed[name]) for name in sorted(listed.keys() & found.keys())]
    with ThreadPoolExecutor(_HASHED_AT_ONCE) as cores:
        same = list(cores.map(_is_same, both))
    changed = [row.path for (_, row), equal in zip(both, same, strict=True) if not equal]
    if changed:
        words.append(f"changed: {_named(changed)}")
    yield finding(f"files of {kind} are those of record.json", ["; ".join(words)] if words else [])
    said = (record.kind, record.name, record.version)
    odd = said != (kind, ref.name, ref.version)
    yield finding("record.json is of this artifact", [f"it is of {' '.join(said)}"] if odd else [], kind)


def content_findings(folder: Path, record: Record) -> Iterator[Finding]:
    """Counts and fingerprint follow from what the commit noted; raises what its readers raise for damaged files."""
    meta = folder / "meta" if record.kind == "episodes" else folder
    if not (meta / CONTENTS).is_file():
        return  # of an older version; one that was lost is missing among the files
    kept = kept_dataset(folder) if record.kind == "episodes" else kept_store(folder)
    rows = sum(part.staged.num_frames for part in kept.parts)
    counted = {"episodes": len(kept.parts), "frames": rows, "rejected": len(record.rejected)}
    faults = [
        f"{key} says {record.counts[key]}, found {num}"
        for key, num in counted.items()
        if key in record.counts and record.counts[key] != num
    ]
    yield finding("record.json counts what is there", faults, record.kind)
    if record.kind == "frames" and record.recipe.get("extends") and not FrameStore.open(folder).rig:
        return  # of layout 1: made with the rig of the version it extends, which neither it nor its recipe holds
    expected = contents_fingerprint(kept)
    odd = [f"is {record.fingerprint[:12]}, the contents give {expected[:12]}"] if expected != record.fingerprint else []
    yield finding("fingerprint is that of the contents", odd, record.kind)


def contents_fingerprint(kept: KeptArtifact) -> str:
    """The identity that the contents give with their own rig: a recipe with `extends` holds that of what was added."""
    recipe: dict[str, Any] = kept.record.recipe | {"rig": kept.rig.model_dump(mode="json")}
    if kept.record.kind == "frames":
        return zarr_frames.fingerprint(kept.parts, recipe)
    words = recipe.get("encoding") or {}
    names = VideoEncoding.__dataclass_fields__
    encoding = VideoEncoding(**{key: value for key, value in words.items() if key in names})
    found = lerobot_v3.fingerprint(kept.parts, kept.rig, encoding)
    return exported_fingerprint(found, language_digest(kept.path)) if language_names(kept.path) else found


def _is_same(pair: tuple[Path, FileRow]) -> bool:
    path, row = pair
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size != row.num_bytes:
            return False
        return hashlib.file_digest(file, "sha256").hexdigest() == row.sha256


def _named(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
