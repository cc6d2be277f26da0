"""A folder of files outside the workspace: built hidden beside its place, published by one rename, never overwritten.

`export.json` inside is written last and says from what, and how, the folder was made, so that the same words again find
it "already there". What a killed export left is hidden, and is written anew.
"""

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from dataengine.artifacts import file_rows, write_atomic
from dataengine.exports.report import ExportReport, Form
from schemas.errors import UsageError
from schemas.records import FileRow, InputRef, RejectedRow, canonical_json, sha256_of

EXPORT_SCHEMA = 1
RECORD = "export.json"
_HOPELESS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST)


class FolderRecord(BaseModel):
    """`export.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    schema_version: int = EXPORT_SCHEMA
    form: Form
    inputs: tuple[InputRef, ...]
    options: dict[str, JsonValue]  # every word that changes the content
    counts: dict[str, int]
    without_words: tuple[str, ...]
    left_out: tuple[RejectedRow, ...]
    notes: tuple[str, ...]
    files: tuple[FileRow, ...]
    fingerprint: str  # of the names and bytes of all files

    def report(self, out: Path, *, already_there: bool) -> ExportReport:
        """The same for a person."""
        return ExportReport(
            form=self.form,
            where=str(out),
            already_there=already_there,
            fingerprint=self.fingerprint,
            counts=self.counts,
            without_words=self.without_words,
            left_out=self.left_out,
            notes=self.notes,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderDraft:
    """A folder that is being filled."""

    path: Path
    out: Path
    form: Form
    inputs: tuple[InputRef, ...]
    options: dict[str, Any]

    def publish(
        self,
        *,
        counts: dict[str, int],
        without_words: Sequence[str],
        left_out: Sequence[RejectedRow],
        notes: Sequence[str] = (),
    ) -> ExportReport:
        """Hash and sync every file, write `export.json`, and rename: the folder appears whole or not at all."""
        paths = sorted(path for path in self.path.rglob("*") if path.is_file())
        files = file_rows(paths, self.path)
        record = FolderRecord(
            form=self.form,
            inputs=self.inputs,
            options=self.options,
            counts=counts,
            without_words=tuple(without_words),
            left_out=tuple(left_out),
            notes=tuple(notes),
            files=files,
            fingerprint=sha256_of([[row.path, row.sha256] for row in files]),
        )
        write_atomic(self.path / RECORD, record.model_dump_json(indent=1).encode())
        os.rename(self.path, self.out)
        return record.report(self.out, already_there=False)


@contextmanager
def begin_folder(
    out: Path, *, form: Form, inputs: Sequence[InputRef], options: dict[str, Any]
) -> Iterator[FolderDraft | ExportReport]:
    """An empty hidden folder to fill and publish; the report of what is there already where that is the same export.

    Raises UsageError where `out` holds anything else, is being written by someone else, or can not be written.
    """
    out = out.expanduser().absolute()
    draft = FolderDraft(
        path=out.with_name(f".{out.name}.draft"), out=out, form=form, inputs=tuple(inputs), options=options
    )
    there = _existing(draft)
    if there is not None:
        yield there
        return
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with _locked(out):
            shutil.rmtree(draft.path, ignore_errors=True)  # what was killed; it can not be gone on with
            draft.path.mkdir()
            try:
                yield draft
            finally:
                shutil.rmtree(draft.path, ignore_errors=True)  # nothing, once it is published
    except OSError as error:
        if error.errno not in _HOPELESS:
            raise
        raise UsageError(f"{out} can not be written ({error.strerror}). Make space, or choose another --out.") from None


def _existing(draft: FolderDraft) -> ExportReport | None:
    out = draft.out
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    try:
        record = FolderRecord.model_validate_json((out / RECORD).read_bytes())
    except (OSError, ValidationError):
        record = None
    if record is None or _identity(record) != _identity(draft):
        what = "holds other files" if record is None else f"holds another export ({_words(record)})"
        raise UsageError(f"{out} exists and {what}. Choose another --out, or remove it.")
    return record.report(out, already_there=True)


def _identity(made: FolderRecord | FolderDraft) -> str:
    inputs = [row.model_dump() for row in made.inputs]
    return canonical_json([made.form, inputs, made.options])


def _words(record: FolderRecord) -> str:
    options = f", {json.dumps(record.options)}" if record.options else ""
    return f"{record.form} of {record.inputs[0].ref}{options}"


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Only one process at a time, by a hidden file beside `out`; the kernel lets go when a process dies."""
    path = out.with_name(f".{out.name}.lock")
    handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
    try:
        if not _ours(handle, path):
            raise UsageError(f"{out} is being written by another process. Wait for it, or choose another --out.")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
    finally:
        os.close(handle)


def _ours(handle: int, path: Path) -> bool:
    """Lock it. Whoever had it before may have removed the file meanwhile: then a third one may lock a new one."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return path.stat().st_ino == os.fstat(handle).st_ino
    except (BlockingIOError, FileNotFoundError):
        return False
