"""What a rendered picture shows: the table from above, or a whiteboard close up."""

from dataclasses import dataclass
from typing import Literal, get_args

from dataengine.rendered.arms import ArmPose
from dataengine.rendered.equations import Equation
from dataengine.rendered.layouts import Place

type ThingKind = Literal["cube", "ball", "ring", "triangle"]
type Colour = Literal["red", "green", "blue", "yellow", "purple", "black"]
type Doodle = Literal["house", "star", "face", "wave", "arrow", "spiral"]
THINGS: tuple[ThingKind, ...] = get_args(ThingKind.__value__)
COLOURS: tuple[Colour, ...] = get_args(Colour.__value__)
DOODLES: tuple[Doodle, ...] = get_args(Doodle.__value__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """A whiteboard: words or an equation, a drawing, or nothing."""

    text: str = ""
    doodle: Doodle | None = None
    equation: Equation | None = None  # what the text asks, where it asks one

    def __post_init__(self) -> None:
        if self.text and self.doodle:
            raise ValueError(f"A board shows words or a drawing, got {self.text!r} and a {self.doodle}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberCard:
    """A card on the table; `raised_m` is how far its underside is above it."""

    number: int
    place: Place
    raised_m: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """A simple coloured object on the table."""

    kind: ThingKind
    colour: Colour
    place: Place
    half_m: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TableView:
    """The table from the tabletop's upper camera; `board` is None where none stands there."""

    style: str
    board: Board | None
    cards: tuple[NumberCard, ...]
    things: tuple[Thing, ...]
    arms: tuple[ArmPose, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseUp:
    """A whiteboard that fills most of the picture."""

    style: str
    board: Board
