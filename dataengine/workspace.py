"""The workspace: one directory that holds every artifact of a team, `kind/name@version/` each."""

import re
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from schemas.errors import ArtifactError, RefError, did_you_mean
from schemas.records import RECORD_SCHEMA, Record
from schemas.refs import KINDS, Kind, Ref


@dataclass(frozen=True, slots=True)
class Workspace:
    """A POSIX directory shared by all nodes of a cluster."""

    root: Path

    @classmethod
    def at(cls, root: Path | str) -> "Workspace":
        """The workspace in `root`, which need not exist yet."""
        return cls(Path(root).expanduser().resolve())

    def path(self, kind: Kind, ref: Ref) -> Path:
        """Where an artifact is, or would be."""
        return self.root / kind / str(ref)

    def find(self, kind: Kind, ref: Ref) -> Path:
        """Where an existing artifact is. Raises RefError that names the nearest one."""
        path = self.path(kind, ref)
        if not (path / "record.json").is_file():
            known = [str(known) for known in self.refs(kind)]
            raise RefError(f"no {kind} '{ref}' in the workspace. {did_you_mean(str(ref), known)}")
        return path

    def refs(self, kind: Kind) -> list[Ref]:
        """All published artifacts of one kind, by name and version."""
        folder = self.root / kind
        if not folder.is_dir():
            return []
        return sorted(Ref.parse(path.parent.name) for path in folder.glob("[!.]*@*/record.json"))

    def record(self, kind: Kind, ref: Ref) -> Record:
        """The record of an existing artifact."""
        return read_record(self.find(kind, ref))

    def all_records(self) -> list[Record]:
        """Every record in the workspace, kind by kind."""
        return [self.record(kind, ref) for kind in KINDS for ref in self.refs(kind)]

    @property
    def ledger_url(self) -> str:
        """SQLAlchemy URL of the ledger when none is given."""
        return f"sqlite:///{self.root / 'ledger.db'}"

    @property
    def calls_url(self) -> str:
        """SQLAlchemy URL of the call cache when none is given."""
        return f"sqlite:///{self.root / 'calls.db'}"


def read_record(path: Path) -> Record:
    """Read `record.json` of the artifact in `path`. Raises ArtifactError if it is damaged."""
    try:
        content = (path / "record.json").read_bytes()
        version = re.search(rb'"schema_version":\s*(\d+)', content)
        if version and int(version[1]) > RECORD_SCHEMA:
            raise ArtifactError(
                f"{path.name} has record schema {int(version[1])}, this program reads up to {RECORD_SCHEMA}. "
                "Update vla-dataengine."
            )
        return Record.model_validate_json(content)
    except FileNotFoundError:
        raise ArtifactError(
            f"{path} holds no record.json, so it is no artifact. Name one that `dataengine list` shows."
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ArtifactError(
            f"{path}/record.json is damaged ({where}: {first['msg']}). Restore it or build the artifact again."
        ) from None
