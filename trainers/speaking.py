"""What a trained model says: greedy words after a prompt, and the hidden states behind them.

Axes: B batch (always one), T tokens, D model width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache

from schemas.chat import Message, render_chat
from trainers.checkpoint import Trained
from trainers.data import Collator
from trainers.tokenizer import END_OF_TURN


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Spoken:
    """An answer. `hidden_BTD` holds the last hidden states of prompt and answer, the prompt's `num_prompt` first."""

    words: str
    finished: bool  # False: cut off at the limit, before the end of the turn
    hidden_BTD: Tensor
    num_prompt: int


def speak(
    trained: Trained, messages: Sequence[Message], images: Sequence[NDArray[np.uint8]], *, max_tokens: int
) -> Spoken:
    """Answer an open chat with the likeliest token each time.

    The end-of-turn token counts as answer and is read back too, because in training its hidden state is pooled with
    the others. With `max_tokens` 0 no turn is opened: the chat ends as a sample without an answer does in training.
    """
    with torch.inference_mode(), trained.vla.precision():
        return _speak(trained, messages, images, max_tokens)


def _speak(
    trained: Trained, messages: Sequence[Message], images: Sequence[NDArray[np.uint8]], max_tokens: int
) -> Spoken:
    vla, config, tokenizer = trained.vla, trained.config, trained.tokenizer
    device = next(vla.parameters()).device
    end = tokenizer.id_of(END_OF_TURN)
    counts = [config.image_tokens(image.shape[1], image.shape[0]) for image in images]
    chat = render_chat(messages, tokenizer, counts, open_turn=max_tokens > 0)
    collate = Collator(config=config, tokenizer=tokenizer, shape=trained.shape)
    patches, grids = (part.to(device) for part in collate.patches(images))
    ids_BT = torch.tensor([chat.ids], device=device)
    positions = vla.positions(ids_BT, grids)
    language, cache = vla.vlm.model.language_model, DynamicCache(config=vla.vlm.config.text_config)
    next_position = int(positions.max()) + 1
    hidden: list[Tensor] = [
        language(
            inputs_embeds=vla.embed(ids_BT, patches, grids),
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
    ]
    said: list[int] = []
    while len(said) < max_tokens and (not said or said[-1] != end):
        token_B1 = vla.vlm.lm_head(hidden[-1][:, -1:]).argmax(dim=-1)
        place = torch.full((3, 1, 1), next_position + len(said), device=device)
        said.append(int(token_B1))
        embedded = vla.vlm.get_input_embeddings()(token_B1)
        hidden.append(
            language(
                inputs_embeds=embedded, position_ids=place, past_key_values=cache, use_cache=True
            ).last_hidden_state
        )
    return Spoken(
        words=tokenizer.words(said),
        finished=bool(said) and said[-1] == end,
        hidden_BTD=torch.cat(hidden, dim=1),
        num_prompt=len(chat.ids),
    )
