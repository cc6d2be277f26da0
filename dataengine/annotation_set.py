"""A released annotation set: what is true about each stretch of each episode, who says so, and how it got there.

Rows are found by (episode_id, time), never by a frame index, so a set fits every conversion of the same raw episodes.
The table stays in Arrow memory; a row becomes a Python object only when somebody asks for it.
"""

import itertools
import json
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import JsonValue

from dataengine.workspace import Workspace
from schemas.annotations import RELEASE_SCHEMA, UNUSABLE, release_schema
from schemas.errors import ArtifactError
from schemas.records import Record
from schemas.refs import Ref

FILE = "annotations.parquet"
_READABLE = (RELEASE_SCHEMA - 1, RELEASE_SCHEMA)  # the current and the previous schema


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedRow:
    """One released statement over the half-open span [start_ns, end_ns) of one episode."""

    index: int  # row number in the set
    episode_id: str
    field: str  # "trace" | "segment" | "scene"
    start_ns: int
    end_ns: int
    text: str
    payload_json: str
    basis: str  # "human" | "batch" | "verified"
    family: str
    proposal_id: str
    backend: str
    model: str
    prompt_hash: str | None
    call_keys: tuple[str, ...]
    verifiers_json: str
    decision_id: str | None
    decision_action: str | None
    reviewer: str | None
    decided_at: str | None  # ISO 8601, UTC
    ledger_seq: int

    @property
    def verifiers(self) -> JsonValue:
        """What each program found, as released."""
        value: JsonValue = json.loads(self.verifiers_json)
        return value


class AnnotationSet:
    """Reads one `annotations/NAME@VERSION`. Picklable: it holds no file open."""

    def __init__(self, ref: Ref, record: Record, table: Any) -> None:  # noqa: ANN401 - pyarrow ships no types
        self.ref = ref
        self.record = record
        self.fingerprint = record.fingerprint
        self._table = table.combine_chunks()
        self._spans = _spans(ref, self._table)

    @classmethod
    def open(cls, workspace: Workspace, ref: Ref) -> "AnnotationSet":
        """Raises RefError when absent, ArtifactError when it can not be read or holds two statements for one time."""
        folder = workspace.find("annotations", ref)
        try:
            table = pq.read_table(folder / FILE)
        except (OSError, pa.ArrowInvalid) as error:
            raise ArtifactError(
                f"annotations '{ref}': {FILE} can not be read ({error}). Release it again under a new version."
            ) from None
        found = (table.schema.metadata or {}).get(b"schema_version", b"missing").decode()
        if found not in {str(version) for version in _READABLE if version > 0}:
            raise ArtifactError(
                f"annotations '{ref}' have schema version {found}; this program reads version {RELEASE_SCHEMA}. "
                "Release them again with this program."
            )
        missing = [name for name in release_schema().names if name not in table.schema.names]
        if missing:
            raise ArtifactError(f"annotations '{ref}' lack the columns {missing}. Release them again.")
        return cls(ref, workspace.record("annotations", ref), table)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def fields(self) -> dict[str, int]:
        """How many rows there are of each field."""
        return dict(sorted(Counter(self._table.column("field").to_pylist()).items()))

    def row(self, index: int) -> ReleasedRow:
        """The row with this number."""
        values = self._table.slice(index, 1).to_pylist()[0]
        known = {name: values[name] for name in release_schema().names}
        return ReleasedRow(index=index, **{**known, "call_keys": tuple(known["call_keys"])})

    def text(self, index: int) -> str:
        """Only the words of a row: what a training draw needs, without the rest."""
        return str(self._table.column("text")[index].as_py())

    def unusable(self) -> dict[str, str]:
        """Episodes that a reviewer called unusable, with why; nothing is released for them."""
        return {row.episode: row.reason for row in self.record.rejected if row.reason.startswith(UNUSABLE)}

    def rows(self, episode_id: str) -> tuple[ReleasedRow, ...]:
        """All rows of an episode: by field, then by time; empty when nothing was released for it."""
        spans = [span for field in ("segment", "trace", "scene") for span in self.spans(episode_id, field)]
        return tuple(self.row(index) for _, _, index in spans)

    def spans(self, episode_id: str, field: str) -> tuple[tuple[int, int, int], ...]:
        """(start_ns, end_ns, row number) of one field of an episode, by time, never overlapping."""
        return self._spans.get((episode_id, field), ())

    def trace_at(self, episode_id: str, stamp_ns: int) -> ReleasedRow | None:
        """The reasoning trace that covers a time, or None."""
        return self._at(episode_id, "trace", stamp_ns)

    def segment_at(self, episode_id: str, stamp_ns: int) -> ReleasedRow | None:
        """The segment that covers a time, or None."""
        return self._at(episode_id, "segment", stamp_ns)

    def _at(self, episode_id: str, field: str, stamp_ns: int) -> ReleasedRow | None:
        spans = self.spans(episode_id, field)
        place = bisect_right(spans, stamp_ns, key=lambda span: span[0]) - 1
        if place < 0 or stamp_ns >= spans[place][1]:
            return None
        return self.row(spans[place][2])


def _spans(ref: Ref, table: Any) -> dict[tuple[str, str], tuple[tuple[int, int, int], ...]]:  # noqa: ANN401 - pyarrow
    """Row numbers by (episode, field), in time order. Raises ArtifactError where two rows claim the same time."""
    columns = [table.column(name).to_pylist() for name in ("episode_id", "field", "start_ns", "end_ns")]
    found: dict[tuple[str, str], list[tuple[int, int, int]]] = {}
    for index, (episode_id, field, start_ns, end_ns) in enumerate(zip(*columns, strict=True)):
        found.setdefault((episode_id, field), []).append((start_ns, end_ns, index))
    for (episode_id, field), spans in found.items():
        spans.sort()
        for (_, end_ns, _), (start_ns, _, _) in itertools.pairwise(spans):
            if start_ns < end_ns:
                raise ArtifactError(
                    f"annotations '{ref}': two rows of '{field}' overlap in episode '{episode_id}' at {start_ns} ns. "
                    "Release them again."
                )
    return {key: tuple(spans) for key, spans in found.items()}
