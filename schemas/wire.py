"""The words robot and server say to each other: openpi's websocket conversation, with names, limits and codes.

A conversation: the server's first frame is `ServerMetadata`; then the robot sends an observation (or a reset) and
gets a chunk, one answer per message, in order. Binary frames are msgpack maps (packed in `apps.server.codec`); a text
frame from the server is an error, as openpi's clients expect, and holds `ErrorReply` as JSON.

How a message's keys become an observation, and no other keys are taken:

| key | becomes |
| --- | --- |
| `images` = `{camera: array}`, or `observation/<camera>` = array | `Observation.images[camera]`: uint8 (H, W, 3) RGB |
| `state` or `observation/state` = float (S,) | `Observation.state`, raw units |
| `prompt` = text | `Observation.prompt` |
| `type` = `infer` (when absent) or `reset` | a reset forgets the trial before and carries nothing else |
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.chat import chat_marker
from schemas.control import Chunk, Observation
from schemas.errors import WireError

PROTOCOL_VERSION = 1
MAX_PROMPT_CHARACTERS = 4_000
MAX_REASONING_CHARACTERS = 20_000
MAX_IMAGE_SIDE = 4_096
MAX_CHUNK_STEPS = 1_000
_STATE_KEYS = ("state", "observation/state")
_CAMERA_PREFIX = "observation/"

ErrorCode = Literal["bad_message", "rejected_chunk", "trial_aborted", "policy_error"]


class ServerMetadata(BaseModel):
    """The first frame: what this policy wants to see and what it will answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    protocol_version: int = PROTOCOL_VERSION
    policy: str
    cameras: tuple[str, ...]
    image_layout: Literal["HWC"] = "HWC"
    state_dim: Annotated[int, Field(gt=0)]
    action_dim: Annotated[int, Field(gt=0)]
    chunk_steps: Annotated[int, Field(gt=0, le=MAX_CHUNK_STEPS)]
    rate_hz: Annotated[int, Field(gt=0)]

    @classmethod
    def from_wire(cls, value: object) -> "ServerMetadata":
        """Check a server's first frame. Raises WireError for another protocol."""
        try:
            metadata = cls.model_validate(value)
        except ValidationError as error:
            first = error.errors()[0]
            raise WireError(
                f"the server's first frame is not ours ({'.'.join(map(str, first['loc']))}: {first['msg']}). "
                "Connect to a server started by `dataengine serve`."
            ) from None
        if metadata.protocol_version != PROTOCOL_VERSION:
            raise WireError(
                f"the server speaks protocol {metadata.protocol_version}, this client {PROTOCOL_VERSION}. "
                "Use the same release on both sides."
            )
        return metadata


class ErrorReply(BaseModel):
    """What a robot is told when it gets no chunk. Tracebacks stay in the server's log."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    code: ErrorCode
    message: str
    reasoning: str = ""  # what the policy said before its chunk was refused
    infer_ms: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class InferRequest:
    """The robot asks what to do next."""

    observation: Observation


@dataclass(frozen=True, slots=True, kw_only=True)
class ResetRequest:
    """The robot starts a new trial."""


Request = InferRequest | ResetRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTiming:
    """Where a chunk's time went, in milliseconds: waiting for the policy, and in the policy."""

    queue_ms: float
    infer_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkReply:
    """A chunk that passed the gate."""

    chunk: Chunk
    timing: ServerTiming


def request_from_wire(message: object, metadata: ServerMetadata) -> Request:
    """Check one decoded message against what the server announced. Raises WireError with one sentence."""
    fields = _text_keyed(message)
    kind = fields.get("type", "infer")
    if kind == "reset":
        _refuse_others(fields, {"type"})
        return ResetRequest()
    if kind != "infer":
        raise WireError(f"type is {kind!r:.40}. Send 'infer' or 'reset'.")
    images = _images(fields, metadata.cameras)
    _refuse_others(fields, {"type", "images", "prompt", *_STATE_KEYS, *(_CAMERA_PREFIX + name for name in images)})
    prompt = fields.get("prompt")
    if not isinstance(prompt, str):
        raise WireError(f"prompt must be text, got {type(prompt).__name__}. Send the task in words.")
    if len(prompt) > MAX_PROMPT_CHARACTERS:
        raise WireError(f"prompt has {len(prompt)} characters, at most {MAX_PROMPT_CHARACTERS} are taken. Shorten it.")
    if marker := chat_marker(prompt):
        raise WireError(f"prompt holds the chat marker {marker}. Send the task in plain words.")
    return InferRequest(observation=Observation(images=images, state=_state(fields, metadata.state_dim), prompt=prompt))


def request_to_wire(request: Request) -> dict[str, object]:
    """The map that `request_from_wire` reads back."""
    match request:
        case ResetRequest():
            return {"type": "reset"}
        case InferRequest(observation=seen):
            return {"images": dict(seen.images), "state": seen.state, "prompt": seen.prompt}


def reply_from_wire(message: object, metadata: ServerMetadata) -> ChunkReply:
    """Check a server's answer on the robot's side. Raises WireError."""
    fields = _text_keyed(message)
    actions, reasoning, timing = fields.get("actions"), fields.get("reasoning", ""), fields.get("server_timing", {})
    if not isinstance(actions, np.ndarray) or actions.dtype.kind != "f":
        raise WireError("the server's answer holds no actions. Connect to a server started by `dataengine serve`.")
    if actions.ndim != 2 or actions.shape[1] != metadata.action_dim or not 0 < len(actions) <= MAX_CHUNK_STEPS:
        raise WireError(f"the server sent actions of shape {actions.shape}, announced (steps, {metadata.action_dim}).")
    if not np.isfinite(actions).all():
        raise WireError("the server sent actions that are not finite. Stop the robot and look at the server's log.")
    if not isinstance(reasoning, str):
        raise WireError("the server sent reasoning that is no text.")
    times = _text_keyed(timing)
    return ChunkReply(
        chunk=Chunk(actions=actions.astype(np.float32), reasoning=reasoning),
        timing=ServerTiming(queue_ms=_number(times.get("queue_ms")), infer_ms=_number(times.get("infer_ms"))),
    )


def reply_to_wire(reply: ChunkReply) -> dict[str, object]:
    """The map openpi's clients read: `actions` (steps, A) and `server_timing`; `reasoning` is ours."""
    if len(reply.chunk.reasoning) > MAX_REASONING_CHARACTERS:
        raise WireError(f"the policy reasons in more than {MAX_REASONING_CHARACTERS} characters. Limit its tokens.")
    return {
        "actions": np.ascontiguousarray(reply.chunk.actions, dtype=np.float32),
        "reasoning": reply.chunk.reasoning,
        "server_timing": {"queue_ms": reply.timing.queue_ms, "infer_ms": reply.timing.infer_ms},
    }


def _text_keyed(message: object) -> dict[str, object]:
    if not isinstance(message, Mapping):
        raise WireError(f"a message must be a map, got {type(message).__name__}. Send one msgpack map per frame.")
    for key in message:
        if not isinstance(key, str):
            raise WireError(f"a message has the key {key!r:.40}, which is no text. Use the documented keys.")
    return dict(message)


def _refuse_others(fields: Iterable[str], known: set[str]) -> None:
    for key in fields:
        if key not in known:
            raise WireError(f"key '{key[:60]}' is not taken here. Known: {', '.join(sorted(known))}.")


def _images(fields: Mapping[str, object], cameras: tuple[str, ...]) -> dict[str, NDArray[np.uint8]]:
    found = _text_keyed(fields.get("images", {}))
    for key, value in fields.items():
        if key.startswith(_CAMERA_PREFIX) and key not in _STATE_KEYS:
            name = key.removeprefix(_CAMERA_PREFIX)
            if name in found:
                raise WireError(f"camera '{name[:60]}' is sent twice. Send it in `images` or as `{key[:60]}`.")
            found[name] = value
    wanted = ", ".join(cameras) or "none"
    for name in found:
        if name not in cameras:
            raise WireError(f"camera '{name[:60]}' is not one this policy takes. Send: {wanted}.")
    for name in cameras:
        if name not in found:
            raise WireError(f"camera '{name}' is missing. Send: {wanted}.")
    return {name: _image(name, found[name]) for name in cameras}


def _image(name: str, value: object) -> NDArray[np.uint8]:
    if not isinstance(value, np.ndarray):
        raise WireError(f"image '{name}' must be an array, got {type(value).__name__}. Send uint8 (H, W, 3).")
    if value.ndim == 3 and value.shape[0] == 3 and value.shape[2] != 3:
        raise WireError(f"image '{name}' is {value.shape}, channels first. Send (H, W, 3).")
    if value.ndim != 3 or value.dtype != np.uint8 or not all(0 < side <= MAX_IMAGE_SIDE for side in value.shape):
        raise WireError(f"image '{name}' must be uint8 (H, W, 3), got {value.dtype} {value.shape}.")
    return value


def _state(fields: Mapping[str, object], state_dim: int) -> NDArray[np.float32]:
    sent = [key for key in _STATE_KEYS if key in fields]
    if len(sent) != 1:
        raise WireError(f"state was sent {len(sent)} times. Send it once, as `state` or `observation/state`.")
    value = fields[sent[0]]
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
        raise WireError(f"state must be an array of numbers, got {type(value).__name__}. Send float32 ({state_dim},).")
    if value.shape != (state_dim,):
        raise WireError(f"state must have shape ({state_dim},), got {value.shape}.")
    if not np.isfinite(value).all():
        raise WireError("state holds numbers that are not finite. Look at the robot's encoders.")
    return value.astype(np.float32)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
