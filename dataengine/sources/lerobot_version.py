"""Which version of LeRobot's format a folder holds, told by where its metadata lies and what codebase_version says."""

import json
from pathlib import Path

from schemas.errors import SourceError
from schemas.rigs import SourceKind

_V1_FILES = ("info.json", "stats.safetensors", "episode_data_index.safetensors")


def lerobot_kind(folder: Path) -> SourceKind | None:
    """The LeRobot version whose dataset this very folder is; None for another folder."""
    if (folder / "meta/info.json").is_file():
        return "lerobot_v30" if _version(folder).startswith("v3") else "lerobot_v21"
    if any((folder / "meta_data" / name).is_file() for name in _V1_FILES):
        return "lerobot_v1"
    return None


def check_lerobot(root: Path) -> None:
    """Refuse a codebase_version that no reader here knows."""
    version = _version(root)
    if not version:
        raise SourceError(f"{root.name}/meta/info.json is not a JSON object with a codebase_version. Copy it again.")
    if not version.startswith(("v2.", "v3.")):
        raise SourceError(
            f"'{root}' is LeRobot {version} in meta/info.json; read are v2.0, v2.1 and v3.0 there, and v1.x with its "
            f"metadata in meta_data/. Upgrade it with LeRobot first."
        )


def _version(folder: Path) -> str:
    """codebase_version; empty where it is not said."""
    try:
        found = json.loads((folder / "meta/info.json").read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, OSError):
        return ""
    return str(found.get("codebase_version", "")) if isinstance(found, dict) else ""
