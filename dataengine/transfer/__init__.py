"""Push and pull whole artifacts: to and from any fsspec store (a disk, S3, ...) and the Hugging Face Hub.

push: every file -> checked against the record -> sent, unless it is there and equal -> record.json last
pull: record.json -> every file into the hidden draft -> checked against the record -> one rename publishes
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dataengine.transfer.hub import push_to_hub
from dataengine.transfer.hub_place import is_hub, parse_hub
from dataengine.transfer.receiving import pull_from
from dataengine.transfer.sending import push_to_store, size_text
from dataengine.transfer.store import open_store
from dataengine.workspace import Workspace
from schemas.errors import UsageError
from schemas.records import Record
from schemas.refs import Kind, Ref

__all__ = ["TransferReport", "pull", "push"]

THREADS = 8  # small files wait for the network, not for a core


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferReport:
    """What a push or a pull did."""

    record: Record
    url: str  # of the artifact itself: what `pull` takes
    already_there: bool
    num_files: int
    num_moved: int  # files sent or fetched this time; the others were there and equal
    num_bytes: int  # of those

    def summary(self, verb: str) -> str:
        """One line for people; `verb` is `sent` or `fetched`."""
        name = f"{self.record.kind}/{self.record.name}@{self.record.version}"
        if self.already_there:
            return f"{name}: already there, nothing {verb}."
        size = size_text(self.num_bytes)
        return f"{name}: {verb} {self.num_moved:,} of {self.num_files:,} files ({size}), each checked by its sha256."

    def to_json(self) -> dict[str, Any]:
        """Facts for programs."""
        return {
            "artifact": f"{self.record.kind}/{self.record.name}@{self.record.version}",
            "fingerprint": self.record.fingerprint,
            "url": self.url,
            "already_there": self.already_there,
            "num_files": self.num_files,
            "num_moved": self.num_moved,
            "num_bytes": self.num_bytes,
        }


def push(
    *,
    workspace: Workspace,
    kind: Kind,
    ref: Ref,
    url: str,
    options: Mapping[str, object] | None = None,
    threads: int = THREADS,
    on_progress: Callable[[int, int], None] | None = None,
) -> TransferReport:
    """Copy an artifact to `url/kind/NAME@VERSION` of a store, or to the dataset repository `hf://OWNER/NAME`.

    Args:
        options: what the fsspec file system takes (`endpoint_url`, `key`, `secret`, ...); for the Hub `endpoint`,
            `token` and `private`.

    Raises ArtifactError where a file is damaged here or another artifact is there, TransferError where the store can
    not be reached or refuses.
    """
    _check_threads(threads)
    home, record = workspace.find(kind, ref), workspace.record(kind, ref)
    if is_hub(url):
        done = push_to_hub(parse_hub(url), home, record, options or {}, threads, on_progress)
    else:
        store = open_store(url, options or {}).below(f"{kind}/{ref}")
        done = push_to_store(store, home, record, threads, on_progress)
    return TransferReport(
        record=record,
        url=done.url,
        already_there=done.already_there,
        num_files=len(record.files),
        num_moved=done.num_moved,
        num_bytes=done.num_bytes,
    )


def pull(
    *,
    workspace: Workspace,
    url: str,
    to: Ref | None = None,
    options: Mapping[str, object] | None = None,
    threads: int = THREADS,
    on_progress: Callable[[int, int], None] | None = None,
) -> TransferReport:
    """Copy the artifact at `url` into the workspace, under its own name or as `to`.

    The fingerprint covers content alone, so another name keeps it; what was made from the artifact (a mix) finds it by
    its own name only. `hf://OWNER/NAME@VERSION` is a dataset repository at the tag of that version.

    Raises ArtifactError where a file there is damaged or another artifact has the name here, TransferError where the
    store can not be reached or refuses.
    """
    _check_threads(threads)
    store = open_store(url, options or {})
    done, record = pull_from(store, workspace, to, threads, on_progress)
    return TransferReport(
        record=record,
        url=done.url,
        already_there=done.already_there,
        num_files=len(record.files),
        num_moved=done.num_moved,
        num_bytes=done.num_bytes,
    )


def _check_threads(threads: int) -> None:
    if threads < 1:
        raise UsageError(f"{threads} transfers at a time move nothing. Use 1 or more.")
