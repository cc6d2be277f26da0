"""A second call where it pays: more room for an answer that was cut off, one repair of an answer that is not in form.

Each has a key of its own and follows from the answers before it alone. A run that was killed in between, or is made
again, comes to the same calls and finds in the store what was answered.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from annotators.calls import RawAnswer
from annotators.vlm.answers import in_form, keeps_to_schema
from annotators.vlm.protocol import Request, TextPart, Turn
from annotators.vlm.stored import StoredClient
from schemas.chat import chat_marker
from schemas.records import canonical_json

_REPAIR = (Path(__file__).parent / "repair.md").read_text(encoding="utf-8")
_MORE_ROOM = 4  # times the tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """A request, the answer that stands, and the keys of all calls that led to it, first to last."""

    request: Request
    answer: RawAnswer
    call_keys: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chain:
    """A request and what was asked after it, as far as it got."""

    request: Request
    last: Request
    answer: RawAnswer | None = None  # to what was asked before `last`
    call_keys: tuple[str, ...] = ()
    got_room: bool = False
    was_repaired: bool = False

    def settled(self, answer: RawAnswer) -> Settled:
        """The end. A second call that failed leaves the first answer standing; one that was not made may be yet."""
        if self.answer is not None and answer.outcome == "error":
            return Settled(request=self.request, answer=self.answer, call_keys=self.call_keys)
        return Settled(request=self.request, answer=answer, call_keys=(*self.call_keys, self.last.key))

    def further(self, answer: RawAnswer) -> "_Chain | None":
        """What to ask after this answer, if anything."""
        step = replace(self, answer=answer, call_keys=(*self.call_keys, self.last.key))
        if answer.outcome == "truncated" and not (self.got_room or self.was_repaired):
            return replace(step, last=with_more_room(self.last), got_room=True)
        unusable = answer.outcome in ("success", "invalid") and not in_form(self.last.schema_name, answer)
        if unusable and not self.was_repaired and not chat_marker(answer.text):  # a marker must not be sent on
            return replace(step, last=repair(self.last, answer.text), was_repaired=True)
        return None


class MendingClient:
    """Asks through the store, and once or twice more where the answer calls for it."""

    def __init__(self, client: StoredClient, *, mends: bool = True) -> None:
        self._client = client
        self._mends = mends
        self.num_mended = 0  # answers that a further call was made for
        self.num_answers = 0
        self.num_off_schema = 0  # answers that are not what a server says that keeps to the schema it is sent

    @property
    def stopped(self) -> str:
        """Why nobody is asked any more; empty while they are."""
        return self._client.stopped

    def ask(self, requests: Sequence[Request]) -> Iterator[Settled]:
        """One settled answer per request, in the order they are ready."""
        begun: dict[int, _Chain] = {}  # by the very request that was asked last
        more = deque[Request]()
        for request, answer in self._client.ask(requests, more):
            chain = begun.pop(id(request), None) or _Chain(request=request, last=request)
            if answer.outcome == "success":
                self.num_answers += 1
                self.num_off_schema += not keeps_to_schema(request.schema_name, answer.text)
            further = chain.further(answer) if self._mends else None
            if further is None:
                yield chain.settled(answer)
            else:
                self.num_mended += 1
                begun[id(further.last)] = further
                more.append(further.last)


def with_more_room(request: Request) -> Request:
    """The same question with a larger limit for its answer."""
    decode = request.speaker.decode
    roomy = replace(decode, max_tokens=_MORE_ROOM * decode.max_tokens)
    return replace(request, speaker=replace(request.speaker, decode=roomy))


def repair(request: Request, text: str) -> Request:
    """The question, what was answered, and the schema in words: a server may not know what a schema is."""
    words = TextPart(f"{_REPAIR.rstrip()} {canonical_json(request.schema)}")
    if not text.strip():  # an empty turn of the assistant is refused by some servers, two of the user by others
        *before, last = request.turns
        return replace(request, turns=(*before, replace(last, parts=(*last.parts, words))))
    said = Turn(role="assistant", parts=(TextPart(text),))
    return replace(request, turns=(*request.turns, said, Turn(role="user", parts=(words,))))
