"""What a model is asked about segments that a program has cut, and what its answers make of them.

It names things; it moves no boundary and renames no phase. What a hand holds is asked twice: for the whole episode on
contact sheets, with the task as it was noted, and for each grasp on a collage that knows neither the task nor the first
answer. Writing in a scene and the noted task are data: they are fenced, and taken for nothing else.
"""

from collections.abc import Mapping
from dataclasses import replace

from annotators.calls import RawAnswer
from annotators.families import Family
from annotators.vlm.answers import HeldAnswer, Question, StepsAnswer, parse, schema_of
from annotators.vlm.protocol import ImagePart, Request, RequestPart, Speaker, TextPart, Turn
from schemas.annotations import SegmentList
from schemas.spans import NS_PER_S

_TOKENS_PER_SEGMENT = 48  # of an answer
_NAMED = frozenset({"reach", "grasp", "carry", "release"})  # phases in which a hand deals with a thing
_PLACED = frozenset({"carry", "release"})


def fenced(words: str) -> str:
    """Untrusted words as data: whatever they hold, they can not end the fence."""
    return f"<data>\n{words.replace('<', '(').replace('>', ')')}\n</data>"


def step_questions(
    family: Family, speaker: Speaker, pictures: Mapping[str, bytes], segments: SegmentList, task: str
) -> dict[str, Request]:
    """One question over all sheets, one per collage."""
    sheets = [ImagePart(data, "image/jpeg") for name, data in pictures.items() if name.startswith("sheet_")]
    listed = "\n".join(
        f"{number}. {one.start_ns / NS_PER_S:.2f} to {one.end_ns / NS_PER_S:.2f} s, {one.end_effector}: {one.phase}"
        for number, one in enumerate(segments.segments, 1)
    )
    words = f"Segments:\n{listed}\n\nThe task as it was noted:\n{fenced(task)}"
    most_tokens = max(speaker.decode.max_tokens, _TOKENS_PER_SEGMENT * (1 + len(segments.segments)))
    roomy = replace(speaker, decode=replace(speaker.decode, max_tokens=most_tokens))
    asked = {"steps": _ask(family, roomy, "steps", (TextPart(words), *sheets))}
    for name, data in pictures.items():
        if name.startswith("grasp_"):
            asked[name] = _ask(family, speaker, "held", (ImagePart(data, "image/jpeg"),))
    return asked


def _ask(family: Family, speaker: Speaker, name: Question, parts: tuple[RequestPart, ...]) -> Request:
    return Request(
        speaker=speaker,
        turns=(
            Turn(role="system", parts=(TextPart(family.prompts[name]),)),
            Turn(role="user", parts=parts),
        ),
        schema_name=name,
        schema=schema_of(name),
    )


def named_segments(segments: SegmentList, answer: RawAnswer) -> tuple[SegmentList, bool]:
    """The segments with what the answer names in them, and whether it was in the asked form.

    A segment that the answer leaves out, or names twice, keeps its phase alone.
    """
    said = parse(answer, StepsAnswer)
    if said is None:
        return segments, False
    numbers = [step.number for step in said.segments]
    by_number = {step.number: step for step in said.segments if numbers.count(step.number) == 1}
    rows = []
    for number, one in enumerate(segments.segments, 1):
        step = by_number.get(number)
        label = one.phase
        if step and step.object and one.phase in _NAMED:
            label = f"{label} {_noun(step.object)}".rstrip()
            if step.place and one.phase in _PLACED:
                label = f"{label} {'to' if one.phase == 'carry' else 'at'} {_noun(step.place)}"
        rows.append(one.model_copy(update={"label": label}))
    return segments.model_copy(update={"segments": tuple(rows)}), True


def held(answers: Mapping[str, RawAnswer], grasps: Mapping[str, int]) -> tuple[tuple[int, str | None], ...]:
    """(start of the grasp, what is held) of each collage."""
    looks = {start_ns: parse(answers[name], HeldAnswer) for name, start_ns in grasps.items() if name in answers}
    return tuple((start_ns, seen.object if seen else None) for start_ns, seen in looks.items())


def _noun(words: str) -> str:
    return " ".join(words.split())
