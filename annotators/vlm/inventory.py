"""What a model is asked about a table of things, and what its answers make of a placement.

One question about two pictures, before the grasp and after the release; neither call knows of the other, of what is
to be moved, or of where to. Both nouns of the instruction are told, in the order of the alphabet, so that one thing has
one noun in both answers. What lies where to what, what moved and how it ended is computed from the boxes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from annotators.calls import RawAnswer
from annotators.families import Family
from annotators.placements import PlacementSeen, moved_nouns, read_instruction
from annotators.vlm.answers import ThingAnswer, ThingsAnswer, parse, schema_of
from annotators.vlm.protocol import ImagePart, Request, Speaker, TextPart, Turn
from annotators.vlm.steps import fenced
from schemas.scenes import SceneObject

LOOKS = ("before", "after")
_TOKENS = 1024  # of an answer: a dozen things and their boxes are about 400


def inventory_questions(
    family: Family, speaker: Speaker, pictures: Mapping[str, bytes], task: str, seen: PlacementSeen
) -> dict[str, Request]:
    """One question for each picture that there is, from PNG bytes."""
    decode = speaker.decode
    roomy = replace(speaker, decode=replace(decode, max_tokens=max(decode.max_tokens, _TOKENS)))
    asked = read_instruction(task)
    nouns = ", ".join(sorted((asked.target, asked.reference))) if asked else "none"
    size = f"The picture is {seen.picture.width} pixels wide and {seen.picture.height} pixels high."
    words = f"{size}\n\nNouns that may be of use:\n{fenced(nouns)}"
    return {
        look: Request(
            speaker=roomy,
            turns=(
                Turn(role="system", parts=(TextPart(family.prompts["things"]),)),
                Turn(role="user", parts=(TextPart(words), ImagePart(pictures[look]))),
            ),
            schema_name="things",
            schema=schema_of("things"),
        )
        for look in LOOKS
        if look in pictures
    }


def inventoried(seen: PlacementSeen, answers: Mapping[str, RawAnswer]) -> tuple[PlacementSeen, int]:
    """The placement as a model saw it, and how many of its answers were not in the asked form.

    Frames, and the pixels that changed when the hand closed, stay what programs found; their own boxes become a second
    opinion about the model's.
    """
    said = {look: parse(answers[look], ThingsAnswer) for look in LOOKS if look in answers}
    before, after = (objects_of(one.things) if (one := said.get(look)) else () for look in LOOKS)
    heard = replace(seen, before=before, after=after, moved=moved_nouns(before, after), recognised=seen.before)
    return heard, sum(answer is None for answer in said.values())


def objects_of(things: Sequence[ThingAnswer]) -> tuple[SceneObject, ...]:
    """An inventory as a model gives it, its nouns as instructions write them."""
    return tuple(SceneObject(noun=noun_of(one.noun), box_xyxy=_box(one.box)) for one in things if noun_of(one.noun))


def noun_of(words: str) -> str:
    """As instructions write nouns: `The Red box` and `red box` are one."""
    first, *rest = words.lower().split() or [""]
    return " ".join(rest if first in ("the", "a", "an") and rest else [first, *rest])


def _box(box: tuple[int, ...] | None) -> tuple[int, int, int, int] | None:
    return None if box is None else (box[0], box[1], box[2], box[3])
