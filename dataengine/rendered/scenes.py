"""Which view is drawn for a skill, what is asked about it, and what must be in plain sight for the answer."""

from dataclasses import dataclass, field

import numpy as np

from dataengine.rendered import questions
from dataengine.rendered.arms import SIDES, ArmPose, Side, home
from dataengine.rendered.doodles import WORDS
from dataengine.rendered.equations import Equation, Split, draw_equation, equations
from dataengine.rendered.items import Difficulty, Skill
from dataengine.rendered.layouts import Place, draw_places
from dataengine.rendered.styles import draw_style, styles
from dataengine.rendered.table import CARD_HALF_M
from dataengine.rendered.views import COLOURS, DOODLES, THINGS, Board, CloseUp, NumberCard, TableView, Thing
from dataengine.rendered.writing import can_write

_BOARD_SKILLS: tuple[Skill, ...] = ("transcribe", "solve", "choice", "trace")
_THING_APART_M = 0.068
# Two things lie in one of the four relations when they are so far apart one way, and no further than that the other.
FAR_ALONG_M, FAR_ACROSS_M, ASIDE_M = 0.07, 0.112, 0.035
_HELD_OPENING = 0.52
_LIFTED_TIP_M = 0.055  # lower, a held card can not be told from one that lies
_IN_VIEW_M, _NEAR_EDGE_M = 0.17, -0.03  # further out, a raised hand leaves the picture


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A view and a question about it; the `needs_*` say what no arm may hide.

    `answer` of a point question is filled in from the drawn picture. `if_hidden` is the answer where the number of the
    card in the gripper can not be seen.
    """

    view: TableView | CloseUp
    question: str
    answer: str
    needs_board: bool = False
    needs_cards: tuple[int, ...] = ()
    needs_things: bool = False
    point_card: int | None = None
    if_hidden: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Painter:
    """Draws plans of one split at one difficulty."""

    split: Split
    difficulty: Difficulty
    rng: np.random.Generator
    most_cards: int | None = None  # where cards are the question: one to so many, all as likely
    style: str = field(init=False)

    def __post_init__(self) -> None:
        drawn = draw_style(self.split, share=self.difficulty.styles, hands=self.difficulty.hands, rng=self.rng)
        object.__setattr__(self, "style", drawn)

    def plan(self, skill: Skill) -> Plan:
        """A view for a skill."""
        match skill:
            case "transcribe" | "solve":
                return self._reading(skill)
            case "cards":
                return self._cards()
            case "choice" | "trace":
                return self._picking(skill)
            case "count":
                return self._count()
            case "colour":
                return self._colour()
            case "relation":
                return self._relation()
            case "point":
                return self._point()
            case "gripper":
                return self._gripper()
            case "refusal":
                return self._refusal()

    def _reading(self, skill: Skill) -> Plan:
        equation = self._equation()
        answer = questions.transcribed(equation) if skill == "transcribe" else questions.solved(equation)
        view: TableView | CloseUp
        if self._chance(0.5):
            view = CloseUp(style=self.style, board=self._asks(equation, ("", "=", "=?")))
        else:
            view = self._table(board=self._asks(equation), cards=self._lay(self._near(equation.answer)))
        return Plan(view=view, question=self._phrase(skill), answer=answer, needs_board=True)

    def _cards(self) -> Plan:
        num_cards = self._num_cards(1 - 0.4 * self.difficulty.geometry)
        cards = self._lay(self._numbers(num_cards))
        numbers = [card.number for card in cards]
        view = self._table(board=self._some_board(), cards=cards)
        return Plan(
            view=view,
            question=self._phrase("cards"),
            answer=questions.listed(numbers),
            needs_cards=tuple(range(num_cards)),
        )

    def _picking(self, skill: Skill) -> Plan:
        equation = self._equation()
        cards = self._lay(self._near(equation.answer))
        numbers = [card.number for card in cards]
        answer = (questions.chosen if skill == "choice" else questions.traced)(equation, numbers)
        view = self._table(board=self._asks(equation), cards=cards)
        return Plan(view=view, question=self._phrase(skill), answer=answer, needs_board=True, needs_cards=(0, 1, 2))

    def _count(self) -> Plan:
        num_cards = int(self.rng.integers(0, 6))
        view = self._table(board=self._some_board(), cards=self._lay(self._numbers(num_cards)))
        answer = questions.counted(num_cards)
        return Plan(view=view, question=self._phrase("count"), answer=answer, needs_cards=tuple(range(num_cards)))

    def _colour(self) -> Plan:
        cards = self._lay(self._numbers(int(self.rng.integers(0, 3))))
        things = self._things(int(self.rng.integers(1, 4)), cards)
        asked = things[0]
        return Plan(
            view=self._table(board=self._some_board(), cards=cards, things=things),
            question=self._phrase("colour", thing=asked.kind),
            answer=f"The {asked.kind} is {asked.colour}.",
            needs_things=True,
        )

    def _relation(self) -> Plan:
        relation = ("left of", "right of", "above", "below")[int(self.rng.integers(4))]
        far_m, aside_m = self.rng.uniform(FAR_ALONG_M, 0.15), self.rng.uniform(-ASIDE_M, ASIDE_M)
        dx_m, dy_m = {
            "left of": (-far_m * 1.6, aside_m),
            "right of": (far_m * 1.6, aside_m),
            "above": (aside_m, far_m),
            "below": (aside_m, -far_m),
        }[relation]
        middle_x_m = self.rng.uniform(-0.2 + abs(dx_m) / 2, 0.2 - abs(dx_m) / 2)
        middle_y_m = self.rng.uniform(-0.075 + abs(dy_m) / 2, 0.085 - abs(dy_m) / 2)
        kinds, colours = self.rng.permutation(THINGS)[:2], self.rng.permutation(COLOURS)[:2]
        thing, other = (
            self._thing(str(kind), str(colour), middle_x_m + sign * dx_m / 2, middle_y_m + sign * dy_m / 2)
            for kind, colour, sign in zip(kinds, colours, (1, -1), strict=True)
        )
        return Plan(
            view=self._table(board=self._some_board(), cards=(), things=(thing, other)),
            question=self._phrase("relation", thing=thing.kind, other=other.kind),
            answer=f"The {thing.kind} is {relation} the {other.kind}.",
            needs_things=True,
        )

    def _point(self) -> Plan:
        num_cards = self._num_cards(0.6)
        cards = self._lay(self._numbers(num_cards))
        asked = int(self.rng.integers(num_cards))
        return Plan(
            view=self._table(board=self._some_board(), cards=cards),
            question=self._phrase("point", number=cards[asked].number),
            answer="",
            needs_cards=(asked,),
            point_card=asked,
        )

    def _gripper(self) -> Plan:
        cards = self._lay(self._numbers(int(self.rng.integers(1, 4))))
        if self._chance(0.4):
            view = self._table(board=self._some_board(), cards=cards)
            # A hand that hides a card may or may not hold it.
            return Plan(
                view=view,
                question=self._phrase("gripper"),
                answer=questions.held(None, None),
                needs_cards=tuple(range(len(cards))),
            )
        # Any card may be the one that was taken.
        taken = int(self.rng.integers(len(cards)))
        side = SIDES[int(self.rng.integers(2))]
        pose, card = self._grip(side, cards[taken].number, taken)
        cards = (*cards[:taken], card, *cards[taken + 1 :])
        arms = [pose if other == side else home(other) for other in SIDES]
        return Plan(
            view=TableView(style=self.style, board=self._some_board(), cards=cards, things=(), arms=tuple(arms)),
            question=self._phrase("gripper"),
            answer=questions.held(side, card.number),
            if_hidden=questions.held(side, None),
        )

    def _refusal(self) -> Plan:
        match int(self.rng.integers(6)):
            case 0:
                view = self._table(board=None, cards=self._lay(self._numbers(int(self.rng.integers(0, 4)))))
                return Plan(view=view, question=self._about_board(), answer="There is no board.")
            case 1:
                return self._odd_board(Board(), "The board is empty.")
            case 2 | 3:
                return self._odd_board(self._no_equation(), "The board shows no equation.")
            case 4:
                return self._absent_card()
            case _:
                cards = self._lay(self._numbers(int(self.rng.integers(0, 3))))
                things = self._things(int(self.rng.integers(0, 3)), cards)
                present = {thing.kind for thing in things}
                missing = [kind for kind in THINGS if kind not in present]
                asked = missing[int(self.rng.integers(len(missing)))]
                return Plan(
                    view=self._table(board=self._some_board(), cards=cards, things=things),
                    question=self._phrase("colour", thing=asked),
                    answer=f"There is no {asked}.",
                    needs_things=True,
                )

    def _odd_board(self, board: Board, answer: str) -> Plan:
        style = self.style
        if board.text and not can_write(style):
            letters = [name for name in styles(self.split, 1.0) if can_write(name)]
            style = letters[int(self.rng.integers(len(letters)))]
        view: TableView | CloseUp = CloseUp(style=style, board=board)
        if self._chance(0.5):
            cards = self._lay(self._numbers(3))
            view = TableView(style=style, board=board, cards=cards, things=(), arms=self._arms())
        return Plan(view=view, question=self._about_board(), answer=answer, needs_board=True)

    def _absent_card(self) -> Plan:
        cards = self._lay(self._numbers(int(self.rng.integers(0, 4))))
        view = self._table(board=self._some_board(), cards=cards)
        everything = tuple(range(len(cards)))
        if not cards:
            question = self._phrase("cards")
            return Plan(view=view, question=question, answer=questions.listed(()))
        present = {card.number for card in cards}
        missing = [number for number in range(19) if number not in present]
        asked = missing[int(self.rng.integers(len(missing)))]
        question = self._phrase("point", number=asked)
        return Plan(view=view, question=question, answer=f"There is no card {asked}.", needs_cards=everything)

    def _about_board(self) -> str:
        return self._phrase(_BOARD_SKILLS[int(self.rng.integers(len(_BOARD_SKILLS)))])

    def _no_equation(self) -> Board:
        if self._chance(0.5):
            words = WORDS[self.split]
            return Board(text=words[int(self.rng.integers(len(words)))])
        return Board(doodle=DOODLES[int(self.rng.integers(len(DOODLES)))])

    def _equation(self) -> Equation:
        # Nothing is drawn where there are none: pictures of before must stay what they are.
        if self.difficulty.brackets and self._chance(self.difficulty.brackets):
            pool = equations(self.split, "brackets")
            return pool[int(self.rng.integers(len(pool)))]
        return draw_equation(split=self.split, share=self.difficulty.equations, rng=self.rng)

    def _asks(self, equation: Equation, endings: tuple[str, ...] = ("=?", "=?", "=?", "=", "")) -> Board:
        return Board(text=equation.text + self._asked(endings), equation=equation)

    def _asked(self, endings: tuple[str, ...]) -> str:
        place = int(self.rng.integers(len(endings)))
        return endings[place] if self._chance(self.difficulty.geometry) else endings[0]

    def _some_board(self) -> Board | None:
        if self._chance(0.15 * self.difficulty.geometry):
            return None
        return self._asks(self._equation())

    def _table(
        self, *, board: Board | None, cards: tuple[NumberCard, ...], things: tuple[Thing, ...] = ()
    ) -> TableView:
        return TableView(style=self.style, board=board, cards=cards, things=things, arms=self._arms())

    def _lay(self, numbers: list[int]) -> tuple[NumberCard, ...]:
        places = draw_places(split=self.split, num_cards=len(numbers), freedom=self.difficulty.geometry, rng=self.rng)
        return tuple(NumberCard(number=number, place=place) for number, place in zip(numbers, places, strict=True))

    def _num_cards(self, share_of_three: float) -> int:
        if self.most_cards is not None:
            return int(self.rng.integers(1, self.most_cards + 1))
        return 3 if self._chance(share_of_three) else int(self.rng.integers(1, 6))

    def _numbers(self, num_cards: int) -> list[int]:
        most = 40 if self._chance(0.2 * self.difficulty.equations) else 18
        return [int(number) for number in self.rng.choice(most + 1, num_cards, replace=False)]

    def _near(self, answer: int) -> list[int]:
        """Three numbers, the answer among them; near misses, so that guessing by size does not work."""
        near = [number for number in range(max(0, answer - 5), answer + 6) if number != answer]
        numbers = [answer, *(int(number) for number in self.rng.choice(near, 2, replace=False))]
        return [numbers[place] for place in self.rng.permutation(3)]

    def _arms(self) -> tuple[ArmPose, ...]:
        """Both at home, or one somewhere over the table; at times none at all."""
        if self._chance(0.1 * self.difficulty.geometry):
            return ()
        roams = SIDES[int(self.rng.integers(2))] if self._chance(0.5 * self.difficulty.geometry) else None
        return tuple(
            ArmPose(
                side=side,
                tip_m=self._tip(side),
                yaw_rad=float(self.rng.uniform(-0.3, 0.3)),
                opening=float(self.rng.uniform(0.2, 0.98)),
            )
            if side == roams
            else home(side)
            for side in SIDES
        )

    def _tip(self, side: Side) -> tuple[float, float, float]:
        x_m = float(self.rng.uniform(-0.05, 0.26)) * (-1 if side == "left" else 1)
        return x_m, float(self.rng.uniform(-0.10, 0.20)), float(self.rng.uniform(0.03, 0.26))

    def _grip(self, side: Side, number: int, place: int) -> tuple[ArmPose, NumberCard]:
        """A hand around a card: by its middle, as the tabletop's operator does, or by an end: then it can be read."""
        x_m, y_m, z_m = self._tip(side)
        x_m, z_m = float(np.clip(x_m, -_IN_VIEW_M, _IN_VIEW_M)), max(z_m, _LIFTED_TIP_M)
        y_m = max(y_m, _NEAR_EDGE_M)
        yaw_rad = float(self.rng.uniform(-0.3, 0.3)) * self.difficulty.geometry
        off_m = float(self.rng.uniform(0.026, 0.034) if self._chance(0.6) else self.rng.uniform(0.006, 0.012))
        # Mostly away from the arm, whose wrist hides what lies towards its base.
        off_m *= (1 if side == "left" else -1) * (1 if self._chance(0.8) else -1)
        opening = _HELD_OPENING + float(self.rng.uniform(-0.02, 0.02))
        pose = ArmPose(side=side, tip_m=(x_m, y_m, z_m), yaw_rad=yaw_rad, opening=opening, holds=place)
        spot: Place = (x_m + off_m * float(np.cos(yaw_rad)), y_m + off_m * float(np.sin(yaw_rad)), yaw_rad)
        return pose, NumberCard(number=number, place=spot, raised_m=z_m - 0.003 - CARD_HALF_M[2])

    def _things(self, num_things: int, cards: tuple[NumberCard, ...]) -> tuple[Thing, ...]:
        kinds, colours = self.rng.permutation(THINGS), self.rng.permutation(COLOURS)
        taken = [card.place[:2] for card in cards]
        things = []
        for number in range(num_things):
            while True:
                x_m, y_m = float(self.rng.uniform(-0.2, 0.2)), float(self.rng.uniform(-0.075, 0.085))
                if all(np.hypot(x_m - x, y_m - y) > _THING_APART_M for x, y in taken):
                    break
            taken.append((x_m, y_m))
            things.append(self._thing(str(kinds[number]), str(colours[number]), x_m, y_m))
        return tuple(things)

    def _thing(self, kind: str, colour: str, x_m: float, y_m: float) -> Thing:
        named = next(known for known in THINGS if known == kind)
        painted = next(known for known in COLOURS if known == colour)
        half_m = float(self.rng.uniform(0.019, 0.026))
        yaw_rad = float(self.rng.uniform(-0.5, 0.5)) * self.difficulty.geometry
        return Thing(kind=named, colour=painted, place=(float(x_m), float(y_m), yaw_rad), half_m=half_m)

    def _phrase(self, skill: Skill, **words: object) -> str:
        return questions.phrase(skill, self.rng, **words)

    def _chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)
