"""`record.json`: what an artifact is, what it was made from, what was left out. Written last, so it means *done*."""

import hashlib
import json
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from schemas.refs import Kind

RECORD_SCHEMA = 1


def canonical_json(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """The one spelling of a JSON value that is hashed: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256_of(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """Hex sha256 of a JSON value's canonical spelling."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


class InputRef(BaseModel):
    """One thing an artifact was made from, pinned by content."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: str  # an artifact kind, or "raw" for files outside the workspace
    ref: str  # NAME@VERSION, or the name of the raw folder (never its path)
    fingerprint: str


class RejectedRow(BaseModel):
    """An episode (or item) that was left out, and why: an output, not a log line."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    episode: str
    reason: str


class FileRow(BaseModel):
    """One file of an artifact."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: str  # relative, with forward slashes
    num_bytes: int
    sha256: str


class Record(BaseModel):
    """Identity and provenance of one artifact.

    `fingerprint` covers logical content only: no paths, dates, muxer or library versions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    schema_version: int = RECORD_SCHEMA
    kind: Kind
    name: str
    version: str
    created: datetime
    inputs: tuple[InputRef, ...] = ()
    recipe: dict[str, JsonValue] = Field(default_factory=dict)  # every argument that changes the content
    counts: dict[str, int | float] = Field(default_factory=dict)
    rejected: tuple[RejectedRow, ...] = ()
    files: tuple[FileRow, ...] = ()
    fingerprint: str
    notes: dict[str, JsonValue] = Field(default_factory=dict)  # facts that do not change the content

    def identity(self) -> dict[str, Any]:
        """What must be equal for an existing artifact to count as "already there"."""
        return {"recipe": self.recipe, "inputs": [row.model_dump() for row in self.inputs]}
