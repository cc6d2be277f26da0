"""What an edit changes, in the words of the form, and what programs find odd about it at once.

Oddities are shown and may be saved: the person is the authority, and the board may hold a mistake.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import zip_longest

from annotators.arithmetic import answer, canonical, canonical_number, worked_line
from annotators.ledger.rows import AnyPayload
from annotators.placements import read_instruction
from annotators.review import segment_rows
from annotators.scene_forms import loose_nouns, misplaced_answers, placement_fields, scene_fields
from schemas.annotations import Card, ReasoningTrace, SegmentList, VerifierResult
from schemas.scenes import PlacementTrace, SceneNotes


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldChange:
    """One field that a person changed."""

    name: str
    before: str
    after: str


def changes(before: AnyPayload, after: AnyPayload) -> tuple[FieldChange, ...]:
    """What differs between a proposal and an edit, field by field, in the words of the form."""
    return tuple(_changed(_fields(before), _fields(after)))


def _changed(old: dict[str, list[str]], new: dict[str, list[str]]) -> Iterator[FieldChange]:
    for name in dict.fromkeys([*old, *new]):
        was, now = old.get(name, []), new.get(name, [])
        is_list = max(len(was), len(now)) > 1
        for tag, start, stop, other_start, other_stop in SequenceMatcher(None, was, now, autojunk=False).get_opcodes():
            if tag == "equal":
                continue
            pairs = zip_longest(was[start:stop], now[other_start:other_stop], fillvalue="nothing")
            for number, (gone, come) in enumerate(pairs, start + 1):
                yield FieldChange(name=f"{name} {number}" if is_list else name, before=gone, after=come)


def _fields(payload: AnyPayload) -> dict[str, list[str]]:
    """What a payload says: one entry for each field, of several lines where it is a list."""
    match payload:
        case PlacementTrace():
            return placement_fields(payload)
        case SceneNotes():
            return scene_fields(payload)
        case ReasoningTrace():
            fields = {
                "board": payload.board or "nothing",
                "solution": payload.solution or "nothing",
                "pick": payload.pick_text or "nothing",
                "pick from": str(payload.pick_position),
            }
            if payload.boxed_in is not None:
                fields["boxes"] = f"seen to in frame {payload.boxed_in.frame} of {payload.boxed_in.camera}"
            if payload.board_box_xyxy is not None:
                fields["board box"] = f"{payload.board_box_xyxy[:2]} to {payload.board_box_xyxy[2:]}"
            fields |= {f"card {number}": _card_words(card) for number, card in enumerate(payload.cards, 1)}
            return {name: [words] for name, words in fields.items()}
        case SegmentList():
            return {
                f"segment {number}": [f"{label} {start_s}-{end_s} s, {end_effector}"]
                for number, (start_s, end_s, label, end_effector) in enumerate(segment_rows(payload), 1)
            }


def _card_words(card: Card) -> str:
    box = f", box {card.box_xyxy[:2]} to {card.box_xyxy[2:]}" if card.box_xyxy else ""
    return f"{card.text} ({card.position}{box})"


def recheck(payload: AnyPayload) -> tuple[VerifierResult, ...]:
    """What programs say about edited words at once, without pixels: sums, picks, nouns, answers, how it ended."""
    match payload:
        case ReasoningTrace():
            return (_sum_check(payload), _pick_check(payload))
        case SceneNotes():
            return (_noun_check(payload), _answer_check(payload), *_outcome_check(payload))
        case PlacementTrace() | SegmentList():
            return ()


def _noun_check(notes: SceneNotes) -> VerifierResult:
    if loose := loose_nouns(notes):
        return _found("nouns", "fail", f"no thing is called {', '.join(map(repr, loose))}")
    return _found("nouns", "pass", "relations and steps are about things that are there")


def _answer_check(notes: SceneNotes) -> VerifierResult:
    if wrong := misplaced_answers(notes):
        return _found("answers", "fail", f"the answer is not the box of the thing: {' '.join(wrong)}")
    return _found("answers", "pass", "answers about places are the boxes of things")


def _outcome_check(notes: SceneNotes) -> Iterator[VerifierResult]:
    """Where the instruction says what goes where and a relation says where it lies: whether the outcome follows."""
    asked = read_instruction(notes.instruction)
    if asked is None:
        return
    pair = (asked.target, asked.reference)
    after = [one.relation for one in notes.relations if one.when == "after" and (one.subject, one.reference) == pair]
    if not after or "unknown" in (after[-1], notes.outcome):
        return
    lies = f"afterwards the {asked.target} is {after[-1]} the {asked.reference}"
    if (after[-1] == asked.relation) != (notes.outcome == "success"):
        yield _found("outcome", "fail", f"{lies}, {asked.relation} was asked, and the outcome is {notes.outcome}")
    else:
        yield _found("outcome", "pass", f"{lies}")


def _sum_check(trace: ReasoningTrace) -> VerifierResult:
    if trace.board is None or trace.solution is None:
        missing = "board" if trace.board is None else "solution"
        return _found("arithmetic", "unknown", f"there is no {missing} to check")
    line = worked_line(trace.board)
    if line is None:
        return _found("arithmetic", "unknown", f"'{trace.board}' is no sum that can be worked out")
    if _spelled(trace.solution) == _spelled(line):
        return _found("arithmetic", "pass", f"{line} follows from the board")
    return _found("arithmetic", "fail", f"the board gives {line}, the solution says {trace.solution}")


def _spelled(line: str) -> tuple[str | None, ...]:
    """Both sides of a worked line, each in its one spelling."""
    return tuple(canonical_number(side) or canonical(side) for side in line.split("="))


def _pick_check(trace: ReasoningTrace) -> VerifierResult:
    line = worked_line(trace.board) if trace.board else None
    if trace.pick_text is None or trace.board is None or line is None:
        return _found("pick_answers_board", "unknown", "there is no pick, or no answer to compare it with")
    asked_for = answer(trace.board)
    if canonical_number(trace.pick_text) == asked_for:
        return _found("pick_answers_board", "pass", f"{trace.pick_text} is the answer to {trace.board}")
    return _found("pick_answers_board", "fail", f"the answer is {asked_for}, the pick is {trace.pick_text}")


def _found(verifier: str, verdict: str, evidence: str) -> VerifierResult:
    return VerifierResult.model_validate(
        {"verifier": verifier, "version": 1, "verdict": verdict, "hard": True, "evidence": evidence}
    )
