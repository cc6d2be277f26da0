"""A dense Qwen2-VL as a Hugging Face model directory: weights, tokenizer, chat format and image preprocessing together.

Anything that reads such directories reads it: transformers, vLLM, the `local` annotation backend, `serve-vlm`, and this
trainer when it starts from weights. What they feed the model equals what it was trained on: the same ids as
`schemas.chat.render_chat`, the same numbers as `trainers.pixels.patchify`.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

from schemas.chat import IMAGE_TOKEN
from schemas.errors import TrainError
from trainers.models.moe import moe_layers
from trainers.pixels import MEAN_C, STD_C
from trainers.recipes import VlmSize
from trainers.tokenizer import END_OF_TEXT, END_OF_TURN, LocalTokenizer

WEIGHTS_FILE = "model.safetensors"
_TIED = "lm_head.weight"  # the same numbers as the token embeddings; stored once
_MOST_IMAGE_TOKENS = 1280  # Qwen2-VL's own limit; larger pictures are scaled down to it
_LONGEST_CHAT = 32768  # Qwen2-VL's positions

# What render_chat writes, as the Jinja that chat-template readers run. No system turn is made up. Two texts are joined
# before the tokenizer sees them, so a message that begins with a blank or a line break may get other ids than there.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] in ('image', 'image_url') %}<|vision_start|>" + IMAGE_TOKEN + "<|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}"
    "{% else %}{{ raise_exception('this model reads text and images only') }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class VlmDirectory:
    """A model directory, loaded."""

    vlm: Qwen2VLForConditionalGeneration  # float32, on the CPU
    tokenizer: LocalTokenizer
    size: VlmSize


def save_vlm_directory(
    folder: Path,
    vlm: Qwen2VLForConditionalGeneration,
    tokenizer: LocalTokenizer,
    size: VlmSize,
    *,
    dtype: Literal["bfloat16", "float16", "float32"] = "float32",
) -> None:
    """Write a model directory into `folder`, which is made where it is missing. The same input gives the same bytes.

    Raises TrainError for a model with routed experts, which no other reader knows, and for one of another shape.
    """
    if moe_layers(vlm):
        raise TrainError("a model with routed experts is no Qwen2-VL directory. Save the dense model it came from.")
    if size_of(vlm) != size or tokenizer.vocabulary_size > size.vocabulary:
        raise TrainError(f"the model is {size_of(vlm)}, not {size}. Save it with its own size and tokenizer.")
    folder.mkdir(parents=True, exist_ok=True)
    stored = getattr(torch, dtype)
    tensors = {
        name: tensor.detach().cpu().to(stored).contiguous()
        for name, tensor in vlm.state_dict().items()
        if name != _TIED
    }
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    tokenizer.save(folder)
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    _write(folder / "config.json", _config(vlm, dtype))
    ends = [tokenizer.id_of(END_OF_TURN), tokenizer.id_of(END_OF_TEXT)]
    _write(
        folder / "generation_config.json",
        {"bos_token_id": ends[1], "do_sample": False, "eos_token_id": ends, "pad_token_id": ends[1]},
    )
    _write(
        folder / "tokenizer_config.json",
        {
            "clean_up_tokenization_spaces": False,
            "eos_token": END_OF_TURN,
            "model_max_length": _LONGEST_CHAT,
            "pad_token": END_OF_TEXT,
            "padding_side": "left",  # the answer follows the prompt, so padding goes before it
            "tokenizer_class": "PreTrainedTokenizerFast",  # Qwen2's own class would put its word rules over ours
        },
    )
    _write(folder / "preprocessor_config.json", _preprocessor(size))


def load_vlm_directory(folder: Path) -> VlmDirectory:
    """Read a directory that `save_vlm_directory` wrote, or a Qwen2-VL from elsewhere.

    Raises TrainError when it is no such directory, or a weight is missing.
    """
    if not (folder / "config.json").is_file():
        raise TrainError(f"'{folder.name}' holds no config.json. Name a directory with Qwen2-VL weights.")
    tokenizer = LocalTokenizer.load(folder)
    try:
        vlm, report = Qwen2VLForConditionalGeneration.from_pretrained(
            folder, local_files_only=True, output_loading_info=True, dtype=torch.float32
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TrainError(f"'{folder.name}' can not be read as Qwen2-VL ({first[:200]}). Copy it again.") from None
    missing = sorted(set(report["missing_keys"]) - {_TIED})
    if missing:
        raise TrainError(f"'{folder.name}' lacks {len(missing)} weights, first {missing[0]}. Copy it again.")
    return VlmDirectory(vlm=vlm, tokenizer=tokenizer, size=size_of(vlm))


def size_of(vlm: Qwen2VLForConditionalGeneration) -> VlmSize:
    """The shape of a Qwen2-VL, read from its config."""
    return _size(vlm.config)


def read_size(folder: Path) -> VlmSize:
    """The shape of the Qwen2-VL in a directory. Raises TrainError where there is none."""
    try:
        config = Qwen2VLConfig.from_pretrained(folder, local_files_only=True)
        return _size(config)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TrainError(
            f"'{folder.name}' holds no config of a Qwen2-VL ({first[:120]}). Name a model directory (--weights DIR)."
        ) from None


def _size(config: Qwen2VLConfig) -> VlmSize:
    if not config.tie_word_embeddings:  # its output table would be dropped on saving, and tied over on loading
        raise TrainError(
            "this Qwen2-VL has an output table of its own. Name one that shares it with its words, as Qwen2-VL-2B does."
        )
    text, vision = config.text_config, config.vision_config
    return VlmSize(
        width=text.hidden_size,
        depth=text.num_hidden_layers,
        heads=text.num_attention_heads,
        key_heads=text.num_key_value_heads,
        mlp_width=text.intermediate_size,
        vocabulary=text.vocab_size,
        rope_theta=text.rope_parameters["rope_theta"],
        rope_sections=tuple(text.rope_parameters["mrope_section"]),
        vision_width=vision.embed_dim,
        vision_depth=vision.depth,
        vision_heads=vision.num_heads,
        vision_mlp_ratio=vision.mlp_ratio,
        patch_size=vision.patch_size,
        merge_size=vision.spatial_merge_size,
        frames_per_patch=vision.temporal_patch_size,
        init_std=text.initializer_range,
    )


def _config(vlm: Qwen2VLForConditionalGeneration, dtype: str) -> dict[str, object]:
    """The model's config as it is stored; without library versions, which are no part of the model."""
    plain: dict[str, Any] = vlm.config.to_diff_dict()
    for part in (plain, plain["text_config"], plain["vision_config"]):
        for name in ("_name_or_path", "transformers_version", "torch_dtype", "dtype"):
            part.pop(name, None)
    return {**plain, "architectures": ["Qwen2VLForConditionalGeneration"], "dtype": dtype}


def _preprocessor(size: VlmSize) -> dict[str, object]:
    """Qwen2-VL's image processor, set to do what `patchify` does; only pictures over its limit are scaled down."""
    cell = (size.patch_size * size.merge_size) ** 2
    return {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2VLProcessor",
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": MEAN_C.astype(float).round(8).tolist(),
        "image_std": STD_C.astype(float).round(8).tolist(),
        "merge_size": size.merge_size,
        "patch_size": size.patch_size,
        "resample": 3,  # bicubic, as in PIL
        "rescale_factor": 1 / 255,
        "size": {"shortest_edge": cell, "longest_edge": cell * _MOST_IMAGE_TOKENS},  # areas, despite their names
        "temporal_patch_size": size.frames_per_patch,
    }


def _write(path: Path, value: dict[str, object]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")
