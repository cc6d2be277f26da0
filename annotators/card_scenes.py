"""The scene of a board and cards: an inventory, how it ended, other wordings of the task, and questions to co-train on.

Everything follows from what was read and from where programs found it. Cards are named by their place, which is seen
without reading them; what is only half known (two readings that differ, a place that is hidden) is asked nothing about.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from annotators.arithmetic import canonical, canonical_number
from annotators.evidence import PickEvidence, TableSeen
from annotators.papers import POSITIONS
from annotators.perception import BoardReadings
from annotators.placements import executed, middle, relation_of
from annotators.traces import UNREAD, build_trace
from schemas.annotations import Card, ReasoningTrace, SegmentList
from schemas.scenes import Box, Outcome, PlanStep, QuestionAnswer, Relation, SceneNotes, SceneObject, SpatialRelation

BOARD = "board"
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")  # from the left, where places have no names
_AT_BOARD = (-0.5, 1.0)  # of a card's height: how far below the board's lower edge what stands on its ledge begins
_PROBLEM = r"(?:question|equation|sum|problem)(?: on the (?:white)?board)?"
_TASK = re.compile(
    rf"(?:please )?(?:(?:answer|solve|work out|calculate) the (?P<first>{_PROBLEM})(?:,| and then|,? and) )?"
    r"(?:pick|take|choose|grab|pick up|hand over) the (?:number )?card (?:with|that shows|showing) "
    rf"the (?:correct |matching )?(?:answer|result|solution)(?: (?:to|of) the (?P<second>{_PROBLEM}))?"
    r"(?:,? and (?:put|place) it on the (?P<place>ledge|tray))?\.?"
)
_WORDINGS = (
    "Solve the equation on the board and take the card with the answer{place}.",
    "Pick the card that shows the result of the sum on the board{place}.",
    "Please work out the problem on the board, and pick up the card with the correct result{place}.",
    "Take the card with the solution of the equation{place}.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CardTask:
    """What an instruction about a board and cards asks for: the card with the answer, and where it is to go."""

    place: str | None


def read_task(words: str) -> CardTask | None:
    """What an instruction asks for; None where it does not say it in a way that is known."""
    found = _TASK.fullmatch(" ".join(words.lower().split()))
    if found is None or not (found["first"] or found["second"]):
        return None
    return CardTask(place=found["place"])


def rewordings(task: str) -> tuple[str, ...]:
    """Other wordings of an instruction, from templates; none where it is not known what it asks for."""
    asked = read_task(task)
    if asked is None:
        return ()
    place = f", and put it on the {asked.place}" if asked.place else ""
    return tuple(words for template in _WORDINGS if (words := template.format(place=place)) != task)


def card_nouns(num_cards: int) -> tuple[str, ...]:
    """One noun for each card, from left to right."""
    if num_cards == len(POSITIONS):
        return tuple(f"{place} card" for place in POSITIONS)
    return tuple(f"{_ORDINALS[at] if at < len(_ORDINALS) else f'{at + 1}th'} card" for at in range(num_cards))


def agreed(readings: BoardReadings | None) -> str | None:
    """What both readings of the board say; None where they differ or one is missing."""
    if readings is None or readings.first is None or canonical(readings.first) != canonical(readings.second):
        return None
    return readings.first


def right_card(trace: ReasoningTrace) -> int | None:
    """Which card, from the left, has the answer; None where none or several do, or not all are read."""
    if trace.pick_text is None or any(card.text == UNREAD for card in trace.cards):
        return None
    shown = [canonical_number(card.text) == canonical_number(trace.pick_text) for card in trace.cards]
    return shown.index(True) if shown.count(True) == 1 else None


def moved_card(pick: PickEvidence | None) -> int | None:
    """Which card, from the left, lies elsewhere afterwards; None unless exactly one does and no place is hidden."""
    if pick is None or "hidden" in pick.slots or pick.slots.count("empty") != 1:
        return None
    return pick.slots.index("empty")


def ended(trace: ReasoningTrace, table: TableSeen | None, pick: PickEvidence | None) -> tuple[Outcome, str]:
    """How the episode ended, and why, for people.

    Success: the card with the answer, and no other, lies at the board's lower edge. That it lies somewhere else is
    not called a failure: where it was to go is not always said.
    """
    right = right_card(trace)
    if right is None or pick is None or len(trace.cards) != len(pick.slots):
        return "unknown", "which card has the answer, or which one was moved, was not seen."
    nouns, where = card_nouns(len(trace.cards)), f"in frame {pick.frame}"
    if set(pick.slots) == {"full"}:
        return "failure", f"no card left its place {where}."
    moved = moved_card(pick)
    if moved is None:
        return "unknown", f"the places of the cards are {', '.join(pick.slots)} {where}."
    shown = canonical_number(pick.moved_text)
    if moved != right:
        if shown is not None and shown == canonical_number(trace.pick_text):
            return "unknown", f"the {nouns[moved]} was moved, and it shows the answer {where}."
        return "failure", f"the {nouns[moved]} was moved, the answer is on the {nouns[right]}."
    if shown is not None and shown != canonical_number(trace.pick_text):
        return "unknown", f"the {nouns[moved]} was moved, but what was moved shows {shown} {where}."
    if table is None or table.board is None or pick.landed is None:
        return "unknown", f"where the {nouns[moved]} lies {where} was not seen."
    if not is_at_board(pick.landed, table.board):
        return "unknown", f"the {nouns[moved]} has the answer, but does not lie at the board {where}."
    return "success", f"the {nouns[moved]} has the answer and lies at the board {where}."


def is_at_board(card: Box, board: Box) -> bool:
    """Whether a card lies at the lower edge of the board, between its sides."""
    gap = (card[1] - board[3]) / max(1, card[3] - card[1])
    return board[0] <= middle(card)[0] < board[2] and _AT_BOARD[0] <= gap <= _AT_BOARD[1]


def landed_at(table: TableSeen | None, pick: PickEvidence | None) -> tuple[SpatialRelation, ...]:
    """How the card that was moved lies to the board afterwards; nothing where that was not seen."""
    moved = moved_card(pick)
    if moved is None or pick is None or pick.landed is None or table is None or table.board is None:
        return ()
    # At its lower edge and between its sides is in front of it, however far from its middle.
    relation: Relation = "in front of"
    if not is_at_board(pick.landed, table.board):
        relation = relation_of(pick.landed, table.board, reference_noun=BOARD, is_turned=False)
    if relation == "unknown":
        return ()
    noun = card_nouns(len(pick.slots))[moved]
    return (
        SpatialRelation(subject=noun, relation=relation, reference=BOARD, frame_of_reference="robot", when="after"),
    )


def card_scene(
    task: str,
    *,
    readings: BoardReadings | None,
    cards: Sequence[Card],
    table: TableSeen | None,
    pick: PickEvidence | None,
    segments: SegmentList,
) -> SceneNotes:
    """Everything that follows about the scene of an episode. `cards` are from left to right, as they were read."""
    trace = build_trace(agreed(readings), cards)
    board = (SceneObject(noun=BOARD, box_xyxy=table.board),) if table is not None and table.board else ()
    objects = (
        *board,
        *(
            SceneObject(noun=noun, box_xyxy=card.box_xyxy)
            for noun, card in zip(card_nouns(len(cards)), cards, strict=True)
        ),
    )
    wordings = rewordings(task)
    return SceneNotes(
        instruction=task,
        paraphrases=wordings,
        worded_by="templates" if wordings else None,
        outcome=ended(trace, table, pick)[0],
        objects=objects,
        picture=table.picture if table is not None else None,
        relations=landed_at(table, pick),
        plan=_plan(trace, segments),
        questions=card_questions(trace, table.board if table else None) if table is not None else (),
    )


def _plan(trace: ReasoningTrace, segments: SegmentList) -> tuple[PlanStep, ...]:
    """The steps that the joints show, each with the card that has the answer; a second try is a step again."""
    right = right_card(trace)
    noun = None if right is None else card_nouns(len(trace.cards))[right]
    return tuple(
        PlanStep(label=label, noun=None if label in ("retreat", "move") else noun) for label in executed(segments)
    )


def card_questions(trace: ReasoningTrace, board: Box | None) -> tuple[QuestionAnswer, ...]:
    """Questions about the picture that what was read answers; nothing is asked about what was not read."""
    nouns = card_nouns(len(trace.cards))
    found: list[tuple[str, str]] = []
    if trace.cards:
        found.append(("How many cards are on the table?", f"{len(trace.cards)}."))
    if trace.board is not None:
        found.append(("What is written on the board?", f"{trace.board}."))
    if trace.solution is not None:
        found.append(("What does the sum on the board come to?", f"{trace.solution}."))
    if board is not None:
        found.append(("Where is the board?", f"At {list(board)}."))
    for noun, card in zip(nouns, trace.cards, strict=True):
        if card.text != UNREAD:
            found.append((f"What is on the {noun}?", f"{card.text}."))
        if card.box_xyxy is not None:
            found.append((f"Where is the {noun}?", f"At {list(card.box_xyxy)}."))
    texts = [card.text for card in trace.cards]
    found += [
        (f"Which card shows {text}?", f"The {noun}.")
        for noun, text in zip(nouns, texts, strict=True)
        if text != UNREAD and texts.count(text) == 1
    ]
    if (right := right_card(trace)) is not None:
        found.append(("Which card has the answer?", f"The {nouns[right]}."))
    return tuple(QuestionAnswer(question=question, answer=answer) for question, answer in found)
