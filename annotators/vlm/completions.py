"""The chat-completions format: a request as it is sent, an answer as it is read."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from annotators.calls import CallOutcome, RawAnswer
from annotators.vlm.protocol import ImagePart, Request, RequestPart, TextPart


def request_body(request: Request) -> dict[str, Any]:
    """What a server is sent; the answer is to be held to the schema."""
    return {
        "model": request.speaker.model,
        "messages": [{"role": turn.role, "content": [_part(part) for part in turn.parts]} for turn in request.turns],
        "temperature": request.speaker.decode.temperature,
        "max_tokens": request.speaker.decode.max_tokens,
        "seed": request.speaker.decode.seed + request.rollout,  # asked again on purpose: another draw
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": request.schema_name, "schema": request.schema, "strict": True},
        },
    }


def _part(part: RequestPart) -> dict[str, Any]:
    match part:
        case TextPart(text):
            return {"type": "text", "text": text}
        case ImagePart():
            return {"type": "image_url", "image_url": {"url": part.url}}


class _Message(BaseModel):
    """What the assistant said; servers add what they like."""

    content: str | None = None
    refusal: JsonValue = None
    reasoning_content: JsonValue = None
    reasoning: JsonValue = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = Field(default=None, max_length=64)


class _Usage(BaseModel):
    prompt_tokens: int | None = Field(default=None, ge=0, lt=2**31)
    completion_tokens: int | None = Field(default=None, ge=0, lt=2**31)


class _Completion(BaseModel):
    """The parts of a chat completion that are read; anything else in it is left alone."""

    model_config = ConfigDict(frozen=True)
    choices: tuple[_Choice, ...] = Field(min_length=1)
    usage: _Usage | None = None


def read_response(body: str) -> RawAnswer:
    """Sort a chat-completions response body into an outcome; the body itself is kept whole."""
    try:
        response = _Completion.model_validate_json(body)
    except ValidationError:
        return RawAnswer(outcome="invalid", text="", raw_json=body)
    choice, usage = response.choices[0], response.usage or _Usage()
    message = choice.message
    # Some servers put an answer that is held to a schema where they put reasoning, and leave the content empty.
    words = message.content or message.reasoning_content or message.reasoning or ""
    outcome: CallOutcome = "success"
    if choice.finish_reason == "length":
        outcome = "truncated"
    elif choice.finish_reason == "content_filter" or message.refusal:
        outcome = "blocked"
    elif not isinstance(words, str) or not words.strip():
        outcome = "invalid"
    return RawAnswer(
        outcome=outcome,
        text=words if isinstance(words, str) else "",
        raw_json=body,
        finish_reason=choice.finish_reason,
        input_tokens=usage.prompt_tokens or 0,
        output_tokens=usage.completion_tokens or 0,
    )
