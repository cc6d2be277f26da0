"""Qwen2-VL's language model over the real tokens of a batch, in one row; the numbers are Hugging Face's.

Axes: N real tokens, of which the first are the B pictures' own parts, P tokens each; W wanted tokens, D width, H heads,
K width of a head; of a group of questions, G questions and L tokens of each; S = P + L what one of them sees; Q tokens
of a group that are told where to look.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from transformers.models.qwen2_vl.modeling_qwen2_vl import (
    Qwen2VLAttention,
    Qwen2VLTextModel,
    apply_multimodal_rotary_pos_emb,
)

from schemas.chat import IGNORE
from trainers.vlm.packing import Group, Packing

GAZE_LAYER = 2  # whose heads are told where to look: what picture tokens say about themselves is known by then
# For what a word is about, and for the other thing where it is about two; of four heads that share keys in pairs, these
# two have keys of their own.
GAZE_HEADS = (0, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """Hidden states (W, D) of the wanted tokens behind all layers, (B*P, D) of the pictures' own parts behind as many
    as were asked for, and the mean of -log(share of a head's attention that lies where it should)."""

    last_WD: Tensor
    told_PD: Tensor | None
    gaze: Tensor


def read(
    model: Qwen2VLTextModel,
    x_ND: Tensor,
    position_3N: Tensor,
    packing: Packing,
    *,
    wanted_W: Tensor | None = None,
    told_after: int | None = None,
    gaze_N2: Tensor | None = None,
) -> Read:
    """`wanted_W` are places among the real tokens, None for all; the others are left out behind the last attention.
    `told_after` is a number of layers, fewer than all.
    `gaze_N2` says for each of GAZE_HEADS at which token of the picture's own part a token should look; or IGNORE.
    """
    turns = model.rotary_emb(x_ND, position_3N[:, None])
    told_PD, gaze = None, x_ND.new_zeros(())
    num_layers = len(model.layers)
    for number, layer in enumerate(model.layers):
        if number == told_after:
            told_PD = x_ND[: packing.num_pictures * packing.num_prefix]
        heads = _Heads.of(layer.self_attn, layer.input_layernorm(x_ND), turns, packing)
        if gaze_N2 is not None and number == GAZE_LAYER:
            gaze = heads.gaze(gaze_N2)
        seen_ND = heads.seen()
        if number == num_layers - 1 and wanted_W is not None:
            x_ND, seen_ND = x_ND[wanted_W], seen_ND[wanted_W]
        x_ND = x_ND + layer.self_attn.o_proj(seen_ND)
        x_ND = x_ND + layer.mlp(layer.post_attention_layernorm(x_ND))
    return Read(last_WD=model.norm(x_ND), told_PD=told_PD, gaze=gaze)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Heads:
    """Queries, keys and values of one layer, turned by their places."""

    query_NHK: Tensor
    key_NHK: Tensor
    value_NHK: Tensor
    packing: Packing
    scaling: float

    @classmethod
    def of(cls, attention: Qwen2VLAttention, h_ND: Tensor, turns: tuple[Tensor, Tensor], packing: Packing) -> "_Heads":
        query, key, value = (
            project(h_ND).unflatten(-1, (-1, attention.head_dim)).transpose(0, 1)[None]
            for project in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        query, key = apply_multimodal_rotary_pos_emb(query, key, *turns, attention.rope_parameters["mrope_section"])
        shared = attention.num_key_value_groups
        return cls(
            query_NHK=query[0].transpose(0, 1),
            key_NHK=key[0].transpose(0, 1).repeat_interleave(shared, dim=1),
            value_NHK=value[0].transpose(0, 1).repeat_interleave(shared, dim=1),
            packing=packing,
            scaling=attention.scaling,
        )

    def seen(self) -> Tensor:
        """(N, D): what each token sees; the picture's part sees itself, a question the picture's part and itself."""
        query, key, value = (
            self._pictures(x_NHK).transpose(1, 2) for x_NHK in (self.query_NHK, self.key_NHK, self.value_NHK)
        )
        pictures = functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=self.scaling)
        parts = [pictures.transpose(1, 2).flatten(0, 1)]
        for group in self.packing.groups:
            found = functional.scaled_dot_product_attention(
                _rows(self.query_NHK, group.token_GL).transpose(1, 2),
                self._visible(self.key_NHK, group),
                self._visible(self.value_NHK, group),
                attn_mask=self._mask_LS(group),
                scale=self.scaling,
            )
            parts.append(found.transpose(1, 2).flatten(0, 1).index_select(0, group.real_R))
        return torch.cat(parts).flatten(1)

    def gaze(self, wanted_N2: Tensor) -> Tensor:
        """Mean of -log(attention) at the wanted places, over all tokens and heads that have one."""
        losses = []
        for group in self.packing.groups:
            wanted_GL2 = wanted_N2[group.token_GL].masked_fill(~group.is_real_GL[..., None], IGNORE)
            hidden_LS = ~self._mask_LS(group)
            for which, head in enumerate(GAZE_HEADS):
                question_Q, place_Q = torch.where(wanted_GL2[..., which] != IGNORE)
                key_GSK = self._visible(self.key_NHK[:, head : head + 1], group)[:, 0]
                query_QK = self.query_NHK[group.token_GL[question_Q, place_Q], head]
                with torch.autocast(query_QK.device.type, enabled=False):  # bfloat16 scores tie
                    score_QS = torch.einsum("qk,qsk->qs", query_QK.float(), key_GSK.float()[question_Q])
                score_QS = score_QS * self.scaling
                score_QS = score_QS.masked_fill(hidden_LS[place_Q], float("-inf"))
                losses.append(
                    functional.cross_entropy(score_QS, wanted_GL2[question_Q, place_Q, which], reduction="none")
                )
        every = torch.cat(losses)
        return every.sum() / max(1, len(every))

    def _pictures(self, x_NHK: Tensor) -> Tensor:
        """(B, P, H, K)."""
        num = self.packing.num_pictures
        return x_NHK[: num * self.packing.num_prefix].reshape(num, -1, *x_NHK.shape[1:])

    def _visible(self, x_NHK: Tensor, group: Group) -> Tensor:
        """(G, H, S, K): the part of each question's picture, then the question's own."""
        return torch.cat(
            (_rows(self._pictures(x_NHK), group.picture_G), _rows(x_NHK, group.token_GL)), dim=1
        ).transpose(1, 2)

    def _mask_LS(self, group: Group) -> Tensor:
        """True where a token of a question may look: the whole picture, and in the question at what stands before."""
        length = group.token_GL.shape[1]
        own_LL = torch.ones(length, length, dtype=torch.bool, device=group.token_GL.device).tril()
        return functional.pad(own_LL, (self.packing.num_prefix, 0), value=True)


def _rows(x: Tensor, place: Tensor) -> Tensor:
    """`x[place]`, of which the gradient takes a quarter of the time."""
    return x.index_select(0, place.reshape(-1)).reshape(*place.shape, *x.shape[1:])
