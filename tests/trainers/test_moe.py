"""Routed experts: they start as the dense MLP, every kernel computes the same, and the router can learn."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2MLP

from trainers.models.moe import MoeMlp, load_entropy, reset_load, upcycle
from trainers.models.vla import build_vla, swap_mlps, vlm_config
from trainers.recipes import MoeSize, VlmSize


def dense_mlp(size: VlmSize) -> Qwen2MLP:
    torch.manual_seed(0)
    return Qwen2MLP(vlm_config(size, None).text_config)


def small_vlm() -> VlmSize:
    from tiny_runs import tiny

    return tiny().vlm


def routed(**changes: object) -> tuple[Qwen2MLP, MoeMlp]:
    mlp = dense_mlp(small_vlm())
    size = replace(MoeSize(), **changes)  # type: ignore[arg-type]  # test names the fields it changes
    return mlp, upcycle(mlp, size, torch.Generator().manual_seed(1))


def tokens(count: int = 40) -> Tensor:
    return torch.randn(2, count // 2, small_vlm().width, generator=torch.Generator().manual_seed(2))


def test_without_noise_the_experts_compute_exactly_what_the_dense_mlp_does() -> None:
    mlp, moe = routed(noise=0.0)
    torch.testing.assert_close(moe(tokens()), mlp(tokens()), rtol=1e-5, atol=1e-6)


def test_with_one_percent_noise_the_first_step_is_the_dense_one_to_one_percent() -> None:
    from tiny_runs import tiny
    from transformers import Qwen2VLForConditionalGeneration

    from trainers.tokenizer import nano_tokenizer

    config = tiny()
    torch.manual_seed(0)
    vlm = Qwen2VLForConditionalGeneration(vlm_config(config.vlm, nano_tokenizer())).eval()
    ids = torch.randint(10, 1000, (2, 30), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        dense = vlm(input_ids=ids).logits
        swap_mlps(vlm, config, torch.Generator().manual_seed(4))
        upcycled = vlm(input_ids=ids).logits
    assert len([layer for layer in vlm.modules() if isinstance(layer, MoeMlp)]) == config.vlm.depth
    deviation = float((dense - upcycled).norm() / dense.norm())
    assert 0 < deviation < 0.01


@pytest.mark.parametrize("dispatch", ["grouped_mm", "batched_mm"])
def test_every_kernel_agrees_with_the_loop_over_experts(dispatch: str) -> None:
    _, reference = routed(dispatch="eager", noise=0.3)
    _, moe = routed(dispatch=dispatch, noise=0.3)
    x, y = tokens().requires_grad_(), tokens().requires_grad_()
    want, got = reference(x), moe(y)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)
    want.square().sum().backward()
    got.square().sum().backward()
    torch.testing.assert_close(y.grad, x.grad, rtol=1e-4, atol=1e-6)
    for ours, theirs in zip(moe.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-6)


def test_only_different_experts_teach_the_router() -> None:
    shares = {}
    for noise in (0.0, 0.01):
        _, moe = routed(noise=noise)
        moe(tokens()).square().sum().backward()
        router, experts = moe.gate.weight.grad, moe.experts.down_proj.grad
        assert router is not None
        assert experts is not None
        shares[noise] = float(router.norm() / experts.norm())
    assert shares[0.0] < 1e-6
    assert shares[0.01] > 1e-4


def test_each_token_goes_to_two_experts_and_the_counters_see_it() -> None:
    _, moe = routed()
    moe.train()
    moe(tokens(40))
    assert float(moe.load_E.sum()) == 80
    assert 0 < load_entropy([moe]) <= 1
    assert moe.balance is not None
    assert moe.balance.item() >= 0.9
    reset_load([moe])
    assert float(moe.load_E.sum()) == 0
    moe.eval()
    moe(tokens(40))
    assert float(moe.load_E.sum()) == 0


def test_the_balance_loss_pushes_work_away_from_the_busiest_expert() -> None:
    _, moe = routed()
    moe.train()
    with torch.no_grad():
        moe.gate.weight.zero_()
        moe.gate.weight[3] += tokens().mean(dim=(0, 1))
    x = tokens() * 0.1 + tokens().mean(dim=(0, 1))
    moe(x)
    assert moe.balance is not None
    torch.autograd.backward(moe.balance)
    gradient = moe.gate.weight.grad
    assert gradient is not None
    with torch.no_grad():
        before = float(moe.gate(x.reshape(-1, x.shape[-1]))[2][:, 3].mean())
        moe.gate.weight.sub_(0.1 * gradient)
        after = float(moe.gate(x.reshape(-1, x.shape[-1]))[2][:, 3].mean())
    assert after < before


def test_padding_counts_neither_in_the_balance_nor_in_the_load() -> None:
    _, moe = routed()
    moe.train()
    x = tokens(40)
    moe(x)
    assert moe.balance is not None
    balance, load = moe.balance.detach(), moe.load_E.clone()
    reset_load([moe])
    padding = torch.full((2, 30, x.shape[-1]), 3.0)  # thirty times the same token: all of it goes to two experts
    moe.real_BT = torch.cat([torch.ones(2, 20), torch.zeros(2, 30)], dim=1).bool()
    moe(torch.cat([x, padding], dim=1))
    torch.testing.assert_close(moe.balance.detach(), balance)
    assert torch.equal(moe.load_E, load)


def test_every_second_layer_can_stay_dense() -> None:
    from tiny_runs import tiny

    from trainers.models.action_expert import ActionShape
    from trainers.tokenizer import nano_tokenizer

    config = replace(tiny(), moe=MoeSize(every=2))
    vla = build_vla(config, ActionShape(steps=1, action_width=1, state_width=1), nano_tokenizer())
    assert [isinstance(layer.mlp, MoeMlp) for layer in vla.vlm.model.language_model.layers] == [True, False]
