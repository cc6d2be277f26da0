"""Choosing each token of an answer so that the answer fits its JSON schema.

llguidance says which tokens may come next; among those the model's favourite is taken, or one is drawn by a key of the
question's own, so that an answer does not depend on who else is in the batch. JSON comes in one spelling: keys in the
schema's order, ", " and ": " between them, no other blanks. A small model then spends no token on layout.

Axes: B answers under way, T tokens so far, V vocabulary.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer
from torch import Tensor

from schemas.errors import BackendError

_MOST_KEPT = 64  # callers of a server may send a new schema each time
_SPELLING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class Grammars:
    """JSON schemas made into grammars over one tokenizer; each is compiled once."""

    def __init__(self, tokenizer: LLTokenizer) -> None:
        self._tokenizer = tokenizer
        self._compiled: dict[str, LLMatcher] = {}

    def matcher(self, schema: dict[str, Any]) -> LLMatcher:
        """A matcher at its start. Raises BackendError for a schema that can not be held to."""
        text = json.dumps(schema)  # not sorted: the order of the properties is the order of the answer's keys
        if text not in self._compiled:
            if len(self._compiled) >= _MOST_KEPT:
                self._compiled.clear()
            grammar = LLMatcher.grammar_from_json_schema(text, overrides=_SPELLING)  # type: ignore[arg-type]
            matcher = LLMatcher(self._tokenizer, grammar, log_level=0)
            if matcher.is_error():
                told = " ".join(matcher.get_error().split())[:200]
                raise BackendError(f"the JSON schema can not be held to ({told}). Leave out what is not known there.")
            self._compiled[text] = matcher
        return self._compiled[text].deep_copy()


@dataclass(slots=True, kw_only=True)
class Speech:
    """One answer as it grows."""

    max_tokens: int
    temperature: float
    ends: frozenset[int]  # tokens that end an answer
    matcher: LLMatcher | None  # None: any words
    noise: torch.Generator  # on the CPU, keyed by the question
    tokens: list[int] = field(default_factory=list)
    finish: Literal["stop", "length"] | None = None  # None while it goes on

    def choose(self, scores_V: Tensor) -> int:
        """The next token, taken into the answer."""
        token = self._best(scores_V)
        if token in self.ends:
            self.finish = "stop"
            return token
        self.tokens.append(token)
        if self.matcher is not None:
            self.matcher.consume_token(token)
            if self.matcher.is_error():
                raise RuntimeError(f"the grammar refuses its own token: {self.matcher.get_error()}")
            if self.matcher.is_stopped():  # the closing bracket: nothing can follow
                self.finish = "stop"
                return token
        if len(self.tokens) >= self.max_tokens:
            self.finish = "length"
        return token

    def _best(self, scores_V: Tensor) -> int:
        if self.matcher is not None:
            bits = np.frombuffer(self.matcher.compute_bitmask(), np.uint8)
            allowed_V = torch.from_numpy(np.unpackbits(bits, bitorder="little")[: len(scores_V)]).bool()
            scores_V = scores_V.masked_fill(~allowed_V, -torch.inf)
        if self.temperature > 0:  # the largest of scores with Gumbel noise is a draw from their softmax
            waits_V = torch.empty(len(scores_V), dtype=torch.float64).exponential_(generator=self.noise)
            scores_V = scores_V.double() / self.temperature - waits_V.log()
        best = scores_V.argmax()
        if not torch.isfinite(scores_V[best]):
            raise ValueError("the model gives no token a score that is a number")
        return int(best)


class Chorus:
    """The answers of one batch, as the two things `generate` asks while it runs: which token next, and who is done."""

    def __init__(self, speeches: Sequence[Speech]) -> None:
        self.speeches = speeches

    def __call__(self, ids_BT: Tensor, scores_BV: Tensor) -> Tensor:
        """Scores that leave one token per answer."""
        rows_BV = scores_BV.float().cpu()
        chosen = [
            0 if speech.finish else speech.choose(row_V) for speech, row_V in zip(self.speeches, rows_BV, strict=True)
        ]
        only_BV = torch.full_like(scores_BV, -torch.inf)
        only_BV[torch.arange(len(chosen)), torch.tensor(chosen)] = 0.0
        return only_BV

    def done(self, ids_BT: Tensor, scores_BV: Tensor, **_: object) -> Tensor:
        """Which answers are complete, (B,) bool."""
        return torch.tensor([speech.finish is not None for speech in self.speeches], device=ids_BT.device)
