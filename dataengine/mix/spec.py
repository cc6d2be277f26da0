"""The mix file: YAML that a person writes, read into a MixSpec, or one sentence that says what is wrong with it."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from schemas.errors import MixError, did_you_mean
from schemas.mixes import MIX_SCHEMA, HfSource, ImageTextSource, LlavaSource, MixSpec, RenderedSource, RobotSource

_KINDS: dict[str, type[BaseModel]] = {
    "robot": RobotSource,
    "llava": LlavaSource,
    "hf": HfSource,
    "rendered": RenderedSource,
}


def load_spec(path: Path) -> MixSpec:
    """Read a mix file. Raises MixError that names the file and the field."""
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MixError(f"{path}: can not be read ({error.strerror}). Name a mix file (YAML).") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise MixError(f"{path}: is no YAML ({' '.join(str(error).split())}). Mend that line.") from None
    if not isinstance(value, dict):
        raise MixError(f"{path}: must hold 'sources:' and more, got {type(value).__name__}. See docs/mix-engineer.md.")
    version = value.get("schema_version", MIX_SCHEMA)
    if version != MIX_SCHEMA:
        raise MixError(
            f"{path}: schema_version is {version}; this program reads {MIX_SCHEMA}. Write it for {MIX_SCHEMA}."
        )
    try:
        return MixSpec.model_validate(value)
    except ValidationError as error:
        first: Any = error.errors()[0]
        raise MixError(f"{path}: {_sentence(first)}") from None


def _sentence(error: dict[str, Any]) -> str:
    """One pydantic error as a sentence that names the field as the person wrote it, and what to do."""
    location = tuple(error["loc"])
    tags = [part for part in location if part in _KINDS]
    field = ".".join(str(part) for part in location if part not in _KINDS) or "the mix"
    match error["type"]:
        case "extra_forbidden":
            model = _KINDS[tags[0]] if tags else MixSpec
            return f"{field}: unknown key. {did_you_mean(str(location[-1]), model.model_fields)}"
        case "union_tag_not_found":
            return f"{field}: has no kind. Write kind: robot, llava, hf or rendered."
        case "union_tag_invalid":
            got = str(error["ctx"]["tag"])
            return f"{field}: kind '{got}' does not exist. {did_you_mean(got, _KINDS)}"
        case "missing":
            return f"{field}: is missing. Add it."
        case "value_error":
            return f"{field}: {error['ctx']['error']}. Mend it and build again."
        case _:
            return f"{field}: {error['msg']}, got {error['input']!r}. Mend it and build again."


def without_paths(spec: MixSpec) -> MixSpec:
    """The spec with bare names in place of paths: what the lock keeps, because moving raw data changes nothing."""
    sources: list[RobotSource | ImageTextSource] = []
    for source in spec.sources:
        match source:
            case RobotSource() | RenderedSource():
                sources.append(source)
            case LlavaSource():
                images = Path(source.images).name if source.images else None
                sources.append(source.model_copy(update={"path": Path(source.path).name, "images": images}))
            case HfSource():
                sources.append(source.model_copy(update={"path": Path(source.path).name}))
    return spec.model_copy(update={"sources": tuple(sources)})
