"""`NAME@VERSION`, the way every artifact is named on the command line, in files and in records."""

import re
from dataclasses import dataclass
from typing import Literal, get_args

from schemas.errors import RefError

Kind = Literal["episodes", "frames", "annotations", "mixes", "checkpoints", "evaluations"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True, order=True)
class Ref:
    """The name and version of one artifact; its kind is known from where it is used."""

    name: str
    version: str

    def __post_init__(self) -> None:
        for part in (self.name, self.version):
            if not _PART.fullmatch(part):
                raise RefError(
                    f"'{self.name}@{self.version}' is no reference. "
                    "Use NAME@VERSION with letters, digits, '.', '_' or '-', e.g. kitchen@1."
                )

    @classmethod
    def parse(cls, text: str) -> "Ref":
        """Read `NAME@VERSION`. Raises RefError for anything else."""
        name, at, version = text.partition("@")
        if not at:
            raise RefError(f"'{text}' has no version. Write it as NAME@VERSION, e.g. {name or 'kitchen'}@1.")
        return cls(name, version)

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"
