"""The whole model: Hugging Face's Qwen2-VL with routed experts, and the action expert beside it.

The VLM keeps Hugging Face's class and key names (`vlm.model.visual.*`, `vlm.model.language_model.*`), so that weights
from elsewhere load and generation works; only its MLPs are swapped and its patch embedding is computed as a product.

Axes: B batch, T tokens, D width, V vocabulary, P patches, H chunk steps, A action numbers, S state numbers.
"""

import hashlib
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration
from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLTextConfig, Qwen2VLVisionConfig

from schemas.chat import IGNORE, IMAGE_TOKEN
from schemas.errors import TrainError
from trainers.models.action_expert import ActionExpert, ActionShape
from trainers.models.moe import MoeMlp, moe_layers, upcycle
from trainers.recipes import TrainConfig, VlmSize
from trainers.tokenizer import END_OF_TEXT, END_OF_TURN, LocalTokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Samples as the model eats them, padded on the right; masks are bool, labels IGNORE where nothing is learned."""

    ids_BT: Tensor
    labels_BT: Tensor
    real_BT: Tensor  # False on padding
    patches_P: Tensor  # (P, numbers per patch), all images of all samples in order
    grids: Tensor  # (images, 3)
    state_BS: Tensor
    actions_BHA: Tensor
    valid_BHA: Tensor  # False on padded steps, on dimensions the embodiment lacks, and on image-text samples
    robot_B: Tensor  # which samples carry actions

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device."""
        return Batch(**{name: getattr(self, name).to(device, non_blocking=True) for name in Batch.__slots__})

    @property
    def reasoning_BT(self) -> Tensor:
        """Tokens of the answer: what the robot says before it acts."""
        return self.labels_BT != IGNORE

    @property
    def prompt_BT(self) -> Tensor:
        """Tokens before the first answer token: what the robot sees and is told."""
        return self.real_BT & (self.reasoning_BT.cumsum(1) == 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """Losses of one pass. The parts are means over their own tokens or elements; `num_*` say over how many."""

    total: Tensor
    text: Tensor
    robot_text: Tensor
    image_text: Tensor
    action: Tensor
    balance: Tensor
    num_text: int
    num_action: int


class FlatPatchEmbed(nn.Module):
    """Qwen2-VL's patch embedding as one matrix product: the same numbers, without Conv3d's slow kernels."""

    def __init__(self, proj: nn.Conv3d) -> None:
        super().__init__()
        self.proj = proj

    def forward(self, patches_P: Tensor) -> Tensor:
        """(P, C*L*P*P) -> (P, D)."""
        kernel = self.proj.weight.flatten(1)
        embedded: Tensor = functional.linear(patches_P.to(kernel.dtype), kernel)
        return embedded


class Vla(nn.Module):
    """Reads a chat with images, says what it reasons, and writes a chunk of actions."""

    def __init__(self, config: TrainConfig, shape: ActionShape, vlm: Qwen2VLForConditionalGeneration) -> None:
        super().__init__()
        self.config = config
        self.vlm = vlm
        self.action_expert = ActionExpert(config.action_expert, shape, config.vlm.width)

    @property
    def moe_layers(self) -> list[MoeMlp]:
        """The routed layers of the language model."""
        return moe_layers(self.vlm)

    def positions(self, ids_BT: Tensor, grids: Tensor) -> Tensor:
        """Qwen2-VL's three positions of each token (time, row, column), (3, B, T)."""
        is_image = (ids_BT == self.vlm.config.image_token_id).int()
        positions: Tensor = self.vlm.model.get_rope_index(
            ids_BT, mm_token_type_ids=is_image, image_grid_thw=grids if len(grids) else None
        )[0]
        return positions

    def embed(self, ids_BT: Tensor, patches_P: Tensor, grids: Tensor) -> Tensor:
        """Token embeddings with image features in the image places, (B, T, D)."""
        x_BTD: Tensor = self.vlm.get_input_embeddings()(ids_BT)
        visual = self.vlm.model.visual
        if len(grids):
            image_PD = visual(patches_P, grid_thw=grids).pooler_output.to(x_BTD.dtype)
            place_BT1 = (ids_BT == self.vlm.config.image_token_id).unsqueeze(-1)
            x_BTD = x_BTD.masked_scatter(place_BT1, image_PD)
            return x_BTD
        # A batch of words alone still touches the vision weights: data-parallel ranks must agree on who has gradients.
        cell = torch.zeros(visual.spatial_merge_size**2, patches_P.shape[1], device=ids_BT.device)
        grid = torch.tensor([[1, visual.spatial_merge_size, visual.spatial_merge_size]], device=ids_BT.device)
        nothing: Tensor = 0 * visual(cell, grid_thw=grid).pooler_output.sum()
        return x_BTD + nothing.to(x_BTD.dtype)

    def hidden(self, batch: Batch) -> Tensor:
        """The language model's last hidden states, (B, T, D).

        No padding mask is needed: padding is on the right, and no token looks to its right.
        """
        for layer in self.moe_layers:
            layer.real_BT = batch.real_BT
        with self.precision():
            h_BTD: Tensor = self.vlm.model.language_model(
                inputs_embeds=self.embed(batch.ids_BT, batch.patches_P, batch.grids),
                position_ids=self.positions(batch.ids_BT, batch.grids),
                use_cache=False,
            ).last_hidden_state
        return h_BTD

    def precision(self) -> torch.autocast:
        """The VLM's passes run in this: bfloat16 products over float32 weights, where the recipe says so.

        Weights stay float32, because an update of 2e-5 of a weight is less than bfloat16 can tell apart. The action
        expert stays outside: diffusion noise drowns in bfloat16's 8 bits.
        """
        device = self.vlm.device.type
        return torch.autocast(device, dtype=torch.bfloat16, enabled=self.config.precision == "bfloat16")

    def forward(
        self,
        batch: Batch,
        generator: torch.Generator,
        *,
        text_weight: float,
        action_weight: float,
        frozen: bool = False,
    ) -> Losses:
        """All losses of one batch. `generator` (CPU) draws the noise; `frozen` keeps no trace of the VLM's pass."""
        with torch.no_grad() if frozen else nullcontext():
            h_BTD = self.hidden(batch)
            text, robot_text, image_text, num_text = self._text_losses(h_BTD, batch)
        seen_BW, reasoned_BW = self.action_expert.condition(
            h_BTD.float(), batch.prompt_BT, batch.reasoning_BT, batch.state_BS
        )
        action = self.action_expert.loss(batch.actions_BHA, batch.valid_BHA, seen_BW, reasoned_BW, generator)
        balances = [layer.balance for layer in self.moe_layers if layer.balance is not None]
        balance = torch.stack(balances).mean() if balances else torch.zeros_like(action)
        weight = self.config.moe.balance_weight
        return Losses(
            total=text_weight * text + action_weight * action + weight * balance,
            text=text,
            robot_text=robot_text,
            image_text=image_text,
            action=action,
            balance=balance,
            num_text=num_text,
            num_action=int(batch.valid_BHA.sum()),
        )

    def _text_losses(self, h_BTD: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor, int]:
        """Cross entropy over all answer tokens, over those of robot samples, over the others; and how many there are.

        The vocabulary is only spread out where a loss is: with 150,000 words it is the largest tensor there is.
        """
        target_BT = batch.labels_BT[:, 1:]
        place_BT = target_BT != IGNORE
        with self.precision():
            logits = self.vlm.lm_head(h_BTD[:, :-1][place_BT]).float()
        losses = functional.cross_entropy(logits, target_BT[place_BT], reduction="none")
        robot = batch.robot_B.unsqueeze(1).expand_as(place_BT)[place_BT]
        robot_text = (losses * robot).sum() / robot.sum().clamp(min=1)
        image_text = (losses * ~robot).sum() / (~robot).sum().clamp(min=1)
        return losses.sum() / max(1, len(losses)), robot_text, image_text, len(losses)


def vlm_config(size: VlmSize, tokenizer: LocalTokenizer | None) -> Qwen2VLConfig:
    """Hugging Face's config of this shape. Without a tokenizer, Qwen2-VL's own special ids stay."""
    text = Qwen2VLTextConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.width,
        intermediate_size=size.mlp_width,
        num_hidden_layers=size.depth,
        num_attention_heads=size.heads,
        num_key_value_heads=size.key_heads,
        rms_norm_eps=1e-6,
        initializer_range=size.init_std,
        tie_word_embeddings=True,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": size.rope_theta,
            "mrope_section": list(size.rope_sections),
        },
        **({} if tokenizer is None else _text_ids(tokenizer)),
    )
    vision = Qwen2VLVisionConfig(
        depth=size.vision_depth,
        embed_dim=size.vision_width,
        hidden_size=size.width,
        num_heads=size.vision_heads,
        mlp_ratio=size.vision_mlp_ratio,
        patch_size=size.patch_size,
        spatial_merge_size=size.merge_size,
        temporal_patch_size=size.frames_per_patch,
        initializer_range=size.init_std,
    )
    ids = {} if tokenizer is None else _vision_ids(tokenizer)
    return Qwen2VLConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), tie_word_embeddings=True, **ids)


def _text_ids(tokenizer: LocalTokenizer) -> dict[str, int]:
    end = tokenizer.id_of(END_OF_TEXT)
    return {"bos_token_id": end, "eos_token_id": tokenizer.id_of(END_OF_TURN), "pad_token_id": end}


def _vision_ids(tokenizer: LocalTokenizer) -> dict[str, int]:
    names = {
        "image_token_id": IMAGE_TOKEN,
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }
    return {name: tokenizer.id_of(token) for name, token in names.items()}


def build_vla(
    config: TrainConfig,
    shape: ActionShape,
    tokenizer: LocalTokenizer | None,
    *,
    empty: bool = False,
) -> Vla:
    """A model ready for its first step: VLM from `config.weights` or from the seed, experts copied from its MLPs.

    `empty` builds only the frame, without memory for a weight, for `load_tensors` to fill. Call it under
    `torch.device("meta")` to get shapes and names only. Raises TrainError when weights are needed and missing, or do
    not fit.
    """
    if empty:
        return _empty_vla(config, shape, tokenizer)
    generator = torch.Generator(device="cpu").manual_seed(seed_of(config.seed, "weights"))
    on_meta = torch.get_default_device().type == "meta"
    if config.needs_weights and config.weights is None and not on_meta:
        raise TrainError(
            f"recipe {config.name} starts from Qwen2-VL weights. Name their local directory (--weights DIR)."
        )
    if config.weights is not None and not on_meta:
        vlm = _load_vlm(config.weights, config.vlm)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(config.seed, "vlm"))
            vlm = Qwen2VLForConditionalGeneration(vlm_config(config.vlm, tokenizer))
    swap_mlps(vlm, config, generator)
    vla = Vla(config, shape, vlm)
    if not on_meta:
        vla.action_expert.initialise(generator)
    return vla


def _empty_vla(config: TrainConfig, shape: ActionShape, tokenizer: LocalTokenizer | None) -> Vla:
    """A frame whose weights are still on no device; the tables that no checkpoint holds are there."""
    with torch.device("meta"):
        vla = build_vla(config, shape, tokenizer)
    language, visual = vla.vlm.model.language_model, vla.vlm.model.visual
    language.rotary_emb = type(language.rotary_emb)(config=vla.vlm.config.text_config)
    head_width = config.vlm.vision_width // config.vlm.vision_heads
    visual.rotary_pos_emb = type(visual.rotary_pos_emb)(head_width // 2)
    for layer in vla.moe_layers:
        layer.load_E = torch.zeros_like(layer.load_E, device="cpu")
    return vla


def swap_mlps(vlm: Qwen2VLForConditionalGeneration, config: TrainConfig, generator: torch.Generator) -> None:
    """Put routed experts in place of the language model's MLPs, and a product in place of the patch convolution."""
    for index, layer in enumerate(vlm.model.language_model.layers):
        if index % config.moe.every == 0:
            layer.mlp = upcycle(layer.mlp, config.moe, generator)
    vlm.model.visual.patch_embed = FlatPatchEmbed(vlm.model.visual.patch_embed.proj)
    if config.gradient_checkpointing:
        vlm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def _load_vlm(folder: Path, size: VlmSize) -> Qwen2VLForConditionalGeneration:
    """A Qwen2-VL from a local directory; every weight must arrive, because a missing one is random without a word."""
    if not (folder / "config.json").is_file():
        raise TrainError(f"'{folder.name}' holds no config.json. Name a directory with Qwen2-VL weights.")
    try:
        vlm, report = Qwen2VLForConditionalGeneration.from_pretrained(
            folder, local_files_only=True, output_loading_info=True, dtype=torch.float32
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:  # cut off, or of another shape
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TrainError(f"'{folder.name}' can not be read as Qwen2-VL ({first[:200]}). Copy it again.") from None
    missing = sorted(set(report["missing_keys"]) - {"lm_head.weight"})  # tied to the embeddings
    if missing:
        raise TrainError(f"'{folder.name}' lacks {len(missing)} weights, first {missing[0]}. Download it again.")
    text = vlm.config.text_config
    got, want = (text.hidden_size, text.num_hidden_layers), (size.width, size.depth)
    if got != want:
        raise TrainError(
            f"'{folder.name}' is {got[0]} wide and {got[1]} deep, the recipe wants {want[0]} and {want[1]}."
        )
    return vlm


def seed_of(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed keyed by (seed, purpose): no two uses share a stream, and a restart draws the same again."""
    digest = hashlib.sha256("/".join(map(str, (seed, *purpose))).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
