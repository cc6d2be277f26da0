"""Episode metadata: the rig's fixed words, overruled by the raw file's own, overruled by a CSV beside the data.

Where a rig names a CSV, every row must name one episode, and an episode without a row is rejected: a mistyped name
would otherwise turn a known operator or outcome into "unknown" without a word.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType

from schemas.episodes import EpisodeMeta
from schemas.errors import EpisodeError, RigError, did_you_mean
from schemas.rigs import Rig

FIELDS = ("task", "operator", "session", "station", "scene", "outcome", "licence")
_KEYS = ("file", "episode")
_NEARNESS = 0.8  # `opertor`, `Operator`, `license`, `tasks`; not `notes`, `tags`, `action` or `station_id`
_NO_WORDS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataTable:
    """Metadata words by episode; `csv` is None where the rig names none."""

    fixed: dict[str, str] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)  # our word -> key in the raw file
    csv: str | None = None
    rows: dict[str, dict[str, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, rig: Rig, root: Path, aliases: Mapping[str, tuple[str, ...]]) -> "MetadataTable":
        """Read what the rig points at; `aliases` says what each episode may be called there, most exact first.

        Raises RigError for an absent, keyless or contradictory CSV, and for a row that names no episode, or several.
        """
        for part, words in (("fixed", rig.metadata.fixed), ("keys", rig.metadata.keys)):
            unknown = set(words) - set(FIELDS)
            if unknown:
                raise RigError(
                    f"rig '{rig.name}': metadata.{part} has '{sorted(unknown)[0]}'. Use only: {', '.join(FIELDS)}."
                )
        fixed = {**({"task": rig.task} if rig.task else {}), **rig.metadata.fixed}
        if rig.metadata.csv is None:
            return cls(fixed=fixed, keys=rig.metadata.keys)
        path = root / rig.metadata.csv
        if not path.is_file():
            raise RigError(
                f"rig '{rig.name}' takes episode metadata from {rig.metadata.csv}, which is not in {root.name}/. "
                f"Put it there or set metadata.csv to null in the rig."
            )
        return cls(
            fixed=fixed, keys=rig.metadata.keys, csv=path.name, rows=_by_episode(path.name, _read_rows(path), aliases)
        )

    def row(self, name: str) -> dict[str, str]:
        """What the CSV says about one episode."""
        return self.rows.get(name, {})

    def meta(
        self, *, episode_id: str, raw_name: str, raw_task: str | None, raw_words: Mapping[str, str] = _NO_WORDS
    ) -> EpisodeMeta:
        """The metadata of one episode; `raw_words` is what its raw file says for the words of the rig's metadata.keys.

        The task is the CSV's (a person's correction), else the raw data's, else the rig's. Raises EpisodeError when
        there is none, where there is a CSV that has no row for the episode, and where its raw file lacks a key.
        """
        lacking = next((word for word in self.keys if word not in raw_words), None)
        if lacking is not None:
            raise EpisodeError(
                f"{raw_name}: no '{self.keys[lacking]}', from which the rig takes the {lacking}. Add it to the raw "
                f"data or correct metadata.keys in the rig."
            )
        if self.csv is not None and raw_name not in self.rows:
            raise EpisodeError(f"{raw_name}: {self.csv} has no row for it. Add one, or drop the episode.")
        told = {word: text for word, text in raw_words.items() if word in self.keys and text}
        words = {**self.fixed, **({"task": raw_task} if raw_task else {}), **told, **self.row(raw_name)}
        if not words.get("task"):
            raise EpisodeError(f"{raw_name}: no instruction. Record one, write task: in the rig, or add it to a CSV.")
        return EpisodeMeta(episode_id=episode_id, raw_name=raw_name, **words)


def csv_files(rig: Rig, folder: Path) -> list[Path]:
    """The metadata CSV, if the rig names one. A fingerprint covers it: a corrected word is not "already there"."""
    return [folder / rig.metadata.csv] if rig.metadata.csv else []


def _by_episode(
    csv_name: str, rows: dict[str, dict[str, str]], aliases: Mapping[str, tuple[str, ...]]
) -> dict[str, dict[str, str]]:
    """Rows by the episode they name; an episode takes its most exact row."""
    owners: dict[str, str] = {}
    found: dict[str, dict[str, str]] = {}
    for name, words in aliases.items():
        alias = next((word for word in words if word in rows), None)
        if alias is None:
            continue
        if alias in owners:
            raise RigError(
                f"{csv_name}: the row '{alias}' fits {owners[alias]} and {name}. Name each by its path in the folder."
            )
        owners[alias] = name
        found[name] = rows[alias]
    stray = next((row for row in rows if row not in owners), None)
    if stray is None:
        return found
    twice = next((name for name, words in aliases.items() if stray in words), None)
    if twice is not None:
        raise RigError(f"{csv_name}: the row '{stray}' is about {twice}, which has a row already. Keep one of them.")
    raise RigError(
        f"{csv_name} has a row '{stray}', but no episode of that name is there. Correct or remove the row. "
        f"{_nearest(stray, aliases)}"
    )


def _nearest(stray: str, aliases: Mapping[str, tuple[str, ...]]) -> str:
    hint = did_you_mean(stray, [word for words in aliases.values() for word in words[:2]])
    return hint.split(" Known: ")[0] if hint.startswith("Did") else f"The first episode is {next(iter(aliases))}."


def _refuse_mistyped(csv_name: str, columns: Sequence[str]) -> None:
    """A column of notes is nobody's fault; one that is nearly a field's name would lose that field of every episode."""
    for column in columns:
        word = column.strip().lower()
        near = [each for each in FIELDS if abs(len(each) - len(word)) <= 1 and each not in columns]
        near = get_close_matches(word, near, n=1, cutoff=_NEARNESS)
        if column not in (*FIELDS, *_KEYS) and near:
            raise RigError(
                f"{csv_name} has a column '{column}'. Did you mean '{near[0]}'? Rename it; columns that are read: "
                f"{', '.join(FIELDS)}."
            )


def _read_rows(path: Path) -> dict[str, dict[str, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise RigError(f"{path.name} is not UTF-8 text. Save it as CSV in UTF-8.") from None
    with io.StringIO(text, newline="") as file:
        reader = csv.DictReader(file)
        key = next((name for name in _KEYS if name in (reader.fieldnames or ())), None)
        if key is None:
            raise RigError(f"{path.name} has no column 'file' or 'episode'. Add one that names each episode's file.")
        _refuse_mistyped(path.name, [name or "" for name in reader.fieldnames or ()])
        rows: dict[str, dict[str, str]] = {}
        for row in reader:
            name = (row[key] or "").strip()
            words = {field: text for field in FIELDS if (text := (row.get(field) or "").strip())}
            if rows.setdefault(name, words) != words:
                raise RigError(f"{path.name} says two different things about '{name}'. Keep one row for it.")
    return rows
