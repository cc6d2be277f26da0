"""Building an artifact: a hidden draft that survives a kill, one rename that publishes it, and never an overwrite.

draft = begin(workspace, "episodes", ref, recipe=..., inputs=...)
if isinstance(draft, Record):
    return draft                      # same recipe and inputs: already there
with draft:                           # holds the lock; leaves the draft in place when something raises
    ...write files under draft.path; what must survive a kill but not be published goes to draft.staging...
    return draft.publish(fingerprint=..., counts=...)
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from dataengine.workspace import Workspace, read_record
from schemas.errors import ArtifactError
from schemas.records import FileRow, InputRef, Record, RejectedRow, canonical_json
from schemas.refs import Kind, Ref

STAGING = ".staging"


def begin(
    workspace: Workspace, kind: Kind, ref: Ref, *, recipe: dict[str, Any], inputs: Sequence[InputRef] = ()
) -> "Draft | Record":
    """Start, or go on with, the draft of one artifact; the record itself when it is already there.

    Raises ArtifactError when `ref` exists with another recipe or other inputs, or is being built by someone else.
    """
    identity = {"recipe": json.loads(canonical_json(recipe)), "inputs": [row.model_dump() for row in inputs]}
    final = workspace.path(kind, ref)
    if final.exists():
        record = read_record(final)
        if record.identity() == identity:
            return record
        raise ArtifactError(
            f"{kind} '{ref}' exists and was made differently ({_difference(record.identity(), identity)}). "
            f"Choose a new version, e.g. {ref.name}@{_next_version(ref.version)}."
        )
    return Draft.open(workspace, kind, ref, identity, tuple(inputs))


def _difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    """The first field in which two identities differ, in words."""
    for part in ("recipe", "inputs"):
        before, after = old[part], new[part]
        if part == "recipe":
            for key in sorted(before.keys() | after.keys()):
                if before.get(key) != after.get(key):
                    return f"{key}: was {_short(before.get(key))}, now {_short(after.get(key))}"
        elif before != after:
            for then, now in zip(before, after, strict=False):
                if then != now:
                    was, is_now = then["fingerprint"][:12], now["fingerprint"][:12]
                    return f"input {then['ref']}: was {was}, now {now['ref']} {is_now}"
            return f"inputs: was {len(before)}, now {len(after)}"
    return "nothing that the record names"


def _short(value: Any) -> str:  # noqa: ANN401 - any JSON value
    text = canonical_json(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _next_version(version: str) -> str:
    return str(int(version) + 1) if version.isdigit() else f"{version}.1"


@dataclass(slots=True)
class Draft:
    """A hidden sibling of the artifact it will become. Only one process builds it at a time."""

    path: Path
    final: Path
    kind: Kind
    ref: Ref
    identity: dict[str, Any]
    inputs: tuple[InputRef, ...]
    _lock: int = field(default=-1, repr=False)

    @classmethod
    def open(
        cls,
        workspace: Workspace,
        kind: Kind,
        ref: Ref,
        identity: dict[str, Any],
        inputs: tuple[InputRef, ...],
    ) -> "Draft":
        """Take the lock, then keep a draft of the same identity or start an empty one."""
        folder = workspace.root / kind
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / f".{ref}.lock", os.O_CREAT | os.O_RDWR, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise ArtifactError(
                f"{kind} '{ref}' is being built by another process. Wait for it, or choose another version."
            ) from None
        path = folder / f".{ref}.draft"
        marker = path / STAGING / "identity.json"
        if path.exists() and not (marker.is_file() and marker.read_text() == canonical_json(identity)):
            shutil.rmtree(path)
        (path / STAGING).mkdir(parents=True, exist_ok=True)
        write_atomic(marker, canonical_json(identity).encode())
        return cls(
            path=path,
            final=folder / str(ref),
            kind=kind,
            ref=ref,
            identity=identity,
            inputs=inputs,
            _lock=lock,
        )

    @property
    def staging(self) -> Path:
        """Files that must survive a kill but are not part of the artifact."""
        return self.path / STAGING

    def publish(
        self,
        *,
        fingerprint: str,
        counts: dict[str, int | float] | None = None,
        rejected: Sequence[RejectedRow] = (),
        notes: dict[str, Any] | None = None,
    ) -> Record:
        """Hash and sync every file, write the record, drop the staging, and rename.

        The artifact appears whole or not at all. The staging goes last: hashing takes long, and a kill before the
        rename must not cost the work.
        """
        paths = sorted(path for path in self.path.rglob("*") if path.is_file() and self._belongs(path))
        record = Record(
            kind=self.kind,
            name=self.ref.name,
            version=self.ref.version,
            created=datetime.now(UTC),
            inputs=self.inputs,
            recipe=self.identity["recipe"],
            counts=counts or {},
            rejected=tuple(rejected),
            files=tuple(_file_row(path, self.path) for path in paths),
            fingerprint=fingerprint,
            notes=notes or {},
        )
        write_atomic(self.path / "record.json", record.model_dump_json(indent=1).encode())
        shutil.rmtree(self.staging)
        for folder in [*(path for path in self.path.rglob("*") if path.is_dir()), self.path]:
            _sync(folder)
        os.rename(self.path, self.final)
        _sync(self.final.parent)
        return record

    def _belongs(self, path: Path) -> bool:
        return self.staging not in path.parents and path != self.path / "record.json"

    def __enter__(self) -> "Draft":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._lock)


def _file_row(path: Path, root: Path) -> FileRow:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    return FileRow(path=path.relative_to(root).as_posix(), num_bytes=path.stat().st_size, sha256=digest)


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old one or the whole new one, also after a power cut."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
