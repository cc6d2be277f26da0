"""The sheet: everything a reviewer typed or drew about the item that is shown, as one value.

A page of many fields reaches its server in pieces: on a busy machine some fields still hold what they started with when
another one changes, and a late answer overtakes a newer one. The sheet is sent and shown whole, names the item it is
about, and counts its changes, so that half of it or an old one is never taken for the present one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from annotators.ledger import Track
from annotators.ledger.rows import AnyPayload
from annotators.review import TraceForm, segment_rows
from annotators.scene_forms import PlacementForm, SceneForm, ThingRow
from annotators.traces import MOST_CARDS
from schemas.annotations import BoxedIn, ReasoningTrace, SegmentList
from schemas.scenes import PictureRef, PlacementTrace, SceneNotes

Box = tuple[int, int, int, int]
_FROZEN = ConfigDict(frozen=True, extra="forbid")
_Short = Annotated[str, Field(max_length=500)]
_Words = Annotated[str, Field(max_length=20_000)]  # of notes about a scene; a model may be wordy
_MOST_ROWS = 5_000
_FEWEST_CARDS = 3  # rows that a form shows at least


class Token(BaseModel):
    """What a browser remembers of the item it shows."""

    model_config = _FROZEN
    item_id: str
    base_proposal_id: str
    revision: int
    key: str  # fresh each time an item is shown: sending a decision twice counts once
    shown_ms: int
    track: Track = "review"

    @classmethod
    def read(cls, text: str | None) -> "Token | None":
        """The token in a text; None when nothing is shown."""
        try:
            return cls.model_validate_json(text or "")
        except ValidationError:
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Typed:
    """The fields of the page, as they are now."""

    trace: TraceForm
    segments: tuple[tuple[str, ...], ...]
    note: str
    placement: PlacementForm = field(default_factory=PlacementForm)
    scene: SceneForm = field(default_factory=SceneForm)
    ticked: tuple[str, ...] = ()  # names of the fields that were accepted one by one
    reason: str = ""  # of a reject; empty where none was named

    @property
    def is_empty_beside(self) -> bool:
        """True when nothing was said beside the fields."""
        return not (self.note.strip() or self.ticked)


class CardField(BaseModel):
    """One card's row: what is on it, where it lies, and its box where somebody drew one."""

    model_config = _FROZEN
    text: _Short = ""
    place: Annotated[str, Field(max_length=20)] = "unknown"
    box: Box | None = None  # in the pixels of the picture that the proposal read it from
    drawn: bool = False  # a person moved, drew or deleted the box


class ThingField(BaseModel):
    """One thing of a placement or a scene: the noun it goes by, and its box."""

    model_config = _FROZEN
    noun: _Words = ""
    box: Box | None = None  # in the pixels of the sheet's picture

    @classmethod
    def of(cls, row: ThingRow) -> "ThingField":
        """The field that shows a row."""
        return cls(noun=row.noun, box=row.box)

    def row(self) -> ThingRow:
        """What it says, as the forms take it."""
        return ThingRow(noun=self.noun, box=self.box)


class Remarked(BaseModel):
    """What is said about the item without deciding."""

    model_config = _FROZEN
    kind: Literal["flag", "comment"]
    words: Annotated[str, Field(max_length=2_000)]


class Sheet(BaseModel):
    """What goes to the browser when an item is shown, and comes back with every event."""

    model_config = _FROZEN
    token: Token | None = None  # None: nothing is shown
    kind: Literal["none", "trace", "segments", "placement", "scene"] = "none"
    sequence: int = Field(default=0, ge=0)  # how often it was changed since it was shown
    board: _Short = ""
    solution: _Short = ""
    cards: tuple[CardField, ...] = Field(default=(), max_length=MOST_CARDS)
    board_box: Box | None = None
    boxed_in: BoxedIn | None = None  # the picture of all boxes; None until somebody saw to one of them
    pick: _Short = ""
    pick_from: Annotated[str, Field(max_length=20)] = "unknown"
    rows: tuple[tuple[_Short, _Short, _Short, _Short], ...] = Field(default=(), max_length=_MOST_ROWS)
    things: tuple[ThingField, ...] = Field(default=(), max_length=_MOST_ROWS)  # of a placement: target and reference
    picture: PictureRef | None = None  # of the things' boxes
    relation: _Short = "unknown"  # of a placement
    side: _Short = "robot"
    instruction: _Words = ""  # of a scene, as all below
    outcome: _Short = "unknown"
    relations: tuple[tuple[_Words, _Words, _Words, _Words, _Words], ...] = Field(default=(), max_length=_MOST_ROWS)
    plan: tuple[tuple[_Words, _Words, _Words, _Words], ...] = Field(default=(), max_length=_MOST_ROWS)
    wordings: tuple[_Words, ...] = Field(default=(), max_length=_MOST_ROWS)
    questions: tuple[tuple[_Words, _Words], ...] = Field(default=(), max_length=_MOST_ROWS)
    note: Annotated[str, Field(max_length=2_000)] = ""
    ticked: tuple[Annotated[str, Field(max_length=40)], ...] = Field(default=(), max_length=_MOST_ROWS)
    reason: Annotated[str, Field(max_length=64)] = ""
    remark: Remarked | None = None
    saved: str = ""  # when the draft that fills it was saved; empty where the item's own words do

    @classmethod
    def read(cls, text: object) -> "Sheet":
        """The sheet in a text; an empty one for anything else, about which nothing can be decided."""
        try:
            return cls.model_validate_json(text if isinstance(text, str) else "")
        except ValidationError:
            return cls()

    @classmethod
    def of(cls, payload: AnyPayload, token: Token, *, sequence: int = 0) -> "Sheet":
        """The sheet that shows a payload."""
        match payload:
            case ReasoningTrace():
                form = TraceForm.of(payload)
                boxes = [card.box_xyxy for card in payload.cards[:MOST_CARDS]]
                boxes += [None] * (len(form.cards) - len(boxes))
                return cls(
                    token=token,
                    kind="trace",
                    sequence=sequence,
                    board=form.board,
                    solution=form.solution,
                    cards=tuple(
                        CardField(text=text, place=place, box=box)
                        for (text, place), box in zip(form.cards, boxes, strict=True)
                    ),
                    pick=form.pick_text,
                    pick_from=form.pick_position,
                    board_box=form.board_box,
                    boxed_in=form.boxed_in,
                )
            case SegmentList():
                rows = cast(tuple[tuple[str, str, str, str], ...], typed_cells(segment_rows(payload)))
                return cls(token=token, kind="segments", sequence=sequence, rows=rows)
            case PlacementTrace():
                placed = PlacementForm.of(payload)
                return cls(
                    token=token,
                    kind="placement",
                    sequence=sequence,
                    things=(ThingField.of(placed.target), ThingField.of(placed.reference)),
                    picture=placed.picture,
                    relation=placed.relation,
                    side=placed.side,
                )
            case SceneNotes():
                scene = SceneForm.of(payload)
                return cls(
                    token=token,
                    kind="scene",
                    sequence=sequence,
                    things=tuple(ThingField.of(one) for one in scene.things),
                    picture=scene.picture,
                    instruction=scene.instruction,
                    outcome=scene.outcome,
                    relations=cast(tuple[tuple[str, str, str, str, str], ...], scene.relations),
                    plan=cast(tuple[tuple[str, str, str, str], ...], scene.plan),
                    wordings=scene.wordings,
                    questions=cast(tuple[tuple[str, str], ...], scene.questions),
                )

    def typed(self) -> Typed:
        """What it says, as the rules of review take it."""
        cards = [(card.text, card.place or "unknown") for card in self.cards]
        while len(cards) > _FEWEST_CARDS and cards[-1] == ("", "unknown"):
            cards = cards[:-1]
        drawn = tuple((index, card.box) for index, card in enumerate(self.cards[: len(cards)]) if card.drawn)
        return Typed(
            trace=TraceForm(
                board=self.board,
                solution=self.solution,
                cards=tuple(cards),
                pick_text=self.pick,
                pick_position=self.pick_from or "unknown",
                drawn=drawn,
                board_box=self.board_box,
                boxed_in=self.boxed_in,
            ),
            segments=typed_cells(self.rows),
            placement=self._placement(),
            scene=SceneForm(
                instruction=self.instruction,
                outcome=self.outcome,
                things=tuple(one.row() for one in self.things),
                picture=self.picture,
                relations=self.relations,
                plan=self.plan,
                wordings=self.wordings,
                questions=self.questions,
            ),
            note=self.note,
            ticked=self.ticked,
            reason=self.reason,
        )

    def _placement(self) -> PlacementForm:
        target, reference = ([one.row() for one in self.things] + [ThingRow(), ThingRow()])[:2]
        return PlacementForm(
            target=target, relation=self.relation, reference=reference, side=self.side, picture=self.picture
        )

    def body(self) -> str:
        """What a draft keeps of it."""
        return self.model_dump_json(exclude={"token", "sequence", "saved", "reason", "remark"})

    def filled(self, body: str, saved: str) -> "Sheet":
        """The same sheet with the words of a draft; itself when the draft is about another kind of payload."""
        draft = Sheet.read(body)
        if draft.kind != self.kind:
            return self
        return draft.model_copy(update={"token": self.token, "sequence": self.sequence, "saved": saved})


def typed_cells(table: Sequence[Sequence[object]] | None) -> tuple[tuple[str, ...], ...]:
    """A table's cells as they were typed; rows cut or filled to four cells."""
    rows = [[("" if cell is None else str(cell)) for cell in row] for row in (table or ())]
    return tuple(tuple((row + [""] * 4)[:4]) for row in rows)
