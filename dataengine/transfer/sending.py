"""Push to a store: what is there and equal is skipped, record.json comes last.

Beside the files stands `.push.json`: the sha256 of each file that arrived and the mark the store gave it. A file whose
mark is still the same needs no second sending; one that was changed there has another mark.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from dataengine.transfer.store import Store
from schemas.errors import ArtifactError, EngineError, TransferError
from schemas.records import FileRow, Record

JOURNAL = ".push.json"
_JOURNAL_SHARE = 0.05  # of the time may go into writing the journal


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What a transfer did."""

    url: str
    already_there: bool
    num_moved: int
    num_bytes: int


def size_text(num_bytes: int) -> str:
    """A size as people read it."""
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.2f} MB"


def push_to_store(
    store: Store, home: Path, record: Record, threads: int, on_progress: Callable[[int, int], None] | None
) -> Moved:
    """Send the artifact in `home` to `store`, which is its own folder there."""
    content = (home / "record.json").read_bytes()
    there = store.read("record.json")
    other = _same_artifact(record, there, store.url) if there is not None else None
    journal, marks = _Journal(store), store.marks()
    if other is not None and other.files != record.files:  # equal content in other files, none of which is here
        _check_others(store, other, journal, marks, threads)
        return Moved(url=store.url, already_there=True, num_moved=0, num_bytes=0)
    todo = [row for row in record.files if not journal.holds(row, marks)]
    total = len(record.files)
    if on_progress:
        on_progress(total - len(todo), total)

    def arrive(row: FileRow) -> tuple[str, bool]:
        mark = marks.get(row.path)
        if mark is not None and other is not None and row.path not in journal and _is_there(store, row, mark):
            return mark, False
        return _send(store, home, row), True

    sent: list[FileRow] = []
    with journal.kept():
        for num, (row, (mark, was_sent)) in enumerate(in_parallel(arrive, todo, threads), start=1):
            journal.add(row, mark)
            sent += [row] if was_sent else []
            if on_progress:
                on_progress(total - len(todo) + num, total)
    if other is None:
        store.write("record.json", content)
    return Moved(
        url=store.url,
        already_there=other is not None and not sent,
        num_moved=len(sent),
        num_bytes=sum(row.num_bytes for row in sent),
    )


def _is_there(store: Store, row: FileRow, mark: str) -> bool:
    """Whether a file of a whole artifact that no journal tells of is the one that is listed: it is read to know."""
    return mark.startswith(f"{row.num_bytes}:") and store.sha256(row.path) == row.sha256


def _check_others(store: Store, other: Record, journal: "_Journal", marks: dict[str, str], threads: int) -> None:
    """Raises ArtifactError where a file of the artifact there, which can not be sent from here, is damaged."""
    todo = [row for row in other.files if not journal.holds(row, marks)]
    with journal.kept():
        for row, is_there in in_parallel(lambda row: _is_there(store, row, marks.get(row.path, "")), todo, threads):
            if not is_there:
                raise ArtifactError(
                    f"{row.path} at {store.url} is missing or not the file that its record.json lists. Remove what is "
                    f"there and push again."
                )
            journal.add(row, marks[row.path])


def _same_artifact(record: Record, there: bytes, url: str) -> Record:
    """The pushed record. Raises ArtifactError where it is another artifact."""
    try:
        other = Record.model_validate_json(there)
    except ValidationError:
        raise ArtifactError(f"{url}/record.json is no record. Push to another place, or remove it.") from None
    if other.fingerprint != record.fingerprint:
        raise ArtifactError(
            f"{url} holds another {record.kind} '{record.name}@{record.version}' ({other.fingerprint[:12]}, here "
            f"{record.fingerprint[:12]}). A push never overwrites: choose a new version or another place."
        )
    return other


def checked_hash(path: Path, row: FileRow, where: str) -> None:
    """Raises ArtifactError where a file is not the one the record lists."""
    try:
        with path.open("rb") as file:
            same = hashlib.file_digest(file, "sha256").hexdigest() == row.sha256
    except FileNotFoundError:
        raise ArtifactError(f"{where} is missing {row.path}. Restore it or build the artifact again.") from None
    if not same:
        raise ArtifactError(
            f"{row.path} in {where} is not the file that record.json lists (sha256 differs). Restore it or build the "
            f"artifact again."
        )


def _send(store: Store, home: Path, row: FileRow) -> str:
    checked_hash(home / row.path, row, str(home))
    return store.put(home / row.path, row.path)


def in_parallel[Item, Result](
    work: Callable[[Item], Result], items: Sequence[Item], threads: int
) -> Iterator[tuple[Item, Result]]:
    """Call `work` for every item on a few threads; yields as they finish, and begins no more after the first error."""
    with ThreadPoolExecutor(max_workers=min(threads, max(len(items), 1))) as pool:
        futures: dict[Future[Result], Item] = {pool.submit(work, item): item for item in items}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


class _Journal:
    """What has arrived in a store, kept there."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._rows: dict[str, list[str]] = _journal_rows(store.read(JOURNAL))
        self._saved_s, self._cost_s = 0.0, 0.0
        self._changed = False

    def __contains__(self, path: str) -> bool:
        return path in self._rows

    def holds(self, row: FileRow, marks: dict[str, str]) -> bool:
        """Whether a file is there as it was sent; a mark that is a size alone proves nothing."""
        mark = marks.get(row.path)
        return mark is not None and not mark.endswith(":") and self._rows.get(row.path) == [row.sha256, mark]

    def add(self, row: FileRow, mark: str) -> None:
        """Note a file that arrived; saved at once where that is cheap."""
        self._rows[row.path] = [row.sha256, mark]
        self._changed = True
        if (time.monotonic() - self._saved_s) * _JOURNAL_SHARE >= self._cost_s:
            self._save()

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Save at the end, also of a run that fails; where the store is what failed, its error is the one to tell."""
        try:
            yield
        except EngineError:
            with suppress(TransferError):
                self._save()
            raise
        self._save()

    def _save(self) -> None:
        if not self._changed:
            return
        start = time.monotonic()
        self._store.write(JOURNAL, json.dumps({"schema_version": 1, "sent": self._rows}).encode())
        self._saved_s = time.monotonic()
        self._cost_s, self._changed = self._saved_s - start, False


def _journal_rows(content: bytes | None) -> dict[str, list[str]]:
    """Rows of a journal; one that was cut off while it was written says nothing."""
    if content is None:
        return {}
    try:
        rows = json.loads(content)["sent"]
    except (ValueError, KeyError, TypeError):
        return {}
    return rows if isinstance(rows, dict) else {}
