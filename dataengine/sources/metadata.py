"""Episode metadata: the rig's fixed words, overruled by a CSV beside the data."""

import csv
from dataclasses import dataclass, field
from pathlib import Path

from schemas.episodes import EpisodeMeta
from schemas.errors import EpisodeError, RigError
from schemas.rigs import Rig

FIELDS = ("task", "operator", "session", "station", "scene", "outcome", "licence")
_KEYS = ("file", "episode")


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataTable:
    """Metadata words by episode: `rows` maps what the CSV calls an episode to its fields."""

    fixed: dict[str, str] = field(default_factory=dict)
    rows: dict[str, dict[str, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, rig: Rig, root: Path) -> "MetadataTable":
        """Read what the rig points at. Raises RigError for an absent, keyless or contradictory CSV."""
        unknown = set(rig.metadata.fixed) - set(FIELDS)
        if unknown:
            raise RigError(
                f"rig '{rig.name}': metadata.fixed has '{sorted(unknown)[0]}'. Use only: {', '.join(FIELDS)}."
            )
        fixed = {**({"task": rig.task} if rig.task else {}), **rig.metadata.fixed}
        if rig.metadata.csv is None:
            return cls(fixed=fixed)
        path = root / rig.metadata.csv
        if not path.is_file():
            raise RigError(
                f"rig '{rig.name}' takes episode metadata from {rig.metadata.csv}, which is not in {root.name}/. "
                f"Put it there or set metadata.csv to null in the rig."
            )
        return cls(fixed=fixed, rows=_read_rows(path))

    def meta(self, *, episode_id: str, raw_name: str, raw_task: str | None, aliases: tuple[str, ...]) -> EpisodeMeta:
        """The metadata of one episode, looked up under the first alias the CSV knows.

        The task is the CSV's (a person's correction), else the raw data's, else the rig's. Raises EpisodeError when
        there is none.
        """
        row = next((self.rows[name] for name in aliases if name in self.rows), {})
        words = {**self.fixed, **({"task": raw_task} if raw_task else {}), **row}
        if not words.get("task"):
            raise EpisodeError(f"{raw_name}: no instruction. Record one, write task: in the rig, or add it to a CSV.")
        return EpisodeMeta(episode_id=episode_id, raw_name=raw_name, **words)


def _read_rows(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        key = next((name for name in _KEYS if name in (reader.fieldnames or ())), None)
        if key is None:
            raise RigError(f"{path.name} has no column 'file' or 'episode'. Add one that names each episode's file.")
        rows: dict[str, dict[str, str]] = {}
        for row in reader:
            name = (row[key] or "").strip()
            words = {field: text for field in FIELDS if (text := (row.get(field) or "").strip())}
            if rows.setdefault(name, words) != words:
                raise RigError(f"{path.name} says two different things about '{name}'. Keep one row for it.")
    return rows
