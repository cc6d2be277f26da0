"""What the tests of push and pull share: an artifact of many small files."""

import hashlib
from pathlib import Path

from dataengine.artifacts import Draft, begin
from dataengine.workspace import Workspace
from schemas.records import Record
from schemas.refs import Ref

REF = Ref("tiny", "1")
NUM_FILES = 12


def make(workspace: Workspace, *, seed: int = 0, ref: Ref = REF) -> Record:
    """An artifact of many small files, some alike in size."""
    draft = begin(workspace, "mixes", ref, recipe={"seed": seed})
    assert isinstance(draft, Draft)
    with draft:
        for index in range(NUM_FILES):
            path = draft.path / f"part-{index % 3}" / f"{index}.bin"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(hashlib.sha256(f"{seed} {index}".encode()).digest() * (100 if index % 2 else 1))
        return draft.publish(fingerprint=hashlib.sha256(str(seed).encode()).hexdigest(), counts={"episodes": 3})


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in (".push.json", "record.json")
    }


def row_of(file: Path, path: str) -> dict[str, object]:
    """How a record lists a file."""
    found = file.read_bytes()
    return {"path": path, "num_bytes": len(found), "sha256": hashlib.sha256(found).hexdigest()}
