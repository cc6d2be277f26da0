"""The part of OpenAI's chat completions that `serve-vlm` speaks: what it reads, what it answers, how it refuses.

What is not offered is refused by name: an option that were silently ignored would change answers unnoticed.
"""

import base64
import re
import secrets
import time
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from annotators.vlm.chat_model import Answer, Prompt
from annotators.vlm.protocol import Decode, ImagePart, RequestPart, TextPart, Turn

_FORM = ConfigDict(frozen=True, extra="forbid")
_DATA_URL = re.compile(r"\Adata:(image/png|image/jpeg);base64,(.*)\Z", re.DOTALL)


class WrongRequest(Exception):
    """What the caller did wrong; becomes an OpenAI error object, never a traceback."""

    def __init__(self, message: str, *, status: int = 400, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param


class _Text(BaseModel):
    model_config = _FORM
    type: Literal["text"]
    text: str


class _Url(BaseModel):
    model_config = _FORM
    url: str
    detail: Literal["auto", "low", "high"] = "auto"  # pictures are read at their own size


class _Image(BaseModel):
    model_config = _FORM
    type: Literal["image_url"]
    image_url: _Url


class _Message(BaseModel):
    model_config = _FORM
    role: Literal["system", "user", "assistant"]
    content: str | list[Annotated[_Text | _Image, Field(discriminator="type")]]


class _Schema(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True)
    name: str
    body: dict[str, JsonValue] = Field(alias="schema")
    strict: bool | None = None  # answers are always held to it
    description: str | None = None


class _AnyWords(BaseModel):
    model_config = _FORM
    type: Literal["text"]


class _AnyObject(BaseModel):
    model_config = _FORM
    type: Literal["json_object"]


class _ToSchema(BaseModel):
    model_config = _FORM
    type: Literal["json_schema"]
    json_schema: _Schema


class ChatRequest(BaseModel):
    """A request body."""

    model_config = _FORM
    model: str
    messages: list[_Message] = Field(min_length=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)  # the newer name
    temperature: float = Field(default=1.0, ge=0.0, le=2.0)
    seed: int | None = None
    response_format: Annotated[_AnyWords | _AnyObject | _ToSchema, Field(discriminator="type")] | None = None
    stream: Literal[False] | None = None
    n: Literal[1] | None = None
    user: str | None = None

    def prompt(self) -> Prompt:
        """The question in the model's terms. Raises WrongRequest for a picture that is not in the request itself."""
        turns = tuple(
            Turn(role=message.role, parts=_parts(message.content, f"messages.{place}.content"))
            for place, message in enumerate(self.messages)
        )
        seed = secrets.randbits(32) if self.seed is None else self.seed
        most = self.max_completion_tokens or self.max_tokens or Decode().max_tokens
        return Prompt(
            turns=turns,
            decode=Decode(temperature=self.temperature, max_tokens=most, seed=seed),
            schema=_schema(self.response_format),
        )


def read_request(body: bytes) -> ChatRequest:
    """Raises WrongRequest, naming the field."""
    try:
        return ChatRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "body"
        if first["type"] == "extra_forbidden":
            told = f"'{where}' is not offered by this server. Leave it out."
        elif where == "stream":
            told = "this server does not stream. Leave 'stream' out, or send false."
        else:
            told = f"{where}: {first['msg']}."
        raise WrongRequest(told, param=where) from None


def completion(model: str, revision: str, answer: Answer) -> dict[str, Any]:
    """A chat completion."""
    said = len(answer.tokens)
    return {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": revision,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": answer.text, "refusal": None},
                "finish_reason": answer.finish,
                "logprobs": None,
            }
        ],
        "usage": {
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": said,
            "total_tokens": answer.prompt_tokens + said,
        },
    }


def error_body(message: str, *, status: int, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    """An OpenAI error object."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _parts(content: str | list[_Text | _Image], where: str) -> tuple[RequestPart, ...]:
    if isinstance(content, str):
        return (TextPart(content),)
    return tuple(
        TextPart(part.text) if isinstance(part, _Text) else _picture(part.image_url.url, f"{where}.{place}")
        for place, part in enumerate(content)
    )


def _picture(url: str, where: str) -> ImagePart:
    found = _DATA_URL.match(url)
    if found is None:
        raise WrongRequest(
            f"{where}: only pictures inside the request are read, as data:image/png;base64,... or "
            "data:image/jpeg;base64,...; this server fetches nothing.",
            param=where,
        )
    try:
        data = base64.b64decode(found.group(2), validate=True)
    except ValueError:  # binascii.Error is one; letters beyond ASCII raise it bare
        raise WrongRequest(f"{where}: the picture's base64 is damaged. Encode it again.", param=where) from None
    return ImagePart(data, "image/png" if found.group(1) == "image/png" else "image/jpeg")


def _schema(form: _AnyWords | _AnyObject | _ToSchema | None) -> dict[str, Any] | None:
    match form:
        case _ToSchema():
            return form.json_schema.body
        case _AnyObject():
            return {"type": "object"}
        case _:
            return None
