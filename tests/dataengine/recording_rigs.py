"""A rig for the recordings of raw_recordings.teleop_rows, and the shortest way from a file to what it holds."""

from pathlib import Path
from typing import Any

from raw_recordings import JOINTS

from dataengine.sources import open_source
from schemas.episodes import Episode
from schemas.rigs import Rig

STATE = {"key": "/joint_states.position", "joints": list(JOINTS), "names": list(JOINTS), "unit": "rad"}


def rig(**changes: Any) -> Rig:
    """A rig for `teleop_rows`."""
    fields: dict[str, Any] = {
        "name": "arm",
        "source": "mcap",
        "robot_type": "arm",
        "rate_hz": 30,
        "features": {"observation.state": STATE, "action": {"key": "/arm/command.data", "names": list(JOINTS)}},
        "cameras": {"front": {"key": "/cam/color/compressed"}},
        "task": "Pick up the cup.",
        "clock": {"reference": "action", "max_age_s": 0.1},
    }
    return Rig.model_validate({**fields, **changes})


def read(path: Path, given: Rig) -> Episode:
    source = open_source(path, given)
    return source.read(source.names()[0])


def arrays(episode: Episode, camera: str) -> list[Any]:
    """Every picture of a camera, whatever its stream yields."""
    stream = episode.cameras[camera]
    word = next(word for word in ("jpegs", "arrays", "depths") if hasattr(stream, word))
    return list(getattr(stream, word)())
