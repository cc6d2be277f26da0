"""What reviewers of a task family are told: a Markdown file beside the family; its version goes into each decision."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from schemas.errors import FamilyError
from schemas.records import sha256_of

_HOME = Path(__file__).parent / "families"
_HEAD = re.compile(r"<!-- version (\d+) -->\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Guideline:
    """One family's guideline."""

    family: str  # its name, without a version
    number: int  # raised by whoever changes what reviewers should do
    text: str  # Markdown

    @property
    def version(self) -> str:
        """What a decision carries: the number for people, and a hash that tells a text that was changed without it."""
        return f"{self.family} guideline {self.number} ({sha256_of(self.text)[:12]})"


@cache
def guideline(family: str, *, home: Path = _HOME) -> Guideline | None:
    """The guideline of a family as proposals name it (`math-matching@1`); None where the family ships none.

    Raises FamilyError for a file that does not begin with its version.
    """
    name = family.partition("@")[0]
    path = home / name / "guideline.md"
    if not re.fullmatch(r"[a-z0-9-]+", name) or not path.is_file():  # a name from data must not leave the folder
        return None
    text = path.read_text(encoding="utf-8")
    head = _HEAD.match(text)
    if head is None:
        raise FamilyError(f"{name}/guideline.md must begin with its version. Write <!-- version 1 --> in line 1.")
    return Guideline(family=name, number=int(head[1]), text=text[head.end() :].strip())
