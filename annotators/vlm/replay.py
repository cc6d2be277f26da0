"""Recorded answers from a JSONL file: for tests, for parsing again, for a machine without a model.

The first line says who answered (model, revision, decode parameters: they are part of every key), each further line is
one request's key and its answer.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from annotators.calls import RawAnswer
from annotators.vlm.protocol import Decode, Lot, Request, Speaker, taken
from schemas.errors import BackendError
from schemas.records import canonical_json

_FORM = ConfigDict(frozen=True, extra="forbid")


class RecordedDecode(BaseModel):
    """Decode parameters as written."""

    model_config = _FORM
    temperature: float
    max_tokens: int
    seed: int


class RecordedSpeaker(BaseModel):
    """The first line."""

    model_config = _FORM
    model: str
    revision: str
    decode: RecordedDecode


class Recorded(BaseModel):
    """Every further line."""

    model_config = _FORM
    key: str
    outcome: Literal["success", "truncated", "blocked", "invalid"]
    text: str
    raw_json: str = ""
    finish_reason: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """Where the recording is."""

    path: Path


class ReplayClient:
    """Answers from the recording; what was not recorded is skipped, never made up."""

    def __init__(self, config: Replay) -> None:
        try:
            lines = config.path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise BackendError(f"the recording '{config.path}' can not be read ({error}). Check the path.") from None
        if not lines:
            raise BackendError(f"the recording '{config.path}' is empty. Record it again.")
        first = _read(RecordedSpeaker, lines[0], config.path, 1)
        self.stopped = ""
        self.speaker = Speaker(model=first.model, revision=first.revision, decode=Decode(**first.decode.model_dump()))
        rows = [_read(Recorded, line, config.path, number) for number, line in enumerate(lines[1:], 2) if line.strip()]
        self._answers = {row.key: RawAnswer(**row.model_dump(exclude={"key"})) for row in rows}

    def ask(self, requests: Sequence[Request], further: deque[Request] | None = None) -> Iterator[Lot]:
        """Recorded answers, in the order of the requests."""
        unknown = RawAnswer(outcome="skipped", text="this request is not in the recording.")
        yield [(request, self._answers.get(request.key, unknown)) for request in requests]
        while further:
            yield [(request, self._answers.get(request.key, unknown)) for request in taken(further)]


def _read[Line: BaseModel](form: type[Line], line: str, path: Path, number: int) -> Line:
    try:
        return form.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "line"
        raise BackendError(f"'{path.name}' line {number}: {where}: {first['msg']}. Record it again.") from None


def record(path: Path, speaker: Speaker, answers: Sequence[tuple[Request, RawAnswer]]) -> None:
    """Write a recording that ReplayClient reads; calls without an answer are left out."""
    rows = [
        canonical_json({"key": request.key, **asdict(answer)})
        for request, answer in answers
        if answer.outcome not in ("error", "skipped")
    ]
    path.write_text("".join(f"{line}\n" for line in [canonical_json(asdict(speaker)), *rows]), encoding="utf-8")
