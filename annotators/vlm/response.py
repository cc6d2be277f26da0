"""Reading what an OpenAI-compatible server sends back: which outcome it is, and the words in it."""

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from annotators.calls import CallOutcome, RawAnswer


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
