"""Qwen2-VL's vision tower over pictures of one size, all at once.

Hugging Face's own forward goes through the pictures one by one, because they may differ in size: on a GPU, with 48 of
them, that is most of the time of a step. The numbers are the same.

Axes: B pictures, N patches of one, P all patches, D width, H heads, K width of a head.
"""

import torch
from torch import Tensor
from torch.nn import functional
from transformers.models.qwen2_vl.modeling_qwen2_vl import (
    Qwen2VisionTransformerPretrainedModel,
    VisionAttention,
    apply_rotary_pos_emb_vision,
)


def look(visual: Qwen2VisionTransformerPretrainedModel, x_PX: Tensor, grids: Tensor) -> tuple[Tensor, Tensor]:
    """(P, D) of the last layer, and what the language model is given of it, (picture tokens, width there).

    `x_PX` are the normalised patches, `grids` (B, 3) frames, rows and columns, the same for each picture.
    """
    num_pictures = len(grids)
    turns_NK = visual.rot_pos_emb(grids[:1])
    turns_NK = torch.cat((turns_NK, turns_NK), dim=-1)
    cos_PK, sin_PK = (part.repeat(num_pictures, 1) for part in (turns_NK.cos(), turns_NK.sin()))
    h_PD = visual.patch_embed(x_PX)
    for block in visual.blocks:
        h_PD = h_PD + _attend(block.attn, block.norm1(h_PD), cos_PK, sin_PK, num_pictures)
        h_PD = h_PD + block.mlp(block.norm2(h_PD))
    return h_PD, visual.merger(h_PD)


def _attend(attention: VisionAttention, h_PD: Tensor, cos_PK: Tensor, sin_PK: Tensor, num_pictures: int) -> Tensor:
    """Each picture's patches see each other and no other's."""
    query_PHK, key_PHK, value_PHK = attention.qkv(h_PD).reshape(len(h_PD), 3, attention.num_heads, -1).unbind(1)
    query_PHK, key_PHK = apply_rotary_pos_emb_vision(query_PHK, key_PHK, cos_PK, sin_PK)
    query, key, value = (
        x_PHK.unflatten(0, (num_pictures, -1)).transpose(1, 2) for x_PHK in (query_PHK, key_PHK, value_PHK)
    )
    seen_BHNK = functional.scaled_dot_product_attention(query, key, value, scale=attention.scaling)
    told: Tensor = attention.proj(seen_BHNK.transpose(1, 2).reshape(len(h_PD), -1))
    return told
