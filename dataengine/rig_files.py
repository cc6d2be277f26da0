"""Rig files: the YAML that says what one lab's data means, shipped in `dataengine/rigs/` or written by the user."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from schemas.errors import RigError, did_you_mean
from schemas.rigs import RIG_SCHEMA, RIG_SCHEMAS, Rig, oldest_schema

RIG_FOLDER = Path(__file__).parent / "rigs"


def shipped_rigs() -> list[str]:
    """Names that `--rig` takes without a file."""
    return sorted(path.stem for path in RIG_FOLDER.glob("*.yaml"))


def load_rig(name_or_file: str) -> Rig:
    """A shipped rig by name, or any rig by its YAML file. Raises RigError in one sentence."""
    is_file = name_or_file.endswith((".yaml", ".yml")) or "/" in name_or_file
    path = Path(name_or_file).expanduser() if is_file else RIG_FOLDER / f"{name_or_file}.yaml"
    if path.is_file():
        return read_rig(path)
    if is_file:
        raise RigError(f"there is no rig file '{name_or_file}'. Write one from the draft of `dataengine inspect PATH`.")
    raise RigError(
        f"no rig '{name_or_file}'. {did_you_mean(name_or_file, shipped_rigs())} A file of your own ends in .yaml."
    )


def read_rig(path: Path) -> Rig:
    """Read one rig file. Raises RigError that names the file, the field and what was got."""
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" line {where.line + 1}" if where is not None else ""
        problem = getattr(error, "problem", None) or "not a text file"
        raise RigError(f"{path.name}{line} is not YAML: {problem}. Mend that line.") from None
    if not isinstance(value, dict):
        raise RigError(f"{path.name} holds no mapping. Start from the draft of `dataengine inspect PATH`.")
    version = value.get("schema_version", RIG_SCHEMA)
    if version not in RIG_SCHEMAS:
        known = ", ".join(map(str, RIG_SCHEMAS))
        raise RigError(f"{path.name} has schema_version {version}; this program reads {known}. Write it anew.")
    try:
        rig = Rig.model_validate({**value, "schema_version": oldest_schema(value)})
    except ValidationError as error:
        raise RigError(_sentence(path.name, error)) from None
    if rig.kinematics is None:
        return rig
    from dataengine.robot_models import with_chain  # MuJoCo is loaded only for rigs that need it

    return with_chain(rig, path.parent, RIG_FOLDER)


def _sentence(file: str, error: ValidationError) -> str:
    """The first fault of a rig file, and how many more there are."""
    faults = error.errors()
    first = faults[0]
    where = ".".join(str(part) for part in first["loc"]) or "rig"
    got = "" if first["type"] in ("missing", "extra_forbidden") else f", got {str(first['input'])[:60]!r}"
    match first["type"]:
        case "extra_forbidden":
            known = sorted(Rig.model_fields) if len(first["loc"]) == 1 else []
            what = "is no field of a rig. " + (did_you_mean(where, known) if known else "Remove it.")
        case "missing":
            what = "is missing. Add it."
        case "value_error":
            text = str(first["msg"]).removeprefix("Value error, ")
            return f"{file}: {text}.{_more(len(faults))}"
        case _:
            text = str(first["msg"])
            what = f"is wrong ({text[0].lower()}{text[1:]}{got}). Correct it."
    return f"{file}: {where} {what}{_more(len(faults))}"


def _more(num_faults: int) -> str:
    return "" if num_faults == 1 else f" ({num_faults - 1} more like it.)"


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML in which a key written twice is an error: otherwise the last one would win without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"'{key}' is written twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)
