"""Push to the Hugging Face Hub: one dataset repository, one commit, and a tag that is the version.

An episodes artifact lies at the root, so that LeRobot opens the repository by its name; a path in the URL puts an
artifact (a frame store) below the root. Large files go up first, addressed by their sha256, so that a killed push
sends none twice; one commit then shows all of them at once, record.json among them.
"""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dataengine.transfer.dataset_card import dataset_card
from dataengine.transfer.hub_place import HubPlace
from dataengine.transfer.sending import Moved, checked_hash
from dataengine.transfer.store import attempt
from schemas.errors import ArtifactError, UsageError
from schemas.records import Record

_LEROBOT_TAG = "v3.0"  # LeRobot looks for a tag of its format's version, and refuses a repository without one
_BATCH = 16  # files whose large ones go up together, between two looks at the clock


def push_to_hub(
    place: HubPlace,
    home: Path,
    record: Record,
    options: Mapping[str, object],
    threads: int,
    on_progress: Callable[[int, int], None] | None,
) -> Moved:
    """Send the artifact in `home` to a dataset repository, which is made where there is none."""
    if place.revision is not None:
        raise UsageError(f"the version is the tag: push to hf://{place.repo}, not to '@{place.revision}'.")
    hub = _Hub(place, options)
    tag = f"{place.path.replace('/', '-')}-{record.version}" if place.path else record.version
    url = place.url(tag)
    existing = hub.tags()
    if tag in existing:
        _check_same(hub, tag, record, url)
        return Moved(url=url, already_there=True, num_moved=0, num_bytes=0)
    with _without_bars():
        moved = hub.commit(home, record, threads, on_progress)
    hub.tag(tag)
    if record.kind == "episodes" and not place.path:
        if _LEROBOT_TAG in existing:
            hub.untag(_LEROBOT_TAG)
        hub.tag(_LEROBOT_TAG)
    return Moved(url=url, already_there=False, num_moved=len(record.files), num_bytes=moved)


@contextmanager
def _without_bars() -> Iterator[None]:
    """The Hub's own bars write over ours, and into logs."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _check_same(hub: "_Hub", tag: str, record: Record, url: str) -> None:
    content = hub.read("record.json", tag)
    there = Record.model_validate_json(content).fingerprint if content else "no record"
    if there != record.fingerprint:
        raise ArtifactError(
            f"{url} holds something else ({there[:12]}, here {record.fingerprint[:12]}). A push never overwrites: "
            f"choose a new version or another repository."
        )


class _Hub:
    """One repository, every call with retries and one sentence for what goes wrong."""

    def __init__(self, place: HubPlace, options: Mapping[str, object]) -> None:
        from huggingface_hub import HfApi

        known = {"endpoint", "token", "private"}
        if not options.keys() <= known:
            raise UsageError(f"the Hub takes the options {', '.join(sorted(known))}, got {', '.join(sorted(options))}.")
        self._place = place
        self._private = bool(options.get("private", False))
        endpoint, token = options.get("endpoint"), options.get("token")
        self._api = HfApi(endpoint=str(endpoint) if endpoint else None, token=str(token) if token else None)

    def _try[T](self, call: Callable[[], T], doing: str) -> T:
        return attempt(call, self._place.url(), doing)

    def tags(self) -> set[str]:
        """Tags of the repository, which is made where there is none."""
        repo = self._place.repo
        if not self._try(lambda: self._api.repo_exists(repo, repo_type="dataset"), "is looked for"):
            self._try(
                lambda: self._api.create_repo(repo, repo_type="dataset", private=self._private, exist_ok=True),
                "is made",
            )
        refs = self._try(lambda: self._api.list_repo_refs(repo, repo_type="dataset"), "lists its versions")
        return {row.name for row in refs.tags}

    def tag(self, name: str) -> None:
        """Tag the newest commit."""
        self._try(
            lambda: self._api.create_tag(self._place.repo, tag=name, repo_type="dataset", exist_ok=True), "is tagged"
        )

    def untag(self, name: str) -> None:
        """Remove a tag that is to move."""
        self._try(lambda: self._api.delete_tag(self._place.repo, tag=name, repo_type="dataset"), "is tagged")

    def read(self, path: str, revision: str) -> bytes | None:
        """A small file of a version."""
        from huggingface_hub import HfFileSystem

        where = f"datasets/{self._place.repo}@{revision}/{self._place.inside(path)}"

        def call() -> bytes | None:
            try:
                fs = HfFileSystem(endpoint=self._api.endpoint, token=self._api.token, skip_instance_cache=True)
                content: bytes = fs.cat_file(where)
            except FileNotFoundError:
                return None
            return content

        return self._try(call, "is read")

    def commit(self, home: Path, record: Record, threads: int, on_progress: Callable[[int, int], None] | None) -> int:
        """All files in one commit; files of an earlier version go in it. Returns the bytes of the artifact."""
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        place, adds = self._place, []
        for start in range(0, len(record.files), _BATCH):
            rows = record.files[start : start + _BATCH]
            for row in rows:
                checked_hash(home / row.path, row, str(home))
            batch = [CommitOperationAdd(place.inside(row.path), home / row.path) for row in rows]
            self._send_large(batch, threads)
            adds.extend(batch)
            if on_progress:
                on_progress(len(adds), len(record.files))
        record_file = CommitOperationAdd(
            path_in_repo=place.inside("record.json"), path_or_fileobj=io.BytesIO((home / "record.json").read_bytes())
        )
        card = [] if place.path else [self._card(home, record)]
        kept = {row.path_in_repo for row in (*adds, record_file, *card)}
        gone = [CommitOperationDelete(path_in_repo=path) for path in self._ours() if path not in kept]
        operations = [*adds, record_file, *card, *gone]
        self._try(
            lambda: self._api.create_commit(
                place.repo,
                operations,
                commit_message=f"{record.kind} {record.name}@{record.version}",
                repo_type="dataset",
                num_threads=threads,
            ),
            "takes the commit",
        )
        return sum(row.num_bytes for row in record.files)

    def _send_large(self, batch: Sequence[Any], threads: int) -> None:
        self._try(
            lambda: self._api.preupload_lfs_files(
                self._place.repo, batch, repo_type="dataset", num_threads=threads, free_memory=False
            ),
            "takes files",
        )

    def _card(self, home: Path, record: Record) -> Any:  # noqa: ANN401 - a CommitOperationAdd
        from huggingface_hub import CommitOperationAdd

        text = dataset_card(home, record, self._place.repo)
        return CommitOperationAdd(path_in_repo="README.md", path_or_fileobj=text.encode())

    def _ours(self) -> list[str]:
        """Files of the earlier version, as its own record lists them: what someone else put there stays."""
        content = self.read("record.json", "main")
        if not content:
            return []
        return [self._place.inside(row.path) for row in Record.model_validate_json(content).files]
