"""Which episodes a rule of an edit is about: an episode id, or a comparison of one field of its metadata."""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dataengine.sinks.parts import Part
from schemas.errors import UsageError, did_you_mean

TEXTS = ("task", "operator", "session", "station", "scene", "outcome", "licence", "raw_name", "episode_id")
NUMBERS = ("num_frames", "duration_s")
_RULE = re.compile(r"\s*([a-z_]+)\s*(!=|<=|>=|=|<|>)\s*(.*?)\s*")
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """One word of a user: `episode_3-0a1b...`, `operator=ada`, `outcome!=success` or `num_frames<50`."""

    word: str

    def chosen(self, parts: Mapping[str, Part], rate_hz: int) -> tuple[str, ...]:
        """Ids of the episodes it is about, in order. Raises UsageError that says what exists, where there is none."""
        if self.word in parts:
            return (self.word,)
        rule = _RULE.fullmatch(self.word)
        if rule is None:
            raise UsageError(
                f"'{self.word}' is no episode and no filter. {did_you_mean(self.word, parts)[:300]} "
                "Write an episode id, or FIELD=VALUE, FIELD!=VALUE, num_frames<50."
            )
        field, sign, value = rule.groups()
        if field not in (*TEXTS, *NUMBERS):
            raise UsageError(f"'{self.word}': no field '{field}'. {did_you_mean(field, (*TEXTS, *NUMBERS))}")
        values = {name: self._value(part, field, rate_hz) for name, part in parts.items()}
        found = tuple(name for name, got in values.items() if self._holds(got, sign, value))
        if not found:
            exist = ", ".join(repr(got) for got in sorted(set(values.values()), key=str)[:20])
            raise UsageError(f"'{self.word}' is true of no episode. Values of {field}: {exist}.")
        return found

    @staticmethod
    def _value(part: Part, field: str, rate_hz: int) -> str | float:
        match field:
            case "num_frames":
                return part.staged.num_frames
            case "duration_s":
                return part.staged.num_frames / rate_hz
            case _:
                return part.staged.meta[field]

    def _holds(self, got: str | float, sign: str, value: str) -> bool:
        if isinstance(got, str):
            if sign not in ("=", "!="):
                raise UsageError(f"'{self.word}': '{sign}' compares numbers ({', '.join(NUMBERS)}). Use = or !=.")
            return (got == value) == (sign == "=")
        try:
            return _COMPARE[sign](float(got), float(value))
        except ValueError:
            raise UsageError(f"'{self.word}': '{value}' is no number.") from None


def chosen_by(words: Sequence[str], parts: Mapping[str, Part], rate_hz: int) -> dict[str, str]:
    """Episode id -> the first word that is about it.

    Args:
        parts: by episode id: a word that is one costs one look, as a CSV names every episode by its own.
    """
    found: dict[str, str] = {}
    for word in words:
        for name in Selector(word=word).chosen(parts, rate_hz):
            found.setdefault(name, word)
    return found
