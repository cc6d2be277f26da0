"""Other wordings of an instruction or a trace, and whether one keeps to its facts: things, numbers, sides, their order.

Where a grammar reads both (a placement, a card to pick) it decides. Any other words are compared as they stand: what
is left without articles and courtesies must be the same words in the same order, "left of" and "to the left of"
being one. A wording that says the same in an order of its own is refused too: order is what tells target from place.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from annotators.card_scenes import read_task
from annotators.placements import SAID, read_instruction
from schemas.scenes import RefusedWording

_TAKE, _PUT = "(take)", "(put)"
_VERBS = {
    **dict.fromkeys(("pick", "take", "grab", "grasp"), _TAKE),
    **dict.fromkeys(("put", "place", "set", "lay", "move"), _PUT),
}
_FILLERS = frozenset(("a", "an", "the", "please", "kindly", "now", "then", "and"))
# Words that say nothing in a trace that could be otherwise; "not" and "no" are none of them.
_FUNCTION_WORDS = (
    "a an the i it its that this these which so then and therefore here there is are at from of with will now see seen "
    "lie lies"
)
_BOARD_WORDS = (
    "board card cards read reads say says show shows written writing equation make makes give gives equals answer sum "
    "solution number"
)
_SMALL = frozenset(_FUNCTION_WORDS.split())
_OF_A_BOARD = frozenset(_BOARD_WORDS.split())
_CHOSEN = {**_VERBS, "choose": _TAKE}
_COLUMN = re.compile(r"\b(?:on|at|in|from|to) the (?P<what>left|middle|right|board|cards?)\b")
_COURTESY = re.compile(r"\A(?:please )?(?:could|can|would|will) you ")
_VERB_PARTS = re.compile(r"\b(pick|grab) up\b|\b(put|place|set|lay)(?: (it|them))? down\b")
_COUNTS = "zero one two three four five six seven eight nine ten eleven twelve"
_NUMBERS = {word: str(number) for number, word in enumerate(_COUNTS.split())}
_SIDES = re.compile("|".join(rf"\b{words}\b" for words in sorted((words for words, _ in SAID), key=len, reverse=True)))
_TOKEN = re.compile(r"\([\w ]+\)|\w+(?:'\w+)?|[+*/=\u00d7\u00f7%]|(?<=\d)-(?=\d)")
_REFERRING = ("it", "them")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wordings:
    """Other wordings that keep to the facts, and those that do not, each with its reason."""

    kept: tuple[str, ...]
    refused: tuple[RefusedWording, ...]


def sift(task: str, said: Iterable[str]) -> Wordings:
    """Tell wordings that keep to the facts of an instruction from those that do not; each is named once."""
    kept: list[str] = []
    refused: list[RefusedWording] = []
    for words in (" ".join(one.split()) for one in said):
        if words.casefold() in (one.casefold() for one in (task, *kept)):
            continue
        if (problem := changed_fact(task, words)) is None:
            kept.append(words)
        else:
            refused.append(RefusedWording(words=words, reason=problem))
    return Wordings(kept=tuple(kept), refused=tuple(refused))


def changed_fact(task: str, words: str) -> str | None:
    """What another wording of an instruction changes; None where it asks for the same."""
    differs = False
    for read in (read_instruction, read_task):
        if (asked := read(task)) is not None and (said := read(words)) is not None:
            if said == asked:
                return None
            differs = True
    for wanted, found in zip_longest(facts(task), facts(words)):
        if wanted != found:
            return f"it says {_word(found)} where the instruction says {_word(wanted)}"
    return "it asks for something else" if differs else None


def changed_in_retelling(trace: str, words: str) -> str | None:
    """What other words for a reasoning trace change; None where they tell the same.

    They may use words of the trace and words that carry no fact, and no others; numbers, signs, sides, nouns, and what
    is taken or put are those of the trace, in its order.
    """
    is_of_board = trace.startswith("The board ")
    small = _SMALL | _OF_A_BOARD if is_of_board else _SMALL
    wanted, found = (_told(one, is_of_board) for one in (trace, words))
    if strange := next((token for token in found if token not in small and token not in wanted), None):
        return f"it says {_word(strange)}, which the trace does not"
    for told, said in zip_longest(*([token for token in one if token not in small] for one in (wanted, found))):
        if told != said:
            return f"it says {_word(said)} where the trace says {_word(told)}"
    return None


def _told(words: str, is_of_board: bool) -> list[str]:
    text = " ".join(words.casefold().split())
    if is_of_board:  # a place there is a column of the table, not a relation
        text = _COLUMN.sub(lambda found: found["what"], text)
    tokens = [token if token in (_TAKE, _PUT) else token.strip("()") for token in _TOKEN.findall(_with_sides(text))]
    return [_CHOSEN.get(token, _NUMBERS.get(token, token)) for token in tokens]


def _with_sides(text: str) -> str:
    """Sides and places as one token each, however they are said."""
    return _SIDES.sub(lambda found: f"({next(side for words, side in SAID if words == found[0])})", text)


def facts(words: str) -> tuple[str, ...]:
    """What words are about, in order: `Please put the cup left of two plates` is (put), cup, (left of), 2, plates.

    To take something and to put it somewhere is to put it there.
    """
    text = " ".join(words.casefold().split())
    text = _COURTESY.sub("", text)
    text = _VERB_PARTS.sub(lambda found: " ".join(part for part in found.groups() if part), text)
    tokens = [token for token in _TOKEN.findall(_with_sides(text)) if token not in _FILLERS]
    tokens = [_VERBS.get(token, _NUMBERS.get(token, token)) for token in tokens]
    return tuple(_joined(tokens))


def _joined(tokens: Sequence[str]) -> list[str]:
    """(take) X (put) it Y -> (put) X Y."""
    found = list(tokens)
    for at, token in enumerate(found):
        if token != _TAKE:
            continue
        verb = next((later for later in range(at + 1, len(found)) if found[later] in (_TAKE, _PUT)), None)
        if verb is not None and found[verb] == _PUT and found[verb + 1 : verb + 2] and found[verb + 1] in _REFERRING:
            return [*found[:at], _PUT, *found[at + 1 : verb], *_joined(found[verb + 2 :])]
    return found


def _word(token: str | None) -> str:
    return "nothing more" if token is None else f"'{token.strip('()')}'"
