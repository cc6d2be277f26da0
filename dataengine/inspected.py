"""What an inspection found in a folder of raw data: facts for people and for programs."""

from dataclasses import asdict, dataclass
from typing import Any

from schemas.rigs import SourceKind


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectedKey:
    """One array of the first readable episode (of the whole store for zarr)."""

    key: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectedCamera:
    """One camera as stored; sizes in pixels."""

    key: str
    height: int
    width: int
    encoding: str  # "jpeg", "raw", "raw float32" or a video codec


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What was found, for people and for programs. `rate_hz` is None where the format stores none."""

    kind: SourceKind
    folder: str  # where the dataset lies below the folder that was named, "." for the folder itself
    num_episodes: int
    num_rows: int
    rows: tuple[InspectedKey, ...]
    cameras: tuple[InspectedCamera, ...]
    rate_hz: float | None
    timing: str  # first episode's stamps in words, or that there are none
    tasks: tuple[str, ...]
    notes: tuple[str, ...]
    draft_rig_yaml: str

    @property
    def rate_text(self) -> str:
        """The rate in words."""
        return "not stored" if self.rate_hz is None else f"{self.rate_hz:g} Hz"

    def to_json(self) -> dict[str, Any]:
        """Plain lists and dicts."""
        return {**asdict(self), "rate_text": self.rate_text}
