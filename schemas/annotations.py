"""What a model, a program or a person says about an episode.

A *proposal* is never edited. A *verifier result* is pass, fail or unknown, and unknown is not pass. An *item* is one
thing a reviewer decides about, keyed by (episode_id, stamp_ns, field). A *decision* is append-only. A *released row*
carries everything lineage needs, so that nobody has to open the ledger again.
"""

from typing import Annotated, Any, Literal, Self

import pyarrow as pa
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from schemas.records import sha256_of
from schemas.scenes import Box, PlacementTrace, SceneNotes

# trace: ReasoningTrace or PlacementTrace, as the family has it; segments: SegmentList; scene: SceneNotes
FieldName = Literal["trace", "segments", "scene"]
Verdict = Literal["pass", "fail", "unknown"]
Position = Literal["left", "middle", "right", "unknown"]
Action = Literal["accept", "edit", "reject", "skip", "undo"]
ReleasePolicy = Literal["human", "verified", "either"]
Basis = Literal["human", "batch", "verified"]  # batch: a lead accepted many at once
RELEASE_SCHEMA = 2  # 2: rows of the field "scene", and traces of placements
UNUSABLE = "episode unusable"  # why a reject keeps everything about its episode out of releases and mixes
_FROZEN = ConfigDict(frozen=True, extra="forbid")


class Card(BaseModel):
    """One number card as read: its text, its place in the robot's view, its box in the named camera's pixels."""

    model_config = _FROZEN
    text: str
    position: Position
    box_xyxy: tuple[int, int, int, int] | None = None


class BoxedIn(BaseModel):
    """The picture that a person gave boxes in; frames are counted from the recording's first."""

    model_config = _FROZEN
    camera: Annotated[str, Field(max_length=200)]
    frame: Annotated[int, Field(ge=0)]


class ReasoningTrace(BaseModel):
    """Structured reasoning of the math-matching family; the text is rendered from it and can not disagree.

    `None` means "not read", which is an answer; an empty string is not.
    """

    model_config = _FROZEN
    kind: Literal["math-matching"] = "math-matching"
    board: str | None  # what is written, canonical: "4+1"
    solution: str | None  # the worked line: "4+1=5"
    cards: tuple[Card, ...] = ()
    pick_text: str | None = None  # the number on the card to pick
    pick_position: Position = "unknown"
    board_box_xyxy: Box | None = None
    boxed_in: BoxedIn | None = None  # set: a person saw to the boxes, and none means there is none; else nobody did

    @model_serializer(mode="wrap")
    def _without_unsaid_boxes(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A trace whose boxes nobody saw to is written as before there were any, so that proposals keep their ids."""
        body: dict[str, Any] = whole(self)
        if self.boxed_in is None and self.board_box_xyxy is None:
            body.pop("boxed_in", None)
            body.pop("board_box_xyxy", None)
        return body

    def render(self) -> str:
        """The trace as the model learns to say it (ChatVLA-2's form)."""
        parts = [f"The board reads {self.board}." if self.board else "The board can not be read."]
        if self.solution:
            parts.append(f"{self.solution}.")
        if self.cards:
            parts.append("Cards: " + ", ".join(f"{card.text} ({card.position})" for card in self.cards) + ".")
        if self.pick_text:
            where = f" from the {self.pick_position}" if self.pick_position != "unknown" else ""
            parts.append(f"I pick {self.pick_text}{where}.")
        return " ".join(parts)


class Segment(BaseModel):
    """What the robot does over a half-open stretch of episode time."""

    model_config = _FROZEN
    start_ns: Annotated[int, Field(ge=0)]
    end_ns: int
    label: str  # "reach", "grasp", "carry", "release", "retreat", "move", "hold", "unknown"; then an object, if named
    end_effector: str  # the rig's name for it, or "unknown"
    moves: tuple[str, ...] = ()  # move primitives, e.g. "left shoulder pitch up", "unknown"

    @property
    def phase(self) -> str:
        """The first word of the label: what the hand does, as its numbers say."""
        return self.label.partition(" ")[0]

    @property
    def about(self) -> str:
        """The rest of the label: what it does it with; empty where nobody said."""
        return self.label.partition(" ")[2]

    def render(self) -> str:
        """The segment as a short sentence, e.g. `The right gripper grasps.`"""
        return f"{self.end_effector}: {self.label}"


class GripperEvent(BaseModel):
    """An end effector that closed or opened."""

    model_config = _FROZEN
    stamp_ns: int
    end_effector: str
    event: Literal["close", "open"]


class SegmentList(BaseModel):
    """All segments of one episode, in order, without gaps, and the gripper events they were cut at."""

    model_config = _FROZEN
    kind: Literal["segments"] = "segments"
    segments: tuple[Segment, ...]
    events: tuple[GripperEvent, ...] = ()


type AnyPayload = ReasoningTrace | SegmentList | PlacementTrace | SceneNotes
Payload = Annotated[ReasoningTrace | SegmentList | PlacementTrace | SceneNotes, Field(discriminator="kind")]


class Provenance(BaseModel):
    """Who said it: enough to ask again, and to find every other thing the same one said."""

    model_config = _FROZEN
    backend: Literal["perception", "endpoint", "replay", "kinematics", "imported", "local"]
    model: str  # model id + revision, or program + version
    prompt_hash: str | None = None
    schema_hash: str | None = None
    call_keys: tuple[str, ...] = ()
    inputs_hash: str | None = None  # of what it was computed from beside the raw data: rig, camera, pictures


NOBODY = Provenance(backend="imported", model="nothing proposed")  # of an item that people write from nothing


class Proposal(BaseModel):
    """What a model or program says about one item. Its id is the hash of what it says and who says it."""

    model_config = _FROZEN
    episode_id: str
    stamp_ns: int  # source time the item is keyed by; 0 for a whole-episode field
    field: FieldName
    family: str  # "math-matching@1", "toy-placement@1", "generic@1"
    payload: Payload
    provenance: Provenance
    images: dict[str, JsonValue] = Field(
        default_factory=dict
    )  # crops to show: {"board": {"camera","frame","box_xyxy"}, ...}; frames counted from the recording's first

    @property
    def proposal_id(self) -> str:
        """Content hash: the same words from the same speaker are the same proposal."""
        body = self.model_dump(mode="json")
        if self.provenance.inputs_hash is None:  # a proposal from before this field keeps its id
            del body["provenance"]["inputs_hash"]
        return sha256_of(body)

    @property
    def text(self) -> str:
        """The rendered words."""
        return render_payload(self.payload)


def render_payload(payload: AnyPayload) -> str:
    """The text a payload stands for."""
    match payload:
        case ReasoningTrace() | PlacementTrace() | SceneNotes():
            return payload.render()
        case SegmentList():
            return " ".join(f"{segment.render()}." for segment in payload.segments)


class Mark(BaseModel):
    """Where a verifier's evidence is seen: a moment or a stretch of the episode, a picture that the proposal names."""

    model_config = _FROZEN
    title: str  # what is seen there
    start_ns: int | None = None  # source time
    end_ns: int | None = None  # half-open; None for a moment
    image: str | None = None  # a name among the proposal's images
    number: str | None = None  # what was read or measured there, with its unit

    @model_validator(mode="after")
    def _is_somewhere(self) -> Self:
        if self.start_ns is None and self.image is None:
            raise ValueError("a mark names neither a time nor a picture; give it one of them")
        if self.end_ns is not None and (self.start_ns is None or self.end_ns <= self.start_ns):
            raise ValueError(f"a mark ends at {self.end_ns} ns and starts at {self.start_ns} ns; end it later")
        return self


class VerifierResult(BaseModel):
    """What one program found about one proposal, with evidence a person can follow."""

    model_config = _FROZEN
    verifier: str
    version: int
    verdict: Verdict
    hard: bool = True  # hard verifiers gate the release policy `verified`
    evidence: str
    marks: tuple[Mark, ...] = ()  # where in the episode and its pictures the evidence is

    @model_serializer(mode="wrap")
    def _without_empty_marks(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A result without marks is written as it was before there were any, so that hashes over it stay."""
        body: dict[str, Any] = whole(self)
        if not self.marks:
            body.pop("marks", None)
        return body


def release_schema() -> pa.Schema:
    """Columns of a released annotation set: one row per (episode, field, span)."""
    return pa.schema(
        [
            pa.field("episode_id", pa.string(), nullable=False),
            pa.field("field", pa.string(), nullable=False),  # "trace" | "segment" | "scene"
            pa.field("start_ns", pa.int64(), nullable=False),
            pa.field("end_ns", pa.int64(), nullable=False),  # half-open; episode end for a whole-episode field
            pa.field("text", pa.string(), nullable=False),
            pa.field("payload_json", pa.string(), nullable=False),
            pa.field("basis", pa.string(), nullable=False),  # "human" | "batch" | "verified"
            pa.field("family", pa.string(), nullable=False),
            pa.field("proposal_id", pa.string(), nullable=False),
            pa.field("backend", pa.string(), nullable=False),
            pa.field("model", pa.string(), nullable=False),
            pa.field("prompt_hash", pa.string()),
            pa.field("call_keys", pa.list_(pa.string()), nullable=False),
            pa.field("verifiers_json", pa.string(), nullable=False),
            pa.field("decision_id", pa.string()),
            pa.field("decision_action", pa.string()),
            pa.field("reviewer", pa.string()),
            pa.field("decided_at", pa.string()),  # ISO 8601, UTC
            pa.field("ledger_seq", pa.int64(), nullable=False),
        ],
        metadata={b"schema_version": str(RELEASE_SCHEMA).encode()},
    )


def payload_from_json(value: dict[str, Any]) -> AnyPayload:
    """Read a payload back; raises pydantic.ValidationError when it does not fit."""
    match value.get("kind"):
        case "segments":
            return SegmentList.model_validate(value)
        case "toy-placement":
            return PlacementTrace.model_validate(value)
        case "scene":
            return SceneNotes.model_validate(value)
        case _:
            return ReasoningTrace.model_validate(value)
