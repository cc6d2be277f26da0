"""How good a trained model is on samples it has not seen: losses per source, and answers that are exactly right."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from schemas.chat import Image, Message, Text
from schemas.mixes import Sample
from trainers.checkpoint import Trained
from trainers.data import Collator
from trainers.models.vla import seed_of
from trainers.speaking import speak


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceScore:
    """Scores of one source. Losses are means over its answer tokens and its action elements."""

    source: str
    num_samples: int
    text_loss: float
    action_loss: float | None  # None: the source holds no actions
    num_answered: int  # samples whose first answer was generated and compared
    num_exact: int  # of them, word for word what was annotated


def evaluate(
    trained: Trained,
    samples: Iterable[Sample],
    *,
    batch_size: int = 16,
    max_tokens: int = 160,
    answer_at_most: int = 32,
) -> list[SourceScore]:
    """Score samples, source by source in order of appearance. Deterministic: noise is keyed by source and batch.

    Answers are generated for the first `answer_at_most` samples of each source, because that is the slow part.
    """
    by_source: dict[str, list[Sample]] = {}
    for sample in samples:
        by_source.setdefault(sample.draw.source, []).append(sample)
    return [
        _score(trained, name, rows, batch_size=batch_size, max_tokens=max_tokens, answer_at_most=answer_at_most)
        for name, rows in by_source.items()
    ]


@torch.inference_mode()
def _score(
    trained: Trained,
    source: str,
    samples: Sequence[Sample],
    *,
    batch_size: int,
    max_tokens: int,
    answer_at_most: int,
) -> SourceScore:
    collate = Collator(config=trained.config, tokenizer=trained.tokenizer, shape=trained.shape)
    device = next(trained.vla.parameters()).device
    text = action = 0.0
    num_tokens = num_elements = 0
    for start in range(0, len(samples), batch_size):
        noise = torch.Generator().manual_seed(seed_of(trained.config.seed, "evaluate", source, start))
        batch = collate(samples[start : start + batch_size]).to(device)
        losses = trained.vla(batch, noise, text_weight=1.0, action_weight=1.0)
        text += float(losses.text) * losses.num_text
        action += float(losses.action) * losses.num_action
        num_tokens += losses.num_text
        num_elements += losses.num_action
    asked = [sample for sample in samples if _answer(sample) is not None][:answer_at_most]
    exact = sum(_is_exact(trained, sample, max_tokens) for sample in asked)
    return SourceScore(
        source=source,
        num_samples=len(samples),
        text_loss=text / max(1, num_tokens),
        action_loss=action / num_elements if num_elements else None,
        num_answered=len(asked),
        num_exact=exact,
    )


def _answer(sample: Sample) -> tuple[int, Message] | None:
    """The first supervised turn and its place in the chat."""
    return next(((place, turn) for place, turn in enumerate(sample.messages) if turn.supervised), None)


def _is_exact(trained: Trained, sample: Sample, max_tokens: int) -> bool:
    """Whether the model, shown the chat before the first answer, gives it word for word and then stops."""
    found = _answer(sample)
    assert found is not None
    place, turn = found
    # Pictures travel beside the whole chat; only those of the turns before the answer are shown.
    shown = sum(isinstance(part, Image) for before in sample.messages[:place] for part in before.parts)
    spoken = speak(trained, sample.messages[:place], sample.images[:shown], max_tokens=max_tokens)
    want = "".join(part.text for part in turn.parts if isinstance(part, Text))
    return spoken.finished and spoken.words == want.strip()
