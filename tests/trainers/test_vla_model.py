"""The whole model: its size and names at full scale, and what padding, missing images and foreign weights do to it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_runs import robot_sample, text_sample, tiny
from transformers import Qwen2VLForConditionalGeneration

from schemas.errors import TrainError
from schemas.mixes import Sample
from trainers.checkpoint import load_tensors, model_tensors
from trainers.data import Collator
from trainers.models.action_expert import ActionShape
from trainers.models.moe import reset_load
from trainers.models.vla import Batch, Vla, build_vla, vlm_config
from trainers.recipes import chatvla2_2b
from trainers.tokenizer import nano_tokenizer

SHAPE = ActionShape(steps=6, action_width=3, state_width=2)


def collate(samples: Sequence[Sample]) -> Batch:
    return Collator(config=tiny(), tokenizer=nano_tokenizer(), shape=SHAPE)(samples)


def tiny_vla() -> Vla:
    return build_vla(tiny(), SHAPE, nano_tokenizer())


def test_chatvla2_2b_has_the_weights_its_dimensions_say() -> None:
    with torch.device("meta"):
        vla = build_vla(chatvla2_2b(), ActionShape(steps=50, action_width=14, state_width=14), None)

    width, depth, mlp, vocabulary, keys = 1536, 28, 8960, 151936, 256
    attention = width * (width + 2 * keys) + (width + 2 * keys) + width * width
    dense_mlp = 3 * width * mlp
    norms = 2 * width
    see = 1280
    vision_block = (see * 3 * see + 3 * see) + (see * see + see) + (4 * see * see + 4 * see) + (4 * see * see + see)
    vision = 3 * 2 * 14 * 14 * see + 32 * (vision_block + 4 * see)
    merger = 2 * see + (4 * see) ** 2 + 4 * see + 4 * see * width + width
    dense = vocabulary * width + depth * (attention + dense_mlp + norms) + width + vision + merger
    assert dense == 2_208_985_600, "Qwen2-VL-2B as published"
    routed = depth * (8 * dense_mlp + 8 * width - dense_mlp)

    act = 1280
    block = 3 * act * act + 3 * act + act * act + act + 8 * act * act + 5 * act + 6 * act * act + 6 * act
    linear_pools = 2 * 2 * (width * width + width) + 2 * 2 * width
    embeds = 2 * ((width + 14) * act + act) + (256 * act + act) + (act * act + act) + (14 * act + act) + 50 * act
    final = 2 * act * act + 2 * act + act * 14 + 14
    expert = 32 * block + linear_pools + embeds + final
    assert 0.9e9 < expert < 1.1e9, "ScaleDP-H is called 1B"

    assert sum(parameter.numel() for parameter in vla.vlm.parameters()) == dense + routed
    assert sum(parameter.numel() for parameter in vla.parameters()) == dense + routed + expert
    names = dict(vla.vlm.named_parameters())
    assert names["model.language_model.layers.27.mlp.experts.gate_up_proj"].shape == (8, 2 * mlp, width)
    assert names["model.language_model.layers.0.mlp.experts.down_proj"].shape == (8, width, mlp)
    assert names["model.language_model.layers.0.mlp.gate.weight"].shape == (8, width)
    assert names["model.visual.patch_embed.proj.weight"].shape == (see, 3, 2, 14, 14)
    assert "model.visual.merger.mlp.2.weight" in names
    assert not [name for name in names if name.endswith("mlp.gate_proj.weight")]


def test_padding_does_not_change_what_a_sample_means() -> None:
    vla = tiny_vla().eval()
    short, long = text_sample(1), robot_sample(2)
    with torch.no_grad():
        alone, beside = vla.hidden(collate([short])), vla.hidden(collate([short, long]))
    real = int(collate([short]).real_BT.sum())
    torch.testing.assert_close(beside[0, :real], alone[0], rtol=1e-4, atol=1e-5)


def test_our_forward_pass_is_hugging_faces() -> None:
    vla = tiny_vla().eval()
    batch = collate([robot_sample(1), robot_sample(2)])
    is_image = (batch.ids_BT == vla.vlm.config.image_token_id).int()
    with torch.no_grad():
        ours = vla.vlm.lm_head(vla.hidden(batch))
        theirs = vla.vlm(
            input_ids=batch.ids_BT,
            attention_mask=batch.real_BT.long(),
            pixel_values=batch.patches_P,
            image_grid_thw=batch.grids,
            mm_token_type_ids=is_image,
        ).logits
    torch.testing.assert_close(ours[batch.real_BT], theirs[batch.real_BT], rtol=1e-4, atol=1e-4)


def test_the_flat_patch_embedding_is_the_convolution() -> None:
    torch.manual_seed(0)
    plain = Qwen2VLForConditionalGeneration(vlm_config(tiny().vlm, nano_tokenizer()))
    embed = plain.model.visual.patch_embed
    patches = torch.randn(5, 3 * 20 * 20)
    vla = tiny_vla()
    with torch.no_grad():
        vla.vlm.model.visual.patch_embed.proj.weight.copy_(embed.proj.weight)
        torch.testing.assert_close(vla.vlm.model.visual.patch_embed(patches), embed(patches), rtol=1e-4, atol=1e-5)


def losses(vla: Vla, samples: Sequence[Sample]) -> dict[str, float]:
    found = vla(collate(samples), torch.Generator().manual_seed(0), text_weight=1.0, action_weight=1.0)
    found.total.backward()
    names = ("total", "text", "robot_text", "image_text", "action")
    return {name: float(getattr(found, name).detach()) for name in names}


@pytest.mark.parametrize(
    ("samples", "silent"),
    [
        ([text_sample(1, images=0)], {"action", "robot_text"}),
        ([text_sample(1)], {"action", "robot_text"}),
        ([robot_sample(1)], {"image_text"}),
    ],
    ids=["words alone", "image-text", "robot"],
)
def test_any_kind_of_batch_alone_gives_every_weight_a_gradient(samples: list[Sample], silent: set[str]) -> None:
    vla = tiny_vla().train()
    found = losses(vla, samples)
    assert {name for name, loss in found.items() if loss == 0} == silent
    assert [name for name, parameter in vla.named_parameters() if parameter.grad is None] == []


def test_text_loss_is_the_mean_over_answer_tokens_only() -> None:
    vla = tiny_vla().eval()
    batch = collate([robot_sample(1), text_sample(2)])
    with torch.no_grad():
        found = vla(batch, torch.Generator().manual_seed(0), text_weight=1.0, action_weight=1.0)
        logits = vla.vlm.lm_head(vla.hidden(batch))
    want = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), batch.labels_BT[:, 1:].flatten(), ignore_index=-100
    )
    torch.testing.assert_close(found.text, want, rtol=1e-4, atol=1e-5)


def test_the_prompt_ends_where_the_answer_begins() -> None:
    batch = collate([robot_sample(1), text_sample(1)])
    tokenizer = nano_tokenizer()
    prompt = tokenizer.decode(batch.ids_BT[0][batch.prompt_BT[0]].tolist())
    answer = tokenizer.decode(batch.ids_BT[0][batch.reasoning_BT[0]].tolist())
    assert prompt.endswith("<|im_start|>assistant\n")
    assert answer.startswith("I pick ")
    assert answer.endswith(".<|im_end|>")


def test_local_weights_load_whole_and_a_missing_one_is_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    config = replace(tiny(), needs_weights=True, weights=tmp_path)
    torch.manual_seed(3)
    plain = Qwen2VLForConditionalGeneration(vlm_config(config.vlm, nano_tokenizer()))
    plain.save_pretrained(tmp_path)
    vla = build_vla(config, SHAPE, nano_tokenizer())
    ours, theirs = vla.vlm.state_dict(), plain.state_dict()
    shared = [name for name in theirs if ".mlp." not in name or "visual" in name]
    assert all(torch.equal(ours[name], theirs[name]) for name in shared)
    first = theirs["model.language_model.layers.1.mlp.down_proj.weight"]
    assert torch.equal(ours["model.language_model.layers.1.mlp.experts.down_proj"][0], first)

    tensors = load_file(tmp_path / "model.safetensors")
    lost = next(name for name in tensors if "visual.blocks.0.attn.qkv.weight" in name)
    save_file(
        {n: t for n, t in tensors.items() if n != lost}, tmp_path / "model.safetensors", metadata={"format": "pt"}
    )
    with pytest.raises(TrainError, match=r"lacks 1 weights, first model\.visual\.blocks\.0\.attn\.qkv\.weight"):
        build_vla(config, SHAPE, nano_tokenizer())


def test_a_recipe_that_needs_weights_says_so() -> None:
    with pytest.raises(TrainError, match="Name their local directory"):
        build_vla(replace(tiny(), needs_weights=True), SHAPE, nano_tokenizer())


def test_one_seed_makes_one_model() -> None:
    first, again = tiny_vla().state_dict(), tiny_vla().state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = build_vla(replace(tiny(), seed=1), SHAPE, nano_tokenizer()).state_dict()
    name = "vlm.model.language_model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(first[name], other[name])


def test_the_router_is_judged_without_padding() -> None:
    vla = tiny_vla().train()
    short, long = collate([text_sample(1)]), collate([text_sample(1), robot_sample(2)])
    vla.hidden(short)
    alone = [(layer.balance, float(layer.load_E.sum())) for layer in vla.moe_layers]
    reset_load(vla.moe_layers)
    padded = replace(long, **{name: getattr(long, name)[:1] for name in ("ids_BT", "labels_BT", "real_BT")})
    assert not padded.real_BT.all()
    vla.hidden(replace(padded, patches_P=short.patches_P, grids=short.grids))
    for layer, (balance, load) in zip(vla.moe_layers, alone, strict=True):
        torch.testing.assert_close(layer.balance, balance, rtol=1e-4, atol=1e-5)
        assert float(layer.load_E.sum()) == load == 2 * int(short.real_BT.sum())


def test_bfloat16_keeps_float32_weights_tables_and_updates() -> None:
    vla = build_vla(replace(tiny(), precision="bfloat16"), SHAPE, nano_tokenizer()).train()
    assert {tensor.dtype for tensor in (*vla.parameters(), *vla.buffers())} == {torch.float32}
    inner = {name: buffer for name, buffer in vla.named_buffers() if name.endswith("inv_freq")}
    plain = dict(tiny_vla().named_buffers())
    assert inner
    assert all(torch.equal(buffer, plain[name]) for name, buffer in inner.items())

    kinds: list[torch.dtype] = []
    layer = vla.vlm.model.language_model.layers[0]
    for module in (layer.self_attn.q_proj, layer.mlp.experts.act_fn):
        module.register_forward_hook(lambda _m, _i, out: kinds.append(out.dtype))
    layer.mlp.gate.register_forward_hook(lambda _m, _i, out: kinds.append(out[2].dtype))
    found = losses(vla, [robot_sample(1), text_sample(2)])
    assert kinds == [torch.bfloat16, torch.float32, torch.bfloat16], "the router alone scores in float32"
    exact = losses(tiny_vla().train(), [robot_sample(1), text_sample(2)])
    assert found["total"] == pytest.approx(exact["total"], rel=0.03)
    assert found["total"] != exact["total"]

    weight = layer.mlp.experts.down_proj
    assert weight.grad is not None
    weight.grad = torch.ones_like(weight)
    before = weight.detach().clone()
    scale = float(before.abs().mean())
    torch.optim.SGD([weight], lr=1e-5 * scale).step()
    moved = (before - weight.detach()) / scale
    torch.testing.assert_close(moved.mean(), torch.tensor(1e-5), rtol=0.05, atol=0)
    assert (moved > 0).float().mean() > 0.9


def test_a_frame_to_be_filled_costs_no_weights_and_no_random_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vla = tiny_vla()
    save_file(model_tensors(vla), tmp_path / "model.safetensors")
    with monkeypatch.context() as patch:
        patch.setattr(torch, "randn", lambda *a, **k: pytest.fail("noise for experts that a checkpoint brings"))
        frame = build_vla(tiny(), SHAPE, nano_tokenizer(), empty=True)
    assert all(parameter.is_meta for parameter in frame.parameters())
    load_tensors(frame, tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    ours, theirs = frame.state_dict(), vla.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    buffers = dict(frame.named_buffers())
    assert all(torch.equal(buffers[name], buffer) for name, buffer in vla.named_buffers())
    assert frame.vlm.lm_head.weight is frame.vlm.get_input_embeddings().weight
    samples = [robot_sample(1), text_sample(2)]
    assert losses(frame.train(), samples) == losses(vla.train(), samples)
