"""Learning steps of the small VLM: real tokens alone, beside Hugging Face's forward over the same padded batch.

Both look at the pictures together and compute the same loss and its gradient.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.figures import Figure, report
from schemas.chat import IGNORE
from trainers.tokenizer import nano_tokenizer
from trainers.vlm.lessons import LessonBatch, LessonCollator
from trainers.vlm.model import LearningVlm
from trainers.vlm.recipe import vlm_recipe
from trainers.vlm.rendered_lessons import RenderedLessons
from trainers.vlm.sight import look

_SAME_WITHIN = 1e-4


def measure(quick: bool) -> list[Figure]:
    """Interleaved medians over the same batches; the two losses are held against each other on each."""
    config = vlm_recipe("nano_vlm_looks")
    config = replace(config, pictures_per_step=8) if quick else config
    lessons, collate = RenderedLessons(config=config), LessonCollator(config.vlm, nano_tokenizer())
    model = LearningVlm(config.vlm, nano_tokenizer(), config.seed).train()
    repeats = 2 if quick else 9
    ours_s, theirs_s, real, padded = [], [], 0, 0
    for step in range(repeats + 1):  # the first warms up
        batch = collate(lessons.step(config.phases[0], 0, step))
        mine_s, mine = _timed(model, lambda batch=batch: model(batch, text_weight=1.0, glyph_weight=0.0).text)
        other_s, other = _timed(model, lambda batch=batch: _hugging_face(model, batch))
        if abs(mine - other) > _SAME_WITHIN * other:
            raise AssertionError(f"step {step}: our loss is {mine}, Hugging Face's {other}")
        if step:
            ours_s.append(mine_s)
            theirs_s.append(other_s)
            real, padded = real + len(batch.packing.place_N), padded + batch.ids_BT.numel()
    return [
        Figure(
            figure="learning steps of the small VLM",
            ours=1 / statistics.median(ours_s),
            peer=1 / statistics.median(theirs_s),
            peer_name="Hugging Face's forward, same padded batch",
            unit="steps/s",
            repeats=repeats,
            note=f"{config.pictures_per_step} pictures a step, float32; {real / padded:.0%} of tokens are no padding",
        )
    ]


def _timed(model: LearningVlm, loss: Callable[[], Tensor]) -> tuple[float, float]:
    """Seconds of a forward and a backward, and the loss."""
    model.zero_grad(set_to_none=True)
    start = time.perf_counter()
    found = loss()
    found.backward()
    return time.perf_counter() - start, float(found.detach())


def _hugging_face(model: LearningVlm, batch: LessonBatch) -> Tensor:
    """The mean over learned words, by its own layers, with a mask that keeps questions apart."""
    _, image_PD = look(model.vlm.model.visual, model.normalised(batch), batch.grids)
    x_BTD = model.vlm.get_input_embeddings()(batch.ids_BT)
    is_image_BT1 = ((batch.ids_BT == model.vlm.config.image_token_id) & (batch.branch_BT == 0)).unsqueeze(-1)
    query_BT1, key_B1T = batch.branch_BT[:, :, None], batch.branch_BT[:, None, :]
    before_TT = torch.ones(batch.ids_BT.shape[1], batch.ids_BT.shape[1], dtype=torch.bool).tril()
    h_BTD = model.vlm.model.language_model(
        inputs_embeds=x_BTD.masked_scatter(is_image_BT1, image_PD),
        position_ids=model.positions(batch),
        attention_mask=(((key_B1T == 0) | (key_B1T == query_BT1)) & before_TT)[:, None],
        use_cache=False,
    ).last_hidden_state
    want_BT = batch.labels_BT[:, 1:]
    known_BT = want_BT != IGNORE
    return functional.cross_entropy(model.vlm.lm_head(h_BTD[:, :-1][known_BT]), want_BT[known_BT])


if __name__ == "__main__":
    report("vlm_step", measure, __doc__)
