"""A rig: the YAML in which one lab says what its keys, units, cameras, colour order and end effectors mean."""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

RIG_SCHEMA = 3
# What is read. 2 added alignment, depth, declared transforms and metadata keys, 3 kinematics; all of it optional.
RIG_SCHEMAS = (1, 2, 3)
_KINEMATIC_SCHEMA = 3
SourceKind = Literal[
    "aloha_hdf5",  # ACT, ALOHA, DexVLA, TinyVLA, ChatVLA
    "robomimic_hdf5",  # robomimic, robosuite, LIBERO
    "diffusion_zarr",
    "umi_zarr",
    "lerobot_v1",
    "lerobot_v21",  # v2.0 and v2.1, GR00T's modality.json among them
    "lerobot_v30",
    "rlds",
    "mcap",
    "ros1_bag",
    "ros2_bag",  # sqlite
    "demo_pickle",  # hand_dapg: lists of dicts of arrays, read without running them
]
_SHIFTING: tuple[SourceKind, ...] = ("diffusion_zarr", "umi_zarr", "rlds")  # sources that honour Feature.shift_rows
_ALIGNING: tuple[SourceKind, ...] = ("mcap", "ros1_bag", "ros2_bag")  # joints, align, max_age_s; the whole clock
_FILMING: tuple[SourceKind, ...] = (*_ALIGNING, "diffusion_zarr", "umi_zarr")  # max_age_s of cameras and of the clock
_MAX_RATE_HZ = 10_000  # joint control at 1 kHz, audio-rate touch below this; more is a rate in other units
Orientation = Literal["upright", "rotated_180", "flipped_vertical"]
_FROZEN = ConfigDict(frozen=True, extra="forbid")
# A name is a column, a folder and a word of a command: nothing in it may mean something to any of them.
_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
# Columns that LeRobot or our own tables and items already have, and what lies beside the cameras of a frame store.
_TAKEN = ("timestamp", "frame_index", "episode_index", "index", "task_index", "task", "episode_id", "subtask")
_TAKEN_STARTS = ("stamp_ns.", "observation.images.")
_TAKEN_FOLDERS = ("columns", "zarr.json", "contents.parquet", "record.json")


class Feature(BaseModel):
    """One low-dimensional column: where it lies in the raw data and what its numbers are.

    `scale` and `offset` are the declared transform: value * scale + offset in float64, stored as float32. Without them
    every number is kept bit for bit.
    """

    model_config = _FROZEN
    key: str  # key in the raw data, e.g. "observations/qpos", or "topic.field", e.g. "/joint_states.position"
    names: tuple[str, ...] = ()  # one per dimension; empty = numbered
    unit: str = "unknown"  # after the transform, e.g. "rad", "m", "mixed: rad, gripper 0 closed..1 open"
    columns: tuple[int, ...] | None = None  # take these dimensions of the raw column; None = all
    joints: tuple[str, ...] = ()  # of messages that name their values: take these, in this order; () = as they come
    scale: float | tuple[float, ...] | None = None
    offset: float | tuple[float, ...] | None = None
    optional: bool = False  # a dataset without it is fine; one that has it has it in every episode
    align: Literal["as_of", "linear"] = "as_of"  # "linear" looks at the next value too: only where that is no cheating
    max_age_s: Annotated[float, Field(gt=0)] | None = None  # None: the clock's
    # Row t takes the value recorded this many rows later: an action that is a future pose (UMI). The last rows, which
    # have no later value, are taken from every feature and camera of the episode; nothing is repeated or made up.
    shift_rows: Annotated[int, Field(ge=0)] = 0


class Camera(BaseModel):
    """One camera: where it lies in the raw data and how its pixels must be read.

    `channel_order` is the order of the last axis of an array, or of what a standard decoder asked for RGB makes of a
    JPEG row: "bgr" = red and blue come out swapped. A camera with `depth_unit_m` is a depth camera: one value per
    pixel, metres = value * depth_unit_m, 0 = nothing measured.
    """

    model_config = _FROZEN
    key: str
    channel_order: Literal["rgb", "bgr", "unknown"] = "unknown"
    jpeg_channel_order: Literal["rgb", "bgr"] | None = None  # for JPEG rows, where it differs from plain arrays
    optional: bool = False  # a dataset without it is fine; one that has it has it in every episode
    orientation: Orientation = "upright"
    depth_unit_m: Annotated[float, Field(gt=0)] | None = None  # 0.001 where depth is in millimetres
    max_age_s: Annotated[float, Field(gt=0)] | None = None  # None: the clock's


class Clock(BaseModel):
    """How streams of several rates become rows: each row takes from every stream the newest value not after it."""

    model_config = _FROZEN
    reference: str | None = None  # feature or camera whose stamps are the rows; None: an even grid at rate_hz
    stamp: Literal["header", "log", "publish"] = "header"  # of messages; log where there is no header stamp
    max_age_s: Annotated[float, Field(gt=0)] = 0.1  # a row for which a stream has only older values is no row


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


class Position(BaseModel):
    """Three columns that say where a tool is: x, y, z in metres, in the frame of the rig's kinematics."""

    model_config = _FROZEN
    feature: str = "observation.state"
    indices: tuple[int, int, int]


class Arm(BaseModel):
    """One kinematic chain inside the state vector (indices into `feature`).

    `joints` and `tool` are names in the rig's robot file: one joint (rad; m where it slides) for each of `indices`, and
    the site, body or link that the arm leads to. `position` is where the recording itself says the tool is.
    """

    model_config = _FROZEN
    name: str
    side: Literal["left", "right", "single"] = "single"
    feature: str = "observation.state"
    indices: tuple[int, ...] = Field(min_length=1)
    joints: tuple[str, ...] = ()
    tool: str | None = None
    position: Position | None = None

    @model_validator(mode="after")
    def _joints_lead_to_a_tool(self) -> "Arm":
        if self.joints and len(self.joints) != len(self.indices):
            raise ValueError(f"arm '{self.name}': {len(self.indices)} indices but {len(self.joints)} joints")
        if len(set(self.joints)) < len(self.joints):
            raise ValueError(f"arm '{self.name}' names a joint twice")
        if bool(self.joints) != bool(self.tool):
            raise ValueError(f"arm '{self.name}' has one of joints and tool; give both, or neither")
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """An arm that says nothing of its kinematics reads as it did before there was anything to say."""
        unsaid = {"joints": self.joints, "tool": self.tool, "position": self.position}
        return {key: value for key, value in handler(self).items() if unsaid.get(key, True)}


Direction = Literal["+x", "-x", "+y", "-y", "+z", "-z"]


class Kinematics(BaseModel):
    """In which frame tools move, which of its axes point where, and the robot file that joints are followed through.

    The axes are the robot's own: forward is where it works, left is its left hand's side. `sha256` and `chain` are what
    was read from `file` when the rig was loaded, so that a dataset needs no other file; a rig that holds them is read
    as it stands.
    """

    model_config = _FROZEN
    file: str | None = None  # MJCF or URDF, relative to the rig file; None: the recording states positions
    frame: str | None = None  # a body, link or site of the file; None: its world. Without a file, a word for people
    forward: Direction = "+x"
    left: Direction = "+y"
    up: Direction = "+z"
    sha256: str | None = None  # of the file
    chain: str | None = None  # MJCF of the bodies, joints and tools that the arms name, and nothing else

    @model_validator(mode="after")
    def _axes_are_right_handed(self) -> "Kinematics":
        """forward x left = up, as in every frame that is not mirrored."""
        said = f"forward {self.forward}, left {self.left}, up {self.up}"
        places = ["xyz".index(word[1]) for word in (self.forward, self.left, self.up)]
        if sorted(places) != [0, 1, 2]:
            raise ValueError(f"kinematics: {said} do not use each of x, y and z once")
        is_even = places in ([0, 1, 2], [1, 2, 0], [2, 0, 1])
        is_positive = sum(word[0] == "-" for word in (self.forward, self.left, self.up)) % 2 == 0
        if is_even != is_positive:
            raise ValueError(f"kinematics: {said} is a mirrored frame; turn one of them round")
        return self


class MetadataRule(BaseModel):
    """Where episode metadata comes from: fixed words, then the raw file, then a CSV beside the data.

    The CSV has a column `file` or `episode`. Later ones overrule earlier ones.
    """

    model_config = _FROZEN
    fixed: dict[str, str] = Field(default_factory=dict)
    keys: dict[str, str] = Field(default_factory=dict)  # our word ("operator") -> key or attribute in the raw file
    csv: str | None = None  # path relative to the raw folder


def wrong_name(name: str, *, is_camera: bool = False) -> str | None:
    """Why a feature or camera can not have this name, as a sentence without its stop; None where it can."""
    if not _NAME.fullmatch(name):
        return f"'{name}' is no name: write letters, digits, '_' and '-', in parts between single dots"
    taken = name in _TAKEN_FOLDERS if is_camera else name in _TAKEN or name.startswith(_TAKEN_STARTS)
    return f"the name '{name}' is reserved" if taken else None


def oldest_schema(rig: dict[str, Any]) -> int:
    """The version that a rig file's words need."""
    return _KINEMATIC_SCHEMA if rig.get("kinematics") is not None else _KINEMATIC_SCHEMA - 1


class Rig(BaseModel):
    """What one lab's data means. Every field is stated by a person or marked unknown; nothing is guessed."""

    model_config = _FROZEN
    schema_version: int = _KINEMATIC_SCHEMA - 1  # the oldest that says all of it: what a rig means does not age
    name: str
    source: SourceKind
    robot_type: str
    rate_hz: Annotated[int, Field(gt=0)]
    features: dict[str, Feature]  # our name ("observation.state", "action", ...) -> raw column
    cameras: dict[str, Camera] = Field(default_factory=dict)  # our short name ("cam_high") -> raw camera
    end_effectors: tuple[EndEffector, ...] = ()
    arms: tuple[Arm, ...] = ()
    kinematics: Kinematics | None = None
    task: str | None = None  # instruction text when the raw data holds none
    task_key: str | None = None  # raw key of the instruction, e.g. "language_raw"
    metadata: MetadataRule = MetadataRule()
    action_shift_steps: int = 0  # recorded, never applied: some trainers of this layout read action[t-1]
    clock: Clock = Clock()  # of sources whose streams have stamps of their own

    @model_validator(mode="after")
    def _names_are_usable(self) -> "Rig":
        for wrong in (*map(wrong_name, self.features), *(wrong_name(name, is_camera=True) for name in self.cameras)):
            if wrong is not None:
                raise ValueError(wrong)
        shifted = next((name for name, feature in self.features.items() if feature.shift_rows), None)
        if shifted is not None and self.source not in _SHIFTING:
            raise ValueError(f"'{shifted}' has shift_rows, which is read from {', '.join(_SHIFTING)} only")
        aligned = next(
            (name for name, row in self.features.items() if row.joints or row.align != "as_of" or row.max_age_s), None
        )
        if aligned is not None and self.source not in _ALIGNING:
            raise ValueError(f"'{aligned}' has joints, align or max_age_s, read from {', '.join(_ALIGNING)} only")
        self._check_clock()
        if self.clock.reference is not None and self.clock.reference not in (*self.features, *self.cameras):
            raise ValueError(
                f"the reference '{self.clock.reference}' of clock is neither feature nor camera of the rig"
            )
        parts: tuple[EndEffector | Arm, ...] = (*self.end_effectors, *self.arms)
        for end in parts:
            if end.feature not in self.features:
                raise ValueError(f"'{end.name}' reads feature '{end.feature}', which the rig does not declare")
        self._check_kinematics()
        return self

    def _check_kinematics(self) -> None:
        """Arms that name joints or positions need a file or a frame to be understood in."""
        for arm in self.arms:
            if arm.joints and (self.kinematics is None or self.kinematics.file is None):
                raise ValueError(f"arm '{arm.name}' names joints, but the rig names no kinematics.file to find them in")
            if arm.position is not None and self.kinematics is None:
                raise ValueError(
                    f"arm '{arm.name}' has a position, but the rig says in no kinematics which way is left"
                )

    @property
    def aligns(self) -> bool:
        """True where streams have clocks of their own, and each row takes the newest value of every one."""
        return self.source in _ALIGNING

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A rig without kinematics reads as it did before there was any: datasets made with it stay the same."""
        return {key: value for key, value in handler(self).items() if key != "kinematics" or value is not None}

    def _check_clock(self) -> None:
        """What a source does not honour must not be written: it would look as if it held."""
        if self.rate_hz > _MAX_RATE_HZ:
            raise ValueError(f"rate_hz is {self.rate_hz}; at most {_MAX_RATE_HZ} rows a second are read")
        if self.source not in _ALIGNING and (self.clock.reference is not None or self.clock.stamp != "header"):
            raise ValueError(f"clock has reference or stamp, read from {', '.join(_ALIGNING)} only")
        aged = next((name for name, camera in self.cameras.items() if camera.max_age_s), None)
        if self.clock.max_age_s != Clock().max_age_s:
            aged = aged or "clock"
        if aged is not None and self.source not in _FILMING:
            raise ValueError(f"'{aged}' has max_age_s, read from {', '.join(_FILMING)} only")
