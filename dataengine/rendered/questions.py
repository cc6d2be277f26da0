"""What is asked about a picture and the one form each answer has; a skill's first phrasing is the canonical one."""

from collections.abc import Sequence

import numpy as np

from dataengine.rendered.counting import counted_out
from dataengine.rendered.equations import Equation
from dataengine.rendered.items import Skill
from schemas.annotations import Card, Position, ReasoningTrace

POSITIONS: tuple[Position, ...] = ("left", "middle", "right")

PHRASES: dict[Skill, tuple[str, ...]] = {
    "transcribe": (
        "What is written on the whiteboard?",
        "Read the whiteboard.",
        "Which problem does the board show?",
    ),
    "solve": (
        "Solve what is written on the whiteboard.",
        "What is the result of the problem on the board?",
        "Work out the equation on the whiteboard.",
    ),
    "cards": (
        "Which cards lie on the table?",
        "Read the cards from left to right.",
        "List the numbers on the cards.",
    ),
    "choice": (
        "Which card is the correct answer?",
        "Which card do you pick, and from where?",
        "Pick the card that answers the board.",
    ),
    "trace": (
        "Answer the question and pick the card with the correct answer.",
        "Think aloud: read the board, solve it, read the cards and pick one.",
        "Explain step by step which card to pick.",
    ),
    "count": (
        "How many cards lie on the table?",
        "Count the cards.",
        "What is the number of cards on the table?",
    ),
    "colour": (
        "What colour is the {thing}?",
        "Name the colour of the {thing}.",
        "Which colour does the {thing} have?",
    ),
    "relation": (
        "Where is the {thing}, seen from the {other}?",
        "How does the {thing} lie relative to the {other}?",
        "Is the {thing} left of, right of, above or below the {other}?",
    ),
    "point": (
        "Where is the card {number}? Give pixel coordinates.",
        "Point to the card {number} in pixels.",
        "Give the pixel coordinates of the card that shows {number}.",
    ),
    "gripper": (
        "Does a gripper hold something?",
        "What do the grippers hold?",
        "Which gripper holds a card, and which card?",
    ),
    # Asked of boards that hold no equation, too: the other skills' own questions, see `scenes`.
    "refusal": (),
}


def phrase(skill: Skill, rng: np.random.Generator, **words: object) -> str:
    """One of a skill's phrasings, the canonical one half of the time."""
    options = PHRASES[skill]
    option = options[0] if rng.random() < 0.5 else options[int(rng.integers(1, len(options)))]
    return option.format(**words)


def transcribed(equation: Equation) -> str:
    """`The board reads 4+1.`"""
    return f"The board reads {equation.text}."


def solved(equation: Equation) -> str:
    """`4+1: 4,1 5,0. So 5.`: counted out, then said."""
    return f"{counted_out(equation)} So {equation.answer}."


def listed(numbers: Sequence[int]) -> str:
    """`Cards: 3 (left), 5 (middle), 7 (right).`; of another count than three, `Cards: 3, 5.`; from left to right."""
    if not numbers:
        return "There are no cards."
    if len(numbers) == len(POSITIONS):
        named = [f"{number} ({position})" for number, position in zip(numbers, POSITIONS, strict=True)]
        return f"Cards: {', '.join(named)}."
    return f"Cards: {', '.join(map(str, numbers))}."


def placed(number_or_position: int | Position) -> str:
    """`5.` or `left.`: one word about one of three cards."""
    return f"{number_or_position}."


def chosen(equation: Equation, numbers: Sequence[int]) -> str:
    """`4+1: 4,1 5,0. I pick 5 from the middle.`: what is picked follows from what was said, as in a trace."""
    place = POSITIONS[list(numbers).index(equation.answer)]
    return f"{counted_out(equation)} I pick {equation.answer} from the {place}."


def traced(equation: Equation, numbers: Sequence[int]) -> str:
    """The whole reasoning trace, rendered as annotations are, but its worked line is counted out: theirs is `4+1=5`."""
    cards = tuple(Card(text=str(n), position=position) for n, position in zip(numbers, POSITIONS, strict=True))
    return ReasoningTrace(
        board=equation.text,
        solution=counted_out(equation).removesuffix("."),
        cards=cards,
        pick_text=str(equation.answer),
        pick_position=POSITIONS[list(numbers).index(equation.answer)],
    ).render()


def counted(num_cards: int) -> str:
    """`There are 3 cards.`"""
    match num_cards:
        case 0:
            return "There are no cards."
        case 1:
            return "There is 1 card."
        case _:
            return f"There are {num_cards} cards."


def pointed(point_px: tuple[float, float]) -> str:
    """`(132, 87)`: column and row."""
    return f"({round(point_px[0])}, {round(point_px[1])})"


def held(side: str | None, number: int | None) -> str:
    """`The right gripper holds card 5.`; `... holds a card.` where its number is hidden."""
    if side is None:
        return "No gripper holds anything."
    return f"The {side} gripper holds {'a card' if number is None else f'card {number}'}."
