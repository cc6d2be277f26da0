"""Does the model look? One call in fifty is made once more with blank pictures of the same size.

A model that gives the same answer to a grey picture does not answer from the picture. Which calls are repeated follows
from their keys, so a run that is made again repeats the same ones, and finds them in the store. The first answer of a
run that says anything is always among them. A repeated call is a call like any other: stored, counted, paid for.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Literal

from PIL import Image
from pydantic import BaseModel, JsonValue

from annotators.vlm.answers import form_of, parse
from annotators.vlm.mending import MendingClient, Settled
from annotators.vlm.protocol import ImagePart, Request
from schemas.annotations import Verdict, VerifierResult

VERIFIER = "looking"
VERSION = 1
SHARE = 0.02
_GREY = (127, 127, 127)
_HEX_DIGITS = 8


class BlankProbe:
    """What one run's repeated calls have shown so far."""

    def __init__(self, share: float = SHARE) -> None:
        self._share = share
        self.num_asked = 0
        self.num_same = 0  # answered alike without pixels

    def look(self, asked: Mapping[str, Sequence[Settled]], client: MendingClient) -> dict[str, VerifierResult]:
        """Repeat some of the calls about these episodes; what that shows, by episode."""
        if not self._share:
            return {}
        says = {
            one.request.key: one
            for calls in asked.values()
            for one in calls
            if one.answer.outcome == "success" and has_pictures(one.request) and _says(one)
        }
        chosen = [key for key in sorted(says) if _draw(key) < self._share]
        if not chosen and not self.num_asked:
            chosen = sorted(says)[:1]
        blanks = {blank(says[key].request).key: says[key] for key in chosen}
        verdicts: dict[str, VerifierResult] = {}
        for seen_blank in client.ask([blank(says[key].request) for key in chosen]):
            told = blanks[seen_blank.request.key]
            if seen_blank.answer.outcome in ("error", "skipped"):
                continue
            same = _parsed(seen_blank) == _parsed(told)
            self.num_asked += 1
            self.num_same += same
            verdicts[told.request.key] = _result(
                "fail" if same else "pass",
                f"asked '{told.request.schema_name}' again with blank pictures, it gave "
                f"{'the same answer: it does not look' if same else 'another answer'}.",
            )
        found: dict[str, VerifierResult] = {}
        for episode_id, calls in asked.items():
            mine = [verdicts[one.request.key] for one in calls if one.request.key in verdicts]
            if mine:
                found[episode_id] = min(mine, key=lambda result: result.verdict != "fail")
        return found


def doubt(results: Iterable[VerifierResult]) -> VerifierResult | None:
    """What these results make of answers that were not repeated; None while every repeated one came out otherwise."""
    looked = [one.verdict for one in results if one.verifier == VERIFIER and one.verdict != "unknown"]
    if "fail" not in looked:
        return None
    told = f"{looked.count('fail')} of {len(looked)} that were asked again with blank pictures got the same answer."
    return _result("unknown", f"not asked again; {told}")


def blank(request: Request) -> Request:
    """The same question with grey pictures of the same size."""
    turns = tuple(
        replace(turn, parts=tuple(_grey(part) if isinstance(part, ImagePart) else part for part in turn.parts))
        for turn in request.turns
    )
    return replace(request, turns=turns)


def has_pictures(request: Request) -> bool:
    """Whether a question is about pictures at all: other wordings are asked for by words alone."""
    return any(isinstance(part, ImagePart) for turn in request.turns for part in turn.parts)


def num_blank(num_calls: int, share: float = SHARE) -> int:
    """How many of so many calls are repeated, about; at least one."""
    return max(1, round(share * num_calls)) if num_calls and share else 0


def _grey(part: ImagePart) -> ImagePart:
    with Image.open(io.BytesIO(part.data)) as picture:
        size = picture.size
    kind: Literal["PNG", "JPEG"] = "PNG" if part.media_type == "image/png" else "JPEG"
    return ImagePart(_grey_bytes(size, kind), part.media_type)


@lru_cache(maxsize=64)
def _grey_bytes(size: tuple[int, int], kind: Literal["PNG", "JPEG"]) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, _GREY).save(out, kind)
    return out.getvalue()


def _draw(key: str) -> float:
    return int(key[:_HEX_DIGITS], 16) / float(1 << 4 * _HEX_DIGITS)


def _parsed(settled: Settled) -> BaseModel | None:
    return parse(settled.answer, form_of(settled.request.schema_name))


def _says(settled: Settled) -> bool:
    """Whether an answer says anything that a picture could have shown."""
    said = _parsed(settled)
    return said is not None and any(_leaves(said.model_dump(mode="json")))


def _leaves(value: JsonValue) -> Iterable[bool]:
    match value:
        case dict():
            for part in value.values():
                yield from _leaves(part)
        case list():
            for part in value:
                yield from _leaves(part)
        case str():
            yield value not in ("", "unknown")
        case _:
            yield False


def _result(verdict: Verdict, evidence: str) -> VerifierResult:
    return VerifierResult(verifier=VERIFIER, version=VERSION, verdict=verdict, evidence=evidence)
