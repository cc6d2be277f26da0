"""A rig: the YAML in which one lab says what its keys, units, cameras, colour order and end effectors mean."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

RIG_SCHEMA = 1
SourceKind = Literal["aloha_hdf5", "lerobot_v21", "diffusion_zarr"]
_FROZEN = ConfigDict(frozen=True, extra="forbid")


class Feature(BaseModel):
    """One low-dimensional column: where it lies in the raw data and what its numbers are."""

    model_config = _FROZEN
    key: str  # key in the raw data, e.g. "observations/qpos"
    names: tuple[str, ...] = ()  # one per dimension; empty = numbered
    unit: str = "unknown"  # e.g. "rad", "m", "mixed: rad, gripper 0 closed..1 open"
    columns: tuple[int, ...] | None = None  # take these dimensions of the raw column; None = all
    optional: bool = False  # a dataset without it is fine; one that has it has it in every episode


class Camera(BaseModel):
    """One camera: where it lies in the raw data and how its pixels must be read.

    `channel_order` is the order of the last axis of an array, or of what a standard decoder asked for RGB makes of a
    JPEG row: "bgr" = red and blue come out swapped.
    """

    model_config = _FROZEN
    key: str
    channel_order: Literal["rgb", "bgr", "unknown"] = "unknown"
    jpeg_channel_order: Literal["rgb", "bgr"] | None = None  # for JPEG rows, where it differs from plain arrays
    optional: bool = False  # a dataset without it is fine; one that has it has it in every episode
    orientation: Literal["upright", "rotated_180"] = "upright"


class EndEffector(BaseModel):
    """One gripper or hand: which numbers of which feature say how open it is.

    Openness = mean over `indices` of (value - closed) / (open - closed), clipped to 0..1: 0 closed, 1 open.
    """

    model_config = _FROZEN
    name: str  # e.g. "left gripper"; used in sentences a reviewer reads
    side: Literal["left", "right", "single"] = "single"
    feature: str = "observation.state"
    indices: tuple[int, ...] = Field(min_length=1)
    closed: float | tuple[float, ...]
    open: float | tuple[float, ...]

    @model_validator(mode="after")
    def _ends_differ(self) -> "EndEffector":
        for end in (self.closed, self.open):
            if isinstance(end, tuple) and len(end) != len(self.indices):
                raise ValueError(f"end effector '{self.name}': {len(self.indices)} indices but {len(end)} values")
        if self.closed == self.open:
            raise ValueError(f"end effector '{self.name}': closed and open are equal ({self.open})")
        return self


class Arm(BaseModel):
    """One kinematic chain inside the state vector (indices into `feature`)."""

    model_config = _FROZEN
    name: str
    side: Literal["left", "right", "single"] = "single"
    feature: str = "observation.state"
    indices: tuple[int, ...] = Field(min_length=1)


class MetadataRule(BaseModel):
    """Where episode metadata comes from: fixed words, then a CSV beside the data (column `file` or `episode`)."""

    model_config = _FROZEN
    fixed: dict[str, str] = Field(default_factory=dict)
    csv: str | None = None  # path relative to the raw folder


class Rig(BaseModel):
    """What one lab's data means. Every field is stated by a person or marked unknown; nothing is guessed."""

    model_config = _FROZEN
    schema_version: int = RIG_SCHEMA
    name: str
    source: SourceKind
    robot_type: str
    rate_hz: Annotated[int, Field(gt=0)]
    features: dict[str, Feature]  # our name ("observation.state", "action", ...) -> raw column
    cameras: dict[str, Camera] = Field(default_factory=dict)  # our short name ("cam_high") -> raw camera
    end_effectors: tuple[EndEffector, ...] = ()
    arms: tuple[Arm, ...] = ()
    task: str | None = None  # instruction text when the raw data holds none
    task_key: str | None = None  # raw key of the instruction, e.g. "language_raw"
    metadata: MetadataRule = MetadataRule()
    action_shift_steps: int = 0  # recorded, never applied: some trainers of this layout read action[t-1]

    @model_validator(mode="after")
    def _names_are_usable(self) -> "Rig":
        for name in (*self.features, *self.cameras):
            if "/" in name:
                raise ValueError(f"'{name}': feature and camera names may not hold '/'")
        parts: tuple[EndEffector | Arm, ...] = (*self.end_effectors, *self.arms)
        for end in parts:
            if end.feature not in self.features:
                raise ValueError(f"'{end.name}' reads feature '{end.feature}', which the rig does not declare")
        return self
