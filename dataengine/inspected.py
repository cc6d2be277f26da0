"""What an inspection found in a folder of raw data: facts for people and for programs."""

from dataclasses import asdict, dataclass, replace
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
class InspectedTopic:
    """One topic of the first readable recording, by the stamps with which its messages were written."""

    name: str
    type_name: str
    encoding: str  # how its messages are serialised: "cdr", "ros1", "protobuf", "json"
    num_messages: int
    rate_hz: float  # steps per second over the whole recording
    jitter_s: float  # 95 % of the steps differ from the median step by less
    num_gaps: int  # steps of more than three median ones
    longest_gap_s: float  # the longest step


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectedPicture:
    """One picture of one camera, as it would look if the rig said `channel_order`."""

    camera: str  # its name in the draft rig
    words: str  # size, encoding, what is assumed
    png: bytes  # empty where there is none
    channel_order: str | None = None  # "rgb" | "bgr" where the data does not tell and a person must


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
    topics: tuple[InspectedTopic, ...] = ()  # of recordings of messages
    pictures: tuple[InspectedPicture, ...] = ()  # filled by dataengine.inspection_pictures, where asked for

    @property
    def rate_text(self) -> str:
        """The rate in words."""
        return "not stored" if self.rate_hz is None else f"{self.rate_hz:g} Hz"

    def to_json(self) -> dict[str, Any]:
        """Plain lists and dicts."""
        found = asdict(replace(self, pictures=()))
        del found["pictures"]
        return {**found, "rate_text": self.rate_text}
