"""What an edit changes, as its user said it: plain values, which are the recipe of the version it makes."""

import csv
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from schemas.errors import UsageError, did_you_mean

FIELDS = ("task", "operator", "session", "station", "scene", "outcome", "licence")
_COLUMNS = ("episode_id", "exclude", "start_s", "end_s", *FIELDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trim:
    """Keep the rows with start_s <= time < end_s, in seconds since the recording began; None = as far as there are."""

    episodes: str  # an id or a filter
    start_s: float | None = None
    end_s: float | None = None

    def __post_init__(self) -> None:
        for time in (self.start_s, self.end_s):
            if time is not None and not math.isfinite(time):
                raise UsageError(f"the trim of {self.episodes}: {time} is no time in seconds, e.g. 1.5.")
        if self.start_s is None and self.end_s is None:
            raise UsageError(f"the trim of {self.episodes} names no time. Give start_s, end_s or both.")
        if (self.start_s or 0) < 0 or (self.end_s is not None and self.end_s <= (self.start_s or 0)):
            raise UsageError(f"the trim of {self.episodes} keeps nothing ({self.start_s} to {self.end_s} s).")

    @classmethod
    def parse(cls, text: str) -> "Trim":
        """Read `EPISODES:START:END`, either time may be empty, e.g. `task=Stack.:0.5:` or `episode_3-0a1b:1.5:9`."""
        parts = text.rsplit(":", 2)
        if len(parts) != 3:
            raise UsageError(f"'{text}' is no trim. Write EPISODES:START_S:END_S, e.g. episode_3-0a1b2c:1.5:9.")
        return cls(episodes=parts[0], start_s=_seconds(parts[1], text), end_s=_seconds(parts[2], text))


@dataclass(frozen=True, slots=True, kw_only=True)
class Relabel:
    """Set one word of metadata of some episodes, of all where `episodes` is None."""

    field: str
    value: str
    episodes: str | None = None

    def __post_init__(self) -> None:
        if self.field not in FIELDS:
            raise UsageError(f"'{self.field}' can not be set. {did_you_mean(self.field, FIELDS)}")
        if not self.value.strip():
            raise UsageError(f"{self.field} can not be empty. Write 'unknown' where it is not known.")

    @classmethod
    def parse(cls, text: str, episodes: str | None = None) -> "Relabel":
        """Read `FIELD=VALUE`."""
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"'{text}' sets nothing. Write FIELD=VALUE, e.g. outcome=failure.")
        return cls(field=name.strip(), value=value.strip(), episodes=episodes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Everything an edit changes; applied in the order of the fields."""

    keep: tuple[str, ...] = ()  # ids or filters; what none of them is about is left out
    exclude: tuple[str, ...] = ()  # ids or filters
    trims: tuple[Trim, ...] = ()
    relabels: tuple[Relabel, ...] = ()  # later ones overrule earlier ones
    rename: Mapping[str, str] = field(default_factory=dict)  # feature -> new name
    drop_cameras: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"rename": dict(self.rename)}

    def plus_table(self, path: Path) -> "Changes":
        """These changes and those of a CSV: `episode_id`, and any of exclude, start_s, end_s and the metadata fields.

        An empty cell changes nothing; `exclude` holds yes or no. Raises UsageError that names the line.
        """
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                reader = csv.DictReader(file)
                names, rows = list(reader.fieldnames or ()), list(reader)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise UsageError(f"{path.name} can not be read ({error}). Give a CSV file in UTF-8.") from None
        unknown = [name for name in names if name not in _COLUMNS]
        if "episode_id" not in names or unknown:
            what = f"has the column '{unknown[0]}'" if unknown else "has no column 'episode_id'"
            raise UsageError(f"{path.name} {what}. Columns: {', '.join(_COLUMNS)}.")
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise UsageError(f"{path.name} has the column '{twice}' twice. Keep one of them.")
        exclude, trims, relabels = list(self.exclude), list(self.trims), list(self.relabels)
        for number, row in enumerate(rows, 2):
            where = f"{path.name}, line {number}"
            if None in row or None in row.values():
                raise UsageError(f"{where}: not as many cells as columns. Quote cells with commas.")
            line = _line({key: value.strip() for key, value in row.items()}, where)
            exclude += line.exclude
            trims += line.trims
            relabels += line.relabels
        return replace(self, exclude=tuple(exclude), trims=tuple(trims), relabels=tuple(relabels))


def _line(row: dict[str, str], where: str) -> Changes:
    """What one line of a CSV changes."""
    name = row["episode_id"]
    if not name:
        raise UsageError(f"{where}: no episode_id. Name the episode, or remove the line.")
    exclude = row.get("exclude", "").lower()
    if exclude not in ("", "yes", "no"):
        raise UsageError(f"{where}: exclude is '{exclude}'. Write yes or no.")
    times = [_seconds(row.get(key, ""), where) for key in ("start_s", "end_s")]
    return Changes(
        exclude=(name,) if exclude == "yes" else (),
        trims=(Trim(episodes=name, start_s=times[0], end_s=times[1]),) if times != [None, None] else (),
        relabels=tuple(Relabel(field=key, value=row[key], episodes=name) for key in FIELDS if row.get(key)),
    )


def _seconds(text: str, where: str) -> float | None:
    if not text.strip():
        return None
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{where}: '{text}' is no time in seconds, e.g. 1.5.") from None
