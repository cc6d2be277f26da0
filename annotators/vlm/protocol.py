"""What is asked and what comes back, independent of who is asked.

A request's key is the sha256 of everything that can change the answer: words, exact image bytes, schema, model,
revision, decode parameters, rollout. URL and time are not in it. The same request has the same key everywhere.
"""

import base64
import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from annotators.calls import RawAnswer
from schemas.errors import BackendError
from schemas.records import canonical_json

KEY_SCHEME = 1  # a change in how keys are made is a change of every key


@dataclass(frozen=True, slots=True)
class TextPart:
    """Words."""

    text: str


@dataclass(frozen=True, slots=True)
class ImagePart:
    """One picture, as the exact bytes that are sent."""

    data: bytes = field(repr=False)
    media_type: Literal["image/png", "image/jpeg"] = "image/png"

    @property
    def url(self) -> str:
        """A data URL."""
        return f"data:{self.media_type};base64,{base64.b64encode(self.data).decode()}"


type RequestPart = TextPart | ImagePart


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One message of a request."""

    role: Literal["system", "user", "assistant"]
    parts: tuple[RequestPart, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decode:
    """How the answer is drawn."""

    temperature: float = 0.0
    max_tokens: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_tokens < 1 or not 0.0 <= self.temperature <= 2.0:
            raise BackendError(
                f"max_tokens must be 1 or more and temperature in 0..2, got {self.max_tokens} and {self.temperature}."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Speaker:
    """Which model answers, and how: part of every key and of provenance."""

    model: str
    revision: str = ""  # quantisation, weights revision, engine version: whatever the user knows
    decode: Decode = Decode()

    @property
    def label(self) -> str:
        """`model` or `model@revision`."""
        return f"{self.model}@{self.revision}" if self.revision else self.model


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One question to one model."""

    speaker: Speaker
    turns: tuple[Turn, ...]
    schema_name: str
    schema: dict[str, Any]
    rollout: int = 0  # ask the same again on purpose: another key
    # Worked out once: they hash every picture.
    _json: str = field(default="", init=False, repr=False, compare=False)
    _key: str = field(default="", init=False, repr=False, compare=False)

    def canonical(self) -> dict[str, Any]:
        """The request with every picture replaced by its hash: what is hashed and what is kept."""
        return {
            "key_scheme": KEY_SCHEME,
            "model": self.speaker.model,
            "revision": self.speaker.revision,
            "turns": [
                {"role": turn.role, "parts": [_canonical_part(part) for part in turn.parts]} for turn in self.turns
            ],
            "schema_name": self.schema_name,
            "schema": self.schema,
            "decode": {
                "temperature": self.speaker.decode.temperature,
                "max_tokens": self.speaker.decode.max_tokens,
                "seed": self.speaker.decode.seed,
            },
            "rollout": self.rollout,
        }

    def to_json(self) -> str:
        """The canonical request as text."""
        if not self._json:
            object.__setattr__(self, "_json", canonical_json(self.canonical()))
        return self._json

    @property
    def key(self) -> str:
        """The content address of this question."""
        if not self._key:
            object.__setattr__(self, "_key", hashlib.sha256(self.to_json().encode()).hexdigest())
        return self._key


def _canonical_part(part: RequestPart) -> dict[str, Any]:
    match part:
        case TextPart(text):
            return {"text": text}
        case ImagePart():
            return {"image_sha256": hashlib.sha256(part.data).hexdigest(), "media_type": part.media_type}


type Lot = Sequence[tuple[Request, RawAnswer]]


class VlmClient(Protocol):
    """Someone who answers. Answers come in lots, as they are ready; every request gets exactly one.

    When the next lot is asked for, the one before it is stored. What is in `further` by then is taken out and asked as
    well; where that is given, a lot may be empty: nothing is ready yet, and more can be put in.
    """

    stopped: str  # why nobody is asked any more; empty while they are

    def ask(self, requests: Sequence[Request], further: deque[Request] | None = None) -> Iterator[Lot]: ...


def taken(line: deque[Request]) -> list[Request]:
    """All that is in line, taken out of it."""
    return [line.popleft() for _ in range(len(line))]
