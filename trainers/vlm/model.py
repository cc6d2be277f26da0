"""The small VLM while it learns: Hugging Face's Qwen2-VL, and beside it a head that only training needs.

Axes: B pictures, T tokens, D width, G glyph cells, C classes of them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Qwen2VLForConditionalGeneration

from schemas.chat import IGNORE
from trainers.models.vla import FlatPatchEmbed, seed_of, vlm_config
from trainers.recipes import VlmSize
from trainers.tokenizer import LocalTokenizer
from trainers.vlm.lessons import CELLS_PER_PATCH, GLYPHS, LessonBatch

_NOTHING_WEIGHT = 0.05  # nearly all cells hold no character; unweighted, saying "none" everywhere is a fine answer


@dataclass(frozen=True, slots=True, kw_only=True)
class LessonLosses:
    """Means over answer tokens, and over glyph cells; shares of right answer tokens and of right characters."""

    total: Tensor
    text: Tensor
    glyphs: Tensor
    text_right: float
    glyphs_right: float


class PackedVlm(nn.Module):
    """Any Qwen2-VL, dense or with routed experts, asked several questions about one picture at once."""

    def __init__(self, vlm: Qwen2VLForConditionalGeneration, size: VlmSize) -> None:
        super().__init__()
        self.vlm = vlm
        self.size = size

    def scores(self, batch: LessonBatch) -> Tensor:
        """(B, T, V): of every next token."""
        image_PD = self.vlm.model.visual(batch.patches_P, grid_thw=batch.grids).pooler_output
        scores: Tensor = self.vlm.lm_head(self.hidden(image_PD, batch))
        return scores

    def hidden(self, image_PD: Tensor, batch: LessonBatch) -> Tensor:
        """(B, T, D): the language model's last hidden states."""
        x_BTD: Tensor = self.vlm.get_input_embeddings()(batch.ids_BT)
        # Only in the picture's part: an untrained model may say the placeholder as a word of its answer.
        place_BT1 = ((batch.ids_BT == self.vlm.config.image_token_id) & (batch.branch_BT == 0)).unsqueeze(-1)
        hidden: Tensor = self.vlm.model.language_model(
            inputs_embeds=x_BTD.masked_scatter(place_BT1, image_PD.to(x_BTD.dtype)),
            position_ids=self._positions(batch),
            attention_mask=_mask(batch.branch_BT),
            use_cache=False,
        ).last_hidden_state
        return hidden

    def _positions(self, batch: LessonBatch) -> Tensor:
        """(3, B, T): the picture's as Qwen2-VL counts them; each question goes on behind the picture."""
        num = batch.num_prefix
        first_1N = batch.ids_BT[:1, :num]
        is_image = (first_1N == self.vlm.config.image_token_id).int()
        prefix_31N: Tensor = self.vlm.model.get_rope_index(
            first_1N, mm_token_type_ids=is_image, image_grid_thw=batch.grids[:1]
        )[0]
        start = prefix_31N.max() + 1
        positions = (start + batch.offset_BT).expand(3, -1, -1).clone()
        positions[:, :, :num] = prefix_31N
        return positions


class LearningVlm(PackedVlm):
    """A dense Qwen2-VL from a seed, and its glyph head."""

    def __init__(self, size: VlmSize, tokenizer: LocalTokenizer, seed: int) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(seed, "vlm"))
            super().__init__(Qwen2VLForConditionalGeneration(vlm_config(size, tokenizer)), size)
            self.glyph_head = nn.Linear(size.vision_width, CELLS_PER_PATCH**2 * (len(GLYPHS) + 1))
        self.vlm.model.visual.patch_embed = FlatPatchEmbed(self.vlm.model.visual.patch_embed.proj)
        self.class_weights_C: Tensor
        self.register_buffer("class_weights_C", torch.tensor([_NOTHING_WEIGHT] + [1.0] * len(GLYPHS)), False)

    def forward(self, batch: LessonBatch, *, text_weight: float, glyph_weight: float) -> LessonLosses:
        """All losses of one batch; with `text_weight` 0 only the vision tower works."""
        seen = self.vlm.model.visual(batch.patches_P, grid_thw=batch.grids)
        glyphs, glyphs_right = self._glyph_loss(seen.last_hidden_state, batch)
        text, text_right = torch.zeros_like(glyphs), 0.0
        if text_weight:
            text, text_right = self._text_loss(seen.pooler_output, batch)
        return LessonLosses(
            total=text_weight * text + glyph_weight * glyphs,
            text=text,
            glyphs=glyphs,
            text_right=text_right,
            glyphs_right=glyphs_right,
        )

    def _glyph_loss(self, patches_PD: Tensor, batch: LessonBatch) -> tuple[Tensor, float]:
        score_GC = self.glyph_head(patches_PD).reshape(-1, len(GLYPHS) + 1)
        want_G = batch.glyphs_BG.reshape(-1)
        known_G = want_G != IGNORE
        if not bool(known_G.any()):
            return score_GC.sum() * 0, 0.0
        loss = functional.cross_entropy(score_GC[known_G].float(), want_G[known_G], weight=self.class_weights_C)
        with torch.no_grad():
            written_G = want_G > 0
            right = (
                float((score_GC[written_G].argmax(-1) == want_G[written_G]).float().mean()) if written_G.any() else 0
            )
        return loss, right

    def _text_loss(self, image_PD: Tensor, batch: LessonBatch) -> tuple[Tensor, float]:
        h_BTD = self.hidden(image_PD, batch)
        want_BT = batch.labels_BT[:, 1:]
        known_BT = want_BT != IGNORE
        score = self.vlm.lm_head(h_BTD[:, :-1][known_BT])
        want = want_BT[known_BT]
        return functional.cross_entropy(score.float(), want), float((score.detach().argmax(-1) == want).float().mean())


def _mask(branch_BT: Tensor) -> Tensor:
    """(B, 1, T, T) bool: a token sees what stands before it in the picture's part and in its own branch."""
    length = branch_BT.shape[1]
    query, key = branch_BT[:, :, None], branch_BT[:, None, :]
    before = torch.ones(length, length, dtype=torch.bool, device=branch_BT.device).tril()
    return (((key == 0) | (key == query)) & before)[:, None]
