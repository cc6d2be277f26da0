"""Building an artifact: a hidden draft that survives a kill, one rename that publishes it, and never an overwrite.

draft = begin(workspace, "episodes", ref, recipe=..., inputs=...)
if isinstance(draft, Record):
    return draft                      # same recipe and inputs: already there
with draft:                           # holds the lock; leaves the draft in place when something raises
    ...write files under draft.path; what must survive a kill but not be published goes to draft.staging...
    return draft.publish(fingerprint=..., counts=...)
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from dataengine.workspace import Workspace, read_record
from schemas.errors import ArtifactError
from schemas.records import FileRow, InputRef, Record, RejectedRow, canonical_json
from schemas.refs import Kind, Ref

STAGING = ".staging"
_HASHED_AT_ONCE = min(8, os.cpu_count() or 1)  # files: hashing takes a core each
_SYNCED_AT_ONCE = 4  # syncing waits for the disk
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def begin(
    workspace: Workspace,
    kind: Kind,
    ref: Ref,
    *,
    recipe: dict[str, Any],
    inputs: Sequence[InputRef] = (),
    inputs_checked_per_item: bool = False,
) -> "Draft | Record":
    """Start, or go on with, the draft of one artifact; the record itself when it is already there.

    `inputs_checked_per_item` says that staged work is compared with its input item by item, so that a changed input
    (a raw file that was mended) keeps what is staged.

    Raises ArtifactError when `ref` exists with another recipe or other inputs, when an unfinished draft of another
    recipe holds work, or when someone else builds it right now.
    """
    identity = {"recipe": json.loads(canonical_json(recipe)), "inputs": [row.model_dump() for row in inputs]}
    draft = Draft(
        path=_draft_path(workspace.path(kind, ref)),
        final=workspace.path(kind, ref),
        kind=kind,
        ref=ref,
        identity=identity,
        inputs=tuple(inputs),
    )
    return _begun(draft, lambda record: _difference(record.identity(), identity), inputs_checked_per_item)


def begin_copy(workspace: Workspace, record: Record) -> "Draft | Record":
    """Start, or go on with, the draft of an artifact that exists elsewhere; the record itself when it is already here.

    The draft is published with `publish_as(record)`. Raises ArtifactError as `begin` does; an artifact here is the same
    one when its fingerprint is.
    """
    ref = Ref(record.name, record.version)
    final = workspace.path(record.kind, ref)
    draft = Draft(
        path=_draft_path(final),
        final=final,
        kind=record.kind,
        ref=ref,
        identity={"recipe": {"copy of": record.fingerprint}, "inputs": []},
        inputs=record.inputs,
    )

    def difference(here: Record) -> str | None:
        same = here.fingerprint == record.fingerprint
        return None if same else f"fingerprint: here {here.fingerprint[:12]}, there {record.fingerprint[:12]}"

    return _begun(draft, difference, False)


def _begun(
    draft: "Draft", difference: Callable[[Record], str | None], inputs_checked_per_item: bool
) -> "Draft | Record":
    """Lock and prepare `draft`, or give the published record; `difference` says how a record is another one."""
    final, kind, ref = draft.final, draft.kind, draft.ref
    try:
        record = _existing(final, kind, ref, difference)
        if record is not None:
            return record
        final.parent.mkdir(parents=True, exist_ok=True)
        draft._lock = _locked(final.parent / f".{ref}.lock", kind, ref)
    except OSError as error:
        raise _unwritable(final, error) from error
    try:
        # Looked at again under the lock: another process may have published in between.
        record = _existing(final, kind, ref, difference) or _almost_published(final, difference)
        if record is None:
            draft._prepare(inputs_checked_per_item)
            return draft
    except OSError as error:
        os.close(draft._lock)
        raise _unwritable(final, error) from error
    except BaseException:
        os.close(draft._lock)
        raise
    os.close(draft._lock)
    return record


def _unwritable(final: Path, error: OSError) -> Exception:
    """One sentence for a workspace that can not be written; any other error as it is."""
    if error.errno not in (*_DISK, errno.EACCES, errno.EPERM, errno.ENOTDIR):
        return error
    return ArtifactError(
        f"{final.parent} can not be written ({error.strerror}). Make space, or choose a --workspace that you may write "
        f"to, and run the same command again: what is done is kept."
    )


def _existing(final: Path, kind: Kind, ref: Ref, difference: Callable[[Record], str | None]) -> Record | None:
    """The published record when it is what is asked for. Raises ArtifactError when it is something else."""
    if not final.exists():
        return None
    record = read_record(final)
    differs = difference(record)
    if differs is None:
        return record
    raise ArtifactError(
        f"{kind} '{ref}' exists and was made differently ({differs}). "
        f"Choose a new version, e.g. {ref.name}@{_next_version(ref.version)}."
    )


def _almost_published(final: Path, difference: Callable[[Record], str | None]) -> Record | None:
    """Finish what was killed between dropping the staging and the last rename."""
    path = _draft_path(final)
    if (path / STAGING).exists() or not (path / "record.json").is_file():
        return None
    record = read_record(path)
    if difference(record) is not None:
        return None
    os.rename(path, final)
    _sync(final.parent)
    shutil.rmtree(_trash_path(final), ignore_errors=True)
    return record


def _draft_path(final: Path) -> Path:
    return final.with_name(f".{final.name}.draft")


def _trash_path(final: Path) -> Path:
    return final.with_name(f".{final.name}.trash")


def _locked(path: Path, kind: Kind, ref: Ref) -> int:
    lock = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise ArtifactError(
            f"{kind} '{ref}' is being built by another process. Wait for it, or choose another version."
        ) from None
    except OSError as error:
        os.close(lock)
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        # The kernel lets go of a flock when its process dies, on NFS (v4, or v3 with lockd) when its machine's lease
        # ends; Lustre has none unless it is mounted with `flock`.
        raise ArtifactError(
            f"the file system of {path.parent} has no file locks ({error.strerror}), and two runs could build one "
            f"artifact at once. Mount it with locks (NFSv4, or Lustre's -o flock), or choose another --workspace."
        ) from None
    return lock


def _difference(old: dict[str, Any], new: dict[str, Any]) -> str | None:
    """The first thing in which two identities differ, in words; None when they are equal.

    Raw data is compared by content alone: renaming its folder changes nothing.
    """
    before, after = old["recipe"], new["recipe"]
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            return f"{key}: was {_short(before.get(key))}, now {_short(after.get(key))}"
    if len(old["inputs"]) != len(new["inputs"]):
        return f"inputs: was {len(old['inputs'])}, now {len(new['inputs'])}"
    for then, now in zip(old["inputs"], new["inputs"], strict=True):
        names = () if then["kind"] == "raw" else ("ref",)
        if any(then[name] != now[name] for name in ("kind", "fingerprint", *names)):
            was, is_now = then["fingerprint"][:12], now["fingerprint"][:12]
            return f"input {then['ref']}: was {was}, now {now['ref']} {is_now}"
    return None


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

    def _prepare(self, inputs_checked_per_item: bool) -> None:
        """Keep a draft of the same identity, or start an empty one; refuse to throw work away."""
        marker = self.staging / "identity.json"
        if self.path.exists():
            known = json.loads(marker.read_text()) if marker.is_file() else None
            now = {**self.identity, "inputs": known["inputs"]} if known and inputs_checked_per_item else self.identity
            difference = "its marks are gone" if known is None else _difference(known, now)
            if difference is not None:
                if known is not None and any(path != marker for path in self.staging.iterdir()):
                    raise ArtifactError(
                        f"an unfinished {self.kind} '{self.ref}' was begun differently ({difference}). "
                        f"Finish it with the same words as before, choose a new version, or delete {self.path}."
                    )
                shutil.rmtree(self.path)
        self.staging.mkdir(parents=True, exist_ok=True)
        write_atomic(marker, canonical_json(self.identity).encode())

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

        The artifact appears whole or not at all. Hashing takes long and removing thousands of staged files too: a kill
        at any moment leaves either a draft to go on with or one that only waits for its last rename.
        """
        paths = sorted(self._files())
        record = Record(
            kind=self.kind,
            name=self.ref.name,
            version=self.ref.version,
            created=datetime.now(UTC),
            inputs=self.inputs,
            recipe=self.identity["recipe"],
            counts=counts or {},
            rejected=tuple(rejected),
            files=file_rows(paths, self.path),
            fingerprint=fingerprint,
            notes=notes or {},
        )
        return self.publish_as(record)

    def publish_as(self, record: Record) -> Record:
        """Publish files that are hashed and synced already, as `record` lists them."""
        write_atomic(self.path / "record.json", record.model_dump_json(indent=1).encode())
        trash = _trash_path(self.final)
        shutil.rmtree(trash, ignore_errors=True)
        os.rename(self.staging, trash)
        for folder in [*(path for path in self.path.rglob("*") if path.is_dir()), self.path]:
            _sync(folder)
        os.rename(self.path, self.final)
        _sync(self.final.parent)
        shutil.rmtree(trash, ignore_errors=True)
        return record

    def _files(self) -> Iterator[Path]:
        """Files of the artifact; the staging holds some for every episode and is not walked through."""
        for folder, inside, files in os.walk(self.path):
            if Path(folder) == self.path:
                inside[:] = [name for name in inside if name != STAGING]
                files = [name for name in files if name != "record.json"]
            yield from (path for name in files if (path := Path(folder, name)).is_file())

    def __enter__(self) -> "Draft":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._lock)
        # A disk that fills up while any stage writes its artifact is one sentence, and the draft waits.
        if isinstance(error, OSError) and error.errno in _DISK:
            named = str(error.filename or self.path)
            if named.startswith(str(self.final.parent)):
                raise _unwritable(self.final, error) from error


def file_rows(paths: Sequence[Path], root: Path) -> tuple[FileRow, ...]:
    """Every file's row, and every file on the disk, which writes while the cores hash: the one hides the other."""
    with ThreadPoolExecutor(_SYNCED_AT_ONCE) as disk, ThreadPoolExecutor(_HASHED_AT_ONCE) as cores:
        synced = disk.map(_sync, paths)
        rows = tuple(cores.map(partial(_file_row, root=root), paths))
        for _ in synced:  # raises what the disk said
            pass
    return rows


def _file_row(path: Path, root: Path) -> FileRow:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        num_bytes = os.fstat(file.fileno()).st_size
    return FileRow(path=path.relative_to(root).as_posix(), num_bytes=num_bytes, sha256=digest)


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old one or the whole new one, also after a power cut."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError:  # a full disk must not stay full of what could not be written
        beside.unlink(missing_ok=True)
        raise


def _sync(path: Path) -> None:
    """Wait until the disk holds a file, or which files a folder has."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
