"""What an export made, and what it could not say."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from schemas.records import RejectedRow

Form = Literal["lerobot", "dexvla", "ecot", "chat"]
Field = Literal["trace", "segment"]  # of released rows


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """One export. `counts` are numbers by name; the lists say what is not in it, one by one."""

    form: Form
    where: str  # NAME@VERSION, or the folder
    already_there: bool
    fingerprint: str
    counts: dict[str, int]
    without_words: tuple[str, ...]  # episodes for which nothing was released
    left_out: tuple[RejectedRow, ...]  # released rows, columns and cameras that the form has no place for
    notes: tuple[str, ...] = ()  # what a reader of the export should know

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"left_out": [row.model_dump() for row in self.left_out]}
