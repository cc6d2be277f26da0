"""Pull: files come into the hidden draft, each checked against the record, and one rename publishes."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from dataengine.artifacts import STAGING, Draft, begin_copy
from dataengine.transfer.received import check_contents, parse_record
from dataengine.transfer.sending import JOURNAL, Moved, checked_hash, in_parallel, size_text
from dataengine.transfer.store import Store
from dataengine.workspace import Workspace
from schemas.errors import ArtifactError, TransferError
from schemas.records import FileRow, Record
from schemas.refs import Ref


def pull_from(
    store: Store,
    workspace: Workspace,
    to: Ref | None,
    threads: int,
    on_progress: Callable[[int, int], None] | None,
) -> tuple[Moved, Record]:
    """Fetch the artifact whose own folder `store` is."""
    record = _record(store)
    if to is not None:
        record = record.model_copy(update={"name": to.name, "version": to.version})
    draft = begin_copy(workspace, record)
    if isinstance(draft, Record):
        _check_here(workspace, draft, store.url)
        return Moved(url=store.url, already_there=True, num_moved=0, num_bytes=0), draft
    with draft:
        todo = _todo(draft, record)
        num_bytes = sum(row.num_bytes for row in todo)
        _check_space(draft.path, num_bytes)
        total = len(record.files)
        if on_progress:
            on_progress(total - len(todo), total)
        items = list(enumerate(todo))
        for num, _ in enumerate(in_parallel(lambda item: _fetch(store, draft, *item), items, threads), start=1):
            if on_progress:
                on_progress(total - len(todo) + num, total)
        check_contents(draft.path, record)
        done = draft.publish_as(record)
    return Moved(url=store.url, already_there=False, num_moved=len(todo), num_bytes=num_bytes), done


def _check_here(workspace: Workspace, record: Record, url: str) -> None:
    """Raises ArtifactError where the artifact that is here lost files, or some of their bytes."""
    ref = Ref(record.name, record.version)
    home = workspace.path(record.kind, ref)
    damaged = [row.path for row in record.files if not _has_size(home / row.path, row)]
    if damaged:
        raise ArtifactError(
            f"{record.kind} '{ref}' is here but damaged: {len(damaged)} of its {len(record.files)} files are missing "
            f"or of another size, {damaged[0]} first. Delete {home} and pull {url} again."
        )


def _has_size(path: Path, row: FileRow) -> bool:
    return path.is_file() and path.stat().st_size == row.num_bytes


def _record(store: Store) -> Record:
    content = store.read("record.json")
    if content is None:
        raise TransferError(_why_none(store))
    return parse_record(content, store)


def _why_none(store: Store) -> str:
    found = store.marks()
    if JOURNAL in found:
        return f"the push to {store.url} was not finished. Run it again where it was begun, then pull."
    shelves = sorted(path.removesuffix("/record.json") for path in found if path.endswith("/record.json"))
    if shelves:
        names = ", ".join(shelves[:8]) + (", ..." if len(shelves) > 8 else "")
        return f"{store.url} is no artifact, but holds {names}. Name one, e.g. {store.url}/{shelves[0]}."
    what = f"{len(found)} files but no record.json" if found else "nothing"
    return f"no artifact at {store.url}: {what} is there. Check the URL, e.g. s3://bucket/folder/episodes/NAME@VERSION."


def _todo(draft: Draft, record: Record) -> list[FileRow]:
    """Files that are not in the draft yet; what an earlier try left there and the record does not list is removed."""
    listed = {row.path for row in record.files}
    for path in list(draft.path.rglob("*")):
        inside = path.relative_to(draft.path)
        if path.is_file() and inside.parts[0] != STAGING and inside.as_posix() not in listed:
            path.unlink()
    return [row for row in record.files if not _is_here(draft.path / row.path, row)]


def _is_here(path: Path, row: FileRow) -> bool:
    if not _has_size(path, row):
        return False
    try:
        checked_hash(path, row, "the draft")
    except ArtifactError:
        return False
    return True


def _check_space(folder: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise ArtifactError(
            f"{size_text(num_bytes)} are to come, but {folder.parent} has {size_text(free)} left. Make space and run "
            f"the same command again."
        )


def _fetch(store: Store, draft: Draft, number: int, row: FileRow) -> None:
    """One file: beside its place first, so that what is in place is whole."""
    part = draft.staging / f"{number}.part"
    for last in (False, True):
        if not store.get(row.path, part):
            raise ArtifactError(f"{store.url} is missing {row.path}, which its record.json lists. Push it again.")
        try:
            checked_hash(part, row, store.url)
            break
        except ArtifactError:
            if last:  # once can be the line, twice is the file
                raise
    target = draft.path / row.path
    target.parent.mkdir(parents=True, exist_ok=True)
    with part.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(part, target)
