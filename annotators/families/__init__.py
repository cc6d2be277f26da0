"""Task families: data, not code. A folder holds `family.yaml` (version, fields, verifiers) and prompt files.

A prompt is part of the product: its hash, with that of the schema the answer must fit, goes into provenance.
"""

from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from annotators.things import ThingsView
from annotators.verifiers import VerifierName
from annotators.vlm.answers import Question
from schemas.annotations import FieldName
from schemas.errors import FamilyError, did_you_mean
from schemas.records import sha256_of

ANY_CAMERA = "any"
_HOME = Path(__file__).parent


class FamilyFile(BaseModel):
    """`family.yaml` as written."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    version: int = Field(gt=0)
    about: str
    fields: tuple[FieldName, ...] = Field(min_length=1)
    verifiers: tuple[VerifierName, ...] = ()
    cameras: tuple[str, ...] = ()  # wanted, the first that a dataset has is used; any: the dataset's first
    prompts: dict[Question, str] = Field(default_factory=dict)  # question -> prompt file
    things: ThingsView | None = None  # looked for in the pictures; None: a board and cards are

    @model_validator(mode="after")
    def _scenes_have_things(self) -> "FamilyFile":
        is_open = "setting" in self.prompts  # a model lists what is there, whatever it is
        if "scene" in self.fields and not (self.things or is_open or "trace" in self.fields):
            raise ValueError(
                "the field 'scene' needs a trace of board and cards, things, or the prompt 'setting': say how to look"
            )
        if self.things is not None and not self.cameras:
            raise ValueError("things are looked for in pictures: name cameras")
        if is_open and (self.things is not None or "trace" in self.fields):
            raise ValueError("the prompt 'setting' is for scenes without things or a trace: take one of them out")
        if lone := sorted({"things_after", "ending"} & self.prompts.keys()) if not is_open else []:
            raise ValueError(f"the prompt '{lone[0]}' goes with the prompt 'setting'")
        of_pictures = self.prompts.keys() - {"wordings", "retelling"}
        if of_words := sorted(self.prompts.keys() - of_pictures):
            if not of_pictures or "scene" not in self.fields:
                raise ValueError(
                    f"the prompt '{of_words[0]}' goes with the field 'scene' and prompts about pictures: add them"
                )
            if "retelling" in of_words and "trace" not in self.fields:
                raise ValueError("the prompt 'retelling' goes with the field 'trace': add it")
        if self.prompts and (self.things is None) == ("things" in of_pictures):
            raise ValueError("the prompt 'things' and the field things go together, and with no other prompt")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One task family: what is asked about an episode, and which programs check the answers."""

    folder: Path
    file: FamilyFile
    prompts: dict[str, str]  # question -> words

    @property
    def label(self) -> str:
        """`math-matching@1`, as proposals carry it."""
        return f"{self.file.name}@{self.file.version}"

    @property
    def is_open(self) -> bool:
        """Whether a model lists what is in a scene of which nothing is known beforehand."""
        return "setting" in self.prompts

    @property
    def prompt_hash(self) -> str:
        """One hash over every prompt of the family."""
        return sha256_of(self.prompts)

    def camera(self, present: tuple[str, ...]) -> str | None:
        """The camera to look at; None where the family looks at none. Raises FamilyError when none of them is there."""
        if not self.file.cameras:
            return None
        for name in self.file.cameras:
            if name in present:
                return name
            if name == ANY_CAMERA and present:
                return present[0]
        raise FamilyError(
            f"family '{self.file.name}' looks at {' or '.join(self.file.cameras)}, the episodes have "
            f"{', '.join(present) or 'no camera'}. Use --family generic, or name the camera so in the rig."
        )


def families() -> list[str]:
    """Names of the families that ship."""
    return sorted(path.parent.name for path in _HOME.glob("*/family.yaml"))


def load_family(name: str, *, home: Path = _HOME) -> Family:
    """Load one family: a name that ships, or the path of a folder of your own (`./mine`).

    Raises FamilyError for an unknown name or wrong files.
    """
    is_path = "/" in name
    path = (Path(name).expanduser() if is_path else home / name) / "family.yaml"
    if is_path and not path.is_file():
        raise FamilyError(f"'{name}' holds no family.yaml. Name a folder that does, or a family that ships.")
    if not path.is_file():
        known = [found.parent.name for found in home.glob("*/family.yaml")]
        raise FamilyError(f"no task family '{name}'. {did_you_mean(name, known)}")
    try:
        file = FamilyFile.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        prompts: dict[str, str] = {
            question: (path.parent / words).read_text(encoding="utf-8") for question, words in file.prompts.items()
        }
    except (ValidationError, yaml.YAMLError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": ("yaml",), "msg": str(error)}
        where = ".".join(str(part) for part in first["loc"])
        raise FamilyError(f"family '{name}': {where}: {first['msg']}. Mend its family.yaml.") from None
    except FileNotFoundError as error:
        missing = Path(error.filename).name
        raise FamilyError(f"family '{name}': prompt file {missing} is missing. Add it beside family.yaml.") from None
    return Family(folder=path.parent, file=file, prompts=prompts)
