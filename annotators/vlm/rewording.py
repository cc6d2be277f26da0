"""A model is asked for other words, for an instruction or a trace; those that change a fact are refused with a reason.

A trace is there only when the questions about pictures are answered: other words for it are asked in a second round.
"""

from dataclasses import replace

from annotators.calls import RawAnswer
from annotators.families import Family
from annotators.vlm.answers import Question, WordingsAnswer, parse, schema_of
from annotators.vlm.protocol import Request, Speaker, TextPart, Turn
from annotators.vlm.steps import fenced
from annotators.wordings import changed_in_retelling, sift
from schemas.scenes import RefusedWording, Retelling, SceneNotes

LOOK: Question = "wordings"
RETELLING: Question = "retelling"
_TOKENS = 512  # of an answer: eight sentences


def wordings_question(family: Family, speaker: Speaker, task: str) -> dict[str, Request]:
    """One question about the words alone; none where the family has no prompt for it, or the episode no instruction."""
    return _ask(family, speaker, LOOK, task)


def retelling_question(family: Family, speaker: Speaker, trace: str | None) -> dict[str, Request]:
    """One question about the words of a trace; none where the family has no prompt for it, or there is no trace."""
    return _ask(family, speaker, RETELLING, trace or "")


def _ask(family: Family, speaker: Speaker, question: Question, words: str) -> dict[str, Request]:
    if question not in family.prompts or not words.strip():
        return {}
    roomy = replace(speaker, decode=replace(speaker.decode, max_tokens=max(speaker.decode.max_tokens, _TOKENS)))
    return {
        question: Request(
            speaker=roomy,
            turns=(
                Turn(role="system", parts=(TextPart(family.prompts[question]),)),
                Turn(role="user", parts=(TextPart(fenced(words)),)),
            ),
            schema_name=question,
            schema=schema_of(question),
        )
    }


def reworded(notes: SceneNotes, answer: RawAnswer) -> tuple[SceneNotes, bool]:
    """Notes with a model's wordings in place of templates', and whether its answer was in the asked form.

    Where none of its wordings keeps to the facts, the notes keep those they have.
    """
    said = parse(answer, WordingsAnswer)
    if said is None:
        return notes, False
    found = sift(notes.instruction, said.wordings)
    if not found.kept:
        return notes.model_copy(update={"refused": found.refused}), True
    return notes.model_copy(update={"paraphrases": found.kept, "worded_by": "model", "refused": found.refused}), True


def retold(notes: SceneNotes, trace: str, answer: RawAnswer) -> tuple[SceneNotes, bool]:
    """Notes with a model's other words for a trace, and whether its answer was in the asked form."""
    said = parse(answer, WordingsAnswer)
    if said is None:
        return notes, False
    words = list(dict.fromkeys(" ".join(one.split()) for one in said.wordings))
    problems = {one: changed_in_retelling(trace, one) for one in words if one != trace}
    kept = tuple(one for one, problem in problems.items() if problem is None)
    refused = tuple(RefusedWording(words=one, reason=problem) for one, problem in problems.items() if problem)
    told = Retelling(trace=trace, words=kept) if kept else None
    return notes.model_copy(update={"retold": told, "refused": (*notes.refused, *refused)}), True
