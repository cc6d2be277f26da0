"""A model is asked for other wordings of an instruction; those that change a fact are refused, each with its reason."""

from dataclasses import replace

from annotators.calls import RawAnswer
from annotators.families import Family
from annotators.vlm.answers import WordingsAnswer, parse, schema_of
from annotators.vlm.protocol import Request, Speaker, TextPart, Turn
from annotators.vlm.steps import fenced
from annotators.wordings import sift
from schemas.scenes import SceneNotes

LOOK = "wordings"
_TOKENS = 512  # of an answer: eight sentences


def wordings_question(family: Family, speaker: Speaker, task: str) -> dict[str, Request]:
    """One question about the words alone; none where the family has no prompt for it, or the episode no instruction."""
    if "wordings" not in family.prompts or not task.strip():
        return {}
    roomy = replace(speaker, decode=replace(speaker.decode, max_tokens=max(speaker.decode.max_tokens, _TOKENS)))
    return {
        LOOK: Request(
            speaker=roomy,
            turns=(
                Turn(role="system", parts=(TextPart(family.prompts["wordings"]),)),
                Turn(role="user", parts=(TextPart(fenced(task)),)),
            ),
            schema_name="wordings",
            schema=schema_of("wordings"),
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
