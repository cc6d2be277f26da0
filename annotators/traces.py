"""Building a reasoning trace: structure first; the words are rendered from it by the schema and can not disagree."""

from collections.abc import Sequence

from annotators.arithmetic import ArithmeticSyntaxError, canonical, canonical_number, number_text, solve, worked_line
from schemas.annotations import Card, Position, ReasoningTrace

MOST_CARDS = 6  # of one trace that is asked for or edited: what a reviewer's form holds
UNREAD = "?"  # the text of a card that was seen but not read


def build_trace(board: str | None, cards: Sequence[Card]) -> ReasoningTrace:
    """What follows from a board and the cards beside it; what does not follow stays None."""
    written = canonical(board)
    if written is None:
        return ReasoningTrace(board=None, solution=None, cards=tuple(cards))
    try:
        result = number_text(solve(written))
    except ArithmeticSyntaxError:  # 1/0 can be read but has no value
        return ReasoningTrace(board=written, solution=None, cards=tuple(cards))
    right = [card for card in cards if canonical_number(card.text) == result]
    position: Position = right[0].position if len(right) == 1 else "unknown"
    return ReasoningTrace(
        board=written,
        solution=worked_line(written),
        cards=tuple(cards),
        pick_text=result if right else None,
        pick_position=position,
    )
