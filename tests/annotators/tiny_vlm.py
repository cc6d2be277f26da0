"""A real Qwen2-VL of a million random weights in a model directory, with tokenizer, chat template and preprocessing."""

from dataclasses import replace
from pathlib import Path

import torch
from transformers import Qwen2VLForConditionalGeneration

from trainers.models.vla import vlm_config
from trainers.recipes import VlmSize, nano
from trainers.tokenizer import nano_tokenizer
from trainers.vlm_directory import save_vlm_directory

SIZE: VlmSize = replace(
    nano().vlm,
    width=128,
    depth=2,
    heads=4,
    mlp_width=384,
    rope_theta=10000.0,
    rope_sections=(4, 6, 6),
    vision_width=96,
    vision_depth=2,
    patch_size=20,
    merge_size=2,
    init_std=0.1,
)


def save_tiny_vlm(folder: Path, *, seed: int = 0, vocabulary: int = SIZE.vocabulary) -> Path:
    """The same weights for the same seed."""
    tokenizer, size = nano_tokenizer(), replace(SIZE, vocabulary=vocabulary)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vlm = Qwen2VLForConditionalGeneration(vlm_config(size, tokenizer))
    save_vlm_directory(folder, vlm, tokenizer, size)
    return folder
