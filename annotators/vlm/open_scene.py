"""What a model is asked about the scene of any manipulation, and what its answers make of it.

The first picture alone is asked for things and plan; the last one alone for things; both, and the last one alone once
more, for how it ended. No question knows another's answer. The noted task is data: it is fenced.
"""

from collections.abc import Mapping
from dataclasses import replace

from annotators.calls import RawAnswer
from annotators.families import Family
from annotators.open_scenes import OpenScene
from annotators.vlm.answers import EndingAnswer, Question, SettingAnswer, ThingsAnswer, parse, schema_of
from annotators.vlm.inventory import noun_of, objects_of
from annotators.vlm.protocol import ImagePart, Request, Speaker, TextPart, Turn
from annotators.vlm.steps import fenced
from schemas.annotations import SegmentList
from schemas.scenes import PlanStep

# What is asked: its question, and the pictures it is about.
LOOKS: dict[str, tuple[Question, tuple[str, ...]]] = {
    "setting": ("setting", ("before",)),
    "things_after": ("things_after", ("after",)),
    "ending_first": ("ending", ("before", "after")),
    "ending_second": ("ending", ("after",)),
}
QUESTIONS: tuple[Question, ...] = ("setting", "things_after", "ending")
_TOKENS: dict[Question, int] = {"setting": 1536, "things_after": 1024}  # of an answer: dozens of things and steps


def open_questions_about(
    family: Family, speaker: Speaker, pictures: Mapping[str, bytes], task: str, seen: OpenScene
) -> dict[str, Request]:
    """One request for each look that the family has a prompt for, from JPEG bytes."""
    asked = {}
    size = f"Each picture is {seen.picture.width} pixels wide and {seen.picture.height} pixels high."
    words = f"{size}\n\nThe task as it was noted:\n{fenced(task)}"
    for look, (question, names) in LOOKS.items():
        if question not in family.prompts:
            continue
        most_tokens = max(speaker.decode.max_tokens, _TOKENS.get(question, 0))
        shown = tuple(ImagePart(pictures[name], "image/jpeg") for name in names)
        asked[look] = Request(
            speaker=replace(speaker, decode=replace(speaker.decode, max_tokens=most_tokens)),
            turns=(
                Turn(role="system", parts=(TextPart(family.prompts[question]),)),
                Turn(role="user", parts=(TextPart(words), *shown)),
            ),
            schema_name=question,
            schema=schema_of(question),
        )
    return asked


def heard(seen: OpenScene, answers: Mapping[str, RawAnswer], named: SegmentList) -> tuple[OpenScene, int]:
    """The scene as a model saw it, and how many of its answers were not in the asked form.

    `named`: the segments with what they were said to be about.
    """
    setting = parse(answers["setting"], SettingAnswer) if "setting" in answers else None
    later = parse(answers["things_after"], ThingsAnswer) if "things_after" in answers else None
    looks = [look for look in LOOKS if look.startswith("ending_") and look in answers]
    endings = [parse(answers[look], EndingAnswer) for look in looks]
    plan = tuple(
        PlanStep(label=step.label, noun=_name(step.object), reference=_name(step.place))
        for step in (setting.plan if setting else ())
    )
    grasped = (_name(one.about) for one in named.segments if one.phase == "grasp")
    said = [one for one, look in ((setting, "setting"), (later, "things_after")) if look in answers]
    return replace(
        seen,
        before=objects_of(setting.things) if setting else (),
        after=objects_of(later.things) if later else None,
        plan=plan,
        endings=tuple(one.outcome if one else None for one in endings),
        handled=tuple(noun for noun in grasped if noun),
    ), sum(one is None for one in (*said, *endings))


def _name(words: str | None) -> str | None:
    return noun_of(words) or None if words else None
