"""Push to the Hugging Face Hub: one dataset repository, one commit, and a tag that is the version.

An episodes artifact lies at the root, so that LeRobot opens the repository by its name; a path in the URL puts an
artifact (a frame store) below the root. Large files go up first, addressed by their sha256, so that a killed push
sends none twice; one commit then shows all of them at once, record.json among them. The tag that is the version comes
last and says that the push is done: without it the same push does everything again.

The newest version lies on `main`. An older one that is pushed after it gets its tag, by way of a branch of its own that
is removed again, and `main` stays.
"""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dataengine.sources.content import natural_key
from dataengine.transfer.dataset_card import dataset_card, is_ours
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
    tags = hub.tags()
    newest = hub.record("main")
    for_lerobot = record.kind == "episodes" and not place.path
    if tag in tags:
        _check_same(hub, tag, record, url)
        if for_lerobot and _LEROBOT_TAG not in tags:
            hub.tag(_LEROBOT_TAG, "main" if newest and _dataset(newest) == _dataset(record) else tag)
        return Moved(url=url, already_there=True, num_moved=0, num_bytes=0)
    _check_place(hub, place, newest, record)
    is_old = newest is not None and natural_key(record.version) < natural_key(newest.version)
    branch = f"push-{tag}" if is_old else "main"
    if is_old:
        hub.make_branch(branch)
    with _without_bars():
        done = hub.commit(home, record, branch, threads, on_progress)
    if for_lerobot:
        _show_to_lerobot(hub, tags, None if is_old else done.commit)
    hub.tag(tag, branch)
    if is_old:
        hub.remove_branch(branch)
    return Moved(url=url, already_there=False, num_moved=len(record.files), num_bytes=done.num_bytes)


def _show_to_lerobot(hub: "_Hub", tags: Mapping[str, str], commit: str | None) -> None:
    """Move LeRobot's tag to `commit`, the newest version; with None it is only made where it is missing, on `main`."""
    there = tags.get(_LEROBOT_TAG)
    if there is not None and commit in (None, there):
        return
    if there is not None:
        hub.untag(_LEROBOT_TAG)
    hub.tag(_LEROBOT_TAG, "main")


def _dataset(record: Record) -> str:
    return f"{record.kind} '{record.name}'"


def _check_place(hub: "_Hub", place: HubPlace, newest: Record | None, record: Record) -> None:
    """Raises ArtifactError where the push would replace what is no earlier version of the same dataset."""
    elsewhere = f"Push to another repository, or to a path in it, e.g. {place.url()}/{record.name}."
    if newest is None:
        taken = hub.paths() & {place.inside(row.path) for row in record.files}
        if taken:
            raise ArtifactError(
                f"{place.url()} holds {min(taken)} but no record.json, so this program did not push it, and it would "
                f"be replaced. {elsewhere}"
            )
    elif _dataset(newest) != _dataset(record):
        raise ArtifactError(
            f"{place.url()} holds {_dataset(newest)}, and {_dataset(record)} would replace it. {elsewhere}"
        )
    elif newest.version == record.version and newest.fingerprint != record.fingerprint:
        raise ArtifactError(
            f"{place.url()} holds another {record.version} of {_dataset(record)} ({newest.fingerprint[:12]}, here "
            f"{record.fingerprint[:12]}). A push never overwrites: choose a new version or another repository."
        )


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
    known = hub.record(tag)
    there = known.fingerprint if known else "no record"
    if there != record.fingerprint:
        raise ArtifactError(
            f"{url} holds something else ({there[:12]}, here {record.fingerprint[:12]}). A push never overwrites: "
            f"choose a new version or another repository."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Commit:
    commit: str
    num_bytes: int


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

    def tags(self) -> dict[str, str]:
        """Tags of the repository, which is made where there is none, and their commits."""
        repo = self._place.repo
        if not self._try(lambda: self._api.repo_exists(repo, repo_type="dataset"), "is looked for"):
            self._try(
                lambda: self._api.create_repo(repo, repo_type="dataset", private=self._private, exist_ok=True),
                "is made",
            )
        refs = self._try(lambda: self._api.list_repo_refs(repo, repo_type="dataset"), "lists its versions")
        return {row.name: row.target_commit for row in refs.tags}

    def paths(self) -> set[str]:
        """Every file and folder of `main`."""
        rows = self._try(
            lambda: list(self._api.list_repo_tree(self._place.repo, repo_type="dataset", recursive=True)), "is listed"
        )
        return {row.path for row in rows}

    def tag(self, name: str, revision: str) -> None:
        """Tag a commit, or the newest one of a branch."""
        repo = self._place.repo
        self._try(
            lambda: self._api.create_tag(repo, tag=name, revision=revision, repo_type="dataset", exist_ok=True),
            "is tagged",
        )

    def make_branch(self, name: str) -> None:
        """Begin a branch at `main`, or go on with one that a killed push left."""
        repo = self._place.repo
        self._try(
            lambda: self._api.create_branch(repo, branch=name, repo_type="dataset", exist_ok=True), "gets a branch"
        )

    def remove_branch(self, name: str) -> None:
        """Remove a branch; its commits stay where a tag names them."""
        self._try(lambda: self._api.delete_branch(self._place.repo, branch=name, repo_type="dataset"), "loses a branch")

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

    def record(self, revision: str) -> Record | None:
        """The record of a version. Raises ArtifactError where record.json is something else."""
        content = self.read("record.json", revision)
        try:
            return Record.model_validate_json(content) if content else None
        except ValidationError:
            raise ArtifactError(
                f"record.json in {self._place.url(revision)} is no record of this program. Push to another repository, "
                f"or to a path in it."
            ) from None

    def commit(
        self,
        home: Path,
        record: Record,
        branch: str,
        threads: int,
        on_progress: Callable[[int, int], None] | None,
    ) -> _Commit:
        """All files in one commit on top of `branch`; files of the version there go in it."""
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        place, adds = self._place, []
        for start in range(0, len(record.files), _BATCH):
            rows = record.files[start : start + _BATCH]
            for row in rows:
                checked_hash(home / row.path, row, str(home))
            batch = [CommitOperationAdd(place.inside(row.path), home / row.path) for row in rows]
            self._send_large(batch, branch, threads)
            adds.extend(batch)
            if on_progress:
                on_progress(len(adds), len(record.files))
        record_file = CommitOperationAdd(
            path_in_repo=place.inside("record.json"), path_or_fileobj=io.BytesIO((home / "record.json").read_bytes())
        )
        card = [] if place.path else self._card(home, record, branch)
        kept = {row.path_in_repo for row in (*adds, record_file, *card)}
        gone = [CommitOperationDelete(path_in_repo=path) for path in self._ours(branch) if path not in kept]
        operations = [*adds, record_file, *card, *gone]
        done = self._try(
            lambda: self._api.create_commit(
                place.repo,
                operations,
                commit_message=f"{record.kind} {record.name}@{record.version}",
                repo_type="dataset",
                revision=branch,
                num_threads=threads,
            ),
            "takes the commit",
        )
        return _Commit(commit=done.oid, num_bytes=sum(row.num_bytes for row in record.files))

    def _send_large(self, batch: Sequence[Any], branch: str, threads: int) -> None:
        self._try(
            lambda: self._api.preupload_lfs_files(
                self._place.repo, batch, repo_type="dataset", revision=branch, num_threads=threads, free_memory=False
            ),
            "takes files",
        )

    def _card(self, home: Path, record: Record, branch: str) -> list[Any]:
        """The README, but where a person wrote the one there, or changed it."""
        from huggingface_hub import CommitOperationAdd

        there = self.read("README.md", branch)
        if there is not None and not is_ours(there):
            return []
        text = dataset_card(home, record, self._place.repo)
        return [CommitOperationAdd(path_in_repo="README.md", path_or_fileobj=text.encode())]

    def _ours(self, branch: str) -> list[str]:
        """Files of the version there, as its own record lists them: what someone else put there stays."""
        there = self.record(branch)
        return [self._place.inside(row.path) for row in there.files] if there else []
