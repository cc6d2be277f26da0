"""The small VLM while it learns: Hugging Face's Qwen2-VL, and beside it a head that only training needs.

Axes: B pictures, T tokens, N real ones of all pictures, W those before a word that is learned, D width, V vocabulary,
G glyph cells, C classes of them; P picture tokens of all pictures, or patches; C colours, L frames, X pixels of these.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Qwen2VLForConditionalGeneration

from dataengine.rendered.views import COLOURS, THINGS
from schemas.chat import IGNORE
from schemas.errors import TrainError
from trainers.models.vla import FlatPatchEmbed, seed_of, vlm_config
from trainers.pixels import MEAN_C, STD_C
from trainers.recipes import VlmSize
from trainers.tokenizer import LocalTokenizer
from trainers.vlm.lessons import CARD_CLASSES, CELLS_PER_PATCH, GLYPHS, LessonBatch
from trainers.vlm.reading import GAZE_HEADS, GAZE_LAYER, Read, read
from trainers.vlm.sight import look

_PLACES = 8  # a side, into which a picture is divided to say where a token lies
_TOLD_AFTER = GAZE_LAYER  # layers of the language model; those behind it can use what a token says about itself
_NO_THING_WEIGHT = 0.1  # as below: nearly all picture tokens hold no object and no card
_NOTHING_WEIGHT = 0.05  # nearly all cells hold no character; unweighted, saying "none" everywhere is a fine answer


@dataclass(frozen=True, slots=True, kw_only=True)
class LessonLosses:
    """Means over answer tokens, over glyph cells, over what picture tokens say about themselves and about the object in
    them, and over words that are to be looked for in the picture; shares of right answer tokens and of characters."""

    total: Tensor
    text: Tensor
    glyphs: Tensor
    tokens: Tensor
    things: Tensor
    cards: Tensor
    gaze: Tensor
    text_right: float
    glyphs_right: float


class PackedVlm(nn.Module):
    """Any Qwen2-VL, dense or with routed experts, asked several questions about one picture at once."""

    def __init__(self, vlm: Qwen2VLForConditionalGeneration, size: VlmSize) -> None:
        super().__init__()
        self.vlm = vlm
        self.size = size

    def scores(self, batch: LessonBatch) -> Tensor:
        """(B, T, V): of every next token; zeros at padding."""
        _, image_PD = look(self.vlm.model.visual, self.normalised(batch), batch.grids)
        score_NV: Tensor = self.vlm.lm_head(self._read(image_PD, batch).last_WD)
        score_TV = score_NV.new_zeros(batch.ids_BT.numel(), score_NV.shape[1])
        score_TV[batch.packing.place_N] = score_NV
        return score_TV.reshape(*batch.ids_BT.shape, -1)

    def normalised(self, batch: LessonBatch) -> Tensor:
        """(P, C*L*X): what `trainers.pixels.patchify` makes of the batch's patches, number for number."""
        mean_C1, std_C1 = (torch.from_numpy(values).to(batch.patches_PCX.device)[:, None] for values in (MEAN_C, STD_C))
        x_PCX = (batch.patches_PCX.float() / 255 - mean_C1) / std_C1
        return x_PCX[:, :, None].expand(-1, -1, self.size.frames_per_patch, -1).flatten(1)

    def _read(
        self,
        image_PD: Tensor,
        batch: LessonBatch,
        *,
        wanted_W: Tensor | None = None,
        told_after: int | None = None,
        gaze_N2: Tensor | None = None,
    ) -> Read:
        place_N = batch.packing.place_N
        x_ND: Tensor = self.vlm.get_input_embeddings()(batch.ids_BT.reshape(-1)[place_N])
        is_picture_N = self._is_picture(batch).reshape(-1)[place_N]
        return read(
            self.vlm.model.language_model,
            x_ND.masked_scatter(is_picture_N[:, None], image_PD.to(x_ND.dtype)),
            self.positions(batch).flatten(1)[:, place_N],
            batch.packing,
            wanted_W=wanted_W,
            told_after=told_after,
            gaze_N2=gaze_N2,
        )

    def _is_picture(self, batch: LessonBatch) -> Tensor:
        """(B, T) bool. Only in the picture's part: an untrained model may say the placeholder in its answer."""
        is_picture_BT: Tensor = (batch.ids_BT == self.vlm.config.image_token_id) & (batch.branch_BT == 0)
        return is_picture_BT

    def positions(self, batch: LessonBatch) -> Tensor:
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
    """A dense Qwen2-VL from a seed, its glyph head, and the heads by which picture tokens say where they lie, what is
    written in them, and which object of which colour, or which card, they hold."""

    def __init__(self, size: VlmSize, tokenizer: LocalTokenizer, seed: int, *, drawn_depth: int | None = None) -> None:
        """`drawn_depth`: drawn from the seed with so many blocks in the vision tower; the others begin by adding
        nothing. So the heads begin as they began for a model of this depth, of which the weights still suit them."""
        drawn = size if drawn_depth is None else replace(size, vision_depth=drawn_depth)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(seed, "vlm"))
            super().__init__(Qwen2VLForConditionalGeneration(vlm_config(drawn, tokenizer)), size)
            self.glyph_head = nn.Linear(size.vision_width, CELLS_PER_PATCH**2 * (len(GLYPHS) + 1))
            cells = (size.merge_size * CELLS_PER_PATCH) ** 2
            self.token_head = nn.Linear(size.width, 2 * _PLACES + cells * (len(GLYPHS) + 1))
            self.thing_head = nn.Linear(size.width, len(THINGS) + 1 + len(COLOURS) + 1)
            self.card_head = nn.Linear(size.width, 2 * CARD_CLASSES)
            if drawn != size:
                self.vlm = _deepened(self.vlm, Qwen2VLForConditionalGeneration(vlm_config(size, tokenizer)))
        self.vlm.model.visual.patch_embed = FlatPatchEmbed(self.vlm.model.visual.patch_embed.proj)
        self.class_weights_C: Tensor
        self.register_buffer("class_weights_C", torch.tensor([_NOTHING_WEIGHT] + [1.0] * len(GLYPHS)), False)

    def forward(
        self,
        batch: LessonBatch,
        *,
        text_weight: float,
        glyph_weight: float,
        token_weight: float = 0.0,
        thing_weight: float = 0.0,
        card_weight: float = 0.0,
        gaze_weight: float = 0.0,
    ) -> LessonLosses:
        """All losses of one batch; with `text_weight` 0 only the vision tower works.

        Raises TrainError where tokens are to be told something halfway through a model that is too shallow for it.
        """
        patches_PD, image_PD = look(self.vlm.model.visual, self.normalised(batch), batch.grids)
        glyphs, glyphs_right = self._glyph_loss(patches_PD, batch)
        text, tokens, things, cards, gaze, text_right = *(torch.zeros_like(glyphs) for _ in range(5)), 0.0
        if text_weight:
            next_N = functional.pad(batch.labels_BT[:, 1:], (0, 1), value=IGNORE).reshape(-1)[batch.packing.place_N]
            wanted_W = torch.where(next_N != IGNORE)[0]
            tells = bool(token_weight or thing_weight or card_weight)
            if gaze_weight and self.size.heads <= max(GAZE_HEADS):
                raise TrainError(
                    f"heads {' and '.join(str(head + 1) for head in GAZE_HEADS)} are told where to look, but the model "
                    f"has {self.size.heads}. Give it more, or set gaze_weight to 0."
                )
            if (tells or gaze_weight) and self.size.depth <= _TOLD_AFTER:
                raise TrainError(
                    f"tokens are told what they hold behind {_TOLD_AFTER} layers, and where to look in the next, but "
                    f"the model has {self.size.depth}. Give it more, or set those weights to 0."
                )
            found = self._read(
                image_PD,
                batch,
                wanted_W=wanted_W,
                told_after=_TOLD_AFTER if tells else None,
                gaze_N2=batch.gaze_BT2.flatten(0, 1)[batch.packing.place_N] if gaze_weight else None,
            )
            text, text_right, gaze = *self._text_loss(found.last_WD, next_N[wanted_W]), found.gaze
            if found.told_PD is not None:
                told_PD = found.told_PD[self._is_picture(batch)[:, : batch.num_prefix].reshape(-1)]
                tokens = self._token_loss(told_PD, batch)
                things = self._thing_loss(told_PD, batch) if thing_weight else things
                cards = self._card_loss(told_PD, batch) if card_weight else cards
        parts = (
            (text_weight, text),
            (glyph_weight, glyphs),
            (token_weight, tokens),
            (thing_weight, things),
            (card_weight, cards),
            (gaze_weight, gaze),
        )
        return LessonLosses(
            total=torch.stack([weight * part for weight, part in parts]).sum(),
            text=text,
            glyphs=glyphs,
            tokens=tokens,
            things=things,
            cards=cards,
            gaze=gaze,
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

    def _token_loss(self, h_PD: Tensor, batch: LessonBatch) -> Tensor:
        """Where each picture token lies, and where known, which characters stand in it."""
        score_PS = self.token_head(h_PD).float()
        merge = self.size.merge_size
        rows, columns = (int(side) // merge for side in batch.grids[0, 1:])
        number_P = torch.arange(len(score_PS), device=score_PS.device) % (rows * columns)
        row_P, column_P = number_P // columns * _PLACES // rows, number_P % columns * _PLACES // columns
        where = functional.cross_entropy(score_PS[:, :_PLACES], row_P)
        where = where + functional.cross_entropy(score_PS[:, _PLACES : 2 * _PLACES], column_P)
        want_G = batch.glyphs_BG.reshape(-1)  # token by token: patches come in merged order
        known_G = want_G != IGNORE
        if not bool(known_G.any()):
            return where
        score_GC = score_PS[:, 2 * _PLACES :].reshape(-1, len(GLYPHS) + 1)
        return where + functional.cross_entropy(score_GC[known_G], want_G[known_G], weight=self.class_weights_C)

    def _thing_loss(self, h_PD: Tensor, batch: LessonBatch) -> Tensor:
        """Which kind of object, and of which colour, has its middle in each picture token."""
        num_kinds = len(THINGS) + 1
        score_PC = self.thing_head(h_PD).float()
        kinds = _named(score_PC[:, :num_kinds], batch.things_B2N[:, 0])
        return kinds + _named(score_PC[:, num_kinds:], batch.things_B2N[:, 1])

    def _card_loss(self, h_PD: Tensor, batch: LessonBatch) -> Tensor:
        """Tens and units of the card that has its middle in each picture token."""
        score_PC = self.card_head(h_PD).float()
        tens = _named(score_PC[:, :CARD_CLASSES], batch.cards_B2N[:, 0])
        return tens + _named(score_PC[:, CARD_CLASSES:], batch.cards_B2N[:, 1])

    def _text_loss(self, h_WD: Tensor, want_W: Tensor) -> tuple[Tensor, float]:
        score_WV = self.vlm.lm_head(h_WD).float()
        return functional.cross_entropy(score_WV, want_W), float(
            (score_WV.detach().argmax(-1) == want_W).float().mean()
        )


def _deepened(
    shallow: Qwen2VLForConditionalGeneration, deep: Qwen2VLForConditionalGeneration
) -> Qwen2VLForConditionalGeneration:
    """The deeper one, saying what the shallow one says: blocks that only it has add nothing yet."""
    known = dict(shallow.named_parameters())
    with torch.no_grad():
        for name, weight in deep.named_parameters():
            if name in known:
                weight.copy_(known[name])
            elif name.rsplit(".", 1)[0].endswith(("attn.proj", "mlp.fc2")):  # what writes into the tower's stream
                weight.zero_()
    return deep


def _named(score_PC: Tensor, want_BN: Tensor) -> Tensor:
    """Cross entropy where known; class 0, nothing, counts little."""
    want_P = want_BN.reshape(-1)
    known_P = want_P != IGNORE
    if not bool(known_P.any()):
        return score_PC.sum() * 0
    weights_C = torch.ones(score_PC.shape[1], device=score_PC.device)
    weights_C[0] = _NO_THING_WEIGHT
    return functional.cross_entropy(score_PC[known_P], want_P[known_P], weight=weights_C)
