"""The rules of review: what a reviewer may change in traces and segments, and how their words become a payload.

A form holds what was typed, as it was typed. Reading it gives either a payload or sentences about what to mend; nothing
that was typed is ever dropped or corrected in silence. Forms of scenes are in `annotators.scene_forms`, what is odd
about an edit in `annotators.edits`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

from annotators.ledger.proposal_facts import payload_marker
from annotators.ledger.rows import AnyPayload
from annotators.traces import MOST_CARDS
from schemas.annotations import (
    BoxedIn,
    Card,
    Position,
    ReasoningTrace,
    Segment,
    SegmentList,
    render_payload,
)
from schemas.records import sha256_of
from schemas.spans import NS_PER_S, frame_ns

POSITIONS: tuple[Position, ...] = get_args(Position)
LABELS = ("reach", "grasp", "carry", "release", "retreat", "move", "hold", "unknown")
_HALF_MS = 500_000  # nanoseconds: times are shown to the millisecond
NUM_CARDS = 3  # rows of the form; a trace with more cards gets more rows, up to MOST_CARDS


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceForm:
    """A reasoning trace as typed: every field a string, empty for "not read"."""

    board: str = ""
    solution: str = ""
    cards: tuple[tuple[str, str], ...] = ()  # (text, position)
    pick_text: str = ""
    pick_position: str = "unknown"
    drawn: tuple[tuple[int, tuple[int, int, int, int] | None], ...] = ()  # (row of a card, the box somebody drew)
    board_box: tuple[int, int, int, int] | None = None
    boxed_in: BoxedIn | None = None  # the picture of the boxes, where a person saw to them

    @classmethod
    def of(cls, trace: ReasoningTrace) -> "TraceForm":
        """The form that shows a trace, with room for more cards; what is beyond the last row is not in it."""
        cards = tuple((card.text, str(card.position)) for card in trace.cards[:MOST_CARDS])
        return cls(
            board=trace.board or "",
            solution=trace.solution or "",
            cards=cards + (("", "unknown"),) * (NUM_CARDS - len(cards)),
            pick_text=trace.pick_text or "",
            pick_position=trace.pick_position,
            board_box=trace.board_box_xyxy,
            boxed_in=trace.boxed_in,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a form amounts to: a payload, or sentences that say what to mend."""

    payload: AnyPayload | None
    problems: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The words the model would learn; empty while something must be mended."""
        return "" if self.payload is None else render_payload(self.payload)


def read_trace(form: TraceForm, base: ReasoningTrace) -> Reading:
    """The trace a form stands for. A card has the box that was drawn; else it keeps the one it had with this text and
    place."""
    if len(base.cards) > MOST_CARDS:
        same = form == TraceForm.of(base)
        return Reading(payload=base) if same else Reading(payload=None, problems=(_too_many(base),))
    problems: list[str] = []
    board, solution, pick = (words_in(text) for text in (form.board, form.solution, form.pick_text))
    places = [*((f"The card {text!r}", where) for text, where in form.cards), ("The pick", form.pick_position)]
    problems += [
        f"{name} can not be at '{where}'. Choose {', '.join(POSITIONS)}."
        for name, where in places
        if where not in POSITIONS
    ]
    cards: list[tuple[str, str]] = []
    boxes: list[tuple[int, int, int, int] | Literal["kept"] | None] = []
    drawn = dict(form.drawn)
    if is_no_box(form.board_box):
        problems.append("The box of the board is empty or leaves the picture. Draw it again.")
    for row, (text, where) in enumerate(form.cards):
        words = words_in(text)
        box = drawn.get(row)
        if is_no_box(box):
            problems.append(f"The box of card {row + 1} is empty or leaves the picture. Draw it again.")
        if box is not None and words is None:
            problems.append(f"Card {row + 1} has a box and no number. Type what is on it, or delete the box.")
        if words is None and where != "unknown":
            problems.append(f"The card at the {where} has no number. Type what is on it, or set its place to unknown.")
        elif words is not None:
            cards.append((words, where))
            boxes.append(box if row in drawn else "kept")
    taken = [where for _, where in cards if where != "unknown"]
    problems += [
        f"Two cards are at the {where}. Give each its own place."
        for where in sorted({where for where in taken if taken.count(where) > 1})
    ]
    problems += _pick_problems(cards, pick, form.pick_position)
    if problems:
        return Reading(payload=None, problems=tuple(problems))
    known = {(card.text, card.position): card for card in base.cards}
    payload = ReasoningTrace(
        board=board,
        solution=solution,
        cards=tuple(
            known.get((text, cast(Position, where)), Card(text=text, position=cast(Position, where)))
            if box == "kept"
            else Card(text=text, position=cast(Position, where), box_xyxy=box)
            for (text, where), box in zip(cards, boxes, strict=True)
        ),
        pick_text=pick,
        pick_position=cast(Position, form.pick_position),
        board_box_xyxy=form.board_box,
        boxed_in=form.boxed_in,
    )
    return plain(payload)


def is_no_box(box: tuple[int, int, int, int] | None) -> bool:
    """True for a box that holds no pixel, or begins before the picture does."""
    return box is not None and not (0 <= box[0] < box[2] and 0 <= box[1] < box[3])


def _too_many(base: ReasoningTrace) -> str:
    return (
        f"This trace has {len(base.cards)} cards and the form holds {MOST_CARDS}, so it can not be edited here. "
        "Reset the fields and accept it, or reject it."
    )


def plain(payload: AnyPayload) -> Reading:
    """The payload, unless a tokenizer would take some of its words for a command."""
    if marker := payload_marker(payload):
        return Reading(payload=None, problems=(f"The words hold the chat marker {marker}. Take it out.",))
    return Reading(payload=payload)


def _pick_problems(cards: Sequence[tuple[str, str]], pick: str | None, where: str) -> list[str]:
    if pick is None:
        return [] if where == "unknown" else [f"The pick is from the {where} but has no number. Type it."]
    if not cards:
        return []
    if pick not in [text for text, _ in cards]:
        return [f"No card reads '{pick}', so it can not be picked. Correct the pick or a card."]
    if where != "unknown" and (pick, where) not in cards and (pick, "unknown") not in cards:
        there = ", ".join(place for text, place in cards if text == pick)
        return [f"The {pick} is at the {there}, not at the {where}. Correct one of them."]
    return []


def read_segments(
    rows: Sequence[Sequence[object]], base: SegmentList, *, end_ns: int, rate_hz: int | None = None
) -> Reading:
    """The segments a table of (start_s, end_s, label, end effector) stands for.

    Times that still show what the base says keep its exact nanoseconds, and those that show a frame's time mean the
    frame. `end_ns` is where the episode ends.
    """
    problems: list[str] = []
    segments: list[Segment] = []
    known = {*LABELS, *(part.label for part in base.segments)}  # another program may name its segments otherwise
    exact = {shown_s(ns): ns for part in base.segments for ns in (part.start_ns, part.end_ns)}
    for number, row in enumerate(rows, 1):
        start_s, end_s, label, end_effector = (str(cell).strip() for cell in row)
        if not any((start_s, end_s, label, end_effector)):
            continue
        start_ns, stop_ns = (_time_ns(text, exact, rate_hz) for text in (start_s, end_s))
        if start_ns is None or stop_ns is None:
            problems.append(f"Row {number}: times are seconds such as 1.25, got '{start_s}' and '{end_s}'.")
            continue
        before = segments[-1].end_ns if segments else 0
        if not before <= start_ns < stop_ns <= end_ns:
            problems.append(
                f"Row {number}: {start_s} to {end_s} s must move forward, start at {shown_s(before)} s or later and "
                f"end by {shown_s(end_ns)} s."
            )
            continue
        if label not in known and label.partition(" ")[0] not in LABELS:  # an object may follow: "grasp red cup"
            problems.append(f"Row {number}: '{label}' is no label. Use {', '.join(LABELS)}.")
            continue
        moves = next((part.moves for part in base.segments if (part.start_ns, part.end_ns) == (start_ns, stop_ns)), ())
        segments.append(
            Segment(start_ns=start_ns, end_ns=stop_ns, label=label, end_effector=end_effector or "unknown", moves=moves)
        )
    if not segments and not problems:
        problems.append("There is no segment. Keep at least one row, or reject the item.")
    if problems:
        return Reading(payload=None, problems=tuple(problems))
    return plain(SegmentList(segments=tuple(segments), events=base.events))


def segment_rows(payload: SegmentList) -> list[list[str]]:
    """The table that shows segments."""
    return [[shown_s(part.start_ns), shown_s(part.end_ns), part.label, part.end_effector] for part in payload.segments]


def shown_s(stamp_ns: int) -> str:
    """Nanoseconds as seconds to the millisecond, the way a reviewer sees and types them."""
    return f"{stamp_ns / NS_PER_S:.3f}"


def _time_ns(text: str, exact: dict[str, int], rate_hz: int | None) -> int | None:
    if text in exact:
        return exact[text]
    try:
        stamp_ns = round(float(text) * NS_PER_S)
        frame_at_ns = frame_ns(round(float(text) * rate_hz), rate_hz) if rate_hz else stamp_ns
    except (ValueError, OverflowError):  # not a number, or infinite
        return None
    return frame_at_ns if abs(frame_at_ns - stamp_ns) <= _HALF_MS else stamp_ns


def words_in(text: str) -> str | None:
    """What was typed, with single spaces; None where there are no words."""
    return " ".join(text.split()) or None


def chosen_share(item_ids: Sequence[str], share: float) -> list[str]:
    """A share of items that looks random and is the same each time: more of them hold all of fewer."""
    return [item_id for item_id in item_ids if int(sha256_of(item_id)[:13], 16) / 16**13 < share]
