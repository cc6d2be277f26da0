"""A small dataset hub over HTTP for tests: the endpoints that huggingface_hub calls to make a repository, send files
(git LFS), commit, tag, list and download; everything in memory. It speaks the published protocol and knows nothing of
our code.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

TOKEN = "hf_test"
LARGE = 2000  # bytes from which a file goes through LFS


@dataclass
class Repo:
    """A repository: commits as {path: content hash}."""

    commits: dict[str, dict[str, str]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def files(self, revision: str) -> dict[str, str] | None:
        oid = self.branches.get(revision) or self.tags.get(revision) or revision
        return self.commits.get(oid)

    def commit(self, files: dict[str, str], branch: str = "main") -> str:
        oid = hashlib.sha1(f"{len(self.commits)}{sorted(files.items())}".encode()).hexdigest()
        self.commits[oid] = files
        self.branches[branch] = oid
        return oid


@dataclass
class Hub:
    """What the server holds."""

    url: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    large: set[str] = field(default_factory=set)
    uploads: list[str] = field(default_factory=list)  # hashes of large files, as they came
    fail_uploads_after: int | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, name: str, files: dict[str, bytes]) -> None:
        """A commit by someone else, with their own program."""
        repo = self.repos.setdefault(name, Repo())
        hashes = {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}
        self.blobs.update((hashes[path], content) for path, content in files.items())
        repo.commit({**(repo.files("main") or {}), **hashes})

    def read(self, name: str, path: str) -> bytes:
        """A file of `main`."""
        return self.blobs[(self.repos[name].files("main") or {})[path]]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None: ...

    def _answer(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for key, text in (headers or {}).items():
            self.send_header(key, text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _none(self, code: str) -> None:
        self._answer({"error": code}, 404, {"X-Error-Code": code, "X-Error-Message": code})

    def _route(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        if self.command != "PUT" and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer({"error": "Invalid credentials"}, 401)
            return
        with self.hub.lock:
            self._dispatch(path, body)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _route

    def _dispatch(self, path: str, body: bytes) -> None:
        hub = self.hub
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            repo = hub.repos.setdefault(name, Repo())
            repo.commit({})
            self._answer({"url": f"{hub.url}/datasets/{name}", "name": name, "id": name})
        elif path == "/api/validate-yaml":
            header = yaml.safe_load(json.loads(body)["content"].split("---")[1])
            errors = [] if isinstance(header.get("tags"), list) else [{"message": "tags are a list"}]
            self._answer({"errors": errors, "warnings": []})
        elif match := re.fullmatch(r"/datasets/(\w+/[\w-]+)\.git/info/lfs/objects/batch", path):
            self._answer({"transfer": "basic", "objects": [self._lfs(row) for row in json.loads(body)["objects"]]})
        elif match := re.fullmatch(r"/lfs/(\w+)", path):
            if hub.fail_uploads_after is not None and len(hub.uploads) >= hub.fail_uploads_after:
                self._answer({"error": "no more"}, 403)
                return
            assert hashlib.sha256(body).hexdigest() == match[1]
            hub.blobs[match[1]] = body
            hub.large.add(match[1])
            hub.uploads.append(match[1])
            self._answer(b"")
        elif match := re.fullmatch(r"/(?:api/)?datasets/(\w+/[\w-]+)((?:/.*)?)", path):
            repo_or_none = hub.repos.get(match[1])
            if repo_or_none is None:
                self._none("RepoNotFound")
                return
            self._repository(match[1], repo_or_none, match[2].strip("/"), body)
        else:
            self._none("EntryNotFound")

    def _lfs(self, row: dict[str, Any]) -> dict[str, Any]:
        answer = {"oid": row["oid"], "size": row["size"]}
        if row["oid"] not in self.hub.blobs:
            answer["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/{row['oid']}"}}
        return answer

    def _repository(self, name: str, repo: Repo, rest: str, body: bytes) -> None:
        verb, _, tail = rest.partition("/")
        if verb in ("", "revision"):
            oid = repo.branches.get(tail or "main") or repo.tags.get(tail)
            if oid is None:
                self._none("RevisionNotFound")
            else:
                self._answer({"id": name, "sha": oid, "private": False, "siblings": [], "tags": [], "downloads": 0})
        elif verb == "refs":
            refs = {
                kind: [
                    {"name": key, "ref": f"refs/{kind}/{key}", "targetCommit": oid}
                    for key, oid in getattr(repo, kind).items()
                ]
                for kind in ("branches", "tags")
            }
            self._answer({**refs, "converts": []})
        elif verb == "tag" and self.command == "DELETE":
            del repo.tags[tail]
            self._answer({})
        elif verb == "tag":
            revision = tail or "main"
            repo.tags[json.loads(body)["tag"]] = repo.branches.get(revision) or repo.tags.get(revision) or revision
            self._answer({})
        elif verb == "branch" and self.command == "DELETE":
            del repo.branches[tail]
            self._answer({})
        elif verb == "branch" and tail in repo.branches:
            self._answer({"error": "Reference already exists"}, 409)
        elif verb == "branch":
            repo.branches[tail] = repo.branches["main"]
            self._answer({})
        elif verb == "preupload":
            rows = [
                {"path": row["path"], "uploadMode": "lfs" if row["size"] >= LARGE else "regular", "shouldIgnore": False}
                for row in json.loads(body)["files"]
            ]
            self._answer({"files": rows})
        elif verb == "commit":
            self._commit(name, repo, tail, [json.loads(line) for line in body.splitlines()])
        elif verb == "tree":
            revision, _, folder = tail.partition("/")
            self._tree(repo.files(revision), folder)
        elif verb == "paths-info":
            files = repo.files(tail) or {}
            asked = [text for text in parse_qs(body.decode()).get("paths", []) if text in files]
            self._answer([self._row(text, files[text]) for text in asked])
        elif verb == "resolve":
            revision, _, file = tail.partition("/")
            found = (repo.files(revision) or {}).get(file)
            if found is None:
                self._none("EntryNotFound")
                return
            content = self.hub.blobs[found]
            if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
                first, last = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
                part = content[first : last + 1]
                self._answer(part, 206, {"Content-Range": f"bytes {first}-{last}/{len(content)}"})
                return
            self._answer(content, 200, {"ETag": f'"{found}"', "X-Repo-Commit": "0" * 40})
        else:
            self._none("EntryNotFound")

    def _commit(self, name: str, repo: Repo, branch: str, lines: list[dict[str, Any]]) -> None:
        files = dict(repo.files(branch) or {})
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                content = base64.b64decode(value["content"])
                files[value["path"]] = hashlib.sha256(content).hexdigest()
                self.hub.blobs[files[value["path"]]] = content
            elif line["key"] == "lfsFile":
                assert value["oid"] in self.hub.blobs, "a large file was committed before it was sent"
                files[value["path"]] = value["oid"]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        oid = repo.commit(files, branch)
        self._answer({"commitUrl": f"{self.hub.url}/datasets/{name}/commit/{oid}", "commitOid": oid})

    def _row(self, path: str, oid: str) -> dict[str, Any]:
        size = len(self.hub.blobs[oid])
        lfs = {"lfs": {"oid": oid, "size": size, "pointerSize": 130}} if oid in self.hub.large else {}
        return {"type": "file", "path": path, "size": size, "oid": oid[:40], **lfs}

    def _tree(self, files: dict[str, str] | None, folder: str) -> None:
        if files is None:
            self._none("RevisionNotFound")
            return
        rows: dict[str, dict[str, Any]] = {}
        for path, oid in files.items():
            if folder and not path.startswith(f"{folder}/"):
                continue
            parts = path.split("/")
            depth = len(folder.split("/")) if folder else 0
            flat = "recursive=true" not in self.path.lower()
            for end in range(depth + 1, len(parts)):
                directory = "/".join(parts[:end])
                if not flat or end == depth + 1:
                    rows[directory] = {"type": "directory", "path": directory, "oid": "0" * 40, "size": 0}
            if not flat or len(parts) == depth + 1:
                rows[path] = self._row(path, oid)
        if folder and not rows:
            self._none("EntryNotFound")
            return
        self._answer(list(rows.values()))


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub on a free port of this machine."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
