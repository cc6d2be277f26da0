"""What is asked of an artifact from elsewhere before it counts as one here: of its record, and of its contents."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from dataengine.artifacts import STAGING
from dataengine.transfer.hub_place import is_hub
from dataengine.transfer.store import Store
from schemas.errors import ArtifactError
from schemas.records import RECORD_SCHEMA, FileRow, Record
from schemas.refs import KINDS, Ref

_log = logging.getLogger(__name__)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MOST_BYTES, _MOST_PART_BYTES = 1024, 255  # of a path and of a name in it: ext4, xfs and zfs take no longer name
_NEEDED = {  # what every reader of a kind opens; a name that ends in "/" is a folder with something in it
    "episodes": ("meta/info.json", "meta/rig.json", "meta/episodes/", "data/"),
    "frames": ("zarr.json",),
}


def parse_record(content: bytes, store: Store) -> Record:
    """The record of the artifact in `store`. Raises ArtifactError where it can not be one."""
    try:
        record = Record.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise ArtifactError(
            f"{store.url}/record.json is damaged ({'.'.join(map(str, first['loc']))}: {first['msg']}). Push again."
        ) from None
    if record.schema_version > RECORD_SCHEMA:
        raise ArtifactError(
            f"{store.url} has record schema {record.schema_version}, this program reads up to {RECORD_SCHEMA}. "
            f"Update vla-dataengine."
        )
    Ref(record.name, record.version)  # a name from outside becomes a folder here
    _check_kind(record, store)
    why = next(_wrong_files(record.files), None) or _missing(record)
    if why is not None:
        raise ArtifactError(f"{store.url}/record.json {why}. Push again.")
    return record


def _check_kind(record: Record, store: Store) -> None:
    """Push puts an artifact below the name of its kind; a repository of the Hub has no such folder."""
    parts = PurePosixPath(store.root).parts
    folder = parts[-2] if len(parts) > 1 and "@" in parts[-1] and not is_hub(store.url) else None
    if folder in KINDS and folder != record.kind:
        raise ArtifactError(
            f"{store.url} lies among {folder}, but its record.json says {record.kind}. Move it, or push it again."
        )


def _wrong_files(files: tuple[FileRow, ...]) -> Iterator[str]:
    """What is wrong with the list of files, as the end of a sentence."""
    names: set[str] = set()
    folders: set[str] = set()
    for row in files:
        path = PurePosixPath(row.path)
        shown = row.path if len(row.path) <= 80 else row.path[:77] + "..."
        if not path.parts or path.is_absolute() or "\\" in row.path or ".." in path.parts or path.parts[0] == STAGING:
            yield f"lists '{shown}', which is no path inside it"
        if path.as_posix() != row.path or not row.path.isprintable():
            yield f"lists {shown!r}, which is not how a path is written"
        if len(row.path.encode()) > _MOST_BYTES or any(len(part.encode()) > _MOST_PART_BYTES for part in path.parts):
            yield f"lists '{shown}', which is too long for a file system"
        if row.path == "record.json":
            yield "lists itself"
        if row.path in names:
            yield f"lists '{shown}' twice"
        if row.num_bytes < 0 or not _SHA256.fullmatch(row.sha256):
            yield f"gives '{shown}' a size or sha256 that no file has"
        names.add(row.path)
        folders.update(parent.as_posix() for parent in path.parents)
    if both := sorted(names & folders):
        yield f"lists '{both[0]}' as a file and as a folder"


def _missing(record: Record) -> str | None:
    names = [row.path for row in record.files]
    for needed in _NEEDED.get(record.kind, ()):
        if not any(name == needed or (needed.endswith("/") and name.startswith(needed)) for name in names):
            return f"lists no {needed}, without which {record.kind} can not be read"
    return None


def check_contents(folder: Path, record: Record) -> None:
    """Compute the fingerprint of what arrived in `folder` again. Raises ArtifactError where the record has another.

    Episodes and frames keep what their fingerprint covers in `contents.parquet`. One of another layout, or written by
    another version of this program, can not be counted again: its files are whole, and a line in the log says so.
    """
    from dataengine.sinks import lerobot_v3, zarr_frames
    from dataengine.sinks.kept import CONTENTS

    layouts = {"episodes": (f"meta/{CONTENTS}", lerobot_v3.LAYOUT), "frames": (CONTENTS, zarr_frames.LAYOUT)}
    path, layout = layouts.get(record.kind, ("", 0))
    if not path or record.recipe.get("layout") != layout:
        return
    if not any(row.path == path for row in record.files):
        raise ArtifactError(f"the {record.kind} that arrived hold no {path}, which their layout asks for. Push again.")
    try:
        counted = _fingerprint(folder, folder / path, record)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        why = (record.kind, record.name, str(error).partition("\n")[0])
        _log.warning("the fingerprint of %s %s was made by another version and is not counted again: %s", *why)
        return
    if counted != record.fingerprint:
        raise ArtifactError(
            f"record.json says fingerprint {record.fingerprint[:12]}, but the {record.kind} that arrived have "
            f"{counted[:12]}: they do not belong together. Push again from where they were made."
        )


def _fingerprint(folder: Path, contents: Path, record: Record) -> str:
    import pyarrow.parquet as pq

    from dataengine.frame_store import FrameStore
    from dataengine.proofs.records import contents_fingerprint
    from dataengine.sinks.kept import Content, KeptArtifact, rig_of_store
    from dataengine.sinks.parts import Origin, Part
    from schemas.rigs import Rig

    parts = []
    for text in pq.read_table(contents, columns=["content_json"]).column("content_json"):
        row = Content.model_validate_json(text.as_py())
        origin = Origin(start_frame=row.start_frame, source_frames=row.source_frames, clock_hash=row.clock_hash)
        parts.append(Part(staged=row.staged, origin=origin))
    if record.kind == "frames":
        rig = rig_of_store(FrameStore.open(folder), record)
    else:
        rig = Rig.model_validate_json((folder / "meta" / "rig.json").read_bytes())
    return contents_fingerprint(KeptArtifact(path=folder, record=record, rig=rig, parts=tuple(parts)))
